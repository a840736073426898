"""SELFIES: the same molecule comes back, or UnknownToken; the selfies package's settings stay."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_examples import SMILES, SMILES_LIKE, SMILES_ONLY

from molcmim import tokenizer as tk
from molcmim.tokenizer import BOS, EOS, MASK, PAD, SPECIALS, SelfiesTokenizer

pytest.importorskip("selfies")


@pytest.fixture(scope="module")
def selfies_tokenizer() -> SelfiesTokenizer:
    return SelfiesTokenizer.train(SMILES + SMILES_ONLY)


def canonical(smiles: str) -> str:
    from rdkit import Chem

    return Chem.MolToSmiles(Chem.MolFromSmiles(smiles))


@pytest.mark.parametrize("smiles", SMILES)
def test_selfies_round_trip_is_the_same_molecule(selfies_tokenizer: SelfiesTokenizer, smiles: str) -> None:
    ids = selfies_tokenizer.encode(smiles)
    assert canonical(selfies_tokenizer.decode([BOS, *ids, EOS, PAD])) == canonical(smiles)
    assert selfies_tokenizer.encode(smiles, check=False) == ids


@pytest.mark.parametrize(
    ("smiles", "reason"),
    [
        ("[CH3:1][OH:2]", "changes the molecule"),
        ("*CC", "SELFIES"),
        ("N->[Pt](<-N)(Cl)Cl", "SELFIES"),
        ("OCl(=O)(=O)=O", "semantic constraints"),
        ("[Re]$[Re]", "SELFIES"),
        ("C1CC.C1C", "SELFIES"),
        ("C(C", "SELFIES"),
        ("", "SELFIES"),
        ("C C", "not SMILES syntax"),
        ("C[Pu]", "not in the vocabulary"),
        ("C" * 5000, "5000 characters"),
        ("C(" * 1900 + "C" + ")" * 199, "SELFIES"),
    ],
)
def test_selfies_refuses(selfies_tokenizer: SelfiesTokenizer, smiles: str, reason: str) -> None:
    with pytest.raises(tk.UnknownToken, match=reason) as caught:
        selfies_tokenizer.encode(smiles)
    assert caught.value.smiles == smiles


@settings(max_examples=150, deadline=None)
@given(SMILES_LIKE)
def test_selfies_same_molecule_or_refused(text: str) -> None:
    tokenizer = small_selfies()
    try:
        ids = tokenizer.encode(text)
    except tk.UnknownToken:
        return
    assert canonical(tokenizer.decode(ids)) == canonical(text)


@functools.cache
def small_selfies() -> SelfiesTokenizer:
    return SelfiesTokenizer.train(SMILES[:5])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_selfies_any_ids_decode_to_a_molecule(data: st.DataObject) -> None:
    from rdkit import Chem

    tokenizer = small_selfies()
    ids = data.draw(st.lists(st.integers(4, tokenizer.vocab_size - 1), max_size=12))
    assert Chem.MolFromSmiles(tokenizer.decode(ids)) is not None


def test_selfies_own_constraints_and_the_global_ones_stay(selfies_tokenizer: SelfiesTokenizer) -> None:
    import selfies

    before = selfies.get_semantic_constraints()
    perchloric = "OCl(=O)(=O)=O"
    hypervalent = SelfiesTokenizer.train([*SMILES, perchloric], constraints="hypervalent")
    assert canonical(hypervalent.decode(hypervalent.encode(perchloric))) == canonical(perchloric)
    assert hypervalent.constraints["Cl"] == 7
    same_vocab = SelfiesTokenizer(hypervalent.vocab, selfies.get_preset_constraints("default"))
    assert same_vocab.fingerprint != hypervalent.fingerprint
    assert selfies.get_semantic_constraints() == before
    ids = selfies_tokenizer.encode("CS(C)(=O)=O")
    try:
        selfies.set_semantic_constraints("octet_rule")  # under which sulfones don't exist
        assert selfies_tokenizer.encode("CS(C)(=O)=O") == ids
        assert canonical(selfies_tokenizer.decode(ids)) == canonical("CS(C)(=O)=O")
        assert selfies.get_semantic_constraints() == selfies.get_preset_constraints("octet_rule")
    finally:
        selfies.set_semantic_constraints(before)


def test_selfies_decode_mask(selfies_tokenizer: SelfiesTokenizer) -> None:
    ids = selfies_tokenizer.encode("CO")
    assert selfies_tokenizer.decode([ids[0], MASK, ids[1]]) == "C<mask>O"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"constraints": None}, "constraints: expected a mapping"),
        ({"constraints": {"C": 4}}, "constraints: expected a mapping with the key '\\?'"),
        ({"constraints": {"?": 8, "C": -1}}, r"constraints\['C'\]: expected an integer >= 0, got -1"),
        ({"constraints": {"?": 8, "carbon": 4}}, "expected keys like 'N' or 'N\\+1', got 'carbon'"),
        ({"vocab": [*SPECIALS, "[C]", "C"]}, "expected SELFIES symbols, got 'C'"),
    ],
)
def test_selfies_damaged_file_is_refused(
    selfies_tokenizer: SelfiesTokenizer, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tk.tokenizer_from_json({**selfies_tokenizer.to_json(), **fields})
