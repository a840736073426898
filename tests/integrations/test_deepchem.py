"""The DeepChem featurizer against the library, its MoleculeNet loaders too."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SMILES, tiny_checkpoint

pytest.importorskip("deepchem", reason="needs DeepChem, which doesn't install on Python 3.12 or later")

import deepchem as dc
from rdkit import Chem

from molcmim import MolCMIM
from molcmim.integrations.deepchem import MolCMIMFeaturizer

BAD = ["CCO", "C1CC", None, "C", "[Xe]"]
TARGET = "measured log solubility in mols per litre"
# Twelve rows, two of them without an embedding: a SMILES that can't be read, a token that the tiny model hasn't got.
ROWS = [*SMILES[:3], "C1CC", *SMILES[3:6], "[Xe]", *SMILES[6:], "CCCCO", "Cc1ccccc1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("deepchem") / "model")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def delaney(tmp_path: Path) -> dict[str, Any]:
    """Options of `load_delaney`: a small file in the place of the one that it would download."""
    lines = [f"mol{i},{smiles},{-i / 10}" for i, smiles in enumerate(ROWS)]
    header = f"Compound ID,smiles,{TARGET}"
    (tmp_path / "delaney-processed.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return {"data_dir": str(tmp_path), "save_dir": str(tmp_path / "saved"), "transformers": []}


# ---------------------------------------------------------------------------------------------- featurize


@pytest.mark.parametrize("kind", ["latent", "informative", "both"])
def test_equals_embed(checkpoint: Path, model: MolCMIM, kind: str) -> None:
    featurizer = MolCMIMFeaturizer(checkpoint, kind, device="cpu")
    assert isinstance(featurizer, dc.feat.MolecularFeaturizer)
    expected = model.embed(SMILES, kind=kind)
    x = featurizer.featurize(SMILES)
    np.testing.assert_array_equal(x, expected)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(featurizer([Chem.MolFromSmiles(smiles) for smiles in SMILES]), expected)


def test_the_default_model_is_the_shipped_one() -> None:
    np.testing.assert_array_equal(MolCMIMFeaturizer()(["CCO"]), MolCMIM.from_pretrained().embed(["CCO"]))


def test_a_single_molecule(checkpoint: Path, model: MolCMIM) -> None:
    featurizer = MolCMIMFeaturizer(checkpoint, device="cpu")
    for single in ("CCO", Chem.MolFromSmiles("CCO")):
        np.testing.assert_array_equal(featurizer.featurize(single), model.embed(["CCO"]))
    np.testing.assert_array_equal(featurizer._featurize("CCO"), model.embed(["CCO"])[0])


def test_bad_rows_keep_the_array_regular(checkpoint: Path, model: MolCMIM, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "molcmim"):
        x = MolCMIMFeaturizer(checkpoint, device="cpu").featurize(BAD)
    assert (x.shape, x.dtype) == ((5, 56), np.float32)
    np.testing.assert_array_equal(x, model.embed(BAD))
    assert np.isnan(x).all(axis=1).tolist() == [False, True, True, False, True]
    assert caplog.messages[0].startswith("3 of 5 molecules have no embedding (")
    assert caplog.messages[0].endswith("): their rows are NaN")


def test_drop_is_what_deepchem_does(checkpoint: Path, model: MolCMIM) -> None:
    featurizer = MolCMIMFeaturizer(checkpoint, on_error="drop", device="cpu")
    x = featurizer.featurize(BAD)
    assert [row.size for row in x] == [56, 0, 0, 56, 0]
    np.testing.assert_array_equal(x[3], model.embed(BAD)[3])
    assert featurizer.featurize(["C1CC"])[0].size == 0
    np.testing.assert_array_equal(featurizer.featurize(SMILES), model.embed(SMILES))  # regular without bad rows


def test_raise_and_wrong_options(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"row 1: 'C1CC' can't be used: parse_error \(3 bad of 5 rows\)"):
        MolCMIMFeaturizer(checkpoint, on_error="raise", device="cpu").featurize(BAD)
    with pytest.raises(ValueError, match=r"on_error: expected one of \('nan', 'drop', 'raise'\), got 'zero'"):
        MolCMIMFeaturizer(checkpoint, on_error="zero")


# ---------------------------------------------------------------------------------------------- load_delaney


def test_load_delaney_keeps_every_row(
    checkpoint: Path, model: MolCMIM, delaney: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    featurizer = MolCMIMFeaturizer(checkpoint, device="cpu")
    tasks, (dataset,), _ = dc.molnet.load_delaney(featurizer=featurizer, splitter=None, **delaney)
    assert tasks == [TARGET]
    assert dataset.ids.tolist() == ROWS
    np.testing.assert_array_equal(dataset.X, model.embed(ROWS))
    np.testing.assert_allclose(dataset.y[:, 0], [-i / 10 for i in range(12)])
    bad = [3, 7]
    assert np.flatnonzero(np.isnan(dataset.X).any(axis=1)).tolist() == bad
    ours = [message for message in caplog.messages if "no embedding" in message]
    assert ours == ["2 of 12 molecules have no embedding (parse_error 1, unknown_token 1): their rows are NaN"]
    finite = dataset.select(np.flatnonzero(np.isfinite(dataset.X).all(axis=1)))  # as the docstring says
    assert finite.ids.tolist() == [smiles for i, smiles in enumerate(ROWS) if i not in bad]


def test_load_delaney_splits_and_drops(checkpoint: Path, model: MolCMIM, delaney: dict[str, Any]) -> None:
    featurizer = MolCMIMFeaturizer(checkpoint, on_error="drop", device="cpu")
    _, parts, _ = dc.molnet.load_delaney(featurizer=featurizer, splitter="random", **delaney)
    embeddings = dict(zip(ROWS, model.embed(ROWS), strict=True))
    values = {smiles: -i / 10 for i, smiles in enumerate(ROWS)}
    ids = [smiles for part in parts for smiles in part.ids]
    assert sorted(ids) == sorted(smiles for smiles in ROWS if smiles not in ("C1CC", "[Xe]"))
    for part in parts:
        np.testing.assert_array_equal(part.X, np.stack([embeddings[smiles] for smiles in part.ids]))
        np.testing.assert_allclose(part.y[:, 0], [values[smiles] for smiles in part.ids])


def test_deepchems_splitters_and_unreadable_rows(checkpoint: Path) -> None:
    """As the docstring of the featurizer warns; a newer DeepChem may do better."""
    smiles = ["c1ccccc1"] * 7 + ["C1CC"] + ["C1CCCCC1"] * 2 + ["c1ccncc1"]
    dataset = dc.data.NumpyDataset(MolCMIMFeaturizer(checkpoint, "latent", device="cpu")(smiles), ids=smiles)
    parts = dc.splits.RandomSplitter().split(dataset, seed=0)
    assert sorted(int(i) for part in parts for i in part) == list(range(11))
    parts = dc.splits.ScaffoldSplitter().split(dataset)
    assert sorted(int(i) for part in parts for i in part) == [i for i in range(11) if i != 7]
    for splitter in (dc.splits.ButinaSplitter(), dc.splits.FingerprintSplitter()):
        with pytest.raises(TypeError, match="NoneType"):
            splitter.split(dataset)


def test_cached_data_sets_are_not_mixed_up(tmp_path: Path, checkpoint: Path, delaney: dict[str, Any]) -> None:
    """DeepChem reloads what it saved under the featurizer's name: other weights need another name."""
    other = tiny_checkpoint(tmp_path / "other" / "model", seed=1)
    seen = []
    for directory in (checkpoint, other, checkpoint):
        featurizer = MolCMIMFeaturizer(directory, device="cpu")
        _, (dataset,), _ = dc.molnet.load_delaney(featurizer=featurizer, splitter=None, **delaney)
        seen.append(dataset.X[0])
        np.testing.assert_array_equal(seen[-1], MolCMIM.from_pretrained(directory, device="cpu").embed(ROWS)[0])
    assert not np.array_equal(seen[0], seen[1])
    options = [
        {},
        {"kind": "latent"},
        {"policy": "parent"},
        {"on_error": "drop"},
        {"dtype": "bfloat16"},
        {"exact": True},
    ]
    assert len({str(MolCMIMFeaturizer(checkpoint, **option)) for option in options}) == len(options)
    assert "/" not in str(MolCMIMFeaturizer(checkpoint))


@pytest.mark.data
def test_load_delaney_of_the_real_file(tmp_path: Path, data_dir: Path) -> None:
    packed = (data_dir / "moleculenet" / "delaney-processed.csv.gz").read_bytes()
    (tmp_path / "delaney-processed.csv").write_bytes(gzip.decompress(packed))
    featurizer = MolCMIMFeaturizer(on_error="raise", device="cpu")
    _, parts, _ = dc.molnet.load_delaney(
        featurizer=featurizer, splitter="scaffold", data_dir=str(tmp_path), save_dir=str(tmp_path / "saved")
    )
    assert [len(part) for part in parts] == [902, 113, 113]
    for part in parts:
        expected = MolCMIM.from_pretrained(device="cpu").embed(part.ids[:20])
        np.testing.assert_allclose(part.X[:20], expected, atol=1e-4)
