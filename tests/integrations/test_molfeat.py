"""The molfeat transformer against the library."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from tiny import SMILES, tiny_checkpoint

pytest.importorskip("molfeat", reason="needs molfeat")

import datamol as dm
import torch
from molfeat.trans import MoleculeTransformer
from molfeat.trans.base import PrecomputedMolTransformer
from molfeat.trans.pretrained import PretrainedMolTransformer
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from molcmim import MolCMIM
from molcmim.integrations.molfeat import MolCMIMTransformer

BAD = ["CCO", "C1CC", None, "C", "[Xe]"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("molfeat") / "model")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def transformer(checkpoint: Path) -> MolCMIMTransformer:
    return MolCMIMTransformer(checkpoint, device="cpu")


@pytest.mark.parametrize("kind", ["latent", "informative", "both"])
def test_equals_embed(checkpoint: Path, model: MolCMIM, kind: str) -> None:
    transformer = MolCMIMTransformer(checkpoint, kind, device="cpu")
    assert isinstance(transformer, PretrainedMolTransformer)
    expected = model.embed(SMILES, kind=kind)
    for x in (transformer(SMILES), transformer.transform(SMILES), transformer.fit_transform(SMILES)):
        np.testing.assert_array_equal(x, expected)
        assert x.dtype == np.float32
    assert len(transformer) == expected.shape[1]
    np.testing.assert_array_equal(transformer([dm.to_mol(smiles) for smiles in SMILES]), expected)


def test_the_default_model_is_the_shipped_one() -> None:
    np.testing.assert_array_equal(MolCMIMTransformer()(["CCO"]), MolCMIM.from_pretrained().embed(["CCO"]))


def test_single_molecules_and_none_at_all(transformer: MolCMIMTransformer, model: MolCMIM) -> None:
    np.testing.assert_array_equal(transformer("CCO"), model.embed(["CCO"]))
    np.testing.assert_array_equal(transformer(dm.to_mol("CCO")), model.embed(["CCO"]))
    assert transformer([]).shape == (0, 56)


def test_n_jobs(checkpoint: Path, model: MolCMIM) -> None:
    for n_jobs in (2, -1):
        transformer = MolCMIMTransformer(checkpoint, device="cpu", n_jobs=n_jobs)
        np.testing.assert_array_equal(transformer(SMILES), model.embed(SMILES))


def test_bad_rows_follow_molfeat(
    transformer: MolCMIMTransformer, model: MolCMIM, caplog: pytest.LogCaptureFixture
) -> None:
    expected = model.embed(BAD)
    for call in (transformer, transformer.transform):
        with pytest.raises(ValueError, match=r"row 1: 'C1CC' can't be used: parse_error \(3 bad of 5 rows\)"):
            call(BAD)
    features = transformer.transform(BAD, ignore_errors=True)
    assert [feature is None for feature in features] == [False, True, True, False, True]
    np.testing.assert_array_equal(features[3], expected[3])
    good, positions = transformer(BAD, ignore_errors=True)
    assert list(positions) == [0, 3]
    np.testing.assert_array_equal(good, expected[[0, 3]])
    nothing, positions = transformer(["C1CC"], ignore_errors=True)
    assert (nothing.shape, positions) == ((0, 56), [])
    assert caplog.messages[0].startswith("3 of 5 molecules have no embedding (")
    assert caplog.messages[0].endswith("): None in their place")


def test_output_types(checkpoint: Path, model: MolCMIM) -> None:
    expected = model.embed(SMILES)
    table = MolCMIMTransformer(checkpoint, device="cpu", dtype="df")(SMILES)
    assert table.columns[[0, 24]].tolist() == ["molcmim_latent0", "molcmim_informative0"]
    np.testing.assert_array_equal(table.to_numpy(), expected)
    tensor = MolCMIMTransformer(checkpoint, device="cpu", dtype=torch.float64)(SMILES)
    assert tensor.dtype == torch.float64
    np.testing.assert_array_equal(tensor.numpy(), expected.astype(np.float64))


def test_state_names_the_model_and_comes_back(checkpoint: Path, model: MolCMIM) -> None:
    transformer = MolCMIMTransformer(checkpoint, "latent", "parent", batch_size=3, device="cpu", n_jobs=2)
    state = json.loads(transformer.to_state_json())
    assert state["name"] == "MolCMIMTransformer"
    assert state["model_id"] == model.model_id
    assert {key: state["args"][key] for key in ("model", "kind", "policy", "batch_size", "n_jobs")} == {
        "model": str(checkpoint), "kind": "latent", "policy": "parent", "batch_size": 3, "n_jobs": 2,
    }  # fmt: skip
    again = MoleculeTransformer.from_state_json(json.dumps(state))
    assert type(again) is MolCMIMTransformer
    assert again == transformer
    np.testing.assert_array_equal(again(["CCO.C"]), model.embed(["CCO"], kind="latent"))
    with pytest.raises(ValueError, match="model: expected a name or a directory"):
        MolCMIMTransformer(model).to_state_dict()
    assert "model" in json.loads(MolCMIMTransformer().to_state_json())["args"]


def test_copies(transformer: MolCMIMTransformer, model: MolCMIM) -> None:
    expected = model.embed(SMILES, kind="latent")
    transformer.set_params(kind="latent")
    for twin in (clone(transformer), pickle.loads(pickle.dumps(transformer)), transformer.copy()):
        assert twin == transformer
        np.testing.assert_array_equal(twin(SMILES), expected)
    assert len(pickle.dumps(transformer)) < 5000
    assert clone(transformer).set_params(kind="both") != transformer
    np.testing.assert_array_equal(clone(MolCMIMTransformer(model))(SMILES), model.embed(SMILES))


def test_molfeat_tools(transformer: MolCMIMTransformer, model: MolCMIM) -> None:
    batched = MoleculeTransformer.batch_transform(transformer, SMILES, batch_size=3, n_jobs=None, progress=False)
    np.testing.assert_allclose(batched, model.embed(SMILES), atol=1e-5)
    cache: dict = {}
    cached = PrecomputedMolTransformer(cache, featurizer=transformer, dtype=np.float32)
    assert len(cached) == 56
    np.testing.assert_allclose(cached(SMILES), model.embed(SMILES), atol=1e-5)
    assert len(cache) == len(SMILES)
    prediction = make_pipeline(transformer, Ridge()).fit(SMILES, range(len(SMILES))).predict(SMILES[:2])
    assert prediction.shape == (2,)
    with pytest.raises(ValueError, match="precompute_cache: expected None"):
        MolCMIMTransformer(precompute_cache=True)
