"""Beam search: the most probable molecules of a latent vector, as far as a search of limited width finds them."""

# Axes: n rows of z, R rows of a batch whose search goes on, W width, Q hypotheses being extended, V vocabulary.

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from molcmim.cached_decoder import CachedDecoder
from molcmim.generate import Progress, check_request
from molcmim.model import CMIM
from molcmim.tokenizer import BOS, EOS, PAD


class Hypothesis(NamedTuple):
    """One molecule that beam search found."""

    tokens: list[int]  #: without special tokens
    log_prob: float  #: log p(tokens, <eos> | z) in nats; if not finished, of the token over the limit instead of <eos>
    finished: bool  #: False where <eos> didn't come within the token limit, so the molecule is cut


@torch.inference_mode()
def beam(
    model: CMIM,
    z: Tensor,
    width: int = 4,
    max_tokens: int | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[list[Hypothesis]]:
    """Search for the molecules x of highest log p(x | z), keeping the best `width` beginnings at each token.

    Finished hypotheses stand in the same ranking as unfinished ones: they keep their place until `width` better
    ones come by. Since a log-probability only falls as tokens are added, one that drops out of the ranking can't
    come back, and the search of a row ends when all its places are finished. Log-probabilities are summed,
    not divided by the length: the ranking is that of p(x | z). Width 1 is greedy decoding.

    Parameters
    ----------
    model
        In the mode and dtype that the caller chose; no gradient is recorded.
    z
        (n, L) latent vectors, finite.
    width
        Hypotheses kept per row, at least 1.
    max_tokens
        Longest molecule in tokens; default and upper limit: the model's `max_tokens`.
    batch_size
        Rows searched at once; the decoder sees up to `width` times as many.
    progress
        Called with the number of rows just finished, again and again; they add up to n.

    Returns
    -------
    list
        Of each row 1 to `width` different hypotheses, best first: finished ones by log-probability, then
        unfinished ones. There are fewer than `width` only where fewer molecules exist within the limit.

    Raises
    ------
    ValueError
        If z has another shape or isn't finite, or an option is out of range.
    """
    limit = check_request(model, z, max_tokens, batch_size)
    if width < 1:
        raise ValueError(f"width: expected at least 1, got {width}")
    found: list[list[Hypothesis]] = []
    for part in z.to(model.embedding.weight.device).split(batch_size):
        if len(part):
            found.extend(_search(model, part, width, limit, progress))
    return found


class _Places(NamedTuple):
    """The hypotheses of the rows whose search goes on, W places each."""

    rows: Tensor  #: (R,) rows of z
    ids: Tensor  #: (R, W, limit + 1), padded behind <eos>
    log_p: Tensor  #: (R, W) float64, of the ids so far; -inf: nothing in this place
    finished: Tensor  #: (R, W) bool

    @property
    def live(self) -> Tensor:
        """(R, W) bool: places to extend. The decoder has one row for each, in this order."""
        return ~self.finished & (self.log_p > -torch.inf)

    def of(self, which: Tensor) -> _Places:
        """The places of some of the rows, (R,) mask."""
        return _Places(*(part[which] for part in self))


def _search(model: CMIM, z: Tensor, width: int, limit: int, progress: Progress | None) -> list[list[Hypothesis]]:
    """Beam search of all rows of z (R, L) at once."""
    found: list[list[Hypothesis]] = [[] for _ in range(len(z))]
    rows = torch.arange(len(z), device=z.device)
    log_p = torch.full((len(z), width), -torch.inf, dtype=torch.float64, device=z.device)
    log_p[:, 0] = 0.0  # one hypothesis to start with, the empty one
    ids = torch.full((len(z), width, limit + 1), PAD, device=z.device)
    places = _Places(rows, ids, log_p, torch.zeros_like(log_p, dtype=torch.bool))
    decoder, token = CachedDecoder(model, z), torch.full_like(rows, BOS)  # (Q,)
    for position in range(limit + 1):
        scores = decoder.step(token).double().log_softmax(-1)  # (Q, V)
        if position == limit:
            scores = _end_or_cut(scores)
        places, parent = _extended(places, scores, position)
        going = places.live.any(1) & (position < limit)  # (R,)
        for row, hypotheses in zip(places.rows[~going].tolist(), _listed(places.of(~going), limit), strict=True):
            found[row] = hypotheses
        if progress is not None and not bool(going.all()):
            progress(int((~going).sum()))
        if not bool(going.any()):
            break
        places = places.of(going)
        parent = parent[going][places.live]  # (Q',) numbers in the old Q
        if not torch.equal(parent, torch.arange(len(decoder), device=z.device)):
            decoder.keep(parent)
        token = places.ids[..., position][places.live]
    return found


def _extended(places: _Places, scores: Tensor, position: int) -> tuple[_Places, Tensor]:
    """The best W of each row's finished hypotheses and all extensions of the others by a token, best first.

    `scores` (Q, V) are the tokens' log-probabilities. Also returned: (R, W) which of the Q each one extends.
    """
    live = places.live
    candidates = places.log_p.new_full((*live.shape, scores.shape[1]), -torch.inf)  # (R, W, V)
    candidates[live] = places.log_p[live][:, None] + scores
    candidates[..., PAD] = places.log_p.masked_fill(~places.finished, -torch.inf)  # is its own only continuation
    log_p, best = candidates.flatten(1).topk(live.shape[1], dim=1)  # (R, W)
    origin, token = best // scores.shape[1], best % scores.shape[1]  # (R, W): place before, token added
    ids = places.ids.gather(1, origin[..., None].expand_as(places.ids))
    ids[..., position] = token
    finished = (places.finished.gather(1, origin) | (token == EOS)) & (log_p > -torch.inf)
    number = (live.flatten().cumsum(0) - 1).view_as(live)  # (R, W): live places counted from 0
    return _Places(places.rows, ids, log_p, finished), number.gather(1, origin)


def _end_or_cut(scores: Tensor) -> Tensor:
    """At the token limit, (Q, V) -> (Q, V): <eos>, or the likeliest other token for "goes on"; the rest at -inf."""
    others = scores.clone()
    others[:, EOS] = -torch.inf
    likeliest = others.argmax(-1, keepdim=True)  # (Q, 1)
    only = torch.full_like(scores, -torch.inf).scatter(1, likeliest, scores.gather(1, likeliest))
    only[:, EOS] = scores[:, EOS]
    return only


def _listed(places: _Places, limit: int) -> list[list[Hypothesis]]:
    """Hypotheses of each row, finished ones first, each kind in the order of the places."""
    result = []
    for row in zip(places.ids.tolist(), places.log_p.tolist(), places.finished.tolist(), strict=True):
        hypotheses = [
            Hypothesis(ids[: ids.index(EOS)] if finished else ids[:limit], log_p, finished)
            for ids, log_p, finished in zip(*row, strict=True)
            if log_p > -math.inf
        ]
        result.append(sorted(hypotheses, key=lambda hypothesis: not hypothesis.finished))
    return result
