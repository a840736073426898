"""The statistics of MOSES' test sets as published in the `molsets` wheel, read without running anything of theirs.

They are NumPy object arrays, so pickles: programs, which molcmim doesn't run. Computing them again would take a quarter
of an hour on two cores, most of it ChemNet. So `read_statistics` takes two precautions. It opens only the two files
whose sha256 is known. And it isn't an unpickler: it walks through the opcodes with `pickletools`, which executes
nothing, and knows only how dictionaries, lists, numbers, texts and plain arrays are spelled there; whatever else
comes is an error.

>>> read_statistics(data)                                                            # doctest: +SKIP
{'FCD': {'mu': ..., 'sigma': ...}, 'SNN': {'fps': ...}, 'Frag': {'frag': {...}}, 'Scaf': {'scaf': {...}}, ...}
"""

from __future__ import annotations

import hashlib
import io
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

#: sha256 of molsets 0.3.1's moses/dataset/data/{split}_stats.npz
KNOWN_SHA256: Mapping[str, str] = {
    "test": "ded25073225a895d4ed17bf1d4223d27560e87ff4cb85786346ca1cc8efa03d3",
    "test_scaffolds": "7b7aba6c1474634a019bebf16f389d554cb9dd1021dfc8c1d1e54430a9f0e7f8",
}
MEMBER = "stats.npy"
_NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE"})
_CONSTANTS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Name(NamedTuple):
    """A name of something to be called; nothing is looked up."""

    text: str


class _Mark:
    """Where the items of a tuple, list or dictionary begin."""


class _Array:
    """An array that has been announced; `fill` gives it its content."""

    value: Any = None

    def fill(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, content = state
        if dtype.kind == "O":
            self.value = content
            return
        flat = np.frombuffer(content, dtype=np.dtype(dtype.order + dtype.kind))
        self.value = flat.reshape(shape, order="F" if fortran_order else "C")


class _Dtype:
    """A dtype that has been announced: its kind first, the byte order later."""

    def __init__(self, kind: str) -> None:
        self.kind = "O" if kind == "O8" else kind
        self.order = "|"

    def fill(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])


def is_known(data: bytes, split: str) -> bool:
    """Whether the bytes are the published statistics of `test` or `test_scaffolds`."""
    return hashlib.sha256(data).hexdigest() == KNOWN_SHA256.get(split)


def read_statistics(data: bytes, split: str) -> dict[str, dict[str, Any]]:
    """The published statistics of a test set.

    Parameters
    ----------
    data
        Content of ``test_stats.npz`` or ``test_scaffolds_stats.npz``.
    split
        ``"test"`` or ``"test_scaffolds"``.

    Returns
    -------
    dict
        `FCD`: `mu` (512,), `sigma` (512, 512); `SNN`: `fps` (n, 1024) uint8; `Frag`: `frag`, `Scaf`: `scaf`, counts by
        SMILES; `logP`, `SA`, `QED`, `weight`: `values`, n numbers.

    Raises
    ------
    ValueError
        If they aren't the known bytes.
    """
    if not is_known(data, split):
        raise ValueError(f"data: expected molsets 0.3.1's statistics of {split} (sha256 {KNOWN_SHA256.get(split)})")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.read(MEMBER)
    header = 10 + int.from_bytes(member[8:10], "little")  # of the .npy format, version 1
    whole = read_objects(member[header:])
    return dict(whole[0])


def read_objects(program: bytes) -> Any:
    """What a pickle of dictionaries, lists, numbers, texts and plain arrays stands for.

    Raises
    ------
    ValueError
        If anything else occurs in it, or it is cut off.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(program):
            name = opcode.name
            if name in _NUMBERS:
                stack.append(argument)
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "STOP":
                return _plain(stack.pop())
            elif name != "PROTO":
                _step(name, argument, stack)
    except (IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"program: expected dictionaries, lists, numbers, texts and arrays: {error}") from error
    raise ValueError("program: expected an end, got none")


def _step(name: str, argument: Any, stack: list[Any]) -> None:
    """The opcodes that build something out of the top of the stack."""
    if name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name == "MARK":
        stack.append(_Mark())
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name == "EMPTY_LIST":
        stack.append([])
    elif name == "GLOBAL":
        stack.append(_Name(str(argument)))
    elif name in _TUPLES:
        row = tuple(stack[-_TUPLES[name] :])
        del stack[-_TUPLES[name] :]
        stack.append(row)
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        stack[-1].extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        pairs = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _since_mark(stack)
        stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
    elif name == "REDUCE":
        arguments, called = stack.pop(), stack.pop()
        stack.append(_MADE[called.text](*arguments))
    elif name == "BUILD":
        state = stack.pop()
        stack[-1].fill(state)
    else:
        raise ValueError(f"opcode {name}")


def _since_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1
    while not isinstance(stack[at], _Mark):
        at -= 1
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def _announced(kind: _Name, shape: object, typecode: object) -> _Array:
    return _Array()


def _dtype(kind: str, *_: object) -> _Dtype:
    return _Dtype(kind)


def _plain(value: Any) -> Any:
    """Announced arrays replaced by what they hold, all the way down."""
    if isinstance(value, _Array):
        return _plain(value.value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        numbers = value and isinstance(value[0], float)
        return np.array(value) if numbers else [_plain(item) for item in value]
    return value


#: What stands in for each name that the files call. None of theirs is.
_MADE: Mapping[str, Callable[..., Any]] = {
    "numpy.core.multiarray _reconstruct": _announced,
    "numpy dtype": _dtype,
    "_codecs encode": _encode,
    "collections Counter": dict,
}
