"""Models whose encoder reads atom-level tokens while the decoder reads byte-pair tokens (`encoder_tokens="atoms"`)."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_model
from tokenizer_examples import SMILES
from training import small_config, small_corpus
from typer.testing import CliRunner

from molcmim import MolCMIM, Status
from molcmim import corpus as corpus_module
from molcmim import embed as embed_module
from molcmim.cli import app
from molcmim.corpus import TokenStore
from molcmim.embed import EmbedOptions, embed_tokens, score_tokens
from molcmim.flops import count_flops
from molcmim.model import CMIM, ModelConfig, encoder_input
from molcmim.objective import Batch, ObjectiveConfig, log_factors
from molcmim.pretrained import load_pretrained, save_pretrained
from molcmim.rows import tokenize_rows
from molcmim.token_parts import TokenParts
from molcmim.tokenizer import BpeTokenizer, SmilesTokenizer, load_tokenizer, split_smiles
from molcmim.train import train

pytest.importorskip("tokenizers")
SCALES = {"latent": 0.25, "informative": 0.5}


@pytest.fixture(scope="module")
def tokenizer() -> BpeTokenizer:
    return BpeTokenizer.train(SMILES * 3, vocab_size=220)


@pytest.fixture(scope="module")
def network(tokenizer: BpeTokenizer) -> CMIM:
    return tiny_model(tokenizer.vocab_size, parts=tokenizer.parts(), encoder_tokens="atoms", max_tokens=200)


@pytest.fixture(scope="module")
def rows(tokenizer: BpeTokenizer) -> list[list[int]]:
    return [ids for ids in map(tokenizer.encode, SMILES) if tokenizer.length(ids) <= 200]


def atoms_of(tokenizer: BpeTokenizer, row: list[int]) -> list[int]:
    parts = tokenizer.parts()
    return list(chain.from_iterable(parts[i] for i in row))


@pytest.mark.parametrize("smiles", SMILES)
def test_parts_are_the_atom_level_tokens(tokenizer: BpeTokenizer, smiles: str) -> None:
    ids = tokenizer.encode(smiles)
    assert [tokenizer.vocab[i] for i in atoms_of(tokenizer, ids)] == split_smiles(smiles)
    assert tokenizer.length(ids) == len(split_smiles(smiles))


def test_other_tokens_are_their_own_parts() -> None:
    tokenizer = SmilesTokenizer.train(SMILES)
    assert tokenizer.parts() == [[i] for i in range(tokenizer.vocab_size)]
    assert tokenizer.length([7, 8, 9]) == 3


def test_split_rows_are_padded_to_a_multiple_but_not_beyond_the_limit() -> None:
    parts = TokenParts([[0], [1], [2], [3], [4], [5], [4, 5, 4]], limit=9)
    tokens = torch.tensor([[6, 5, 2, 0], [4, 2, 0, 0], [5, 6, 6, 2]])
    got = parts(tokens[:2])
    assert got.tolist() == [[4, 5, 4, 5, 2, 0, 0, 0], [4, 2, 0, 0, 0, 0, 0, 0]]
    assert parts(tokens[:2], multiple=16).shape == (2, 9)
    assert parts(tokens)[2].tolist() == [5, 4, 5, 4, 4, 5, 4, 2]
    assert parts.lengths(tokens).tolist() == [5, 2, 8]
    assert parts.padded(11) == 11, "rows longer than the limit are not cut"


def test_the_encoder_reads_what_a_model_of_atoms_would_read(
    tokenizer: BpeTokenizer, network: CMIM, rows: list[list[int]]
) -> None:
    same = CMIM(replace(network.config, encoder_tokens="same"))
    same.load_state_dict(network.state_dict())
    expected = embed_tokens(same.eval(), [atoms_of(tokenizer, row) for row in rows], "latent")
    np.testing.assert_allclose(embed_tokens(network, rows, "latent"), expected, atol=1e-6)
    # and the decoder the joined ones
    informative = same.informative(torch.from_numpy(expected[3:4]), torch.tensor([[1, *rows[3]]]))
    np.testing.assert_allclose(
        embed_tokens(network, rows, "informative")[3], informative.detach()[0].numpy(), atol=1e-5
    )


def test_exact_mode_gives_the_same_bits_alone_and_in_bulk(network: CMIM, rows: list[list[int]]) -> None:
    options = EmbedOptions(exact=True)
    together = embed_tokens(network, rows, "both", SCALES, options)
    alone = np.concatenate([embed_tokens(network, [row], "both", SCALES, options) for row in rows])
    assert np.array_equal(together, alone)
    np.testing.assert_allclose(embed_tokens(network, rows, "both", SCALES), together, atol=1e-5)
    together = score_tokens(network, rows, options)
    assert np.array_equal(together, np.concatenate([score_tokens(network, [row], options) for row in rows]))


def test_exact_batches_go_by_what_both_sides_read(network: CMIM, rows: list[list[int]]) -> None:
    shapes: dict[int, set[tuple[int, int]]] = {}
    options = EmbedOptions(exact=True)
    for subset in (rows, *([row] for row in rows)):
        for chosen, tokens in embed_module._batches(network, subset, options):
            assert len(tokens) == embed_module.EXACT_ROWS
            encoder = network.parts(encoder_input(tokens), embed_module.EXACT_STEP)
            for i in chosen:
                shapes.setdefault(rows.index(subset[i]), set()).add((encoder.shape[1], tokens.shape[1]))
    assert all(len(found) == 1 for found in shapes.values())
    assert len({shape for found in shapes.values() for shape in found}) >= 3


def test_limits_count_atom_level_tokens(tokenizer: BpeTokenizer, network: CMIM) -> None:
    smiles = ["c1ccccc1", "c1ccccc1" * 3, "CCO"]
    found = tokenize_rows(smiles, tokenizer, max_tokens=8, policy="none")
    assert found.status == [Status.ok, Status.too_many_tokens, Status.ok]
    assert len(tokenizer.encode(smiles[1])) <= 8
    with pytest.raises(ValueError, match=r"expected at most 200 tokens, got 208 in row 1"):
        embed_tokens(network, [tokenizer.encode("CCO"), tokenizer.encode("c1ccccc1" * 26)])


def test_check_and_info_count_what_the_limit_counts(tokenizer: BpeTokenizer, network: CMIM, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "vocab.json")
    (tmp_path / "a.smi").write_text("c1ccccc1\nCCO\n")
    run = CliRunner().invoke(app, ["check", str(tmp_path / "a.smi"), "--vocab", str(tmp_path / "vocab.json")])
    assert run.exit_code == 0 and "longest molecule: 8 tokens (limit 200)" in run.output
    words = {"objective": {"name": "cmim"}, "training": {}, "scales": SCALES}
    save_pretrained(tmp_path / "m", network, tokenizer, **words)
    run = CliRunner().invoke(app, ["info", str(tmp_path / "m")])
    assert "transformer, reads atom-level tokens" in run.output and "200 tokens, atom-level ones" in run.output


def test_checkpoints_come_back(tokenizer: BpeTokenizer, network: CMIM, tmp_path: Path) -> None:
    directory = tmp_path / "both"
    save_pretrained(
        directory, network, tokenizer, objective={"name": "cmim"}, training={}, scales=SCALES, dtype="float32"
    )
    loaded = load_pretrained(directory)
    ids = [tokenizer.encode("CC(=O)Oc1ccccc1C(=O)O")]
    for kind in ("latent", "informative"):
        assert np.array_equal(embed_tokens(loaded.model, ids, kind), embed_tokens(network, ids, kind))
    model = MolCMIM.from_pretrained(directory, device="cpu")
    x = model.embed(["CCO", "not a molecule", "c1ccccc1"], kind="both")
    assert np.isnan(x[1]).all()
    assert np.isfinite(x[[0, 2]]).all()
    assert len(model.decode(x[[0, 2]])) == 2


def test_refusals(tokenizer: BpeTokenizer, network: CMIM) -> None:
    config = network.config
    with pytest.raises(ValueError, match="parts: expected those of 220 tokens, got none"):
        CMIM(config)
    with pytest.raises(ValueError, match="parts: expected those of 220 tokens, got 219"):
        CMIM(config, tokenizer.parts()[:-1])
    with pytest.raises(ValueError, match="encoder_tokens: expected 'same' or 'atoms', got 'bytes'"):
        ModelConfig(vocab_size=5, encoder_tokens="bytes")
    with pytest.raises(ValueError, match="'mlm' has no decoder"):
        log_factors(network, Batch(torch.tensor([[5, 6]])), ObjectiveConfig("mlm"))


def test_flops_count_both_lengths(network: CMIM) -> None:
    config = network.config
    encoder = count_flops(replace(config, decoder_layers=0), 1, 40) - count_flops(
        replace(config, decoder_layers=0), 1, 1
    )
    assert count_flops(config, 10, 40) == count_flops(config, 10, 1) + encoder
    assert count_flops(config, 10, 10) == count_flops(config, 10)
    assert count_flops(config, 10) < count_flops(config, 10, 40) < count_flops(config, 40)


@pytest.mark.parametrize("encoder", ["transformer", "perceiver"])
def test_it_trains_and_goes_on(tmp_path: Path, encoder: str) -> None:
    corpus = small_corpus(tmp_path, 200, tokenizer="bpe", random_smiles=1, policy="canonical")
    changes = {
        "model__encoder_tokens": "atoms",
        "model__encoder": encoder,
        "objective__encoder_input": "random_smiles",
        "objective__random_share": 0.5,
        "ema_decay": 0.0,
    }
    whole = train(small_config(corpus, tmp_path / "whole", schedule__max_steps=6, **changes))

    def interrupt(step: int, loss: float) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    first = train(small_config(corpus, tmp_path / "parts", schedule__max_steps=6, **changes), on_step=interrupt)
    assert first["step"] == 3
    rest = train(small_config(corpus, tmp_path / "parts", schedule__max_steps=6, **changes), resume=True)
    assert rest["step"] == whole["step"] == 6
    assert rest["reconstruction_nats"] == whole["reconstruction_nats"]
    assert rest["flops"] == whole["flops"]
    assert load_pretrained(tmp_path / "whole" / "export").model.config.encoder_tokens == "atoms"


def test_a_model_with_a_lower_limit_than_its_corpus_trains_and_exports(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path, 200, tokenizer="bpe")
    store = TokenStore.open(corpus, "valid")
    lengths = store.encoder_lengths([len(ids) for ids in load_tokenizer(corpus / "vocab.json").parts()])
    assert store.lengths.max() <= 10 < lengths.max()
    changes = {"model__encoder_tokens": "atoms", "model__max_tokens": 10, "batch_size": 8}
    result = train(small_config(corpus, tmp_path / "run", schedule__max_steps=2, **changes))
    assert result["step"] == 2 and result["reconstruction_nats"] > 0
    assert load_pretrained(tmp_path / "run" / "export").config["scales"]["latent"] > 0
    changes |= {"objective__name": "infonce"}
    with pytest.raises(ValueError, match="max_tokens: with random SMILES expected the corpus's 40 or more, got 10"):
        train(small_config(corpus, tmp_path / "random", schedule__max_steps=2, **changes))


def test_a_store_sums_a_table_over_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "SUMMED_ROWS", 7)
    store = TokenStore.open(small_corpus(tmp_path, 100))
    table = np.arange(store.info.vocab_size) % 7
    assert store.summed(table).tolist() == [int(table[row].sum()) for row in store.rows(np.arange(len(store)))]
