"""The clocks of a training run, and what a checkpoint keeps of them."""

from __future__ import annotations

import json
import time

from training import small_config, small_corpus

from molcmim.train import train
from molcmim.train_state import Counters, Stopwatch


def test_stopwatch_counts_wall_and_cpu_time_between_restart_and_lap():
    counters = Counters(seconds=10.0, cpu_seconds=5.0)
    watch = Stopwatch(counters)
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    watch.restart()
    time.sleep(0.2)
    watch.lap()
    assert counters.seconds >= 10.2
    assert 5.0 <= counters.cpu_seconds < 5.1, "sleeping takes no CPU time, and what was before the restart is forgotten"


def test_cpu_minutes_are_training_time_of_the_process_and_go_on_after_a_stop(tmp_path):
    corpus = small_corpus(tmp_path, 200)
    changes = {"schedule": {"max_cpu_minutes": 0.02}, "log_every": 1}  # 1.2 s
    stopped = train(small_config(corpus, tmp_path / "run", wall_minutes=0.005, **changes))
    assert 0 < stopped["cpu_seconds"] < 1.2
    result = train(small_config(corpus, tmp_path / "run", **changes), resume=True)
    assert result["step"] > stopped["step"]
    assert 1.2 <= result["cpu_seconds"] < 2.0, "the second leg had only what the first one left"
    assert result["cpu_seconds"] <= 1.2 * result["seconds"], (
        "one thread: at most the wall time, but for the clock's ticks"
    )
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    last = [record for record in records if record["event"] == "train"][-1]
    assert last["lr_factor"] < 0.1, "decayed by the CPU clock"


def test_flops_end_a_run_and_it_goes_on_after_a_stop_to_the_same_weights(tmp_path):
    corpus = small_corpus(tmp_path, 200)
    whole = train(small_config(corpus, tmp_path / "whole", schedule={"max_steps": 6}))
    changes = {"schedule": {"max_flops": 0.95 * whole["flops"]}, "log_every": 1}
    result = train(small_config(corpus, tmp_path / "run", **changes))
    assert (result["step"], result["flops"]) == (6, whole["flops"]), "the step that reaches the limit is the last"
    stopped = train(small_config(corpus, tmp_path / "legs", wall_minutes=1e-9, **changes))
    assert stopped["step"] < 6
    resumed = train(small_config(corpus, tmp_path / "legs", **changes), resume=True)
    assert resumed["flops"] == result["flops"]
    weights = [(tmp_path / name / "export" / "model.safetensors").read_bytes() for name in ("run", "legs")]
    assert weights[0] == weights[1]
