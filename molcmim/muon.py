"""torch's Muon with its orthogonalisation in float32, for processors without instructions for bfloat16.

`torch.optim.Muon` orthogonalises in bfloat16 whatever the weights are. On a CPU with AVX2 only, a product of matrices
takes 25 times as long in it, which made the optimiser's step longer than the model's.
"""

# Axes: m rows, n columns.

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def orthogonalised(
    gradient: Tensor, coefficients: tuple[float, float, float], steps: int, epsilon: float = 1e-7
) -> Tensor:
    """About U V^T of the gradient's singular value decomposition U S V^T, by Newton-Schulz iterations.

    Parameters
    ----------
    gradient
        (m, n) float32.
    coefficients, steps
        Of the odd polynomial a x + b x^3 + c x^5 that is applied to the singular values, and how often.
    epsilon
        Smallest norm that the gradient is divided by.

    Returns
    -------
    Tensor
        (m, n) float32; singular values between about 0.7 and 1.2, but for those that were nearly 0.

    Source: Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024).
    """
    a, b, c = coefficients
    wide = gradient.shape[0] <= gradient.shape[1]
    x = gradient if wide else gradient.T  # (m, n), m <= n
    x = x / x.norm().clamp(min=epsilon)
    for _ in range(steps):
        gram = x @ x.T  # (m, m)
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T


class Float32Muon(torch.optim.Muon):
    """`torch.optim.Muon` (its arguments, its state) with the learning rate's `original` adjustment, in float32."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum = float(group["lr"]), group["momentum"]
            parameters: list[Tensor] = []
            gradients: list[Tensor] = []
            buffers: list[Tensor] = []
            self._init_group(group, parameters, gradients, buffers)
            for parameter, gradient, buffer in zip(parameters, gradients, buffers, strict=True):
                buffer.lerp_(gradient, 1 - momentum)
                update = gradient.lerp(buffer, momentum) if group["nesterov"] else buffer
                update = orthogonalised(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                rows, columns = parameter.shape
                parameter.mul_(1 - lr * group["weight_decay"])
                parameter.add_(update, alpha=-lr * max(1.0, rows / columns) ** 0.5)
        return loss
