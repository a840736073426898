"""The attacks we ship: rows that break, or mislead, programs that read SMILES, and the status each must get.

`HOSTILE` pairs a row with its status under the policy `canonical` and the default cap. The process must
survive every one of them. `hostile_lines` gives those that one line of a text file can hold, as bytes.
"""

from __future__ import annotations

import math

from molcmim.chem import MAX_CHARS, Status

CHAIN_20000 = "C" * 20_000  # RDKit parses it, and dies of a stack overflow when it writes it
NESTED_20000 = "C(" * 20_000 + "C" + ")" * 20_000
LINE_1_MB = "C" * 1_000_000
LINE_1_MB_NOT_ASCII = "é" * 1_000_000


def _rings(atoms: int) -> str:
    """A ladder of `atoms` dummy atoms, made of ring closures with large numbers only."""
    pairs = [(i, i + 1) for i in range(atoms - 1)] + [(i, i + 2) for i in range(atoms - 2)]
    return ".".join("*" + "".join(f"%({100 + n})" for n, p in enumerate(pairs) if i in p) for i in range(atoms))


def _complete_graph(atoms: int) -> str:
    """Every dummy atom bonded to every other: the ring search's worst case."""
    pairs = [(i, j) for j in range(atoms) for i in range(j)]
    return ".".join("*" + "".join(f"%({100 + n})" for n, p in enumerate(pairs) if i in p) for i in range(atoms))


_EMPTY: list[object] = [None, math.nan, "", " ", "\t", "\n", " \t\r\n ", b"", b"  \n"]

_NOT_ASCII: list[object] = [
    "Cé",  # RDKit alone makes it methane
    "C\u00a0",  # a no-break space, as pasted from a document
    "\ufeffCCO",  # a byte-order mark
    "C\u2212C",  # a minus sign that is not a hyphen
    "ＣＣＯ",
    "苯",
    "C\ud800",  # a lone surrogate, which can't even be encoded
    "\udcff\udcfe",  # what `errors="surrogateescape"` makes of bytes that aren't UTF-8
    b"C\xff\xfe",
    b"\xc3\xa9",
    "C\u202eO",  # right-to-left override
    LINE_1_MB_NOT_ASCII,  # ASCII is checked before length
]

_TOO_MANY_CHARS: list[object] = [
    CHAIN_20000,
    NESTED_20000,
    LINE_1_MB,
    LINE_1_MB.encode(),
    "C" * (MAX_CHARS + 1),
    "[" * 1_000_000,
    "(" * 1_000_000,
    "." * 1_000_000,
    "C1CC1" * 100_000,
    "C " * 100_000,  # length is checked before blanks
    "\x00" * 1_000_000,
]

_PARSE_ERROR: list[object] = [
    "CCO ethanol",  # RDKit alone drops the name
    "CCO\tethanol",
    "C C",
    "C\nC",
    "CCO |$R1;;$|",  # CXSMILES
    "CCO|$R1;;$|",
    "CC\x00O",
    "\x00",
    "C\x1bC",
    "C\x7f",
    "[",
    "]",
    "[]",
    "[Xx]",
    "[R]",
    "[C",
    "C1CC",  # a ring left open
    "C11",
    "C1C1",
    "c1cccc1",  # can't be kekulised
    "c1ccccc1c",
    "cc",
    "C(",
    "C)",
    "()",
    "C()C",
    "((((((((((C))))))))))",
    ".",
    "C.",
    "C..C",
    "=",
    "C==C",
    "CN(C)(C)(C)C",  # valence
    "F[Cl](F)(F)(F)(F)(F)(F)F",
    "C%(999999)C",
    "C%1C",
    "[C@@@H](F)(Cl)Br",
    "[99999999999999999999C]",
    "[C:99999999999999999999]",
    "[C+99999999999999999999]",
    "[#119]",
    "C>>O",
    "C->",
    "nan",
    "None",
    "null",
    "SMILES",
    '"CCO"',
    "CCO,ethanol",
    "InChI=1S/CH4/h1H4",
    "<html>",
    "$(rm)",
    "../../etc/passwd",
    "=1+1",
    "-0",
    "🙂".encode("ascii", errors="backslashreplace").decode(),
    "[" * MAX_CHARS,
    "(" * MAX_CHARS,
    "C(" * (MAX_CHARS // 2),
    "(" * (MAX_CHARS // 2 - 1) + "C" + ")" * (MAX_CHARS // 2 - 1),
    "C" + "(C)" * ((MAX_CHARS - 1) // 3),
    "[" * (MAX_CHARS // 2 - 1) + "C" + "]" * (MAX_CHARS // 2 - 1),
    "." * MAX_CHARS,
    "c" * MAX_CHARS,
    "1" * MAX_CHARS,
    "[C" + "+" * (MAX_CHARS - 3) + "]",
    "[" + "9" * (MAX_CHARS - 3) + "C]",
    17,  # neither text nor missing
    math.inf,
    True,
    ["CCO"],
    object(),
]

_OK: list[object] = [  # odd, or as large as the cap lets through, but molecules
    "  CCO\t\r\n",
    b" CCO ",
    "*",
    "[*:1]",
    "[HH]",
    "[2H][2H]",
    "[Og]",
    "[999C]",
    "C%(99999)CC%(99999)",  # the largest ring number
    "C~C",
    "N->[Pt]",
    "[C-20]",
    "[Na+].[Cl-]",
    "C" * MAX_CHARS,
    "C1" + "C" * (MAX_CHARS - 3) + "1",
    "C(" * 666 + "C" + ")" * 666,
    ".".join("C" * (MAX_CHARS // 2)),
    "C=" * (MAX_CHARS // 2 - 1) + "C",
    "C1CC1" * (MAX_CHARS // 5),
    "C1CC12CC2" * (MAX_CHARS // 9),
    "*~" * (MAX_CHARS // 2 - 1) + "*",
    "C" + "[C@H](F)" * 249,
    "F" + "/C=C" * 499 + "/F",
    _rings(75),
    _complete_graph(18),
]

HOSTILE: list[tuple[object, Status]] = [
    *((row, Status.empty) for row in _EMPTY),
    *((row, Status.not_ascii) for row in _NOT_ASCII),
    *((row, Status.too_many_chars) for row in _TOO_MANY_CHARS),
    *((row, Status.parse_error) for row in _PARSE_ERROR),
    *((row, Status.ok) for row in _OK),
]


def hostile_lines() -> list[tuple[bytes, Status]]:
    """The rows of HOSTILE that are text without a line break, as the bytes of a line in a file."""
    lines: list[tuple[bytes, Status]] = []
    for row, status in HOSTILE:
        if isinstance(row, str):
            row = row.encode("utf-8", errors="surrogatepass")
        if isinstance(row, bytes) and not set(row) & {0x0A, 0x0D}:
            lines.append((row, status))
    return lines
