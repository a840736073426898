"""Byte-pair tokens: equal to the definition, deterministic, and no atom is ever dropped."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_examples import SMILES

from molcmim import tokenizer as tk
from molcmim.tokenizer import SPECIALS, BpeTokenizer

pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def bpe() -> BpeTokenizer:
    return BpeTokenizer.train(SMILES * 3, vocab_size=220)


@pytest.mark.parametrize("smiles", SMILES)
def test_bpe_round_trip(bpe: BpeTokenizer, smiles: str) -> None:
    ids = bpe.encode(smiles)
    assert bpe.decode(ids) == smiles
    assert 1 <= len(ids) <= len(tk.split_smiles(smiles))
    assert min(ids) >= len(SPECIALS)


def test_bpe_shortens_and_falls_back_to_atoms(bpe: BpeTokenizer) -> None:
    assert len(bpe.encode("c1ccccc1")) < 8
    assert bpe.encode("C") == [bpe.vocab.index("C")]
    assert bpe.encode("") == []
    # Base tokens that no training molecule has, so no merge has them: one id each, none lost.
    rare = "[Li+].[K+].[Ag+].[As].[te]"
    assert [bpe.vocab[i] for i in bpe.encode(rare)] == tk.split_smiles(rare)


@pytest.mark.parametrize("smiles", ["[Pu]", "C[Pu]C", "c1ccccc1[Pu]"])
def test_bpe_never_drops_an_atom(bpe: BpeTokenizer, smiles: str) -> None:
    with pytest.raises(tk.UnknownToken) as caught:
        bpe.encode(smiles)
    assert caught.value.token == "[Pu]"


def merged_slowly(tokenizer: BpeTokenizer, smiles: str) -> list[str]:
    """Byte-pair encoding by its definition: the earliest learned merge, left to right, until none applies."""
    tokens = tk.split_smiles(smiles)
    rank = {pair: i for i, pair in enumerate(tokenizer.merges)}
    while pairs := [pair for pair in itertools.pairwise(tokens) if pair in rank]:
        best = min(pairs, key=rank.__getitem__)
        i, joined = 0, []
        while i < len(tokens):
            if tuple(tokens[i : i + 2]) == best:
                joined.append(tokens[i] + tokens[i + 1])
                i += 2
            else:
                joined.append(tokens[i])
                i += 1
        tokens = joined
    return tokens


PIECES = st.lists(st.sampled_from([*SMILES, "C", "c", "(", ")", "1", "=O", "[nH]", "CC"]), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PIECES.map("".join))
def test_bpe_equals_the_definition(bpe: BpeTokenizer, text: str) -> None:
    ids = bpe.encode(text)
    assert [bpe.vocab[i] for i in ids] == merged_slowly(bpe, text)
    assert bpe.decode(ids) == text


def test_bpe_is_used_without_the_package_that_learns_it(
    bpe: BpeTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [bpe.encode(smiles) for smiles in SMILES]
    bpe.save(tmp_path / "vocab.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert [tk.load_tokenizer(tmp_path / "vocab.json").encode(smiles) for smiles in SMILES] == expected
    with pytest.raises(ImportError):
        BpeTokenizer.train(SMILES, 220)


def test_bpe_training_is_deterministic_across_processes(bpe: BpeTokenizer) -> None:
    code = (
        "import json, sys; from molcmim.tokenizer import BpeTokenizer;"
        "print(BpeTokenizer.train(json.load(sys.stdin), vocab_size=220).fingerprint)"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(SMILES * 3),
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(tk.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == bpe.fingerprint


def test_bpe_sizes_and_given_atoms(bpe: BpeTokenizer) -> None:
    assert bpe.vocab_size <= 220
    assert len(bpe.merges) > 10
    assert all(left + right in bpe.vocab for left, right in bpe.merges)
    with pytest.raises(ValueError, match="vocab_size: expected >= "):
        BpeTokenizer.train(SMILES, vocab_size=100)
    small = BpeTokenizer.train(SMILES, vocab_size=20, atoms=["C", "c", "1", "O", "=", "(", ")"])
    assert small.atoms == ["C", "c", "1", "O", "=", "(", ")"]
    assert small.vocab_size == 20
    with pytest.raises(tk.UnknownToken):
        small.encode("CN")


def test_bpe_copies_work_after_use(bpe: BpeTokenizer) -> None:
    want = bpe.encode(SMILES[3])
    assert copy.deepcopy(bpe).encode(SMILES[3]) == want
    assert pickle.loads(pickle.dumps(bpe)).encode(SMILES[3]) == want


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"merges": [["C", "Zz"]]}, "two tokens that exist by then, got \\('C', 'Zz'\\)"),
        ({"merges": ["CC"]}, "expected pairs of strings, got 'CC'"),
        ({"merges": [["C", "C", "C"]]}, "expected pairs of strings"),
        ({"merges": None}, "merges: expected a list, got NoneType"),
        ({"merges": []}, "expected special tokens, atoms, merged tokens"),
        ({"atoms": ["C", 1]}, "atoms: expected a list of strings"),
        ({"atoms": ["C", "CC"], "merges": []}, "atoms: expected SMILES tokens, got 'CC'"),
        ({"atoms": ["C", "C"], "merges": []}, "no duplicates"),
    ],
)
def test_bpe_damaged_file_is_refused(bpe: BpeTokenizer, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tk.tokenizer_from_json({**bpe.to_json(), **fields})
