"""Other forms of a molecule: another text, a salt, a tautomer, other stereo, another charge, one changed atom.

A maker takes a molecule and a random generator and gives the SMILES of its variants: none where the molecule has
no such form. `make` checks them: a variant of the group "text" must be the same molecule to RDKit, any other must not.

>>> make("hydrochloride", "CCNCC", np.random.default_rng(0)).smiles            # doctest: +SKIP
['CCNCC.Cl']
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

RANDOM_SMILES = 3  #: other texts of each molecule
MOST_TAUTOMERS, MOST_TRANSFORMS = 50, 100  #: limits of RDKit's enumeration, whose time explodes on some molecules
LARGEST_FOR_TAUTOMERS = 40  #: heavy atoms

#: Nitrogen of an aliphatic amine: neutral, three single bonds, all to hydrogen or sp3 carbon
AMINE = Chem.MolFromSmarts("[NX3;+0;!$(N~[!C]);!$(N~[C;!X4])]")
#: Acidic oxygen of a carboxylic or a sulfonic acid
ACID = Chem.MolFromSmarts("[OX2H1;$(O[CX3](=O)[#6]),$(OS(=O)(=O)[#6])]")
HALOGENS = {9: 17, 17: 9, 35: 17, 53: 35}  #: what each becomes: F <-> Cl, Br -> Cl, I -> Br
UNSPECIFIED = Chem.ChiralType.CHI_UNSPECIFIED
FLIPPED = {
    Chem.BondStereo.STEREOE: Chem.BondStereo.STEREOZ,
    Chem.BondStereo.STEREOZ: Chem.BondStereo.STEREOE,
    Chem.BondStereo.STEREOCIS: Chem.BondStereo.STEREOTRANS,
    Chem.BondStereo.STEREOTRANS: Chem.BondStereo.STEREOCIS,
}

Maker = Callable[[Chem.Mol, np.random.Generator], list[str]]


class Kind(NamedTuple):
    """One way to change a molecule."""

    title: str  #: as shown in tables
    group: str  #: "text", "salt", "charge", "tautomer", "stereo" or "change"
    policies: tuple[str, ...]  #: of preparation, under which it is measured
    maker: Maker


class Made(NamedTuple):
    """What `make` found."""

    smiles: list[str]
    refused: int  #: variants that failed the check, or that RDKit gave up on


# ---------------------------------------------------------------------------------------- another text


def random_smiles(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """Up to three other SMILES of the same molecule, atoms in random order."""
    texts = Chem.MolToRandomSmilesVect(mol, 4 * RANDOM_SMILES, randomSeed=int(rng.integers(1, 2**31)))
    others = [text for text in dict.fromkeys(texts) if text != Chem.MolToSmiles(mol)]
    return others[:RANDOM_SMILES]


def kekule(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """The SMILES with alternating double bonds instead of aromatic atoms."""
    if not any(atom.GetIsAromatic() for atom in mol.GetAtoms()):
        return []
    copy = Chem.Mol(mol)
    Chem.Kekulize(copy, clearAromaticFlags=True)
    return [Chem.MolToSmiles(copy, kekuleSmiles=True)]


# ---------------------------------------------------------------------------------------- salts and charges


def protonated(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """The first aliphatic amine with one more hydrogen and a positive charge."""
    return _with_charge(mol, AMINE, +1)


def deprotonated(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """The first carboxylic or sulfonic acid without its proton."""
    return _with_charge(mol, ACID, -1)


def hydrochloride(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """An amine with HCl beside it, both uncharged, as many files write it."""
    return [f"{Chem.MolToSmiles(mol)}.Cl"] if mol.HasSubstructMatch(AMINE) else []


def ammonium_chloride(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """The same salt as two ions."""
    return [f"{text}.[Cl-]" for text in protonated(mol, rng)]


def sodium_salt(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """An acid as its anion with Na+ beside it."""
    return [f"{text}.[Na+]" for text in deprotonated(mol, rng)]


def _with_charge(mol: Chem.Mol, pattern: Chem.Mol, charge: int) -> list[str]:
    match = mol.GetSubstructMatch(pattern)
    if not match:
        return []
    changed = Chem.RWMol(mol)
    atom = changed.GetAtomWithIdx(match[0])
    hydrogens = atom.GetTotalNumHs() + charge
    atom.SetFormalCharge(charge)
    atom.SetNoImplicit(True)
    atom.SetNumExplicitHs(hydrogens)
    return [_written(changed)]


# ---------------------------------------------------------------------------------------- tautomers


def ring_tautomer(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """Another tautomer that moves a hydrogen on an aromatic ring or to an atom next to one, the ring staying aromatic.

    These are the ones that two databases draw differently: 2-hydroxypyridine and 2-pyridone, the two NH of an
    imidazole. Of several the one that RDKit scores best.
    """
    return _best_tautomer(mol, on_ring=True)


def other_tautomer(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """Any other tautomer: keto and enol, amide and imidic acid; many are rare in a flask."""
    return _best_tautomer(mol, on_ring=False)


@cache
def _enumerator() -> Any:
    enumerator = rdMolStandardize.TautomerEnumerator()
    enumerator.SetMaxTautomers(MOST_TAUTOMERS)
    enumerator.SetMaxTransforms(MOST_TRANSFORMS)
    enumerator.SetRemoveSp3Stereo(False)  # else a variant would lose its stereo as well
    enumerator.SetRemoveBondStereo(False)
    return enumerator


def _best_tautomer(mol: Chem.Mol, on_ring: bool) -> list[str]:
    if mol.GetNumHeavyAtoms() > LARGEST_FOR_TAUTOMERS:
        return []
    candidates = []
    for tautomer in _enumerator().Enumerate(mol):  # atoms keep their order
        text = _written(tautomer)
        same_centres = _tetrahedral_centres(tautomer) == _tetrahedral_centres(mol)
        if same_centres and _flat(text) != _flat(Chem.MolToSmiles(mol)) and _moves_on_ring(mol, tautomer) == on_ring:
            candidates.append((-_enumerator().ScoreTautomer(tautomer), text))
    return [min(candidates)[1]] if candidates else []


def _moves_on_ring(mol: Chem.Mol, tautomer: Chem.Mol) -> bool:
    """Whether aromatic atoms stay aromatic, and hydrogens move only on them and on their neighbours."""
    for a, b in zip(mol.GetAtoms(), tautomer.GetAtoms(), strict=True):
        if a.GetIsAromatic() != b.GetIsAromatic():
            return False
        near_ring = a.GetIsAromatic() or any(n.GetIsAromatic() for n in a.GetNeighbors())
        if a.GetTotalNumHs() != b.GetTotalNumHs() and not near_ring:
            return False
    return True


# ---------------------------------------------------------------------------------------- stereo


def enantiomer(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """The mirror image: all tetrahedral centres inverted."""
    return _inverted(mol, _tetrahedral_centres(mol))


def epimer(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """One of two or more centres inverted, drawn at random; none where two rings share the atom."""
    centres = _tetrahedral_centres(mol)
    free = [i for i in centres if mol.GetRingInfo().NumAtomRings(i) < 2]
    if len(centres) < 2 or not free:
        return []
    variant, mirror = _inverted(mol, [int(rng.choice(free))]), _inverted(mol, centres)
    return [text for text in variant if text not in mirror]


def double_bond_flipped(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """E for Z, or Z for E, at the first double bond that has one."""
    changed = Chem.Mol(mol)
    for bond in changed.GetBonds():
        if bond.GetStereo() in FLIPPED:
            bond.SetStereo(FLIPPED[bond.GetStereo()])
            return [_reread(changed)]  # sanitising would bring the old one back
    return []


def stereo_removed(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """The molecule without stereo marks."""
    text = Chem.MolToSmiles(mol)
    return [_flat(text)] if _flat(text) != text else []


def _tetrahedral_centres(mol: Chem.Mol) -> list[int]:
    return [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetChiralTag() != UNSPECIFIED]


def _inverted(mol: Chem.Mol, centres: list[int]) -> list[str]:
    changed = Chem.Mol(mol)
    for i in centres:
        changed.GetAtomWithIdx(i).InvertChirality()
    text = _written(changed)
    return [text] if text != Chem.MolToSmiles(mol) else []  # meso forms are their own mirror image


# ---------------------------------------------------------------------------------------- one changed atom


def halogen_swapped(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """One halogen for another: F for Cl, Cl for F, Cl for Br, Br for I."""
    places = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() in HALOGENS and atom.GetDegree() == 1]
    return _with_element(mol, places, rng)


def carbon_to_nitrogen(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """An aromatic CH becomes N: benzene becomes pyridine."""
    places = [a.GetIdx() for a in mol.GetAtoms() if a.GetIsAromatic() and a.GetSymbol() == "C" and a.GetTotalNumHs()]
    return _with_element(mol, places, rng)


def hydrogen_to_fluorine(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """A hydrogen on carbon becomes F."""
    return _with_substituent(mol, 9, rng)


def hydrogen_to_methyl(mol: Chem.Mol, rng: np.random.Generator) -> list[str]:
    """A hydrogen on carbon becomes CH3."""
    return _with_substituent(mol, 6, rng)


def _with_element(mol: Chem.Mol, places: list[int], rng: np.random.Generator) -> list[str]:
    if not places:
        return []
    changed = Chem.RWMol(mol)
    atom = changed.GetAtomWithIdx(int(rng.choice(places)))
    atom.SetAtomicNum(HALOGENS.get(atom.GetAtomicNum(), 7))
    return [_written(changed)]


def _with_substituent(mol: Chem.Mol, element: int, rng: np.random.Generator) -> list[str]:
    """On a carbon drawn at random, stereo centres and double bonds with E or Z left alone."""
    fixed = {a for b in mol.GetBonds() if b.GetStereo() in FLIPPED for a in (b.GetBeginAtomIdx(), b.GetEndAtomIdx())}
    fixed |= set(_tetrahedral_centres(mol))
    places = [
        atom.GetIdx()
        for atom in mol.GetAtoms()
        if atom.GetSymbol() == "C" and atom.GetNumImplicitHs() and atom.GetIdx() not in fixed
    ]
    if not places:
        return []
    changed = Chem.RWMol(mol)
    changed.AddBond(int(rng.choice(places)), changed.AddAtom(Chem.Atom(element)), Chem.BondType.SINGLE)
    return [_written(changed)]


# ---------------------------------------------------------------------------------------- all of them

KINDS: dict[str, Kind] = {
    "random-smiles": Kind("another SMILES of the same molecule", "text", ("none", "canonical"), random_smiles),
    "kekule": Kind("Kekulé SMILES (no aromatic atoms)", "text", ("none", "canonical"), kekule),
    "hydrochloride": Kind("amine hydrochloride, `N` and `Cl`", "salt", ("canonical", "parent"), hydrochloride),
    "ammonium-chloride": Kind(
        "amine hydrochloride, `[NH+]` and `[Cl-]`", "salt", ("canonical", "parent"), ammonium_chloride
    ),
    "sodium-salt": Kind("sodium salt of an acid, `[O-]` and `[Na+]`", "salt", ("canonical", "parent"), sodium_salt),
    "protonated": Kind("amine protonated", "charge", ("canonical", "parent"), protonated),
    "deprotonated": Kind("acid deprotonated", "charge", ("canonical", "parent"), deprotonated),
    "ring-tautomer": Kind("tautomer on an aromatic ring", "tautomer", ("canonical",), ring_tautomer),
    "other-tautomer": Kind("other tautomer (enol, imidic acid)", "tautomer", ("canonical",), other_tautomer),
    "enantiomer": Kind("mirror image", "stereo", ("canonical",), enantiomer),
    "epimer": Kind("one of several centres inverted", "stereo", ("canonical",), epimer),
    "double-bond": Kind("E for Z at one double bond", "stereo", ("canonical",), double_bond_flipped),
    "stereo-removed": Kind("stereo marks removed", "stereo", ("canonical",), stereo_removed),
    "halogen": Kind("one halogen for another", "change", ("canonical",), halogen_swapped),
    "fluorine": Kind("H becomes F", "change", ("canonical",), hydrogen_to_fluorine),
    "methyl": Kind("H becomes methyl", "change", ("canonical",), hydrogen_to_methyl),
    "nitrogen": Kind("aromatic CH becomes N", "change", ("canonical",), carbon_to_nitrogen),
}


def make(name: str, canonical: str, rng: np.random.Generator) -> Made:
    """The variants of one molecule, checked.

    Parameters
    ----------
    name
        One of `KINDS`.
    canonical
        RDKit's canonical isomeric SMILES of the molecule.
    rng
        Draws the atom order, the atom or the centre, where there is a choice.

    Raises
    ------
    ValueError
        If there is no such kind, or `canonical` can't be read.
    """
    if name not in KINDS:
        raise ValueError(f"name: expected one of {', '.join(KINDS)}, got {name!r}")
    kind = KINDS[name]
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(canonical)
        if mol is None:
            raise ValueError(f"canonical: expected a SMILES that RDKit reads, got {canonical!r}")
        try:
            texts = kind.maker(mol, rng)
        except (RuntimeError, ValueError):  # RDKit: a valence or an aromatic ring that can't be
            return Made([], 1)
        kept = []
        for text in texts:
            variant = Chem.MolFromSmiles(text)
            if variant is not None and (kind.group == "text" or Chem.MolToSmiles(variant) != canonical):
                kept.append(text)
    return Made(kept, len(texts) - len(kept))


def _written(mol: Chem.Mol) -> str:
    """Canonical SMILES of a changed molecule, valences and aromaticity checked. ValueError where it is none."""
    changed = Chem.Mol(mol)
    Chem.SanitizeMol(changed)
    return _reread(changed)


def _flat(text: str) -> str:
    mol = Chem.MolFromSmiles(text)
    Chem.RemoveStereochemistry(mol)
    return _reread(mol)


def _reread(mol: Chem.Mol) -> str:
    """Canonical SMILES with stereo perceived anew: a mark may have lost its sense."""
    parsed = Chem.MolFromSmiles(Chem.MolToSmiles(mol))
    if parsed is None:
        raise ValueError("RDKit can't read what it wrote")
    return str(Chem.MolToSmiles(parsed))
