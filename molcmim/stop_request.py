"""Ctrl-C and SIGTERM as a wish to end soon: what is in hand is finished first. Imports the standard library only."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """While in the block, the first Ctrl-C or SIGTERM only sets `requested`; a second one interrupts.

    In any thread but the main one signals are left alone.

    Parameters
    ----------
    note
        Written to stderr when the first one comes.
    """

    def __init__(self, note: str = "") -> None:
        self.requested = False
        self._note = note.encode()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._note:  # not print: the signal may have come in the middle of another write to the same stream
            os.write(2, self._note)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
