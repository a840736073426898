"""Muon in float32 against torch's, which orthogonalises in bfloat16, and against the singular value decomposition."""

from __future__ import annotations

import pytest
import torch

from molcmim.model import CMIM, ModelConfig
from molcmim.muon import Float32Muon, orthogonalised
from molcmim.train_config import OptimizerConfig
from molcmim.train_state import build_optimizers

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_keeps_singular_vectors_and_evens_out_singular_values(shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vt = torch.linalg.svd(gradient, full_matrices=False)
    inner = u.T @ orthogonalised(gradient, COEFFICIENTS, 5) @ vt.T
    off_diagonal = inner - torch.diag(inner.diag())
    assert off_diagonal.abs().max() < 1e-4
    if shape[0] != shape[1]:  # a square random matrix has singular values near 0
        assert inner.diag().min() > 0.6 and inner.diag().max() < 1.3
    assert orthogonalised(torch.zeros(shape), COEFFICIENTS, 5).abs().max() == 0


def test_steps_are_those_of_torch_but_for_bfloat16():
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator) for shape in ((12, 12), (8, 32), (32, 8))]
    gradients = [[torch.randn(x.shape, generator=generator) for x in start] for _ in range(4)]
    ends = []
    for kind in (torch.optim.Muon, Float32Muon):
        parameters = [torch.nn.Parameter(x.clone()) for x in start]
        optimizer = kind(parameters, lr=0.02, momentum=0.95, weight_decay=0.1)
        for of_step in gradients:
            for parameter, gradient in zip(parameters, of_step, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
        ends.append([p.detach() for p in parameters])
    for theirs, ours, before in zip(*ends, start, strict=True):
        moved = (theirs - before).norm()
        assert moved > 0.1
        assert (theirs - ours).norm() < 0.03 * moved
        assert (theirs - ours).norm() > 0, "bfloat16 is not float32"


def test_precision_of_a_run_decides():
    model = CMIM(ModelConfig(20, 16, 2, 32, encoder_layers=1, decoder_layers=1, latent=8))
    kinds = [type(build_optimizers(model, OptimizerConfig(), name)[1]) for name in ("float32", "bf16")]
    assert kinds == [Float32Muon, torch.optim.Muon]
