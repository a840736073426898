"""A run over the shards of a manifest, or over this machine's part of them, as `molcmim embed IN -o DIR/` does.

Chemistry runs in worker processes that read ahead, from one shard into the next; the model runs in this
process, the writer in a thread; between them are short queues, so memory doesn't grow with the input.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from molcmim.scoring.durable import remove_leftovers
from molcmim.scoring.feed import prepared_chunks, range_chunks, take_rows
from molcmim.scoring.manifest import MANIFEST, Manifest
from molcmim.scoring.part import part_of
from molcmim.scoring.shard import ShardSummary, Times, embed_shard, finished
from molcmim.scoring.source import Source
from molcmim.stop_request import StopRequest
from molcmim.worker_pool import WorkerPool

if TYPE_CHECKING:
    from molcmim.api import MolCMIM


STOPPING = "\nstopping when the shard in hand is finished; once more to stop at once\n"


class RunSummary(NamedTuple):
    """What a run over shards came to; rows and statuses are those of all its finished shards, earlier ones too."""

    n_rows: int
    statuses: Counter[str]
    n_new_rows: int  #: embedded by this run
    n_embedded: int  #: of those, molecules that went through the model
    n_shards: int  #: of this run's part
    n_finished: int  #: of those, finished now
    n_new: int  #: of those, made by this run
    seconds: float
    times: Times  #: of the new shards
    chemistry_seconds: float  #: CPU seconds of the worker processes
    n_surplus: int = 0
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether this run's part is done."""
        return self.n_finished == self.n_shards


def run_shards(
    model: MolCMIM,
    source: Source,
    manifest: Manifest,
    folder: Path,
    rank: int = 0,
    world: int = 1,
    workers: int | None = None,
    show_progress: bool | None = False,
    say: Callable[[str], object] = lambda text: None,
) -> RunSummary:
    """Make the shards that aren't finished yet.

    While it works, the first Ctrl-C (or SIGTERM) lets it finish the shard in hand and return; the second is a
    KeyboardInterrupt.

    Parameters
    ----------
    model, source, manifest, folder
        As for `embed_shard`.
    rank, world
        Which part of the shards; see `part_of`.
    workers
        Processes for the chemistry; 0: none, None: one a CPU.
    show_progress
        A bar on stderr; None: if that is a terminal.
    say
        Takes a line about shards that are skipped, or that had to be made again.

    Raises
    ------
    ManifestError, ValueError, OSError
        As `embed_shard`; shards finished until then stay.
    """
    numbers = part_of(len(manifest.shards), rank, world)
    manifest.check_model(model)
    # A process of another machine looks dead from here: so leave alone what another part may be writing.
    remove_leftovers(folder, targets(manifest, numbers) if world == 1 else targets(manifest, numbers)[1:])
    done, todo = sort_out(manifest, numbers, folder, say)
    start, cpu = time.perf_counter(), children_seconds()
    new: list[ShardSummary] = []
    with StopRequest(STOPPING) as stop, ProgressBar(manifest, numbers, done, show_progress) as bar:
        with _stream(source, manifest, todo, workers) as stream:
            for number in todo:
                if stop.requested:
                    break
                prepared = take_rows(stream, manifest.shards[number].n)
                new.append(embed_shard(model, source, manifest, number, folder, None, bar.advance, prepared))
        interrupted = stop.requested and len(new) < len(todo)
    seconds, cpu = time.perf_counter() - start, children_seconds() - cpu
    return added_up(done.values(), new, len(numbers), seconds, cpu, source.n_surplus, interrupted)


def targets(manifest: Manifest, numbers: Sequence[int]) -> list[str]:
    """Names of the files that a run over these shards writes, the manifest first."""
    return [MANIFEST, *(manifest.shard_name(number) for number in numbers)]


def sort_out(
    manifest: Manifest, numbers: Sequence[int], folder: Path, say: Callable[[str], object]
) -> tuple[dict[int, ShardSummary], list[int]]:
    """Shards that are finished, and numbers of those that are to be made; says what it found."""
    done = {number: summary for number in numbers if (summary := finished(manifest, number, folder)) is not None}
    todo = [number for number in numbers if number not in done]
    for number in todo:
        name = manifest.shard_name(number)
        if (folder / name).exists():
            say(f"{name} is damaged or of another run: it is made again")
    if done:
        say(f"{len(done):,} of {len(numbers):,} shards are finished already")
    return done, todo


def added_up(
    done: Iterable[ShardSummary],
    new: Sequence[ShardSummary],
    n_shards: int,
    seconds: float,
    chemistry_seconds: float,
    n_surplus: int,
    interrupted: bool,
) -> RunSummary:
    """The summary of a run that found shards `done` and made those in `new`; the rest as in `RunSummary`."""
    summaries = [*done, *new]
    return RunSummary(
        n_rows=sum(summary.n_rows for summary in summaries),
        statuses=sum((summary.statuses for summary in summaries), Counter[str]()),
        n_new_rows=sum(summary.n_rows for summary in new),
        n_embedded=sum(summary.n_embedded for summary in new),
        n_shards=n_shards,
        n_finished=len(summaries),
        n_new=len(new),
        seconds=seconds,
        times=sum((summary.times for summary in new), Times()),
        chemistry_seconds=chemistry_seconds,
        n_surplus=n_surplus,
        interrupted=interrupted,
    )


@contextmanager
def _stream(source: Source, manifest: Manifest, numbers: Sequence[int], workers: int | None) -> Iterator[Iterator[Any]]:
    """Prepared chunks of several shards, one after another; the workers are gone at the end."""
    policy = manifest.options.policy
    chunks = (chunk for number in numbers for chunk in range_chunks(source, manifest.shards[number]))
    pool = WorkerPool(workers, policy) if workers != 0 and numbers else None
    with pool or nullcontext(), closing(prepared_chunks(chunks, policy, pool)) as stream:
        yield stream


def children_seconds() -> float:
    """CPU seconds of child processes that have ended, where the system counts them."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class ProgressBar:
    """Bar over this run's rows on stderr, with the statuses of the bad ones."""

    def __init__(
        self,
        manifest: Manifest,
        numbers: Sequence[int],
        done: Mapping[int, ShardSummary],
        show: bool | None,
    ) -> None:
        self._statuses = sum((summary.statuses for summary in done.values()), Counter[str]())
        self._bar: tqdm[Any] = tqdm(
            total=sum(manifest.shards[number].n for number in numbers),
            initial=self._statuses.total(),
            unit="mol",
            unit_scale=True,
            disable=None if show is None else not show,
            file=sys.stderr,
        )

    def __enter__(self) -> ProgressBar:
        return self

    def advance(self, statuses: Counter[str]) -> None:
        """Count rows that have been embedded."""
        self._statuses.update(statuses)
        bad = {status: n for status, n in sorted(self._statuses.items()) if status != "ok"}
        self._bar.set_postfix(bad, refresh=False)
        self._bar.update(statuses.total())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
