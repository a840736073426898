"""The scikit-fingerprints fingerprint against the library."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from tiny import SMILES, tiny_checkpoint

pytest.importorskip("skfp", reason="needs scikit-fingerprints")

from rdkit import Chem
from skfp.bases import BaseFingerprintTransformer
from skfp.fingerprints import MACCSFingerprint
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline, make_union

from molcmim import MolCMIM
from molcmim.integrations.skfp import MolCMIMFingerprint

BAD = ["CCO", "C1CC", None, "C", "[Xe]"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("skfp") / "model")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


@pytest.mark.parametrize("kind", ["latent", "informative", "both"])
def test_equals_embed(checkpoint: Path, model: MolCMIM, kind: str) -> None:
    fingerprint = MolCMIMFingerprint(kind, checkpoint, device="cpu")
    assert isinstance(fingerprint, BaseFingerprintTransformer)
    expected = model.embed(SMILES, kind=kind)
    x = fingerprint.fit_transform(SMILES)
    np.testing.assert_array_equal(x, expected)
    assert x.dtype == np.float32
    assert fingerprint.n_features_out == x.shape[1]
    molecules = [Chem.MolFromSmiles(smiles) for smiles in SMILES]
    np.testing.assert_array_equal(fingerprint.transform(molecules), expected)
    np.testing.assert_array_equal(fingerprint.transform(np.array(SMILES), copy=True), expected)


def test_the_default_model_is_the_shipped_one() -> None:
    np.testing.assert_array_equal(MolCMIMFingerprint().transform(["CCO"]), MolCMIM.from_pretrained().embed(["CCO"]))


def test_two_jobs_give_what_one_gives_in_order(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = (BAD + SMILES) * 3
    one = MolCMIMFingerprint(model=checkpoint, device="cpu").transform(rows)
    caplog.clear()
    fingerprint = MolCMIMFingerprint(model=checkpoint, device="cpu", n_jobs=2, batch_size=7)
    two = fingerprint.transform(rows)
    np.testing.assert_allclose(two, one, atol=1e-5)
    assert np.flatnonzero(np.isnan(two).all(axis=1)).tolist() == [i for i in range(39) if i % 13 in (1, 2, 4)]
    assert caplog.messages == [
        "9 of 39 molecules have no embedding (parse_error 3, empty 3, unknown_token 3): their rows are NaN"
    ]
    with pytest.raises(ValueError, match=r"row 1: 'C1CC' can't be used: parse_error \(9 bad of 39 rows\)"):
        fingerprint.set_params(on_error="raise").transform(rows)  # row 1 of all, not of a part
    assert fingerprint.transform(["C"]).shape == (1, 56)


def test_verbose_shows_a_bar_and_changes_nothing(
    checkpoint: Path, model: MolCMIM, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["C" * (1 + i % 20) for i in range(1500)]  # more than one step of the bar
    quiet = MolCMIMFingerprint("latent", checkpoint, device="cpu")
    x = quiet.transform(rows)
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(x, model.embed(rows, kind="latent"))
    loud = MolCMIMFingerprint("latent", checkpoint, device="cpu", verbose={"desc": "molcmim"})
    np.testing.assert_allclose(loud.transform(rows), x, atol=1e-5)
    bar = capsys.readouterr().err
    assert "molcmim: 100%" in bar
    assert "1500/1500" in bar


def test_bad_rows_are_nan_in_place(checkpoint: Path, model: MolCMIM, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "molcmim"):
        x = MolCMIMFingerprint(model=checkpoint, device="cpu").transform(BAD)
    np.testing.assert_array_equal(x, model.embed(BAD))
    assert np.isnan(x).all(axis=1).tolist() == [False, True, True, False, True]
    assert caplog.messages[0].startswith("3 of 5 molecules have no embedding (")


def test_options_are_checked_as_the_library_does(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="The 'on_error' parameter of MolCMIMFingerprint must be a str among"):
        MolCMIMFingerprint(model=checkpoint, on_error="drop").transform(["C"])
    with pytest.raises(ValueError, match="The 'n_jobs' parameter"):
        MolCMIMFingerprint(model=checkpoint, n_jobs="two").transform(["C"])
    with pytest.raises(ValueError, match="kind: expected one of"):
        MolCMIMFingerprint("graph", checkpoint)


def test_scikit_learn_tools(checkpoint: Path, model: MolCMIM) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas output")
    fingerprint = MolCMIMFingerprint("both", checkpoint, device="cpu")
    latent = clone(fingerprint).set_params(kind="latent")
    assert (latent.n_features_out, fingerprint.n_features_out) == (24, 56)
    table = latent.set_output(transform="pandas").fit_transform(pandas.Series(SMILES))
    assert table.columns[[0, -1]].tolist() == ["molcmimfingerprint0", "molcmimfingerprint23"]
    np.testing.assert_array_equal(table.to_numpy(), model.embed(SMILES, kind="latent"))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fingerprint)).transform(SMILES), model.embed(SMILES))
    loaded = clone(MolCMIMFingerprint(model=model))
    np.testing.assert_array_equal(loaded.transform(SMILES), model.embed(SMILES))

    union = make_union(MACCSFingerprint(), fingerprint)
    x = union.fit_transform(SMILES)
    np.testing.assert_array_equal(x[:, -56:].astype(np.float32), model.embed(SMILES))
    assert x.shape == (len(SMILES), MACCSFingerprint().n_features_out + 56)
    assert make_pipeline(union, Ridge()).fit(SMILES, range(len(SMILES))).predict(SMILES[:2]).shape == (2,)
