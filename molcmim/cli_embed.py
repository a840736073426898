"""`molcmim embed`: molecules of any number into one file, or into a folder of shards."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from molcmim.cli_options import Compute, IdColumn, Kind, ModelOption, Policy, PolicyOption, SmilesColumn, Workers
from molcmim.cli_shards import Engine, RayOptions, choose_part, embed_shards, local_device, ray_options

if TYPE_CHECKING:
    from molcmim.api import MolCMIM
    from molcmim.scoring.manifest import JobOptions
    from molcmim.scoring.source import Source

FAILED = 3  #: exit code: the output is complete, but has more bad rows than --fail-on allows
THRESHOLD = re.compile(r"(?P<status>\w+)\s*>\s*(?P<number>\d+\.?\d*|\.\d+)\s*(?P<percent>%?)")


class VectorDtype(StrEnum):
    """Number formats of embeddings in files."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


class InputFormat(StrEnum):
    """Input formats."""

    smi = "smi"
    csv = "csv"
    tsv = "tsv"
    parquet = "parquet"
    sdf = "sdf"


class Header(StrEnum):
    """Whether tables have a header line."""

    auto = "auto"
    yes = "yes"
    no = "no"


class Threshold(NamedTuple):
    """One --fail-on: more than this share of rows of this status."""

    status: str  #: one of the statuses but `ok`, or `bad`: all of them together
    share: float
    text: str  #: as given


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IN...",
            help="Molecules: .smi, .txt (SMILES and name on each line), .csv, .tsv (tables), .sdf, each also with "
            ".gz, .xz or .zst; .parquet; folders and globs of such files, all of one format; - for standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="*.parquet; *.npy (with .csv and .json beside it); or a folder, for shards and resuming.",
        ),
    ],
    kind: Annotated[Kind, typer.Option(help="latent; informative (decoder states); both, side by side.")] = Kind.both,
    model: ModelOption = None,
    policy: PolicyOption = Policy.canonical,
    batch_size: Annotated[int, typer.Option(help="Most molecules in the model at once.", min=1)] = 256,
    exact: Annotated[
        bool, typer.Option("--exact", help="Fixed shapes: a row's bits don't depend on the other rows.")
    ] = False,
    smiles_column: SmilesColumn = None,
    id_column: IdColumn = None,
    format: Annotated[
        InputFormat | None,
        typer.Option("--format", help="Format of the input.", show_default="by its name; smi for -"),
    ] = None,
    header: Annotated[Header, typer.Option(help="Whether tables have a header; auto: find out.")] = Header.auto,
    workers: Workers = None,
    dtype: Annotated[
        VectorDtype, typer.Option(help="Number format of the output; int8: with a scale for each row.")
    ] = VectorDtype.float32,
    compute: Annotated[
        Compute, typer.Option(help="Precision of matrix products; bfloat16 is faster on some machines.")
    ] = Compute.float32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.", show_default="cuda if there is one")] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            help="Rows of a shard, if OUT is a folder.", min=1, show_default="1,000,000, or what the folder has"
        ),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS>SHARE",
            help="Exit code 3 if more rows than this have the status (or are bad, whatever the status), "
            "e.g. 'parse_error>1%', 'crash>0'. May be given several times.",
            show_default=False,
        ),
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.parquet", help="Put the shards together into this file in the end.", show_default=False
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(help="Which part of the shards to make.", min=0, show_default="from torchrun or a Slurm array"),
    ] = None,
    world: Annotated[
        int | None, typer.Option(help="Of how many parts.", min=1, show_default="from torchrun or a Slurm array, or 1")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="ray: on the Ray cluster of RAY_ADDRESS, or with Ray on this machine.")
    ] = Engine.plain,
    actors: Annotated[
        int | None,
        typer.Option(
            help="With Ray: processes that hold a model.", min=1, show_default="one a GPU, else 3/4 of the CPUs"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="With Ray: CPUs and torch threads of each.", min=1, show_default="1")
    ] = None,
) -> None:
    """Embed molecules: one row out for each row in, in order; a bad row has a status and no vector.

    If OUT is a folder (no .parquet or .npy at the end), it gets a work plan, manifest.json, and shards,
    part-00000.parquet and so on; the same command again goes on where an earlier one stopped. Ctrl-C finishes the
    shard in hand, twice stops at once.

    Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but a --fail-on threshold is exceeded, 130 interrupted.
    """
    thresholds = [parse_threshold(text) for text in fail_on or []]
    sharded = is_folder(output)
    if not sharded:
        other_engine = None if engine is Engine.plain else engine.value
        given = {"--shard-rows": shard_rows, "--merge": merge, "--rank": rank, "--world": world}
        refuse_options(given | {"--engine": other_engine}, f"only if the output is a folder, but got {output!r}")
    part = choose_part(rank, world) if sharded else (0, 1)
    on_ray: RayOptions | None = None
    if engine is Engine.plain:
        refuse_options({"--actors": actors, "--threads": threads}, "only with --engine ray")
    else:
        refuse_options({"--rank": rank, "--world": world, "--workers": workers}, "only with --engine plain")
        on_ray = ray_options(part, model, actors, threads, device)
    if merge is not None and part[1] > 1:
        raise typer.BadParameter("merge when all parts are done: the same command with --rank 0 --world 1")
    # Before Arrow is loaded: its own allocator gives pages back late, so a process that reads Parquet grows once more.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from molcmim.scoring.manifest import JobOptions

    options = JobOptions(kind.value, policy.value, dtype.value, exact, batch_size)
    columns = {
        "smiles_column": smiles_column,
        "id_column": id_column,
        "format": format.value if format else None,
        "header": header.value,
    }
    from molcmim.scoring.source import open_source

    with open_source(inputs if len(inputs) > 1 else inputs[0], **columns) as source:  # type: ignore[arg-type]
        if sharded:
            check_folder_output(source, Path(output), merge)
        else:
            check_file_output(source, Path(output))
        from molcmim.api import MolCMIM

        here = "cpu" if on_ray else device or local_device()
        network = MolCMIM.from_pretrained(model, device=here, dtype=compute.value)
        if sharded:
            statuses = embed_shards(
                network, source, Path(output), options, shard_rows, columns, part, workers, merge, on_ray
            )
        else:
            statuses = embed_one(network, source, Path(output), options, columns, workers)
    exceeded = [threshold for threshold in thresholds if share_of(statuses, threshold) > threshold.share]
    for threshold in exceeded:
        share = 100 * share_of(statuses, threshold)
        typer.echo(f"--fail-on {threshold.text}: {share:.4g} % of the rows are {threshold.status}", err=True)
    if exceeded:
        raise typer.Exit(FAILED)


def embed_one(
    network: MolCMIM,
    source: Source,
    output: Path,
    options: JobOptions,
    columns: dict[str, str | None],
    workers: int | None,
) -> Counter[str]:
    """Everything into one file; rows per status."""
    from molcmim.cli import print_statuses
    from molcmim.cli_run import embed_file
    from molcmim.readers import FORMATS, MoleculeReader
    from molcmim.scoring.single import SourceReader

    kind, policy, dtype, exact, batch_size = options
    with ExitStack() as stack:
        reader: Any = SourceReader(source)
        if source.seekable and len(source.paths) == 1 and source.format in FORMATS.values():
            given = columns | {"format": source.format}  # with a bar over bytes
            reader = stack.enter_context(MoleculeReader(source.paths[0], **given))  # type: ignore[arg-type]
        summary = embed_file(network, reader, output, kind, policy, batch_size, exact, dtype, workers)
    rate = summary.n_rows / max(summary.seconds, 1e-9)
    typer.echo(f"{summary.n_rows:,} rows -> {output} in {summary.seconds:.1f} s ({rate:,.0f} molecules/s)")
    print_statuses(summary)
    return summary.statuses


def is_folder(output: str) -> bool:
    """Whether the output is a folder of shards: it is there, or the name ends in / or has no ending."""
    return Path(output).is_dir() or output.endswith(("/", os.sep)) or not Path(output).suffix


def check_file_output(source: Source, output: Path) -> None:
    """As `check_folder_output`, for one file."""
    from molcmim.writers import output_paths

    for path in output_paths(output):
        refuse_input(source, path)
    if not output.parent.is_dir():
        raise FileNotFoundError(f"output: no such directory: {output.parent}")


def check_folder_output(source: Source, folder: Path, merge: Path | None) -> None:
    """ValueError or OSError, before any work is done, if the outputs can't be the places for the results."""
    from molcmim.scoring.manifest import check_folder, check_seekable

    check_seekable(source)
    if any(path.resolve().parent == folder.resolve() for path in source.paths):
        raise ValueError(f"output: expected a folder other than that of the input, got {folder}")
    check_folder(folder)
    if merge is not None:
        check_file_output(source, merge)
        if merge.resolve().parent == folder.resolve():
            raise ValueError(f"--merge: expected a file outside the folder of shards, got {merge}")


def refuse_input(source: Source, path: Path) -> None:
    """ValueError if this path is one of the input's files."""
    if path.exists() and any(str(given) != "-" and path.samefile(given) for given in source.paths):
        raise ValueError(f"output: {path} would replace the input")


def refuse_options(given: Mapping[str, object], why: str) -> None:
    """Wrong usage if one of these options is given."""
    for name, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"expected {why}", param_hint=name)


def parse_threshold(text: str) -> Threshold:
    """A --fail-on, e.g. ``parse_error>1%``; wrong usage if it isn't one."""
    from molcmim.chem import Status

    names = [*(status.value for status in Status if status is not Status.ok), "bad"]
    match = THRESHOLD.fullmatch(text.strip())
    if not match:
        raise typer.BadParameter(f"expected e.g. 'parse_error>1%', got {text!r}", param_hint="--fail-on")
    if match["status"] not in names:
        raise typer.BadParameter(
            f"expected a status of {', '.join(names)}, got {match['status']!r}", param_hint="--fail-on"
        )
    share = float(match["number"]) / (100 if match["percent"] else 1)
    if share >= 1:
        raise typer.BadParameter(f"expected a share below 1 (or 100%), got {text!r}", param_hint="--fail-on")
    return Threshold(match["status"], share, text.strip())


def share_of(statuses: Counter[str], threshold: Threshold) -> float:
    """Share of the rows that a threshold is about."""
    total = statuses.total()
    bad = total - statuses["ok"] if threshold.status == "bad" else statuses[threshold.status]
    return bad / total if total else 0.0
