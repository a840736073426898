"""Batches of a training run, and the randomness of each step."""

# Axes: B molecules, T tokens, L latent.

from __future__ import annotations

import numpy as np
import torch

from molcmim.corpus import TokenStore
from molcmim.model import CMIM
from molcmim.objective import Batch, ObjectiveConfig, mix_inputs


class Batches(torch.utils.data.Dataset[Batch]):
    """Batch number n of one epoch: a pure function of n, so any number of loader workers gives the same batches."""

    def __init__(self, store: TokenStore, rows: np.ndarray, pad_to: np.ndarray | None, config: ObjectiveConfig) -> None:
        self.store, self.rows, self.pad_to, self.config = store, rows, pad_to, config

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Batch:
        pad_to = None if self.pad_to is None else int(self.pad_to[number]) - 1
        return make_batch(self.store, self.rows[number], self.config, pad_to)


def make_batch(store: TokenStore, rows: np.ndarray, config: ObjectiveConfig, pad_to: int | None = None) -> Batch:
    """Rows of the corpus -> token ids (B, T), with a second SMILES and descriptors where the objective wants them."""
    random = torch.from_numpy(store.gather(rows, random=True)) if config.needs_random_smiles else None
    properties = torch.from_numpy(store.properties(rows)) if config.properties else None
    return Batch(torch.from_numpy(store.gather(rows, pad_to)), random, properties)


def draw_noise(
    batch: Batch, model: CMIM, seed: int, rank: int, step: int, config: ObjectiveConfig | None = None
) -> Batch:
    """All randomness of a step, as a function of (seed, rank, step) alone. Drawn on the CPU: the same on any device.

    With `config`, also what only some objectives draw. It comes last, so that it changes nothing for the others.
    """
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, rank, step]).generate_state(1)[0]))
    n, t = batch.tokens.shape
    score = torch.rand((n, t), generator=generator)
    batch = batch._replace(
        noise=torch.randn((n, model.config.latent), generator=generator),
        log_sigma=torch.rand((n, 1), generator=generator) * -3.0,
        mask_score=score,
    )
    return batch if config is None else draw_choices(batch, config, generator)


def draw_choices(batch: Batch, config: ObjectiveConfig, generator: torch.Generator) -> Batch:
    """Which molecules the encoder reads as a random SMILES, and which tokens the decoder doesn't see."""
    if config.random_share < 1 and batch.random_tokens is not None:
        random = torch.rand(len(batch.tokens), generator=generator) < config.random_share
        batch = batch._replace(random_tokens=mix_inputs(batch.tokens, batch.random_tokens, random))
    if config.decoder_dropout:
        batch = batch._replace(drop_score=torch.rand(batch.tokens.shape, generator=generator))
    return batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    moved = (x if x is None else x.to(device, non_blocking=True) for x in batch)
    return Batch(*moved)  # type: ignore[arg-type]  # tokens is never None
