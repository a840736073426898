"""One child process of the worker pool: started, spoken to, timed and killed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

TICK_SECONDS = 0.1
START_SECONDS = 120.0
STDERR_TAIL = 2000  # bytes


class Closing(Exception):
    """The pool is being closed."""


class Worker:
    """One child process, with a thread that reads its replies."""

    def __init__(self, settings: dict[str, Any]) -> None:
        options: dict[str, Any] = {"start_new_session": True}  # out of reach of the terminal's Ctrl-C
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill; a pipe nobody reads could fill up
        arguments = ["-m", "molcmim.chem_worker", json.dumps(settings | {"parent": os.getpid()})]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", *arguments],  # -P: the current folder is no place for modules
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(_import_path())},
                **options,
            )
        except OSError:
            self._stderr.close()
            raise
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="molcmim-worker-reader", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # for the type checker
        with self._process.stdout as replies:
            for line in replies:
                if line.endswith(b"\n"):  # else cut off in the middle
                    self._lines.put(line)
        self._lines.put(None)

    def send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it died; the reader will notice
            self._process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            self._process.stdin.flush()

    def receive(self, patience: float, closing: threading.Event) -> bytes | None:
        """The next line, None once the process is dead; TimeoutError after `patience` seconds without one.

        Time is counted in ticks seen by this thread, so a stall of this whole process (the interpreter lock
        held by another thread, a suspended laptop) isn't held against the row.
        """
        ticks = 0
        while ticks * TICK_SECONDS < patience:
            if closing.is_set():
                raise Closing
            try:
                return self._lines.get(timeout=min(TICK_SECONDS, patience))
            except queue.Empty:
                ticks += 1
        raise TimeoutError

    def wait_until_ready(self, closing: threading.Event) -> bool:
        with contextlib.suppress(TimeoutError):
            while (line := self.receive(START_SECONDS, closing)) is not None:
                if line.startswith(b'{"ready":true'):  # before it, a site hook may have printed something
                    return True
        return False

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def killed_by_alarm(self) -> bool:
        return hasattr(signal, "SIGALRM") and self._process.wait() == -signal.SIGALRM

    def describe_failure(self) -> str:
        """Exit code and the end of what the process wrote to its standard error."""
        try:
            ending = f"exit code {self._process.wait(timeout=1.0)}"
        except subprocess.TimeoutExpired:
            ending = "no answer"
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - STDERR_TAIL))
        tail = self._stderr.read().decode("utf-8", errors="replace").strip()
        return f"{ending}, standard error: {tail or '(nothing)'}"

    def kill(self) -> None:
        """End the process and all it may have started, and leave neither a zombie nor an open file."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # just ended (macOS: not permitted)
            if sys.platform == "win32":
                self._process.kill()
            elif self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        with contextlib.suppress(OSError):  # what was left to send can't be sent
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._stderr.close()


def _import_path() -> list[str]:
    """Where this process finds modules: a child finds the same ones, even if molcmim isn't installed."""
    path = [os.path.abspath(entry) for entry in sys.path]  # "" is the current folder
    package_parent = str(Path(__file__).resolve().parent.parent)
    return path if package_parent in path else [*path, package_parent]
