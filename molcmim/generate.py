"""Latent vectors to token ids: decoding with a key/value cache, and how well a model reconstructs.

`decode` is the loop (cache, rows that leave the batch, token limit); what makes it greedy is the function
that picks the next token from the scores. Imports only torch, so that the trainer can validate without rdkit.
"""

# Axes: B molecules, R molecules still being decoded, T tokens, L latent, V vocabulary.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from molcmim.model import CMIM, KVCache, decoder_input, encoder_input
from molcmim.tokenizer import BOS, EOS, MASK, PAD, Tokenizer

NEVER_GENERATED = (PAD, BOS, MASK)

#: Scores (R, V) of the next token, never-generated ones at -inf -> chosen ids (R,)
Choose = Callable[[Tensor], Tensor]


class Decoded(NamedTuple):
    """Token ids written by the decoder, one entry a row of z, in order."""

    tokens: list[list[int]]  #: without special tokens
    finished: list[bool]  #: False where <eos> didn't come within the token limit, so the molecule is cut


class Reconstruction(NamedTuple):
    """How well a model writes molecules back from their own mu."""

    exact: float  #: share of molecules that greedy decoding writes back exactly, 0 to 1
    token_accuracy: float  #: share of tokens (<eos> counted) ranked first under teacher forcing
    nats: float  #: mean over molecules of -log p(x | z = mu), <eos> counted
    n: int  #: molecules


def greedy(model: CMIM, z: Tensor, max_tokens: int | None = None, batch_size: int = 512) -> Decoded:
    """Write the most likely next token, again and again, until <eos>.

    Parameters
    ----------
    model
        In the mode and dtype that the caller chose; no gradient is recorded.
    z
        (B, L) latent vectors, finite.
    max_tokens
        Longest molecule in tokens; default and upper limit: the model's `max_tokens`.
    batch_size
        Rows decoded at once.

    Returns
    -------
    Decoded

    Raises
    ------
    ValueError
        If z has another shape or isn't finite, or `max_tokens` or `batch_size` is out of range.
    """
    return decode(model, z, lambda scores: scores.argmax(-1), max_tokens, batch_size)


@torch.inference_mode()
def decode(
    model: CMIM, z: Tensor, choose: Choose, max_tokens: int | None = None, batch_size: int = 512
) -> Decoded:
    """Autoregressive decoding, each next token picked by `choose`; parameters and errors as in `greedy`."""
    limit = model.config.max_tokens if max_tokens is None else max_tokens
    if not 1 <= limit <= model.config.max_tokens:
        raise ValueError(f"max_tokens: expected 1 to {model.config.max_tokens} (the model's), got {limit}")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if z.ndim != 2 or z.shape[1] != model.config.latent:
        raise ValueError(f"z: expected shape (n, {model.config.latent}), got {tuple(z.shape)}")
    if not bool(torch.isfinite(z).all()):
        row = int((~torch.isfinite(z).all(1)).nonzero()[0])
        raise ValueError(f"z: expected finite values, got NaN or infinity in row {row}")
    decoded = Decoded([], [])
    for part in z.to(model.embedding.weight.device).split(batch_size):
        tokens, finished = _decode_batch(model, part, choose, limit)
        decoded.tokens.extend(tokens)
        decoded.finished.extend(finished)
    return decoded


def _decode_batch(model: CMIM, z: Tensor, choose: Choose, limit: int) -> Decoded:
    """All rows of z (R, L) at once.

    Finished rows are dropped once they are an eighth of all: it copies the caches, too much for a single row.
    """
    ids = torch.full(
        (z.shape[0], limit + 1), PAD, device=z.device
    )  # each row ends in <eos>, or one over the limit
    rows = torch.arange(z.shape[0], device=z.device)  # (R,) rows of `ids` that the current batch stands for
    live = torch.ones_like(rows, dtype=torch.bool)  # (R,)
    token = torch.full_like(rows, BOS)  # (R,)
    past = model.decoder.memory(z)
    for position in range(limit + 1):
        scores, past = model.step(z, token[:, None], past, position)  # (R, V)
        scores = scores.float()
        scores[:, NEVER_GENERATED] = -torch.inf
        token = choose(scores)
        ids[rows[live], position] = token[live]
        live = live & (token != EOS)
        n_live = int(live.sum())
        if n_live == 0:
            break
        if n_live <= 0.875 * live.shape[0]:
            rows, token, z = rows[live], token[live], z[live]
            past = [KVCache(cache.k[live], cache.v[live]) for cache in past]
            live = live[live]
    decoded = Decoded([], [])
    for row in ids.tolist():
        finished = EOS in row
        decoded.tokens.append(row[: row.index(EOS)] if finished else row[:limit])
        decoded.finished.append(finished)
    return decoded


def pad_rows(rows: Sequence[Sequence[int]], length: int | None = None) -> Tensor:
    """Token lists -> ids (B, T) padded with PAD to the longest of them (or to `length`), on the CPU."""
    length = max((len(row) for row in rows), default=0) if length is None else length
    padded = [[*row, *[PAD] * (length - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.int64).view(len(rows), length)


@torch.inference_mode()
def reconstruction(
    model: CMIM, rows: Sequence[Sequence[int]], batch_size: int = 256, tokenizer: Tokenizer | None = None
) -> Reconstruction:
    """Encode, decode greedily, compare; and the teacher-forced numbers of the same molecules.

    Parameters
    ----------
    model
        A model trained with a decoder.
    rows
        Token ids of each molecule, without special tokens.
    batch_size
        Molecules at once.
    tokenizer
        If given, molecules count as equal when their *texts* are: with byte-pair tokens several token rows
        write the same SMILES. Default: the token ids are compared.

    Raises
    ------
    ValueError
        If there are no rows.
    """
    if not rows:
        raise ValueError("rows: expected at least one molecule, got none")
    device = model.embedding.weight.device
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    n_exact = n_right = n_tokens = 0
    log_p = 0.0
    for start in range(0, len(order), batch_size):
        batch = [list(rows[i]) for i in order[start : start + batch_size]]
        tokens = pad_rows(batch).to(device)  # (B, T)
        target = encoder_input(tokens)  # (B, T + 1)
        mu = model.encode(target).mu  # (B, L)
        logits = model.logits(model.hidden(mu, decoder_input(tokens))).float()  # (B, T + 1, V)
        real = target != PAD
        n_right += int(((logits.argmax(-1) == target) & real).sum())
        n_tokens += int(real.sum())
        log_p += float(logits.log_softmax(-1).gather(-1, target[..., None])[..., 0][real].double().sum())
        written = greedy(model, mu, batch_size=batch_size)
        for row, ids, finished in zip(batch, written.tokens, written.finished, strict=True):
            same = ids == row if tokenizer is None else tokenizer.decode(ids) == tokenizer.decode(row)
            n_exact += int(finished and same)
    return Reconstruction(n_exact / len(rows), n_right / n_tokens, -log_p / len(rows), len(rows))
