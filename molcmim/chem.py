"""Text to a checked molecule: the closed list of statuses, the policies, and preparation of rows.

A row is anything a table may hold: text, bytes, None, NaN or an RDKit molecule. It is first screened without
RDKit (`screen`), because RDKit silently misreads some texts ("CCO ethanol" loses its end, "Cé" becomes
methane) and dies on others (writing a 20,000-carbon chain overflows the C++ stack, which no `try` can catch).
What passes is parsed and written again (`canonicalise`). For bulk work the second step runs in child
processes that may die or be killed at the cost of one row: see `molcmim.worker_pool`.

RDKit is imported by the first call that needs it, so importing this module is cheap.

How MAX_CHARS = 2,000 was chosen (RDKit 2026.09.1 and 2026.03.5, Linux x86-64 wheels). Writing a SMILES
recurses once per atom and takes 400 to 500 bytes of stack for each. A chain or a macrocycle of 2,000 carbons,
the worst case under the cap, needs between 0.75 and 1 MiB; the usual stack is 8 MiB, where the first death
comes between 16,000 and 20,000 atoms. Tried at or below the cap without a death, in the main thread and (all
but the graphs) in threads of 1 MiB: chains, macrocycles, nested branches, bare nested parentheses, 1,000
fragments, small rings, spiro and fused rings, 125 ring closures open at once, complete and complete bipartite
graphs of dummy atoms, hypercubes, Paley, Kneser and rook graphs, tori, random regular graphs, fullerenes,
acenes, cumulenes, hundreds of stereo centres and double bonds, bracket atoms with absurd isotopes, charges
and maps, and 200,000 random strings from a grammar of such pieces. The slowest took 0.8 s and 220 MiB (the
complete bipartite graph on 14 + 14 dummy atoms), the largest 284 MiB (the macrocycle). The longest SMILES of
MoleculeNet has 1,340 characters.
"""

from __future__ import annotations

import functools
import math
import numbers
import os
import re
import sys
from collections.abc import Iterable, Mapping, Set
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from molcmim.worker_pool import WorkerPool as WorkerPool

POLICIES = ("none", "canonical", "parent")
MAX_CHARS = 2000  # see the module's docstring
MAX_BLOCK_CHARS = 1 << 18  # of a mol block; one of 2,000 atoms takes about 160,000

TIMEOUT_SECONDS = 10.0  # for one row in a worker; the slowest row found under the cap takes 0.8 s
MEMORY_MB = 2048  # for one worker beyond what it needs to start; the largest row found takes 0.3 GB
IN_PROCESS_ROWS = 200  # below this, starting workers costs more than it protects

_BLANKS = " \t\n\r\v\f"
_BLANK_OR_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_MISSING_TYPES = frozenset({"NAType", "NaTType", "MaskedConstant"})  # pandas.NA, pandas.NaT, numpy.ma.masked
_RDKIT_ERRORS = (RuntimeError, ValueError, ArithmeticError, LookupError)  # TypeError would be our own mistake


class Status(StrEnum):
    """What became of a row. A row that is not `ok` has no canonical SMILES and no vector."""

    ok = "ok"
    empty = "empty"  # None, NaN, pandas.NA, "" or blanks only
    not_ascii = "not_ascii"  # text or bytes with anything outside ASCII
    too_many_chars = "too_many_chars"  # the text, or its canonical form, is longer than max_chars
    parse_error = "parse_error"  # not a SMILES: a blank or control character inside, or RDKit refuses it
    zero_atoms = "zero_atoms"  # a molecule without atoms
    timeout = "timeout"  # the row took too long in its worker
    crash = "crash"  # the row killed its worker, or ran out of memory
    unknown_token = "unknown_token"  # given later, by the tokenizer
    too_many_tokens = "too_many_tokens"  # given later, by the model's input length


class Prepared(NamedTuple):
    """A row after preparation.

    Attributes
    ----------
    canonical_smiles
        The SMILES to use (under policy `none`: the given text without the blanks around it), None unless
        `ok`.
    status
        What became of the row.
    """

    canonical_smiles: str | None
    status: Status


class MolBlock(str):
    """A molecule as a mol block (V2000 or V3000), given as a row where others give a SMILES."""

    __slots__ = ()


class PreparedBlock(Prepared):
    """What became of a `MolBlock`; `smiles` is the SMILES that RDKit wrote of it, "" unless `ok`."""

    smiles: str = ""


class _RDKit(NamedTuple):
    """The parts of RDKit in use, imported once."""

    chem: Any
    base: Any
    parser: Any  # SmilesParserParams: neither CXSMILES extensions nor names


def prepare(smiles: object, policy: str = "canonical", max_chars: int = MAX_CHARS) -> Prepared:
    """Check one row and write it in canonical form, in this process.

    The checks, in this order, each ending the row: missing or blank (`empty`); any character outside ASCII
    (`not_ascii`); more than `max_chars` characters (`too_many_chars`); a blank or control character inside,
    or a text that RDKit doesn't accept (`parse_error`); no atoms (`zero_atoms`). ASCII comes before length so
    that a row has the same status as text and as bytes, whose length in characters depends on an encoding.
    With the default `max_chars` no input is known to kill the process; with a larger one use workers
    (`prepare_many`, `WorkerPool`).

    Parameters
    ----------
    smiles
        str, bytes, None, NaN, a `MolBlock` or an RDKit molecule; anything else is a `parse_error`. Blanks
        around are ignored. A mol block may have MAX_BLOCK_CHARS characters; the SMILES that RDKit writes of it
        (isomeric, without explicit hydrogens) then gets what any SMILES gets, also under policy `none`.
    policy
        `none`: the given text after the checks that need no parsing. `canonical`: RDKit's canonical isomeric
        SMILES. `parent`: the same of the largest fragment, neutralised where possible (rdMolStandardize's
        LargestFragmentChooser and Uncharger); about a third of the speed.
    max_chars
        Longest text accepted, in characters, both as given and as written.

    Returns
    -------
    Prepared

    Raises
    ------
    ValueError
        If `policy` or `max_chars` is not one of the allowed values.

    Examples
    --------
    >>> prepare("C(C)O").canonical_smiles
    'CCO'
    >>> prepare("CCO ethanol").status
    <Status.parse_error: 'parse_error'>
    """
    check_options(policy, max_chars)
    row = screen(smiles, max_chars)
    if row.canonical_smiles is None or not must_parse(row.canonical_smiles, policy):
        return row
    with _rdkit().base.BlockLogs():  # restores the caller's log settings
        return _canonicalise_or_crash(row.canonical_smiles, policy, max_chars)


def prepare_many(
    smiles: Iterable[object],
    policy: str = "canonical",
    max_chars: int = MAX_CHARS,
    workers: int | None = None,
    timeout: float = TIMEOUT_SECONDS,
    memory_mb: int | None = MEMORY_MB,
) -> list[Prepared]:
    """Check many rows and write them in canonical form: N rows in, N rows out, in order.

    Parameters
    ----------
    smiles
        List, tuple, generator, pandas Series, NumPy or Arrow array of rows (see `prepare`).
    policy, max_chars
        See `prepare`.
    workers
        Number of child processes. 0: none, in this process, where a row can neither be timed out nor die
        alone. None: 0 for fewer than 200 rows, else as many as there are rows for, at most one per CPU.
    timeout
        Seconds that one row may take in a worker before it is killed (status `timeout`).
    memory_mb
        MiB that a worker may take on top of what it needs to start; None: no limit. Enforced on Linux.

    Returns
    -------
    list of Prepared, length N

    Raises
    ------
    TypeError
        If `smiles` is a single text or molecule, or not a sequence of rows.
    ValueError
        If an option is out of range.
    RuntimeError
        If worker processes can't be started.
    """
    check_options(policy, max_chars)
    rows = to_text_list(smiles)
    if workers is None:
        workers = min(cpu_count(), len(rows) // IN_PROCESS_ROWS)
    if workers < 0:
        raise ValueError(f"workers: expected None, 0 or more, got {workers}")
    if workers and any(must_parse(row, policy) for row in rows):
        from molcmim.worker_pool import WorkerPool

        with WorkerPool(workers, policy, max_chars, timeout, memory_mb) as pool:
            return pool.map(rows)
    screened = [screen(row, max_chars) for row in rows]
    if not any(must_parse(row.canonical_smiles, policy) for row in screened):
        return screened
    with _rdkit().base.BlockLogs():
        return [
            row if text is None or not must_parse(text, policy) else _canonicalise_or_crash(text, policy, max_chars)
            for row in screened
            for text in [row.canonical_smiles]
        ]


def screen(smiles: object, max_chars: int = MAX_CHARS) -> Prepared:
    """All checks of `prepare` that don't parse; `ok` here means: worth parsing.

    A molecule is written as SMILES first (RDKit needs at least one character per atom, so one with more atoms
    than `max_chars` is refused before that). Its conformers, atom properties and names are not looked at.
    """
    if isinstance(smiles, str):
        text = smiles.strip(_BLANKS)
        ascii_only = text.isascii()
    elif isinstance(smiles, bytes | bytearray):
        raw = bytes(smiles).strip()
        ascii_only = raw.isascii()
        text = raw.decode("ascii", errors="replace")
    elif _is_missing(smiles):
        return Prepared(None, Status.empty)
    elif _is_molecule(smiles):
        return _write_molecule(smiles, max_chars)
    else:
        return Prepared(None, Status.parse_error)
    if not text:
        return Prepared(None, Status.empty)
    if not ascii_only:
        return Prepared(None, Status.not_ascii)
    if len(text) > (MAX_BLOCK_CHARS if isinstance(smiles, MolBlock) else max_chars):
        return Prepared(None, Status.too_many_chars)
    if isinstance(smiles, MolBlock):  # many lines, of which the first may be blank
        return Prepared(smiles, Status.ok)
    if _BLANK_OR_CONTROL.search(text):
        return Prepared(None, Status.parse_error)
    return Prepared(text, Status.ok)


def must_parse(row: object, policy: str) -> bool:
    """Whether RDKit has to see the row: under policy `none` only mol blocks."""
    return row is not None and (policy != "none" or isinstance(row, MolBlock))


def canonicalise(text: str, policy: str, max_chars: int = MAX_CHARS) -> Prepared:
    """Parse a text that passed `screen` and write it in canonical form; RDKit's log settings are left alone.

    Writing once is enough for real molecules to be written the same again; some highly symmetric graphs
    (tori, Kneser graphs) are not, in RDKit itself.

    Raises
    ------
    MemoryError
        If RDKit runs out of memory; the caller decides what that costs.
    """
    if isinstance(text, MolBlock):
        return _canonicalise_block(text, policy, max_chars)
    chem, _, parser = _rdkit()
    try:
        molecule = chem.MolFromSmiles(text, parser)
        if molecule is None:
            return Prepared(None, Status.parse_error)
        if policy == "parent" and molecule.GetNumAtoms():
            molecule = _parent(molecule)
            if molecule is None:
                return Prepared(None, Status.parse_error)
        if molecule.GetNumAtoms() == 0:
            return Prepared(None, Status.zero_atoms)
        canonical_smiles = chem.MolToSmiles(molecule)
    except _RDKIT_ERRORS:
        return Prepared(None, Status.parse_error)
    if len(canonical_smiles) > max_chars:  # so that whatever is returned is itself accepted
        return Prepared(None, Status.too_many_chars)
    return Prepared(canonical_smiles, Status.ok)


def _canonicalise_block(block: MolBlock, policy: str, max_chars: int) -> Prepared:
    """A mol block as the SMILES that RDKit writes of it, and that prepared as any other."""
    try:
        molecule = _rdkit().chem.MolFromMolBlock(block)
    except _RDKIT_ERRORS:
        molecule = None
    row = Prepared(None, Status.parse_error) if molecule is None else _write_molecule(molecule, max_chars)
    if row.canonical_smiles is None:
        return row
    answer = PreparedBlock(*(row if policy == "none" else canonicalise(row.canonical_smiles, policy, max_chars)))
    answer.smiles = row.canonical_smiles if answer.status is Status.ok else ""
    return answer


def to_text_list(smiles: object) -> list[object]:
    """List the rows of any sequence of rows, unchanged.

    Parameters
    ----------
    smiles
        List, tuple, generator, pandas Series, one-dimensional NumPy array (object, str or bytes), Arrow
        array. The rows themselves may be anything that `prepare` takes.

    Returns
    -------
    list, length N

    Raises
    ------
    TypeError
        If `smiles` is one text or one molecule, has no order (set, dict) or more than one column.
    """
    kind = type(smiles).__name__
    if isinstance(smiles, str | bytes | bytearray) or _is_molecule(smiles):
        raise TypeError(f"smiles: expected a list of molecules, got a single {kind}; pass [smiles]")
    if isinstance(smiles, Set | Mapping):
        raise TypeError(f"smiles: expected a list of molecules, got a {kind}, which has no row order")
    if hasattr(smiles, "columns") or getattr(smiles, "ndim", 1) != 1:
        raise TypeError(f"smiles: expected one column of molecules, got a {kind} that is not one-dimensional")
    for convert in ("to_pylist", "tolist"):  # Arrow; NumPy and pandas, as plain Python objects
        if hasattr(smiles, convert):
            return list(getattr(smiles, convert)())
    if not isinstance(smiles, Iterable):
        raise TypeError(f"smiles: expected a list of molecules, got {kind}")
    return list(smiles)


def check_options(policy: str, max_chars: int) -> None:
    """Raise ValueError unless `policy` is one of POLICIES and `max_chars` at least 1."""
    if policy not in POLICIES:
        raise ValueError(f"policy: expected one of {', '.join(POLICIES)}, got {policy!r}")
    if isinstance(max_chars, bool) or not isinstance(max_chars, int) or max_chars < 1:
        raise ValueError(f"max_chars: expected an integer of at least 1, got {max_chars!r}")


def cpu_count() -> int:
    """Number of CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _canonicalise_or_crash(text: str, policy: str, max_chars: int) -> Prepared:
    try:
        return canonicalise(text, policy, max_chars)
    except MemoryError:
        return Prepared(None, Status.crash)


def _write_molecule(molecule: Any, max_chars: int) -> Prepared:
    """An RDKit molecule as text; it is parsed again later, so that it gets what its SMILES would get."""
    if molecule.GetNumAtoms() == 0:
        return Prepared(None, Status.zero_atoms)
    if molecule.GetNumAtoms() > max_chars:
        return Prepared(None, Status.too_many_chars)
    chem, base, _ = _rdkit()
    try:
        with base.BlockLogs():
            text = chem.MolToSmiles(molecule)
    except _RDKIT_ERRORS:
        return Prepared(None, Status.parse_error)
    return screen(text, max_chars)


def _parent(molecule: Any) -> Any | None:
    """The largest fragment, neutralised unless that leaves nonsense, as with the charged rings of ferrocene."""
    chem, _, parser = _rdkit()
    chooser, uncharger = _standardizers()
    fragment = chooser.choose(molecule)
    # Choosing and neutralising leave stereo and aromaticity as they were perceived on the whole molecule;
    # parsing the written SMILES perceives them on the parent alone.
    try:
        parent = chem.MolFromSmiles(chem.MolToSmiles(uncharger.uncharge(fragment)), parser)
    except _RDKIT_ERRORS:
        parent = None
    return parent if parent is not None else chem.MolFromSmiles(chem.MolToSmiles(fragment), parser)


def _is_missing(value: object) -> bool:
    if value is None or type(value).__name__ in _MISSING_TYPES:
        return True
    return isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral) and math.isnan(value)


def _is_molecule(value: object) -> bool:
    if "rdkit.Chem.rdchem" not in sys.modules:  # then nobody can have made one
        return False
    return isinstance(value, _rdkit().chem.Mol)


@functools.cache
def _rdkit() -> _RDKit:
    from rdkit import Chem, rdBase

    parser: Any = Chem.SmilesParserParams()
    parser.allowCXSMILES = False
    parser.parseName = False
    return _RDKit(Chem, rdBase, parser)


@functools.cache
def _standardizers() -> tuple[Any, Any]:
    from rdkit.Chem.MolStandardize import rdMolStandardize

    return rdMolStandardize.LargestFragmentChooser(), rdMolStandardize.Uncharger()


def __getattr__(name: str) -> Any:
    if name == "WorkerPool":  # lives in its own file, which imports this one
        from molcmim.worker_pool import WorkerPool

        return WorkerPool
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
