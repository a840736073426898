"""Kills a sharded job at many moments, and finishes it each time: run as a program by test_scoring_kill.py.

    python scoring_faults.py SPEC.json

SPEC: input, checkpoint, folder, shard_rows, workers, policy, reference (names and sha256 of an uninterrupted
run's files), and either `moments` (shares of the time of a whole run at which the job gets SIGKILL) or `calls` (the job
kills itself before and after each of its calls of os.fsync and os.replace).

Prints a JSON list with one entry a moment: what was killed when, which shards there were then, and, after the same
job has run again, whether its files are those of the reference. Every job runs in a forked child: the imports, which
take longer than the job, are done once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scoring_tools import contents, run_job

from molcmim import MolCMIM
from molcmim.scoring.manifest import MANIFEST, JobOptions, read_manifest
from molcmim.scoring.shard import finished


def main() -> None:
    """Read SPEC, kill and finish jobs, print what happened."""
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    model = MolCMIM.from_pretrained(spec["checkpoint"], device="cpu")

    def job() -> None:
        options = JobOptions(policy=spec["policy"])
        source, folder = Path(spec["input"]), Path(spec["folder"])
        run_job(model, source, folder, options, spec["shard_rows"], workers=spec["workers"])

    start = time.monotonic()
    assert wait(child(job)) == 0
    seconds = time.monotonic() - start
    assert contents(Path(spec["folder"])) == spec["reference"], "the job itself makes other files"
    results = []
    for share in spec.get("moments", ()):
        results.append(killed(spec, job, lambda share=share: kill_after(child(job), share * seconds), f"{share:.3f}"))
    if spec.get("calls"):
        for when in ("before", "after"):
            number = 0
            while True:
                number += 1
                code = [0]

                def kill(number: int = number, when: str = when, code: list[int] = code) -> None:
                    code[0] = wait(child(lambda: (kill_itself(number, when), job())))

                result = killed(spec, job, kill, f"{when} call {number}")
                if code[0] == 0:  # it has fewer calls than that
                    break
                results.append(result)
    print(json.dumps(results))


def killed(spec: dict[str, Any], job: Callable[[], object], kill: Callable[[], object], name: str) -> dict[str, Any]:
    """Start afresh, kill the job, look at what is there, run it again, look again."""
    folder = Path(spec["folder"])
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    kill()
    there = contents(folder) if folder.is_dir() else {}
    shards = {path: digest for path, digest in there.items() if not path.startswith(".")}
    done = 0
    if MANIFEST in there:
        manifest = read_manifest(folder)
        done = sum(finished(manifest, number, folder) is not None for number in range(len(manifest.shards)))
    code = wait(child(job))
    return {
        "moment": name,
        "hidden": len(there) - len(shards),
        "shards": len(shards) - (MANIFEST in there),
        "finished": done,
        "whole": all(spec["reference"].get(path) == digest for path, digest in shards.items()),
        "code": code,
        "same": contents(folder) == spec["reference"],
    }


def child(job: Callable[[], object]) -> int:
    """Run a job in a forked child; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """Exit code of a child; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_after(pid: int, seconds: float) -> None:
    """SIGKILL for a child, unless it is done before."""
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)  # one that is done is a zombie until it is waited for, so the id is still its own
    wait(pid)


def kill_itself(number: int, when: str) -> None:
    """Let this process die before or after its n-th call of os.fsync or os.replace."""
    calls = [0]

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if when == "before" and calls[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if when == "after" and calls[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    os.fsync, os.replace = wrap(os.fsync), wrap(os.replace)


if __name__ == "__main__":
    main()
