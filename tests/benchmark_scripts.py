"""Imports the scripts of studies, whose modules have the same names in several folders."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest


@contextmanager
def importing(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> Iterator[Callable[[str], ModuleType]]:
    """A function that imports a script by name, the first folder going before the others; forgotten at the end."""
    names = [path.stem for folder in folders for path in folder.glob("*.py")]

    def forget() -> None:
        for name in names:
            sys.modules.pop(name, None)

    for folder in reversed(folders):
        monkeypatch.syspath_prepend(folder)
    forget()
    yield importlib.import_module
    forget()
