"""What the tables of the claims study share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]
STUDIES = {  #: what varies: its title, the objectives compared on images
    "batch": ("batch size", ("cmim", "mim", "infonce")),
    "tau": ("temperature", ("cmim", "cvae", "infonce")),
    "latent": ("latent width", ("cmim", "mim", "infonce")),
}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Standard deviation NaN for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation; the latter only of several."""
    if not len(values):
        return "n/a"
    mean, deviation = (f"{number:.{digits}f}" for number in mean_and_deviation(values))
    return mean if len(values) == 1 else f"{mean} ± {deviation}"


def reported(lines: Iterable[Row]) -> bool:
    """Whether there is any cell but those that learning rates are chosen by."""
    return any(line["cell"].get("seed") for line in lines)


def reported_lines(lines: Iterable[Row], setting: Mapping[str, Any]) -> list[Row]:
    """Lines of the reported seeds of one setting, whose cells have these values."""
    seeds = (line for line in lines if line["cell"].get("seed"))
    return [line for line in seeds if all(line["cell"][name] == value for name, value in setting.items())]


def made(facts: Iterable[Mapping[str, Any]], command: str) -> str:
    """Where numbers come from: command, commits, machines."""
    facts = list(facts)
    commits = sorted({(f["commit"] or "?")[:7] + (" (modified)" if f["modified"] else "") for f in facts})
    machines = sorted({f"{f['machine']['cpu']}, torch {f['machine']['torch']}" for f in facts})
    return f"`{command}`; commit {', '.join(commits)}; {'; '.join(machines)}."
