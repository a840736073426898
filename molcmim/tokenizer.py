"""Tokenizers: SMILES text to token ids and back, lossless or refused.

`SmilesTokenizer` (atom level, the default), `SelfiesTokenizer` and `BpeTokenizer` share one interface
(`Tokenizer`). "Lossless" means that decoding gives the same text, for SELFIES the same canonical SMILES; what
can't be written so raises `UnknownToken`, which is the row status ``unknown_token``.

>>> tokenizer = SmilesTokenizer.train(["CCO", "c1ccccc1"])
>>> tokenizer.decode(tokenizer.encode("OCC"))
'OCC'
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .tokenizer_base import (
    BOS,
    EOS,
    FORMAT_VERSION,
    MASK,
    PAD,
    SPECIALS,
    Tokenizer,
    UnknownToken,
    check_header,
)
from .tokenizer_bpe import BpeTokenizer
from .tokenizer_selfies import SelfiesTokenizer
from .tokenizer_smiles import BASE_TOKENS, SmilesTokenizer, count_tokens, split_smiles

KINDS: dict[str, type[Tokenizer]] = {t.kind: t for t in (SmilesTokenizer, SelfiesTokenizer, BpeTokenizer)}

__all__ = [
    "BASE_TOKENS",
    "BOS",
    "EOS",
    "FORMAT_VERSION",
    "KINDS",
    "MASK",
    "PAD",
    "SPECIALS",
    "BpeTokenizer",
    "SelfiesTokenizer",
    "SmilesTokenizer",
    "Tokenizer",
    "UnknownToken",
    "count_tokens",
    "load_tokenizer",
    "split_smiles",
    "tokenizer_from_json",
]


def tokenizer_from_json(data: Mapping[str, Any]) -> Tokenizer:
    """Tokenizer of any kind from the content of a vocabulary file; ValueError says what is wrong with it."""
    check_header(data)
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"vocabulary kind: expected one of {sorted(KINDS)}, got {kind!r}")
    return KINDS[kind].from_json(data)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Tokenizer from a vocabulary file (``vocab.json``).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not JSON, not a vocabulary, damaged, or from a newer format.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        return tokenizer_from_json(data)
    except RecursionError as error:
        raise ValueError(f"{path}: not a vocabulary, nested too deeply") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors too
        raise ValueError(f"{path}: {error}") from error
