"""What generated molecules are scored by: properties by name, similarity, weighted objectives, any Python function.

>>> objective = Objective([("qed", 1.0), ("sa", -0.1)], constraints=[("tanimoto", ">=", 0.4)])
>>> str(objective)
'qed - 0.1*sa with tanimoto >= 0.4'

An oracle is any function that takes a list of SMILES and returns as many numbers, higher being better. Those here see
what `molcmim.chem.prepare_many` has written, so RDKit can read it; a SMILES that it can't read scores NaN.
RDKit is imported by the first call.
"""

# n molecules

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from molcmim.sa_score import sa_score

FloatArray: TypeAlias = npt.NDArray[np.float64]
Oracle: TypeAlias = Callable[[list[str]], Any]  #: n SMILES -> n numbers, higher is better; NaN: no score

TANIMOTO = "tanimoto"  #: name of the similarity to the start in an `Objective`
MORGAN_RADIUS, MORGAN_BITS = 2, 2048
RDKIT_ERRORS = (RuntimeError, ValueError, ArithmeticError, LookupError)

#: Mean and standard deviation over ZINC250k of log P, of -SA and of the ring term, as in the code of GCPN (You et al.
#: 2018, arXiv 1806.02473) and VJTNN (Jin et al. 2019, arXiv 1812.01070), which the published tables of penalised log P
#: go by.
PLOGP_STATISTICS = ((2.4570953396190123, 1.434324401111988), (-3.0525811293166134, 0.8335207024513095),
                    (-0.0485696876403053, 0.2860212110245455))  # fmt: skip


class Assessment(NamedTuple):
    """Molecules under an `Objective`."""

    scores: FloatArray  #: (n,) weighted sums; NaN where a term has no value
    shortfall: FloatArray  #: (n,) 0: all constraints hold; else the sum of what is missing, relative to each threshold


# ------------------------------------------------------------------------------------------------ RDKit


class _RDKit(NamedTuple):
    """The parts of RDKit in use, imported once."""

    chem: Any
    base: Any
    parser: Any
    qed: Any
    crippen: Any
    descriptors: Any
    morgan: Any
    tanimoto: Any


@functools.cache
def _rdkit() -> _RDKit:
    from rdkit import Chem, rdBase
    from rdkit.Chem import QED, Crippen, Descriptors, rdFingerprintGenerator
    from rdkit.DataStructs import BulkTanimotoSimilarity

    parser: Any = Chem.SmilesParserParams()
    parser.allowCXSMILES = False
    parser.parseName = False
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=MORGAN_RADIUS, fpSize=MORGAN_BITS)
    return _RDKit(Chem, rdBase, parser, QED, Crippen, Descriptors, morgan, BulkTanimotoSimilarity)


def _molecules(smiles: Sequence[str]) -> Iterator[Any]:
    """RDKit molecules; None for what can't be read. A generator, so that one is alive at a time."""
    with _rdkit().base.BlockLogs():
        for each in smiles:
            yield _rdkit().chem.MolFromSmiles(each, _rdkit().parser)


# ------------------------------------------------------------------------------------------------ properties


def penalised_logp(molecule: Any) -> float:
    """Normalised penalised log P of an RDKit molecule.

    The sum of log P (Crippen), -SA and -(atoms over six in the largest ring), each minus its mean over ZINC250k and
    divided by its standard deviation there: what the tables of GCPN, VJTNN, MolMIM and others report. They take rings
    from a cycle basis of networkx; these are RDKit's smallest rings, so fused rings can differ.
    """
    return sum((term - mean) / std for term, (mean, std) in zip(_plogp_terms(molecule), PLOGP_STATISTICS, strict=True))


def raw_penalised_logp(molecule: Any) -> float:
    """log P - SA - (atoms over six in the largest ring), nothing normalised (Gomez-Bombarelli et al. 2018, eq. 1)."""
    return sum(_plogp_terms(molecule))


def _plogp_terms(molecule: Any) -> tuple[float, float, float]:
    largest = max((len(ring) for ring in molecule.GetRingInfo().AtomRings()), default=0)
    return _rdkit().crippen.MolLogP(molecule), -sa_score(molecule), -float(max(0, largest - 6))


def _per_molecule(function: Callable[[Any], float]) -> Callable[[Sequence[str]], FloatArray]:
    """A function of one RDKit molecule as one of SMILES; NaN for a SMILES that can't be read or has no value."""

    def values(smiles: Sequence[str]) -> FloatArray:
        result = np.full(len(smiles), np.nan)
        for i, molecule in enumerate(_molecules(smiles)):
            if molecule is not None and molecule.GetNumAtoms():
                with suppress(*RDKIT_ERRORS):
                    result[i] = function(molecule)
        return result

    values.__doc__ = function.__doc__
    return values


#: Functions of a list of SMILES, (n,) float64 out. `qed`: drug-likeness, 0 to 1 (Bickerton et al. 2012). `logp`:
#: Crippen's log P. `sa`: synthetic accessibility, 1 easy to 10 hard. `plogp`: normalised penalised log P, `plogp-raw`:
#: without the normalisation. `mw`: g/mol. `tpsa`: square angstroms. `hbd`, `hba`, `rings`, `heavy` (atoms): counts.
PROPERTIES: Mapping[str, Callable[[Sequence[str]], FloatArray]] = MappingProxyType(
    {
        "qed": _per_molecule(lambda molecule: _rdkit().qed.qed(molecule)),
        "logp": _per_molecule(lambda molecule: _rdkit().crippen.MolLogP(molecule)),
        "sa": _per_molecule(sa_score),
        "plogp": _per_molecule(penalised_logp),
        "plogp-raw": _per_molecule(raw_penalised_logp),
        "mw": _per_molecule(lambda molecule: _rdkit().descriptors.MolWt(molecule)),
        "tpsa": _per_molecule(lambda molecule: _rdkit().descriptors.TPSA(molecule)),
        "hbd": _per_molecule(lambda molecule: _rdkit().descriptors.NumHDonors(molecule)),
        "hba": _per_molecule(lambda molecule: _rdkit().descriptors.NumHAcceptors(molecule)),
        "rings": _per_molecule(lambda molecule: _rdkit().descriptors.RingCount(molecule)),
        "heavy": _per_molecule(lambda molecule: molecule.GetNumHeavyAtoms()),
    }
)


def property_function(name: str) -> Callable[[Sequence[str]], FloatArray]:
    """The property of that name; ValueError, with the names there are, if there is none."""
    if name not in PROPERTIES:
        raise ValueError(f"property: expected one of {', '.join(PROPERTIES)}, got {name!r}")
    return PROPERTIES[name]


def similarity_to(smiles: str) -> Callable[[Sequence[str]], FloatArray]:
    """Tanimoto similarity to one molecule as a function of SMILES (Morgan fingerprints, radius 2, 2,048 bits).

    Raises
    ------
    ValueError
        If `smiles` can't be read.

    Examples
    --------
    >>> similarity_to("CCO")(["OCC", "c1ccccc1"])
    array([1., 0.])
    """
    reference = next(_molecules([smiles]))
    if reference is None or reference.GetNumAtoms() == 0:
        raise ValueError(f"smiles: expected a molecule to compare with, got {smiles!r}")
    target = _rdkit().morgan.GetFingerprint(reference)

    def values(smiles: Sequence[str]) -> FloatArray:
        result = np.full(len(smiles), np.nan)
        found = [(i, each) for i, each in enumerate(_molecules(smiles)) if each is not None]
        fingerprints = [_rdkit().morgan.GetFingerprint(molecule) for _, molecule in found]
        result[[i for i, _ in found]] = _rdkit().tanimoto(target, fingerprints)
        return result

    return values


@functools.lru_cache(maxsize=1024)
def _similarity_to(smiles: str) -> Callable[[Sequence[str]], FloatArray]:
    return similarity_to(smiles)


# ------------------------------------------------------------------------------------------------ objectives


@dataclass(frozen=True)
class Objective:
    """A weighted sum of properties under constraints; an instance is an oracle.

    Parameters
    ----------
    terms
        ``(what, weight)`` pairs, or names alone (weight 1). `what` is a name of `PROPERTIES`, ``"tanimoto"``
        (similarity to the molecule that an optimisation starts from) or an oracle of one's own. Scores are maximised,
        so what should be small has a negative weight.
    constraints
        ``(what, ">=" or "<=", threshold)``: what a molecule has to satisfy to count as found.
    start
        The molecule that ``"tanimoto"`` refers to; `optimize` fills it in by `for_start`.

    Raises
    ------
    ValueError
        If there are no terms, a name is unknown, or a weight or threshold isn't a finite number.
    """

    terms: Sequence[str | tuple[str | Oracle, float]]
    constraints: Sequence[tuple[str | Oracle, str, float]] = ()
    start: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.terms, str) or not self.terms:
            raise ValueError(f"terms: expected (name, weight) pairs, at least one, got {self.terms!r}")
        for what in self._parts():
            if isinstance(what, str) and what != TANIMOTO:
                property_function(what)
        for _, sign, _ in self.constraints:
            if sign not in (">=", "<="):
                raise ValueError(f"constraints: expected '>=' or '<=', got {sign!r}")
        numbers = [weight for _, weight in self._weighted()] + [threshold for *_, threshold in self.constraints]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"terms, constraints: expected finite weights and thresholds, got {numbers}")
        object.__setattr__(self, "terms", tuple(self._weighted()))
        object.__setattr__(self, "constraints", tuple(self.constraints))

    def _weighted(self) -> list[tuple[str | Oracle, float]]:
        return [(term, 1.0) if isinstance(term, str) else term for term in self.terms]

    def _parts(self) -> list[str | Oracle]:
        """What has to be evaluated, each once."""
        weighted = [what for what, _ in self._weighted()]
        return list(dict.fromkeys(weighted + [what for what, *_ in self.constraints]))

    @property
    def needs_start(self) -> bool:
        """Whether the similarity to the start takes part."""
        return TANIMOTO in self._parts()

    def for_start(self, smiles: str) -> Objective:
        """The same with ``"tanimoto"`` referring to this molecule."""
        return Objective(self.terms, self.constraints, smiles)

    def assess(self, smiles: Sequence[str], errors: list[str] | None = None) -> Assessment:
        """Scores of molecules, and by how much they miss the constraints; `errors` as for `evaluate`.

        Raises
        ------
        ValueError
            If ``"tanimoto"`` takes part and there is no start.
        """
        smiles = list(smiles)
        values = {what: self._values(what, smiles, errors) for what in self._parts()}
        scores = np.zeros(len(smiles))
        for what, weight in self._weighted():
            scores += weight * values[what]
        shortfall = np.zeros(len(smiles))
        for what, sign, threshold in self.constraints:
            missing = threshold - values[what] if sign == ">=" else values[what] - threshold
            shortfall += np.maximum(missing, 0.0) / (abs(threshold) or 1.0)  # np.maximum keeps NaN
        return Assessment(scores, shortfall)

    def _values(self, what: str | Oracle, smiles: list[str], errors: list[str] | None) -> FloatArray:
        if not isinstance(what, str):
            return evaluate(what, smiles, errors)
        if what != TANIMOTO:
            return PROPERTIES[what](smiles)
        if self.start is None:
            raise ValueError("start: expected a molecule that 'tanimoto' refers to, got None; use for_start(smiles)")
        return _similarity_to(self.start)(smiles)

    def __call__(self, smiles: Sequence[str]) -> FloatArray:
        return self.assess(smiles).scores

    def __str__(self) -> str:
        text = ""
        for what, weight in self._weighted():
            sign = (" - " if weight < 0 else " + ") if text else ("-" if weight < 0 else "")
            text += f"{sign}{'' if abs(weight) == 1 else f'{abs(weight):g}*'}{oracle_name(what)}"
        limits = ", ".join(f"{oracle_name(what)} {sign} {value:g}" for what, sign, value in self.constraints)
        return f"{text} with {limits}" if limits else text


def oracle_name(oracle: str | Oracle) -> str:
    """What to call an oracle in texts and archives."""
    if isinstance(oracle, str | Objective):
        return str(oracle)
    name = getattr(oracle, "__qualname__", type(oracle).__qualname__)
    return f"{getattr(oracle, '__module__', '')}:{name}".lstrip(":")


# ------------------------------------------------------------------------------------------------ evaluation


def evaluate(oracle: Oracle, smiles: Sequence[str], errors: list[str] | None = None) -> FloatArray:
    """Scores of molecules, where an oracle that fails costs only the molecules it fails on.

    If the oracle raises on the list, it is called again with each molecule alone, and those that raise score NaN.
    KeyboardInterrupt and SystemExit aren't caught.

    Parameters
    ----------
    oracle
        Function of a list of SMILES.
    smiles
        n molecules.
    errors
        A list that texts of what the oracle raised are added to.

    Returns
    -------
    (n,) float64
        NaN where there is no score: the oracle raised, or returned None, NaN or infinity.

    Raises
    ------
    ValueError
        If the oracle doesn't return one number a molecule.
    """
    smiles = list(smiles)
    if not smiles:
        return np.empty(0)
    try:
        returned = oracle(list(smiles))
    except Exception as error:  # it may be anybody's code
        if len(smiles) == 1:
            if errors is not None:
                errors.append(f"{type(error).__name__}: {error}")
            return np.array([np.nan])
        return np.concatenate([evaluate(oracle, [each], errors) for each in smiles])
    return _as_scores(returned, len(smiles))


def _as_scores(returned: Any, n: int) -> FloatArray:
    try:
        values = [np.nan if value is None else float(value) for value in returned]
    except (TypeError, ValueError) as error:
        raise ValueError(f"oracle: expected a sequence of {n} numbers, got {type(returned).__name__}") from error
    if len(values) != n:
        raise ValueError(f"oracle: expected {n} scores for {n} molecules, got {len(values)}")
    scores = np.array(values)
    scores[~np.isfinite(scores)] = np.nan
    return scores
