"""The scikit-learn transformer that every head starts with."""

# Axes: n rows, d features.

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from molcmim.moleculenet.types import Array

CLIP = 10.0  #: standard deviations


class NoFeatures(ValueError):
    """No training row has features, or none of them varies."""


class Standardise(TransformerMixin, BaseEstimator):
    """Columns to mean 0 and standard deviation 1 on the training rows; constant columns go, outliers are cut.

    Non-finite entries (a row that a model can't embed, a descriptor that overflows) become the column's mean.
    Rows without a single finite entry have no part in means and deviations.

    Parameters
    ----------
    scale : bool
        False: only missing entries are filled, nothing is scaled, clipped or dropped.

    Raises
    ------
    NoFeatures
        In `fit`, if no row has features, or no column varies.
    ValueError
        If `X` is not (n, d), or in `transform` has another number of columns.
    """

    def __init__(self, scale: bool = True) -> None:
        self.scale = scale

    def fit(self, X: npt.ArrayLike, y: Any = None) -> Standardise:
        """Learn means and deviations from (n, d) training rows."""
        x = np.asarray(X, dtype=np.float64)
        if x.ndim != 2:
            raise ValueError(f"features: expected shape (n, d), got {x.shape}")
        finite = np.isfinite(x)
        count = finite.sum(axis=0)
        if not count.any():
            raise NoFeatures("features: expected training rows with features, got none")
        known = np.where(finite, x, 0.0)
        self.n_features_in_ = x.shape[1]
        self.mean_ = known.sum(axis=0) / np.maximum(count, 1)
        with np.errstate(over="ignore"):  # descriptors reach 1e200: infinite deviation, a column of zeros
            self.std_ = np.sqrt((np.where(finite, x - self.mean_, 0.0) ** 2).sum(axis=0) / np.maximum(count, 1))
        # rounding gives a constant column a tiny deviation, not always 0
        self.kept_ = self.std_ > 1e-10 * np.maximum(1.0, np.abs(self.mean_))
        if self.scale and not self.kept_.any():
            raise NoFeatures("features: expected columns that vary, got only constant ones")
        return self

    def transform(self, X: npt.ArrayLike) -> Array:
        """(n, d) to (n, columns that vary)."""
        x = np.asarray(X, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.n_features_in_:
            raise ValueError(f"features: expected shape (n, {self.n_features_in_}), got {x.shape}")
        if not self.scale:
            return np.where(np.isfinite(x), x, self.mean_)
        part = x[:, self.kept_]
        scaled = np.clip((part - self.mean_[self.kept_]) / self.std_[self.kept_], -CLIP, CLIP)
        return np.where(np.isfinite(part), scaled, 0.0)
