"""Which shards fall to which of several runs: a fixed split, every `world`-th. No torch, no other imports."""

from __future__ import annotations

from collections.abc import Mapping


def part_of(n_shards: int, rank: int = 0, world: int = 1) -> list[int]:
    """Numbers of the shards that fall to one of `world` runs: every `world`-th, from `rank` on.

    Raises
    ------
    ValueError
        If there is no such rank.
    """
    if world < 1 or not 0 <= rank < world:
        raise ValueError(f"rank: expected 0 to world - 1 = {world - 1}, got {rank}")
    return list(range(rank, n_shards, world))


def rank_and_world(environment: Mapping[str, str]) -> tuple[int, int]:
    """Which of how many runs this is, by the variables that torchrun and Slurm job arrays set; (0, 1) without.

    Raises
    ------
    ValueError
        If the array's numbers don't follow one another: then the rank must be given.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return int(environment["RANK"]), int(environment["WORLD_SIZE"])
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return 0, 1
    number, world, first, last = (
        int(environment.get(f"SLURM_ARRAY_TASK_{name}", "0")) for name in ("ID", "COUNT", "MIN", "MAX")
    )
    step = int(environment.get("SLURM_ARRAY_TASK_STEP", "0")) or 1
    if world < 1 or (number - first) % step or first + (world - 1) * step != last:
        raise ValueError(
            f"SLURM_ARRAY_TASK_ID: expected a job array like 0-9, got task {number} of {world} from {first} to {last}; "
            "give --rank and --world"
        )
    return (number - first) // step, world
