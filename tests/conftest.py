"""Markers: tests that need a GPU or the data directory skip themselves and say why."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A shell without job control starts its background jobs with SIGINT ignored, and children inherit that: then the tests
# that interrupt a child with Ctrl-C would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run side by side, one process a core: threads would only wait for each other. Children inherit this too.
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

LONGEST = ("test_overfit.py", "test_scoring_ray.py")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The directory named by MOLCMIM_DATA; only for tests marked `data`."""
    return Path(os.environ["MOLCMIM_DATA"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # With two processes: begun last, one of these would keep one at work for minutes when the other has finished.
    items.sort(key=lambda item: item.path.name not in LONGEST)
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        import torch

        if not torch.cuda.is_available():
            for item in gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    if not os.environ.get("MOLCMIM_DATA"):
        for item in items:
            if item.get_closest_marker("data"):
                item.add_marker(pytest.mark.skip(reason="needs the directory named by MOLCMIM_DATA"))
