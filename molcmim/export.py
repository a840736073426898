"""From a training run to a pretrained model directory: scales, training summary, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from molcmim.corpus import CorpusInfo, TokenStore
from molcmim.embed import fit_scales
from molcmim.model import CMIM
from molcmim.pretrained import save_pretrained
from molcmim.tokenizer import Tokenizer
from molcmim.validate import validation_rows

if TYPE_CHECKING:
    from molcmim.train_config import TrainConfig
    from molcmim.train_state import Counters

SCALE_MOLECULES = 2000  #: validation molecules on which the scales of `both` are measured


def export_model(
    directory: Path,
    model: CMIM,
    tokenizer: Tokenizer,
    valid: TokenStore,
    config: TrainConfig,
    info: CorpusInfo,
    counters: Counters,
    validation: dict[str, Any],
    earlier_legs: Sequence[dict[str, Any]] = (),
    dtype: str = "float16",
) -> None:
    """Write the model as it is into a pretrained directory (see `molcmim.pretrained`)."""
    rows = validation_rows(valid, SCALE_MOLECULES)
    lengths = valid.encoder_lengths(model.parts.counts if model.parts else None)
    rows = rows[lengths[rows] <= model.config.max_tokens]
    scales = fit_scales(model, [row.tolist() for row in valid.rows(rows)], objective=config.objective.name)
    training = {
        **asdict(counters),
        "corpus": {
            "n_train": info.n_train,
            "n_valid": info.n_valid,
            "policy": info.policy,
            "sources": [source._asdict() for source in info.sources],
        },
        "source_weights": dict(config.source_weights),
        "optimizer": asdict(config.optimizer),
        "schedule": asdict(config.schedule),
        "batch_size": config.batch_size,
        "ema_decay": config.ema_decay,
        "precision": config.precision,
        "seed": config.seed,
        "torch": torch.__version__,
        "validation": validation,
    }
    if earlier_legs:  # the counters above are of the last leg
        training["earlier_legs"] = list(earlier_legs)
    was_training = model.training
    model.eval()
    save_pretrained(
        directory,
        model,
        tokenizer,
        objective=asdict(config.objective),
        training=training,
        scales=scales,
        policy="canonical",
        name=config.name,
        dtype=dtype,
    )
    model.train(was_training)
