"""`molcmim benchmark`: frozen features on MoleculeNet or on one's own data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molcmim.cli_generation_metrics import generation

if TYPE_CHECKING:
    from molcmim.moleculenet.types import Dataset

app = typer.Typer(
    help="Score frozen features on MoleculeNet or on your own data.",
    invoke_without_command=True,
    no_args_is_help=False,
    add_completion=False,
)


def names(text: str) -> tuple[str, ...]:
    """``"a, b"`` to ``("a", "b")``, each once; ValueError if there is none."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise ValueError(f"expected names with commas between them, got {text!r}")
    return found


@app.callback(invoke_without_command=True)
def benchmark(
    context: typer.Context,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Sets: esol, freesolv, lipo, bace, bace-regression, bbbp, clintox, hiv, sider, tox21, toxcast, muv, "
            "qm7, qm8; small for esol, freesolv, lipo, bace and bbbp.",
            show_default="small, or none with --data",
        ),
    ] = None,
    protocol: Annotated[str, typer.Option(help="Protocols: random5, scaffold, scaffold5, spec5, paper.")] = "random5",
    heads: Annotated[str, typer.Option(help="Heads: ridge, svm, knn, knn-cosine, mlp, rf, xgb; or all.")] = "svm,ridge",
    features: Annotated[
        str,
        typer.Option(
            help="Features: MODEL:latent|informative|both|all, MODEL being a shipped name or a checkpoint directory; "
            "floor, maccs, ecfp4, ecfp4-count, rdkit2d, rdkit2d+ecfp4, or classical for these six; "
            "LABEL=FILE.npz, peer:NAME, peers for vectors of other models.",
            show_default="the shipped model's both, rdkit2d, ecfp4-count, floor",
        ),
    ] = "",
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Directory with the benchmark files.", show_default="the one that MOLCMIM_DATA names"),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Where sets come from: directory, package, deepchem, or auto for the first that has it.")
    ] = "auto",
    data: Annotated[
        Path | None, typer.Option(help="Your own table: .csv or .tsv, also .gz or .xz.", show_default=False)
    ] = None,
    smiles: Annotated[str | None, typer.Option(help="Its column of SMILES.", show_default="smiles")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Its column to predict; may be given again.", show_default=False)
    ] = None,
    task: Annotated[str, typer.Option(help="Of your own table: regression, classification, or auto.")] = "auto",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results and report.")] = Path("benchmark_output"),
    processes: Annotated[
        int | None, typer.Option(min=1, help="Cells computed at once.", show_default="one a CPU core")
    ] = None,
    everything: Annotated[bool, typer.Option(help="All heads and protocols on large sets too.")] = False,
    maps: Annotated[bool, typer.Option(help="Draw a map of each small set for the report.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan and estimate, compute nothing.")] = False,
) -> None:
    """Score frozen features on MoleculeNet or on your own data.

    Results, splits and a report go to a folder; the same command again goes on where it was stopped, another one
    adds to the folder.
    """
    if context.invoked_subcommand is not None:
        return
    need_extra()
    import os

    from molcmim.chem import cpu_count
    from molcmim.cli_run import terminate_as_interrupt
    from molcmim.moleculenet.datasets import SMALL
    from molcmim.moleculenet.features import parse_features
    from molcmim.moleculenet.heads import HEADS
    from molcmim.moleculenet.runner import Options, run

    if data is not None and not target:
        raise typer.BadParameter("--data needs --target, the column to predict", param_hint="target")
    if data is None and target:
        raise typer.BadParameter("it is a column of --data, which is missing", param_hint="target")
    wanted = names(tasks) if tasks else (() if data is not None else SMALL)
    wanted = tuple(dict.fromkeys(name for each in wanted for name in (SMALL if each == "small" else (each,))))
    if data_dir is None and os.environ.get("MOLCMIM_DATA"):
        data_dir = Path(os.environ["MOLCMIM_DATA"])
    options = Options(
        datasets=wanted,
        protocols=names(protocol),
        heads=HEADS if heads == "all" else names(heads),
        features=tuple(parse_features(features or default_features(), data_dir)),
        out=out,
        data_dir=data_dir,
        source=source,
        tables=() if data is None else (own_table(data, smiles, target or [], task),),
        processes=processes or cpu_count(),
        everything=everything,
        maps=maps,
        command=command(),
    )
    try:
        with terminate_as_interrupt():
            outcome = run(options, say=typer.echo, dry=dry_run)
    except KeyboardInterrupt:
        typer.echo(f"stopped: what was done is in {out}, the same command goes on", err=True)
        raise typer.Exit(130) from None
    if dry_run:
        return
    typer.echo(f"{outcome.computed} cells computed, {outcome.skipped} were there already")
    typer.echo(f"report: {out / 'report.html'} and {out / 'report.md'}; numbers: {out / 'results.csv'}")
    if outcome.errors:
        typer.echo(f"{len(outcome.errors)} cells failed, see above", err=True)
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    reference: Annotated[
        str | None, typer.Option(help="Features that the others are compared with.", show_default="the first model's")
    ] = None,
) -> None:
    """Write the report of a results folder again."""
    need_extra()
    from molcmim.moleculenet.report import write_report

    write_report(folder, reference)
    typer.echo(f"report: {folder / 'report.html'} and {folder / 'report.md'}")


app.command()(generation)


def own_table(path: Path, smiles: str | None, targets: list[str], task: str) -> Dataset:
    """A table of one's own; its name has the targets in it, so that results of two targets are never mixed."""
    from dataclasses import replace

    from molcmim.moleculenet.datasets import load_table

    dataset = load_table(path, smiles, targets, task)
    if len(targets) > 1 and dataset.task == "regression":
        typer.echo("several targets: scores are means over them, whatever their units; give one --target for its own")
    name = f"{dataset.name}.{'+'.join(targets)}"
    safe = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name)[:80]
    return replace(dataset, name=safe, title=f"{path.name}: {', '.join(targets)}")


def default_features() -> str:
    """The shipped model beside three classical feature sets."""
    from molcmim.checkpoint_files import find_checkpoint

    return f"{find_checkpoint(None).name}:both,rdkit2d,ecfp4-count,floor"


def need_extra() -> None:
    """ImportError that says what to install, unless the runner's libraries are there."""
    from importlib.util import find_spec

    missing = [name for name in ("sklearn", "scipy", "pandas", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ImportError(f"needs {', '.join(missing)}: pip install 'molcmim[benchmark]'")


def command() -> str:
    """The command as typed, paths of this machine shortened."""
    from molcmim.provenance import command_line

    return command_line("molcmim") if Path(sys.argv[0]).name != "pytest" else shlex.join(["molcmim", "benchmark"])
