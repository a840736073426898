"""The input contract: statuses, policies, and preparation in this process. The pool: test_worker_pool.py."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hostile import CHAIN_20000, HOSTILE, NESTED_20000, hostile_lines
from rdkit import Chem, rdBase

from molcmim import chem
from molcmim.chem import MAX_CHARS, Prepared, Status, prepare, prepare_many, to_text_list

REPOSITORY = Path(__file__).resolve().parent.parent


def run_python(code: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )


def test_statuses_are_the_closed_list_of_the_contract() -> None:
    assert list(Status) == [
        *("ok", "empty", "not_ascii", "too_many_chars", "parse_error", "zero_atoms"),
        *("timeout", "crash", "unknown_token", "too_many_tokens"),
    ]
    assert all(status.name == status.value for status in Status)


# --- hostile rows ---


@pytest.mark.parametrize(("row", "status"), HOSTILE, ids=[f"{s}-{i}" for i, (_, s) in enumerate(HOSTILE)])
def test_hostile_row_gets_its_status(row: object, status: Status) -> None:
    prepared = prepare(row)
    assert prepared.status is status
    assert (prepared.canonical_smiles is not None) == (status is Status.ok)


def test_hostile_rows_keep_their_place_among_good_ones() -> None:
    rows = [row for bad, _ in HOSTILE for row in (bad, "C(C)O")]
    prepared = prepare_many(rows, workers=0)
    assert [row.status for row in prepared[::2]] == [status for _, status in HOSTILE]
    assert prepared[1::2] == [Prepared("CCO", Status.ok)] * len(HOSTILE)


def test_hostile_lines_get_the_same_status_as_bytes() -> None:
    lines = hostile_lines()
    assert len(lines) > 100
    assert [prepare(line).status for line, _ in lines] == [status for _, status in lines]


LARGEST = ["C" * MAX_CHARS, "C1" + "C" * (MAX_CHARS - 3) + "1", "C(" * 666 + "C" + ")" * 666, "C1CC1" * 400]
IN_A_THREAD_OF_1_MIB = """
import sys, threading
threading.stack_size(1 << 20)
def work():
    for row in sys.argv[1:]:
        print(prepare(row, policy="parent", max_chars=10_000).status, flush=True)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_largest_rows_survive_a_stack_of_one_mebibyte() -> None:
    """The smallest default stack of a thread on a system we know of; the main thread has 8 MiB."""
    done = run_python("from molcmim.chem import prepare" + IN_A_THREAD_OF_1_MIB, *LARGEST)
    assert (done.returncode, done.stdout.split()) == (0, ["ok"] * 4), done.stderr


def test_the_cap_is_what_stands_between_us_and_a_stack_overflow() -> None:
    """Three times the cap kills the process; if RDKit ever survives it, the cap may be raised."""
    done = run_python("from molcmim.chem import prepare" + IN_A_THREAD_OF_1_MIB, "C", "C" * 3 * MAX_CHARS)
    assert (done.returncode != 0, done.stdout) == (True, "ok\n")
    assert prepare(CHAIN_20000).status is prepare(NESTED_20000).status is Status.too_many_chars


# --- what is accepted ---


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("OCC", "CCO"),
        ("  OCC\t\r\n", "CCO"),
        (b"OCC\n", "CCO"),
        (bytearray(b"OCC"), "CCO"),
        (np.str_("OCC"), "CCO"),
        (np.bytes_(b"OCC"), "CCO"),
        ("C1=CC=CC=C1", "c1ccccc1"),
        ("[H]C([H])([H])[H]", "C"),
        ("Br[C@H](Cl)F", "F[C@@H](Cl)Br"),
        ("C(/F)=C\\F", "F/C=C/F"),
        ("C(/F)=C/F", "F/C=C\\F"),
        ("[Na+].[Cl-]", "[Cl-].[Na+]"),
        ("*", "*"),
    ],
)
def test_canonical(given: object, expected: str) -> None:
    prepared = prepare(given)
    assert prepared == Prepared(expected, Status.ok)
    assert type(prepared.canonical_smiles) is str
    assert Chem.MolToSmiles(Chem.MolFromSmiles(expected)) == expected


@pytest.mark.parametrize(
    "missing",
    [None, math.nan, np.nan, np.float32("nan"), np.float16("nan"), np.ma.masked, "", "  ", b"\t"],
)
@pytest.mark.parametrize("policy", chem.POLICIES)
def test_missing_is_empty(missing: object, policy: str) -> None:
    assert prepare(missing, policy) == Prepared(None, Status.empty)


def test_missing_in_pandas_is_empty() -> None:
    pandas = pytest.importorskip("pandas")
    assert prepare(pandas.NA) == prepare(pandas.NaT) == Prepared(None, Status.empty)
    column = pandas.Series(["CCO", None, pandas.NA], dtype="string")
    assert [row.status for row in prepare_many(column)] == [Status.ok, Status.empty, Status.empty]


@pytest.mark.parametrize("other", [0, 1.5, -math.inf, False, 10**400, Decimal(1), Fraction(1, 2), [], {}, object()])
def test_neither_text_nor_missing_is_a_parse_error(other: object) -> None:
    assert prepare(other) == Prepared(None, Status.parse_error)


def test_order_of_the_checks() -> None:
    long = "C" * 3000
    assert prepare(" " * 3000).status is Status.empty  # blanks around don't count
    assert prepare(" " * 3000 + "C").status is Status.ok
    assert prepare(long + "é").status is Status.not_ascii  # the same as text and as bytes
    assert prepare((long + "é").encode()).status is Status.not_ascii
    assert prepare((long + "é").encode("latin-1")).status is Status.not_ascii
    assert prepare(long + " C").status is Status.too_many_chars
    assert prepare("C é").status is Status.not_ascii


def test_cap_is_exact_and_holds_for_what_is_written() -> None:
    assert prepare("C" * MAX_CHARS).status is Status.ok
    assert prepare("C" * (MAX_CHARS + 1)).status is Status.too_many_chars
    assert prepare("CCCCC", max_chars=5) == Prepared("CCCCC", Status.ok)
    assert prepare("CCCCCC", max_chars=5).status is Status.too_many_chars
    assert prepare("[#6]", max_chars=2).status is Status.too_many_chars
    written = prepare("C->[Fe]").canonical_smiles
    assert written == "[CH4]->[Fe]"
    assert prepare("C->[Fe]", max_chars=10).status is Status.too_many_chars  # else it would not be accepted again


@pytest.mark.parametrize("max_chars", [0, -1, 1.5, "9", None, True])
def test_bad_cap_is_refused(max_chars: object) -> None:
    with pytest.raises(ValueError, match="max_chars: expected an integer of at least 1, got"):
        prepare("C", max_chars=max_chars)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [prepare, lambda s, p: prepare_many([s], p), lambda s, p: prepare_many([], p)])
def test_unknown_policy_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="policy: expected one of none, canonical, parent, got 'best'"):
        call("C", "best")


# --- policies ---


def test_policy_none_gives_the_text_itself_after_the_checks_that_need_no_parsing() -> None:
    rows = [" OCC\n", "C1=CC=CC=C1", "[Xx]", "CCO ethanol", "é", "C" * 3000, None, b"OC"]
    assert prepare_many(rows, "none") == [
        Prepared("OCC", Status.ok),
        Prepared("C1=CC=CC=C1", Status.ok),
        Prepared("[Xx]", Status.ok),  # not parsed
        Prepared(None, Status.parse_error),
        Prepared(None, Status.not_ascii),
        Prepared(None, Status.too_many_chars),
        Prepared(None, Status.empty),
        Prepared("OC", Status.ok),
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("[Na+].CC(=O)[O-]", "CC(=O)O"),
        ("CC(=O)[O-].[Na+]", "CC(=O)O"),
        ("C[NH3+].[Cl-]", "CN"),
        ("[NH3+]CC(=O)[O-]", "NCC(=O)O"),
        ("C[N+](C)(C)C.[Br-]", "C[N+](C)(C)C"),  # can't be neutralised
        ("O=[N+]([O-])c1ccccc1", "O=[N+]([O-])c1ccccc1"),  # needn't be
        ("O.C[C@H](N)C(=O)O", "C[C@H](N)C(=O)O"),
        ("CCO", "CCO"),
        ("[Cl-]", "Cl"),
        ("[Fe+2].c1cc[cH-]c1.c1cc[cH-]c1", "c1cc[cH-]c1"),  # no valid ring without its charge
    ],
)
def test_policy_parent(given: str, expected: str) -> None:
    assert prepare(given, "parent") == Prepared(expected, Status.ok)
    assert prepare(expected, "parent") == Prepared(expected, Status.ok)


def test_parent_does_not_depend_on_the_order_of_atoms() -> None:
    molecule = Chem.MolFromSmiles("C[NH2+]C[C@H](O)c1ccc(O)c(O)c1.CC(=O)[O-].OC(=O)C(F)(F)F.[Na+].[Cl-]")
    shuffled = Chem.MolToRandomSmilesVect(molecule, 50, randomSeed=1)
    assert len(set(shuffled)) > 40
    assert {prepare(smiles, "parent").canonical_smiles for smiles in shuffled} == {"CNC[C@H](O)c1ccc(O)c(O)c1"}


REAL = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1CCC[C@H]1c1cccnc1",
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "C[C@]12CC[C@H]3[C@@H](CCC4=CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "O=C(O)/C=C/c1ccccc1",
    "c1ccc2c(c1)[nH]c1ccccc12",
    "OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O",
    "C[S@](=O)c1ccccc1",
    "[O-][n+]1ccccc1",
    "F[P-](F)(F)(F)(F)F.CCCCn1cc[n+](C)c1",
]


@pytest.mark.parametrize("policy", ["canonical", "parent"])
def test_canonical_form_is_a_fixed_point_and_unique(policy: str) -> None:
    once = [row.canonical_smiles for row in prepare_many(REAL, policy)]
    assert None not in once
    assert [row.canonical_smiles for row in prepare_many(once, policy)] == once
    for smiles, expected in zip(REAL, once, strict=True):
        shuffled = Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 10, randomSeed=3)
        assert {prepare(other, policy).canonical_smiles for other in shuffled} == {expected}


# --- RDKit molecules ---


def test_molecules_get_what_their_smiles_get() -> None:
    molecules = [Chem.MolFromSmiles(smiles) for smiles in REAL]
    for policy in chem.POLICIES:
        assert prepare_many(molecules, policy) == prepare_many([Chem.MolToSmiles(m) for m in molecules], policy)
    assert prepare(Chem.AddHs(Chem.MolFromSmiles("CCO"))) == Prepared("CCO", Status.ok)
    assert prepare(Chem.RWMol(Chem.MolFromSmiles("OCC"))) == Prepared("CCO", Status.ok)


def test_odd_molecules() -> None:
    assert prepare(Chem.Mol()) == Prepared(None, Status.zero_atoms)
    assert prepare(Chem.MolFromSmiles("", sanitize=False)) == Prepared(None, Status.zero_atoms)
    assert prepare(Chem.MolFromSmiles("[Xx]")) == Prepared(None, Status.empty)  # that is None
    unchecked = Chem.MolFromSmiles("CN(C)(C)(C)C", sanitize=False)
    assert prepare(unchecked) == Prepared(None, Status.parse_error)
    huge = Chem.MolFromSmiles(CHAIN_20000)  # writing it would kill this process
    assert prepare(huge) == Prepared(None, Status.too_many_chars)
    long = Chem.MolFromSmiles("[13CH2]" * 2 + "C" * 1990)  # 1,992 atoms, 2,004 characters
    assert prepare(long) == Prepared(None, Status.too_many_chars)


# --- sequences of rows ---


def test_every_kind_of_sequence_is_listed_in_order() -> None:
    rows = ["CCO", "c1ccccc1", "N"]
    assert to_text_list(rows) == to_text_list(tuple(rows)) == to_text_list(iter(rows)) == rows
    assert to_text_list(np.array(rows)) == to_text_list(np.array(rows, dtype=object)) == rows
    assert {type(row) for row in to_text_list(np.array(rows))} == {str}
    assert to_text_list(np.array([b"CCO"])) == [b"CCO"]
    assert to_text_list([]) == to_text_list(np.array([])) == []
    molecules = [Chem.MolFromSmiles("C"), None]
    assert to_text_list(molecules) == to_text_list(np.array(molecules)) == molecules


def test_pandas_and_arrow_columns_are_listed_by_position() -> None:
    pandas = pytest.importorskip("pandas")
    rows = ["CCO", None, "N"]
    assert to_text_list(pandas.Series(rows, index=[5, 3, 1], dtype=object)) == rows
    assert to_text_list(pandas.Series(["a", "b", "a"], dtype="category")) == ["a", "b", "a"]
    assert to_text_list(pandas.Index(["C", "N"])) == ["C", "N"]
    with pytest.raises(TypeError, match="one column of molecules, got a DataFrame"):
        to_text_list(pandas.DataFrame({"smiles": rows}))
    pyarrow = pytest.importorskip("pyarrow")
    assert to_text_list(pyarrow.array(rows)) == rows
    assert to_text_list(pyarrow.chunked_array([rows[:1], rows[1:]])) == rows
    with pytest.raises(TypeError, match="one column of molecules, got a Table"):
        to_text_list(pyarrow.table({"smiles": rows}))


@pytest.mark.parametrize("single", ["CCO", b"CCO", bytearray(b"CCO"), np.str_("CCO"), Chem.MolFromSmiles("CCO")])
@pytest.mark.parametrize("call", [to_text_list, prepare_many])
def test_a_single_molecule_is_refused_with_advice(call, single: object) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match=r"expected a list of molecules, got a single \w+; pass \[smiles\]"):
        call(single)


@pytest.mark.parametrize("other", [{"CCO"}, {"CCO": 1}, None, 7, np.array("CCO"), np.array([["CCO"]])])
def test_what_has_no_row_order_is_refused(other: object) -> None:
    with pytest.raises(TypeError, match="smiles: expected"):
        to_text_list(other)


def test_generators_are_read_once() -> None:
    assert prepare_many(smiles for smiles in ["OCC", "é"]) == [
        Prepared("CCO", Status.ok),
        Prepared(None, Status.not_ascii),
    ]


# --- manners ---


def test_rdkit_stays_silent_and_the_callers_log_settings_survive() -> None:
    code = """
import sys
from rdkit import Chem, RDLogger, rdBase
from molcmim.chem import prepare, prepare_many
from molcmim.chem import Status
assert prepare("c1cccc1").status is Status.parse_error
prepare_many(["CN(C)(C)(C)C", "[Na+].[O-]C"], "parent", workers=0)
prepare(Chem.MolFromSmiles("CN(C)(C)(C)C", sanitize=False))
print("silent until here", file=sys.stderr, flush=True)
before = rdBase.LogStatus()
prepare("c1cccc1")
assert rdBase.LogStatus() == before
Chem.MolFromSmiles("C1CC")
print("user silences", file=sys.stderr, flush=True)
RDLogger.DisableLog("rdApp.error")
prepare("c1cccc1")
Chem.MolFromSmiles("C1CC")
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("silent until here\n")
    middle, after = done.stderr.split("silent until here\n")[1].split("user silences\n")
    assert "unclosed ring" in middle
    assert after == ""


def test_import_is_light_and_policy_none_never_needs_rdkit() -> None:
    code = """
import sys
from molcmim.chem import prepare, prepare_many
assert prepare("CCO", "none").canonical_smiles == "CCO"
assert len(prepare_many(["CCO", None, "é"] * 100, "none")) == 300
print([name for name in ("rdkit", "torch", "numpy", "pandas", "subprocess") if name in sys.modules])
"""
    done = run_python(code)
    assert done.stdout == "[]\n", done.stderr


def test_running_out_of_memory_in_this_process_costs_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    real = chem.canonicalise

    def exhausted(text: str, policy: str, max_chars: int) -> Prepared:
        if text == "N":
            raise MemoryError
        return real(text, policy, max_chars)

    monkeypatch.setattr(chem, "canonicalise", exhausted)
    assert [row.status for row in prepare_many(["C", "N", "O"])] == [Status.ok, Status.crash, Status.ok]
    assert prepare("N") == Prepared(None, Status.crash)


def test_rdkit_version_is_one_this_was_checked_with() -> None:
    """The cap and the odd parses above are facts about RDKit: look again at MAX_CHARS when this fails."""
    year, month = (int(part) for part in rdBase.rdkitVersion.split(".")[:2])
    assert (2025, 9) <= (year, month) < (2027, 9)
