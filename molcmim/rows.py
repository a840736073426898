"""Text rows to token rows: preparation, encoding, token limit, each failure a status. No torch in here.

>>> rows = tokenize_rows(["OCC", "", "C1CC"], tokenizer, max_tokens=200)       # doctest: +SKIP
>>> [str(status) for status in rows.status]                                    # doctest: +SKIP
['ok', 'empty', 'parse_error']
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from molcmim.chem import Prepared, Status, prepare_many
from molcmim.tokenizer import Tokenizer, UnknownToken


class TokenRows(NamedTuple):
    """N rows, in the order of the input; a row that isn't `ok` has no tokens, but keeps its place."""

    tokens: list[list[int] | None]  #: token ids without special tokens
    status: list[Status]
    canonical_smiles: list[str | None]  #: also of rows that fail only as tokens
    unknown: list[str | None]  #: the first piece without a token, where the status is `unknown_token`

    @property
    def ok(self) -> list[int]:
        """Positions of the rows that have tokens."""
        return [i for i, status in enumerate(self.status) if status is Status.ok]


def tokenize_rows(
    smiles: Iterable[object],
    tokenizer: Tokenizer,
    max_tokens: int,
    policy: str = "canonical",
    workers: int | None = None,
) -> TokenRows:
    """Prepare and encode molecules.

    Parameters
    ----------
    smiles
        SMILES texts, RDKit molecules, None or NaN, in any mixture.
    tokenizer
        The model's.
    max_tokens
        Rows of more tokens (`Tokenizer.length`) get the status `too_many_tokens`; nothing is cut.
    policy
        ``"none"``, ``"canonical"`` or ``"parent"``, see `molcmim.chem`.
    workers
        Processes that parse, see `molcmim.chem.prepare_many`.

    Returns
    -------
    TokenRows
        As many rows as came in.
    """
    return tokenize_prepared(prepare_many(smiles, policy=policy, workers=workers), tokenizer, max_tokens)


def tokenize_prepared(prepared: Sequence[Prepared], tokenizer: Tokenizer, max_tokens: int) -> TokenRows:
    """The second half of `tokenize_rows`, for rows that `molcmim.chem` has prepared already."""
    rows = TokenRows([], [], [], [])
    for canonical_smiles, status in prepared:
        tokens: list[int] | None = None
        unknown: str | None = None
        if status is Status.ok and canonical_smiles is not None:
            try:
                tokens = tokenizer.encode(canonical_smiles)
            except UnknownToken as error:
                status, unknown = Status.unknown_token, error.token
            if tokens is not None and tokenizer.length(tokens) > max_tokens:
                status, tokens = Status.too_many_tokens, None
        rows.tokens.append(tokens)
        rows.status.append(status)
        rows.canonical_smiles.append(canonical_smiles)
        rows.unknown.append(unknown)
    return rows
