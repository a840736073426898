"""A run over the shards of a manifest on a Ray cluster, as `molcmim embed IN -o DIR/ --engine ray` does.

    number of a shard  ->  chemistry, a task             ->  model, an actor with a GPU or some CPUs  ->  a report
                           (`prepare_shard`)                 (`EmbedStage`), which writes the file

Ray Data moves the shards through these stages, as many at a time as there is room for, and makes good for
processes and machines that are lost. A shard that is done twice is the same file twice, since it is
written beside and renamed; its bytes are those that `run_shards` makes of it.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from molcmim.scoring.durable import part_path, remove_leftovers
from molcmim.scoring.manifest import MANIFEST, Manifest
from molcmim.scoring.ray_cluster import Places, choose_places, connected, first_line, import_ray, quiet_data
from molcmim.scoring.ray_stages import EmbedStage, RayJob, Report, chemistry_mark, prepare_shard
from molcmim.scoring.run import ProgressBar, RunSummary, added_up, sort_out, targets
from molcmim.scoring.source import Source
from molcmim.stop_request import StopRequest

STOPPING = "\nstopping when the shards in hand are finished; once more to stop at once\n"
WATCH_SECONDS = 0.2


def run_ray(
    checkpoint: str | os.PathLike[str] | None,
    source: Source,
    manifest: Manifest,
    folder: Path,
    actors: int | None = None,
    threads: int = 1,
    show_progress: bool | None = False,
    say: Callable[[str], object] = lambda text: None,
) -> RunSummary:
    """Make the shards that aren't finished yet, on the cluster that this process is connected to (`ray.init`), or that
    of RAY_ADDRESS, or on this machine.

    While it works, the first Ctrl-C (or SIGTERM) lets it finish the shards in hand and return; the second is a
    KeyboardInterrupt. After an error, too, the shards in hand are finished first.

    Parameters
    ----------
    checkpoint
        The manifest's model, as for `MolCMIM.from_pretrained`; a directory must be there on all machines.
    source, manifest, folder
        As for `embed_shard`; the input's files and the folder must have the same paths on all machines.
    actors
        Processes that hold a model; default: see `choose_places`.
    threads
        Threads, and CPUs, of each. Shards have the bytes of a run in one process that has as many threads.
    show_progress, say
        As for `run_shards`.

    Raises
    ------
    ManifestError, ValueError, OSError
        As `embed_shard`, and if the cluster has no room; shards finished until then stay.
    ImportError
        If ray isn't installed.
    RuntimeError
        If processes are lost again and again at the same shard.
    """
    import_ray()
    folder = folder.absolute()
    numbers = list(range(len(manifest.shards)))
    names = targets(manifest, numbers)
    names += [chemistry_mark(name) for name in names[1:]]
    remove_leftovers(folder, names)
    done, todo = sort_out(manifest, numbers, folder, say)
    start = time.perf_counter()
    reports: list[Report] = []
    stopped = False
    if todo:
        job = job_of(checkpoint, source, manifest, folder, threads)
        try:
            with connected() as nodes, ProgressBar(manifest, numbers, done, show_progress) as bar:
                chosen = choose_places(nodes, manifest.settings["device"], len(todo), actors, threads)
                if not chosen.gpus and any(node.get("GPU") for node in nodes):
                    say("the cluster's GPUs are not used: the shards of this folder are made on CPUs (--device)")
                with StopRequest(STOPPING) as stop, watched(stop, job.stop_file):
                    for report in stream_of_reports(job, todo, chosen):
                        reports.append(report)
                        bar.advance(report.summary().statuses)
                    stopped = stop.requested
        finally:  # nobody writes any more
            remove_leftovers(folder, names, nobody_writes=True)
    new = [report.summary() for report in reports]
    seconds = time.perf_counter() - start
    chemistry = sum(report.chemistry_seconds for report in reports)
    n_surplus = source.n_surplus + sum(report.n_surplus for report in reports)
    interrupted = stopped and len(new) < len(todo)
    return added_up(done.values(), new, len(numbers), seconds, chemistry, n_surplus, interrupted)


def job_of(
    checkpoint: str | os.PathLike[str] | None, source: Source, manifest: Manifest, folder: Path, threads: int
) -> RayJob:
    """What the cluster's processes must know; they have other working directories."""
    from molcmim.checkpoint_files import available

    name = None if checkpoint is None else os.fspath(checkpoint)
    if name is not None and name not in available():
        name = os.path.abspath(name)
    moved = copy.copy(source)
    moved.paths = [path.absolute() for path in source.paths]
    # The name of a temporary file of the manifest: should this process be killed, the next run clears it away.
    return RayJob(moved, manifest, folder, name, threads, part_path(folder / MANIFEST))


@contextmanager
def watched(stop: StopRequest, stop_file: Path) -> Iterator[None]:
    """While in the block, pass a request to stop on to the processes of the cluster."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(WATCH_SECONDS):
            if stop.requested:
                ask_to_stop(stop_file)
                return

    thread = threading.Thread(target=watch, name="molcmim-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def ask_to_stop(stop_file: Path) -> None:
    """Let the processes of the cluster finish what they are at; where that file can't be made, they go on."""
    with suppress(OSError):
        stop_file.touch()


def stream_of_reports(job: RayJob, todo: list[int], places: Places) -> Iterator[Report]:
    """Run the stages; the `Report` of each shard that was made, as they come. The first error is raised in the end.

    Raises
    ------
    ValueError, OSError, ArithmeticError, ImportError, RuntimeError
        What went wrong in a stage; RuntimeError also for what went wrong in Ray.
    """
    ray = import_ray()
    failed = None
    with quiet_data(ray):
        batches = iter(dataset_of(ray, job, todo, places).iter_batches(batch_size=None, batch_format="pyarrow"))
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                break
            except Exception as error:
                raise RuntimeError(f"Ray: {first_line(error)}") from error
            for report in map(Report.from_json, batch["report"].to_pylist()):
                if report.failure is not None:
                    failed = failed or report
                    ask_to_stop(job.stop_file)
                elif not report.stopped:
                    yield report
    if failed is not None:
        raise failed.error()


def dataset_of(ray: Any, job: RayJob, todo: list[int], places: Places) -> Any:
    """The pipeline, as a `ray.data.Dataset` of one row a shard. Nothing runs before it is iterated over."""
    shards = ray.data.from_items([{"shard": number} for number in todo], override_num_blocks=len(todo))
    prepared = shards.map_batches(
        prepare_shard,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={"job": job},
        compute=ray.data.TaskPoolStrategy(size=places.tasks),
        num_cpus=0,  # one is left for it, not reserved: after a node is lost, models might hold all, and it would wait
    )
    return prepared.map_batches(
        EmbedStage,
        batch_size=1,
        batch_format="pyarrow",
        fn_constructor_kwargs={"job": job},
        # two shards each: the next one is fetched while one is embedded
        compute=ray.data.ActorPoolStrategy(size=places.models, max_tasks_in_flight_per_actor=2),
        num_cpus=places.cpus,
        num_gpus=places.gpus or None,
    )
