"""The contrastive Mutual Information Machine: encoder q(z|x), prior P(z), decoder p(x|z).

Read it top to bottom: configuration, attention and blocks, encoder and pooling, decoder, the model.

    tokens + <eos>  --Encoder-->  mu, log sigma  --sample-->  z  --Decoder(<bos> + tokens)-->  tokens + <eos>

Sources: cMIM (arXiv 2509.21511), MolMIM (arXiv 2208.09016), SentenceMIM (arXiv 2003.02645),
Perceiver (arXiv 2103.03206), rotary positions (arXiv 2104.09864), RMSNorm (arXiv 1910.07467).
"""

# Axes: B molecules, T tokens, D width, L latent, H heads, C = D / H, M memory slots, Q Perceiver queries, V vocabulary.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molcmim.attention import attention
from molcmim.token_parts import PARTS_MULTIPLE, TokenParts
from molcmim.tokenizer import BOS, EOS, PAD


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of one model. All widths are numbers of features, all lengths numbers of tokens.

    Parameters
    ----------
    vocab_size
        Number of tokens, special tokens included.
    width, heads, mlp_width
        Transformer width D, attention heads H, hidden width of the feed-forward blocks.
    activation
        Of the feed-forward blocks: ``"gelu"``, or ``"relu2"``, relu(x)^2 (Primer, arXiv 2109.08668), which takes a
        CPU without AVX-512 a fraction of the time.
    encoder
        ``"transformer"`` (every token attends to every token) or ``"perceiver"`` (`perceiver_queries` learned
        queries read the tokens, each layer cross- then self-attention, as in MolMIM).
    pooling
        What a Transformer encoder's mu is read from: the ``"mean"`` of the token states, one learned ``"attention"``
        query, or ``"both"`` side by side. A Perceiver doesn't pool, its queries are read.
    encoder_layers, decoder_layers
        Number of blocks. A Perceiver encoder puts `perceiver_token_layers` Transformer blocks before its queries.
    latent
        Latent dimensions L.
    posterior
        ``"learned"``: sigma from the encoder, log sigma >= `log_sigma_floor`. ``"sampled"`` (MolMIM): in training
        log sigma^2 ~ U(-6, 0), drawn per molecule, isotropic.
    memory
        Number of key/value slots M into which the decoder unfolds z; every decoder layer attends to them.
    max_tokens
        Longest molecule, in tokens without <bos> and <eos>; of byte-pair tokens the atom-level ones count.
    n_properties
        Number of descriptors predicted from z (0: no such head).
    encoder_tokens
        ``"same"``: encoder and decoder read the same tokens. ``"atoms"`` (byte-pair vocabularies): the encoder reads
        each token as the atom-level tokens that it joins, the decoder reads and writes the joined ones.
    """

    vocab_size: int
    width: int = 256
    heads: int = 4
    mlp_width: int = 1024
    activation: str = "gelu"
    encoder: str = "transformer"
    pooling: str = "both"
    encoder_layers: int = 4
    decoder_layers: int = 3
    latent: int = 256
    posterior: str = "learned"
    log_sigma_floor: float = -3.0
    memory: int = 8
    perceiver_queries: int = 4
    perceiver_token_layers: int = 1
    max_tokens: int = 200
    n_properties: int = 0
    encoder_tokens: str = "same"

    def __post_init__(self) -> None:
        if self.encoder_tokens not in ("same", "atoms"):
            raise ValueError(f"encoder_tokens: expected 'same' or 'atoms', got {self.encoder_tokens!r}")
        if self.activation not in ("gelu", "relu2"):
            raise ValueError(f"activation: expected 'gelu' or 'relu2', got {self.activation!r}")
        if self.encoder not in ("transformer", "perceiver"):
            raise ValueError(f"encoder: expected 'transformer' or 'perceiver', got {self.encoder!r}")
        if self.pooling not in ("both", "mean", "attention"):
            raise ValueError(f"pooling: expected 'both', 'mean' or 'attention', got {self.pooling!r}")
        if self.posterior not in ("learned", "sampled"):
            raise ValueError(f"posterior: expected 'learned' or 'sampled', got {self.posterior!r}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width / heads: expected an even whole number, got {self.width} / {self.heads}")
        for name in (
            "vocab_size",
            "width",
            "heads",
            "mlp_width",
            "latent",
            "memory",
            "max_tokens",
            "perceiver_queries",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("encoder_layers", "decoder_layers", "perceiver_token_layers", "n_properties"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`. Raises ValueError for a field that this version doesn't know."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"architecture: unknown fields {unknown}")
        return cls(**values)


class Posterior(NamedTuple):
    """q(z|x) = N(mu, diag sigma^2) for a batch."""

    mu: Tensor  #: (B, L), float32
    log_sigma: Tensor  #: (B, L), float32


# ---------------------------------------------------------------------------------------------- building blocks


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)
        return (x.float() * scale * self.weight).to(x.dtype)


class Rotary(nn.Module):
    """Rotary position embedding: rotates pairs of query and key features by an angle that grows with position."""

    def __init__(self, head_width: int, max_positions: int) -> None:
        super().__init__()
        frequency = 10000.0 ** (-torch.arange(0, head_width, 2).float() / head_width)  # (C/2,)
        angle = torch.arange(max_positions).float()[:, None] * frequency  # (positions, C/2)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    cos: Tensor
    sin: Tensor

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        cos = self.cos[start : start + x.shape[-2]].to(x.dtype)  # (T, C/2)
        sin = self.sin[start : start + x.shape[-2]].to(x.dtype)
        a, b = x.chunk(2, dim=-1)  # each (B, H, T, C/2)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)  # (B, H, T, C)


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, T, D) -> (B, H, T, C)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (B, H, T, C) -> (B, T, D)


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.up = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        return self.down(F.relu(x).square() if self.activation == "relu2" else F.gelu(x, approximate="tanh"))


class SelfAttentionBlock(nn.Module):
    """Pre-norm Transformer block without causality: x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = RMSNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.norm2 = RMSNorm(config.width)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, mask: Tensor | None, rotary: Rotary | None) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        x = x + self.out(merge_heads(attention(q, k, v, mask)))
        return x + self.mlp(self.norm2(x))


class CrossAttentionBlock(nn.Module):
    """Pre-norm cross-attention: queries read the token states (Perceiver)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm_query = RMSNorm(config.width)
        self.norm_tokens = RMSNorm(config.width)
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.kv = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.norm2 = RMSNorm(config.width)
        self.mlp = MLP(config)

    def forward(self, query: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        q = split_heads(self.q(self.norm_query(query)), self.heads)  # (B, H, Q, C)
        k, v = (split_heads(part, self.heads) for part in self.kv(self.norm_tokens(tokens)).chunk(2, dim=-1))
        query = query + self.out(merge_heads(attention(q, k, v, mask)))
        return query + self.mlp(self.norm2(query))


# ---------------------------------------------------------------------------------------------- encoder


class Encoder(nn.Module):
    """Token ids -> mu and log sigma of the posterior.

    The Transformer's states are pooled by their mean *and* (by default) by one learned attention query: the mean keeps
    composition (how many of which atom) visible, the query picks out what the mean washes away.
    """

    def __init__(self, config: ModelConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self.embedding = embedding
        n_blocks = config.encoder_layers if config.encoder == "transformer" else config.perceiver_token_layers
        self.blocks = nn.ModuleList(SelfAttentionBlock(config) for _ in range(n_blocks))
        self.rotary = Rotary(config.width // config.heads, config.max_tokens + 8)
        if config.encoder == "perceiver":
            self.queries = nn.Parameter(torch.randn(config.perceiver_queries, config.width) * 0.5)  # (Q, D)
            self.cross = nn.ModuleList(CrossAttentionBlock(config) for _ in range(config.encoder_layers))
            self.self_ = nn.ModuleList(SelfAttentionBlock(config) for _ in range(config.encoder_layers))
            pooled_width = config.perceiver_queries * config.width
        else:
            if config.pooling != "mean":
                self.pool_query = nn.Linear(config.width, config.heads, bias=False)
                self.pool_value = nn.Linear(config.width, config.width, bias=False)
            pooled_width = (2 if config.pooling == "both" else 1) * config.width
        self.norm = RMSNorm(config.width)
        self.to_mu = nn.Linear(pooled_width, config.latent)
        self.to_log_sigma = nn.Linear(pooled_width, config.latent) if config.posterior == "learned" else None

    def states(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) ids -> (B, T, D) token states before pooling, and the (B, T) mask of real tokens."""
        real = tokens != PAD
        mask = real[:, None, None, :]  # (B, 1, 1, T): keys that may be attended to
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, mask, self.rotary)
        return x, real

    def pool(self, x: Tensor, real: Tensor) -> Tensor:
        """(B, T, D) -> one pooled vector per molecule."""
        if self.config.encoder == "perceiver":
            query = self.queries.to(x.dtype).expand(x.shape[0], -1, -1)  # (B, Q, D)
            for cross, self_ in zip(self.cross, self.self_, strict=True):
                query = self_(cross(query, x, real[:, None, None, :]), None, None)
            return self.norm(query).flatten(1)  # (B, Q * D)
        x = self.norm(x)
        mean = (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)  # (B, D)
        if self.config.pooling == "mean":
            return mean
        score = self.pool_query(x).float().masked_fill(~real[..., None], -torch.inf)  # (B, T, H)
        weight = score.softmax(dim=1).to(x.dtype).transpose(1, 2)[:, :, None, :]  # (B, H, 1, T)
        attended = merge_heads(weight @ split_heads(self.pool_value(x), self.config.heads))[:, 0]  # (B, D)
        return torch.cat((mean, attended), dim=-1) if self.config.pooling == "both" else attended  # (B, 2 D or D)

    def forward(self, tokens: Tensor) -> Posterior:
        pooled = self.pool(*self.states(tokens))
        floor = self.config.log_sigma_floor
        with torch.autocast(pooled.device.type, enabled=False):
            pooled = pooled.to(self.to_mu.weight.dtype)  # float32 under autocast too
            mu = self.to_mu(pooled)  # (B, L)
            if self.to_log_sigma is None:
                return Posterior(mu, torch.full_like(mu, floor))
            return Posterior(mu, floor + F.softplus(self.to_log_sigma(pooled)))


# ---------------------------------------------------------------------------------------------- decoder


class KVCache(NamedTuple):
    """Keys and values of one decoder layer; memory slots first, then the tokens read so far (cached_decoder.py)."""

    k: Tensor  #: (B, H, M + T, C)
    v: Tensor  #: (B, H, M + T, C)


class DecoderBlock(nn.Module):
    """Pre-norm causal block whose attention also sees the memory slots made from z (at every position)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = RMSNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.memory_kv = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.norm2 = RMSNorm(config.width)
        self.mlp = MLP(config)

    def memory(self, memory: Tensor) -> KVCache:
        """(B, M, D) -> keys and values of the memory slots (without position)."""
        k, v = (split_heads(part, self.heads) for part in self.memory_kv(memory).chunk(2, dim=-1))
        return KVCache(k, v)

    def forward(self, x: Tensor, memory: KVCache, mask: Tensor, rotary: Rotary) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        q, k = rotary(q), rotary(k)
        k, v = torch.cat((memory.k, k), dim=2), torch.cat((memory.v, v), dim=2)  # (B, H, M + T, C)
        x = x + self.out(merge_heads(attention(q, k, v, mask)))
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    """Autoregressive Transformer p(x|z). z enters twice: added to every input position, and as M memory slots.

    This is the pass over whole molecules; writing them token by token is `CachedDecoder` in cached_decoder.py.
    """

    def __init__(self, config: ModelConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.config = config
        self.embedding = embedding
        self.z_to_input = nn.Linear(config.latent, config.width)
        self.z_to_memory = nn.Linear(config.latent, config.memory * config.width)
        self.memory_norm = RMSNorm(config.width)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_layers))
        self.rotary = Rotary(config.width // config.heads, config.max_tokens + 8)
        self.norm = RMSNorm(config.width)

    def memory(self, z: Tensor) -> list[KVCache]:
        """(B, L) -> per layer the keys and values of the M memory slots."""
        slots = self.memory_norm(self.z_to_memory(z).unflatten(-1, (self.config.memory, -1)))  # (B, M, D)
        return [block.memory(slots) for block in self.blocks]  # type: ignore[operator]

    def forward(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Last hidden states (B, T, D) after the final norm, for input ids (B, T), <bos> first."""
        n, m = tokens.shape[1], self.config.memory
        mask = torch.ones(n, m + n, dtype=torch.bool, device=tokens.device).tril(m)  # (T, M + T)
        x = self.embedding(tokens) + self.z_to_input(z)[:, None, :]  # (B, T, D)
        for block, memory in zip(self.blocks, self.memory(z), strict=True):
            x = block(x, memory, mask, self.rotary)
        return self.norm(x)


# ---------------------------------------------------------------------------------------------- the model


class CMIM(nn.Module):
    """Encoder, posterior and decoder over one shared token embedding.

    Three depths of one computation: `encode` (tokens -> posterior), `hidden` (z and tokens -> decoder states, whose
    mean is the informative embedding), `logits` (decoder states -> next-token scores).

    Parameters
    ----------
    config
        The architecture.
    parts
        Of every token (`Tokenizer.parts`), needed with ``encoder_tokens="atoms"`` only.

    Raises
    ------
    ValueError
        If `parts` are missing, or not of `vocab_size` tokens.
    """

    def __init__(self, config: ModelConfig, parts: Sequence[Sequence[int]] | None = None) -> None:
        super().__init__()
        self.config = config
        self.parts: TokenParts | None = None
        if config.encoder_tokens == "atoms":
            if parts is None or len(parts) != config.vocab_size:
                given = "none" if parts is None else len(parts)
                raise ValueError(f"parts: expected those of {config.vocab_size} tokens, got {given}")
            self.parts = TokenParts(parts, config.max_tokens + 1)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.encoder = Encoder(config, self.embedding)
        self.decoder = Decoder(config, self.embedding)
        self.unembed = nn.Linear(config.width, config.vocab_size, bias=False)
        self.property_head = nn.Linear(config.latent, config.n_properties) if config.n_properties else None
        self.apply(self._initialise)
        for block in self.residual_blocks():  # residual branches start at zero, so that depth costs nothing at first
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.mlp.down.weight)
        if self.encoder.to_log_sigma is not None:
            nn.init.zeros_(self.encoder.to_log_sigma.weight)

    @staticmethod
    def _initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=1.0)

    def residual_blocks(self) -> list[Any]:
        kinds = (SelfAttentionBlock, CrossAttentionBlock, DecoderBlock)
        return [module for module in self.modules() if isinstance(module, kinds)]

    def encode(self, tokens: Tensor, multiple: int = PARTS_MULTIPLE) -> Posterior:
        """Token ids (B, T), each row molecule + <eos> + padding -> posterior of z.

        Where the encoder reads other tokens, they are padded to a multiple of `multiple`.
        """
        if self.parts is not None:
            tokens = self.parts(tokens, multiple)  # (B, T')
        return self.encoder(tokens)

    def hidden(self, z: Tensor, tokens: Tensor) -> Tensor:
        """z (B, L) and input ids (B, T), each row <bos> + molecule + padding -> last hidden states (B, T, D)."""
        return self.decoder(z, tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.unembed(hidden)  # (..., D) -> (..., V)

    def informative(self, z: Tensor, tokens: Tensor) -> Tensor:
        """Mean last hidden state over <bos>..last token (paddings left out): the informative embedding (B, D)."""
        hidden = self.hidden(z, tokens).float()
        real = (tokens != PAD)[..., None]
        return (hidden * real).sum(1) / real.sum(1)


def encoder_input(tokens: Tensor) -> Tensor:
    """Molecule ids (B, T) padded with 0 -> ids with <eos> behind each molecule (B, T + 1)."""
    padded = F.pad(tokens, (0, 1), value=PAD)
    return padded.scatter(1, (tokens != PAD).sum(1, keepdim=True), EOS)


def decoder_input(tokens: Tensor) -> Tensor:
    """Molecule ids (B, T) padded with 0 -> ids with <bos> before each molecule (B, T + 1)."""
    return F.pad(tokens, (1, 0), value=BOS)
