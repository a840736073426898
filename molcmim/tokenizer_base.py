"""What every tokenizer shares: special tokens, decoding, and the versioned vocabulary file."""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from molcmim.beside import written_beside

FORMAT_VERSION = 1
PAD, BOS, EOS, MASK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<mask>")


class UnknownToken(ValueError):
    """A SMILES that the tokenizer cannot write down without loss.

    Attributes
    ----------
    token : str
        The first piece that has no token (for SELFIES possibly the encoder's reason).
    smiles : str
        The whole text.
    """

    def __init__(self, token: str, smiles: str, reason: str = "no token for it") -> None:
        super().__init__(f"unknown token {token[:80]!r} in {smiles[:200]!r}: {reason}")
        self.token = token
        self.smiles = smiles
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnknownToken], tuple[str, str, str]]:
        return type(self), (self.token, self.smiles, self.reason)


class Tokenizer:
    """SMILES to token ids and back, without loss.

    Subclasses give `kind`, `encode` and, where joining the tokens is not enough, `text_of`.

    Parameters
    ----------
    vocab : iterable of str
        Index = id; starts with `SPECIALS`, no duplicates.

    Raises
    ------
    ValueError
        If the vocabulary is not one that this tokenizer can use.
    """

    kind: ClassVar[str] = ""

    def __init__(self, vocab: Iterable[str]) -> None:
        self.vocab: list[str] = _checked_vocab(vocab)
        self._ids: dict[str, int] = {token: i for i, token in enumerate(self.vocab) if i >= len(SPECIALS)}

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self.vocab)

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the sha256 of the vocabulary file's content: equal means the same ids."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode("ascii")).hexdigest()[:16]

    def encode(self, smiles: str) -> list[int]:
        """Token ids of one SMILES, without special tokens; raises `UnknownToken` rather than lose a part."""
        raise NotImplementedError

    def length(self, ids: Sequence[int]) -> int:
        """Number of tokens that limits count: of byte-pair tokens the atom-level ones that they join."""
        return len(ids)

    def parts(self) -> list[list[int]]:
        """For every id the ids that it is made of, in order: itself, or the atom-level tokens that it joins."""
        return [[i] for i in range(self.vocab_size)]

    def text_of(self, tokens: list[str]) -> str:
        """SMILES that a list of tokens (no special ones) stands for."""
        return "".join(tokens)

    def decode(self, ids: Iterable[int]) -> str:
        """SMILES of one row of ids: stops at EOS, skips PAD and BOS.

        MASK is written out as ``<mask>``, so that a molecule with a hole does not read as a smaller molecule.

        Raises
        ------
        ValueError
            If an id is outside the vocabulary.
        """
        parts: list[list[str]] = [[]]  # runs of tokens between MASKs
        for value in ids:
            i = operator.index(value)
            if i == EOS:
                break
            if i in (PAD, BOS):
                continue
            if not 0 <= i < len(self.vocab):
                raise ValueError(f"ids: expected values in 0..{len(self.vocab) - 1}, got {i}")
            if i == MASK:
                parts.append([])
            else:
                parts[-1].append(self.vocab[i])
        return SPECIALS[MASK].join(self.text_of(part) if part else "" for part in parts)

    def to_json(self) -> dict[str, Any]:
        """The vocabulary file's content."""
        return {"format_version": FORMAT_VERSION, "kind": self.kind, "vocab": list(self.vocab)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; raises ValueError that says what is wrong with `data`."""
        check_header(data, cls.kind)
        return cls(data["vocab"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as JSON, beside `path` first and then renamed."""
        path = Path(path)
        with written_beside(path) as part:
            part.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="ascii")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, fingerprint={self.fingerprint!r})"


def check_header(data: object, kind: str | None = None) -> None:
    """Refuse what is not a vocabulary of this format, version and (if given) kind: ValueError."""
    if not isinstance(data, Mapping):
        raise ValueError(f"vocabulary: expected a JSON object, got {type(data).__name__}")
    version = data.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"vocabulary format_version: expected an integer >= 1, got {version!r}")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"vocabulary format_version: expected <= {FORMAT_VERSION}, got {version}; "
            "the file is from a newer molcmim, so upgrade molcmim to read it"
        )
    if kind is not None and data.get("kind") != kind:
        raise ValueError(f"vocabulary kind: expected {kind!r}, got {data.get('kind')!r}")
    vocab = data.get("vocab")
    if not isinstance(vocab, list):
        raise ValueError(f"vocabulary vocab: expected a list of tokens, got {type(vocab).__name__}")


def vocab_from_counts(
    counts: Mapping[str, int], base: Collection[str], min_count: int, max_size: int | None
) -> list[str]:
    """Special tokens, then `base` and every token seen `min_count` times: by falling count, ties by text.

    With `max_size` (special and base tokens included) the rarest tokens outside `base` are left out.
    """
    if min_count < 1:
        raise ValueError(f"min_count: expected >= 1, got {min_count}")
    always = frozenset(base)
    extra = [t for t in counts if t not in always and counts[t] >= min_count]
    extra.sort(key=lambda token: (-counts[token], token))
    if max_size is not None:
        room = max_size - len(SPECIALS) - len(always)
        if room < 0:
            raise ValueError(f"max_size: expected >= {len(SPECIALS) + len(always)}, got {max_size}")
        extra = extra[:room]
    kept = sorted(always.union(extra), key=lambda token: (-counts.get(token, 0), token))
    return [*SPECIALS, *kept]


def _checked_vocab(vocab: Iterable[str]) -> list[str]:
    tokens = list(vocab)
    for i, token in enumerate(tokens):
        if not isinstance(token, str) or not token:
            raise ValueError(f"vocab[{i}]: expected a non-empty string, got {token!r}")
    if tuple(tokens[: len(SPECIALS)]) != SPECIALS:
        raise ValueError(f"vocab: expected it to start with {list(SPECIALS)}, got {tokens[: len(SPECIALS)]}")
    if len(set(tokens)) != len(tokens):
        seen: set[str] = set()
        twice = sorted({t for t in tokens if t in seen or seen.add(t)})  # type: ignore[func-returns-value]
        raise ValueError(f"vocab: expected no duplicates, got these more than once: {twice[:10]}")
    return tokens
