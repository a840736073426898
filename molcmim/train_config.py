"""Configuration of a training run: frozen dataclasses, read from YAML (`configs/*.yaml` are commented examples)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from molcmim.model import ModelConfig
from molcmim.objective import ObjectiveConfig

T = TypeVar("T")


@dataclass(frozen=True)
class OptimizerConfig:
    """Muon (hidden matrices; arXiv 2502.16982) + AdamW (all the rest), or AdamW for everything.

    Parameters
    ----------
    name
        ``"muon"`` or ``"adamw"``.
    lr
        Peak learning rate of AdamW.
    muon_lr, muon_momentum, muon_weight_decay
        Of Muon; its updates are orthogonal matrices times `muon_lr` x sqrt(max(1, rows / columns)).
    betas, weight_decay
        Of AdamW; decay applies to matrices only.
    grad_clip
        Largest norm of the gradient over all parameters (the objective is a sum of nats: norms of 10-100 are usual).
    """

    name: str = "muon"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    muon_lr: float = 0.02
    muon_momentum: float = 0.95
    muon_weight_decay: float = 0.1
    grad_clip: float = 10.0

    def __post_init__(self) -> None:
        if self.name not in ("muon", "adamw"):
            raise ValueError(f"optimizer name: expected 'muon' or 'adamw', got {self.name!r}")
        object.__setattr__(self, "betas", tuple(self.betas))


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate relative to its peak: linear warm-up, then `wsd` or `cosine`, down to `final`.

    Progress runs from 0 to 1 with `max_steps`, with `max_flops` of the model's matrix products (forward and backward,
    all ranks, without the optimiser's), with `max_minutes` of training time, or with `max_cpu_minutes` of this process'
    CPU time, all its threads together (neither counts validation, checkpoints or compilation beforehand, and CPU time
    not that of child processes, such as loader workers). One of the four is given. By steps or FLOPs a run is
    reproducible to the bit, by minutes it ends when it must, and by CPU minutes with `threads: 1` a run on a busy
    machine gets about the computing that it would get alone. FLOPs compare recipes of different sizes whatever the
    machine. The clock is read every `log_every` steps.

    Parameters
    ----------
    name
        ``"wsd"``: constant after warm-up, then linear over the last `decay_fraction` of the run. ``"cosine"``.
    warmup_steps
        Steps of linear warm-up.
    """

    name: str = "wsd"
    warmup_steps: int = 100
    decay_fraction: float = 0.3
    final: float = 0.02
    max_steps: int | None = None
    max_flops: float | None = None
    max_minutes: float | None = None
    max_cpu_minutes: float | None = None

    def __post_init__(self) -> None:
        if self.name not in ("wsd", "cosine"):
            raise ValueError(f"schedule name: expected 'wsd' or 'cosine', got {self.name!r}")
        limits = (self.max_steps, self.max_flops, self.max_minutes, self.max_cpu_minutes)
        if sum(limit is not None for limit in limits) != 1:
            raise ValueError(
                "schedule: give one of max_steps or max_flops or max_minutes or max_cpu_minutes, not several and not "
                f"none; got {', '.join(map(str, limits))}"
            )
        if any(limit is not None and limit <= 0 for limit in limits):
            raise ValueError(f"schedule: expected a limit above 0, got {limits}")
        if not 0 < self.decay_fraction <= 1:
            raise ValueError(f"decay_fraction: expected a value in (0, 1], got {self.decay_fraction}")

    def progress(self, step: int, seconds: float, cpu_seconds: float = 0.0, flops: float = 0.0) -> float:
        """Share of the run that is done, 0 to 1."""
        if self.max_steps is not None:
            return min(1.0, step / self.max_steps)
        if self.max_flops is not None:
            return min(1.0, flops / self.max_flops)
        if self.max_minutes is not None:
            return min(1.0, seconds / (60 * self.max_minutes))
        return min(1.0, cpu_seconds / (60 * (self.max_cpu_minutes or math.inf)))

    def factor(self, step: int, seconds: float, cpu_seconds: float = 0.0, flops: float = 0.0) -> float:
        """Learning rate of this step as a share of the peak."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        done = self.progress(step, seconds, cpu_seconds, flops)
        if self.name == "cosine":
            shape = self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))
        else:
            shape = self.final + (1 - self.final) * min(1.0, (1 - done) / self.decay_fraction)
        return warmup * shape


SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "objective": ObjectiveConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
}


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Parameters
    ----------
    corpus
        Directory made by `molcmim corpus build`.
    output
        Run directory: `checkpoint.safetensors` (everything needed to go on), `log.jsonl`, `tensorboard/`, `export/`
        (a pretrained model directory of the averaged weights).
    name
        Name of the exported model.
    init_from
        Pretrained model (name or directory) whose weights the run starts from, with a fresh optimiser and schedule;
        None: random weights. The corpus must have its vocabulary, `model` its architecture; only the head of the
        descriptor factor may be new.
    batch_size
        Molecules a step on each process.
    bucket_width
        Molecules of a batch are padded to a multiple of this many tokens (with ``encoder_tokens: atoms`` they are only
        sorted by it: the encoder's are padded to a multiple of 4, the decoder's to the longest).
    source_weights
        Expected passes an epoch of corpus sources by name; overrides those stored in the corpus.
    ema_decay
        Decay a step of the averaged weights (0: no averaging); they are what is validated and exported.
    precision
        ``"bf16"`` (autocast) or ``"float32"``.
    compile
        Run the objective through `torch.compile` (needs a C++ compiler on CPU).
    wall_minutes
        Stop after so many minutes since start, with a checkpoint from which `resume` goes on exactly; None: no limit.
    checkpoint_minutes, validate_minutes
        How often; a validation runs at the end in any case. 0 validates at the end only.
    keep_steps
        Steps after which the averaged weights are also validated and exported into `kept/STEP/`: for a curve of scores
        against computing.
    validate_molecules, reconstruct_molecules
        Molecules of the validation split for the teacher-forced numbers, and for greedy reconstruction.
    loader_workers
        Processes that prepare batches (0: in the training process).
    threads
        CPU threads (None: torch's choice).
    device
        ``"cpu"``, ``"cuda"`` or None (cuda if there is one).
    peak_tflops
        The matrix-product rate that "model FLOP utilisation" refers to; None: measured at the start.
    """

    corpus: str
    output: str
    name: str = "molcmim"
    init_from: str | None = None
    seed: int = 0
    model: ModelConfig = field(default_factory=lambda: ModelConfig(vocab_size=1))
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(max_steps=1000))
    batch_size: int = 256
    bucket_width: int = 8
    source_weights: Mapping[str, float] = field(default_factory=dict)
    ema_decay: float = 0.998
    precision: str = "bf16"
    compile: bool = False
    wall_minutes: float | None = None
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 10.0
    keep_steps: tuple[int, ...] = ()
    validate_molecules: int = 2000
    reconstruct_molecules: int = 500
    log_every: int = 20
    loader_workers: int = 0
    threads: int | None = None
    device: str | None = None
    peak_tflops: float | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("bf16", "float32"):
            raise ValueError(f"precision: expected 'bf16' or 'float32', got {self.precision!r}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay: expected a value in [0, 1), got {self.ema_decay}")
        object.__setattr__(self, "keep_steps", tuple(self.keep_steps))

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
        """Read a YAML file; `overrides` maps dotted names ("optimizer.lr") to values.

        Raises
        ------
        ValueError
            For an unknown field or a value out of range; FileNotFoundError if there is no such file.
        """
        import yaml

        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"{path}: expected a mapping of field names to values, got {type(values).__name__}")
        for dotted, value in (overrides or {}).items():
            *parents, leaf = dotted.split(".")
            target = values
            for parent in parents:
                target = target.setdefault(parent, {})
            target[leaf] = value
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Build from nested mappings (the inverse of `to_dict`)."""
        values = dict(values)
        for section, kind in SECTIONS.items():
            if section in values:
                given = dict(values[section])
                if section == "model":
                    given.setdefault("vocab_size", 1)  # filled in from the corpus
                values[section] = build(kind, given, section)
        return build(cls, values, "config")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


#: fields that change when a run is stopped, looked at or written, or how fast it is, but not what it trains
INCIDENTAL = {
    "output", "name", "compile", "wall_minutes", "checkpoint_minutes", "validate_minutes", "keep_steps", "log_every",
    "validate_molecules", "reconstruct_molecules", "loader_workers", "threads", "device", "peak_tflops",
}  # fmt: skip


def changes(before: Mapping[str, Any], config: TrainConfig) -> list[str]:
    """What makes `config` another run than that of `before` (a `to_dict`): "optimizer.lr: 0.002, was 0.001" and so on.

    A field that either lacks (of another version) isn't compared.
    """
    old, new = (flat({k: v for k, v in side.items() if k not in INCIDENTAL}) for side in (before, config.to_dict()))
    shared = [name for name in new if name in old]
    return [f"{name}: {new[name]!r}, was {old[name]!r}" for name in shared if new[name] != old[name]]


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the sections under dotted names; tuples as lists, which is how JSON has them."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = {f"{name}.{leaf}": v for leaf, v in value.items()} if name in SECTIONS else {name: value}
        found |= {key: list(v) if isinstance(v, tuple) else v for key, v in inner.items()}
    return found


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Dataclass from a mapping; an unknown or missing field is a ValueError that names it."""
    assert is_dataclass(kind)
    known = {item.name for item in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"{where}: unknown fields {unknown}; known are {sorted(known)}")
    numbers = {item.name for item in fields(kind) if item.type in ("float", "float | None")}
    # YAML 1.1 reads 1e-3 (without a dot) as text
    values = {name: float(v) if name in numbers and isinstance(v, str) else v for name, v in values.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error
