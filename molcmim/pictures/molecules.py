"""Molecules for pictures: text to a molecule that is safe to draw, its layout beside another one, its drawing.

Every text passes `molcmim.chem.prepare` before RDKit sees it. The drawings of one molecule as SVG and as pixels come
from the same settings. RDKit and Pillow are imported by the functions that use them.
"""

# Lengths are pixels of a picture at scale 1, y downwards.

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from molcmim.chem import prepare

if TYPE_CHECKING:
    from PIL.Image import Image

INK = "#1b1f24"  #: text, and carbon; as in the reports of `molcmim benchmark`
BOND = 21.0  #: length of a bond where the molecule fits; larger molecules are drawn smaller
#: What is drawn, for the sake of time: 400 atoms take 0.2 s, 1,500 atoms 13 s; 300 single atoms 9 s; the complete
#: bipartite graph on 14 + 14 atoms, 169 rings, two minutes. Fullerenes, carboranes and proteins of 50 residues pass.
MOST_ATOMS, MOST_PARTS = 400, 60
MOST_RINGS, RINGS_PER_ATOM = 32, 0.6  #: the larger of the two
MOST_MCS_ATOMS = 70
MCS_STEPS = 3000  #: of RDKit's search for a common part, 0.3 s; a count, not a time, so that pictures repeat
MCS_SECONDS = 5  #: if a step itself takes long
WORST_FIT = 0.72  #: aligned molecules may be so much smaller than by themselves
SMALLEST_COMMON = 5  #: atoms; aligning on fewer turns molecules for nothing

#: Colours of labels (see `molcmim.moleculenet.maps.COLOURS`) as red, green, blue from 0 to 1; all have letters as well
_BLUE, _RED, _OCHRE, _GREEN, _BLACK = (
    (0.169, 0.373, 0.788),
    (0.776, 0.157, 0.157),
    (0.588, 0.439, 0.039),
    (0.129, 0.502, 0.227),
    (0.106, 0.122, 0.141),
)
_PALETTE = {-1: _BLACK, 7: _BLUE, 8: _RED, 15: _OCHRE, 16: _OCHRE, 9: _GREEN, 17: _GREEN, 35: _GREEN, 53: _GREEN}

_PATH = re.compile(r"<path\b[^>]*?/>", re.DOTALL)
_D, _STYLE, _FILL = re.compile(r"\bd='([^']*)'"), re.compile(r"\bstyle='([^']*)'"), re.compile(r"\bfill='([^']*)'")
_BODY = re.compile(r"<!-- END OF HEADER -->(.*)</svg>", re.DOTALL)


def parse(smiles: object) -> Any | None:
    """An RDKit molecule with a layout of its own; None for anything that `molcmim.chem.prepare` refuses.

    A molecule that would take too long has no layout, see MOST_ATOMS.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDepictor

    text = prepare(smiles).canonical_smiles
    if text is None:
        return None
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text, _parser())
        if mol is not None and _drawable(mol):
            rdDepictor.Compute2DCoords(mol, canonOrient=True, useRingTemplates=True)
    return mol


def _drawable(mol: Any) -> bool:
    from rdkit import Chem

    atoms, parts = mol.GetNumAtoms(), len(Chem.GetMolFrags(mol))
    rings = mol.GetNumBonds() - atoms + parts
    return atoms <= MOST_ATOMS and parts <= MOST_PARTS and rings <= max(MOST_RINGS, RINGS_PER_ATOM * atoms)


@functools.cache
def _parser() -> Any:
    from rdkit import Chem

    parameters: Any = Chem.SmilesParserParams()
    parameters.allowCXSMILES = False
    parameters.parseName = False
    return parameters


def formula(mol: Any) -> str:
    """Molecular formula (Hill)."""
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    return str(CalcMolFormula(mol))


# ---------------------------------------------------------------------------------------- side by side


def align(mol: Any, reference: Any) -> bool:
    """Lay `mol` out so that the part it shares with `reference` lies as it does there.

    The shared part is the largest common substructure (whole rings only) found within a fixed number of steps, or the
    reference's Murcko scaffold if that is larger or the molecules have more than 70 atoms.

    Parameters
    ----------
    mol, reference
        From `parse`; `mol` gets new coordinates.

    Returns
    -------
    bool
        False if nothing of 5 atoms or more is shared, the layout fails, or the molecule would have to be drawn much
        smaller: then `mol` stays as it was.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDepictor

    if mol.GetNumConformers() == 0 or reference.GetNumConformers() == 0:
        return False
    pairs = _common_atoms(mol, reference)
    if len(pairs) < SMALLEST_COMMON:
        return False
    trial = Chem.Mol(mol)
    with rdBase.BlockLogs():
        try:
            rdDepictor.GenerateDepictionMatching2DStructure(trial, reference, pairs)
        except (ValueError, RuntimeError):
            return False
    if _fit(trial) < WORST_FIT * _fit(mol):
        return False
    mol.RemoveAllConformers()
    mol.AddConformer(trial.GetConformer(), assignId=True)
    return True


def _fit(mol: Any) -> float:
    """How large the molecule can be drawn in a field of the usual shape; 1: at full size."""
    import numpy as np

    width, height = np.ptp(mol.GetConformer().GetPositions()[:, :2], axis=0)
    return float(min(1.0, 11.0 / (width + 2.0), 7.5 / (height + 2.0)))  # in angstroms; a bond has 1.5


def _common_atoms(mol: Any, reference: Any) -> list[tuple[int, int]]:
    """(atom of the reference, atom of mol) for every shared atom."""
    from rdkit import Chem
    from rdkit.Chem import rdFMCS
    from rdkit.Chem.Scaffolds import MurckoScaffold

    scaffold = MurckoScaffold.GetScaffoldForMol(reference)
    pattern = scaffold if mol.HasSubstructMatch(scaffold) else None
    if max(mol.GetNumAtoms(), reference.GetNumAtoms()) <= MOST_MCS_ATOMS:
        parameters: Any = rdFMCS.MCSParameters()
        parameters.Timeout = MCS_SECONDS
        parameters.BondCompareParameters.RingMatchesRingOnly = True
        parameters.BondCompareParameters.CompleteRingsOnly = True
        parameters.ProgressCallback = counter = _step_limit()
        found = rdFMCS.FindMCS([reference, mol], parameters)
        del counter  # alive until here: RDKit keeps no reference to it
        if found.numAtoms > (pattern.GetNumAtoms() if pattern is not None else 0):
            pattern = Chem.MolFromSmarts(found.smartsString)
    if pattern is None:
        return []
    here, there = mol.GetSubstructMatch(pattern), reference.GetSubstructMatch(pattern)
    return list(zip(there, here, strict=True)) if here and there else []


def _step_limit() -> Any:
    """Ends RDKit's search after MCS_STEPS calls; what it found until then is used."""
    from rdkit.Chem import rdFMCS

    class Limit(rdFMCS.MCSProgress):
        steps = 0

        def __call__(self, stat: Any, parameters: Any) -> bool:
            self.steps += 1
            return self.steps < MCS_STEPS

    return Limit()


# ---------------------------------------------------------------------------------------- drawings


def draw_svg(mol: Any, width: float, height: float) -> str:
    """SVG elements of a molecule that fills (width, height) or less; "" if it can't be drawn."""
    from rdkit.Chem.Draw import rdMolDraw2D

    text = _drawn(rdMolDraw2D.MolDraw2DSVG(round(width), round(height)), mol, 1.0)
    body = _BODY.search(text) if isinstance(text, str) else None
    return _compact(body.group(1)) if body else ""


def draw_pixels(mol: Any, width: float, height: float, scale: float) -> Image | None:
    """The same as a transparent image of (width, height) * scale pixels; None if it can't be drawn."""
    import io

    from PIL import Image
    from rdkit.Chem.Draw import rdMolDraw2D

    size = round(width * scale), round(height * scale)
    png = _drawn(rdMolDraw2D.MolDraw2DCairo(*size), mol, scale)
    return Image.open(io.BytesIO(png)).convert("RGBA") if png else None


def _drawn(drawer: Any, mol: Any, scale: float) -> Any:
    """What the drawer wrote; None if it can't draw the molecule."""
    from rdkit import rdBase
    from rdkit.Chem.Draw import rdMolDraw2D

    if mol.GetNumConformers() == 0:
        return None
    options = drawer.drawOptions()
    options.setAtomPalette(_PALETTE)
    options.clearBackground = False
    options.includeMetadata = False
    options.addStereoAnnotation = False
    options.flagCloseContactsDist = -1  # red boxes that cover small drawings
    options.fixedBondLength = BOND * scale
    options.bondLineWidth = 1.4 * scale
    options.minFontSize, options.maxFontSize = round(7 * scale), round(15 * scale)
    options.padding = 0.04
    with rdBase.BlockLogs():
        try:
            rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol)
        except (ValueError, RuntimeError):
            return None
    drawer.FinishDrawing()
    return drawer.GetDrawingText()


def _compact(body: str) -> str:
    """Joins paths of one colour that follow each other and drops what are defaults: a third of the size."""
    joined: list[tuple[str, str]] = []  # attributes, path
    rest = _PATH.sub("", body).strip()
    for element in _PATH.findall(body):
        d, style, fill = _D.search(element), _STYLE.search(element), _FILL.search(element)
        if d is None:
            continue
        if style is not None:
            given = dict(item.split(":", 1) for item in style.group(1).split(";") if ":" in item)
            attributes = f'fill="{given.get("fill", "none")}"'
            if "stroke" in given:
                width = given.get("stroke-width", "1").removesuffix("px")
                attributes += f' stroke="{given["stroke"]}" stroke-width="{width}"'
        else:
            attributes = f'fill="{fill.group(1) if fill else INK}"'
        path = re.sub(r"\s*([MLQCZ])\s*", r"\1", d.group(1).replace(",", " ")).replace(".0", "")
        path = re.sub(r"\s+", " ", path).strip()
        if joined and joined[-1][0] == attributes:
            joined[-1] = attributes, joined[-1][1] + path
        else:
            joined.append((attributes, path))
    return "".join(f'<path {attributes} d="{path}"/>' for attributes, path in joined) + rest
