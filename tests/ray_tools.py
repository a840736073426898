"""A small Ray cluster of several nodes on this machine, and its processes, for tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

MODEL, CHEMISTRY = "ray::MapWorker(MapBatches(EmbedStage))", "ray::MapBatches(prepare_shard)"  #: titles of processes
PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
#: busy machines: a worker that takes longer than this to start is killed, and the driver may then wait for ever
PATIENCE = {
    "worker_register_timeout_seconds": 600,
    "prestart_worker_first_driver": False,
    "worker_niceness": 0,  # 15 by default: beside another busy test they would hardly run
}


@contextmanager
def ray_cluster(*cpus: int) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` with a node for each number of CPUs, to which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for n in cpus:
            add_node(cluster, n)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster: Any, cpus: int) -> Any:
    """Start one more node. A node with ports of its own choice ends itself if it can't choose them within 15 s."""
    from ray._private import services

    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    start = services.start_ray_process

    def start_with_port(command: list[str], process_type: str, *args: Any, **options: Any) -> Any:
        if process_type == services.ray_constants.PROCESS_TYPE_RAYLET:  # Ray itself forgets to pass it on
            command = [*command, f"--dashboard_agent_listen_port={ports['dashboard_agent_listen_port']}"]
        return start(command, process_type, *args, **options)

    options: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": 100 << 20, "include_dashboard": False}
    if cluster.head_node is None:
        options["_system_config"] = PATIENCE
    with mock.patch.object(services, "start_ray_process", start_with_port):
        return cluster.add_node(**options, **ports)


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on just now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def processes(nodes: list[Any], title: str) -> list[int]:
    """Process ids of the workers of some nodes, by the beginning of their title."""
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    ours = {f"RAY_RAYLET_PID={raylet}".encode() for raylet in raylets}
    found = []
    for entry in Path("/proc").iterdir():
        try:
            titled = entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(title.encode())
            if titled and ours.intersection((entry / "environ").read_bytes().split(b"\0")):
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return found
