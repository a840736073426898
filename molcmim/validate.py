"""Numbers on the validation split: every factor, token accuracy, exact reconstruction, sigma at its floor."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from molcmim import objective
from molcmim.corpus import TokenStore
from molcmim.generate import reconstruction
from molcmim.model import CMIM, encoder_input
from molcmim.tokenizer import Tokenizer
from molcmim.train_batches import draw_choices, make_batch, to_device
from molcmim.train_config import TrainConfig

AT_FLOOR = 0.05  #: a log sigma within this of the floor counts as "at the floor"


def validation_rows(store: TokenStore, n: int, seed: int = 0) -> np.ndarray:
    """(m,) row indices, m = min(n, all): the same molecules every time, sorted by length."""
    rows = np.random.default_rng(seed).permutation(len(store))[:n]
    return rows[np.argsort(store.lengths[rows], kind="stable")]


@torch.inference_mode()
def validate(model: CMIM, store: TokenStore, config: TrainConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Validation of the model as it is.

    Returns
    -------
    dict
        ``loss`` and each factor of the objective in nats a molecule (means), ``sigma_at_floor`` (share of log sigma
        within 0.05 of the floor, learned posterior only), and for objectives with a decoder ``reconstruction_nats``,
        ``token_accuracy`` (teacher-forced), ``exact_reconstruction`` (greedy decoding of mu; shares of 1).
    """
    device = model.embedding.weight.device
    # other processes don't take part
    wants = replace(config.objective, gather_negatives=False, decoder_dropout=0.0)
    rows = validation_rows(store, config.validate_molecules)
    lengths = store.encoder_lengths(model.parts.counts if model.parts else None)
    rows = rows[lengths[rows] <= model.config.max_tokens]
    if not len(rows):
        return {}
    totals: dict[str, float] = {}
    n_floor = n_sigma = 0
    generator = torch.Generator().manual_seed(0)
    was_training = model.training
    model.eval()
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        for part in np.array_split(rows, max(1, round(len(rows) / config.batch_size))):
            batch = make_batch(store, part, wants)
            batch = batch._replace(
                noise=torch.randn((len(part), model.config.latent), generator=generator),
                log_sigma=torch.rand((len(part), 1), generator=generator) * -3.0,
                mask_score=torch.rand(batch.tokens.shape, generator=generator),
            )
            batch = to_device(draw_choices(batch, wants, generator), device)
            loss, factors = objective.loss(model, batch, wants)
            for name, value in {"loss": loss, **factors}.items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(part)
            if model.config.posterior == "learned" and wants.name in objective.SAMPLED:
                log_sigma = model.encode(encoder_input(batch.tokens)).log_sigma
                n_floor += int((log_sigma < model.config.log_sigma_floor + AT_FLOOR).sum())
                n_sigma += log_sigma.numel()
        numbers: dict[str, Any] = {name: value / len(rows) for name, value in totals.items()}
        if n_sigma:
            numbers["sigma_at_floor"] = n_floor / n_sigma
        if config.objective.has_decoder and config.reconstruct_molecules:
            chosen = rows[np.random.default_rng(1).permutation(len(rows))[: config.reconstruct_molecules]]
            result = reconstruction(model, [row.tolist() for row in store.rows(chosen)], tokenizer=tokenizer)
            numbers |= {
                "reconstruction_nats": result.nats,
                "token_accuracy": result.token_accuracy,
                "exact_reconstruction": result.exact,
            }
    model.train(was_training)
    return numbers


def gemm_peak(device: torch.device, precision: str, seconds: float = 0.5) -> float:
    """Best rate in FLOP/s of a (4096, 1024) x (1024, 1024) product at this precision: the machine's own ceiling."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size = 1024 if device.type == "cpu" else 8192
    a = torch.randn(4 * size if device.type == "cpu" else size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * a.shape[0] * a.shape[1] * b.shape[1] / best


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
