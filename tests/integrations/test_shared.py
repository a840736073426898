"""What the integrations share: lazy imports, messages, columns of molecules, models loaded once."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_checkpoint

from molcmim import MolCMIM, Status
from molcmim.integrations import feature_names, load, log_bad_rows, one_column
from molcmim.pretrained import CheckpointError

LIBRARIES = {
    "sklearn": ("scikit-learn", "sklearn"),
    "deepchem": ("DeepChem", "deepchem"),
    "skfp": ("scikit-fingerprints", "skfp"),
    "molfeat": ("molfeat", "molfeat"),
}


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_package_imports_no_library_and_no_torch() -> None:
    done = python("import sys, molcmim.integrations; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not {*LIBRARIES, "torch", "rdkit", "pandas", "joblib"} & set(done.stdout.split())


@pytest.mark.parametrize("module", LIBRARIES)
def test_a_missing_library_says_what_to_install(module: str) -> None:
    done = python(f"import sys; sys.modules[{module!r}] = None; import molcmim.integrations.{module}")
    library, extra = LIBRARIES[module]
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {library} can't be imported (")
    assert last.endswith(f"; pip install molcmim[{extra}]")


def test_one_column_takes_every_form_of_one() -> None:
    pandas = pytest.importorskip("pandas", reason="Series and DataFrame need pandas")
    rows = ["CCO", None, "C"]
    index = [7, 3, 7]  # positions count, not labels
    forms = [
        rows,
        tuple(rows),
        iter(rows),
        np.array(rows, dtype=object),
        np.array(rows, dtype=object)[:, None],
        pandas.Series(rows, index=index, dtype=object),
        pandas.DataFrame({"smiles": pandas.Series(rows, index=index, dtype=object)}),
        [["CCO"], [None], ["C"]],
    ]
    for form in forms:
        assert one_column(form) == rows
    assert one_column(np.array(["CCO", "C"])) == ["CCO", "C"]
    assert one_column([]) == []


def test_one_column_refuses_others() -> None:
    with pytest.raises(ValueError, match=r"X: expected one column of molecules, got shape \(2, 2\)"):
        one_column(np.array([["C", "C"], ["C", "C"]]))
    with pytest.raises(ValueError, match=r"X: expected one column of molecules, got a row \['C', 'CC'\]"):
        one_column([["C"], ["C", "CC"]])
    with pytest.raises(TypeError, match="got a single str"):
        one_column("CCO")
    scipy_sparse = pytest.importorskip("scipy.sparse", reason="sparse matrices need SciPy")
    with pytest.raises(TypeError, match="got a csr_array; sparse is not supported"):
        one_column(scipy_sparse.csr_array((3, 1)))


@pytest.mark.parametrize("objective", ["cmim", "mlm", "infonce"])
def test_feature_names_are_as_many_as_features(tmp_path: Path, objective: str) -> None:
    directory = tiny_checkpoint(tmp_path / "model", objective)
    model = MolCMIM.from_pretrained(directory, device="cpu")
    for kind in ("latent", "informative", "both"):
        if objective == "cmim" or kind == "latent":
            names = feature_names(directory, kind)
            assert names == feature_names(model, kind)
            assert len(set(names)) == model.embed(["CCO"], kind=kind).shape[1]
        else:
            with pytest.raises(ValueError, match=f"kind: expected 'latent', got '{kind}'"):
                feature_names(directory, kind)
    with pytest.raises(ValueError, match="kind: expected one of"):
        feature_names(directory, "graph")


def test_names_follow_the_columns(tmp_path: Path) -> None:
    names = feature_names(tiny_checkpoint(tmp_path / "model"), "both")
    assert names[:2] == ["latent0", "latent1"]
    assert names[24:26] == ["informative0", "informative1"]  # latent 24, width 32
    assert len(names) == 56


def test_a_model_is_read_once_until_its_files_change(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "model")
    first = load(directory, "cpu")
    assert load(str(directory), "cpu") is first
    assert load(directory, "cpu", "bfloat16").dtype == "bfloat16"
    tiny_checkpoint(tmp_path / "model", seed=1)
    second = load(directory, "cpu")
    assert second.model_id != first.model_id


def test_a_loaded_model_stays_as_it_is(tmp_path: Path) -> None:
    model = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path / "model"), device="cpu")
    assert load(model) is model
    assert load(model, "cpu", "float32") is model
    with pytest.raises(ValueError, match="dtype: expected None or 'float32', the model's, got 'bfloat16'"):
        load(model, dtype="bfloat16")
    with pytest.raises(ValueError, match="device: expected None or 'cpu', the model's, got 'meta'"):
        load(model, device="meta")


def test_no_such_model() -> None:
    with pytest.raises(CheckpointError, match="no checkpoint 'nonsense'"):
        load("nonsense")


def test_bad_rows_are_counted_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    log_bad_rows([Status.ok, Status.empty, Status.parse_error, Status.empty], "their rows are NaN")
    log_bad_rows([Status.ok], "their rows are NaN")
    assert caplog.record_tuples == [
        (
            "molcmim.integrations",
            logging.WARNING,
            "3 of 4 molecules have no embedding (empty 2, parse_error 1): their rows are NaN",
        )
    ]
