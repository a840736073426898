"""How much of the machine's matrix-product peak does a training step reach, and where does the rest go?

    python benchmarks/training_step/profile_step.py --threads 2 --out benchmarks/training_step/results.json

Peak and steps are measured alternately in one run (shared machines drift), as medians. FLOPs are those of the matrix
products of forward and backward (`count_flops` x 3); Muon's own products are not counted as useful work.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import molcmim.model as model_module
from molcmim import objective
from molcmim.flops import count_flops
from molcmim.model import CMIM, ModelConfig
from molcmim.objective import Batch, ObjectiveConfig
from molcmim.train_config import OptimizerConfig
from molcmim.train_state import build_optimizers
from molcmim.validate import gemm_peak, synchronize

# share of a step by kind of work: the first pattern that an operator's name contains
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "mkldnn", "onednn"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "optimiser": ("Optimizer", "_fused_adamw", "_foreach"),
    "softmax and loss": ("softmax", "nll_loss", "cross_entropy"),
    "compiled elementwise": ("graph_", "cpp_fused", "CompiledFunction", "Torch-Compiled"),
    "copies and casts": ("copy_", "aten::cat", "contiguous", "fill_", "zero_"),
}


def make_step(
    compiled: bool, batch_size: int, tokens: int, width: int, heads: int, device: torch.device, kernel: bool = False
) -> Callable[[], None]:
    """One full optimiser step (bf16 autocast, Muon) on random tokens, as the trainer does it.

    With `kernel`, attention is torch's `scaled_dot_product_attention` in any case.
    """
    torch.manual_seed(0)
    model = CMIM(ModelConfig(vocab_size=244, width=width, heads=heads, mlp_width=4 * width)).to(device)
    optimizers = build_optimizers(model, OptimizerConfig(), "bf16")
    batch = Batch(torch.randint(4, 244, (batch_size, tokens - 1), device=device))
    config = ObjectiveConfig()
    loss_of = torch.compile(objective.loss) if compiled else objective.loss

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16), attention_by_kernel() if kernel else nullcontext():
            loss, _ = loss_of(model, batch, config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        synchronize(device)

    return step


@contextmanager
def attention_by_kernel() -> Iterator[None]:
    """While in the block, the model's attention is torch's kernel."""
    usual = model_module.attention
    model_module.attention = F.scaled_dot_product_attention
    try:
        yield
    finally:
        model_module.attention = usual


def seconds_of(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def shares(step: Callable[[], None]) -> dict[str, float]:
    """Share of one step's CPU time by kind of operator."""
    with torch.profiler.profile() as profile:
        step()
    totals = dict.fromkeys([*KINDS, "other elementwise"], 0.0)
    for event in profile.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), "other elementwise")
        totals[kind] += event.self_cpu_time_total
    whole = sum(totals.values())
    return {kind: round(value / whole, 3) for kind, value in totals.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=40, help="padded length, <eos> included")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--attention", action="store_true", help="also steps with torch's attention kernel instead of plain products"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = ModelConfig(vocab_size=244, width=arguments.width, heads=1, mlp_width=4 * arguments.width)
    flops = 3 * count_flops(config, arguments.tokens) * arguments.batch_size

    shape = (arguments.batch_size, arguments.tokens, arguments.width, arguments.heads, device)
    steps = {name: make_step(name == "compiled", *shape) for name in ("eager", "compiled")}
    if arguments.attention:
        steps |= {f"{name}, kernel": make_step(name == "compiled", *shape, kernel=True) for name in list(steps)}
    for step in steps.values():  # compile, warm up
        step()
        step()
    peaks: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        peaks.append(gemm_peak(device, "bf16", 0.3))
        for name, step in steps.items():
            seconds[name].append(seconds_of(step))
    peak = statistics.median(peaks)
    report: dict[str, Any] = {
        "command": "python " + " ".join(sys.argv),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "machine": f"{platform.processor() or platform.machine()}, {device}, {arguments.threads} threads",
        "torch": torch.__version__,
        "gemm_tflops": round(peak / 1e12, 3),
        "gemm_tflops_range": [round(min(peaks) / 1e12, 3), round(max(peaks) / 1e12, 3)],
        "flops_per_step": flops,
    }
    for name, step in steps.items():
        median = statistics.median(seconds[name])
        report[name] = {
            "seconds_per_step": round(median, 4),
            "molecules_per_second": round(arguments.batch_size / median, 1),
            "tflops": round(flops / median / 1e12, 3),
            "share_of_gemm_peak": round(
                statistics.median(flops / s / p for s, p in zip(seconds[name], peaks, strict=True)), 3
            ),
            "time_by_kind": shares(step),
        }
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
