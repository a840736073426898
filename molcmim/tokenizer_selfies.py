"""SELFIES tokens. The `selfies` and `rdkit` packages are imported where they are used."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from .tokenizer_base import Tokenizer, UnknownToken, check_header, vocab_from_counts
from .tokenizer_smiles import split_smiles

_SYMBOL = re.compile(r"\[[^\[\]<>\s]+\]|\.")
_ELEMENT_AND_CHARGE = re.compile(r"[A-Z][a-z]?(?:[+-][1-9][0-9]*)?|\?")

# selfies and RDKit both recurse: far longer texts end the process rather than raise.
MAX_CHARS = 4000

# The rules of valence are a global of the selfies package; who changes it holds this lock.
_constraints_lock = threading.RLock()


class SelfiesTokenizer(Tokenizer):
    """One token per SELFIES symbol (Krenn et al. 2020, doi:10.1088/2632-2153/aba947; selfies 2).

    SELFIES re-writes the molecule (Kekulé form, its own atom order), so "lossless" here means that the
    decoded text has the same RDKit canonical SMILES. What SELFIES cannot hold raises `UnknownToken`: ``*``,
    dative and quadruple bonds, atom-map numbers, chirality other than ``@`` and ``@@``, ring bonds across a
    dot, and atoms over their allowed valence.

    Parameters
    ----------
    vocab : iterable of str
    constraints : mapping of str to int
        Most bonds for an atom, e.g. ``{"C": 4, "N+1": 4, "?": 8}`` (`selfies.set_semantic_constraints`). They
        decide what any row of ids decodes to, so they are part of the vocabulary file; whatever the program
        has set in the selfies package is left as it was after each call.

    Raises
    ------
    ValueError
        If an entry of either is not what SELFIES can use.
    """

    kind: ClassVar[str] = "selfies"

    def __init__(self, vocab: Iterable[str], constraints: Mapping[str, int]) -> None:
        super().__init__(vocab)
        for token in self._ids:
            if not _SYMBOL.fullmatch(token):
                raise ValueError(f"vocab: expected SELFIES symbols, got {token!r}")
        self.constraints = _checked_constraints(constraints)

    def encode(self, smiles: str, check: bool = True) -> list[int]:
        """Token ids of one SMILES, without special tokens.

        Parameters
        ----------
        smiles : str
        check : bool
            Decode again and compare canonical SMILES (RDKit, 3-4 times the work). Without it a molecule that
            SELFIES changes, e.g. by dropping atom-map numbers, passes.

        Raises
        ------
        UnknownToken
            If SELFIES can't hold the molecule, or one of its symbols is not in the vocabulary.
        """
        tokens = _split_selfies(smiles, self.constraints)
        try:
            ids = [self._ids[token] for token in tokens]
        except KeyError as error:
            raise UnknownToken(error.args[0], smiles, "not in the vocabulary") from None
        if check:
            wanted = _canonical(smiles)
            if wanted is None:
                raise UnknownToken(smiles, smiles, "RDKit can't read it, so nothing to compare with")
            decoded = self.text_of(tokens)
            if _canonical(decoded) != wanted:
                raise UnknownToken(smiles, smiles, f"SELFIES changes the molecule to {decoded[:200]!r}")
        return ids

    def text_of(self, tokens: list[str]) -> str:
        """SMILES (Kekulé form) of the symbols; any sequence is a molecule within `constraints`."""
        import selfies

        with _semantic_constraints(self.constraints):
            try:
                return str(selfies.decoder("".join(tokens)))
            except (selfies.DecoderError, RecursionError) as error:
                raise ValueError(f"tokens: expected SELFIES symbols, got {tokens[:200]}: {error}") from error

    @classmethod
    def train(
        cls,
        smiles: Iterable[str],
        min_count: int = 1,
        max_size: int | None = None,
        constraints: str | Mapping[str, int] = "default",
    ) -> Self:
        """Vocabulary of a collection of SMILES, most frequent first, ties by text.

        Parameters
        ----------
        smiles : iterable of str
            Texts that SELFIES can't hold count nothing: `encode` refuses them whatever the vocabulary.
        min_count : int
            Rarer symbols are left out, those of selfies' `get_semantic_robust_alphabet` never.
        max_size : int, optional
            Largest `vocab_size`; the rarest symbols are left out.
        constraints : str or mapping
            ``"default"``, ``"octet_rule"``, ``"hypervalent"`` or a mapping. The default (N 3, Cl 1, S 6, P 5)
            keeps SELFIES' promise for the elements it lists: whatever is sampled has sensible valences. It
            refuses texts such as ``OCl(=O)(=O)=O`` and ``CN(=O)=O``, but not their canonical SMILES, which
            RDKit writes with separated charges; so relaxing it ("hypervalent") gains next to nothing.
        """
        import selfies

        rules = selfies.get_preset_constraints(constraints) if isinstance(constraints, str) else constraints
        rules = _checked_constraints(rules)
        counts: Counter[str] = Counter()
        for text in smiles:
            try:
                counts.update(_split_selfies(text, rules))
            except UnknownToken:
                continue
        with _semantic_constraints(rules):
            base = {*selfies.get_semantic_robust_alphabet(), "."}
        return cls(vocab_from_counts(counts, base, min_count, max_size), rules)

    def to_json(self) -> dict[str, Any]:
        """The vocabulary file's content."""
        return {**super().to_json(), "constraints": dict(sorted(self.constraints.items()))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; raises ValueError that says what is wrong with `data`."""
        check_header(data, cls.kind)
        return cls(data["vocab"], _checked_constraints(data.get("constraints")))


def _split_selfies(smiles: str, constraints: Mapping[str, int]) -> list[str]:
    """SELFIES symbols of a SMILES, or UnknownToken."""
    import selfies

    if len(smiles) > MAX_CHARS:
        raise UnknownToken(smiles[:20], smiles, f"{len(smiles)} characters, SELFIES takes up to {MAX_CHARS}")
    split_smiles(smiles)  # refuses what is no SMILES syntax, with a better message than selfies' own
    with _semantic_constraints(constraints):
        try:
            text = str(selfies.encoder(smiles, strict=True))
        except selfies.EncoderError as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise UnknownToken(smiles, smiles, f"SELFIES: {reason}") from error
        except (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            # selfies expects a parsable SMILES and stumbles over other texts in all these ways.
            raise UnknownToken(smiles, smiles, f"SELFIES: {type(error).__name__}") from error
    return list(selfies.split_selfies(text))


def _canonical(smiles: str) -> str | None:
    """RDKit canonical isomeric SMILES, or None if RDKit can't read the text."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        return None if mol is None else str(Chem.MolToSmiles(mol))


@contextmanager
def _semantic_constraints(wanted: Mapping[str, int]) -> Iterator[None]:
    """Set selfies' global constraints for a moment; setting clears its caches, so only where they differ."""
    import selfies

    with _constraints_lock:
        before = selfies.get_semantic_constraints()
        if before == wanted:
            yield
            return
        selfies.set_semantic_constraints(dict(wanted))
        try:
            yield
        finally:
            selfies.set_semantic_constraints(before)


def _checked_constraints(constraints: object) -> dict[str, int]:
    if not isinstance(constraints, Mapping) or "?" not in constraints:
        raise ValueError(f"constraints: expected a mapping with the key '?', got {constraints!r}")
    for key, bonds in constraints.items():
        if not isinstance(key, str) or not _ELEMENT_AND_CHARGE.fullmatch(key):
            raise ValueError(f"constraints: expected keys like 'N' or 'N+1', got {key!r}")
        if type(bonds) is not int or bonds < 0:
            raise ValueError(f"constraints[{key!r}]: expected an integer >= 0, got {bonds!r}")
    return dict(constraints)
