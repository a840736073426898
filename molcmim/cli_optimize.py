"""`molcmim optimize`: better molecules near given ones, by search in the latent space."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molcmim.cli_options import FormatOption, IdColumn, ModelOption, SmilesColumn
from molcmim.cli_tables import check_outputs, read_molecules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from molcmim.objectives import Objective, Oracle
    from molcmim.optimize.archive import OptimizeResult

SHOWN = 20  #: starts whose result is printed


class Method(StrEnum):
    """Ways to search."""

    cma = "cma"
    random = "random"


def optimize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A SMILES, or a file of molecules to start from: .smi, .txt, .csv, .tsv, each also with .gz or .xz; - "
            "for standard input.",
            show_default=False,
        ),
    ],
    objective: Annotated[
        str,
        typer.Option(
            help="What to raise: qed, plogp (penalised log P, normalised), plogp-raw, logp, sa, mw, tpsa, hbd, hba, "
            "rings, heavy, tanimoto (to the start); a weighted sum, as in qed:1,sa:-0.1; or module:function, a Python "
            "function of one's own that takes a list of SMILES and returns numbers."
        ),
    ] = "qed",
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="What a molecule must satisfy, as in 'sa<=4'; may be given again.", show_default=False),
    ] = None,
    min_similarity: Annotated[
        float | None,
        typer.Option(
            help="Least Tanimoto similarity to the start (Morgan, radius 2).", min=0, max=1, show_default=False
        ),
    ] = None,
    skip_dissimilar: Annotated[
        bool,
        typer.Option("--skip-dissimilar", help="Spend no calls on molecules below --min-similarity."),
    ] = False,
    budget: Annotated[int, typer.Option(help="Oracle calls for each start.", min=1)] = 1000,
    stop_at: Annotated[float | None, typer.Option(help="A start is done at this score.", show_default=False)] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="A start is done after so many calls without progress.", min=1, show_default=False),
    ] = None,
    method: Annotated[Method, typer.Option(help="cma: CMA-ES; random: around the start, as a control.")] = Method.cma,
    population: Annotated[
        int | None, typer.Option(help="Candidates a generation.", min=4, show_default="4 + 3 log(latent size)")
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option(help="First step, in latent units.", show_default="twice the sigma of the start's posterior"),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Equal seeds give equal results; a start given twice is searched twice, differently.", min=0),
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="OUT", help="One line a start: *.csv, *.tsv, *.parquet.", show_default=False
        ),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for every molecule evaluated, kept up to date.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the archive: what it holds isn't evaluated again.")
    ] = False,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Picture of scores against calls: *.png, *.svg, *.html.", show_default=False),
    ] = None,
    model: ModelOption = None,
    smiles_column: SmilesColumn = None,
    id_column: IdColumn = None,
    format: FormatOption = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.", show_default="cuda if there is one")] = None,
) -> None:
    """Search for better molecules near given ones. Ctrl-C ends it and keeps what was found.

    An oracle call is one distinct valid molecule of a start. The best molecule may be the start itself. Exit codes: 0
    done, 1 an error, no start that can be used, or no score for any molecule, 130 interrupted.
    """
    from molcmim.cli_run import terminate_as_interrupt
    from molcmim.objectives import oracle_name
    from molcmim.optimize import need_cma
    from molcmim.optimize import optimize as run
    from molcmim.optimize.archive import ARCHIVE, write_results

    if resume and archive is None:
        raise typer.BadParameter("it needs --archive, the folder to go on from", param_hint="resume")
    if method is Method.cma:
        need_cma()
    check_outputs(output, image)
    oracle = parse_oracle(objective, constraint or [])
    starts, ids = read_molecules(source, smiles_column, id_column, format)
    if resume and archive is not None and not (archive / ARCHIVE).exists():
        typer.echo(f"{archive} holds no {ARCHIVE} to go on from: starting afresh", err=True)
    from molcmim.api import MolCMIM

    network = MolCMIM.from_pretrained(model, device=device)
    with terminate_as_interrupt():
        results = run(
            network,
            starts,
            oracle,
            budget=budget,
            population=population,
            sigma=sigma,
            min_similarity=min_similarity,
            skip_dissimilar=skip_dissimilar,
            stop_at=stop_at,
            patience=patience,
            seed=seed,
            archive=archive,
            resume=resume,
            progress=sys.stderr.isatty(),
            method=method.value,
        )
    print_results(results, ids, oracle_name(oracle), stop_at)
    if output is not None:
        facts = {"model": network.model_id, "objective": oracle_name(oracle), "method": method.value}
        write_results(results, output, ids if any(ids) else None, facts)
        typer.echo(f"{len(results):,} start(s) -> {output}")
    if image is not None and any(result.stopped for result in results):
        from molcmim.pictures import trace_picture

        typer.echo(f"picture: {trace_picture(results, image, threshold=stop_at, name=objective)}")
    if any(result.stopped == "interrupted" for result in results):
        raise typer.Exit(130)
    if not any(result.stopped for result in results):
        raise ValueError(f"IN: expected a SMILES or a file of molecules, got {source[:60]!r}: {_statuses(results)}")
    if not any(has_scores(result) for result in results):
        raise ValueError("objective: expected scores, but it gave none for any molecule")


def parse_oracle(text: str, constraints: Sequence[str] = ()) -> Oracle | Objective:
    """An objective as the command line has it: ``qed``, ``qed:1,sa:-0.1``, ``module:function``, ``sa<=4``.

    Raises
    ------
    ValueError
        If a name is unknown, or the text isn't of that form.
    ImportError
        If there is no such module.
    """
    from molcmim.objectives import Objective

    terms = []
    for item in text.split(","):
        what, colon, number = item.strip().rpartition(":")
        if not colon or not _is_number(number):  # no weight
            what, number = item.strip(), "1"
        terms.append((load_function(what) if ":" in what else what, float(number)))
    limits = []
    for item in constraints:
        match = re.fullmatch(r"\s*([^<>=]+?)\s*([<>]=)\s*([^<>=]+?)\s*", item)
        if match is None or not _is_number(match[3]):
            raise ValueError(f"constraint: expected NAME>=NUMBER or NAME<=NUMBER, got {item!r}")
        limits.append((load_function(match[1]) if ":" in match[1] else match[1], match[2], float(match[3])))
    if len(terms) == 1 and not limits and not isinstance(terms[0][0], str) and terms[0][1] == 1:
        return terms[0][0]
    return Objective(terms, limits)


def load_function(text: str) -> Oracle:
    """The Python function ``module:function``; modules of the current directory are found as well."""
    from importlib import import_module

    name, _, attribute = text.partition(":")
    if not re.fullmatch(r"[\w.]+", name) or not attribute.isidentifier():
        raise ValueError(f"objective: expected a name, or module:function, got {text!r}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = import_module(name)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ValueError(f"objective: expected a function {attribute!r} in {name}, got {type(function).__name__}")
    return function


def print_results(
    results: Sequence[OptimizeResult], ids: Sequence[str | None], name: str, stop_at: float | None
) -> None:
    """A line a start, and a summary of many."""
    for result, label in list(zip(results, ids, strict=True))[:SHOWN]:
        typer.echo(f"{label or result.start[:60]}")
        if not result.stopped:
            typer.echo(f"  can't be used: {result.status.value}")
            continue
        typer.echo(f"  start  {result.start_score:8.4f}  {result.start_smiles}")
        if result.best_smiles is None:
            what = "that satisfies the constraints" if has_scores(result) else "that has a score"
            typer.echo(f"  best   nothing found {what}")
        else:
            typer.echo(f"  best   {result.best_score:8.4f}  {result.best_smiles}  (similarity {result.similarity:.2f})")
        typer.echo(f"  {result.calls:,} calls, {result.decoded:,} decoded, ended by {result.stopped}")
    if len(results) > SHOWN:
        typer.echo(f"and {len(results) - SHOWN:,} more")
    found = [result for result in results if result.best_smiles is not None]
    if len(results) > 1 and found:
        better = sum(result.improvement > 0 for result in found)
        mean = sum(result.best_score for result in found) / len(found)
        text = f"{name}: {better:,} of {len(results):,} starts improved, mean of best {mean:.4f}"
        if stop_at is not None:
            text += f", {sum(result.best_score >= stop_at for result in found):,} at {stop_at:g} or better"
        typer.echo(text)
    n_failed, errors = sum(result.failed for result in results), [each.error for each in results if each.error]
    if n_failed:
        last = f", the last error: {errors[-1][:200]}" if errors else ""
        typer.echo(f"warning: the oracle gave no score for {n_failed:,} molecules{last}", err=True)


def has_scores(result: OptimizeResult) -> bool:
    """Whether the objective gave a number for at least one molecule."""
    return result.calls > result.failed


def _statuses(results: Sequence[OptimizeResult]) -> str:
    return ", ".join(dict.fromkeys(result.status.value for result in results)) or "no molecules"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
