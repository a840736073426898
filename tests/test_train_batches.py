"""Randomness of a training step: a function of seed, rank and step, and the same with options that are off."""

from __future__ import annotations

import torch
from tiny import tiny_model

from molcmim.objective import Batch, ObjectiveConfig, mix_inputs
from molcmim.tokenizer import PAD
from molcmim.train_batches import draw_noise

TOKENS = torch.tensor([[5, 6, 7], [8, 9, PAD]])
RANDOM = torch.tensor([[7, 6, 5, 10], [9, 8, PAD, PAD]])


def test_mixed_inputs_are_whole_rows_of_one_or_the_other():
    mixed = mix_inputs(TOKENS, RANDOM, torch.tensor([True, False]))
    assert mixed.tolist() == [[7, 6, 5, 10], [8, 9, PAD, PAD]]
    assert mix_inputs(RANDOM, TOKENS, torch.tensor([True, False])).tolist() == [[5, 6, 7, PAD], [9, 8, PAD, PAD]]


def test_noise_depends_on_seed_rank_and_step_alone():
    model, config = tiny_model(12), ObjectiveConfig(decoder_dropout=0.2)
    draw = [draw_noise(Batch(TOKENS), model, *place, config) for place in ((0, 0, 3), (0, 0, 3), (0, 1, 3), (0, 0, 4))]
    for name in ("noise", "log_sigma", "mask_score", "drop_score"):
        first, same, *others = (getattr(batch, name) for batch in draw)
        assert torch.equal(first, same), name
        assert not any(torch.equal(first, other) for other in others), name


def test_options_change_nothing_of_what_is_drawn_without_them():
    model = tiny_model(12)
    old = draw_noise(Batch(TOKENS, RANDOM), model, 0, 0, 1)
    for options in ({}, {"decoder_dropout": 0.5}, {"encoder_input": "random_smiles", "random_share": 0.5}):
        new = draw_noise(Batch(TOKENS, RANDOM), model, 0, 0, 1, ObjectiveConfig(**options))
        for name in ("noise", "log_sigma", "mask_score"):
            assert torch.equal(getattr(old, name), getattr(new, name))
        assert (new.drop_score is None) is ("decoder_dropout" not in options)
    assert old.drop_score is None and torch.equal(old.random_tokens, RANDOM)


def test_share_of_random_inputs():
    tokens, random = torch.full((2000, 4), 5), torch.full((2000, 5), 6)
    config = ObjectiveConfig(encoder_input="random_smiles", random_share=0.3)
    mixed = draw_noise(Batch(tokens, random), tiny_model(12), 0, 0, 0, config).random_tokens
    assert abs(float((mixed[:, 0] == 6).float().mean()) - 0.3) < 0.05
    whole = ObjectiveConfig(encoder_input="random_smiles")
    assert torch.equal(draw_noise(Batch(tokens, random), tiny_model(12), 0, 0, 0, whole).random_tokens, random)
