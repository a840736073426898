"""One start of an optimisation: its molecules, calls and search; and the scores that all starts share."""

# Axes: K candidates of a generation, L latent

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from molcmim.chem import Status
from molcmim.embed import has_decoder
from molcmim.generate import pad_rows
from molcmim.model import encoder_input
from molcmim.objectives import Assessment, FloatArray, Objective, Oracle, evaluate, similarity_to
from molcmim.optimize.archive import Archive, Candidate, OptimizeResult, trace_of
from molcmim.optimize.search import CMASearch, RandomSearch, Search
from molcmim.rows import tokenize_rows

if TYPE_CHECKING:
    from molcmim.api import MolCMIM

METHODS = ("cma", "random")
SIGMA = 2.0  #: default first standard deviation of CMA-ES, in standard deviations of the start's posterior
RADII = (0.5, 2.0)  #: random search: smallest and largest radius, in units of sigma
DECODES_PER_CALL = 20  #: a start ends when this many latent vectors a call of its budget have been decoded
PENALTY = 50.0  #: of missing all of a constraint, in standard deviations of the start's scores so far


@dataclass(frozen=True)
class Settings:
    """Options of `optimize`, checked."""

    budget: int
    population: int | None
    sigma: float | None
    min_similarity: float | None
    stop_at: float | None
    patience: int | None
    skip_dissimilar: bool
    seed: int
    method: str

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ValueError(f"budget: expected at least 1 oracle call, got {self.budget}")
        if self.population is not None and self.population < 4:
            raise ValueError(f"population: expected at least 4, got {self.population}")
        if self.sigma is not None and not 0 < self.sigma < math.inf:
            raise ValueError(f"sigma: expected a positive number, got {self.sigma}")
        if self.min_similarity is not None and not 0 <= self.min_similarity <= 1:
            raise ValueError(f"min_similarity: expected 0 to 1, got {self.min_similarity}")
        if self.skip_dissimilar and self.min_similarity is None:
            raise ValueError("skip_dissimilar: expected a min_similarity with it, got None")
        if self.stop_at is not None and math.isnan(self.stop_at):
            raise ValueError("stop_at: expected a number, got NaN")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience: expected at least 1 oracle call, got {self.patience}")
        if self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}")
        if self.method not in METHODS:
            raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {self.method!r}")


class Scores:
    """Evaluates molecules, each once, those of all starts in one oracle call where it doesn't depend on the start."""

    def __init__(self, oracle: Oracle, store: Archive | None) -> None:
        self.oracle = oracle
        self.per_start = isinstance(oracle, Objective) and oracle.needs_start
        self.last_error = ""
        self.known: dict[tuple[str, str], tuple[float, float]] = {}  # (start or "", smiles) -> score, shortfall
        for (key, smiles), row in (store.known if store is not None else {}).items():
            self.known[key if self.per_start else "", smiles] = (row.score, row.shortfall)

    def of(self, wanted: Sequence[tuple[Run, list[str]]]) -> list[Assessment]:
        """Scores of each start's molecules."""
        groups: dict[str, tuple[str, dict[str, None]]] = {}  # key -> its start, what is to be evaluated
        for run, smiles in wanted:
            key = run.key if self.per_start else ""
            missing = groups.setdefault(key, (run.smiles, {}))[1]
            missing.update(dict.fromkeys(each for each in smiles if (key, each) not in self.known))
        for key, (start, missing) in groups.items():
            assessed = self._assess(list(missing), start)
            for each, score, shortfall in zip(missing, *assessed, strict=True):
                self.known[key, each] = (float(score), float(shortfall))
        return [
            Assessment(
                *np.array([self.known[run.key if self.per_start else "", each] for each in smiles]).reshape(-1, 2).T
            )
            for run, smiles in wanted
        ]

    def _assess(self, smiles: list[str], start: str) -> Assessment:
        errors: list[str] = []
        if isinstance(self.oracle, Objective):
            oracle = self.oracle.for_start(start) if self.per_start else self.oracle
            assessed = oracle.assess(smiles, errors)
        else:
            assessed = Assessment(evaluate(self.oracle, smiles, errors), np.zeros(len(smiles)))
        self.last_error = errors[-1] if errors else self.last_error
        return assessed


class Run:
    """One start.

    Parameters
    ----------
    given
        The start as it was given.
    status, smiles
        What became of it; its canonical SMILES.
    key
        Its name in the archive: the canonical SMILES, and a number where several starts are the same molecule.
    settings
        Options of `optimize`.
    """

    def __init__(
        self, model: MolCMIM, given: object, status: Status, smiles: str, key: str, settings: Settings
    ) -> None:
        self.model, self.given, self.status, self.smiles, self.key = model, given, status, smiles, key
        self.settings = settings
        self.usable = status is Status.ok
        self.rows: list[Candidate] = []
        self.n_saved = 0  #: rows that are in the archive
        self.best: Candidate | None = None
        self.decoded = self.valid = self.skipped = 0
        self.stopped = ""
        self._value: dict[str, tuple[float, float]] = {}  # smiles -> score, shortfall with that of the similarity

    @functools.cached_property
    def _similarity(self) -> Callable[[Sequence[str]], FloatArray]:
        return similarity_to(self.smiles)

    @functools.cached_property
    def search(self) -> Search:
        """The search of a start that can be used."""
        settings, posterior = self.settings, posterior_of(self.model, self.smiles)
        if posterior is None:
            raise ValueError(f"start: {self.given!r} can't be used: {self.status.value}")
        mu = posterior[0]
        sigma = settings.sigma or SIGMA * posterior[1]
        population = settings.population or 4 + int(3 * math.log(len(mu)))
        seed = [settings.seed, int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:8], "big")]
        if settings.method == "random":
            return RandomSearch(mu, (sigma * RADII[0], sigma * RADII[1]), population, seed)
        return CMASearch(mu, sigma, population, seed, self._centre)

    def _centre(self) -> FloatArray | None:
        """mu of the best feasible molecule, where a search begins anew."""
        posterior = posterior_of(self.model, self.best.smiles) if self.best is not None else None
        return None if posterior is None else posterior[0]

    @property
    def calls(self) -> int:
        """Oracle calls spent."""
        return len(self.rows)

    def unseen(self, batch: Sequence[str | None]) -> list[str]:
        """The distinct molecules of a generation that cost a call, as many as the budget has left.

        Those in more pieces than the start don't: falling apart is a loophole of similarity and of most scores.
        """
        fresh = [each for each in dict.fromkeys(batch) if each is not None and each not in self._value]
        for each in fresh:
            if each.count(".") > self.smiles.count("."):
                self._skip(each, 0.0)
        if self.settings.skip_dissimilar:
            fresh = [each for each in fresh if each not in self._value]
            for each, similarity in zip(fresh, self._similarity(fresh), strict=True):
                if missing := self._missing(similarity):
                    self._skip(each, missing)
        fresh = [each for each in fresh if each not in self._value]
        return fresh[: self.settings.budget - self.calls]

    def _skip(self, smiles: str, missing: float) -> None:
        self._value[smiles] = (math.nan, missing)
        self.skipped += 1

    def _missing(self, similarity: float) -> float:
        """By how much a similarity falls short, as a share of the least one allowed."""
        least = self.settings.min_similarity
        return max(0.0, least - float(similarity)) / least if least else 0.0

    def record(self, smiles: Sequence[str], assessed: Assessment) -> None:
        """Add evaluated molecules."""
        for each, score, shortfall, similarity in zip(smiles, *assessed, self._similarity(smiles), strict=True):
            total = float(shortfall) + self._missing(similarity)
            feasible = not math.isnan(score) and total == 0
            row = Candidate(each, float(score), float(similarity), float(shortfall), feasible, self.calls + 1)
            self.rows.append(row)
            self._value[each] = (row.score, total)
            if feasible and (self.best is None or row.score > self.best.score):
                self.best = row
        self._check()

    def update(self, z: FloatArray, batch: Sequence[str | None]) -> None:
        """Tell the search what its vectors (K, L) gave.

        The score, less a penalty for what is missing of the constraints, so that there is a slope back to where they
        hold. Molecules skipped for their similarity are taken to score as badly as any did.
        """
        self.decoded += len(batch)
        self.valid += sum(each is not None for each in batch)
        scores = [row.score for row in self.rows if not math.isnan(row.score)] or [0.0]
        spread, least = float(np.std(scores)) or 1.0, min(scores)
        value = np.full(len(batch), -np.inf)  # (K,)
        for k, each in enumerate(batch):
            score, missing = self._value.get(each or "", (math.nan, 0.0))
            if math.isnan(score) and missing > 0:
                score = least
            if not math.isnan(score - missing):
                value[k] = score - PENALTY * spread * missing
        self.search.tell(z, value)
        self._check()

    def _check(self) -> None:
        settings, best = self.settings, self.best
        if settings.stop_at is not None and best is not None and best.score >= settings.stop_at:
            self.stopped = "stop_at"
        elif self.calls >= settings.budget:
            self.stopped = "budget"
        elif settings.patience is not None and self.calls - (best.call if best else 0) >= settings.patience:
            self.stopped = "patience"
        elif self.decoded >= DECODES_PER_CALL * settings.budget:
            self.stopped = "decodes"

    def result(self, reason: str = "", error: str = "") -> OptimizeResult:
        """What has been found; `reason`: why the run ends if it isn't done."""
        given = self.given if isinstance(self.given, str) else self.smiles or str(self.given)
        if not self.usable:
            return OptimizeResult(given, self.status, self.smiles or None)
        best, failed = self.best, sum(math.isnan(row.score) for row in self.rows)
        return OptimizeResult(
            start=given,
            status=self.status,
            start_smiles=self.smiles,
            start_score=self.rows[0].score if self.rows else math.nan,
            best_smiles=best.smiles if best else None,
            best_score=best.score if best else math.nan,
            similarity=best.similarity if best else math.nan,
            calls=self.calls,
            decoded=self.decoded,
            valid=self.valid,
            skipped=self.skipped,
            failed=failed,
            restarts=self.search.restarts,
            stopped=self.stopped or reason,
            trace=trace_of(self.rows),
            archive=list(self.rows),
            error=error if failed else "",
        )


def make_runs(model: MolCMIM, starts: Sequence[object], settings: Settings) -> list[Run]:
    """One run a start, in order.

    Raises
    ------
    ValueError
        If the model has no decoder.
    """
    if not has_decoder(model.objective):
        raise ValueError(f"model: expected one with a decoder, got objective {model.objective!r}, which has none")
    rows = tokenize_rows(starts, model.tokenizer, model.network.config.max_tokens)
    seen: Counter[str] = Counter()
    runs = []
    for given, status, smiles in zip(starts, rows.status, rows.canonical_smiles, strict=True):
        key = smiles or ""
        seen[key] += 1
        key = key if seen[key] == 1 else f"{key} {seen[key]}"
        runs.append(Run(model, given, status, smiles or "", key, settings))
    return runs


@torch.inference_mode()
def posterior_of(model: MolCMIM, smiles: str) -> tuple[FloatArray, float] | None:
    """mu (L,) and the mean sigma of a canonical SMILES; None if the model can't read it.

    It is encoded alone, so that the result doesn't depend on others.
    """
    (tokens,) = tokenize_rows([smiles], model.tokenizer, model.network.config.max_tokens).tokens
    if tokens is None:
        return None
    posterior = model.network.encode(encoder_input(pad_rows([tokens])).to(model.device))
    return posterior.mu[0].double().cpu().numpy(), float(posterior.log_sigma[0].double().exp().mean())
