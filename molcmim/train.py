"""The training loop.

    molcmim train configs/tiny.yaml                       # or: python -m molcmim.train configs/tiny.yaml
    molcmim train configs/tiny.yaml --resume              # go on exactly where the run stopped
    torchrun --nproc-per-node 4 -m molcmim.train configs/tiny.yaml --resume

Needs torch, numpy, safetensors, pyyaml and tqdm only: a machine without rdkit can train from a prepared corpus.
"""

# Axes: B molecules, T tokens, L latent.

from __future__ import annotations

import gc
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from molcmim import objective
from molcmim.corpus import BucketSampler, CorpusInfo, TokenStore
from molcmim.flops import count_flops
from molcmim.model import CMIM
from molcmim.objective import Batch, ObjectiveConfig
from molcmim.stop_request import StopRequest
from molcmim.tokenizer import Tokenizer, load_tokenizer
from molcmim.train_batches import Batches, draw_noise, make_batch, to_device
from molcmim.train_config import TrainConfig, changes
from molcmim.train_report import Reporter, StepResult
from molcmim.train_state import AveragedWeights, Counters, Stopwatch, build_optimizers, load_checkpoint, save_checkpoint
from molcmim.validate import validate


class Objective(nn.Module):
    """The objective as a module, so that DistributedDataParallel and torch.compile have one thing to wrap."""

    def __init__(self, model: CMIM, config: ObjectiveConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return objective.loss(self.model, batch, self.config)


class Run:
    """State of one training run: data, model, optimisers, averaged weights, counters."""

    def __init__(self, config: TrainConfig, resume: bool) -> None:
        self.world_size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.device = pick_device(config.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.info = CorpusInfo.load(config.corpus)
        self.tokenizer = load_tokenizer(Path(config.corpus) / "vocab.json")
        n_properties = len(self.info.properties.names) if config.objective.properties and self.info.properties else 0
        model_config = replace(config.model, vocab_size=self.info.vocab_size, n_properties=n_properties)
        self.config = config = replace(config, model=model_config)
        self.output = Path(config.output)
        self.output.mkdir(parents=True, exist_ok=True)

        self.store, self.valid = (
            TokenStore.open(config.corpus, "train"),
            TokenStore.open(config.corpus, "valid"),
        )
        weights = [config.source_weights.get(source.name, source.weight) for source in self.info.sources]
        unknown = sorted(set(config.source_weights) - {source.name for source in self.info.sources})
        if unknown:
            raise ValueError(f"source_weights: the corpus has no sources {unknown}")
        if config.objective.needs_random_smiles and model_config.max_tokens < self.info.max_tokens:
            raise ValueError(
                f"max_tokens: with random SMILES expected the corpus's {self.info.max_tokens} or more, got "
                f"{model_config.max_tokens}: a random SMILES may be longer than the molecule's canonical one"
            )
        torch.manual_seed(config.seed)
        self.model = CMIM(model_config, self.tokenizer.parts()).to(self.device)
        self.part_counts = self.model.parts.count.cpu() if self.model.parts else None  # (V,)
        self.sampler = BucketSampler(
            self.store.encoder_lengths(self.model.parts.counts if self.model.parts else None),
            self.store.source,
            weights,
            config.batch_size,
            config.bucket_width,
            config.seed,
            self.world_size,
            self.rank,
            model_config.max_tokens,
        )
        self.earlier: list[dict[str, Any]] = []  # what the weights that the run starts from cost
        if config.init_from is not None:
            self.earlier = start_from(self.model, config.init_from, self.tokenizer)
        self.average = AveragedWeights(self.model, config.ema_decay)
        self.optimizers = build_optimizers(self.model, config.optimizer, config.precision)
        self.counters = Counters()
        self.changed: list[str] = []  # fields of the configuration that differ from the resumed run's
        self.checkpoint = self.output / "checkpoint.safetensors"
        if resume and self.checkpoint.exists():
            loaded = load_checkpoint(self.checkpoint, self.model, self.average, self.optimizers)
            self.counters, self.changed = loaded[0], changes(loaded[1], config)
        elif self.checkpoint.exists():
            raise FileExistsError(
                f"{self.checkpoint} exists: resume that run (--resume) or choose another output directory"
            )
        self.objective: nn.Module = Objective(self.model, config.objective)
        if config.compile:
            if self.model.parts is not None:
                self.model.parts.keep_out_of_compile()
            self.objective = torch.compile(self.objective)  # type: ignore[assignment]
        if self.world_size > 1:
            unused = config.objective.name not in objective.SAMPLED  # no sigma, or no decoder
            self.objective = nn.parallel.DistributedDataParallel(self.objective, find_unused_parameters=unused)

    def batches(self) -> Iterator[Batch]:
        """Batches without end, from the place where the counters are."""
        while True:
            plan = self.sampler.batches(self.counters.epoch)
            pad_to = None if self.model.parts else self.sampler.edges[plan.bucket]  # else the encoder pads
            data = Batches(self.store, plan.rows, pad_to, self.config.objective)
            numbers = range(self.counters.batch, len(data))
            workers = self.config.loader_workers
            yield from torch.utils.data.DataLoader(
                data,
                batch_size=None,
                sampler=numbers,
                num_workers=workers,
                pin_memory=self.device.type == "cuda",
            )
            self.counters.epoch, self.counters.batch = self.counters.epoch + 1, 0

    def step(self, batch: Batch) -> StepResult:
        """One optimiser step."""
        config, counters = self.config, self.counters
        factor = config.schedule.factor(*counters.spent)
        if config.schedule.max_steps is None and self.world_size > 1:  # the ranks' clocks differ: rank 0's counts
            shared = torch.tensor([factor], device=self.device)
            dist.broadcast(shared, 0)
            factor = float(shared)
        batch = draw_noise(batch, self.model, config.seed, self.rank, counters.step, config.objective)
        flops = self.flops(batch)
        batch = to_device(batch, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss, factors = self.objective(self.mark_lengths(batch))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.grad_clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average.update(self.model, counters.step)
        counters.step += 1
        counters.batch += 1
        counters.molecules += batch.tokens.shape[0] * self.world_size
        counters.flops += 3 * flops * len(batch.tokens) * self.world_size
        return StepResult(counters.step, loss.detach(), factors, norm)

    def flops(self, batch: Batch) -> float:
        """Matrix-product FLOPs of a forward pass of one molecule of this batch (still on the CPU), read canonically."""
        encoder_tokens = None
        if self.model.parts is not None and self.part_counts is not None:
            longest = int(self.part_counts[batch.tokens].sum(1).max())
            encoder_tokens = self.model.parts.padded(longest + 1)
        return count_flops(self.model.config, batch.tokens.shape[1] + 1, encoder_tokens)

    def warm_up(self) -> None:
        """Compile before the clock starts: one forward and backward pass whose gradient is thrown away."""
        if self.config.compile:
            plan = self.sampler.batches(0)
            pad_to = None if self.model.parts else int(self.sampler.edges[plan.bucket[0]]) - 1
            batch = make_batch(self.store, plan.rows[0], self.config.objective, pad_to)
            batch = to_device(draw_noise(batch, self.model, 0, 0, 0, self.config.objective), self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                self.objective(self.mark_lengths(batch))[0].backward()
            self.model.zero_grad(set_to_none=True)

    def mark_lengths(self, batch: Batch) -> Batch:
        """Tell the compiler that T varies, so that it compiles once and not once a length."""
        if self.config.compile:
            for x in (batch.tokens, batch.random_tokens, batch.mask_score, batch.drop_score):
                if x is not None:
                    torch._dynamo.mark_dynamic(x, 1)
        return batch

    def save(self) -> None:
        if self.rank == 0:
            save_checkpoint(
                self.checkpoint,
                self.model,
                self.average,
                self.optimizers,
                self.counters,
                self.config.to_dict(),
            )

    def validate(self) -> dict[str, Any]:
        """Numbers of the averaged weights on the validation split (rank 0 only)."""
        self.average.swap(self.model)
        try:
            return validate(self.model, self.valid, self.config, self.tokenizer)
        finally:
            self.average.swap(self.model)

    def export(self, validation: dict[str, Any], name: str = "export") -> None:
        """Write the averaged weights as a pretrained model directory below the output."""
        from molcmim.export import export_model

        self.average.swap(self.model)
        try:
            export_model(
                self.output / name,
                self.model,
                self.tokenizer,
                self.valid,
                self.config,
                self.info,
                self.counters,
                validation,
                self.earlier,
            )
        finally:
            self.average.swap(self.model)


def start_from(model: CMIM, name_or_dir: str, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Copy a pretrained model's weights into `model`, whose head for descriptors may be new.

    Returns
    -------
    list
        What it took to train that one, a leg after the other: ``model_id``, ``step``, ``molecules``, ``seconds`` and
        ``flops``.

    Raises
    ------
    ValueError
        If vocabulary or architecture differ.
    """
    from molcmim.pretrained import load_pretrained

    loaded = load_pretrained(name_or_dir)
    if loaded.tokenizer != tokenizer:
        raise ValueError(f"init_from: {name_or_dir} has another vocabulary than the corpus")
    given, wanted = loaded.model.config.to_dict(), model.config.to_dict()
    different = {name: (given[name], wanted[name]) for name in wanted if given[name] != wanted[name]}
    state = loaded.model.state_dict()
    if model.property_head is not None and given["n_properties"] == 0:
        del different["n_properties"]
        state |= model.property_head.state_dict(prefix="property_head.")
    if different:
        raise ValueError(f"init_from: {name_or_dir} has another architecture (its value, this run's): {different}")
    model.load_state_dict(state)
    training = loaded.config["training"]
    leg = {name: training.get(name, 0) for name in ("step", "molecules", "seconds", "flops")}
    return [*training.get("earlier_legs", []), {"model_id": loaded.model_id, **leg}]


def pick_device(name: str | None) -> torch.device:
    """The device asked for, or cuda where there is one; under torchrun, this process' own GPU."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device(name)


def train(
    config: TrainConfig, resume: bool = False, on_step: Callable[[int, float], None] | None = None
) -> dict[str, Any]:
    """Train until the schedule ends, the wall-time limit, or Ctrl-C; always leaves a checkpoint to go on from.

    Parameters
    ----------
    config
        The run.
    resume
        Go on from `config.output`'s checkpoint if there is one; the result is that of an uninterrupted run (bit-equal
        on the CPU with a schedule in steps). Fields that make it another run than before are named in a warning.
    on_step
        Called with (step, loss) after each step.

    Returns
    -------
    dict
        Last validation: factors in nats a molecule, token accuracy, exact reconstruction, and the counters.

    Raises
    ------
    FileExistsError
        If the output has a checkpoint and `resume` is False.
    FloatingPointError
        If the loss is no longer finite.
    """
    ours = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if pick_device(config.device).type == "cuda" else "gloo")
    with StopRequest() as stop:
        result = _loop(Run(config, resume), stop, on_step)
    if ours:
        end_process_group()
    return result


def end_process_group() -> None:
    """Destroy the default process group, its threads included.

    A thread of gloo that still lets go of tensors while Python shuts down aborts the process (pytorch/pytorch#179291).
    It is joined when the last reference to the group goes, and DDP modules, which are in cycles, hold some: so those
    are collected first.
    """
    gc.collect()
    dist.destroy_process_group()


def _loop(run: Run, stop: StopRequest, on_step: Callable[[int, float], None] | None) -> dict[str, Any]:
    config, counters, main = run.config, run.counters, run.rank == 0
    reporter = Reporter(run) if main else None
    started = time.monotonic()
    run.warm_up()
    last_save = last_validation = time.monotonic()
    validation: dict[str, Any] = {}
    pending: list[StepResult] = []
    clock = Stopwatch(counters)
    for batch in run.batches():
        now = time.monotonic()
        over = config.wall_minutes is not None and now - started > 60 * config.wall_minutes
        ending = stop.requested or over
        done = config.schedule.progress(*counters.spent) >= 1
        ending, done = agree(ending, done, run)
        if ending or done:
            break
        pending.append(run.step(batch))
        if on_step is not None:
            on_step(counters.step, float(pending[-1].loss))
        keep = counters.step in config.keep_steps
        if keep or len(pending) == config.log_every:
            values = check_finite(pending)
            clock.lap()
            if reporter is not None:
                reporter.report(pending, values)
            pending = []
            validate_now = config.validate_minutes and now - last_validation > 60 * config.validate_minutes
            save_now = now - last_save > 60 * config.checkpoint_minutes
            if main and (keep or validate_now):
                validation = run.validate()
                last_validation = now
                assert reporter is not None
                reporter.report_validation(validation)
            if main and keep:
                run.export(validation, f"kept/{counters.step}")
            if main and (keep or save_now or validate_now):
                run.save()
                last_save = now
            clock.restart()
    check_finite(pending)
    if pending:
        clock.lap()
    run.save()
    if reporter is not None:
        validation = run.validate()
        reporter.report_validation(validation)
        run.export(validation)
        reporter.close()
    return {**validation, **vars(counters)}


def agree(ending: bool, done: bool, run: Run) -> tuple[bool, bool]:
    """Rank 0 decides for all when to stop, so that no rank waits for another one for ever."""
    if run.world_size == 1:
        return ending, done
    flags = torch.tensor([int(ending), int(done)], device=run.device)
    dist.broadcast(flags, 0)
    return bool(flags[0]), bool(flags[1])


def check_finite(pending: list[StepResult]) -> list[float]:
    """Losses of these steps as numbers; FloatingPointError at the first that is NaN or infinite."""
    values = torch.stack([result.loss for result in pending]).tolist() if pending else []
    for result, value in zip(pending, values, strict=True):
        if not math.isfinite(value):
            raise FloatingPointError(
                f"loss is {value} at step {result.step}: lower the learning rate, or use precision: float32; "
                "the last checkpoint is from before"
            )
    return values


def main() -> None:
    """Command line of `python -m molcmim.train` (what torchrun starts); `molcmim train` takes the same arguments."""
    import argparse

    import yaml

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("overrides", nargs="*", help="optimizer.lr=0.002 and so on")
    arguments = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    overrides = {name: yaml.safe_load(value) for name, value in (item.split("=", 1) for item in arguments.overrides)}
    print(json.dumps(train(TrainConfig.from_yaml(arguments.config, overrides), arguments.resume)))


if __name__ == "__main__":
    main()
