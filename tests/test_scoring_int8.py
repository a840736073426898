"""Vectors as int8 with a scale a row: bounds, special rows, and the error on real embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from molcmim import MolCMIM
from molcmim.checkpoint_files import DEFAULT
from molcmim.scoring.int8 import dequantise, quantise

DRUGS = [
    *("CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "CCO", "C"),
    *("CC(=O)Nc1ccc(O)cc1", "c1ccccc1", "CN1CCC[C@H]1c1cccnc1", "OC(=O)CCCCC(O)=O", "ClC(Cl)Cl"),
    *("CN(C)CCOC(c1ccccc1)c1ccccc1", "O=C(O)c1ccccc1O", "C1CCCCC1", "FC(F)(F)c1ccccc1", "NCCc1ccc(O)c(O)c1"),
]


def test_numbers_worked_out_by_hand() -> None:
    codes, scale = quantise(np.array([[1.27, -0.635, 0.0], [0.0, 0.0, 0.0], [-254.0, 1.0, 3.0]]))
    assert codes.dtype == np.int8 and scale.dtype == np.float32
    assert codes.tolist() == [[127, -64, 0], [0, 0, 0], [-127, 0, 2]]  # 63.5 and 0.5 go to the even neighbour
    np.testing.assert_allclose(scale, [0.01, 0.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(dequantise(codes, scale), [[1.27, -0.64, 0], [0, 0, 0], [-254, 0, 4]], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-38, 1.0, 1e30, 3e38])
def test_errors_are_at_most_half_a_step(size: float) -> None:
    x = (np.random.default_rng(0).uniform(-1, 1, (50, 64)) * size).astype(np.float32)
    codes, scale = quantise(x)
    assert int(np.abs(codes.astype(int)).max()) <= 127
    error = np.abs(dequantise(codes, scale).astype(np.float64) - x)
    step = np.abs(x).max(axis=1, keepdims=True).astype(np.float64) / 127
    assert (error <= 0.5001 * step + 1e-43).all()  # numbers below 1e-38 have few digits


def test_numbers_too_small_for_a_scale_become_zero() -> None:
    codes, scale = quantise(np.full((1, 3), 1e-44, dtype=np.float32))
    assert not codes.any() and not scale.any()


def test_no_rows_and_wrong_input() -> None:
    codes, scale = quantise(np.zeros((0, 8)))
    assert (codes.shape, scale.shape) == ((0, 8), (0,))
    with pytest.raises(ValueError, match="NaN or infinity in row 1"):
        quantise(np.array([[1.0, 2.0], [np.nan, 1.0]]))
    with pytest.raises(ValueError, match=r"scale: expected shape \(2,\)"):
        dequantise(np.zeros((2, 3), dtype=np.int8), np.zeros(3, dtype=np.float32))


@pytest.mark.parametrize("kind", ["latent", "informative", "both"])
@pytest.mark.parametrize(("name", "least"), [("molcmim-tiny", 0.9999), (DEFAULT, 0.9998)])
def test_cosine_error_on_embeddings_of_shipped_models(name: str, least: float, kind: str) -> None:
    """The default's vectors are rounded a little more coarsely: docs/scoring.md promises 0.9998."""
    x = MolCMIM.from_pretrained(name, device="cpu").embed(DRUGS, kind=kind).astype(np.float64)
    back = dequantise(*quantise(x)).astype(np.float64)
    cosine = (x * back).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(back, axis=1)
    assert cosine.min() > least, cosine.min()
    unit, other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, back))
    assert np.abs(unit @ unit.T - other @ other.T).max() < 5e-3  # between any two molecules
