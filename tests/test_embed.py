"""Embeddings against a slow, obvious computation; bad rows; batches; the exact mode; the Python interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rdkit import Chem
from tiny import SMILES, tiny_checkpoint, tiny_model, tiny_tokenizer

from molcmim import MolCMIM, Status
from molcmim import embed as embed_module
from molcmim.embed import (
    EXACT_ROWS,
    EmbedOptions,
    embed_rows,
    embed_tokens,
    embedding_width,
    fit_scales,
    score_tokens,
)
from molcmim.model import CMIM, decoder_input, encoder_input
from molcmim.rows import TokenRows, tokenize_rows
from molcmim.tokenizer import BOS, EOS

SCALES = {"latent": 0.25, "informative": 0.5}
VOCAB = 30


@pytest.fixture(scope="module")
def network() -> CMIM:
    return tiny_model(VOCAB)


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    """100 rows of all lengths from 0 to the limit, 40, in no order."""
    generator = np.random.default_rng(0)
    lengths = [0, 40, 1, 15, 16, 31, 32, *generator.integers(1, 41, 93)]
    return [generator.integers(4, VOCAB, n).tolist() for n in lengths]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MolCMIM:
    return MolCMIM.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("m") / "tiny"), device="cpu")


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MolCMIM]:
    folder = tmp_path_factory.mktemp("objectives")
    names = ("infonce", "mlm", "vae")
    return {
        name: MolCMIM.from_pretrained(tiny_checkpoint(folder / name, name), device="cpu") for name in names
    }


@torch.inference_mode()
def one_by_one(network: CMIM, rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latent (n, L), informative (n, D) and log p (n,), each row alone and without padding."""
    latent, informative, log_p = [], [], []
    for row in rows:
        mu = network.encode(torch.tensor([[*row, EOS]])).mu
        hidden = network.hidden(mu, torch.tensor([[BOS, *row]]))[0]
        scores = network.logits(hidden).log_softmax(-1)
        latent.append(mu[0])
        informative.append(hidden.mean(0))
        log_p.append(sum(scores[i, token] for i, token in enumerate([*row, EOS])))
    return torch.stack(latent).numpy(), torch.stack(informative).numpy(), torch.stack(log_p).numpy()


# ---------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("encoder", ["transformer", "perceiver"])
def test_values_against_one_row_at_a_time(rows: list[list[int]], exact: bool, encoder: str) -> None:
    network = tiny_model(VOCAB, encoder=encoder)
    latent, informative, log_p = one_by_one(network, rows)
    both = np.concatenate([latent * 0.25, informative * 0.5], axis=1)
    options = EmbedOptions(batch_size=7, exact=exact)
    for kind, expected in (("latent", latent), ("informative", informative), ("both", both)):
        got = embed_tokens(network, rows, kind, SCALES, options)
        assert got.dtype == np.float32
        assert got.shape == (100, embedding_width(network, kind))
        np.testing.assert_allclose(got, expected, atol=2e-5)
    np.testing.assert_allclose(score_tokens(network, rows, options), log_p, rtol=1e-5)


@torch.inference_mode()
def test_mlm_embedding_is_the_mean_of_normed_token_states(network: CMIM) -> None:
    rows = [[5, 6, 7, 8], [9]]
    expected = []
    for row in rows:
        states = network.encoder.states(torch.tensor([[*row, EOS]]))[0]
        expected.append(network.encoder.norm(states)[0, :-1].mean(0).numpy())
    got = embed_tokens(network, rows, "latent", objective="mlm")
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert embedding_width(network, "latent", "mlm") == 32
    assert np.isfinite(embed_tokens(network, [[]], "latent", objective="mlm")).all()


def test_bfloat16_is_close_and_returns_float32(network: CMIM, rows: list[list[int]]) -> None:
    precise = embed_tokens(network, rows, "both", SCALES)
    rough = embed_tokens(network, rows, "both", SCALES, EmbedOptions(dtype="bfloat16"))
    assert rough.dtype == np.float32
    error = np.linalg.norm(rough - precise, axis=1) / np.linalg.norm(precise, axis=1)
    assert 1e-4 < error.max() < 0.05


def test_fitted_scales_give_unit_mean_norm(network: CMIM, rows: list[list[int]]) -> None:
    scales = fit_scales(network, rows)
    both = embed_tokens(network, rows, "both", scales)
    assert np.linalg.norm(both[:, :24], axis=1).mean() == pytest.approx(1.0, rel=1e-5)
    assert np.linalg.norm(both[:, 24:], axis=1).mean() == pytest.approx(1.0, rel=1e-5)
    assert set(fit_scales(network, rows, objective="infonce")) == {"latent"}


# ---------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("kind", ["latent", "both"])
def test_exact_mode_gives_the_same_bits_alone_and_in_bulk(
    network: CMIM, rows: list[list[int]], kind: str
) -> None:
    options = EmbedOptions(exact=True)
    bulk = embed_tokens(network, rows, kind, SCALES, options)
    alone = np.concatenate([embed_tokens(network, [row], kind, SCALES, options) for row in rows])
    assert np.array_equal(bulk, alone)
    order = np.random.default_rng(1).permutation(100)
    shuffled = embed_tokens(network, [rows[i] for i in order], kind, SCALES, options)
    assert np.array_equal(shuffled, bulk[order])
    assert np.array_equal(embed_tokens(network, rows, kind, SCALES, options._replace(batch_size=3)), bulk)
    scores = score_tokens(network, rows, options)
    assert np.array_equal(scores[:20], [score_tokens(network, [row], options)[0] for row in rows[:20]])


def test_exact_batches_have_one_shape_for_each_length_of_row(network: CMIM, rows: list[list[int]]) -> None:
    shapes: dict[int, set[tuple[int, ...]]] = {}
    for subset in (rows, rows[3:50], rows[:1]):
        for chosen, tokens in embed_module._batches(network, subset, EmbedOptions(exact=True)):
            for i in chosen:
                shapes.setdefault(len(subset[i]), set()).add(tuple(tokens.shape))
    assert all(len(found) == 1 for found in shapes.values())
    assert shapes[0] == shapes[15] == {(EXACT_ROWS, 15)}
    assert shapes[16] == {(EXACT_ROWS, 31)}
    assert shapes[40] == {(EXACT_ROWS, 40)}, "padding never exceeds the model's limit"


def test_batches_hold_every_row_once_within_the_budget(network: CMIM, rows: list[list[int]]) -> None:
    seen: list[int] = []
    largest = 0
    for chosen, tokens in embed_module._batches(network, rows, EmbedOptions(batch_size=20)):
        assert len(chosen) == len(tokens) <= 20
        assert tokens.shape[1] == max(len(rows[i]) for i in chosen)
        largest = max(largest, tokens.numel())
        seen += chosen
    assert sorted(seen) == list(range(100))
    assert largest > 400
    long = [list(range(4, 4 + 26))] * 30
    assert len(list(embed_module._batches(network, long, EmbedOptions(batch_size=1)))) == 30
    wide = tiny_model(VOCAB, max_tokens=1000)
    sizes = [
        len(chosen) for chosen, _ in embed_module._batches(wide, [[5] * 999] * 9, EmbedOptions(batch_size=64))
    ]
    assert sizes == [4, 4, 1], "a batch of long molecules has fewer rows"


def test_no_rows(network: CMIM) -> None:
    assert embed_tokens(network, [], "both", SCALES).shape == (0, 56)
    assert score_tokens(network, []).shape == (0,)


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "mean"}, "kind: expected one of"),
        ({"kind": "both"}, "scales: expected 'latent' and 'informative'"),
        ({"kind": "informative", "objective": "mlm"}, "kind: expected 'latent', got 'informative': .*'mlm'"),
        ({"kind": "both", "objective": "infonce"}, "'infonce', which trains no decoder"),
        ({"objective": "magic"}, "objective: expected one of"),
        ({"rows": [[5], [5] * 41]}, "rows: expected at most 40 tokens, got 41 in row 1"),
        ({"options": EmbedOptions(batch_size=0)}, "batch_size: expected at least 1"),
        ({"options": EmbedOptions(dtype="int8")}, "dtype: expected one of"),
    ],
)
def test_refusals(network: CMIM, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed_tokens(network, **{"rows": [[5, 6]], **change})


def test_a_vector_that_is_not_finite_never_passes(rows: list[list[int]]) -> None:
    network = tiny_model(VOCAB)
    with torch.no_grad():
        network.embedding.weight[9] = float("inf")
    good = [row for row in rows if 9 not in row]
    assert np.isfinite(embed_tokens(network, good, "latent")).all()
    tokens: list[list[int] | None] = [good[0], None, [9], good[1], [9, 9]]
    status = [Status.ok, Status.empty, Status.ok, Status.ok, Status.ok]
    table = TokenRows(tokens, status, [None] * 5, [None] * 5)
    with pytest.raises(
        RuntimeError, match=r"row 1002: the model gave NaN or infinity for it \(2 such rows\)"
    ):
        embed_rows(network, table, "latent", first_row=1000)


def test_training_mode_is_restored(network: CMIM) -> None:
    network.train()
    embed_tokens(network, [[5]], "latent")
    assert network.training
    network.eval()


# ---------------------------------------------------------------------------------------------- text to rows

DIRTY: list[Any] = [
    "OCC",
    "",
    None,
    float("nan"),
    "Cé",
    "C1CC",
    "CCO ethanol",
    "[U]",
    "C" * 60,
    "C" * 30,
    b"CC\xff",
]
DIRTY_STATUS = [
    Status.ok,
    Status.empty,
    Status.empty,
    Status.empty,
    Status.not_ascii,
    Status.parse_error,
    Status.parse_error,
    Status.unknown_token,
    Status.too_many_tokens,
    Status.ok,
    Status.not_ascii,
]


def test_tokenize_rows_gives_statuses_and_keeps_places() -> None:
    tokenizer = tiny_tokenizer()
    rows = tokenize_rows(DIRTY, tokenizer, max_tokens=40, workers=0)
    assert rows.status == DIRTY_STATUS
    assert rows.ok == [0, 9]
    assert [i for i, tokens in enumerate(rows.tokens) if tokens is not None] == [0, 9]
    assert rows.tokens[0] == tokenizer.encode("CCO")
    assert rows.canonical_smiles[0] == "CCO"
    assert rows.canonical_smiles[8] == "C" * 60, "the molecule is fine, only too long for the model"
    assert rows.canonical_smiles[5] is None
    assert [i for i, piece in enumerate(rows.unknown) if piece is not None] == [7]
    assert "U" in str(rows.unknown[7])


def test_bad_rows_are_nan_in_their_places(model: MolCMIM) -> None:
    result = model.embed_with_status(DIRTY)
    assert result.embedding.shape == (11, 56)
    assert result.embedding.dtype == np.float32
    assert np.isnan(result.embedding).all(axis=1).tolist() == [
        status is not Status.ok for status in DIRTY_STATUS
    ]
    assert np.isfinite(result.embedding[[0, 9]]).all()
    assert result.status == DIRTY_STATUS
    assert result.canonical_smiles[0] == "CCO"
    np.testing.assert_allclose(result.embedding[[0, 9]], model.embed(["CCO", "C" * 30]), atol=1e-6)


def test_on_error_raise_names_the_first_bad_row(model: MolCMIM) -> None:
    with pytest.raises(ValueError, match=r"row 1: '' can't be used: empty \(9 bad of 11 rows\)"):
        model.embed(DIRTY, on_error="raise")
    with pytest.raises(
        ValueError, match=r"row 1: 'C{49}\.\.\. \(3000 characters\) can't be used: too_many_chars"
    ):
        model.embed(["C", "C" * 3000], on_error="raise")
    with pytest.raises(ValueError, match="too_many_tokens"):
        model.log_prob(["C" * 60], on_error="raise")
    assert model.embed(["C"], on_error="raise").shape == (1, 56)
    with pytest.raises(ValueError, match="on_error: expected 'nan' or 'raise', got 'ignore'"):
        model.embed(["C"], on_error="ignore")


# ---------------------------------------------------------------------------------------------- MolCMIM


@pytest.mark.parametrize(
    "convert",
    [
        tuple,
        iter,
        np.array,
        lambda smiles: np.array(smiles, dtype=object),
        lambda smiles: pd.Series(smiles, index=range(100, 108)),
        lambda smiles: [Chem.MolFromSmiles(text) for text in smiles],
    ],
)
def test_containers(model: MolCMIM, convert: Any) -> None:
    assert np.array_equal(model.embed(convert(SMILES)), model.embed(SMILES))


@pytest.mark.parametrize(
    "wrong", ["CCO", b"CCO", 7, None, np.array([["C"]]), pd.DataFrame({"smiles": ["C"]})]
)
def test_what_is_no_list_is_a_type_error(model: MolCMIM, wrong: Any) -> None:
    with pytest.raises(TypeError, match="smiles: expected"):
        model.embed(wrong)
    with pytest.raises(TypeError, match="smiles: expected"):
        model.log_prob(wrong)


def test_no_molecules(model: MolCMIM) -> None:
    assert model.embed([]).shape == (0, 56)
    assert model.log_prob([]).shape == (0,)
    assert model.decode(np.zeros((0, 24))) == []
    assert model.embed([None, ""]).shape == (2, 56)


def test_both_is_the_scaled_parts_side_by_side(model: MolCMIM) -> None:
    latent, informative = model.embed(SMILES, kind="latent"), model.embed(SMILES, kind="informative")
    both = np.concatenate([latent * np.float32(0.25), informative * np.float32(0.5)], axis=1)
    np.testing.assert_allclose(model.embed(SMILES), both, rtol=1e-6)


def test_log_prob_follows_the_network(model: MolCMIM) -> None:
    got = model.log_prob(["OCC", "C1CC", "CCO"])
    tokens = torch.tensor([model.tokenizer.encode("CCO")])
    with torch.inference_mode():
        mu = model.network.encode(encoder_input(tokens)).mu
        scores = model.network.logits(model.network.hidden(mu, decoder_input(tokens))).log_softmax(-1)
    expected = float(scores[0, range(4), encoder_input(tokens)[0]].sum())
    assert got.dtype == np.float32
    assert got[[0, 2]] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(got[1])


def test_policies(model: MolCMIM) -> None:
    salt = "[Na+].[O-]C(C)=O"
    assert model.embed_with_status(["OCC"], policy="none").canonical_smiles == ["OCC"]
    assert model.embed_with_status([salt], policy="parent").canonical_smiles == ["CC(=O)O"]
    assert model.embed_with_status([salt]).canonical_smiles == ["CC(=O)[O-].[Na+]"]
    assert not np.array_equal(model.embed(["OCC"], policy="none"), model.embed(["OCC"]))
    with pytest.raises(ValueError, match="policy: expected"):
        model.embed(["C"], policy="magic")


def test_decode_takes_latents_and_both(model: MolCMIM) -> None:
    latent = model.embed([*SMILES, "bad", "CCCl"], kind="latent")
    both = model.embed([*SMILES, "bad", "CCCl"], kind="both")
    texts = model.decode(latent)
    assert len(texts) == 10
    assert texts[8] is None
    assert model.decode(both) == texts
    with pytest.raises(
        ValueError, match=r"z: expected shape \(n, 24\) or, of kind 'both', \(n, 56\), got \(10, 32\)"
    ):
        model.decode(model.embed([*SMILES, "bad", "CCCl"], kind="informative"))
    with pytest.raises(ValueError, match=r"z: expected shape .* got \(24,\)"):
        model.decode(latent[0])


def test_decode_never_cuts_a_molecule(tmp_path: Path) -> None:
    model = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path / "x"), device="cpu")
    with torch.no_grad():
        model.network.unembed.weight.zero_()
    assert model.decode(np.ones((2, 24))) == ["", ""], "equal scores: <eos> is the first allowed token"
    with torch.no_grad():
        model.network.unembed = torch.nn.Linear(32, model.tokenizer.vocab_size)
        model.network.unembed.bias[EOS] = -1000.0  # never ends
    assert model.decode(np.ones((2, 24))) == [None, None]


@pytest.mark.parametrize("objective", ["infonce", "mlm"])
def test_models_without_decoder(model_of: dict[str, MolCMIM], objective: str) -> None:
    model = model_of[objective]
    width = 32 if objective == "mlm" else 24
    assert model.embed(SMILES, kind="latent").shape == (8, width)
    for kind in ("informative", "both"):
        with pytest.raises(ValueError, match=f"objective '{objective}', which trains no decoder"):
            model.embed(SMILES, kind=kind)
    with pytest.raises(
        ValueError, match=f"log_prob: expected a model with a decoder, got objective '{objective}'"
    ):
        model.log_prob(SMILES)
    with pytest.raises(
        ValueError, match=f"decode: expected a model with a decoder, got objective '{objective}'"
    ):
        model.decode(np.zeros((1, 24)))


def test_other_objectives_have_a_decoder(model_of: dict[str, MolCMIM]) -> None:
    assert model_of["vae"].embed(SMILES).shape == (8, 56)


def test_save_and_load_again(model: MolCMIM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "copy")
    again = MolCMIM.from_pretrained(tmp_path / "copy", device="cpu")
    assert again.model_id == model.model_id
    assert again.config == model.config
    assert np.array_equal(again.embed(SMILES), model.embed(SMILES))


def test_exact_and_progress_through_the_interface(model: MolCMIM, capsys: pytest.CaptureFixture[str]) -> None:
    bulk = model.embed(SMILES, exact=True)
    assert np.array_equal(bulk[2:3], model.embed(SMILES[2:3], exact=True))
    assert capsys.readouterr().err == ""
    model.embed([*SMILES, "bad"], progress=True)
    assert "8/8" in capsys.readouterr().err


def test_dtype_and_device(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "x")
    rough = MolCMIM.from_pretrained(directory, device="cpu", dtype="bfloat16")
    precise = MolCMIM.from_pretrained(directory, device=torch.device("cpu"))
    a, b = rough.embed(SMILES), precise.embed(SMILES)
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(a, b, atol=0.1)
    assert "device='cpu', dtype='bfloat16'" in repr(rough)
    with pytest.raises(ValueError, match="dtype: expected 'float32' or 'bfloat16', got 'float16'"):
        MolCMIM.from_pretrained(directory, dtype="float16")
    with pytest.raises(ValueError, match="device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'"):
        MolCMIM.from_pretrained(directory, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: expected a CUDA GPU for 'cuda'"):
            MolCMIM.from_pretrained(directory, device="cuda")


@pytest.mark.gpu
def test_on_a_gpu(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "x")
    cpu = MolCMIM.from_pretrained(directory, device="cpu")
    gpu = MolCMIM.from_pretrained(directory, device="cuda")
    smiles = [*SMILES, "bad"] * 10
    np.testing.assert_allclose(gpu.embed(smiles), cpu.embed(smiles), atol=1e-4)
    np.testing.assert_allclose(gpu.log_prob(smiles), cpu.log_prob(smiles), rtol=1e-4)
    assert np.array_equal(gpu.embed(smiles, exact=True)[:8], gpu.embed(SMILES, exact=True))
    assert len(gpu.decode(gpu.embed(smiles))) == 90
    rough = MolCMIM.from_pretrained(directory, device="cuda", dtype="bfloat16")
    np.testing.assert_allclose(rough.embed(SMILES), cpu.embed(SMILES), atol=0.1)
