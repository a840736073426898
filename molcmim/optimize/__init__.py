"""Optimisation of molecules in the latent space: from each start, towards higher scores of an oracle.

    from molcmim import MolCMIM
    from molcmim.objectives import Objective
    from molcmim.optimize import optimize
    results = optimize(MolCMIM.from_pretrained(), ["CCOC(=O)c1ccccc1N"], Objective(["qed"]), min_similarity=0.4)
    results[0].best_smiles, results[0].best_score

Every start has a search of its own (`molcmim.optimize.search`). All searches go in lockstep, so that one decoder batch
and one oracle call serve them all. Needs the package `cma` (pip install 'molcmim[generate]').

An oracle call is one distinct valid molecule of one start, the start itself being the first; a molecule that comes up
again costs none. What the decoder writes and RDKit refuses costs none either. Nor does a molecule in more pieces than
the start, which never counts as found: falling apart is a loophole of similarity and of most scores. What another start
has had evaluated is counted, although not evaluated again: so a start's result doesn't depend on which others run
beside it (but for rounding in the decoder's batches).
"""

# Axes: S starts that still run, K candidates of a generation, L latent

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from molcmim.chem import prepare_many, to_text_list
from molcmim.objectives import Oracle, oracle_name
from molcmim.optimize.archive import Archive, OptimizeResult
from molcmim.optimize.run import Run, Scores, Settings, make_runs

if TYPE_CHECKING:
    from molcmim.api import MolCMIM

SAVE_SECONDS = 20.0


def optimize(
    model: MolCMIM,
    start: Iterable[object],
    oracle: Oracle,
    *,
    budget: int = 1000,
    population: int | None = None,
    sigma: float | None = None,
    min_similarity: float | None = None,
    skip_dissimilar: bool = False,
    stop_at: float | None = None,
    patience: int | None = None,
    seed: int = 0,
    archive: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    method: str = "cma",
) -> list[OptimizeResult]:
    """Look for molecules with higher scores, from each start by itself.

    Parameters
    ----------
    model
        A model with a decoder.
    start
        Molecules to start from. One that can't be used costs only its own result.
    oracle
        Function of a list of SMILES, higher is better, or an `Objective`. See `molcmim.objectives.evaluate` for one
        that fails.
    budget
        Oracle calls of each start.
    population
        Candidates of each generation; default: 4 + 3 log(latent dimensions), as the tutorial on CMA-ES has it.
    sigma
        First standard deviation of CMA-ES in latent units per dimension; default: twice that of the start's posterior.
        Random search draws each candidate's radius from half of it to twice it.
    min_similarity
        Least Tanimoto similarity to the start (Morgan fingerprints, radius 2, 2,048 bits) of what counts as found.
    skip_dissimilar
        Spend no calls on molecules below `min_similarity`: far more of the budget goes where something can be found.
        Off by default, because published protocols count every molecule.
    stop_at
        A start is done when a feasible molecule scores at least this.
    patience
        A start is done after this many calls without a better feasible molecule.
    seed
        Equal seeds give equal results on one kind of device, build and number of threads.
    archive
        Folder that every evaluated molecule is written to, every 20 seconds and at the end.
    resume
        Go on from that folder: what it has scores of isn't evaluated again. With the settings of the interrupted run
        this decodes the same molecules again, and then goes on.
    progress
        Show a progress bar on stderr.
    method
        ``"cma"``, or ``"random"``: vectors around the start at random, as a control.

    Returns
    -------
    list of OptimizeResult
        One a start, in order. Ctrl-C ends the search, and what was found until then is returned (``stopped`` is
        ``"interrupted"``).

    Raises
    ------
    TypeError
        If `start` is a single molecule: pass a list.
    ValueError
        If an option is out of range, the model has no decoder, the oracle returns another number of scores than
        molecules, or the archive holds scores of another objective.
    FileExistsError
        If `archive` holds one already and `resume` is off.
    ImportError
        If the package `cma` is missing.
    """
    settings = Settings(budget, population, sigma, min_similarity, stop_at, patience, skip_dissimilar, seed, method)
    if method == "cma":
        need_cma()
    starts = to_text_list(start)
    runs = make_runs(model, starts, settings)
    facts = {"objective": oracle_name(oracle), "model": model.model_id, **vars(settings)}
    store = Archive(archive, facts, resume) if archive is not None else None
    scores = Scores(oracle, store)
    interrupted = False
    with _progress_bar(runs, settings, progress) as show:
        try:
            _loop(model, [run for run in runs if run.usable], scores, store, show)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            _save(store, runs)
    return [run.result("interrupted" if interrupted else "", scores.last_error) for run in runs]


def need_cma() -> None:
    """ImportError that says what to install, unless the package `cma` is there."""
    from importlib.util import find_spec

    if find_spec("cma") is None:
        raise ImportError("optimisation by CMA-ES needs the package cma: pip install 'molcmim[generate]'")


# ------------------------------------------------------------------------------------------------ the loop


def _loop(model: MolCMIM, runs: Sequence[Run], scores: Scores, store: Archive | None, show: Any) -> None:
    """All searches in lockstep until each is done."""
    for run, values in zip(runs, scores.of([(run, [run.smiles]) for run in runs]), strict=True):
        run.record([run.smiles], values)
    saved = time.monotonic()
    while active := [run for run in runs if not run.stopped]:
        z = [run.search.ask() for run in active]  # S times (K, L)
        written = prepare_many(model.decode(np.concatenate(z)), workers=0)
        molecules = iter([each.canonical_smiles for each in written])
        batches = [[next(molecules) for _ in part] for part in z]
        new = [run.unseen(batch) for run, batch in zip(active, batches, strict=True)]
        assessed = scores.of(list(zip(active, new, strict=True)))
        for run, part, batch, fresh, values in zip(active, z, batches, new, assessed, strict=True):
            run.record(fresh, values)
            run.update(part, batch)
        show()
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(store, runs)
            saved = time.monotonic()


def _save(store: Archive | None, runs: Sequence[Run]) -> None:
    if store is not None:
        for run in runs:
            store.add(run.key, run.rows[run.n_saved :])
            run.n_saved = len(run.rows)


@contextmanager
def _progress_bar(runs: Sequence[Run], settings: Settings, wanted: bool) -> Iterator[Any]:
    """Gives a function that shows how far the runs are: calls, starts done, best scores."""
    if not wanted:
        yield lambda: None
        return
    from tqdm import tqdm

    usable = [run for run in runs if run.usable]
    with tqdm(total=settings.budget * len(usable), unit="call") as bar:

        def show() -> None:
            done = sum(settings.budget if run.stopped else run.calls for run in usable)
            bar.update(done - bar.n)
            best = [run.best.score for run in usable if run.best is not None]
            text = f"best {max(best):.4g}, mean of best {sum(best) / len(best):.4g}" if best else "none found"
            bar.set_postfix_str(f"{sum(bool(run.stopped) for run in usable)}/{len(usable)} starts done, {text}")

        yield show
