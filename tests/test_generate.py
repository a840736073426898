"""Greedy decoding: cached = uncached, rows independent, limits kept; reconstruction against a slow count."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_model
from torch import Tensor

from molcmim.generate import decode, greedy, pad_rows, reconstruction
from molcmim.model import CMIM, decoder_input, encoder_input
from molcmim.tokenizer import BOS, EOS, MASK, PAD

VOCAB = 12


@pytest.fixture(scope="module")
def model() -> CMIM:
    """A model whose decoder ends about every tenth row early: <eos> is made likelier."""
    model = tiny_model(VOCAB, max_tokens=15)
    with torch.no_grad():
        model.unembed.weight[EOS] *= 1.6
    return model


@pytest.fixture(scope="module")
def z(model: CMIM) -> Tensor:
    return torch.randn(60, model.config.latent, generator=torch.Generator().manual_seed(1)) * 1.5


def uncached(model: CMIM, z: Tensor, limit: int) -> tuple[list[int], bool]:
    """One row, the whole decoder again for each token."""
    ids: list[int] = []
    for _ in range(limit + 1):
        scores = model.logits(model.hidden(z[None], torch.tensor([[BOS, *ids]])))[0, -1]
        token = max((i for i in range(VOCAB) if i not in (PAD, BOS, MASK)), key=lambda i: float(scores[i]))
        if token == EOS:
            return ids, True
        ids.append(token)
    return ids[:limit], False


@torch.inference_mode()
def test_cached_decoding_equals_uncached(model: CMIM, z: Tensor) -> None:
    written = greedy(model, z)
    expected = [uncached(model, row, 15) for row in z]
    assert list(zip(written.tokens, written.finished, strict=True)) == expected
    lengths = {len(tokens) for tokens in written.tokens}
    assert len(lengths) > 3, "rows should leave the batch at different times"
    assert 5 < sum(written.finished) < 60, "both outcomes should occur"


def test_rows_do_not_depend_on_their_batch(model: CMIM, z: Tensor) -> None:
    whole = greedy(model, z)
    assert greedy(model, z, batch_size=7) == whole
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    shuffled = greedy(model, z[order])
    assert [whole.tokens[i] for i in order] == shuffled.tokens


def test_molecule_of_exactly_the_limit_is_finished(model: CMIM, z: Tensor) -> None:
    whole = greedy(model, z)
    length, row = max((len(tokens), i) for i, tokens in enumerate(whole.tokens) if whole.finished[i])
    assert greedy(model, z[row : row + 1], max_tokens=length) == ([whole.tokens[row]], [True])
    assert greedy(model, z[row : row + 1], max_tokens=length - 1) == ([whole.tokens[row][:-1]], [False])


def test_specials_are_never_generated(z: Tensor) -> None:
    model = tiny_model(VOCAB, max_tokens=15)
    with torch.no_grad():
        model.unembed.weight[[PAD, BOS, MASK]] *= 50.0
    seen = {token for tokens in greedy(model, z).tokens for token in tokens}
    assert seen
    assert not seen & {PAD, BOS, EOS, MASK}


def test_another_choice_of_tokens(model: CMIM, z: Tensor) -> None:
    written = decode(model, z[:3], lambda scores: torch.full((len(scores),), 7), max_tokens=4)
    assert written == ([[7] * 4] * 3, [False] * 3)


def test_no_rows_give_no_rows(model: CMIM) -> None:
    assert greedy(model, torch.zeros(0, model.config.latent)) == ([], [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": torch.zeros(2, 5)}, r"z: expected shape \(n, 24\), got \(2, 5\)"),
        ({"z": torch.tensor([[0.0] * 24, [float("nan")] * 24])}, "NaN or infinity in row 1"),
        ({"max_tokens": 16}, "max_tokens: expected 1 to 15"),
        ({"max_tokens": 0}, "max_tokens: expected 1 to 15"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
    ],
)
def test_refusals(model: CMIM, z: Tensor, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        greedy(model, **{"z": z, **change})


def test_pad_rows() -> None:
    assert pad_rows([[5, 6], [], [7]]).tolist() == [[5, 6], [0, 0], [7, 0]]
    assert pad_rows([[5]], 3).tolist() == [[5, 0, 0]]
    assert pad_rows([]).shape == (0, 0)


@torch.inference_mode()
def test_reconstruction_counts(model: CMIM) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(4, VOCAB, (n,), generator=generator).tolist() for n in (3, 9, 1, 6, 4)]
    right = total = exact = 0
    nats = 0.0
    for row in rows:
        tokens = torch.tensor([row])
        mu = model.encode(encoder_input(tokens)).mu
        log_p = model.logits(model.hidden(mu, decoder_input(tokens))).log_softmax(-1)[0]
        for position, token in enumerate([*row, EOS]):
            right += int(log_p[position].argmax()) == token
            nats -= float(log_p[position, token])
            total += 1
        exact += uncached(model, mu[0], 15) == (row, True)
    result = reconstruction(model, rows, batch_size=2)
    assert result.token_accuracy == right / total
    assert result.exact == exact / 5
    assert result.nats == pytest.approx(nats / 5, rel=1e-5)
    assert result.n == 5


def test_reconstruction_of_what_the_model_writes_anyway() -> None:
    model = tiny_model(VOCAB, max_tokens=15)
    with torch.no_grad():
        model.unembed.weight.zero_()  # all scores are equal: the first allowed id, <eos>, is written
    assert reconstruction(model, [[], [5], []], batch_size=1).exact == 2 / 3
    with pytest.raises(ValueError, match="at least one molecule"):
        reconstruction(model, [])
