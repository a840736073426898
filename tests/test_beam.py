"""Beam search against an exhaustive one, greedy decoding and a slow search without cache or batches."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tiny import tiny_model
from torch import Tensor

from molcmim.beam import Hypothesis, beam
from molcmim.generate import greedy
from molcmim.model import CMIM
from molcmim.tokenizer import BOS, EOS, MASK, PAD

VOCAB = 7  # 3 tokens besides the special ones
ALLOWED = (EOS, 4, 5, 6)
LIMIT = 3


@pytest.fixture(scope="module")
def model() -> CMIM:
    return tiny_model(VOCAB, seed=3, max_tokens=12)


@pytest.fixture(scope="module")
def z(model: CMIM) -> Tensor:
    return torch.randn(12, model.config.latent, generator=torch.Generator().manual_seed(1))


def next_log_p(model: CMIM, z: Tensor, ids: list[int]) -> dict[int, float]:
    """Log-probability of each allowed next token, one row, without cache."""
    scores = model.logits(model.hidden(z[None], torch.tensor([[BOS, *ids]])))[0, -1].double()
    scores[[PAD, BOS, MASK]] = -torch.inf
    log_p = scores.log_softmax(-1)
    return {token: float(log_p[token]) for token in ALLOWED}


def exhaustive(model: CMIM, z: Tensor, limit: int) -> list[tuple[list[int], float]]:
    """All molecules of at most `limit` tokens, the likeliest first."""
    found = []
    for length in range(limit + 1):
        for ids in itertools.product(ALLOWED[1:], repeat=length):
            steps = [next_log_p(model, z, list(ids[:n]))[token] for n, token in enumerate([*ids, EOS])]
            found.append((list(ids), sum(steps)))
    return sorted(found, key=lambda pair: -pair[1])


def slow_beam(model: CMIM, z: Tensor, width: int, limit: int) -> list[Hypothesis]:
    """The same search written down plainly: one row, lists, the whole prefix again for every token."""
    ranking: list[tuple[float, list[int], bool]] = [(0.0, [], False)]
    for position in range(limit + 1):
        candidates = []
        for log_p, ids, finished in ranking:
            if finished:
                candidates.append((log_p, ids, True))
                continue
            after = next_log_p(model, z, ids)
            candidates.append((log_p + after.pop(EOS), ids, True))
            if position == limit:
                candidates.append((log_p + max(after.values()), ids, False))
            else:
                candidates.extend((log_p + step, [*ids, token], False) for token, step in after.items())
        ranking = sorted(candidates, key=lambda candidate: -candidate[0])[:width]
    ranking.sort(key=lambda candidate: not candidate[2])
    return [Hypothesis(ids, log_p, finished) for log_p, ids, finished in ranking]


def assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [(each.tokens, each.finished) for each in found] == [(each.tokens, each.finished) for each in expected]
    assert [each.log_prob for each in found] == pytest.approx([each.log_prob for each in expected], abs=1e-5)


@torch.inference_mode()
def test_wide_beam_is_exhaustive(model: CMIM, z: Tensor) -> None:
    n_molecules = sum(3**length for length in range(LIMIT + 1))
    for row, found in zip(z[:1], beam(model, z[:1], width=300, max_tokens=LIMIT), strict=True):
        finished = [each for each in found if each.finished]
        expected = exhaustive(model, row, LIMIT)
        assert len(finished) == n_molecules == 40
        assert [each.tokens for each in finished] == [tokens for tokens, _ in expected]
        assert [each.log_prob for each in finished] == pytest.approx([log_p for _, log_p in expected], abs=1e-5)
        cut = [each for each in found if not each.finished]
        assert len(cut) == 3**LIMIT
        assert {len(each.tokens) for each in cut} == {LIMIT}


@torch.inference_mode()
@pytest.mark.parametrize("width", [2, 3, 8])
def test_batched_cached_search_equals_the_slow_one(model: CMIM, z: Tensor, width: int) -> None:
    found = beam(model, z, width, batch_size=5)
    for row, hypotheses in zip(z, found, strict=True):
        assert_same(hypotheses, slow_beam(model, row, width, 12))
    assert {each.finished for hypotheses in found for each in hypotheses} == {True, False}
    assert len({len(each.tokens) for hypotheses in found for each in hypotheses if each.finished}) > 3


def test_width_one_is_greedy(model: CMIM, z: Tensor) -> None:
    written = greedy(model, z)
    found = beam(model, z, width=1)
    assert [len(hypotheses) for hypotheses in found] == [1] * 12
    assert [hypotheses[0].tokens for hypotheses in found] == written.tokens
    assert [hypotheses[0].finished for hypotheses in found] == written.finished
    assert set(written.finished) == {True, False}


def test_finds_a_likelier_molecule_than_greedy(model: CMIM, z: Tensor) -> None:
    best = [hypotheses[0].log_prob for hypotheses in beam(model, z, width=30, max_tokens=LIMIT)]
    narrow = [hypotheses[0] for hypotheses in beam(model, z, width=1, max_tokens=LIMIT)]
    pairs = [(wide, each.log_prob) for wide, each in zip(best, narrow, strict=True) if each.finished]
    assert all(wide >= greedy_one - 1e-5 for wide, greedy_one in pairs)
    assert any(wide > greedy_one + 0.1 for wide, greedy_one in pairs)


def test_rows_do_not_depend_on_their_batch(model: CMIM, z: Tensor) -> None:
    whole = beam(model, z, width=3)
    for batch_size in (1, 7):
        for found, expected in zip(beam(model, z, width=3, batch_size=batch_size), whole, strict=True):
            assert_same(found, expected)


def test_fewer_molecules_than_places(z: Tensor) -> None:
    model = tiny_model(5, max_tokens=12)  # one token besides the special ones
    found = beam(model, z[:1], width=9, max_tokens=2)[0]
    assert [each.finished for each in found] == [True, True, True, False]
    assert sorted(len(each.tokens) for each in found) == [0, 1, 2, 2]
    assert math.isclose(sum(math.exp(each.log_prob) for each in found), 1.0, abs_tol=1e-6)


def test_progress_adds_up_and_no_rows_give_no_rows(model: CMIM, z: Tensor) -> None:
    done: list[int] = []
    beam(model, z, width=2, batch_size=5, progress=done.append)
    assert sum(done) == 12
    assert min(done) > 0
    assert beam(model, z[:0]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"max_tokens": 13}, "max_tokens: expected 1 to 12"),
        ({"z": torch.zeros(2, 5)}, r"z: expected shape \(n, 24\), got \(2, 5\)"),
    ],
)
def test_refusals(model: CMIM, z: Tensor, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        beam(model, **{"z": z, **change})
