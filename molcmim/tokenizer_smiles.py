"""Atom-level SMILES tokens: the default tokenizer. Standard library only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

from .tokenizer_base import Tokenizer, UnknownToken, vocab_from_counts

_ELEMENTS = """
    H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br
    Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er
    Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md
    No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
_AROMATIC = "se as te si b c n o p s"
_SYMBOLS = "|".join(sorted(f"{_ELEMENTS} {_AROMATIC}".split(), key=len, reverse=True))

# OpenSMILES 3.1: isotope? symbol chirality? hydrogens? charge? map?  Digits are bounded, so that a
# vocabulary entry stays short; [0-9] and not \d, which would also match digits of other scripts.
_BRACKET_ATOM = (
    r"\[[0-9]{0,4}"
    rf"(?:{_SYMBOLS}|\*)"
    r"(?:@(?:@|TH[12]|AL[12]|SP[123]|TB[0-9]{1,2}|OH[0-9]{1,2})?)?"
    r"(?:H[0-9]{0,2})?"
    r"(?:\+{1,4}|-{1,4}|[+-][0-9]{1,2})?"
    r"(?::[0-9]{1,5})?\]"
)
# `->` and `<-` are RDKit's dative bonds; they must come before the plain `-`.
TOKEN_PATTERN = re.compile(
    rf"{_BRACKET_ATOM}|Br|Cl|[BCNOPSFIbcnops*]|%[0-9]{{2}}|%\([0-9]{{1,5}}\)|[0-9]|->|<-|[-=#$:/\\~().]"
)
_findall = TOKEN_PATTERN.findall

_BASE_TEXT = r"""
    B C N O P S F I Cl Br b c n o p s *
    . - = # $ : / \ ~ ( ) 0 1 2 3 4 5 6 7 8 9 %10 %11 %12 %13 %14 %15 %16 %17 %18 %19
    [C@] [C@@] [C@H] [C@@H] [C] [CH] [CH2] [CH-] [CH2-] [C-] [C+] [CH+] [CH2+] [c-] [cH-]
    [nH] [n+] [n-] [nH+] [N] [NH] [N+] [N-] [NH+] [NH-] [NH2+] [NH3+] [NH4+] [N@+] [N@@+] [N@H+] [N@@H+]
    [O] [O-] [O+] [OH+] [OH-] [OH2+] [OH3+] [o+] [H] [H+]
    [SH] [S+] [S-] [SH-] [S@] [S@@] [S@+] [S@@+] [s+] [P+] [P-] [P@] [P@@] [PH] [PH+] [B-] [BH-] [BH3-]
    [Si] [SiH] [SiH2] [SiH3] [Se] [SeH] [Se+] [se] [se+] [Te] [te] [As] [AsH] [As+] [Ge] [Sn] [I+]
    [Li+] [Na+] [K+] [Mg+2] [Ca+2] [Zn+2] [Al+3] [Ag+] [F-] [Cl-] [Br-] [I-]
    [2H] [3H] [11C] [13C] [14C] [11CH3] [13CH3] [15N] [18F] [123I] [125I] [131I]
"""
# Always in a trained vocabulary: a molecule of ordinary chemistry must not be unknown by chance of the data.
BASE_TOKENS: tuple[str, ...] = tuple(_BASE_TEXT.split())


def split_smiles(smiles: str) -> list[str]:
    """Atom-level tokens of a SMILES; nothing is dropped.

    Parameters
    ----------
    smiles : str

    Returns
    -------
    list of str
        ``"".join(tokens) == smiles``.

    Raises
    ------
    UnknownToken
        If a part of the text is no SMILES token.
    """
    tokens: list[str] = _findall(smiles)
    # Matches come in order and don't overlap, so the joined text differs as soon as anything was skipped.
    if "".join(tokens) != smiles:
        raise _unmatched(smiles)
    return tokens


def _unmatched(smiles: str) -> UnknownToken:
    """The error for the first part of `smiles` that no token covers."""
    position = 0
    for match in TOKEN_PATTERN.finditer(smiles):
        if match.start() != position:
            break
        position = match.end()
    rest = smiles[position:]
    if rest.startswith("[") and "]" in rest:
        return UnknownToken(rest[: rest.index("]") + 1], smiles, "not a bracket atom")
    return UnknownToken(rest[:1], smiles, "not SMILES syntax")


class SmilesTokenizer(Tokenizer):
    """One token per atom, bond, ring closure, branch or dot.

    Raises
    ------
    ValueError
        If a vocabulary entry is not one SMILES token.
    """

    kind: ClassVar[str] = "smiles"
    split = staticmethod(split_smiles)

    def __init__(self, vocab: Iterable[str]) -> None:
        super().__init__(vocab)
        for token in self._ids:
            if not TOKEN_PATTERN.fullmatch(token):
                raise ValueError(f"vocab: expected SMILES tokens, got {token!r}")

    def encode(self, smiles: str) -> list[int]:
        """Token ids of one SMILES, without special tokens.

        Raises
        ------
        UnknownToken
            If a part of the text is no SMILES token, or a token that is not in the vocabulary.
        """
        tokens = _findall(smiles)
        if "".join(tokens) != smiles:
            raise _unmatched(smiles)
        try:
            return list(map(self._ids.__getitem__, tokens))
        except KeyError as error:
            raise UnknownToken(error.args[0], smiles, "not in the vocabulary") from None

    @classmethod
    def train(cls, smiles: Iterable[str], min_count: int = 1, max_size: int | None = None) -> Self:
        """Vocabulary of a collection of SMILES.

        Parameters
        ----------
        smiles : iterable of str
            Texts that can't be split count nothing: `encode` refuses them whatever the vocabulary.
        min_count, max_size
            See `from_counts`.
        """
        return cls.from_counts(count_tokens(smiles), min_count, max_size)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], min_count: int = 1, max_size: int | None = None) -> Self:
        """Vocabulary of counted tokens (counts of several processes can be added up first).

        Parameters
        ----------
        counts : mapping of str to int
            Token to number of occurrences.
        min_count : int
            Rarer tokens are left out, `BASE_TOKENS` never.
        max_size : int, optional
            Largest `vocab_size`, special and base tokens included; 256 lets ids fit into a byte.

        Returns
        -------
        SmilesTokenizer
            Ids by falling count, ties by text, so that the same counts always give the same ids.
        """
        return cls(vocab_from_counts(counts, BASE_TOKENS, min_count, max_size))


def count_tokens(smiles: Iterable[str]) -> Counter[str]:
    """Occurrences of each token; texts that can't be split count nothing."""
    counts: Counter[str] = Counter()
    for text in smiles:
        tokens = _findall(text)
        if "".join(tokens) == text:
            counts.update(tokens)
    return counts
