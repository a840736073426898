"""The decoder one token at a time: what earlier tokens left behind is kept, so that a step costs one token.

The same arithmetic as `Decoder.forward` in model.py, with the same weights; tests/test_generate.py compares the
two. What makes it quick on a CPU: keys and values lie in one contiguous block that is full to its end (attention
over a slice of a longer buffer is three times as slow: the processor can't read ahead across the gaps), so the
block grows by a few positions at a time and those not yet written are masked; one query per row and head is a
plain matrix product; the memory slots and the share of z in the input are computed once.
"""

# Axes: R rows being decoded, D width, L latent, H heads, C = D / H, S slots (memory, then tokens), V vocabulary.

from __future__ import annotations

import torch
from torch import Tensor

from molcmim.model import CMIM, KVCache
from molcmim.tokenizer import BOS, MASK, PAD

NEVER_GENERATED = (PAD, BOS, MASK)
GROWTH = 16  #: positions by which the caches grow: fewer copies the larger, but more masked slots to compute


class CachedDecoder:
    """Decoding of R rows, each at the same position; rows can be dropped, repeated and put in another order.

    Parameters
    ----------
    model
        In the mode and dtype that the caller chose. Use it under `torch.inference_mode`.
    z
        (R, L) latent vectors.

    Attributes
    ----------
    position : int
        Tokens read so far, <bos> among them.
    """

    def __init__(self, model: CMIM, z: Tensor) -> None:
        self.model = model
        self.position = 0
        decoder = model.decoder
        self.from_z = decoder.z_to_input(z)  # (R, D)
        self.caches = decoder.memory(z)  # one a layer, keys and values (R, H, S, C)
        self.n_used = model.config.memory  # of the S slots
        self.unused = self.from_z.new_zeros(1, 1, self.n_used)  # (1, 1, S): -inf where nothing is written yet
        self.never = torch.zeros(model.config.vocab_size, device=z.device)  # (V,)
        self.never[list(NEVER_GENERATED)] = -torch.inf

    def __len__(self) -> int:
        """Rows R."""
        return self.from_z.shape[0]

    @property
    def full(self) -> bool:
        """Whether the next step has to copy the caches to make room: the best moment for `keep`."""
        return self.n_used == self.unused.shape[2]

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token per row.

        Parameters
        ----------
        tokens
            (R,) ids: <bos> in the first step, then whatever was chosen from the scores before.

        Returns
        -------
        (R, V) float32
            Scores (logits) of the next token; -inf for those that are never generated: <pad>, <bos>, <mask>.
        """
        if self.full:
            self._grow()
        self.n_used += 1
        self.unused[..., self.n_used - 1] = 0.0
        decoder = self.model.decoder
        x = decoder.embedding(tokens) + self.from_z  # (R, D)
        for block, cache in zip(decoder.blocks, self.caches, strict=True):
            x = x + block.out(self._attend(block.qkv(block.norm1(x)), cache))  # type: ignore[operator]
            x = x + block.mlp(block.norm2(x))  # type: ignore[operator]
        self.position += 1
        return self.model.logits(decoder.norm(x)).float() + self.never

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, (R',) numbers or an (R,) mask: leave out, repeat or reorder them."""
        self.from_z = self.from_z[rows]
        self.caches = [KVCache(cache.k[rows], cache.v[rows]) for cache in self.caches]

    def _attend(self, qkv: Tensor, cache: KVCache) -> Tensor:
        """Queries, keys and values (R, 3 D) of the new token -> what its heads read, side by side (R, D)."""
        n_rows, heads, width = len(self), self.model.config.heads, self.model.config.width // self.model.config.heads
        parts = qkv.view(n_rows, 3 * heads, 1, width)
        q, k = self.model.decoder.rotary(parts[:, : 2 * heads], self.position).split(heads, dim=1)  # (R, H, 1, C)
        cache.k[:, :, self.n_used - 1] = k[:, :, 0]
        cache.v[:, :, self.n_used - 1] = parts[:, 2 * heads :, 0]
        keys, values = cache.k.flatten(0, 1), cache.v.flatten(0, 1)  # (R H, S, C)
        q = q.reshape(n_rows * heads, 1, width)
        score = torch.baddbmm(self.unused, q, keys.transpose(1, 2), alpha=width**-0.5)  # (R H, 1, S)
        return torch.bmm(score.softmax(-1), values).view(n_rows, heads * width)

    def _grow(self) -> None:
        n_slots = self.n_used + GROWTH
        self.caches = [KVCache(self._longer(cache.k, n_slots), self._longer(cache.v, n_slots)) for cache in self.caches]
        self.unused = self.from_z.new_full((1, 1, n_slots), -torch.inf)
        self.unused[..., : self.n_used] = 0.0

    def _longer(self, slots: Tensor, n_slots: int) -> Tensor:
        longer = slots.new_empty(*slots.shape[:2], n_slots, slots.shape[3])
        longer[:, :, : self.n_used] = slots
        longer[:, :, self.n_used :] = 0.0  # whatever lay there before could be NaN, and NaN times weight 0 is NaN
        return longer
