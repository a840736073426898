"""Fréchet ChemNet Distance (Preuer et al. 2018, J. Chem. Inf. Model. 58, 1736).

Two sets of molecules are each summarised by the mean m and covariance C of ChemNet's last hidden layer, and

    FCD = |m1 - m2|^2 + trace( C1 + C2 - 2 (C1 C2)^(1/2) )

ChemNet, an LSTM over SMILES, and its weights come from the package `fcd_torch`, which MOSES uses too. The value falls
with the number of molecules: 10,000 molecules of MOSES' own test set are at about 0.12, not at 0.

What goes in is a canonical SMILES. ChemNet's alphabet has ``@`` but no ``/`` or ``\\``, knows rings up to 8, and ends a
molecule at its first dot; these are properties of the published network and are kept.
"""

# Axes: n molecules, B of them in a batch, T = 350 positions, V = 35 letters, D = 512 activations.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

POSITIONS = 350  #: of ChemNet's input
WIDTH = 512  #: of its last hidden layer
BATCH_SIZE = 512
INSTALL = "pip install fcd_torch --no-deps  (or 'molcmim[generate]')"

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[int], object]


class Gaussian(NamedTuple):
    """Mean and covariance of the activations of a set of molecules."""

    mean: FloatArray  #: (D,)
    covariance: FloatArray  #: (D, D), with n - 1 in the denominator
    n: int  #: molecules


class ChemNet:
    """The network of the FCD.

    Parameters
    ----------
    device
        Of torch: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    batch_size
        Molecules at once. About 3 ms a molecule on one CPU core, whatever the size.

    Raises
    ------
    ImportError
        If `fcd_torch` isn't installed.
    ValueError
        If `batch_size` is less than 1.
    """

    def __init__(self, device: str = "cpu", batch_size: int = BATCH_SIZE) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        try:
            import fcd_torch
            from fcd_torch.utils import get_one_hot
        except ImportError as error:
            raise ImportError(f"the Fréchet ChemNet Distance needs fcd_torch: {INSTALL}") from error
        self.device, self.batch_size = device, batch_size
        # its own loader; torch reads plain tensors only (weights_only) unless told otherwise
        self._network: Any = fcd_torch.FCD(device="cpu").model.eval().to(device)
        self._letters: Callable[[str, int], npt.NDArray[Any]] = get_one_hot

    def activations(self, smiles: Sequence[str]) -> npt.NDArray[np.float32]:
        """Last hidden layer of one batch of canonical SMILES: (B, D)."""
        import torch

        if not smiles:
            return np.zeros((0, WIDTH), dtype=np.float32)
        letters = np.stack([self._letters(text, POSITIONS) for text in smiles])  # (B, T, V), ones and zeros
        scaled = torch.from_numpy(letters / letters.shape[2]).float()  # (B, T, V); the scale it was trained with
        with torch.inference_mode():
            hidden = self._network(scaled.transpose(1, 2).to(self.device))  # (B, D)
        return np.asarray(hidden.float().cpu().numpy())

    def gaussian(self, smiles: Sequence[str], progress: Progress | None = None) -> Gaussian:
        """Mean and covariance over n canonical SMILES, repeats counted.

        Parameters
        ----------
        smiles
            At least 2.
        progress
            Called with the number of molecules just finished.

        Raises
        ------
        ValueError
            If there are fewer than 2 molecules.
        """
        if len(smiles) < 2:
            raise ValueError(f"smiles: expected at least 2 molecules for a covariance, got {len(smiles)}")
        total, products = np.zeros(WIDTH), np.zeros((WIDTH, WIDTH))
        for start in range(0, len(smiles), self.batch_size):
            batch = self.activations(smiles[start : start + self.batch_size]).astype(np.float64)
            total += batch.sum(axis=0)
            products += batch.T @ batch
            if progress is not None:
                progress(len(batch))
        n = len(smiles)
        mean = total / n
        return Gaussian(mean, (products - n * np.outer(mean, mean)) / (n - 1), n)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The FCD of two sets (the formula at the top of the file).

    The trace of (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric:
    no complex numbers, and sets smaller than D (singular covariances) need no special care.

    Raises
    ------
    ValueError
        If the two differ in width.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"b: expected a mean of shape {a.mean.shape}, got {b.mean.shape}")
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T  # C1^(1/2)
    product = np.linalg.eigvalsh(root @ b.covariance @ root)
    shared = float(np.sqrt(product.clip(min=0.0)).sum())
    shift = float(np.square(a.mean - b.mean).sum())
    return shift + float(np.trace(a.covariance) + np.trace(b.covariance)) - 2.0 * shared
