"""What the scripts of this study share: options, molecules, child processes, results with the facts of their making."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from molcmim.beside import written_beside
from molcmim.checkpoint_files import find_checkpoint, model_id, read_config
from molcmim.provenance import PACKAGES, command_line, git_state, machine, now

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
WORK = HERE / "scratch"  #: inputs, outputs and what is measured so far; not committed
REPOSITORY = HERE.parents[1]
CODE = (  # what makes embeddings, in molcmim/
    *("api.py", "chem*.py", "worker_*.py", "reader*.py", "rows.py", "tokenizer*.py", "model.py", "attention.py"),
    *("embed.py", "writers.py", "cli_embed.py", "cli_shards.py", "scoring/*.py"),
)
NOT_CODE = ("ray", "search", "merge")  #: of these
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


def options(doc: str | None, molecules: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that all scripts have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="molcmim-tiny")
    if molecules:
        parser.add_argument("--molecules", type=Path, required=True, help="one SMILES a line; also .gz or .xz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK, help="for files that are made on the way")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def read_molecules(path: Path, n: int, seed: int = 0) -> list[str]:
    """`n` different lines of a file of SMILES (what follows a blank is left out), in random order.

    Raises
    ------
    ValueError
        If the file has not that many.
    """
    with OPENERS.get(path.suffix.lower(), open)(path, "rt", encoding="ascii") as file:
        lines = list(dict.fromkeys(line.split(maxsplit=1)[0] for line in file if line.strip()))
    if len(lines) < n:
        raise ValueError(f"--molecules {path}: expected at least {n:,} different SMILES, got {len(lines):,}")
    return random.Random(seed).sample(lines, n)


def model_facts(name: str) -> dict[str, str]:
    """Name and id of a checkpoint; it isn't loaded."""
    config = read_config(find_checkpoint(name))
    return {"model": config["name"], "model_id": model_id(config)}


def code_id() -> str:
    """Sha256 of the files in molcmim/ that make embeddings: measurements of one id are of one code."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in (REPOSITORY / "molcmim").glob(pattern)):
        if not path.name.startswith(NOT_CODE):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class Study:
    """Measures each thing once, also over several starts of a script, and writes the result with its facts.

    Parameters
    ----------
    given
        The script's options.
    name
        Of the script, without its ending, and of its result.
    settings
        What measurements depend on. Those of other settings, or of other code in molcmim/, are made again.
    kept
        Name under which measurements are kept in the work folder; scripts may share them. Default: `name`.
    """

    def __init__(
        self, given: argparse.Namespace, name: str, settings: Mapping[str, Any], kept: str | None = None
    ) -> None:
        self.given, self.name = given, name
        self.started, self.cpu = time.perf_counter(), cpu_seconds()
        self.commit = git_state()  # now: the tree may change while this runs
        self.model = model_facts(given.model)
        self.settings = {"code": code_id(), **self.model, **settings}
        given.work.mkdir(parents=True, exist_ok=True)
        self._kept = given.work / f"{kept or name}.json"
        self.measured: dict[str, Any] = {}
        if self._kept.exists():
            values = json.loads(self._kept.read_text())
            if values["settings"] == json.loads(json.dumps(self.settings)):
                self.measured = values["measured"]
                print(f"{len(self.measured)} measurements are there already", flush=True)

    def measure(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The measurement of this name, made now if it hasn't been made before."""
        if key not in self.measured:
            before = cpu_seconds()
            found = make()
            cpu_minutes = round((cpu_seconds() - before) / 60, 2)
            self.measured[key] = {**found, **self.commit, "cpu_minutes": cpu_minutes}
            with written_beside(self._kept) as part:
                part.write_text(json.dumps({"settings": self.settings, "measured": self.measured}, indent=1))
        result: dict[str, Any] = self.measured[key]
        return result

    def forget(self, key: str) -> None:
        """Have this measurement made again."""
        self.measured.pop(key, None)

    def write(
        self, results: Mapping[str, Any], also: Sequence[Mapping[str, Any]] = (), name: str | None = None
    ) -> None:
        """Write results/NAME.json (by default the script's), beside and renamed; `also`: measurements of other scripts
        that are in it.
        """
        measured = [*self.measured.values(), *also]
        kept = sum(each["cpu_minutes"] for each in measured)
        about = {
            "command": command_line(f"python benchmarks/scoring/{self.name}.py", plain(sys.argv[1:])),
            "date": now(),
            **self.commit,
            "modified": any(each["modified"] for each in [self.commit, *measured]),
            "commits": sorted({str(each["commit"]) for each in measured}),
            **self.model,
            "code": self.settings["code"],
            "minutes": round((time.perf_counter() - self.started) / 60, 2),
            "cpu_minutes": round(max((cpu_seconds() - self.cpu) / 60, kept), 2),
            "machine": machine((*PACKAGES, "pyarrow")),
        }
        self.given.out.mkdir(parents=True, exist_ok=True)
        path = self.given.out / f"{name or self.name}.json"
        with written_beside(path) as part:
            part.write_text(json.dumps({"about": about, **results}, indent=1, allow_nan=False) + "\n")
        print(f"wrote {path.name}; {about['cpu_minutes']} min of CPU")


def child(
    script: str, spec: Mapping[str, Any], cores: int | None = None, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a script of this folder with a JSON argument on so many cores; what it prints, and its seconds.

    The script limits itself (`use_cores`) before it imports anything large. `variables` are of the environment.
    """
    environment = {**os.environ, **(variables or {})}
    if cores is not None:
        environment |= {"OMP_NUM_THREADS": str(cores), "MKL_NUM_THREADS": str(cores)}
    began = time.perf_counter()
    words = [sys.executable, str(HERE / script), json.dumps({**spec, "cores": cores})]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{script}: exit code {done.returncode} with {json.dumps(spec)}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "total_seconds": round(time.perf_counter() - began, 3)}


def use_cores(n: int | None) -> None:
    """Let this process, and all that it starts, run on `n` of its CPUs only.

    Raises
    ------
    ValueError
        If it hasn't that many.
    """
    if n is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("cores: expected a system that can limit a process to some of its CPUs (Linux)")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < n:
        raise ValueError(f"cores: expected {n} CPUs, got {len(usable)}")
    os.sched_setaffinity(0, usable[:n])


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def plain(words: Sequence[str]) -> list[str]:
    """Arguments of a command with MOLECULES for a file that means nothing elsewhere, and neither --out nor --work."""
    shown: list[str] = []
    given = iter(words)
    for word in given:
        name, equals, _ = word.partition("=")
        if name in ("--out", "--work"):
            if not equals:
                next(given, None)
        elif name == "--molecules":
            if not equals:
                next(given, None)
            shown += [name, "MOLECULES"]
        else:
            shown.append(word)
    return shown


def peak_kib(pid: int | str = "self") -> int:
    """Largest resident size (VmHWM) of a process so far, in KiB; 0 if it is gone or not a Linux process."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")), 0)


def mib(kib: float) -> float:
    """KiB as MiB, to a tenth."""
    return round(kib / 1024, 1)
