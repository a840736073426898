"""The Ray cluster of a run: connecting to it or starting one, how many models it has room for, and quiet.

`import ray` stands inside of functions: it takes a second, and ray is an extra.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

CPUS_OF_A_SHARD = 1  #: that a chemistry task keeps busy
NO_PROGRESS_SECONDS = 24 * 3600  #: until a run without a finished shard ends; Ray Data's half hour is too short
CONNECT_SECONDS = 20
MODEL_SHARE = 0.75  #: of the CPUs that the models take by default where there are no GPUs


class Places(NamedTuple):
    """How much is done at once on a cluster."""

    models: int  #: processes that hold one
    cpus: int  #: of each
    gpus: int  #: of each
    tasks: int  #: of chemistry


def check_installed() -> None:
    """ImportError that says how to get ray, if it isn't there; quicker than to import it."""
    if importlib.util.find_spec("ray") is None:
        raise ImportError("engine ray: needs the package ray: pip install 'molcmim[ray]'")


def import_ray() -> Any:
    """The package ray, with Ray Data; ImportError that says how to get it."""
    check_installed()
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(f"engine ray: needs the package ray: pip install 'molcmim[ray]' ({error})") from error
    return ray


@contextmanager
def connected() -> Iterator[list[dict[str, float]]]:
    """Resources of each node of the cluster: the one this process is connected to, else that of RAY_ADDRESS, else
    one of this machine alone, which is gone again at the end.

    Raises
    ------
    ImportError
        If ray isn't installed.
    RuntimeError
        If there is no cluster at RAY_ADDRESS, or none can be started.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield node_resources(ray)
        return
    address = os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do; without, it warns of that
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's other logging to this process's stderr
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if in_main else None
    try:
        try:
            check_reachable(address)
            with no_stderr():  # what goes wrong comes as an exception as well
                ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **options)
        except Exception as error:  # Ray raises plain ones, too
            what = "can't be started" if address == "local" else f"can't be reached at {address} (RAY_ADDRESS)"
            raise RuntimeError(f"Ray {what}: {first_line(error)}") from error
        yield node_resources(ray)
    finally:
        ray.shutdown()
        if in_main and handler is not None:  # Ray has put one of its own there
            signal.signal(signal.SIGTERM, handler)


def check_reachable(address: str) -> None:
    """OSError unless somebody listens at ``host:port``; Ray itself would try for many minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()


@contextmanager
def no_stderr() -> Iterator[None]:
    """While in the block, nothing gets to stderr, not even from C++: Ray tells there which level of logging it has."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def first_line(error: BaseException) -> str:
    """Kind and first line of an error, of which Ray makes pages."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def node_resources(ray: Any) -> list[dict[str, float]]:
    """Resources (``CPU``, ``GPU``) of the nodes that are there now."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def choose_places(
    nodes: Sequence[Mapping[str, float]], device: str, n_shards: int, actors: int | None = None, threads: int = 1
) -> Places:
    """How many models a cluster is to hold.

    Parameters
    ----------
    nodes
        Resources of each node.
    device
        ``"cuda"``: a GPU for each model; ``"cpu"``: `threads` CPUs for each.
    n_shards
        To be made; more models than that are of no use.
    actors
        Default: one a GPU; without GPUs, three quarters of the CPUs.
    threads
        Of torch, for each model.

    Raises
    ------
    ValueError
        If the cluster has no room for one model, or not for `actors`, and one CPU for the chemistry.
    """
    if threads < 1 or (actors is not None and actors < 1):
        raise ValueError(f"actors, threads: expected at least 1, got {actors}, {threads}")
    n_cpus = int(sum(node.get("CPU", 0) for node in nodes))
    n_gpus = int(sum(int(node.get("GPU", 0)) for node in nodes))
    gpus = 1 if device == "cuda" else 0
    rooms = [int(node.get("CPU", 0) // threads) for node in nodes]
    if gpus:
        rooms = [min(room, int(node.get("GPU", 0))) for room, node in zip(rooms, nodes, strict=True)]
    most = min(sum(rooms), (n_cpus - CPUS_OF_A_SHARD) // threads)
    there = f"a cluster of {len(nodes)} nodes, {n_cpus} CPUs, {n_gpus} GPUs"
    need = f"{threads} CPUs{' and a GPU' if gpus else ''} for each model and one CPU for the chemistry"
    if most < 1:
        raise ValueError(f"device {device}: expected room for a model, got {there}; it takes {need}")
    if actors is not None and actors > most:
        raise ValueError(f"actors: expected at most {most}, got {actors}: there is {there}; it takes {need}")
    usual = most if gpus else min(most, max(1, int(MODEL_SHARE * n_cpus) // threads))
    models = min(actors or usual, max(1, n_shards))
    return Places(models, threads, gpus, n_cpus - models * threads)


@contextmanager
def quiet_data(ray: Any) -> Iterator[None]:
    """While in the block, Ray Data prints nothing, its log files are written as ever, and it waits for long shards."""
    context = ray.data.DataContext.get_current()
    wanted = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "execution_no_progress_timeout_s": NO_PROGRESS_SECONDS,
    }
    wanted = {name: value for name, value in wanted.items() if hasattr(context, name)}  # by version
    before = {name: getattr(context, name) for name in wanted}
    handlers = [handler for handler in logging.getLogger("ray.data").handlers if not hasattr(handler, "baseFilename")]
    levels = [(handler, handler.level) for handler in handlers if "File" not in type(handler).__name__]
    try:
        for name, value in wanted.items():
            setattr(context, name, value)
        for handler, _ in levels:
            handler.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        for handler, level in levels:
            handler.setLevel(level)
