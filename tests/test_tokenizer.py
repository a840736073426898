"""Tokenizers: nothing is lost, or UnknownToken; the same data give the same ids; a bad file is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizer_examples import SMILES, SMILES_LIKE, SMILES_ONLY

from molcmim import tokenizer as tk
from molcmim.tokenizer import BOS, EOS, MASK, PAD, SPECIALS, BpeTokenizer, SelfiesTokenizer, SmilesTokenizer

# What the usual `findall` tokenizer drops without a word.
BROKEN = {
    "C C": " ",
    "CCé": "é",
    "CCO\n": "\n",
    "C١": "١",  # a digit, but not an ASCII one
    "CCX": "X",
    "C[": "[",
    "C]": "]",
    "[]C": "[]",
    "C[Xx]C": "[Xx]",
    "[CH4:]": "[CH4:]",
    "[C+++++]": "[C+++++]",
    "[13C@@@H]": "[13C@@@H]",
    "C%1": "%",
    "CC>>CO": ">",
    "Cl[cl]": "[cl]",
    "<pad>": "<",
}


@pytest.fixture(scope="module")
def bpe() -> BpeTokenizer:
    pytest.importorskip("tokenizers")
    return BpeTokenizer.train(SMILES * 3, vocab_size=220)


@pytest.fixture(scope="module")
def selfies_tokenizer() -> SelfiesTokenizer:
    pytest.importorskip("selfies")
    return SelfiesTokenizer.train(SMILES + SMILES_ONLY)


# ---- atom-level SMILES


def test_split_known_tokens() -> None:
    assert tk.split_smiles("C[C@@H](Cl)c1[nH]cc1/C=C\\Br") == [
        *("C", "[C@@H]", "(", "Cl", ")", "c", "1", "[nH]", "c", "c", "1", "/", "C", "=", "C", "\\", "Br")
    ]
    assert tk.split_smiles("[13CH3:7]%10%(123)[Fe++][O-2]*~C->[Pt]<-N") == [
        *("[13CH3:7]", "%10", "%(123)", "[Fe++]", "[O-2]", "*", "~", "C", "->", "[Pt]", "<-", "N")
    ]
    assert tk.split_smiles("[Sc]Sc[HH][H+][Cn]") == ["[Sc]", "S", "c", "[HH]", "[H+]", "[Cn]"]
    assert tk.split_smiles("[Pt@SP1][Co@OH25H2-3][100*]") == ["[Pt@SP1]", "[Co@OH25H2-3]", "[100*]"]
    assert tk.split_smiles("") == []


@pytest.mark.parametrize("smiles", SMILES + SMILES_ONLY)
def test_smiles_round_trip(smiles: str) -> None:
    tokenizer = SmilesTokenizer.train([smiles])
    ids = tokenizer.encode(smiles)
    assert "".join(SmilesTokenizer.split(smiles)) == smiles
    assert tokenizer.decode(ids) == smiles
    assert min(ids) >= len(SPECIALS)
    assert len(ids) == len(tk.split_smiles(smiles))


@pytest.mark.parametrize(("smiles", "token"), BROKEN.items())
def test_broken_text_is_refused_with_the_part_that_is_wrong(smiles: str, token: str) -> None:
    with pytest.raises(tk.UnknownToken) as caught:
        tk.split_smiles(smiles)
    assert (caught.value.token, caught.value.smiles) == (token, smiles)
    with pytest.raises(tk.UnknownToken):
        SmilesTokenizer.train(SMILES).encode(smiles)


def test_token_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(tk.UnknownToken, match="not in the vocabulary") as caught:
        SmilesTokenizer.train(["CCO"]).encode("C[Pu]C")
    assert caught.value.token == "[Pu]"
    copied = pickle.loads(pickle.dumps(caught.value))  # as it comes back from a worker process
    assert (copied.token, copied.smiles, str(copied)) == ("[Pu]", "C[Pu]C", str(caught.value))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=30), SMILES_LIKE))
@example("[C@@H]")
@example("C" * 10_000)
def test_lossless_or_refused(text: str) -> None:
    tokenizer = SmilesTokenizer.train(SMILES)
    try:
        tokens = tk.split_smiles(text)
    except tk.UnknownToken as error:
        assert error.token in text
        with pytest.raises(tk.UnknownToken):
            tokenizer.encode(text)
        return
    assert "".join(tokens) == text
    assert all(tk.split_smiles(token) == [token] for token in tokens)
    if set(tokens) <= set(tokenizer.vocab):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_train_order_and_min_count() -> None:
    data = ["[Pu]CC", "[Pu]C", "[U]N", "C C is not counted [Np]"]
    tokenizer = SmilesTokenizer.train(data, min_count=2)
    assert tuple(tokenizer.vocab[:4]) == SPECIALS
    assert tokenizer.vocab[4:7] == ["C", "[Pu]", "N"]  # 3, 2, 1 times; then base tokens by text
    assert set(tokenizer.vocab[4:]) == {*tk.BASE_TOKENS, "[Pu]"}
    assert tokenizer.vocab[7:] == sorted(tokenizer.vocab[7:])
    assert SmilesTokenizer.train(reversed(data), min_count=2) == tokenizer
    assert "[U]" in SmilesTokenizer.train(data).vocab
    assert "[Np]" not in SmilesTokenizer.train(data).vocab


def test_train_from_added_counts_and_max_size() -> None:
    first, second = tk.count_tokens(SMILES[:9]), tk.count_tokens(SMILES[9:])
    assert SmilesTokenizer.from_counts(first + second) == SmilesTokenizer.train(SMILES)
    least = len(SPECIALS) + len(tk.BASE_TOKENS)
    small = SmilesTokenizer.train(["[U][U][Pu]", "[Np][Pu][U]"], max_size=least + 2)
    assert small.vocab_size == least + 2
    assert small.vocab[4:6] == ["[U]", "[Pu]"]
    with pytest.raises(ValueError, match="max_size: expected"):
        SmilesTokenizer.train(SMILES, max_size=least - 1)
    with pytest.raises(ValueError, match="min_count: expected >= 1, got 0"):
        SmilesTokenizer.train(SMILES, min_count=0)


def test_base_tokens_fit_a_byte_and_are_tokens() -> None:
    assert len(set(tk.BASE_TOKENS)) == len(tk.BASE_TOKENS) <= 200
    assert all(tk.split_smiles(token) == [token] for token in tk.BASE_TOKENS)


def test_decode_special_tokens() -> None:
    tokenizer = SmilesTokenizer.train(["CCO"])
    c, o = tokenizer.encode("CO")
    assert tokenizer.decode([BOS, c, PAD, o, EOS, c, c]) == "CO"
    assert tokenizer.decode([c, MASK, o]) == "C<mask>O"
    assert tokenizer.decode([]) == tokenizer.decode([EOS, 10**9]) == ""
    for bad in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=rf"ids: expected values in 0\.\.\d+, got {bad}"):
            tokenizer.decode([c, bad])
    with pytest.raises(TypeError):
        tokenizer.decode([1.5])  # type: ignore[list-item]


# ---- files


def of_each_kind() -> list[Any]:
    return [
        pytest.param(lambda request: SmilesTokenizer.train(SMILES), id="smiles"),
        pytest.param(lambda request: request.getfixturevalue("bpe"), id="bpe"),
        pytest.param(lambda request: request.getfixturevalue("selfies_tokenizer"), id="selfies"),
    ]


def test_every_kind_is_covered_here() -> None:
    assert {p.id for p in of_each_kind()} == set(tk.KINDS)


@pytest.mark.parametrize("make", of_each_kind())
def test_save_and_load(make: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tokenizer = make(request)
    path = tmp_path / "vocab.json"
    tokenizer.save(path)
    loaded = tk.load_tokenizer(path)
    assert type(loaded) is type(tokenizer)
    assert loaded == tokenizer
    assert loaded.vocab == tokenizer.vocab
    assert loaded.fingerprint == tokenizer.fingerprint
    assert [loaded.encode(s) for s in SMILES] == [tokenizer.encode(s) for s in SMILES]
    assert [p.name for p in tmp_path.iterdir()] == ["vocab.json"]
    data = json.loads(path.read_text())
    assert (data["format_version"], data["kind"]) == (1, tokenizer.kind)
    assert data["vocab"][:4] == ["<pad>", "<bos>", "<eos>", "<mask>"]


def test_fingerprint_follows_the_ids() -> None:
    tokenizer = SmilesTokenizer.train(SMILES)
    swapped = [*tokenizer.vocab]
    swapped[4], swapped[5] = swapped[5], swapped[4]
    assert SmilesTokenizer(swapped).fingerprint != tokenizer.fingerprint
    assert SmilesTokenizer([*SPECIALS, "C", "N"]).fingerprint == "ac3176214f15e5d5"


def change(**fields: Any) -> Any:
    return lambda data: {**data, **fields}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(format_version=2), "expected <= 1, got 2; the file is from a newer molcmim"),
        (change(format_version="1"), "format_version: expected an integer >= 1, got '1'"),
        (change(format_version=True), "format_version: expected an integer >= 1, got True"),
        (change(kind="words"), "kind: expected one of .* got 'words'"),
        (change(kind=["smiles"]), "kind: expected one of"),
        (change(vocab="CNO"), "vocab: expected a list of tokens, got str"),
        (change(vocab=["<pad>", "<bos>", "<eos>", "C"]), "vocab: expected it to start with"),
        (change(vocab=["C", *SPECIALS]), "vocab: expected it to start with"),
        (change(vocab=[*SPECIALS, "C", "N", "C"]), r"no duplicates, got these more than once: \['C'\]"),
        (change(vocab=[*SPECIALS, "C", SPECIALS[0]]), "no duplicates"),
        (change(vocab=[*SPECIALS, "C", ""]), r"vocab\[5\]: expected a non-empty string, got ''"),
        (change(vocab=[*SPECIALS, "C", 7]), r"vocab\[5\]: expected a non-empty string, got 7"),
        (change(vocab=[*SPECIALS, "CC"]), "expected SMILES tokens, got 'CC'"),
        (change(vocab=[*SPECIALS, "[Xx]"]), "expected SMILES tokens, got '\\[Xx\\]'"),
        (lambda data: [data], "expected a JSON object, got list"),
    ],
)
def test_damaged_vocabulary_is_refused(damage: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(damage(SmilesTokenizer.train(SMILES).to_json())))
    with pytest.raises(ValueError, match=message) as caught:
        tk.load_tokenizer(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b'{"format_version": 1, "ki', b"\x80\x04\x95pickle", b"[" * 100_000]
)
def test_file_that_is_not_json_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"vocab\.json"):
        tk.load_tokenizer(path)
    with pytest.raises(FileNotFoundError):
        tk.load_tokenizer(tmp_path / "absent.json")


def test_from_json_of_another_kind_is_refused(bpe: BpeTokenizer) -> None:
    with pytest.raises(ValueError, match="kind: expected 'smiles', got 'bpe'"):
        SmilesTokenizer.from_json(bpe.to_json())


def test_import_is_light() -> None:
    code = (
        "import sys, molcmim.tokenizer as t; t.SmilesTokenizer.train(['CCO']).encode('CCO');"
        "print(sorted({'torch', 'rdkit', 'selfies', 'tokenizers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
