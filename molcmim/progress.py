"""A progress bar on stderr, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def row_bar(total: int, show: bool) -> Iterator[Callable[[int], object] | None]:
    """Gives a function that advances a progress bar by a number of molecules, or None without one."""
    if not show:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="mol") as bar:
        yield bar.update
