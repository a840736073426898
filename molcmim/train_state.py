"""Everything a training run needs to go on where it stopped, in one safetensors file (no pickle).

The file holds weights, averaged weights and optimiser state as tensors, and the counters as JSON in its header. All
randomness of step n (noise, masks, batch order) is a pure function of (seed, rank, n), so that no generator state has
to be stored: a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from molcmim.model import CMIM
from molcmim.muon import Float32Muon
from molcmim.train_config import OptimizerConfig

FORMAT_VERSION = 1
ADAMW_ONLY = ("embedding", "unembed", "to_mu", "to_log_sigma", "property_head", "pool_query", "queries")


@dataclass
class Counters:
    """Where a run is. Both kinds of seconds count training only, not validation, checkpoints or compilation."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  #: next batch of the epoch
    molecules: int = 0  #: passes so far, all ranks
    seconds: float = 0.0
    cpu_seconds: float = 0.0  #: CPU time of this process, all its threads
    flops: float = 0.0  #: matrix-product FLOPs so far: those of rank 0's batches, times the ranks

    @property
    def spent(self) -> tuple[int, float, float, float]:
        """What a schedule goes by."""
        return self.step, self.seconds, self.cpu_seconds, self.flops


class Stopwatch:
    """Adds wall and CPU time to the counters of a run, on which a schedule in minutes or CPU minutes goes."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.restart()

    def restart(self) -> None:
        """Forget the time since the last lap."""
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def lap(self) -> None:
        """Count the time since the last lap."""
        wall, cpu = self.wall, self.cpu
        self.restart()
        self.counters.seconds += self.wall - wall
        self.counters.cpu_seconds += self.cpu - cpu


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon trains it: matrices between hidden layers; embeddings, output layers and vectors go to AdamW."""
    return parameter.ndim == 2 and not any(part in ADAMW_ONLY for part in name.split("."))


def build_optimizers(model: CMIM, config: OptimizerConfig, precision: str = "float32") -> list[torch.optim.Optimizer]:
    """[AdamW] or [AdamW, Muon]; each parameter group keeps its peak learning rate as ``group["peak_lr"]``.

    With `precision` ``"bf16"`` Muon orthogonalises in bfloat16, else in float32.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    hidden = [p for name, p in named if config.name == "muon" and is_hidden_matrix(name, p)]
    hidden_ids = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in hidden_ids]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)]
    if hidden:
        muon = torch.optim.Muon if precision == "bf16" else Float32Muon
        optimizers.append(
            muon(
                hidden,
                lr=config.muon_lr,
                momentum=config.muon_momentum,
                weight_decay=config.muon_weight_decay,
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


class AveragedWeights:
    """Exponential moving average of the weights; the decay grows from 0 so that early weights are soon forgotten."""

    def __init__(self, model: CMIM, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: CMIM, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        mine = list(self.weights.values())
        torch._foreach_lerp_(mine, [p.detach() for p in model.parameters()], 1 - decay)

    @torch.no_grad()
    def swap(self, model: CMIM) -> None:
        """Exchange with the model's weights: once to validate on the average, once more to go on training."""
        for name, p in model.named_parameters():
            kept = p.detach().clone()
            p.copy_(self.weights[name])
            self.weights[name].copy_(kept)


def save_checkpoint(
    path: Path,
    model: CMIM,
    average: AveragedWeights,
    optimizers: list[torch.optim.Optimizer],
    counters: Counters,
    config: dict[str, Any],
) -> None:
    """Write all beside `path`, force it to disk, then rename: a crash leaves the old file or the new one."""
    tensors: dict[str, Tensor] = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    tensors |= {f"average.{name}": value for name, value in average.weights.items()}
    for k, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{k}.{index}.{name}": value for name, value in state.items()}
    header = {"format_version": FORMAT_VERSION, "counters": asdict(counters), "config": config}
    temporary = path.with_name(path.name + ".part")
    save_file(
        {name: t.contiguous().cpu() for name, t in tensors.items()},
        temporary,
        {"molcmim": json.dumps(header)},
    )
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, model: CMIM, average: AveragedWeights, optimizers: list[torch.optim.Optimizer]
) -> tuple[Counters, dict[str, Any]]:
    """Put a saved state into a freshly built run; its counters, and the configuration that it was saved with.

    Raises
    ------
    ValueError
        If the file is damaged, of a newer format, or of a run with another architecture or optimiser.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["molcmim"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: not a readable training checkpoint: {error}") from error
    if header["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path}: format_version {header['format_version']} is newer than this molcmim's {FORMAT_VERSION}"
        )
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    weights: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}}
    for name, value in tensors.items():
        kind, rest = name.split(".", 1)
        if kind == "optimizer":
            k, index, field = rest.split(".", 2)
            if int(k) >= len(states):
                raise ValueError(f"{path}: has the state of more optimisers than this configuration")
            states[int(k)].setdefault(int(index), {})[field] = value
        else:
            weights[kind][rest] = value
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if {name: tuple(value.shape) for name, value in weights["model"].items()} != expected:
        raise ValueError(f"{path}: weights of another architecture than this configuration's")
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weights["model"][name])
            average.weights[name].copy_(weights["average"][name])
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    known = {item.name for item in fields(Counters)}
    counters = Counters(**{name: value for name, value in header["counters"].items() if name in known})
    return counters, header["config"]
