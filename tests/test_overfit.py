"""Every objective learns 128 molecules by heart; where there is a decoder, it must do so through z."""

from __future__ import annotations

import pytest
import torch
from training import small_smiles

from molcmim import objective
from molcmim.generate import greedy
from molcmim.model import CMIM, ModelConfig, encoder_input
from molcmim.objective import FACTORS, Batch, ObjectiveConfig
from molcmim.tokenizer import PAD, SmilesTokenizer
from molcmim.train import draw_noise
from molcmim.train_config import OptimizerConfig
from molcmim.train_state import build_optimizers

N, STEPS, BATCH = 128, 360, 48
DECODING = [name for name in FACTORS if ObjectiveConfig(name).has_decoder]


def padded(rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


@pytest.fixture(scope="module")
def molecules() -> tuple[SmilesTokenizer, torch.Tensor, torch.Tensor]:
    """Tokenizer, token ids (128, T) and ids of a second SMILES of each molecule (128, T')."""
    from rdkit import Chem

    mols = [Chem.MolFromSmiles(text) for text in small_smiles(2 * N, longest=16)]
    texts = list(dict.fromkeys(Chem.MolToSmiles(mol) for mol in mols if mol is not None))[:N]
    other = [Chem.MolToSmiles(Chem.MolFromSmiles(text), doRandom=True) for text in texts]
    tokenizer = SmilesTokenizer.train([*texts, *other])
    assert len(texts) == N
    return tokenizer, *(padded([tokenizer.encode(text) for text in column]) for column in (texts, other))


def fit(tokenizer: SmilesTokenizer, tokens: torch.Tensor, other: torch.Tensor, config: ObjectiveConfig) -> CMIM:
    torch.manual_seed(0)
    layers = 2 if config.name == "mlm" else 1  # with one it has not learned enough by the end
    sizes = {"encoder_layers": layers, "decoder_layers": 1, "latent": 64, "memory": 4, "max_tokens": 40}
    model = CMIM(ModelConfig(tokenizer.vocab_size, 64, 2, 192, **sizes))
    optimizers = build_optimizers(model, OptimizerConfig(lr=3e-3))
    for step in range(STEPS):
        rows = torch.randperm(N)[:BATCH]
        batch = draw_noise(Batch(tokens[rows], other[rows]), model, 0, 0, step)
        loss, _ = objective.loss(model, batch, config)
        loss.backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * min(1.0, (step + 1) / 20, 2 * (1 - step / STEPS))
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def exact(model: CMIM, z: torch.Tensor, tokens: torch.Tensor) -> float:
    """Share of molecules that greedy decoding of z (128, L) writes exactly."""
    rows = [row[row != PAD].tolist() for row in tokens]
    return sum(a == b for a, b in zip(greedy(model, z).tokens, rows, strict=True)) / N


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODING)
def test_encoder_decoders_reconstruct_and_use_the_latent(molecules, name):
    tokenizer, tokens, other = molecules
    model = fit(tokenizer, tokens, other, ObjectiveConfig(name, beta=0.1))
    with torch.no_grad():
        mu = model.encode(encoder_input(tokens)).mu
    assert exact(model, mu, tokens) >= 0.95
    assert exact(model, mu.roll(1, 0), tokens) <= 0.02, "with another molecule's z the decoder must not know the answer"


@pytest.mark.slow
def test_infonce_tells_the_molecules_apart(molecules):
    tokenizer, tokens, other = molecules
    model = fit(tokenizer, tokens, other, ObjectiveConfig("infonce"))
    with torch.no_grad():
        a, b = (torch.nn.functional.normalize(model.encode(encoder_input(x)).mu) for x in (tokens, other))
    assert ((a @ b.T).argmax(1) == torch.arange(N)).float().mean() >= 0.95


@pytest.mark.slow
def test_mlm_fills_in_masked_tokens(molecules):
    tokenizer, tokens, other = molecules
    config = ObjectiveConfig("mlm")
    model = fit(tokenizer, tokens, other, config)
    batch = draw_noise(Batch(tokens), model, 7, 0, 0)
    mask = objective.mask_tokens(tokens, config.mask_rate, batch.mask_score)
    with torch.no_grad():
        log_p = objective.log_masked_tokens(model, batch, config)
    frequency = torch.bincount(tokens[tokens != PAD]) / (tokens != PAD).sum()
    guessing = frequency[tokens[mask]].log().mean()  # nats a token, knowing only how common each is
    assert float(log_p.sum() / mask.sum()) > -0.7 > -1.4 > float(guessing)
