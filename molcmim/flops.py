"""How much arithmetic a model takes."""

from __future__ import annotations

from molcmim.model import ModelConfig


def count_flops(config: ModelConfig, tokens: int, encoder_tokens: int | None = None) -> float:
    """Matrix-product FLOPs of one forward pass of one molecule of `tokens` tokens (<bos>/<eos> counted).

    `encoder_tokens`: how many the encoder reads, where it isn't as many. Multiply-adds count as two. A training step
    costs three times as much (forward, and twice that backward).
    """
    d, t = config.width, encoder_tokens or tokens
    block, attention = _block(config, t)
    if config.encoder == "transformer":
        pooled = 2 * d if config.pooling == "both" else d
        values = 0 if config.pooling == "mean" else 2 * t * d * d
        encoder = config.encoder_layers * (block + attention) + values + 2 * pooled * config.latent
    else:
        q = config.perceiver_queries
        cross = 2 * q * (2 * d * d + 2 * d * config.mlp_width) + 2 * t * 2 * d * d + 4 * q * t * d
        self_ = 2 * q * (4 * d * d + 2 * d * config.mlp_width) + 4 * q * q * d
        encoder = config.perceiver_token_layers * (block + attention) + config.encoder_layers * (cross + self_)
        encoder += 2 * q * d * config.latent
    t = tokens
    block, attention = _block(config, t)
    memory = 2 * config.memory * d * (config.latent + config.decoder_layers * 2 * d)
    decoder = config.decoder_layers * (block + attention + 4 * t * config.memory * d) + memory
    return float(encoder + decoder + 2 * t * d * config.vocab_size)


def _block(config: ModelConfig, t: int) -> tuple[int, int]:
    """Of one block on t tokens: its matrices, and attention among the tokens."""
    d = config.width
    return 2 * t * (4 * d * d + 2 * d * config.mlp_width), 4 * t * t * d
