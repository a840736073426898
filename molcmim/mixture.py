"""Where a model's codes lie: a mixture of diagonal Gaussians, fitted to the latents of a corpus.

MIM pulls codes together (arXiv 2003.02645, section 3), so that N(0, I), the prior of the objective, can be far
wider than the cloud of codes that the decoder has seen. A mixture fitted to codes is the better proposal then.

A file holds the tensors `weights`, `means` and `stds` and, as metadata, one JSON text with facts about the fit. It is
safetensors, so reading one runs no code. NumPy only, but for `Mixture.fit`, which needs scikit-learn.
"""

# Axes: n rows, K components, L latent.

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.beside import written_beside

FloatArray = npt.NDArray[np.float32]

TENSORS = ("weights", "means", "stds")
COMPONENTS = (16, 64, 256)  #: numbers of components tried by default
HELD_OUT = 0.1  #: share of the latents that chooses among them
MAX_ITERATIONS = 25  #: of EM, which starts from k-means: more gain little
METADATA = "molcmim"


@dataclass(frozen=True)
class Mixture:
    """p(z) = sum over k of weights_k N(z; means_k, diag stds_k^2).

    Attributes
    ----------
    weights
        (K,) float32, sum 1.
    means, stds
        (K, L) float32; the stds are positive.
    facts
        About the fit: ``model_id``, ``n``, ``k``, ``seed``, ``held_out_log_prob`` (nats a row) and what the caller
        adds; texts.

    Raises
    ------
    ValueError
        If shapes don't agree, or values aren't finite, weights don't add up to 1, or a std isn't positive.
    """

    weights: FloatArray
    means: FloatArray
    stds: FloatArray
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in TENSORS:
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float32))
        k = len(self.weights) if self.weights.ndim == 1 else 0
        if k < 1 or self.means.ndim != 2 or self.means.shape[0] != k or self.stds.shape != self.means.shape:
            shapes = ", ".join(f"{name} {getattr(self, name).shape}" for name in TENSORS)
            raise ValueError(f"mixture: expected weights (K,), means (K, L) and stds (K, L), got {shapes}")
        if not all(np.isfinite(getattr(self, name)).all() for name in TENSORS) or not (self.stds > 0).all():
            raise ValueError("mixture: expected finite values and positive stds, got others")
        total = float(self.weights.astype(np.float64).sum())
        if (self.weights < 0).any() or abs(total - 1.0) > 1e-3:
            raise ValueError(f"mixture: expected weights of 0 or more that add up to 1, got a sum of {total:g}")

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def latent(self) -> int:
        """L."""
        return int(self.means.shape[1])

    @classmethod
    def prior(cls, latent: int) -> Mixture:
        """N(0, I) in L dimensions, as one component."""
        shape = (1, latent)
        return cls(np.ones(1, np.float32), np.zeros(shape, np.float32), np.ones(shape, np.float32))

    def draw(self, n: int, seed: int = 0) -> FloatArray:
        """(n, L) samples; row i doesn't depend on n.

        Raises
        ------
        ValueError
            If n < 0.
        """
        if n < 0:
            raise ValueError(f"n: expected 0 or more, got {n}")
        choice, noise = (np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(2))
        edges = np.cumsum(self.weights.astype(np.float64))
        component = np.searchsorted(edges / edges[-1], choice.random(n), side="right")  # (n,)
        return self.means[component] + self.stds[component] * noise.standard_normal((n, self.latent), dtype=np.float32)

    def log_prob(self, z: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """log p(z) in nats of (n, L) vectors: (n,)."""
        rows = np.asarray(z, dtype=np.float64)
        means, stds = self.means.astype(np.float64), self.stds.astype(np.float64)
        with np.errstate(divide="ignore"):  # a component may have weight 0
            log_weights = np.log(self.weights.astype(np.float64))
        constants = log_weights - np.log(stds).sum(1) - 0.5 * self.latent * np.log(2 * np.pi)  # (K,)
        joint = np.empty((len(rows), len(self)))
        for k in range(len(self)):
            joint[:, k] = constants[k] - 0.5 * np.square((rows - means[k]) / stds[k]).sum(1)
        top = joint.max(1, keepdims=True)
        return np.log(np.exp(joint - top).sum(1)) + top[:, 0]

    def widened(self, sigma: npt.ArrayLike) -> Mixture:
        """Of z = code + sigma * noise, if the codes follow this mixture; `sigma` is a number or (L,)."""
        stds = np.sqrt(np.square(self.stds) + np.square(np.asarray(sigma, dtype=np.float32)))
        return Mixture(self.weights, self.means, stds, self.facts)

    def with_facts(self, **facts: object) -> Mixture:
        """The same, with these facts added or replaced."""
        return Mixture(
            self.weights, self.means, self.stds, {**self.facts, **{name: str(value) for name, value in facts.items()}}
        )

    # ------------------------------------------------------------------------------------------ fitting

    @classmethod
    def fit(cls, latents: npt.ArrayLike, k: int | Sequence[int] = COMPONENTS, seed: int = 0) -> Mixture:
        """Fit by expectation maximisation (scikit-learn's `GaussianMixture`, diagonal covariance).

        Parameters
        ----------
        latents
            (n, L), finite.
        k
            Components, or several numbers of them: the one with the highest log-likelihood of a tenth of the rows,
            held out, is fitted again to all rows. Numbers above a tenth of n are left out.
        seed
            Of the initialisation and of the choice of the held-out rows.

        Raises
        ------
        ValueError
            If the shape is another one, values aren't finite, or there are fewer than two rows a component.
        ImportError
            Without scikit-learn.
        """
        rows = np.asarray(latents, dtype=np.float32)
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise ValueError(f"latents: expected finite values of shape (n, L), got shape {rows.shape}")
        tried = [k] if isinstance(k, int) else sorted(set(k))
        if not tried or min(tried) < 1 or 2 * tried[0] > len(rows):
            raise ValueError(f"k: expected 1 to {len(rows) // 2} components for {len(rows)} rows, got {tried}")
        facts: dict[str, str] = {"n": str(len(rows)), "seed": str(seed)}
        best = tried[0]
        if len(tried) > 1:
            order = np.random.default_rng(seed).permutation(len(rows))
            held, rest = np.split(order, [max(1, int(HELD_OUT * len(rows)))])
            fitting = [number for number in tried if 10 * number <= len(rest)] or tried[:1]
            scores = {number: float(_fitted(rows[rest], number, seed).score(rows[held])) for number in fitting}
            best = max(scores, key=lambda number: scores[number])
            facts["held_out_log_prob"] = json.dumps({str(key): round(value, 3) for key, value in scores.items()})
        fitted = _fitted(rows, best, seed)
        weights = fitted.weights_ / fitted.weights_.sum()
        return cls(weights, fitted.means_, np.sqrt(fitted.covariances_), {**facts, "k": str(best)})

    # ------------------------------------------------------------------------------------------ files

    def to_bytes(self) -> bytes:
        """The content of a file; the same mixture gives the same bytes."""
        from safetensors.numpy import save

        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in TENSORS}
        # one entry: the order of several would differ from run to run
        return bytes(save(tensors, metadata={METADATA: json.dumps(dict(self.facts), sort_keys=True)}))

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "mixture") -> Mixture:
        """Inverse of `to_bytes`. Raises ValueError, which begins with `where`, for anything else."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError(f"{where}: expected a whole safetensors file, got {len(data)} bytes of something else")
        try:
            tensors = load(data)
            header = json.loads(data[8 : 8 + length])
            facts = json.loads(header.get("__metadata__", {}).get(METADATA, "{}"))
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{where}: not a valid safetensors file: {error}") from error
        if set(tensors) != set(TENSORS):
            raise ValueError(
                f"{where}: expected the tensors {', '.join(TENSORS)}, got {', '.join(sorted(tensors)[:5])}"
            )
        if not isinstance(facts, dict):
            raise ValueError(f"{where}: expected facts as a JSON object, got {type(facts).__name__}")
        try:
            weights, means, stds = (tensors[name] for name in TENSORS)
            return cls(weights, means, stds, {str(key): str(value) for key, value in facts.items()})
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .safetensors file, beside and renamed. Raises ValueError for another ending."""
        target = Path(path)
        if target.suffix != ".safetensors":
            raise ValueError(f"mixture: expected a file name ending in .safetensors, got {target.name!r}")
        with written_beside(target) as part:
            part.write_bytes(self.to_bytes())
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Mixture:
        """Read a file of `save`. Raises ValueError if it isn't one, OSError if it can't be read."""
        return cls.from_bytes(Path(path).read_bytes(), os.fspath(path))


def _fitted(rows: FloatArray, k: int, seed: int) -> Any:
    import warnings

    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise ImportError("fitting a mixture needs scikit-learn: pip install 'molcmim[sklearn]'") from error
    model = GaussianMixture(k, covariance_type="diag", reg_covar=1e-6, max_iter=MAX_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # enough, see MAX_ITERATIONS
        return model.fit(rows)
