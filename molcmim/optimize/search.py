"""Proposals in the latent space for one start: CMA-ES, and random search around the start as its control.

CMA-ES: Hansen (2016), "The CMA Evolution Strategy: A Tutorial", arXiv 1604.00772, as implemented by the `cma` package;
with diagonal covariance (sep-CMA-ES, Ros and Hansen 2008), whose learning rates suit hundreds of dimensions and some
thousand evaluations.
"""

# Axes: K candidates of a generation, L latent

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]

PATIENCE = 5  #: generations without progress before CMA-ES begins anew


class Search(Protocol):
    """One start's search: asked for latent vectors, told how good they were."""

    restarts: int

    def ask(self) -> FloatArray:
        """(K, L) vectors to try."""
        ...

    def tell(self, z: FloatArray, value: FloatArray) -> None:
        """What came of them: (K,) values, higher is better, -inf for none."""
        ...


class RandomSearch:
    """z = mu + radius * noise, radius drawn anew for each candidate; nothing is learnt.

    Parameters
    ----------
    mu : (L,)
        Where the start is.
    radii
        Smallest and largest radius, drawn log-uniformly, in latent units per dimension.
    population
        Candidates K at a time.
    """

    restarts = 0

    def __init__(self, mu: FloatArray, radii: tuple[float, float], population: int, seed: Any) -> None:
        self.mu, self.population = mu, population
        self.low, self.high = np.log(radii)
        self.rng = np.random.default_rng(seed)

    def ask(self) -> FloatArray:
        radius = np.exp(self.rng.uniform(self.low, self.high, (self.population, 1)))  # (K, 1)
        return self.mu + radius * self.rng.standard_normal((self.population, len(self.mu)))

    def tell(self, z: FloatArray, value: FloatArray) -> None:
        pass


class CMASearch:
    """CMA-ES that begins anew around the best molecule when it gets nowhere.

    Only the order of the values is used: CMA-ES is invariant to the rest.

    Parameters
    ----------
    mu : (L,)
        Where the start is.
    sigma
        First standard deviation, in latent units per dimension.
    population
        Candidates K of a generation.
    centre
        Gives the (L,) vector to begin anew from; None: the best vector so far. The decoder maps a whole region onto one
        molecule, and the best vector is likely to lie at its edge: the molecule's own mu is a better place.
    patience
        Generations without a better value before it begins anew.
    """

    #: When it begins anew, sigma is drawn from this range of factors of the first one, log-uniformly.
    RESTART_FACTORS = (0.7, 1.4)

    def __init__(
        self,
        mu: FloatArray,
        sigma: float,
        population: int,
        seed: Any,
        centre: Callable[[], FloatArray | None] = lambda: None,
        patience: int = PATIENCE,
    ) -> None:
        self.best_z, self.best_value = mu, -np.inf
        self.sigma, self.population, self.centre, self.patience = sigma, population, centre, patience
        self.rng = np.random.default_rng(seed)
        self.restarts = 0
        self._begin(mu, sigma)

    def _begin(self, centre: FloatArray, sigma: float) -> None:
        from cma import CMAEvolutionStrategy

        self.stalled, self.top = 0, -np.inf
        options = {
            "CMA_diagonal": True,
            "popsize": self.population,
            "randn": lambda *shape: self.rng.standard_normal(shape),  # not NumPy's global generator
            "seed": np.nan,  # which it then leaves alone
            "verbose": -10,  # nothing printed, and no file of signals looked for
            "verb_log": 0,
        }
        self.strategy = CMAEvolutionStrategy(centre, sigma, options)

    def ask(self) -> FloatArray:
        return np.asarray(self.strategy.ask())

    def tell(self, z: FloatArray, value: FloatArray) -> None:
        best = int(value.argmax())
        if value[best] > self.best_value:
            self.best_value, self.best_z = float(value[best]), z[best]
        self.strategy.tell(list(z), np.unique(-value, return_inverse=True)[1].astype(float).tolist())
        self.stalled = 0 if value[best] > self.top else self.stalled + 1
        self.top = max(self.top, float(value[best]))
        if self.stalled >= self.patience:  # its own criteria are about values, and see ranks here
            self.restarts += 1
            centre = self.centre()
            factor = float(np.exp(self.rng.uniform(*np.log(self.RESTART_FACTORS))))
            self._begin(self.best_z if centre is None else centre, self.sigma * factor)
