"""What a training run tells: progress bar, `log.jsonl`, TensorBoard."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from molcmim.validate import gemm_peak

if TYPE_CHECKING:
    from molcmim.train import Run

log = logging.getLogger("molcmim.train")


class StepResult(NamedTuple):
    """What one step leaves for the log; tensors are read in groups, since reading waits for the GPU."""

    step: int
    loss: Tensor  #: ()
    factors: dict[str, Tensor]  #: batch means, nats a molecule
    gradient_norm: Tensor  #: (), before clipping


def append_json(path: Path, record: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def warn_of_slow_bf16(bf16: float, single: float) -> None:
    """Say so if a machine multiplies float32 quicker than bfloat16: many CPUs have no instructions for the latter."""
    if single > 1.5 * bf16:
        log.warning(
            "precision bf16: this CPU multiplies float32 %.1f times as fast; precision=float32 would train faster here",
            single / bf16,
        )


class Reporter:
    """Progress bar, `log.jsonl` and TensorBoard (if installed) of rank 0."""

    def __init__(self, run: Run) -> None:
        self.run, self.path = run, run.output / "log.jsonl"
        config = run.config
        peak = config.peak_tflops
        self.peak = peak * 1e12 if peak else gemm_peak(run.device, config.precision)
        if config.precision == "bf16" and run.device.type == "cpu":
            bf16 = gemm_peak(run.device, "bf16", 0.2) if peak else self.peak  # the latter is measured already
            warn_of_slow_bf16(bf16, gemm_peak(run.device, "float32", 0.2))
        n_parameters = sum(p.numel() for p in run.model.parameters())
        record = {
            "event": "start",
            "time": time.time(),
            "torch": torch.__version__,
            "device": str(run.device),
            "threads": torch.get_num_threads(),
            "world_size": run.world_size,
            "parameters": n_parameters,
            "gemm_tflops": self.peak / 1e12,
            "step": run.counters.step,
            "config": config.to_dict(),
        }
        append_json(self.path, record)
        log.info(
            "molcmim train: torch %s, %s x %d, %s threads, %.2f M parameters, %d training molecules, GEMM %.2f TFLOP/s",
            torch.__version__,
            run.device,
            run.world_size,
            torch.get_num_threads(),
            n_parameters / 1e6,
            len(run.store),
            self.peak / 1e12,
        )
        if run.changed:
            log.warning("the checkpoint is of a run with another configuration. %s", "; ".join(run.changed))
        schedule = config.schedule
        minutes = schedule.max_minutes or schedule.max_cpu_minutes or 0
        total = schedule.max_steps if schedule.max_steps is not None else round(60 * minutes)
        self.by_steps = schedule.max_steps is not None
        self.bar = tqdm(
            total=total,
            initial=self.done(),
            unit="step" if self.by_steps else "s",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self.flops, self.molecules, self.seconds = (
            run.counters.flops,
            run.counters.molecules,
            run.counters.seconds,
        )
        self.tensorboard = open_tensorboard(run.output / "tensorboard")

    def done(self) -> int:
        counters = self.run.counters
        if self.by_steps:
            return counters.step
        return int(counters.cpu_seconds if self.run.config.schedule.max_cpu_minutes else counters.seconds)

    def report(self, pending: list[StepResult], losses: list[float]) -> None:
        counters = self.run.counters
        seconds = max(1e-9, counters.seconds - self.seconds)
        rate = (counters.molecules - self.molecules) / seconds
        flops = (counters.flops - self.flops) / seconds
        self.flops, self.molecules, self.seconds = counters.flops, counters.molecules, counters.seconds
        names = pending[0].factors
        mean = {name: float(torch.stack([result.factors[name] for result in pending]).mean()) for name in names}
        norm = float(torch.stack([result.gradient_norm for result in pending]).mean())
        utilisation = flops / (self.peak * self.run.world_size)
        record = {
            "event": "train",
            "step": counters.step,
            "molecules": counters.molecules,
            "seconds": counters.seconds,
            "cpu_seconds": counters.cpu_seconds,
            "loss": sum(losses) / len(losses),
            **mean,
            "gradient_norm": norm,
            "lr_factor": self.run.config.schedule.factor(*counters.spent),
            "molecules_per_second": rate,
            "tflops": flops / 1e12,
            "flop_utilisation": utilisation,
        }
        append_json(self.path, record)
        self.scalars("train", record, counters.step)
        self.bar.n = self.done()
        self.bar.set_postfix_str(
            f"loss {record['loss']:.2f}, {rate:.0f} molecules/s, {100 * utilisation:.0f} % of peak",
            refresh=True,
        )

    def report_validation(self, numbers: dict[str, Any]) -> None:
        counters = self.run.counters
        append_json(self.path, {"event": "validation", **vars(counters), **numbers})
        self.scalars("validation", numbers, counters.step)
        log.info(
            "step %d, %.2f M molecules: %s",
            counters.step,
            counters.molecules / 1e6,
            ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()),
        )

    def scalars(self, prefix: str, numbers: dict[str, Any], step: int) -> None:
        if self.tensorboard is not None:
            for name, value in numbers.items():
                if isinstance(value, (int, float)):
                    self.tensorboard.add_scalar(f"{prefix}/{name}", value, step)

    def close(self) -> None:
        self.bar.close()
        if self.tensorboard is not None:
            self.tensorboard.close()


def open_tensorboard(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path))
