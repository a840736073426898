"""A child process of `molcmim.worker_pool`: reads rows, writes prepared rows, may die at any time.

Run as `python -m molcmim.chem_worker SETTINGS`, SETTINGS in JSON. Both pipes carry one JSON value per line:

    out   {"ready": true, "rdkit": version}             once, after the imports
    in    {"rows": [text, ...], "flush_seconds": 0.02}  a mol block is {"block": text}
    out   [[canonical SMILES or null, status], ...]     answers to the next rows, at most every flush_seconds;
                                                        a third value is the SMILES written of a mol block

With flush_seconds 0 each row is answered by itself, so that the parent knows which row a death belongs to.
Only rdkit and molcmim.chem are imported (about 0.1 s).

Tests inject faults through the environment variable MOLCMIM_FAULTS, JSON of {text: exit | hang | memory |
segv}.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import signal
import sys
import threading
import time
from typing import Any, BinaryIO

from molcmim.chem import MolBlock, PreparedBlock, canonicalise

OUT_OF_MEMORY = 12  # exit code, as errno ENOMEM; the parent treats every death alike
PARENT_CHECK_SECONDS = 2.0
FAULTS: dict[str, str] = json.loads(os.environ.get("MOLCMIM_FAULTS", "{}"))


def main() -> None:
    """Serve rows until the parent closes its end of the pipe."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints must not mix with the replies
    threading.Thread(target=_exit_with_parent, args=(settings["parent"],), daemon=True).start()
    from rdkit import rdBase

    rdBase.DisableLog("rdApp.*")
    canonicalise("C", settings["policy"])  # whatever is imported late is imported now
    _limit_memory(settings["memory_mb"])
    _send(replies, {"ready": True, "rdkit": rdBase.rdkitVersion})
    for line in sys.stdin.buffer:
        _answer(json.loads(line), settings, replies)


def _answer(request: dict[str, Any], settings: dict[str, Any], replies: BinaryIO) -> None:
    policy, max_chars, alarm = settings["policy"], settings["max_chars"], settings["alarm"]
    flush_seconds = request["flush_seconds"]
    answers: list[tuple[str | None, ...]] = []
    _set_alarm(alarm)
    flushed = time.monotonic()
    for row in request["rows"]:
        text = MolBlock(row["block"]) if isinstance(row, dict) else row
        try:
            if FAULTS:
                _inject(FAULTS.get(text))
            answer = canonicalise(text, policy, max_chars)
            answers.append((*answer, answer.smiles) if isinstance(answer, PreparedBlock) else answer)
        except MemoryError:  # memory may be lost for good, which would cost later rows: start afresh
            os._exit(OUT_OF_MEMORY)
        if time.monotonic() - flushed >= flush_seconds:
            _send(replies, answers)
            answers = []
            _set_alarm(alarm)
            flushed = time.monotonic()
    _set_alarm(0.0)
    if answers:
        _send(replies, answers)


def _send(replies: BinaryIO, value: object) -> None:
    replies.write(json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n")
    replies.flush()


def _limit_memory(memory_mb: int | None) -> None:
    """Cap the address space at its present size plus `memory_mb` MiB, where the system knows both."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if memory_mb is None or not sys.platform.startswith("linux"):
        return
    with open("/proc/self/statm", encoding="ascii") as statm:
        present = int(statm.read().split()[0]) * resource.getpagesize()
    limit = present + (memory_mb << 20)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _set_alarm(seconds: float) -> None:
    """Let the system end this process should it hang after its parent died (else the parent kills it)."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)  # 0 clears it


def _exit_with_parent(parent: int) -> None:
    """End when the parent is gone, even if a process it forked still holds our pipe open."""
    while os.name == "posix":
        if os.getppid() != parent:
            os._exit(0)
        time.sleep(PARENT_CHECK_SECONDS)


def _inject(fault: str | None) -> None:
    if fault == "exit":
        os._exit(1)
    if fault == "hang":
        collections.deque(itertools.repeat(None), maxlen=0)  # never returns and never lets another thread run
    if fault == "print":
        os.write(1, b"something else\n")
    if fault == "slow":
        time.sleep(0.15)
    if fault == "memory":
        hoard = [bytes(1 << 26) for _ in range(256)]  # 16 GiB of zeros, which the system need not provide
        raise MemoryError(f"no memory limit stopped {len(hoard)} blocks")
    if fault == "segv":
        os.kill(os.getpid(), signal.SIGSEGV)


if __name__ == "__main__":
    main()
