"""The part of `molcmim embed` that is about folders of shards: engines, parts, the table at the end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from molcmim.api import MolCMIM
    from molcmim.scoring.manifest import JobOptions
    from molcmim.scoring.run import RunSummary
    from molcmim.scoring.source import Source

INTERRUPTED = 130  #: exit code, as of any program that Ctrl-C ended


class Engine(StrEnum):
    """What makes the shards."""

    plain = "plain"
    ray = "ray"


class RayOptions(NamedTuple):
    """Options of the Ray engine; see `molcmim.scoring.ray_run.run_ray`."""

    checkpoint: str | None
    actors: int | None
    threads: int
    device: str  #: of the actors: cpu or cuda


def ray_options(
    part: tuple[int, int], checkpoint: str | None, actors: int | None, threads: int | None, device: str | None
) -> RayOptions:
    """Options of the Ray engine as given; wrong usage if they can't be, ImportError if ray isn't installed.

    The device is, by default, the kind that this machine has.
    """
    from molcmim.scoring.ray_cluster import check_installed

    if part[1] > 1:
        raise typer.BadParameter("expected one process, got a part of torchrun or a Slurm array", param_hint="--engine")
    if device not in (None, "cpu", "cuda"):
        raise typer.BadParameter(f"expected cpu or cuda with --engine ray, got {device!r}", param_hint="--device")
    check_installed()
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    return RayOptions(checkpoint, actors, threads or 1, device)


def embed_shards(
    network: MolCMIM,
    source: Source,
    folder: Path,
    options: JobOptions,
    shard_rows: int | None,
    columns: dict[str, str | None],
    part: tuple[int, int],
    workers: int | None,
    merge: Path | None,
    on_ray: RayOptions | None = None,
) -> Counter[str]:
    """Everything, or this machine's part of it, into shards; rows per status. Exits if it was interrupted."""
    from molcmim.cli_run import terminate_as_interrupt
    from molcmim.scoring.manifest import open_job
    from molcmim.scoring.merge import merge_shards
    from molcmim.scoring.run import run_shards

    rank, world = part
    with terminate_as_interrupt(), byte_bar(source) as progress:
        device = None if on_ray is None else on_ray.device
        manifest = open_job(folder, network, source, options, shard_rows, columns, progress, device)
    if world > 1:
        typer.echo(f"part {rank} of {world}")
    if on_ray is None:
        summary = run_shards(network, source, manifest, folder, rank, world, workers, None, say)
    else:
        from molcmim.scoring.ray_run import run_ray

        summary = run_ray(on_ray.checkpoint, source, manifest, folder, on_ray.actors, on_ray.threads, None, say)
    print_run(summary, folder)
    if summary.interrupted:
        left = summary.n_shards - summary.n_finished
        typer.echo(f"interrupted; {left:,} shards are left: the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED)
    if merge is not None:
        with terminate_as_interrupt():
            n_rows, _ = merge_shards(folder, merge)
        typer.echo(f"{n_rows:,} rows -> {merge}")
    return summary.statuses


def say(text: str) -> None:
    """A line on stderr."""
    typer.echo(text, err=True)


@contextmanager
def byte_bar(source: Source) -> Iterator[Any]:
    """A bar over the bytes of the input, for the pass that plans the work or compares it with the plan."""
    from tqdm import tqdm

    with tqdm(total=source.size, unit="B", unit_scale=True, desc="reading", disable=None, leave=False) as bar:
        yield lambda n_bytes, n_rows: bar.update(n_bytes - bar.n)


def print_run(summary: RunSummary, folder: Path) -> None:
    """The table at the end of a run over shards."""
    rate = summary.n_new_rows / max(summary.seconds, 1e-9)
    typer.echo(
        f"{summary.n_rows:,} rows in {summary.n_finished:,} of {summary.n_shards:,} shards -> {folder}; "
        f"{summary.n_new_rows:,} of them now, in {summary.seconds:.1f} s ({rate:,.0f} molecules/s)"
    )
    total = max(1, summary.n_rows)
    for status, count in summary.statuses.most_common():
        typer.echo(f"  {status:<16} {count:>14,} {100 * count / total:>9.4f} %")
    if summary.n_new_rows:
        typer.echo(f"  {'through the model':<16} {summary.n_embedded:>13,}  (equal molecules of a shard only once)")
        for name, seconds in (
            ("waiting for rows", summary.times.waiting),
            ("model", summary.times.model),
            ("writing (beside)", summary.times.writing),
            ("chemistry (CPU)", summary.chemistry_seconds),
        ):
            typer.echo(f"  {name:<16} {seconds:>14,.1f} s")
    if summary.n_surplus:
        surplus = f"{summary.n_surplus:,} rows have more fields than the header; the surplus is left out"
        typer.echo(f"warning: {surplus}", err=True)


def choose_part(rank: int | None, world: int | None) -> tuple[int, int]:
    """Rank and world as given, else of the launcher's environment, else (0, 1)."""
    from molcmim.scoring.part import rank_and_world

    if (rank is None) != (world is None):
        raise typer.BadParameter("give both --rank and --world, or neither")
    if rank is None or world is None:
        rank, world = rank_and_world(os.environ)
    if rank >= world:
        raise typer.BadParameter(f"expected 0 to {world - 1}, got {rank}", param_hint="--rank")
    return rank, world


def local_device() -> str | None:
    """Under torchrun, the GPU of this process's number on its machine; else None."""
    local = os.environ.get("LOCAL_RANK")
    if local is None:
        return None
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{int(local) % n}" if n else None
