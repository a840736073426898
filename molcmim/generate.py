"""Latent vectors to token ids, greedily or by sampling; and how well a model reconstructs.

`decode` is the loop (cache, rows that leave the batch, token limit); what makes it greedy or random is the
function that picks the next token from the scores. `uncached` is the same without any of that, to compare with.
Imports only torch, so that the trainer can validate without rdkit. Beam search: beam.py.
"""

# Axes: n rows of z, R rows of a batch that are still being decoded, B molecules, T tokens, L latent, V vocabulary.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from molcmim.cached_decoder import NEVER_GENERATED, CachedDecoder
from molcmim.model import CMIM, decoder_input, encoder_input
from molcmim.tokenizer import BOS, EOS, PAD, Tokenizer

#: Scores (R, V) float32 of the next token (never-generated ones at -inf), numbers (R,) of the rows of z that they
#: belong to, and the position (0: the first token) -> chosen ids (R,)
Choose = Callable[[Tensor, Tensor, int], Tensor]

#: Called with the number of rows just finished
Progress = Callable[[int], object]

PROBE = 64  #: rows decoded first, to learn how the length of a molecule shows in z
SMALL_BATCH = 128  #: rows; with several threads, batches get smaller than asked for, but no smaller than this
BATCHES_PER_THREAD = 4  #: at least, if they are large enough, so that threads end together
DROP = 0.125  #: share of finished rows in a batch at which they are taken out: it copies the caches of the others


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


# ---------------------------------------------------------------------------------------------- choosing a token


def most_likely(scores: Tensor, rows: Tensor, position: int) -> Tensor:
    """The token with the highest score, (R, V) -> (R,); the first of equals."""
    return scores.argmax(-1)


class Sampler:
    """Draws the next token from softmax(scores / temperature), perhaps from its likeliest tokens only.

    Called as `Choose`. The token is the inverse of the cumulative distribution at one random number in [0, 1) that
    depends on seed, row and position alone (`uniform`), so a row's molecule doesn't depend on the batch around it.

    Parameters
    ----------
    temperature
        0 or more; below 1 sharpens, above 1 flattens; 0 takes the most likely token.
    top_k
        Draw from the k likeliest tokens only; 1 takes the most likely one.
    top_p
        Of those, draw from the likeliest ones that together have at least this probability, more than 0 and at
        most 1 (nucleus sampling, arXiv 1904.09751).
    seed
        0 to 2**63 - 1.

    Raises
    ------
    ValueError
        If a value is outside its range.
    """

    def __init__(
        self, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, seed: int = 0
    ) -> None:
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: expected a finite number, 0 or more, got {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k: expected at least 1, got {top_k}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p: expected more than 0 and at most 1, got {top_p}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed: expected 0 to 2**63 - 1, got {seed}")
        self.temperature, self.top_k, self.top_p, self.seed = temperature, top_k, top_p, seed

    def __call__(self, scores: Tensor, rows: Tensor, position: int) -> Tensor:
        """(R, V) scores, (R,) row numbers, position -> (R,) ids."""
        if self.temperature == 0 or self.top_k == 1:
            return most_likely(scores, rows, position)
        ids = None
        if self.top_k is not None or (self.top_p is not None and self.top_p < 1):
            scores, ids = scores.sort(dim=-1, descending=True, stable=True)  # (R, V), likeliest first
            scores, ids = scores[:, : self.top_k], ids[:, : self.top_k]  # (R, k)
        # the highest score becomes 0, so that no temperature, however low, overflows
        p = ((scores - scores.amax(-1, keepdim=True)) / self.temperature).softmax(-1).double()
        below = p.cumsum(-1)  # (R, V) or (R, k): probability of a token and all before it
        if ids is not None and self.top_p is not None:
            p = p.masked_fill(below - p >= self.top_p, 0.0)
            below = p.cumsum(-1)
        drawn = uniform(self.seed, rows, position)[:, None] * below[:, -1:]  # (R, 1)
        chosen = (below <= drawn).sum(-1, keepdim=True)  # the first token with more than that below or at it
        return (chosen if ids is None else ids.gather(-1, chosen))[:, 0]


def uniform(seed: int, rows: Tensor, position: int) -> Tensor:
    """Random numbers (R,) float64, evenly distributed in [0, 1): one for each seed, row number (R,) and position.

    Number row * 2**20 + position of a SplitMix64 sequence (Steele et al. 2014, doi 10.1145/2660193.2660195) that
    starts at the scrambled seed. A formula, not a state: no order of rows or steps changes them.
    """
    start = _scramble(torch.tensor([seed])).to(rows.device)
    bits = _scramble(start + (rows * 2**20 + position + 1) * _signed(0x9E3779B97F4A7C15))
    return _shifted(bits, 11).double() * 2.0**-53


def _scramble(x: Tensor) -> Tensor:
    """SplitMix64's mixing function on int64, whose products wrap around as unsigned ones do."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, by: int) -> Tensor:
    """x >> by with zeros from the left, where int64 would bring in the sign."""
    return (x >> by) & (2 ** (64 - by) - 1)


def _signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


# ---------------------------------------------------------------------------------------------- decoding


def greedy(
    model: CMIM,
    z: Tensor,
    max_tokens: int | None = None,
    batch_size: int = 512,
    progress: Progress | None = None,
) -> Decoded:
    """Write the most likely next token, again and again, until <eos>.

    Parameters
    ----------
    model
        In the mode and dtype that the caller chose; no gradient is recorded. Under `torch.autocast` with bfloat16
        the matrix products run in bfloat16; a few molecules then come out differently.
    z
        (n, L) latent vectors, finite.
    max_tokens
        Longest molecule in tokens; default and upper limit: the model's `max_tokens`.
    batch_size
        Rows decoded at once.
    progress
        Called with the number of rows just finished, again and again; they add up to n.

    Returns
    -------
    Decoded
        n entries, in the order of z.

    Raises
    ------
    ValueError
        If z has another shape or isn't finite, or `max_tokens` or `batch_size` is out of range.
    """
    return decode(model, z, most_likely, max_tokens, batch_size, progress)


def sampled(
    model: CMIM,
    z: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    batch_size: int = 512,
    progress: Progress | None = None,
) -> Decoded:
    """Draw each next token at random from the decoder's distribution, until <eos>.

    What a row draws depends on its vector, its number in z and the seed; not on `batch_size` or on the other rows
    (but for rounding: a batch of another shape moves probabilities by about 1e-7, and a draw that falls just on
    the border between two tokens then goes the other way).

    Parameters
    ----------
    temperature, top_k, top_p, seed
        See `Sampler`. Temperature 0 or top_k = 1 is `greedy`.
    model, z, max_tokens, batch_size, progress
        As for `greedy`.

    Returns
    -------
    Decoded
        n entries, in the order of z.

    Raises
    ------
    ValueError
        As `greedy` and `Sampler`.
    """
    return decode(model, z, Sampler(temperature, top_k, top_p, seed), max_tokens, batch_size, progress)


@torch.inference_mode()
def decode(
    model: CMIM,
    z: Tensor,
    choose: Choose,
    max_tokens: int | None = None,
    batch_size: int = 512,
    progress: Progress | None = None,
) -> Decoded:
    """Autoregressive decoding, each next token picked by `choose`; other parameters and errors as for `greedy`.

    A batch takes as long as its longest molecule, so rows of similar length should be in one. The length of a
    molecule is nearly a linear function of z, and `PROBE` rows, decoded first, are enough to see which one. That
    orders the work; results don't depend on it.
    """
    limit = check_request(model, z, max_tokens, batch_size)
    z = z.to(model.embedding.weight.device)
    rows = torch.arange(len(z))
    written: dict[int, tuple[list[int], bool]] = {}

    def run(batch: Tensor) -> None:
        decoded = _decode_batch(model, z[batch.to(z.device)], batch.to(z.device), choose, limit, progress)
        written.update(zip(batch.tolist(), zip(*decoded, strict=True), strict=True))

    if len(z) > batch_size:
        probe = rows[:: len(z) // min(PROBE, batch_size)][: min(PROBE, batch_size)]
        run(probe)
        lengths = torch.tensor([float(len(written[i][0])) for i in probe.tolist()])
        rows = rows[~torch.isin(rows, probe)]
        expected = expected_lengths(z[probe.to(z.device)], lengths, z[rows.to(z.device)])
        rows = rows[expected.argsort(descending=True, stable=True)]  # the long ones first: none is left over at the end
    threads = torch.get_num_threads() if z.device.type == "cpu" else 1
    if threads > 1:
        batch_size = min(batch_size, max(SMALL_BATCH, -(-len(rows) // (BATCHES_PER_THREAD * threads))))
    batches = [batch for batch in rows.split(batch_size) if len(batch)]
    in_threads(run, batches, min(threads, len(batches)))
    return Decoded([written[i][0] for i in range(len(z))], [written[i][1] for i in range(len(z))])


def in_threads(run: Callable[[Tensor], None], batches: Sequence[Tensor], n: int) -> None:
    """Call `run` with each batch, n at a time, each in a thread of its own that torch doesn't split any further.

    A step of the decoder is many small operations. To divide each of them between cores gains little; whole batches
    side by side keep every core busy (torch lets go of Python's lock while it computes). Autocast and inference mode
    belong to a thread, so those of the caller are set again.
    """
    if n < 2:
        for batch in batches:
            run(batch)
        return
    before, autocast, dtype = torch.get_num_threads(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def alone(batch: Tensor) -> None:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=autocast):
            run(batch)

    pool = ThreadPoolExecutor(n, "molcmim-decode", lambda: torch.set_num_threads(1))
    try:
        list(pool.map(alone, batches))
    finally:  # Ctrl-C as well: what has begun ends, nothing else begins
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # the number for threads to come, which the pool's threads have changed


def check_request(model: CMIM, z: Tensor, max_tokens: int | None, batch_size: int) -> int:
    """The token limit to use; ValueError for what `greedy` refuses."""
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
    return limit


def expected_lengths(known: Tensor, lengths: Tensor, z: Tensor) -> Tensor:
    """Lengths (R,) to be expected of z (R, L), on the CPU: ridge regression on `known` (n, L) and `lengths` (n,)."""
    known, z, lengths = known.double().cpu(), z.double().cpu(), lengths.double()
    centre, spread = known.mean(0), known.std() + 1e-9
    x = (known - centre) / spread  # (n, L)
    gram = x @ x.T + 0.3 * x.shape[1] * torch.eye(len(x), dtype=x.dtype)  # (n, n)
    weights = x.T @ torch.linalg.solve(gram, lengths - lengths.mean())  # (L,)
    return lengths.mean() + (z - centre) / spread @ weights


def _decode_batch(
    model: CMIM, z: Tensor, rows: Tensor, choose: Choose, limit: int, progress: Progress | None
) -> Decoded:
    """All of z (R, L) at once, whose rows have the numbers `rows` (R,)."""
    n = len(z)
    ids = torch.full((n, limit + 1), PAD, device=z.device)  # each row ends in <eos>, or one over the limit
    place = torch.arange(n, device=z.device)  # (R,) rows of `ids` that the current batch stands for
    live = torch.ones_like(place, dtype=torch.bool)  # (R,)
    token = torch.full_like(place, BOS)  # (R,)
    decoder = CachedDecoder(model, z)
    look = 1 if z.device.type == "cpu" else 8  # steps between looks at how many rows live: a GPU has to stop for it
    for position in range(limit + 1):
        token = choose(decoder.step(token), rows, position)
        ids[place, position] = token  # finished rows go on for a while: what they write behind <eos> is cut off below
        live &= token != EOS
        if (position + 1) % look:
            continue
        n_live = int(live.sum())
        if n_live == 0:
            break
        n_done = len(decoder) - n_live
        if n_done >= DROP * len(decoder) or (n_done and decoder.full):
            decoder.keep(live)
            rows, place, token, live = rows[live], place[live], token[live], live[live]
            if progress is not None:
                progress(n_done)
    if progress is not None:
        progress(len(decoder))
    decoded = Decoded([], [])
    for row in ids.tolist():
        finished = EOS in row
        decoded.tokens.append(row[: row.index(EOS)] if finished else row[:limit])
        decoded.finished.append(finished)
    return decoded


@torch.inference_mode()
def uncached(model: CMIM, z: Tensor, choose: Choose = most_likely, max_tokens: int | None = None) -> Decoded:
    """What `decode` does, without its cache: the decoder reads the whole prefix again for every token.

    Slow and easy to check, all rows in one batch until the last has finished; tests and benchmarks compare
    `decode` with it. Parameters, returns and errors as for `decode`.
    """
    limit = check_request(model, z, max_tokens, 1)
    z = z.to(model.embedding.weight.device)
    rows = torch.arange(len(z), device=z.device)
    ids = torch.full((len(z), 1), BOS, device=z.device)  # (n, 1 + T)
    for position in range(limit + 1):
        scores = model.logits(model.hidden(z, ids)[:, -1]).float()  # (n, V)
        scores[:, NEVER_GENERATED] = -torch.inf
        ids = torch.cat((ids, choose(scores, rows, position)[:, None]), dim=1)
        if bool((ids == EOS).any(1).all()):
            break
    ends = [row.index(EOS) - 1 if EOS in row else None for row in ids.tolist()]  # tokens before <eos>
    tokens = [row[1 : 1 + (limit if end is None else end)] for row, end in zip(ids.tolist(), ends, strict=True)]
    return Decoded(tokens, [end is not None for end in ends])


# ---------------------------------------------------------------------------------------------- reconstruction


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
