"""Pictures: what is in them (cells, captions, counts), that hostile texts stay texts, and that they repeat."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rdkit import Chem

from molcmim import pictures
from molcmim.chem import Status, prepare
from molcmim.generated import GeneratedTable, tanimoto
from molcmim.objectives import PROPERTIES
from molcmim.optimize import OptimizeResult
from molcmim.pictures.canvas import PngCanvas, SvgCanvas, clean, cut
from molcmim.pictures.molecules import MCS_STEPS, align, draw_pixels, draw_svg, parse
from molcmim.pictures.page import CELL, Cell, Group, caption_lines, molecule_cell, number_text, placed, word_lines
from molcmim.pictures.trace import curves

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
IBUPROFEN = "CC(C)Cc1ccc(C(C)C(=O)O)cc1"
NEAR = ["CC(=O)Oc1ccccc1C(=O)OC", "OC(=O)c1ccccc1O", ASPIRIN, "C1CC(", "CC(=O)Oc1ccc(F)cc1C(=O)O"]
ATTACK = '</title><script>alert("x")</script>&<img src=x onerror=alert(1)>'
SVG = "{http://www.w3.org/2000/svg}"


def make_table(smiles: list[str | None], seed: str | list[str] = "", **columns: Any) -> GeneratedTable:
    """A table as `MolCMIM.neighbours` makes it, with distances 1.0, 1.1, ..."""
    seeds = [seed] * len(smiles) if isinstance(seed, str) else seed
    canonical = [prepare(text).canonical_smiles for text in smiles]
    fields: dict[str, Any] = {
        "smiles": smiles,
        "canonical_smiles": canonical,
        "valid": np.array([text is not None for text in canonical], dtype=bool),
        "seed": seeds,
        "distance": np.where([bool(text) for text in seeds], 1 + 0.1 * np.arange(len(smiles)), np.nan),
        "tanimoto": tanimoto(canonical, [prepare(text).canonical_smiles for text in seeds]),
        "repaired": np.zeros(len(smiles), dtype=bool),
    }
    return GeneratedTable(**{**fields, **columns})


class Page(HTMLParser):
    """Figures, their attributes and texts, scripts, and every element of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[dict[str, Any]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "figure":
            self.figures.append({**dict(attrs), "text": []})

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.figures and data.strip() and self.elements[-1][0] != "script":
            self.figures[-1]["text"].append(data)


def texts(path: Path) -> list[str]:
    """Texts of an SVG picture, in order; parsing checks that it is well-formed XML."""
    return [element.text or "" for element in ElementTree.parse(path).getroot().iter(f"{SVG}text")]


def frames(path: Path) -> list[str]:
    """Fill colours of the cells of an SVG picture, in order."""
    rects = ElementTree.parse(path).getroot().iter(f"{SVG}rect")
    return [rect.attrib["fill"] for rect in rects if rect.attrib.get("width") == f"{CELL:g}"]


# ---------------------------------------------------------------------------------------- grid


def test_grid_has_the_seed_first_and_a_caption_for_each_molecule(tmp_path: Path) -> None:
    table = make_table(NEAR, ASPIRIN)
    path = pictures.grid(table, tmp_path / "a.svg", title="Around aspirin")
    assert frames(path) == ["#eaf3fb", "#ffffff", "#ffffff", "#ffffff", "#f6f8fa", "#ffffff"]
    found = texts(path)
    assert found[0] == "Around aspirin"
    assert found[1].startswith("5 molecules  ·  4 valid, 4 distinct")
    first, second, last = (float(table.tanimoto[i]) for i in (0, 1, 4))
    assert found[2:] == [
        "seed",
        *("1", f"Tanimoto {first:.2f} · distance 1.00"),
        *("2", f"Tanimoto {second:.2f} · distance 1.10"),
        *("3", "same as seed · distance 1.20"),
        *("4", "not valid", "C1CC("),
        *("5", f"Tanimoto {last:.2f} · distance 1.40"),
    ]
    assert 0 < first < 1


def test_grid_gives_properties_of_molecules_and_of_the_seed(tmp_path: Path) -> None:
    values = {name: np.asarray(PROPERTIES[name]([ASPIRIN, "CCO"])) for name in ("qed", "hbd")}
    table = make_table([ASPIRIN, "CCO"], IBUPROFEN, properties={**values, "mine": np.array([-1.5, np.nan])})
    page = Page(pictures.grid(table, tmp_path / "a.html").read_text())
    qed = float(PROPERTIES["qed"]([IBUPROFEN])[0])
    assert page.figures[0]["text"] == ["seed", f"QED {qed:.2f} · H donors 1"]  # a value of mine isn't known for it
    assert page.figures[1]["text"][2:] == ["QED 0.55 · H donors 1", "mine −1.50"]
    assert page.figures[2]["text"][2:] == ["QED 0.41 · H donors 1"]
    assert '"qed": 0.55' in str(page.figures[1]["data-values"])
    names = ("Tanimoto", "distance", "qed", "hbd", "mine")
    options = [attributes["value"] for tag, attributes in page.elements if tag == "option"]
    assert options == ["+", *(sign + name for name in names for sign in "-+")]


def test_grid_says_what_was_cut_off(tmp_path: Path) -> None:
    path = pictures.grid(make_table(["C" * (1 + i % 20) for i in range(1000)]), tmp_path / "a.svg")
    assert texts(path)[0] == "60 of 1,000 shown  ·  1,000 valid, 20 distinct"
    assert len(frames(path)) == 60


def test_a_limit_is_shared_by_seeds(tmp_path: Path) -> None:
    few = make_table(["C"] * 30, ["CCO"] * 10 + ["CCN"] * 10 + ["CCC"] * 10)
    path = pictures.grid(few, tmp_path / "a.svg", limit=12)
    assert texts(path)[0].startswith("12 of 30 shown  ·  30 valid, 1 distinct")
    assert frames(path) == (["#eaf3fb"] + ["#ffffff"] * 4) * 3
    path = pictures.grid(few, tmp_path / "a.svg", columns=7, limit=10)
    assert texts(path)[0].startswith("10 of 30 shown, around 2 of 3 seeds")
    assert frames(path) == ["#eaf3fb", *["#ffffff"] * 6, "#eaf3fb", *["#ffffff"] * 4]


def test_repaired_and_unfinished_rows_are_marked(tmp_path: Path) -> None:
    repaired = np.array([True, False])
    table = make_table(["CCO", None], status=["ok", "unfinished"], repaired=repaired)
    assert texts(pictures.grid(table, tmp_path / "a.svg"))[1:] == ["1", "repaired", "2", "unfinished"]


def test_a_seed_that_is_no_molecule_and_an_empty_table(tmp_path: Path) -> None:
    table = make_table([None], "not a molecule", status=["seed_parse_error"])
    found = texts(pictures.grid(table, tmp_path / "a.svg"))
    assert found[1:] == ["seed", "not valid", "not a molecule", "1", "seed parse error"]
    path = pictures.grid(make_table([]), tmp_path / "b.png")
    assert Image.open(path).size == (2 * (5 * 190 + 4 * 12 + 2 * 26), 2 * (2 * 26 - 4 + 19 + 12))
    assert texts(pictures.grid(make_table([]), tmp_path / "b.svg")) == ["0 molecules  ·  0 valid, 0 distinct"]


# ---------------------------------------------------------------------------------------- hostile


def test_rows_of_a_missing_seed_are_a_block_of_their_own(tmp_path: Path) -> None:
    table = make_table(["CCO", None], seed=["CC", ""], status=["ok", "seed_empty"])
    found = texts(pictures.grid(table, tmp_path / "a.svg"))
    assert found[-5:] == ["seed", "not valid", "(no SMILES)", "2", "seed empty"]


def test_texts_stay_texts(tmp_path: Path) -> None:
    hostile = [ATTACK, "C\x00\x1b[31m\n<b>", "C\ud800", "x" * 5000, None, "Cé"]
    table = make_table([*hostile, "CCO"], ATTACK, properties={ATTACK: np.arange(7.0)})
    content = pictures.grid(table, tmp_path / "a.html", title=ATTACK).read_text(encoding="utf-8")
    page = Page(content)
    assert {tag for tag, _ in page.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "p", "div", "label", "select", "option", "section"),
        *("figure", "header", "b", "span", "svg", "path", "figcaption", "script", "br"),
    }
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not any(name.startswith("on") or name in ("src", "href") for _, a in page.elements for name in a)
    assert "default-src 'none'" in str(next(a for tag, a in page.elements if "http-equiv" in a)["content"])
    assert page.figures[1]["data-smiles"] == ATTACK  # what is copied is what was written
    assert page.figures[1]["title"] == ATTACK
    assert page.figures[2]["data-smiles"] == "C??[31m?<b>"
    assert page.figures[3]["data-smiles"] == "C?"
    assert "data-smiles" not in page.figures[5]
    shown = texts(pictures.grid(table, tmp_path / "a.svg", title=ATTACK))
    assert shown[0] == ATTACK
    assert '</title><script>alert("x"' not in shown  # cut into short lines
    assert sum(text == "x" * 26 for text in shown) == 2
    assert sum(text == "x" * 25 + "…" for text in shown) == 1
    assert Image.open(pictures.grid(table, tmp_path / "a.png", title=ATTACK)).size[0] == 2100


def test_only_texts_that_chem_accepts_reach_rdkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []
    original = Chem.MolFromSmiles

    def spy(text: str, *more: Any) -> Any:
        seen.append(text)
        return original(text, *more)

    monkeypatch.setattr(Chem, "MolFromSmiles", spy)
    table = make_table(["C" * 30_000, "CCO ethanol", "C1CC"], "C" * 20_000)
    seen.clear()
    pictures.grid(table, tmp_path / "a.svg")
    assert seen == []  # the seed is too long, the rows aren't valid
    lying = make_table(["OCC", "C(" * 20_000], valid=np.array([True, True]), canonical_smiles=["CCO", "C(" * 20_000])
    seen.clear()
    pictures.grid(lying, tmp_path / "a.svg")
    assert set(seen) == {"CCO"}


@pytest.mark.parametrize(
    "smiles",
    ["C", "[H][H]", "[238U]", "[Na+].[Cl-]", "*C", "[CH3]", "[NH3+]CC(=O)[O-]", "[Fe+2].c1cc[cH-]c1.c1cc[cH-]c1",
     "F/C=C/F", "C[C@H](N)C(=O)O", "C" * 400, "C12C3C4C1C5C2C3C45"],
)  # fmt: skip
def test_odd_molecules_are_drawn(smiles: str) -> None:
    mol = parse(smiles)
    assert mol is not None and mol.GetNumConformers() == 1
    drawing = draw_svg(mol, 178, 124)
    ElementTree.fromstring(f"<g>{drawing}</g>")
    numbers = [float(n) for d in re.findall(r' d="([^"]*)"', drawing) for n in re.findall(r"-?\d+\.?\d*", d)]
    assert drawing.count("<path") >= 1
    assert min(numbers) > -3 and max(numbers) < 181  # inside the cell
    pixels = draw_pixels(mol, 178, 124, 2)
    assert pixels is not None and pixels.size == (356, 248) and pixels.mode == "RGBA"
    alpha = np.asarray(pixels)[:, :, 3]
    assert alpha.max() > 200 and (alpha > 0).mean() < 0.5


@pytest.mark.parametrize("smiles", ["C" * 401, ".".join("C" * 61), prepare("C1" + "C" * 1900 + "1").canonical_smiles])
def test_too_large_molecules_are_named_instead(smiles: str) -> None:
    cell = molecule_cell(smiles)
    assert (cell.mol, cell.kind) == (None, "plain")
    assert re.fullmatch(r"C\d+H\d+, too large to be drawn", cell.words)


# ---------------------------------------------------------------------------------------- layout of molecules


def bond_angles(mol: Any, pattern: str) -> list[tuple[float, float]]:
    """Vectors between matched atoms, which don't depend on where the molecule lies."""
    places = mol.GetConformer().GetPositions()[list(mol.GetSubstructMatch(Chem.MolFromSmarts(pattern)))]
    return [(round(float(x), 2), round(float(y), 2)) for x, y, _ in places[1:] - places[0]]


def test_a_shared_scaffold_lies_as_in_the_seed() -> None:
    seed, other = parse("COc1ccc2[nH]cc(CCNC(C)=O)c2c1"), parse("NCCc1c[nH]c2cc(F)ccc12")
    indole = "c1ccc2[nH]ccc2c1"
    assert bond_angles(seed, indole) != bond_angles(other, indole)
    assert align(other, seed)
    assert bond_angles(seed, indole) == bond_angles(other, indole)


def test_without_a_scaffold_the_common_part_counts() -> None:
    seed, other = parse("CCCCC(=O)NCC(C)C"), parse("FCCCCC(=O)NC")
    assert align(other, seed)
    assert bond_angles(seed, "CCCC(=O)NC") == bond_angles(other, "CCCC(=O)NC")


@pytest.mark.parametrize(("smiles", "seed"), [("CCO", ASPIRIN), ("CC#CC", "c1ccccc1"), ("C" * 401, ASPIRIN)])
def test_little_in_common_changes_nothing(smiles: str, seed: str) -> None:
    mol, reference = parse(smiles), parse(seed)
    before = [conformer.GetPositions().tolist() for conformer in mol.GetConformers()]
    assert not align(mol, reference)
    assert [conformer.GetPositions().tolist() for conformer in mol.GetConformers()] == before


def test_the_search_for_a_common_part_ends_after_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molcmim.pictures.molecules.MCS_STEPS", 5)
    peptides = [parse(f"NC(C{side})C(=O)NC(CO)C(=O)NC(CC(C)C)C(=O)O") for side in ("CSC", "c1ccccc1", "C(N)=O")]
    align(peptides[2], peptides[0])  # ends at once; whether it found anything by then doesn't matter
    assert MCS_STEPS == 3000


# ---------------------------------------------------------------------------------------- path


def test_path_merges_repeats_and_gives_both_similarities(tmp_path: Path) -> None:
    steps: list[str | None] = [ASPIRIN, ASPIRIN, NEAR[0], "C1CC", "C1CC", IBUPROFEN, IBUPROFEN, IBUPROFEN]
    path = pictures.path_picture(make_table(steps, ASPIRIN), tmp_path / "a.svg", ends=(ASPIRIN, IBUPROFEN))
    near = tanimoto([NEAR[0]] * 2, [ASPIRIN, IBUPROFEN])
    ends = float(tanimoto([ASPIRIN], [IBUPROFEN])[0])
    assert frames(path) == ["#eaf3fb", "#ffffff", "#f6f8fa", "#fdf3ec"]
    assert [text for text in texts(path) if "Morgan" not in text] == [
        *("start · steps 1–2", "×2", "Tanimoto 1.00 to the start", f"Tanimoto {ends:.2f} to the end"),
        *("step 3", f"Tanimoto {near[0]:.2f} to the start", f"Tanimoto {near[1]:.2f} to the end"),
        *("steps 4–5", "not valid ×2", "C1CC"),
        *("end · steps 6–8", "×3", f"Tanimoto {ends:.2f} to the start", "Tanimoto 1.00 to the end"),
    ]
    assert texts(path)[0].startswith("8 steps, 6 valid, 3 distinct molecules")


def test_ends_that_the_path_misses_are_added(tmp_path: Path) -> None:
    table = make_table([NEAR[0], None], status=["ok", "unfinished"])
    path = pictures.path_picture(table, tmp_path / "a.svg", ends=(ASPIRIN, IBUPROFEN))
    assert [text for text in texts(path) if "Tanimoto" not in text] == [
        "start",
        "step 1",
        "step 2",
        "unfinished",
        "end",
    ]
    path = pictures.path_picture(table, tmp_path / "a.svg")  # without them: the first valid row is both
    assert frames(path) == ["#eaf3fb", "#f6f8fa"]


def test_a_long_path_leaves_out_its_middle(tmp_path: Path) -> None:
    table = make_table(["C" * n for n in range(1, 31)])
    path = pictures.path_picture(table, tmp_path / "a.svg", limit=5)
    assert "5 of 30 shown, the middle is left out" in texts(path)[0]
    assert [text for text in texts(path) if "step " in text] == ["start · step 1", "step 2", "step 3", "step 29",
                                                                  "end · step 30"]  # fmt: skip


def test_all_invalid_and_hardly_any_rows(tmp_path: Path) -> None:
    path = pictures.path_picture(make_table(["C1CC", "C1C"]), tmp_path / "a.svg")
    assert frames(path) == ["#f6f8fa"]
    assert frames(pictures.path_picture(make_table([]), tmp_path / "a.svg")) == []


# ---------------------------------------------------------------------------------------- optimisation


def result(start: str, best: str | None, trace: list[tuple[int, float]], calls: int, **more: Any) -> OptimizeResult:
    return OptimizeResult(
        start=start, status=Status.ok, start_smiles=start, start_score=trace[0][1] if trace else float("nan"),
        best_smiles=best, best_score=trace[-1][1] if trace else float("nan"), similarity=0.456, calls=calls,
        trace=trace, **more,
    )  # fmt: skip


RESULTS = [
    result(ASPIRIN, NEAR[0], [(1, 0.2), (10, 0.6), (40, 0.95)], 40),
    result(IBUPROFEN, "CCO", [(1, 0.4), (20, 0.8), (100, 0.8)], 100),
    result("CCN", "CCC", [(5, 0.6), (100, 0.6)], 100),
    OptimizeResult(start="C1CC", status=Status.parse_error),
]


def test_curves_hold_their_last_value_and_their_median_is_right() -> None:
    shown = curves([each.trace for each in RESULTS], [each.calls for each in RESULTS])
    at = {int(call): i for i, call in enumerate(shown.calls) if call in (1, 5, 10, 40, 100)}
    assert shown.best.shape == (4, len(shown.calls)) and shown.n_scored == 3
    assert [shown.best[0, at[call]] for call in (1, 5, 10, 40, 100)] == [0.2, 0.2, 0.6, 0.95, 0.95]
    assert np.isnan(shown.best[2, at[1]]) and shown.best[2, at[5]] == 0.6
    assert [shown.median[at[call]] for call in (1, 5, 40, 100)] == pytest.approx([0.3, 0.4, 0.8, 0.8])
    assert shown.low[at[100]] == pytest.approx(0.7) and shown.high[at[100]] == pytest.approx(0.875)
    assert np.isnan(shown.best[3]).all() and np.isnan(shown.best[:, 0]).all()


def test_trace_picture_shows_lines_threshold_and_pairs(tmp_path: Path) -> None:
    path = pictures.trace_picture(RESULTS, tmp_path / "a.svg", threshold=0.9, name="QED", limit=3)
    found = texts(path)
    assert found[0] == "4 starts, 240 oracle calls  ·  1 of 4 reach QED 0.9  ·  molecules of the first 3 starts"
    assert {"best QED so far", "threshold 0.9", "oracle calls", "median", "one start", "100"} <= set(found)
    assert found[found.index("start 1") :] == [
        *("start 1", "QED 0.20", "best", "QED 0.95 · Tanimoto 0.46"),
        *("start 2", "QED 0.40", "best", "QED 0.80 · Tanimoto 0.46"),
        *("start 3", "QED 0.60", "best", "QED 0.60 · Tanimoto 0.46"),
    ]
    strokes = [path.attrib.get("stroke") for path in ElementTree.parse(path).getroot().iter(f"{SVG}path")]
    assert strokes.count("#6f7a86") == 3 + 1  # a thin line a start that has a score, one in the legend
    assert strokes.count("#b8430a") == 1 and strokes.count("#0a5fa5") == 1 + 1
    assert len(frames(path)) == 6


def test_a_long_name_of_a_score_is_cut(tmp_path: Path) -> None:
    name = "qed - 0.1*sa + 0.05*logp - 0.001*mw with tanimoto >= 0.4 and rings <= 4 and hbd <= 5"
    found = texts(pictures.trace_picture(RESULTS[:1], tmp_path / "a.svg", name=name, threshold=0.9))
    assert any(text.startswith("best qed") and text.endswith("…") for text in found)
    assert found[-1] == "score 0.95 · Tanimoto 0.46"
    found = texts(pictures.trace_picture(RESULTS[:1], tmp_path / "a.svg", name="plogp"))
    assert "best pen. log P so far" in found


def test_a_start_that_cannot_be_used_and_no_results(tmp_path: Path) -> None:
    page = Page(pictures.trace_picture(RESULTS[3:], tmp_path / "a.html").read_text())
    assert "no start has a score" in page.text
    assert [figure["class"] for figure in page.figures] == ["invalid", "invalid"]
    assert page.figures[0]["text"] == ["start 1", "parse error", "C1CC"]
    assert page.figures[1]["text"][:2] == ["best", "nothing found"]
    assert "no start has a score" in texts(pictures.trace_picture([], tmp_path / "a.svg"))


def test_a_trace_must_be_pairs(tmp_path: Path) -> None:
    broken: Any = [result(ASPIRIN, None, [(1, 0.5)], 1)]
    object.__setattr__(broken[0], "trace", [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"trace: expected \(calls, best score\) pairs, got shape \(3,\) for start 0"):
        pictures.trace_picture(broken, tmp_path / "a.svg")


# ---------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_the_same_input_gives_the_same_bytes_and_no_rest(tmp_path: Path, suffix: str) -> None:
    one, two = tmp_path / f"1{suffix}", tmp_path / f"2{suffix.upper()}"
    pictures.draw(make_table(NEAR, ASPIRIN), one, title="T")
    pictures.draw(make_table(NEAR, ASPIRIN), two, title="T")
    assert one.read_bytes() == two.read_bytes()
    pictures.draw(make_table([ASPIRIN, IBUPROFEN]), one, ends=(ASPIRIN, IBUPROFEN))
    pictures.draw(RESULTS, two, threshold=0.9)
    assert one.read_bytes() != two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [one.name, two.name]


def test_png_has_two_pixels_for_each_of_the_svg(tmp_path: Path) -> None:
    table = make_table(NEAR, ASPIRIN)
    image = Image.open(pictures.grid(table, tmp_path / "a.png", columns=3, title="T"))
    root = ElementTree.parse(pictures.grid(table, tmp_path / "a.svg", columns=3, title="T")).getroot()
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    assert image.size == (2 * width, 2 * height) == (2 * 646, 2 * (48 + 30 + 2 * 19 + 12 + 2 * 172 + 12))
    assert image.info["dpi"] == pytest.approx((192, 192), rel=1e-3)
    assert set(image.info) == {"dpi"}  # no molecules in the metadata
    pixels = np.asarray(image.convert("RGB"))
    seed, first = (pixels[2 * 120 : 2 * 240, 2 * x : 2 * (x + 180)] for x in (30, 232))
    assert (seed == (0xEA, 0xF3, 0xFB)).all(axis=2).mean() > 0.7  # the seed's pale blue
    assert (first == 255).all(axis=2).mean() > 0.7
    assert (first.max(axis=2) < 100).mean() > 0.005  # ink


def test_bad_names_and_options(tmp_path: Path) -> None:
    table = make_table(["CCO"])
    with pytest.raises(ValueError, match=r"ending in \.png, \.svg or \.html, got 'a\.jpg'"):
        pictures.draw(table, tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.html"):
        pictures.check_path("picture")
    with pytest.raises(FileNotFoundError, match="image: no such directory"):
        pictures.draw(table, tmp_path / "no" / "a.png")
    with pytest.raises(ValueError, match="columns: expected at least 1, got 0"):
        pictures.grid(table, tmp_path / "a.png", columns=0)
    with pytest.raises(ValueError, match="limit: expected at least 1, got -1"):
        pictures.path_picture(table, tmp_path / "a.png", limit=-1)
    with pytest.raises(ValueError, match="columns: expected at least 4, got 3"):
        pictures.trace_picture([], tmp_path / "a.png", columns=3)
    with pytest.raises(TypeError, match="expected a GeneratedTable or a list of OptimizeResult, got list"):
        pictures.draw(["CCO"], tmp_path / "a.png")  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pictures.draw(make_table(["CCO"]), tmp_path / "a.svg")
    before = path.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        pictures.draw(make_table(["CCC"]), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.svg"]


def test_without_pillow_only_png_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"\.png picture needs Pillow \(pip install pillow\)"):
        pictures.draw(make_table(["CCO"]), tmp_path / "a.png")
    assert len(frames(pictures.draw(make_table(["CCO"]), tmp_path / "a.svg"))) == 1


def test_a_png_too_large_for_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 300 million pixels, got 400 million"):
        PngCanvas(10_000, 10_000)


def test_importing_is_light() -> None:
    code = "import sys, molcmim.pictures; print([m for m in ('torch', 'rdkit', 'PIL', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------------------------------- parts


def test_groups_start_a_row_unless_they_fit() -> None:
    groups = [Group([Cell("C")] * n, arrows=n == 2) for n in (2, 2, 2, 7)]
    places = [(place.row, place.column) for place in placed(groups, 5)]
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), *[(2, c) for c in range(5)], (3, 0), (3, 1)]
    assert [place.arrow for place in placed(groups, 5)] == [False, True] * 3 + [False] * 7


def test_captions() -> None:
    assert number_text("SA", -0.001) == "SA 0.00"
    assert number_text("MW", 1234.56) == "MW 1234.6"
    assert number_text("x", None) == number_text("x", float("inf")) == ""
    lines = caption_lines(["QED 0.55", "", "log P 1.31", "TPSA 63.60", "SA 1.58"])
    assert [line.text for line in lines] == ["QED 0.55 · log P 1.31", "TPSA 63.60 · SA 1.58"]
    assert cut("abcdefghij", 10, 30) == "abcd…" and cut("abcde", 10, 30) == "abcde"
    assert word_lines("a" * 27) == ["a" * 26, "a"] and word_lines("") == []
    assert clean("a\tb\u202ec\ud800é→") == "a?b?c?é→"


def test_both_canvases_have_lines_of_the_same_shape() -> None:
    """The PNG of a line covers the pixels that its coordinates in the SVG name."""
    png, svg = PngCanvas(40, 20, scale=1), SvgCanvas(40, 20, "a line")
    for canvas in (png, svg):
        canvas.lines([(5, 10), (35, 10)], "#000000", 2.0)
        canvas.area([(10, 2), (20, 2), (20, 6), (10, 6)], "#0a5fa5", 0.5)
    pixels = np.asarray(Image.open(io.BytesIO(png.render())).convert("RGB")).astype(int)
    assert (pixels[9:11, 6:34] < 100).all() and (pixels[13:, :] == 255).all() and (pixels[:, :3] == 255).all()
    assert abs(pixels[4, 15] - (255 + np.array([0x0A, 0x5F, 0xA5])) / 2).max() <= 2
    assert 'd="M5.0 10.0L35.0 10.0"' in svg.render() and 'fill-opacity="0.5"' in svg.render()
