"""Tiny models with random weights, and checkpoint directories of them, for tests around the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from molcmim.model import CMIM, ModelConfig
from molcmim.pretrained import save_pretrained
from molcmim.tokenizer import SmilesTokenizer

torch.set_num_threads(
    1
)  # the exact mode's promise is for a given number of threads, and tests run side by side

SMILES = [
    "CCO",
    "c1ccccc1",
    "CC(=O)Oc1ccccc1C(=O)O",
    "C",
    "CCCCCCCCCCCCCCCCO",
    "C[C@H](N)C(=O)O",
    "ClCBr",
    "O=S(=O)(C)C",
]


def tiny_tokenizer() -> SmilesTokenizer:
    return SmilesTokenizer.train(SMILES)


def tiny_model(vocab_size: int, seed: int = 0, parts: list[list[int]] | None = None, **changes: Any) -> CMIM:
    """A model whose residual branches aren't zero, as they are before training: all of it matters."""
    fields: dict[str, Any] = {
        "width": 32,
        "heads": 2,
        "mlp_width": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "latent": 24,
        "memory": 3,
        "max_tokens": 40,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CMIM(ModelConfig(vocab_size=vocab_size, **{**fields, **changes}), parts)
        for block in model.residual_blocks():
            nn.init.normal_(block.out.weight, std=0.2)
            nn.init.normal_(block.mlp.down.weight, std=0.2)
    return model.eval()


def tiny_checkpoint(directory: Path, objective: str = "cmim", **changes: Any) -> Path:
    """Write a checkpoint; `changes`: `card`, `name` or `dtype` of saving, or fields of `ModelConfig`."""
    options = {key: changes.pop(key) for key in ("card", "name", "dtype") if key in changes}
    tokenizer = tiny_tokenizer()
    scales = {"latent": 0.25} if objective in ("infonce", "mlm") else {"latent": 0.25, "informative": 0.5}
    return save_pretrained(
        directory,
        tiny_model(tokenizer.vocab_size, **changes),
        tokenizer,
        objective={"name": objective},
        training={"molecules": 0},
        scales=scales,
        **options,
    )
