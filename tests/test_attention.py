"""Attention by plain products against torch's kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from molcmim.attention import attention, plain_attention


def masks(n: int, m: int) -> dict[str, torch.Tensor | None]:
    lengths = torch.tensor([m, 1, m - 2])
    return {
        "none": None,
        "padding": (torch.arange(m) < lengths[:, None])[:, None, None, :],
        "causal": torch.ones(n, m, dtype=torch.bool).tril(m - n),
    }


@pytest.mark.parametrize("name", ["none", "padding", "causal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_kernel_forward_and_backward(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    n, m = 7, 9
    mask = masks(n, m)[name]
    q, k, v = (torch.randn(3, 2, size, 8, dtype=dtype, requires_grad=True) for size in (n, m, m))
    weight = torch.randn(3, 2, n, 8, dtype=dtype)
    results = []
    for function in (plain_attention, lambda *given: F.scaled_dot_product_attention(*given[:3], attn_mask=given[3])):
        out = function(q, k, v, mask)
        results.append((out, *torch.autograd.grad((out * weight).sum(), (q, k, v))))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 0.05, "atol": 0.05}
    for plain, kernel in zip(*results, strict=True):
        assert plain.dtype == dtype
        torch.testing.assert_close(plain, kernel, **tolerance)


def test_plain_products_are_for_training_in_bfloat16_only(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    monkeypatch.setattr("molcmim.attention.plain_attention", lambda q, k, v, mask: used.append("plain"))
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, attn_mask: used.append("kernel"))
    single = torch.randn(1, 1, 2, 4, requires_grad=True)
    attention(single, single, single)
    q = single.to(torch.bfloat16)
    attention(q, q, q)
    with torch.no_grad():
        attention(q, q, q)
    attention(q.detach(), q, q)
    assert used == ["kernel", "plain", "kernel", "kernel"]
