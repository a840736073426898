"""Every training objective as a sum of log-probability factors, per molecule, averaged over the batch.

    loss = - mean over molecules of  sum over factors of  coefficient * weight * log-probability

| name      | log-probability factors and coefficients                                   |
|-----------|----------------------------------------------------------------------------|
| `ae`      | log p(x|z), z = mu                                                         |
| `dae`     | log p(x|z), z = mu of a corrupted x                                        |
| `mlm`     | log p(masked tokens | the others), by the encoder                          |
| `vae`     | log p(x|z)  - beta KL(q(z|x) || P(z))                                      |
| `mim`     | log p(x|z)  + 1/2 log q(z|x) + 1/2 log P(z)                (A-MIM)         |
| `cmim`    | the factors of `mim`  + log p(k=1|x,z)                                     |
| `cvae`    | the factors of `vae`  + log p(k=1|x,z)                                     |
| `infonce` | log softmax over the batch of the cosine to another SMILES of the molecule |

Sources: cMIM arXiv 2509.21511 (eq. for k), MIM arXiv 2003.02645, InfoNCE arXiv 1807.03748.
`latent_factors` and `weighted_loss` know nothing about molecules: examples/images trains images with them.
"""

# Axes: B molecules, G molecules over all ranks, T tokens, L latent, P descriptors.

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from molcmim.model import CMIM, Posterior, decoder_input, encoder_input
from molcmim.tokenizer import MASK, PAD

FACTORS: Mapping[str, Mapping[str, float]] = {
    "ae": {"reconstruction": 1.0},
    "dae": {"reconstruction": 1.0},
    "mlm": {"masked_tokens": 1.0},
    "vae": {"reconstruction": 1.0, "negative_kl": 1.0},
    "mim": {"reconstruction": 1.0, "log_q": 0.5, "log_prior": 0.5},
    "cmim": {"reconstruction": 1.0, "log_q": 0.5, "log_prior": 0.5, "contrastive": 1.0},
    "cvae": {"reconstruction": 1.0, "negative_kl": 1.0, "contrastive": 1.0},
    "infonce": {"infonce": 1.0},
}
SAMPLED = ("vae", "mim", "cmim", "cvae")  #: objectives trained on a sample of z; the others use z = mu
LATENT_FACTORS = ("log_q", "log_prior", "negative_kl")


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which factors are trained, and how they are weighed.

    Parameters
    ----------
    name
        A row of the module's table.
    tau
        Temperature of the contrastive factors.
    beta
        Weight of KL in `vae` and `cvae`.
    scaling
        ``"sum"``: log-probabilities summed over tokens (<eos> included) and over latent dimensions.
        ``"mean"``: both averaged, over the molecule's own tokens and over the latent dimensions. The contrastive
        and properties factors are *not* rescaled by ``"mean"``, so their relative weight rises.
    weights
        Explicit weight of each factor by name; 1 where none is given.
    corruption
        `dae` only: ``"mask"`` (tokens replaced by <mask>) or ``"random_smiles"`` (the encoder reads another SMILES).
    mask_rate
        Share of tokens masked in `mlm` and in `dae` with ``"mask"``.
    encoder_input
        ``"canonical"`` or ``"random_smiles"`` (the decoder always writes the canonical one).
    random_share
        With ``"random_smiles"``: share of molecules of which the encoder reads a random SMILES, drawn anew for each
        batch; of the others it reads the canonical one, which is what users embed.
    decoder_dropout
        Share of the decoder's input tokens replaced by <mask> in training (never <bos>, never when the model is in
        eval mode), so that what they say has to come through z.
    properties
        Add the factor log N(y | f(z), 1) over standardised descriptors y computed from the structure itself.
    gather_negatives
        Under several processes: contrast with the molecules of all processes, not only the own.
    """

    name: str = "cmim"
    tau: float = 0.1
    beta: float = 1.0
    scaling: str = "sum"
    weights: Mapping[str, float] = field(default_factory=dict)
    corruption: str = "mask"
    mask_rate: float = 0.15
    encoder_input: str = "canonical"
    random_share: float = 1.0
    decoder_dropout: float = 0.0
    properties: bool = False
    gather_negatives: bool = False

    def __post_init__(self) -> None:
        if self.name not in FACTORS:
            raise ValueError(f"objective name: expected one of {sorted(FACTORS)}, got {self.name!r}")
        if self.scaling not in ("sum", "mean"):
            raise ValueError(f"scaling: expected 'sum' or 'mean', got {self.scaling!r}")
        if self.corruption not in ("mask", "random_smiles"):
            raise ValueError(f"corruption: expected 'mask' or 'random_smiles', got {self.corruption!r}")
        if self.encoder_input not in ("canonical", "random_smiles"):
            raise ValueError(f"encoder_input: expected 'canonical' or 'random_smiles', got {self.encoder_input!r}")
        if not self.tau > 0 or not 0 < self.mask_rate < 1:
            raise ValueError(f"tau > 0 and 0 < mask_rate < 1 expected, got {self.tau} and {self.mask_rate}")
        if not 0 < self.random_share <= 1:
            raise ValueError(f"random_share: expected a value in (0, 1], got {self.random_share}")
        if self.random_share < 1 and (self.encoder_input != "random_smiles" or not self.has_decoder):
            raise ValueError(
                "random_share below 1: expected encoder_input 'random_smiles' and an objective with a decoder"
            )
        if not 0 <= self.decoder_dropout < 1:
            raise ValueError(f"decoder_dropout: expected a value in [0, 1), got {self.decoder_dropout}")
        if self.decoder_dropout and not self.has_decoder:
            raise ValueError(f"decoder_dropout: objective {self.name!r} has no decoder")
        unknown = sorted(set(self.weights) - set(self.factors))
        if unknown:
            raise ValueError(f"weights: {self.name!r} has no factors {unknown}; it has {sorted(self.factors)}")

    @property
    def factors(self) -> dict[str, float]:
        """Coefficient of every factor, before `weights`."""
        factors = dict(FACTORS[self.name])
        if "negative_kl" in factors:
            factors["negative_kl"] = self.beta
        if self.properties:
            factors["properties"] = 1.0
        return factors

    @property
    def has_decoder(self) -> bool:
        return "reconstruction" in FACTORS[self.name]

    @property
    def needs_random_smiles(self) -> bool:
        """Whether batches must bring a second SMILES of each molecule."""
        corrupted = self.name == "dae" and self.corruption == "random_smiles"
        return self.name == "infonce" or corrupted or self.encoder_input == "random_smiles"


class Batch(NamedTuple):
    """What the loader hands over, and all randomness of one step."""

    tokens: Tensor  #: (B, T) canonical SMILES as token ids, padded with 0, without <bos>, <eos>
    random_tokens: Tensor | None = None  #: (B, T') another SMILES of the same molecules
    properties: Tensor | None = None  #: (B, P) standardised descriptors
    noise: Tensor | None = None  #: (B, L) standard normal; drawn here when None
    log_sigma: Tensor | None = None  #: (B, 1) for the "sampled" posterior; drawn here when None
    mask_score: Tensor | None = (
        None  #: (B, T) uniform in [0, 1): the lowest are masked (mlm, dae); drawn here when None
    )
    drop_score: Tensor | None = None  #: (B, T) the same for `decoder_dropout`


# ---------------------------------------------------------------------------------------------- factors, each (B,)


def log_reconstruction(logits: Tensor, target: Tensor) -> Tensor:
    """log p(x|z): logits (B, T, V) and target ids (B, T) -> (B,), summed over real tokens."""
    nll = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="none")
    return -nll.view(target.shape).sum(1)


def log_normal(x: Tensor, mean: Tensor | float, log_sigma: Tensor) -> Tensor:
    """log N(x | mean, sigma^2) summed over the last axis."""
    normed = (x - mean) * torch.exp(-log_sigma)
    return (-0.5 * normed.square() - log_sigma - 0.5 * math.log(2 * math.pi)).sum(-1)


def negative_kl(posterior: Posterior) -> Tensor:
    """-KL( N(mu, sigma^2) || N(0, 1) ), summed over dimensions."""
    mu, log_sigma = posterior
    return -0.5 * (mu.square() + torch.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum(-1)


def log_contrastive(z: Tensor, tau: float, others: Tensor | None = None, offset: int = 0) -> Tensor:
    """log p(k=1 | x_i, z_i) of cMIM: how well z_i is told from the z of the other molecules.

        log p = s_ii/tau - log( exp(s_ii/tau) + mean_{j != i} exp(s_ij/tau) ),  s = cosine, s_ii = 1
              = -softplus( log mean_{j != i} exp((s_ij - 1)/tau) )

    The mean over negatives, not their sum, is what makes it insensitive to the batch size. Computed in float32
    outside autocast; the second form keeps the digits that the first one loses.

    Parameters
    ----------
    z
        (B, L) sampled latents.
    tau
        Temperature.
    others
        (G, L) latents of the global batch, in which row `offset` + i is z_i. Default: `z` itself.

    Returns
    -------
    (B,) log-probabilities. 0 for a batch of one, -log 2 when all z agree.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = F.normalize(z.float(), dim=-1)
        others = z if others is None else F.normalize(others.float(), dim=-1)
        n_others = others.shape[0] - 1
        if n_others == 0:
            return z.sum(-1) * 0.0
        scaled = (z @ others.T - 1) / tau  # (B, G)
        own = torch.arange(z.shape[0], device=z.device) + offset
        is_self = own[:, None] == torch.arange(others.shape[0], device=z.device)
        log_mean = torch.logsumexp(scaled.masked_fill(is_self, -torch.inf), dim=1) - math.log(n_others)
        return -F.softplus(log_mean)


def log_infonce(mu: Tensor, positive: Tensor, tau: float, offset: int = 0) -> Tensor:
    """One-way InfoNCE: log softmax_j( cos(mu_i, positive_j) / tau ) at the own positive, j = offset + i.

    mu (B, L), positives of the global batch (G, L) -> (B,). -log G when all agree.
    """
    with torch.autocast(mu.device.type, enabled=False):
        cosine = F.normalize(mu.float(), dim=-1) @ F.normalize(positive.float(), dim=-1).T  # (B, G)
        return (cosine / tau).log_softmax(dim=1).diagonal(offset)


def log_properties(predicted: Tensor, y: Tensor) -> Tensor:
    """log N(y | f(z), 1), mean over descriptors: (B, P), (B, P) -> (B,)."""
    return log_normal(y.float(), predicted.float(), torch.zeros_like(y, dtype=torch.float32)) / y.shape[1]


# ---------------------------------------------------------------------------------------------- several processes


class _AllGather(torch.autograd.Function):
    """Concatenate over ranks; the gradient of a row is the sum of what every rank's loss sends back to it."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gather_if(wanted: bool, x: Tensor) -> tuple[Tensor, int]:
    """(B, L) of this rank -> (G, L) of all ranks (equal B on each) and the position of this rank's first row.

    `x` itself and 0 where it isn't wanted, or there is one process only.
    """
    if not wanted or not dist.is_initialized():
        return x, 0
    return _AllGather.apply(x), dist.get_rank() * x.shape[0]


# ---------------------------------------------------------------------------------------------- the objective


def mask_tokens(tokens: Tensor, rate: float, score: Tensor | None) -> Tensor:
    """Random (B, T) mask of real tokens, at least one a molecule."""
    real = tokens != PAD
    score = torch.rand(tokens.shape, device=tokens.device) if score is None else score
    score = score.masked_fill(~real, 2.0)
    return ((score < rate) | (score == score.amin(1, keepdim=True))) & real


def mix_inputs(tokens: Tensor, random_tokens: Tensor, random: Tensor) -> Tensor:
    """(B, T) and (B, T') ids -> (B, max(T, T')): rows of the second where the mask `random` (B,) says so."""
    width = max(tokens.shape[1], random_tokens.shape[1])
    tokens, random_tokens = (F.pad(x, (0, width - x.shape[1]), value=PAD) for x in (tokens, random_tokens))
    return torch.where(random[:, None], random_tokens, tokens)


def drop_tokens(tokens: Tensor, rate: float, score: Tensor | None) -> Tensor:
    """(B, T) ids of which a random share of the real tokens is <mask>."""
    score = torch.rand(tokens.shape, device=tokens.device) if score is None else score
    return tokens.masked_fill((score < rate) & (tokens != PAD), MASK)


def encoder_side(batch: Batch, config: ObjectiveConfig) -> Tensor:
    """Token ids that the encoder reads, (B, T) without <eos>: canonical, random or corrupted."""
    use_random = config.encoder_input == "random_smiles" or (
        config.name == "dae" and config.corruption == "random_smiles"
    )
    if use_random:
        if batch.random_tokens is None:
            raise ValueError(
                "random_tokens: this objective needs a second SMILES of each molecule; the batch has none "
                "(build the corpus with random SMILES)"
            )
        return batch.random_tokens
    if config.name == "dae":
        mask = mask_tokens(batch.tokens, config.mask_rate, batch.mask_score)
        return batch.tokens.masked_fill(mask, MASK)
    return batch.tokens


def sample_latent(posterior: Posterior, batch: Batch, model: CMIM) -> tuple[Tensor, Posterior]:
    """z ~ q(z|x) (B, L) by reparameterisation, and the posterior it was drawn from."""
    mu, log_sigma = posterior
    if model.config.posterior == "sampled":  # MolMIM: log sigma^2 ~ U(-6, 0), one a molecule
        drawn = batch.log_sigma if batch.log_sigma is not None else torch.rand_like(mu[:, :1]) * -3.0
        log_sigma = drawn.expand_as(mu)
    noise = batch.noise if batch.noise is not None else torch.randn_like(mu)
    return mu + log_sigma.exp() * noise, Posterior(mu, log_sigma)


def log_factors(model: CMIM, batch: Batch, config: ObjectiveConfig) -> dict[str, Tensor]:
    """Every factor of the objective, summed over tokens and dimensions: name -> (B,) log-probabilities.

    Raises
    ------
    ValueError
        If the batch lacks what the objective needs, or a Perceiver encoder is asked for per-token states (`mlm`).
    """
    if config.name == "mlm":
        return {"masked_tokens": log_masked_tokens(model, batch, config)}
    posterior = model.encode(encoder_input(encoder_side(batch, config)))
    if config.name == "infonce":
        if batch.random_tokens is None:
            raise ValueError("random_tokens: infonce needs a second SMILES of each molecule; the batch has none")
        positive, offset = gather_if(config.gather_negatives, model.encode(encoder_input(batch.random_tokens)).mu)
        return {"infonce": log_infonce(posterior.mu, positive, config.tau, offset)}

    z = posterior.mu
    if config.name in SAMPLED:
        z, posterior = sample_latent(posterior, batch, model)
    given = batch.tokens
    if config.decoder_dropout and model.training:
        given = drop_tokens(given, config.decoder_dropout, batch.drop_score)
    logits = model.logits(model.hidden(z, decoder_input(given)))
    factors = {"reconstruction": log_reconstruction(logits, encoder_input(batch.tokens))}
    factors |= latent_factors(z, posterior, config)
    if config.properties:
        if model.property_head is None or batch.properties is None:
            raise ValueError("properties: the model needs n_properties > 0 and the batch descriptors")
        factors["properties"] = log_properties(model.property_head(z), batch.properties)
    return factors


def latent_factors(z: Tensor, posterior: Posterior, config: ObjectiveConfig) -> dict[str, Tensor]:
    """The objective's factors that need z and its posterior only, whatever x is: name -> (B,) log-probabilities.

    Parameters
    ----------
    z
        (B, L): a sample of the posterior, or its mean for objectives that aren't in `SAMPLED`.
    """
    factors = {}
    for name in config.factors:
        if name == "log_q":
            factors[name] = log_normal(z, *posterior)
        elif name == "log_prior":
            factors[name] = log_normal(z, 0.0, torch.zeros_like(z))
        elif name == "negative_kl":
            factors[name] = negative_kl(posterior)
        elif name == "contrastive":
            others, offset = gather_if(config.gather_negatives, z)
            factors[name] = log_contrastive(z, config.tau, others, offset)
    return factors


def log_masked_tokens(model: CMIM, batch: Batch, config: ObjectiveConfig) -> Tensor:
    """log p(masked tokens | the others) by the encoder, summed over them: (B,)."""
    if model.config.encoder != "transformer":
        raise ValueError(f"objective 'mlm' needs per-token states: encoder 'transformer', got {model.config.encoder!r}")
    if model.config.encoder_tokens != "same":
        raise ValueError(f"objective 'mlm' has no decoder: encoder_tokens 'same', got {model.config.encoder_tokens!r}")
    mask = mask_tokens(batch.tokens, config.mask_rate, batch.mask_score)
    states, _ = model.encoder.states(encoder_input(batch.tokens.masked_fill(mask, MASK)))
    logits = model.logits(model.encoder.norm(states[:, :-1]))  # (B, T, V); the last column holds no token
    return log_reconstruction(logits, batch.tokens.masked_fill(~mask, PAD))


def loss(model: CMIM, batch: Batch, config: ObjectiveConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Training loss (scalar) and the batch mean of every factor (unweighted, unscaled nats a molecule, detached)."""
    factors = log_factors(model, batch, config)
    n_tokens = (batch.tokens != PAD).sum(1) + 1  # <eos> included
    return weighted_loss(factors, config, n_tokens, model.config.latent)


def weighted_loss(
    factors: Mapping[str, Tensor], config: ObjectiveConfig, n_parts: Tensor | int, n_latent: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The module's equation: loss (scalar), and the batch mean of every factor as it came, detached.

    Parameters
    ----------
    factors
        (B,) log-probabilities of every factor of the objective.
    n_parts, n_latent
        What scaling ``"mean"`` divides by: parts of x (tokens of each molecule, (B,); pixels), and dimensions of z.
    """
    weighted = []
    for name, coefficient in config.factors.items():
        value = factors[name]
        if config.scaling == "mean":
            if name in ("reconstruction", "masked_tokens"):
                value = value / n_parts
            elif name in LATENT_FACTORS:
                value = value / n_latent
        weighted.append(-coefficient * config.weights.get(name, 1.0) * value.mean())
    return torch.stack(weighted).sum(), {name: value.detach().mean() for name, value in factors.items()}
