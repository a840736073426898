"""Decoding: cached = uncached, rows independent, limits kept; sampling against a slow draw; reconstruction."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny import tiny_model
from torch import Tensor

from molcmim import MolCMIM, generate
from molcmim.cached_decoder import GROWTH, CachedDecoder
from molcmim.generate import (
    Sampler,
    decode,
    expected_lengths,
    greedy,
    most_likely,
    pad_rows,
    reconstruction,
    sampled,
    uncached,
    uniform,
)
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


def slow_greedy(model: CMIM, z: Tensor, limit: int) -> tuple[list[int], bool]:
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
    expected = [slow_greedy(model, row, 15) for row in z]
    assert list(zip(written.tokens, written.finished, strict=True)) == expected
    assert uncached(model, z) == written
    lengths = {len(tokens) for tokens in written.tokens}
    assert len(lengths) > 3, "rows should leave the batch at different times"
    assert 5 < sum(written.finished) < 60, "both outcomes should occur"


def test_rows_do_not_depend_on_their_batch(model: CMIM, z: Tensor) -> None:
    whole = greedy(model, z)
    assert greedy(model, z, batch_size=7) == whole
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    shuffled = greedy(model, z[order])
    assert [whole.tokens[i] for i in order] == shuffled.tokens


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_threads_share_the_batches(model: CMIM, z: Tensor, monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    before = torch.get_num_threads()
    seen: set[tuple[int, bool, bool]] = set()

    def choose(scores: Tensor, rows: Tensor, position: int) -> Tensor:
        autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == dtype
        seen.add((torch.get_num_threads(), autocast, torch.is_inference_mode_enabled()))
        return most_likely(scores, rows, position)

    finished: list[int] = []
    monkeypatch.setattr(generate, "SMALL_BATCH", 4)
    try:
        torch.set_num_threads(3)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            shared = decode(model, z, choose, progress=finished.append)
        assert seen == {(1, dtype is not None, True)}, "each batch in one thread, in the caller's precision"
        assert torch.get_num_threads() == 3, "as it was before"
        assert len(finished) > 8 and sum(finished) == 60
        torch.set_num_threads(1)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            alone = decode(model, z, most_likely, batch_size=4)
    finally:
        torch.set_num_threads(before)
    if dtype is None:  # in bfloat16, batches of another make-up may turn a close call
        assert shared == alone


def test_an_error_in_a_thread_is_raised(model: CMIM, z: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(scores: Tensor, rows: Tensor, position: int) -> Tensor:
        raise RuntimeError("no more")

    monkeypatch.setattr(generate, "SMALL_BATCH", 4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(RuntimeError, match="no more"):
            decode(model, z, choose)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


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
    written = decode(model, z[:3], lambda scores, rows, position: torch.full((len(scores),), 7), max_tokens=4)
    assert written == ([[7] * 4] * 3, [False] * 3)


def test_choice_sees_row_numbers_and_positions(model: CMIM, z: Tensor) -> None:
    seen: dict[int, list[int]] = {}

    def choose(scores: Tensor, rows: Tensor, position: int) -> Tensor:
        for row in rows.tolist():
            seen.setdefault(row, []).append(position)
        return torch.where(rows % 2 == 0, EOS, 5)

    written = decode(model, z[:20], choose, max_tokens=3, batch_size=6)
    assert written == ([[], [5] * 3] * 10, [True, False] * 10)
    assert seen == {row: [0, 1, 2, 3] if row % 2 else [0] for row in range(20)}


def test_no_rows_give_no_rows(model: CMIM) -> None:
    assert greedy(model, torch.zeros(0, model.config.latent)) == ([], [])


def test_progress_adds_up(model: CMIM, z: Tensor) -> None:
    done: list[int] = []
    greedy(model, z, batch_size=25, progress=done.append)
    assert sum(done) == 60
    assert min(done) > 0
    assert len(done) > 3


@torch.inference_mode()
def test_cached_decoder_grows_drops_and_reorders(z: Tensor) -> None:
    model = tiny_model(VOCAB, max_tokens=40)
    ids = torch.randint(4, VOCAB, (6, 40), generator=torch.Generator().manual_seed(5))
    ids = torch.cat((torch.full((6, 1), BOS), ids), dim=1)  # (6, 41)
    decoder, rows = CachedDecoder(model, z[:6]), torch.arange(6)
    changes = {3: [5, 0, 2, 2, 4], GROWTH: [0, 1, 3], GROWTH + 4: [2, 0]}
    for position in range(41):
        if position in changes:
            decoder.keep(torch.tensor(changes[position]))
            rows = rows[changes[position]]
        scores = decoder.step(ids[rows, position])
        expected = model.logits(model.hidden(z[rows], ids[rows, : position + 1]))[:, -1]
        expected[:, [PAD, BOS, MASK]] = -torch.inf
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert rows.tolist() == [2, 5]
    assert len(decoder) == 2
    assert decoder.position == 41


def test_expected_lengths_order_rows_by_length() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(300, 24, generator=generator)
    lengths = 40.0 + 9.0 * z[:, 0] - 5.0 * z[:, 7] + torch.randn(300, generator=generator)
    expected = expected_lengths(z[:100], lengths[:100], z[100:])
    assert float(torch.corrcoef(torch.stack((expected.float(), lengths[100:])))[0, 1]) > 0.95
    same = expected_lengths(z[:1].expand(5, -1), torch.full((5,), 7.0), z[:3])  # nothing to learn from
    assert same.tolist() == pytest.approx([7.0] * 3)


# ---------------------------------------------------------------------------------------------- sampling


OPTIONS = [
    {},
    {"temperature": 0.5, "seed": 3},
    {"top_k": 3},
    {"top_p": 0.6},
    {"temperature": 1.5, "top_k": 5, "top_p": 0.8, "seed": 2**40},
]


def splitmix64(seed: int, n: int) -> float:
    """Number n (from 0) of the sequence that starts at the scrambled seed, in Python's whole numbers."""
    mask = 2**64 - 1

    def scramble(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return x ^ (x >> 31)

    return (scramble((scramble(seed) + (n + 1) * 0x9E3779B97F4A7C15) & mask) >> 11) / 2**53


def slow_draw(scores: list[float], temperature: float, top_k: int | None, top_p: float | None, u: float) -> int:
    """Temperature, then top k, then the nucleus of what is left, then the inverse cumulative distribution."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i]) if top_k or top_p else list(range(len(scores)))
    weights = [math.exp((scores[i] - max(scores)) / temperature) for i in order[:top_k]]
    p = [weight / sum(weights) for weight in weights]
    if top_p:
        p = [value for i, value in enumerate(p) if sum(p[:i]) < top_p]
    total, below = sum(p), 0.0
    for i, value in zip(order, p, strict=False):
        below += value
        if below > u * total:
            return i
    raise AssertionError("u is below 1")


def test_uniform_is_splitmix64() -> None:
    rows = torch.tensor([0, 1, 77, 10**9])
    for seed, position in ((0, 0), (1, 5), (2**63 - 1, 200)):
        expected = [splitmix64(seed, row * 2**20 + position) for row in rows.tolist()]
        assert uniform(seed, rows, position).tolist() == expected
    many = uniform(0, torch.arange(20000), 3)
    assert float(many.mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.histc(many, 10, 0.0, 1.0).tolist() == pytest.approx([2000] * 10, rel=0.1)


@pytest.mark.parametrize("options", OPTIONS)
def test_sampler_draws_as_the_slow_one(options: dict) -> None:
    scores = torch.randn(200, VOCAB, generator=torch.Generator().manual_seed(0)) * 2.0
    scores[:, [PAD, BOS, MASK]] = -torch.inf
    chosen = Sampler(**options)(scores, torch.arange(200), 9).tolist()
    seed, temperature = options.get("seed", 0), options.get("temperature", 1.0)
    expected = [
        slow_draw(row, temperature, options.get("top_k"), options.get("top_p"), splitmix64(seed, i * 2**20 + 9))
        for i, row in enumerate(scores.tolist())
    ]
    assert chosen == expected
    assert chosen != scores.argmax(-1).tolist()


def test_sampler_draws_in_proportion() -> None:
    p = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2])
    rows = torch.arange(20000)
    share = torch.bincount(Sampler()(p.log().expand(20000, 5), rows, 0), minlength=5) / 20000
    assert share.tolist() == pytest.approx(p.tolist(), abs=0.012)
    nucleus = torch.bincount(Sampler(top_p=0.79)(p.log().expand(20000, 5), rows, 0), minlength=5) / 20000
    assert nucleus.tolist() == pytest.approx([0.0, 0.625, 0.0, 0.375, 0.0], abs=0.012)


@pytest.mark.parametrize("options", OPTIONS)
def test_cached_sampling_equals_uncached(model: CMIM, z: Tensor, options: dict) -> None:
    written = sampled(model, z, **options)
    assert written == uncached(model, z, Sampler(**options))
    assert written != greedy(model, z)
    assert sampled(model, z, **options, batch_size=7) == written
    assert sampled(model, z[:20], **options).tokens == written.tokens[:20]


def test_seeds_and_rows_differ(model: CMIM, z: Tensor) -> None:
    assert sampled(model, z, seed=1) == sampled(model, z, seed=1)
    assert sampled(model, z, seed=1) != sampled(model, z, seed=2)
    same_vector = sampled(model, z[:1].expand(30, -1), temperature=2.0).tokens
    assert len({tuple(tokens) for tokens in same_vector}) > 20


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 1}, {"temperature": 1e-30}, {"top_p": 1e-9}])
def test_sampling_without_a_choice_is_greedy(model: CMIM, z: Tensor, options: dict) -> None:
    assert sampled(model, z, **options) == greedy(model, z)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature: expected a finite number, 0 or more, got -0.1"),
        ({"temperature": float("nan")}, "temperature: .* got nan"),
        ({"temperature": float("inf")}, "temperature: .* got inf"),
        ({"top_k": 0}, "top_k: expected at least 1, got 0"),
        ({"top_p": 0.0}, "top_p: expected more than 0 and at most 1, got 0.0"),
        ({"top_p": 1.01}, "top_p: .* got 1.01"),
        ({"seed": -1}, "seed: expected 0 to .* got -1"),
        ({"max_tokens": 16}, "max_tokens: expected 1 to 15"),
    ],
)
def test_sampling_refusals(model: CMIM, z: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampled(model, z, **options)


# ---------------------------------------------------------------------------------------------- the shipped model


def test_shipped_model_cached_equals_uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = MolCMIM.from_pretrained("molcmim-tiny", device="cpu")
    smiles = [
        "CC(=O)Oc1ccccc1C(=O)O",
        "CN1CCC[C@H]1c1cccnc1",
        "CCO",
        "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
        "CC(C)Cc1ccc(C(C)C(=O)O)cc1",
        "O=C(O)c1ccc(NS(=O)(=O)c2ccc(Cl)cc2)cc1",
    ]
    z = torch.from_numpy(shipped.embed(smiles, kind="latent", workers=0))
    monkeypatch.setattr(generate, "PROBE", 2)
    for choose in (most_likely, Sampler(temperature=0.8, top_p=0.95, seed=1)):
        written = decode(shipped.network, z, choose, batch_size=3)
        assert written == uncached(shipped.network, z, choose)
        assert all(written.finished)
    assert len(set(map(len, written.tokens))) > 3
    texts = [shipped.tokenizer.decode(tokens) for tokens in greedy(shipped.network, z).tokens]
    assert sum(text == given for text, given in zip(texts, smiles, strict=True)) >= 4


# ---------------------------------------------------------------------------------------------- helpers, reconstruction


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
        exact += slow_greedy(model, mu[0], 15) == (row, True)
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
