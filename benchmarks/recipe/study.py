"""The recipe study: trains every variant for equal FLOPs, scores it, and lets the better half go on.

    export MOLCMIM_DATA=...                           # with moleculenet/*.csv.gz below it
    python benchmarks/recipe/study.py --corpora DIR --out RUNS --jobs 2                       # all rounds
    python benchmarks/recipe/study.py --corpora DIR --out RUNS --jobs 2 --round 1             # one round
    python benchmarks/recipe/study.py --corpora DIR --out RUNS --round 1 --only base,tau1     # some variants
    python benchmarks/recipe/study.py --corpora DIR --out RUNS --dry-run                      # says what it would do

`--jobs` one-thread processes run side by side; each trains a variant (`molcmim.train`) and then scores it (develop.py).
Finished ones, results/VARIANT_ROUND_SEED.json, are skipped; a run that was stopped goes on from its checkpoint. The
first Ctrl-C lets every process write its checkpoint; a second one kills them. A run that fails or diverges is a result
too; delete its file to try it again.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from variants import Job, Plan, Round, configuration, contenders, jobs_of, load_plan

from molcmim.beside import written_beside
from molcmim.provenance import git_state, machine, now
from molcmim.stop_request import StopRequest

HERE = Path(__file__).parent
RESULTS = HERE / "results"
NOTE = "\nstopping: each run writes its checkpoint; once more to kill them\n"
SCORE_MINUTES = 3.0  #: CPU minutes that starting, validation and develop.py take, for the estimate
FLOPS = 50e9  #: a core's rate in training that the estimate goes by: float32 on AVX2


class Stopped(Exception):
    """The user asked for the end."""


class Study:
    """Where things are, and how a job is done."""

    def __init__(self, arguments: argparse.Namespace, plan: Plan, stop: StopRequest, lock: IO[str]) -> None:
        self.plan, self.stop, self.lock = plan, stop, lock
        self.corpora: Path = arguments.corpora.resolve()
        self.out: Path = arguments.out.resolve()
        self.results: Path = arguments.results.resolve()
        self.score: Path = arguments.score.resolve()
        self.kill = threading.Event()
        self.facts = {**git_state(HERE.parent), "machine": machine()}  # now: the tree may change while this runs
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])),
            "TORCHINDUCTOR_CACHE_DIR": str(self.out / "kernels"),  # of runs with equal shapes, where compile is on
        }

    def path(self, job: Job) -> Path:
        return self.results / f"{job.name}.json"

    def call(self, command: Sequence[str], log: Path) -> tuple[int, str]:
        """Exit code and standard output; standard error goes to `log`. Raises Stopped if the user asked for the end."""
        with log.open("a", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self.environment,
                start_new_session=True,  # Ctrl-C comes from here, once
                pass_fds=(self.lock.fileno(),),  # the lock lasts as long as any process of the study
            )
            asked = False
            while True:
                try:
                    output, _ = process.communicate(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    if self.kill.is_set():
                        process.kill()
                    elif self.stop.requested and not asked:
                        process.send_signal(signal.SIGINT)
                        asked = True
        if asked or self.kill.is_set():
            raise Stopped
        return process.returncode, output

    def run(self, job: Job) -> dict[str, Any]:
        """Train and score; the result is written, also that of a failure."""
        this, variant = self.plan.rounds[job.round], self.plan.variants[job.variant]
        folder = self.out / job.name
        folder.mkdir(parents=True, exist_ok=True)
        config = configuration(self.plan, variant, this.limit, self.corpora, folder, job.seed)
        (folder / "config.yaml").write_text(json.dumps(config.to_dict(), indent=1), encoding="utf-8")
        result: dict[str, Any] = {
            "variant": job.variant, "group": variant.group, "round": job.round, "seed": job.seed,
            "overrides": variant.overrides, "corpus": variant.corpus, "limit": this.limit,
            "precision": config.precision, "compile": config.compile,
        }  # fmt: skip
        started, log = time.monotonic(), folder / "log.txt"
        code, output = self.call(["-m", "molcmim.train", str(folder / "config.yaml"), "--resume"], log)
        if code:
            return self.finish(job, {**result, **failure("training", code, log)}, started)
        final = json.loads(output.splitlines()[-1])
        spent = (final[key] for key in ("step", "seconds", "cpu_seconds", "flops"))
        if config.schedule.progress(*spent) < 1:
            raise Stopped  # somebody else stopped it: it goes on next time
        result |= training_numbers(final, folder / "log.jsonl")
        score = folder / "develop.json"
        words = ["--corpus", str(self.corpora / "atom"), "--model", str(folder / "export"), "--out", str(score)]
        words += ["--cache", str(self.out / "cache"), "--dtype", "float32"]
        code, _ = self.call([str(self.score), *words], log)
        if code:
            return self.finish(job, {**result, **failure("yardstick", code, log)}, started)
        scored = json.loads(score.read_text(encoding="utf-8"))
        result |= {"yardstick": {key: value for key, value in scored.items() if key not in ("about", "scores")}}
        return self.finish(job, {**result, "status": "ok"}, started)

    def finish(self, job: Job, result: dict[str, Any], started: float) -> dict[str, Any]:
        """Write the result, beside and renamed, and drop the checkpoint, which nobody needs once there is a score."""
        result |= {"minutes": round((time.monotonic() - started) / 60, 2), "date": now()}
        result |= self.facts
        self.results.mkdir(parents=True, exist_ok=True)
        with written_beside(self.path(job)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        if result["status"] == "ok":
            (self.out / job.name / "checkpoint.safetensors").unlink(missing_ok=True)
        return result


def training_numbers(final: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """What a result keeps of a training run."""
    start = json.loads(log.read_text(encoding="utf-8").splitlines()[0])
    return {
        "parameters": start["parameters"],
        "molecules": final["molecules"],
        "steps": final["step"],
        "cpu_seconds": final["cpu_seconds"],
        "wall_seconds": final["seconds"],
        "flops": final["flops"],
        "molecules_per_cpu_second": final["molecules"] / max(final["cpu_seconds"], 1e-9),
        "nats": final.get("reconstruction_nats"),  # none without a decoder
        "token_accuracy": final.get("token_accuracy"),
        "exact_reconstruction": final.get("exact_reconstruction"),
        "sigma_at_floor": final.get("sigma_at_floor"),  # none where no posterior is learned
        "factors": {key: final[key] for key in ("reconstruction", "contrastive", "properties") if key in final},
    }


def failure(stage: str, code: int, log: Path) -> dict[str, Any]:
    """Status and the last lines of a run that ended with an error."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
    diverged = any("FloatingPointError" in line or "gave NaN or infinity" in line for line in lines)
    kind = "diverged" if diverged else "failed"
    return {"status": kind, "stage": stage, "exit_code": code, "error": lines[-1] if lines else ""}


# ------------------------------------------------------------------------------------------ rounds


def read_results(folder: Path, number: int) -> list[dict[str, Any]]:
    """Results of a round."""
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return [result for result in found if result["round"] == number]


def yardsticks(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean over seeds of each variant; one that failed with any seed is left out."""
    values: dict[str, list[float]] = {}
    failed = {result["variant"] for result in results if result["status"] != "ok"}
    for result in results:
        if result["variant"] not in failed:
            values.setdefault(result["variant"], []).append(result["yardstick"]["summary"])
    return {name: sum(found) / len(found) for name, found in values.items()}


def run_jobs(study: Study, jobs: Sequence[Job], width: int) -> None:
    """All of them, `width` at a time; returns when all are done or the user asked for the end."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    errors: list[BaseException] = []

    def work() -> None:
        with contextlib.suppress(queue.Empty, Stopped):
            while not study.stop.requested and not errors:
                job = waiting.get_nowait()
                try:
                    result = study.run(job)
                except Stopped:
                    raise
                except Exception as error:  # of the study itself, not of a variant: nothing more is started
                    errors.append(error)
                    raise
                number = result["yardstick"]["summary"] if result["status"] == "ok" else result["status"]
                print(f"{now()} {job.name}: {number}, {result['minutes']} min, {waiting.qsize()} waiting", flush=True)

    threads = [threading.Thread(target=work) for _ in range(max(1, min(width, len(jobs))))]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
    except KeyboardInterrupt:
        study.kill.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def plan_round(study: Study, number: int, arguments: argparse.Namespace) -> list[Job]:
    """What is to be done in a round and is not done yet."""
    previous = [k for k in study.plan.rounds if k < number]
    if arguments.only:
        names = arguments.only.split(",")
        unknown = sorted(set(names) - set(study.plan.variants))
        if unknown:
            raise ValueError(f"--only: no variants {unknown} in variants.yaml")
    else:
        before = yardsticks(read_results(study.results, max(previous))) if previous else {}
        names = contenders(study.plan, number, before, arguments.all)
    return [job for job in jobs_of(study.plan, number, names) if not study.path(job).exists()]


def estimate(jobs: Sequence[Job], this: Round, width: int) -> str:
    if "max_flops" not in this.limit:
        return f"round {this.number}: {len(jobs)} runs of {this.limit}"
    hours = len(jobs) * (this.limit["max_flops"] / FLOPS / 60 + SCORE_MINUTES) / 60
    wall = f"{hours / width:.1f} hours with {width} free cores"
    return f"round {this.number}: {len(jobs)} runs, about {hours:.1f} CPU hours, {wall}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help="directory with atom, bpe500 and selfies")
    parser.add_argument("--out", type=Path, required=True, help="directory for the runs, 10-40 MB each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    parser.add_argument("--round", type=int, help="only this one")
    parser.add_argument("--only", help="names of variants, separated by commas; needs --round")
    parser.add_argument("--all", action="store_true", help="the optional variants too")
    parser.add_argument("--flops", type=float, help="of each run, instead of the rounds' own limits: to rehearse")
    parser.add_argument("--variants", type=Path, default=HERE / "variants.yaml")
    parser.add_argument("--score", type=Path, default=HERE / "develop.py", help="script that scores a model")
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    if arguments.only and not arguments.round:
        parser.error("--only needs --round")
    if "MOLCMIM_DATA" not in os.environ:
        parser.error("MOLCMIM_DATA must name the directory that holds moleculenet/*.csv.gz")
    plan = load_plan(arguments.variants)
    if arguments.round and arguments.round not in plan.rounds:
        parser.error(f"--round: expected one of {sorted(plan.rounds)}, got {arguments.round}")
    if arguments.flops:
        rounds = {k: this._replace(limit={"max_flops": arguments.flops}) for k, this in plan.rounds.items()}
        plan = plan._replace(rounds=rounds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / ".lock").open("w") as lock, StopRequest(NOTE) as stop:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            parser.error(f"--out: another study, or a run that one left behind, works in {arguments.out.name}")
        study = Study(arguments, plan, stop, lock)
        for number in [arguments.round] if arguments.round else sorted(plan.rounds):
            jobs = plan_round(study, number, arguments)
            print(estimate(jobs, plan.rounds[number], arguments.jobs), flush=True)
            if arguments.dry_run:
                print("\n".join(job.name for job in jobs))
                break  # later rounds depend on this one's results
            run_jobs(study, jobs, arguments.jobs)
            if stop.requested:
                sys.exit(130)


if __name__ == "__main__":
    main()
