"""Byte-pair tokens over atom-level SMILES tokens. Learning them needs the `tokenizers` package, using them does not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Self

from .tokenizer_base import SPECIALS, Tokenizer, UnknownToken, check_header, vocab_from_counts
from .tokenizer_smiles import BASE_TOKENS, TOKEN_PATTERN, split_smiles

_FIRST_PRIVATE = 0xE000  # Unicode's private-use area: 6400 characters, one for each atom where merges are learned
_MAX_ATOMS = 6400


class BpeTokenizer(Tokenizer):
    """Frequent runs of atom-level tokens joined into one token (byte-pair encoding, Sennrich et al. 2016,
    arXiv:1508.07909; on SMILES: Li and Fourches 2021, doi:10.1021/acs.jcim.0c01127).

    Merges are learned over atom-level tokens, so a bracket atom is never cut. Every atom-level token keeps its own
    id: a molecule without any merge still encodes, and one with an atom outside the vocabulary raises rather than
    losing it.

    Parameters
    ----------
    atoms : iterable of str
        Atom-level tokens, in the order of their ids (from ``len(SPECIALS)`` on).
    merges : iterable of (str, str)
        Pairs of tokens to join, first learned first; each joined text follows the atoms in `vocab`.

    Raises
    ------
    ValueError
        If an atom is not one SMILES token, or a merge uses a token that doesn't exist before it.
    """

    kind: ClassVar[str] = "bpe"

    def __init__(self, atoms: Iterable[str], merges: Iterable[tuple[str, str]]) -> None:
        self.atoms = list(atoms)
        self.merges = [_checked_pair(pair) for pair in merges]
        known = dict.fromkeys(self.atoms)
        for left, right in self.merges:
            if left not in known or right not in known:
                raise ValueError(f"merges: expected two tokens that exist by then, got {(left, right)!r}")
            known[left + right] = None  # two merges may end in the same text, which then has one id
        atom_set = set(self.atoms)
        merged = [token for token in known if token not in atom_set]
        super().__init__([*SPECIALS, *self.atoms, *merged])
        if len(self.atoms) > _MAX_ATOMS:
            raise ValueError(f"atoms: expected at most {_MAX_ATOMS}, got {len(self.atoms)}")
        for atom in self.atoms:
            if not TOKEN_PATTERN.fullmatch(atom):
                raise ValueError(f"atoms: expected SMILES tokens, got {atom!r}")
        self._lengths = [len(ids) for ids in self.parts()]
        ids = self._ids
        self._joined = [ids[left + right] for left, right in self.merges]  # first learned first
        pairs = [(ids[left], ids[right]) for left, right in self.merges]
        self._rank = {pair: rank for rank, pair in reversed([*enumerate(pairs)])}

    def encode(self, smiles: str) -> list[int]:
        """Token ids of one SMILES, without special tokens.

        Raises
        ------
        UnknownToken
            If a part of the text is no SMILES token, or an atom-level token that is not in the vocabulary.
        """
        try:
            ids = [self._ids[atom] for atom in split_smiles(smiles)]
        except KeyError as error:
            raise UnknownToken(error.args[0], smiles, "not in the vocabulary") from None
        rank_of, last = self._rank.get, len(self._joined)  # last: of a pair that has no merge
        ranks = [rank_of(pair, last) for pair in pairwise(ids)]
        while (rank := min(ranks, default=last)) < last:
            i = ranks.index(rank)
            while True:  # each place of this pair, from the left; only its neighbours' ranks change
                ids[i : i + 2] = [self._joined[rank]]
                del ranks[i]
                if i:
                    ranks[i - 1] = rank_of((ids[i - 1], ids[i]), last)
                if i < len(ranks):
                    ranks[i] = rank_of((ids[i], ids[i + 1]), last)
                try:
                    i = ranks.index(rank, i + 1)
                except ValueError:
                    break
        return ids

    def length(self, ids: Sequence[int]) -> int:
        return sum(map(self._lengths.__getitem__, ids))

    def parts(self) -> list[list[int]]:
        own = [[i] for i in range(len(SPECIALS))]
        return own + [[self._ids[atom] for atom in split_smiles(token)] for token in self.vocab[len(SPECIALS) :]]

    @classmethod
    def train(
        cls,
        smiles: Iterable[str],
        vocab_size: int = 500,
        min_count: int = 1,
        atoms: Iterable[str] | None = None,
    ) -> Self:
        """Learn merges from a collection of SMILES.

        Parameters
        ----------
        smiles : iterable of str
            A random sample of some 100,000 is plenty: that takes about 0.4 GB and 15 s. Texts that can't be
            split count nothing.
        vocab_size : int
            Special and atom-level tokens included; fewer result where the data have no more pairs to join.
        min_count : int
            Rarer atom-level tokens are left out, `BASE_TOKENS` never.
        atoms : iterable of str, optional
            The atom-level tokens instead of those of `smiles`, e.g. ``SmilesTokenizer(...).vocab[4:]`` of the
            whole corpus where `smiles` is a sample.

        Raises
        ------
        ValueError
            If `vocab_size` leaves no room for the atom-level tokens.
        """
        texts, counts = _splittable(smiles)
        kept = vocab_from_counts(counts, BASE_TOKENS, min_count, None)[len(SPECIALS) :]
        kept = kept if atoms is None else list(atoms)
        least = len(kept) + len(SPECIALS)
        if vocab_size < least:
            raise ValueError(f"vocab_size: expected >= {least} (all atom-level tokens), got {vocab_size}")
        return cls(kept, _learn_merges(texts, kept, vocab_size - len(SPECIALS)))

    def to_json(self) -> dict[str, Any]:
        """The vocabulary file's content; `vocab` follows from the rest, and is checked on reading."""
        merges = [list(pair) for pair in self.merges]
        return {**super().to_json(), "atoms": list(self.atoms), "merges": merges}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; raises ValueError that says what is wrong with `data`."""
        check_header(data, cls.kind)
        for name in ("atoms", "merges"):
            if not isinstance(data.get(name), list):
                raise ValueError(f"vocabulary {name}: expected a list, got {type(data.get(name)).__name__}")
        if not all(isinstance(atom, str) for atom in data["atoms"]):
            raise ValueError("vocabulary atoms: expected a list of strings")
        tokenizer = cls(data["atoms"], data["merges"])
        if tokenizer.vocab != data["vocab"]:
            raise ValueError("vocabulary vocab: expected special tokens, atoms, merged tokens")
        return tokenizer


def _checked_pair(pair: object) -> tuple[str, str]:
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(x, str) for x in pair):
        raise ValueError(f"merges: expected pairs of strings, got {pair!r}")
    return pair[0], pair[1]


def _splittable(smiles: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """The texts that split, and how often each atom-level token occurs in them."""
    texts: list[str] = []
    counts: Counter[str] = Counter()
    for text in smiles:
        try:
            tokens = split_smiles(text)
        except UnknownToken:
            continue
        texts.append(text)
        counts.update(tokens)
    return texts, counts


def _learn_merges(texts: list[str], atoms: list[str], size: int) -> list[tuple[str, str]]:
    """Byte-pair merges such that atoms and merged tokens together are at most `size`."""
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    character = {atom: chr(_FIRST_PRIVATE + i) for i, atom in enumerate(atoms)}
    atom_of = {c: atom for atom, c in character.items()}

    def written() -> Iterator[str]:
        for tokens in map(split_smiles, texts):
            # Molecules with an atom outside `atoms` teach nothing: encode refuses them.
            if all(token in character for token in tokens):
                yield "".join([character[token] for token in tokens])

    backend = Backend(BPE())
    trainer = BpeTrainer(vocab_size=size, initial_alphabet=list(atom_of), show_progress=False)
    backend.train_from_iterator(written(), trainer)
    merges = json.loads(backend.to_str())["model"]["merges"]
    return [("".join(map(atom_of.__getitem__, a)), "".join(map(atom_of.__getitem__, b))) for a, b in merges]
