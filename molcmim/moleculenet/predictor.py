"""A predictor from one's own measurements: frozen embedding + head, saved, with an error bar for every row.

>>> from molcmim.moleculenet.datasets import load_table                                  # doctest: +SKIP
>>> from molcmim.moleculenet.predictor import Predictor, fit_predictor                   # doctest: +SKIP
>>> predictor = fit_predictor(load_table("my.csv", None, ["logS"]))                      # doctest: +SKIP
>>> predictor.save("solubility")                                                         # doctest: +SKIP
>>> Predictor.load("solubility").predict(["CCO", "not a molecule"]).to_frame()           # doctest: +SKIP

What stands where: `predictor_scores` has cross-validation, intervals and probabilities, `predictor_domain` the test
whether a molecule is like the training ones, `predictor_files` the saved directory, `predictor_table` files of
predictions. Torch and scikit-learn are imported by what uses them.
"""

# Axes: n molecules, t targets, d features.

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.chem import Status
from molcmim.moleculenet.datasets import NO_LABEL
from molcmim.moleculenet.predictor_domain import Domain, make_domain
from molcmim.moleculenet.predictor_scores import FittedHead, check_share, fit_head, probabilities
from molcmim.moleculenet.types import REGRESSION, Array, Dataset, Failure
from molcmim.rows import TokenRows, tokenize_rows

if TYPE_CHECKING:
    from molcmim.api import MolCMIM

FloatArray = npt.NDArray[np.float32]


class Target(NamedTuple):
    """One column to predict."""

    name: str
    n: int  #: rows fitted on
    n_molecules: int  #: different molecules among them
    fitted: FittedHead


class Training(NamedTuple):
    """The table that a predictor was fitted on."""

    name: str
    sha256: str
    n_rows: int
    counts: dict[str, int]  #: rows by status; ``ok``: used, ``no_label``: no target measured


class Predictions(NamedTuple):
    """One entry (or row) a molecule, in order. Where the status isn't `ok`, numbers are NaN and `in_domain` False."""

    canonical_smiles: list[str | None]  #: what was embedded, or failed only as tokens
    status: list[Status]
    value: Array  #: (n, t) predicted values; classes 0.0 and 1.0
    low: Array  #: (n, t) lower ends of the prediction intervals; NaN for classes
    high: Array  #: (n, t) upper ends
    probability: Array  #: (n, t) of class 1; NaN for regression
    log_prob: Array  #: (n,) log p(x | z = mu) in nats; NaN for models without decoder
    nearest_distance: Array  #: (n,) cosine distance to the nearest training molecule
    nearest_smiles: list[str | None]  #: which one that is
    in_domain: npt.NDArray[np.bool_]  #: (n,) see `predictor_domain`
    targets: tuple[str, ...]  #: t names
    task: str

    def to_frame(self) -> Any:
        """A pandas DataFrame with the columns of `molcmim predict`, from `canonical_smiles` on."""
        import pandas as pd

        from molcmim.moleculenet.predictor_table import PANDAS, prediction_columns

        columns = prediction_columns(self)
        return pd.DataFrame({column.name: pd.Series(column.cells, dtype=PANDAS[column.type]) for column in columns})


@dataclass(frozen=True)
class Predictor:
    """Heads on the embeddings of one model. Made by `fit_predictor` or `Predictor.load`."""

    model: MolCMIM
    source: str | None  #: name of a shipped model or absolute path of a checkpoint; None: not known
    kind: str  #: ``latent``, ``informative`` or ``both``
    policy: str  #: how SMILES are prepared
    head: str
    task: str
    coverage: float  #: of the prediction intervals
    seed: int
    targets: tuple[Target, ...]
    domain: Domain
    training: Training
    failures: list[Failure] = field(default_factory=list)  #: rows that weren't used; not saved

    def predict(
        self, smiles: Iterable[object], batch_size: int = 256, workers: int | None = None, progress: bool = False
    ) -> Predictions:
        """Predict: n molecules in, n rows out, in order.

        Parameters
        ----------
        smiles
            List, tuple, pandas Series or NumPy array of SMILES; RDKit molecules, None and NaN are fine too.
        batch_size, workers, progress
            As for `MolCMIM.embed`; the bar counts each molecule twice, for its embedding and its log-probability.

        Raises
        ------
        TypeError
            If `smiles` is a single string: pass a list.
        """
        from molcmim.chem import to_text_list

        limit = self.model.network.config.max_tokens
        rows = tokenize_rows(to_text_list(smiles), self.model.tokenizer, limit, self.policy, workers)
        if not progress:
            return self.predict_rows(rows, batch_size)
        from tqdm import tqdm

        with tqdm(total=2 * len(rows.ok), unit="mol") as bar:
            return self.predict_rows(rows, batch_size, advance=bar.update)

    def predict_rows(
        self, rows: TokenRows, batch_size: int = 256, first_row: int = 0, advance: Any = None
    ) -> Predictions:
        """The second half of `predict`, for rows prepared with this predictor's policy and tokenized already.

        `first_row` is the number of the first row, should an error have to name one.
        """
        n, t, ok = len(rows.status), len(self.targets), rows.ok
        value, low, high, probability = (np.full((n, t), np.nan) for _ in range(4))
        log_prob, distance, inside = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, dtype=bool)
        nearest_smiles: list[str | None] = [None] * n
        if ok:
            embedding, total, per_token = embed_and_score(self.model, rows, self.kind, batch_size, first_row, advance)
            distance[ok], at, inside[ok] = self.domain.judge(embedding, per_token)
            for i, molecule in zip(ok, at.tolist(), strict=True):
                nearest_smiles[i] = self.domain.smiles[molecule]
            if total is not None:
                log_prob[ok] = total
            for k, target in enumerate(self.targets):
                value[ok, k], low[ok, k], high[ok, k], probability[ok, k] = predict_target(
                    target.fitted, self.task, embedding
                )
        return Predictions(
            rows.canonical_smiles,
            rows.status,
            value,
            low,
            high,
            probability,
            log_prob,
            distance,
            nearest_smiles,
            inside,
            tuple(target.name for target in self.targets),
            self.task,
        )

    def save(self, directory: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the predictor as a directory; see `predictor_files` for what is in it and what reading it trusts.

        Raises
        ------
        FileExistsError
            If there is something, unless it is a saved predictor and `overwrite` is given.
        """
        from molcmim.moleculenet.predictor_files import save_predictor

        return save_predictor(self, directory, overwrite)

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        model: MolCMIM | str | os.PathLike[str] | None = None,
        device: str | None = None,
    ) -> Predictor:
        """Read what `save` wrote.

        Parameters
        ----------
        directory
            The saved predictor.
        model
            Where its model is now: a checkpoint directory, the name of a shipped model, or the loaded model. Default:
            the shipped model of that name, or the directory that it was in when the predictor was fitted.
        device
            ``"cpu"``, ``"cuda"``; default: cuda if there is one.

        Raises
        ------
        PredictorError
            If anything about it is wrong: it is damaged, holds a type that isn't on the list, or the model isn't the
            one that it was fitted with (it is a ValueError).
        """
        from molcmim.moleculenet.predictor_files import load_predictor

        return load_predictor(directory, model, device)


def fit_predictor(
    dataset: Dataset,
    model: MolCMIM | str | os.PathLike[str] | None = None,
    kind: str = "both",
    head: str = "svm",
    *,
    policy: str = "canonical",
    coverage: float = 0.9,
    seed: int = 0,
    device: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    progress: bool = False,
) -> Predictor:
    """Fit one head for each target of a data set, on the embeddings of one model.

    Hyper-parameters are chosen on inner folds; scores, intervals and probabilities come from out-of-fold predictions
    (see `predictor_scores`), in which rows of one molecule are never on both sides. Then the head is fitted on
    everything.

    Parameters
    ----------
    dataset
        Of `load_table` or `load_dataset`; missing labels (NaN) are left out target by target.
    model
        A loaded model, the name of a shipped one, or a checkpoint directory; default: the shipped one.
    kind, policy, batch_size, workers, progress
        As for `MolCMIM.embed`.
    head
        One of `molcmim.moleculenet.heads.HEADS`.
    coverage
        Share of molecules like the training ones whose measured value the interval should hold (regression).
    seed
        Of the folds and of the head.
    device
        For a model that is loaded here.

    Returns
    -------
    Predictor
        Rows that couldn't be used are in its `failures`, and counted by status in its `training`.

    Raises
    ------
    ValueError
        If an option isn't one of those there are, or a target has fewer than 10 different molecules, is constant or
        of one class; names the target.
    """
    from molcmim.api import MolCMIM
    from molcmim.embed import check_kind
    from molcmim.moleculenet.heads import check_head

    check_head(head, dataset.task)
    check_share(coverage)
    if not dataset.targets:
        raise ValueError(f"{dataset.name}: expected at least one target, got none")
    network = model if isinstance(model, MolCMIM) else MolCMIM.from_pretrained(model, device=device)
    check_kind(kind, network.objective)

    limit = network.network.config.max_tokens
    rows = tokenize_rows(dataset.smiles, network.tokenizer, limit, policy, workers)
    used, training, failures = usable_rows(dataset, rows)
    y = dataset.y[used]
    groups = [dataset.canonical[i] if policy == "none" else str(rows.canonical_smiles[i]) for i in used]
    chosen = TokenRows(*([column[i] for i in used] for column in rows))  # type: ignore[arg-type]
    for k, name in enumerate(dataset.targets):
        _named(name, training, check_rows, y[:, k], groups, dataset.task)
    if progress:
        from tqdm import tqdm

        with tqdm(total=2 * len(used), unit="mol") as bar:
            embedding, _, per_token = embed_and_score(network, chosen, kind, batch_size, advance=bar.update)
    else:
        embedding, _, per_token = embed_and_score(network, chosen, kind, batch_size)

    targets = []
    for k, name in enumerate(dataset.targets):
        known = np.flatnonzero(~np.isnan(y[:, k]))
        keys = [groups[i] for i in known]
        fitted = _named(
            name, training, fit_head, head, dataset.task, embedding[known], y[known, k], keys, coverage, seed
        )
        targets.append(Target(name, len(known), len(set(keys)), fitted))
    texts = [str(text) for text in chosen.canonical_smiles]
    domain = make_domain(embedding, texts, groups, per_token, seed)
    source = None if isinstance(model, MolCMIM) else _source(model)
    return Predictor(
        network, source, kind, policy, head, dataset.task, coverage, seed, tuple(targets), domain, training, failures
    )


def usable_rows(dataset: Dataset, rows: TokenRows) -> tuple[list[int], Training, list[Failure]]:
    """Rows (positions in `dataset`) with a vector and a value for some target; counts; and the other rows."""
    failures = list(dataset.failures)
    used: list[int] = []
    for i, status in enumerate(rows.status):
        measured = not np.isnan(dataset.y[i]).all()
        if status is Status.ok and measured:
            used.append(i)
        else:
            reason = NO_LABEL if status is Status.ok else status.value
            failures.append(Failure(int(dataset.row[i]), dataset.smiles[i], reason))
    failures.sort()
    counts = Counter({"ok": len(used)})
    counts.update(failure.status for failure in failures)
    return used, Training(dataset.name, dataset.sha256, len(used) + len(failures), dict(counts)), failures


def check_rows(y: Array, groups: Sequence[str], task: str) -> None:
    """`check_target` for a column (n,) with missing labels: before the model runs, not after."""
    from molcmim.moleculenet.predictor_scores import check_target

    known = np.flatnonzero(~np.isnan(y)).tolist()
    check_target(y[known], [groups[i] for i in known], task)


def embed_and_score(
    model: MolCMIM, rows: TokenRows, kind: str, batch_size: int = 256, first_row: int = 0, advance: Any = None
) -> tuple[FloatArray, Array | None, Array | None]:
    """Of the m rows that are `ok`: embeddings (m, d), log p(x | z = mu) in nats (m,), and that per token (m,).

    A model without decoder has None for the latter two. A token here is what the decoder writes: <eos> counts.
    """
    from molcmim.embed import EmbedOptions, embed_tokens, has_decoder, score_tokens

    options = EmbedOptions(batch_size, dtype=model.dtype, progress=advance)
    tokens = [rows.tokens[i] or [] for i in rows.ok]
    numbers = [first_row + i for i in rows.ok]
    embedding = embed_tokens(model.network, tokens, kind, model.config["scales"], options, model.objective, numbers)
    if not has_decoder(model.objective):
        return embedding, None, None
    total = score_tokens(model.network, tokens, options, model.objective, numbers).astype(np.float64)
    return embedding, total, total / np.array([len(row) + 1 for row in tokens])


def predict_target(fitted: FittedHead, task: str, embedding: FloatArray) -> tuple[Array, Array, Array, Array]:
    """Value, low, high and probability of m embeddings, (m,) each, NaN where the task has no such thing."""
    from molcmim.moleculenet.heads import predict_with

    found = predict_with(fitted.estimator, task, embedding)
    nothing = np.full(len(found), np.nan)
    if task == REGRESSION:
        half_width = float("nan") if fitted.half_width is None else fitted.half_width
        return found, found - half_width, found + half_width, nothing
    probability = probabilities(found, fitted.slope or 0.0, fitted.intercept or 0.0)
    return (probability >= 0.5).astype(np.float64), nothing, nothing, probability


def _named(name: str, training: Training, function: Any, *arguments: Any) -> Any:
    """Call a function; its ValueError gets the target's name, and what became of the table's rows."""
    try:
        return function(*arguments)
    except ValueError as error:
        counts = ", ".join(f"{status} {count}" for status, count in training.counts.items())
        raise ValueError(f"target {name!r}: {error} (rows of {training.name}: {counts})") from error


def _source(model: str | os.PathLike[str] | None) -> str:
    from molcmim.checkpoint_files import DEFAULT, available

    given = DEFAULT if model is None else os.fspath(model)
    return given if given in available() else str(Path(given).resolve())
