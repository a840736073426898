"""`molcmim fit` and `molcmim predict`: a property model from one's own table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molcmim.cli_options import FormatOption, IdColumn, Input, Kind, ModelOption, Policy, PolicyOption, Workers

if TYPE_CHECKING:
    from molcmim.moleculenet.predictor import Predictor, Target
    from molcmim.moleculenet.types import Failure

EXAMPLES = 10  #: rows shown that weren't used


class Task(StrEnum):
    """Kinds of targets."""

    auto = "auto"
    regression = "regression"
    classification = "classification"


class Head(StrEnum):
    """The heads of `molcmim.moleculenet.heads`."""

    ridge = "ridge"
    svm = "svm"
    knn = "knn"
    knn_cosine = "knn-cosine"
    mlp = "mlp"
    rf = "rf"
    xgb = "xgb"


Smiles = Annotated[
    str | None,
    typer.Option("--smiles", "--smiles-column", help="Column that holds the SMILES.", show_default="smiles"),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.", show_default="cuda if there is one")]
BatchSize = Annotated[int, typer.Option(help="Most molecules in the model at once.", min=1)]


def fit(
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help=".csv or .tsv with a header, also with .gz or .xz.", show_default=False),
    ],
    target: Annotated[
        list[str],
        typer.Option("--target", "-t", help="Column to predict; may be given again.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory to make.")],
    smiles: Smiles = None,
    task: Annotated[
        Task, typer.Option(help="auto: classification if all values are 0 and 1 (or true and false).")
    ] = Task.auto,
    head: Annotated[Head, typer.Option(help="Kind of the model on top of the embedding.")] = Head.svm,
    model: ModelOption = None,
    kind: Annotated[Kind, typer.Option(help="latent; informative (decoder states); both, side by side.")] = Kind.both,
    policy: PolicyOption = Policy.canonical,
    coverage: Annotated[
        float, typer.Option(help="Share of new molecules that a prediction interval should hold.", min=0.5, max=0.999)
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the folds and of the head.", min=0)] = 0,
    batch_size: BatchSize = 256,
    workers: Workers = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a saved predictor.")] = False,
) -> None:
    """Fit a property model to a table of measurements; prints its cross-validated score, saves it as a directory.

    Rows of one molecule are never on both sides of a fold, and hyper-parameters are chosen without the fold that is
    scored. Rows that can't be used are counted and shown.
    """
    from molcmim.cli_benchmark import need_extra
    from molcmim.cli_run import terminate_as_interrupt
    from molcmim.moleculenet.datasets import load_table
    from molcmim.moleculenet.predictor import fit_predictor
    from molcmim.moleculenet.predictor_files import check_target_directory

    need_extra()
    check_target_directory(output.resolve(), overwrite)
    with terminate_as_interrupt():
        dataset = load_table(table, smiles, target, task.value, workers)
        predictor = fit_predictor(
            dataset,
            model,
            kind.value,
            head.value,
            policy=policy.value,
            coverage=coverage,
            seed=seed,
            device=device,
            batch_size=batch_size,
            workers=workers,
        )
        print_rows(predictor, table)
        for each in predictor.targets:
            print_target(each, predictor)
        print_domain(predictor)
        predictor.save(output, overwrite)
    typer.echo(f"saved: {output}")


def predict(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What fit saved.", show_default=False)],
    source: Input,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="*.csv, *.tsv or *.parquet.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Where the checkpoint is that it was fitted with, if it has moved.",
            show_default="found by name, or where it was",
        ),
    ] = None,
    smiles: Smiles = None,
    id_column: IdColumn = None,
    format: FormatOption = None,
    batch_size: BatchSize = 256,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Predict a property: one row out for each row in, in order; a bad row has a status and empty cells.

    Each prediction comes with an interval or a probability, the nearest training molecule, and whether the molecule
    is like the training ones (in_domain).
    """
    from molcmim.cli_benchmark import need_extra
    from molcmim.moleculenet.predictor_table import check_output, predict_file
    from molcmim.readers import MoleculeReader

    need_extra()
    with MoleculeReader(source, smiles, id_column, format) as reader:
        check_output(reader, output)
        from molcmim.moleculenet.predictor import Predictor

        outcome = predict_file(Predictor.load(directory, model, device), reader, output, batch_size, workers)
    summary = outcome.summary
    typer.echo(f"{summary.n_rows:,} rows -> {output} in {summary.seconds:.1f} s")
    for status, count in summary.statuses.most_common():
        typer.echo(f"  {status:<16} {count:>10,}")
    if summary.statuses["ok"]:
        share = 100 * outcome.n_inside / summary.statuses["ok"]
        typer.echo(f"in domain: {outcome.n_inside:,} of {summary.statuses['ok']:,} ({share:.1f} %)")
    if summary.n_surplus:
        typer.echo(
            f"warning: {summary.n_surplus:,} rows have more fields than the header; the surplus is left out", err=True
        )


def print_rows(predictor: Predictor, table: Path) -> None:
    """How many rows were used; the others by status, with examples."""
    training, network = predictor.training, predictor.model
    typer.echo(f"{table.name}: {training.n_rows:,} rows, {training.counts.get('ok', 0):,} of them used")
    for status, count in sorted(training.counts.items(), key=lambda item: -item[1]):
        if status != "ok":
            typer.echo(f"  {status:<16} {count:>10,}")
    if predictor.failures:
        typer.echo("not used (rows count from 0):")
        for failure in predictor.failures[:EXAMPLES]:
            typer.echo(f"  {failure.row:>8}  {failure.status:<15}  {_one_line(failure)}")
        if len(predictor.failures) > EXAMPLES:
            typer.echo(f"  and {len(predictor.failures) - EXAMPLES:,} more")
    typer.echo(f"embedding: {network.config['name']} ({network.model_id}), {predictor.kind}")


def print_target(target: Target, predictor: Predictor) -> None:
    """Scores of one target beside the naive ones, and what its error bar is."""
    fitted = target.fitted
    params = ", ".join(f"{name} {value}" for name, value in fitted.params.items())
    typer.echo(
        f"{target.name}: {predictor.task}, {target.n:,} values of {target.n_molecules:,} molecules, "
        f"{predictor.head}{f' ({params})' if params else ''}"
    )
    naive = "always the mean" if predictor.task == "regression" else "always the more frequent class"
    typer.echo(f"  {'5-fold cross-validation':<31} {_scores(fitted.scores)}")
    typer.echo(f"  {naive:<31} {_scores(fitted.baseline)}")
    if fitted.half_width is not None:
        typer.echo(f"  {100 * predictor.coverage:g} % interval: prediction ± {fitted.half_width:.3g}")


def print_domain(predictor: Predictor) -> None:
    """The limits of in_domain."""
    domain = predictor.domain
    text = f"in domain: at most {domain.max_distance:.3g} (cosine) from a training molecule"
    if domain.min_log_prob is not None:
        text += f", log-probability at least {domain.min_log_prob:.3g} nats a token"
    typer.echo(text)


def _scores(scores: Mapping[str, float]) -> str:
    labels = {"rmse": "RMSE", "mae": "MAE", "r2": "R2", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}
    return "   ".join(f"{labels.get(name, name)} {value:.3f}" for name, value in scores.items())


def _one_line(failure: Failure, limit: int = 60) -> str:
    text = failure.smiles
    shown = text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
    return shown if shown.isprintable() else ascii(shown)[1:-1]
