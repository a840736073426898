"""From byte-pair tokens, which the decoder writes, to the atom-level tokens that the encoder reads."""

# Axes: B molecules, T tokens, T' parts, V vocabulary, K most parts of a token.

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molcmim.tokenizer import PAD

PARTS_MULTIPLE = 4  #: what encoder tokens are padded to a multiple of, where they aren't the decoder's


class TokenParts(nn.Module):
    """Byte-pair tokens -> the atom-level tokens that they join, by a table that follows from the vocabulary.

    Parameters
    ----------
    parts
        For every id what it is made of (`Tokenizer.parts`): itself alone, or two and more atom-level ids.
    limit
        Padding never makes rows longer than this.
    """

    def __init__(self, parts: Sequence[Sequence[int]], limit: int) -> None:
        super().__init__()
        self.limit = limit
        most = max(map(len, parts))
        table = torch.tensor([[*ids, *[PAD] * (most - len(ids))] for ids in parts])  # (V, K)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("count", (table != PAD).sum(1), persistent=False)  # (V,)
        self.counts = [len(ids) for ids in parts]  # of ids other than <pad>
        self.dynamic = False  # tells torch.compile that T' varies

    table: Tensor
    count: Tensor

    def n_parts(self, row: Sequence[int]) -> int:
        """Number of parts of one molecule's ids."""
        return sum(map(self.counts.__getitem__, row))

    def lengths(self, tokens: Tensor) -> Tensor:
        """(B, T) ids padded with 0 -> number of parts of each row (B,)."""
        return self.count[tokens].sum(1)

    def padded(self, longest: int, multiple: int = PARTS_MULTIPLE) -> int:
        """T' for rows of up to `longest` parts."""
        return max(longest, min(-(-longest // multiple) * multiple, self.limit))

    def keep_out_of_compile(self) -> None:
        """Before `torch.compile` of what holds it: the length is known only to the data.

        Not a decorator of `forward`: that would import the compiler, seconds of the start of every process.
        """
        self.dynamic = True
        self.forward = torch.compiler.disable(self.forward)  # type: ignore[method-assign]

    def forward(self, tokens: Tensor, multiple: int = PARTS_MULTIPLE) -> Tensor:
        """(B, T) ids padded with 0 -> (B, T') ids of the parts in order; T' is a multiple of `multiple`, or `limit`."""
        parts = self.table[tokens].flatten(1)  # (B, T K)
        order = (parts == PAD).to(torch.uint8).argsort(dim=1, stable=True)  # the parts first, as they come
        length = self.padded(int(self.lengths(tokens).max()), multiple)
        parts = parts.gather(1, order[:, :length])
        parts = F.pad(parts, (0, length - parts.shape[1]), value=PAD)
        if self.dynamic:
            torch._dynamo.mark_dynamic(parts, 1)
        return parts
