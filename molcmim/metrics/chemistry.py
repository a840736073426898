"""What the MOSES measures need to know of one molecule, and the same for many in parallel.

Definitions follow the code of Polykovskiy et al. 2020 (Front. Pharmacol. 11, 565644; package molsets 0.3.1), which
made the published tables:

    fragments    pieces of BRICS bonds (Degen et al. 2008), attachment points as [n*] atoms, stereo kept
    scaffold     Bemis-Murcko framework with at least 2 rings; fewer rings count as no scaffold
    fingerprint  Morgan, radius 2, 1,024 bits, no chirality
    filters      no ring of 8 or more atoms, no charge, only C N S O F Cl Br H, and, hydrogens added, no match of the
                 22 medicinal chemistry filters (MCF) and 480 PAINS patterns
    properties   logP (Crippen), SA (Ertl and Schuffenhauer 2009), QED (Bickerton et al. 2012), molecular weight (Da)
"""

# Axes: n molecules, 128 bytes (1,024 bits) of a fingerprint, P = 4 properties.

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.chem import cpu_count

PROPERTIES = ("logP", "SA", "QED", "weight")
FINGERPRINT_BITS = 1024
FINGERPRINT_RADIUS = 2
MIN_RINGS = 2  #: of a scaffold that counts
LARGEST_RING = 7  #: that passes the filters
ALLOWED_ATOMS = frozenset({"C", "N", "S", "O", "F", "Cl", "Br", "H"})
CHUNK_ROWS = 500  # molecules that a process gets at once: about a second
PARALLEL_ROWS = 1000  # with fewer, starting processes costs more than it saves

_ROW_ERRORS = (RuntimeError, ValueError, ArithmeticError, LookupError)  # TypeError would be our own mistake

Progress = Callable[[int], object]


class Described(NamedTuple):
    """Chemistry of a set of n molecules."""

    fragments: Counter[str]  #: BRICS fragment: how often in the set
    scaffolds: Counter[str]  #: Murcko scaffold: how many molecules
    fingerprints: npt.NDArray[np.uint8]  #: (n, 128), bits packed as `numpy.packbits` does
    properties: npt.NDArray[np.float64]  #: (n, P), NaN where RDKit raises
    passes: npt.NDArray[np.bool_]  #: (n,) True: passes all filters; all False without filters


def describe(
    smiles: Sequence[str],
    filters: Sequence[str] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Described:
    """Fragments, scaffolds, fingerprints, properties and filters of n molecules.

    Parameters
    ----------
    smiles
        Canonical SMILES, as `molcmim.chem.prepare_many` returns them: it has parsed and written each in a process
        that may die, so what reaches RDKit here has passed it once.
    filters
        SMARTS that a molecule must not match; empty: filters are not looked at (they take most of the time).
    workers
        Processes; None: one per CPU, none for fewer than 1,000 molecules.
    progress
        Called with the number of molecules just finished.

    Returns
    -------
    Described

    Raises
    ------
    ValueError
        If a text is no SMILES or a filter no SMARTS, or `workers` is negative.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers: expected None, 0 or more, got {workers}")
    chunks = [list(smiles[start : start + CHUNK_ROWS]) for start in range(0, len(smiles), CHUNK_ROWS)]
    if workers is None:
        workers = cpu_count() if len(smiles) >= PARALLEL_ROWS else 0
    parts = []
    for part in _map(functools.partial(_describe_chunk, filters=tuple(filters)), chunks, workers):
        parts.append(part)
        if progress is not None:
            progress(len(part.passes))
    return _joined(parts)


def fragments(molecule: Any) -> list[str]:
    """BRICS fragments of an RDKit molecule, one SMILES each; the molecule itself where no bond is cut.

    >>> from rdkit import Chem
    >>> fragments(Chem.MolFromSmiles("CCOc1ccccc1"))
    ['[16*]c1ccccc1', '[3*]O[3*]', '[4*]CC']
    """
    from rdkit import Chem
    from rdkit.Chem import BRICS

    return str(Chem.MolToSmiles(BRICS.BreakBRICSBonds(molecule))).split(".")


def scaffold(molecule: Any) -> str | None:
    """SMILES of the Murcko scaffold, None if it has fewer than 2 rings.

    >>> from rdkit import Chem
    >>> scaffold(Chem.MolFromSmiles("Cc1ccccc1CN1CCCC1"))
    'c1ccc(CN2CCCC2)cc1'
    >>> scaffold(Chem.MolFromSmiles("Cc1ccccc1")) is None
    True
    """
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    framework = MurckoScaffold.GetScaffoldForMol(molecule)
    if framework.GetRingInfo().NumRings() < MIN_RINGS:
        return None
    return str(Chem.MolToSmiles(framework)) or None


def passes_filters(molecule: Any, patterns: Iterable[Any]) -> bool:
    """Whether a molecule has none of what the MOSES filters refuse.

    Parameters
    ----------
    molecule
        RDKit molecule.
    patterns
        RDKit molecules made from SMARTS, matched with hydrogens added.
    """
    from rdkit import Chem

    if any(len(ring) > LARGEST_RING for ring in molecule.GetRingInfo().AtomRings()):
        return False
    if any(atom.GetFormalCharge() or atom.GetSymbol() not in ALLOWED_ATOMS for atom in molecule.GetAtoms()):
        return False
    with_hydrogens = Chem.AddHs(molecule)
    if any(with_hydrogens.HasSubstructMatch(pattern) for pattern in patterns):
        return False
    # as in the published code: what can't be read back without its stereo fails too
    return Chem.MolFromSmiles(Chem.MolToSmiles(molecule, isomericSmiles=False)) is not None


def properties(molecule: Any) -> tuple[float, float, float, float]:
    """logP, SA (1 easy to 10 hard), QED (0 to 1) and molecular weight (Da) of an RDKit molecule."""
    from rdkit.Chem import QED, rdMolDescriptors

    from molcmim.sa_score import sa_score

    return (
        float(rdMolDescriptors.CalcCrippenDescriptors(molecule)[0]),
        sa_score(molecule),
        float(QED.qed(molecule)),
        float(rdMolDescriptors._CalcMolWt(molecule)),  # what Descriptors.MolWt calls
    )


def compile_filters(smarts: Iterable[str]) -> list[Any]:
    """RDKit patterns; ValueError that names a text which is no SMARTS."""
    from rdkit import Chem, rdBase

    compiled = []
    with rdBase.BlockLogs():
        for text in smarts:
            pattern = Chem.MolFromSmarts(text)
            if pattern is None:
                raise ValueError(f"filters: expected SMARTS, got {text[:80]!r}")
            compiled.append(pattern)
    return compiled


def _describe_chunk(smiles: list[str], filters: tuple[str, ...]) -> Described:
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdFingerprintGenerator

    patterns = _compiled(filters)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=FINGERPRINT_RADIUS, fpSize=FINGERPRINT_BITS)
    found = _empty(len(smiles))
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            molecule = Chem.MolFromSmiles(text)
            if molecule is None:
                raise ValueError(f"smiles: expected canonical SMILES, got {text[:80]!r}")
            found.fingerprints[row] = np.packbits(generator.GetFingerprintAsNumPy(molecule).astype(np.uint8))
            found.fragments.update(_or(fragments, [], molecule))
            framework = _or(scaffold, None, molecule)
            if framework is not None:
                found.scaffolds[framework] += 1
            found.properties[row] = _or(properties, (np.nan,) * len(PROPERTIES), molecule)
            found.passes[row] = bool(patterns) and _or(passes_filters, False, molecule, patterns)
    return found


def _or(function: Callable[..., Any], otherwise: Any, *arguments: Any) -> Any:
    """The function's value, or another one for a molecule that RDKit can't do this with."""
    try:
        return function(*arguments)
    except _ROW_ERRORS:
        return otherwise


def _empty(n: int) -> Described:
    return Described(
        Counter(),
        Counter(),
        np.zeros((n, FINGERPRINT_BITS // 8), dtype=np.uint8),
        np.full((n, len(PROPERTIES)), np.nan),
        np.zeros(n, dtype=np.bool_),
    )


def _joined(parts: Sequence[Described]) -> Described:
    whole = _empty(0)
    for part in parts:
        whole.fragments.update(part.fragments)
        whole.scaffolds.update(part.scaffolds)
    all_parts = (whole, *parts)
    return Described(
        whole.fragments,
        whole.scaffolds,
        np.concatenate([part.fingerprints for part in all_parts]),
        np.concatenate([part.properties for part in all_parts]),
        np.concatenate([part.passes for part in all_parts]),
    )


def _map(function: Callable[[list[str]], Described], chunks: list[list[str]], workers: int) -> Iterable[Described]:
    if workers < 2 or len(chunks) < 2:
        return map(function, chunks)
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1):
        answers: Iterable[Described] = Parallel(batch_size=1, return_as="generator")(
            delayed(function)(chunk) for chunk in chunks
        )
    return answers


@functools.lru_cache(maxsize=2)
def _compiled(filters: tuple[str, ...]) -> list[Any]:
    return compile_filters(filters)
