"""A small convolutional encoder-decoder of images, trained by the functions of molcmim/objective.py.

Only `encode`, `hidden`, `log_reconstruction` and `augment` are about images. `mlm` needs tokens, so it isn't here.
"""

# Axes: B images, C channels, H x W pixels, D width, L latent.

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molcmim.model import Posterior
from molcmim.objective import SAMPLED, ObjectiveConfig, latent_factors, log_infonce, weighted_loss

OBJECTIVES = ("ae", "dae", "vae", "mim", "cmim", "cvae", "infonce")
KINDS = ("latent", "informative", "both")


class ImageModel(nn.Module):
    """Convolutional encoder to q(z|x), fully connected decoder to p(x|z)."""

    def __init__(self, shape: tuple[int, ...], latent: int = 64, width: int = 256, log_sigma_floor: float = -3.0):
        super().__init__()
        self.shape, self.latent, self.floor = shape, latent, log_sigma_floor
        convolutions = [nn.Conv2d(shape[0], 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, 2, 1), nn.GELU()]
        if min(shape[1:]) > 16:
            convolutions += [nn.Conv2d(32, 32, 3, 2, 1), nn.GELU()]
        self.encoder = nn.Sequential(*convolutions, nn.Flatten())
        n_features = self.encoder(torch.zeros(1, *shape)).shape[1]
        self.to_posterior = nn.Linear(n_features, 2 * latent)
        layers = [nn.Linear(latent, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width)]
        self.decoder = nn.Sequential(*layers)
        self.to_pixels = nn.Linear(width, math.prod(shape))

    def encode(self, x: Tensor) -> Posterior:
        mu, raw = self.to_posterior(self.encoder(x)).chunk(2, dim=1)  # (B, L) each
        return Posterior(mu, self.floor + F.softplus(raw))

    def hidden(self, z: Tensor) -> Tensor:
        return self.decoder(z)  # (B, D): the informative embedding

    def log_reconstruction(self, z: Tensor, x: Tensor) -> Tensor:
        """sum over pixels of x log p + (1 - x) log(1 - p), (B,): Bernoulli, the grey level as a probability."""
        logits = self.to_pixels(self.hidden(z)).view(-1, *self.shape)
        return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def augment(x: Tensor) -> Tensor:
    """InfoNCE's positive: each image moved by up to one pixel either way, with noise."""
    height, width = x.shape[2:]
    padded, moves = F.pad(x, (1, 1, 1, 1)), torch.randint(0, 3, (len(x), 2)).tolist()
    moved = torch.stack([image[:, i : i + height, j : j + width] for image, (i, j) in zip(padded, moves, strict=True)])
    return moved + 0.1 * torch.randn_like(x)


def loss(model: ImageModel, x: Tensor, config: ObjectiveConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The same sum of factors as molcmim's, for images (B, C, H, W)."""
    seen = x * (torch.rand_like(x) >= config.mask_rate) if config.name == "dae" else x
    posterior = model.encode(seen)
    z = posterior.mu
    if config.name == "infonce":
        return weighted_loss({"infonce": log_infonce(z, model.encode(augment(x)).mu, config.tau)}, config, 1, 1)
    if config.name in SAMPLED:
        z = z + posterior.log_sigma.exp() * torch.randn_like(z)
    factors = {"reconstruction": model.log_reconstruction(z, x)} | latent_factors(z, posterior, config)
    return weighted_loss(factors, config, x[0].numel(), model.latent)


def train(
    x: Tensor, config: ObjectiveConfig, *, batch_size: int, examples: int, lr: float, seed: int = 0, latent: int = 64
) -> ImageModel:
    """Train on `examples` images, epoch after epoch: AdamW, 5 % warm-up, cosine to 0."""
    torch.manual_seed(seed)
    model = ImageModel(tuple(x.shape[1:]), latent)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=1e-4, fused=True)
    batch_size = min(batch_size, len(x))
    steps, queue = max(1, examples // batch_size), torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(queue) < batch_size:
            queue = torch.cat((queue, torch.randperm(len(x))))
        rows, queue = queue[:batch_size], queue[batch_size:]
        factor = min((step + 1) / (0.05 * steps), 0.5 + 0.5 * math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = lr * factor
        optimizer.zero_grad()
        loss(model, x[rows], config)[0].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def embed(model: ImageModel, x: Tensor, kind: str) -> np.ndarray:
    """(N, L), (N, D) or (N, L + D), as molcmim's: in `both` each part has unit mean norm."""
    mu = model.encode(x).mu
    parts = {"latent": [mu], "informative": [model.hidden(mu)], "both": [mu, model.hidden(mu)]}[kind]
    scale = len(parts) > 1
    return torch.cat([part / part.norm(dim=1).mean() if scale else part for part in parts], dim=1).numpy()
