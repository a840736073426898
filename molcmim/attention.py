"""softmax(q k^T / sqrt(C)) v, by whichever of torch's ways is quick where it runs.

The kernel behind `scaled_dot_product_attention` is the quick one, but for training in bfloat16 on a CPU: with its
backward pass, for as many tokens as a molecule has, two plain matrix products and a softmax are quicker there
(`profile_step.py --attention` in benchmarks/training_step compares whole steps).
"""

# Axes: B molecules, H heads, T queries, S keys, C features of a head.

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """What each query reads.

    Parameters
    ----------
    q, k, v
        (B, H, T, C), (B, H, S, C) and (B, H, S, C).
    mask
        Boolean, broadcast to (B, H, T, S): True where a query may look, which must be somewhere. None: everywhere.

    Returns
    -------
    Tensor
        (B, H, T, C)
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled() and q.requires_grad:
        return plain_attention(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """As `attention`, by matrix products; the softmax in float32."""
    score = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5  # (B, H, T, S)
    if mask is not None:
        score = score.masked_fill(~mask, -torch.inf)
    return score.softmax(-1).to(v.dtype) @ v
