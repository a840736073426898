"""The report of the MoleculeNet runner: numbers, verdicts, escaping, and that the page loads nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_sample import FEATURES, HOSTILE, OURS, PROTOCOLS, SETS, write_sample

from molcmim.moleculenet import statistics
from molcmim.moleculenet.map_plot import choose_examples, map_plot
from molcmim.moleculenet.maps import draw
from molcmim.moleculenet.plots import agreement_plot, cliques, hexagons, make_map, ticks
from molcmim.moleculenet.report import markdown, write_report
from molcmim.moleculenet.report_data import View
from molcmim.moleculenet.report_html import page
from molcmim.moleculenet.report_text import answer
from molcmim.moleculenet.report_views import default_reference, load_report
from molcmim.moleculenet.results import COLUMNS
from molcmim.moleculenet.types import Dataset


class Tags(HTMLParser):
    """Elements and attributes of a page, and the text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


class Folder:
    """A written sample with its report."""

    def __init__(self, out: Path, **options: Any) -> None:
        self.out = out
        self.values = write_sample(out, **options)
        self.report = load_report(out)
        self.html, self.markdown = page(self.report), markdown(self.report)

    def view(self, protocol: str, head: str) -> View:
        return next(v for v in self.report.views if (v.protocol, v.head) == (protocol, head))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("report") / "out")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    out = tmp_path_factory.mktemp("hostile") / "out"
    (out / "maps").mkdir(parents=True)
    points = [
        {"x": i / 11, "y": 0.5, "value": float(i), "smiles": HOSTILE, "near": [0], "drawing": {"lines": HOSTILE}}
        for i in range(12)
    ]
    points[3]["drawing"] = {"lines": "M1 2L3 4", "labels": [[1, 2, 9, HOSTILE, 0]]}
    content = {"dataset": "esol", "title": HOSTILE, "task": "regression", "unit": HOSTILE, "features": HOSTILE}
    (out / "maps" / "esol.json").write_text(json.dumps({**content, "target": HOSTILE, "points": points}))
    return Folder(out, share=0.0, hostile=True, heads=("svm", "ridge"))


def cells_of(markdown: str, head: str, first: str, features: str) -> list[str]:
    """Cells of a row of the table whose first heading is `first`, under random5 and the head."""
    part = markdown.split("## Protocol `random5`")[1].split(f"### Head `{head}`")[1]
    table = part[part.index(f"| {first} |") :]
    row = next(line for line in table.splitlines() if line.startswith(f"| `{features}` |"))
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def test_scores_and_differences_are_those_of_statistics(sample: Folder) -> None:
    n, n_test = 252, 51  # lipo: 6 % of 4,200 molecules, 20 % for testing
    ours = sample.values["lipo", "random5", OURS, "svm", "rmse"]
    theirs = sample.values["lipo", "random5", "minimol", "svm", "rmse"]
    interval = statistics.corrected_interval(ours, n - n_test, n_test)
    shown = f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
    assert cells_of(sample.markdown, "svm", "features", OURS)[2] == shown
    assert f">{interval.mean:.3f}<small>[{interval.low:.3f}, {interval.high:.3f}]</small>" in sample.html
    found = statistics.paired(ours, theirs, n - n_test, n_test, higher_is_better=False)
    assert found.verdict == "behind" and found.low > 0
    # errors are turned round: + means that the reference is better
    text = f"−{found.difference:.3f} [−{found.high:.3f}, −{found.low:.3f}]"
    assert cells_of(sample.markdown, "svm", f"`{OURS}` against", "minimol")[2] == f"{text} behind"
    assert f'−{found.difference:.3f} <span class="behind">▼ behind</span>' in sample.html


def test_auc_differences_keep_their_sign(sample: Folder) -> None:
    ours, floor = (sample.values["bace", "random5", f, "svm", "roc_auc"] for f in (OURS, "floor"))
    found = statistics.paired(ours, floor, 72, 18, higher_is_better=True)
    pair = sample.view("random5", "svm").versus_reference["floor", "bace"]
    assert pair == pytest.approx((*found[:3], found.verdict))
    assert pair.reversed().advantage == -pair.advantage
    assert {"ahead": "behind", "behind": "ahead", "tie": "tie"}[pair.verdict] == pair.reversed().verdict


def test_one_split_is_resampled(sample: Folder) -> None:
    view = sample.view("scaffold", "ridge")
    assert view.resampled and "resampling" in sample.markdown.split("## Protocol `scaffold`")[1]
    files = [np.load(sample.out / "predictions" / f"lipo-scaffold-{f}-ridge.npz") for f in ("minimol", "rdkit2d")]
    best, second = ((f["measured"], f["predicted"]) for f in files)
    interval = statistics.bootstrap_interval(*best, "rmse")
    assert view.cells["minimol", "lipo"][:3] == pytest.approx(interval, abs=0.02)  # rows in another order
    found = statistics.paired_bootstrap(best[0], best[1], second[1], "rmse")
    assert view.versus_best["rdkit2d", "lipo"].advantage == pytest.approx(-found.difference)
    assert view.versus_best["rdkit2d", "lipo"].low == pytest.approx(-found.high, abs=0.02)


def test_the_best_is_bold_and_ties_are_marked(sample: Folder) -> None:
    view = sample.view("random5", "svm")
    for column, (name, *_) in enumerate(SETS):
        means = {f: view.cells[f, name].mean for f in FEATURES}
        best = (max if view.columns[column].higher_is_better else min)(means, key=means.__getitem__)
        assert view.best[name] == best
        for features in FEATURES:
            cell = cells_of(sample.markdown, "svm", "features", features)[column]
            assert cell.startswith("**") == (features == best)
            tie = features != best and view.versus_best[features, name].verdict == "tie"
            assert ("≈" in cell) == tie


def test_a_reader_learns_who_wins_by_how_much_and_beyond_chance(sample: Folder) -> None:
    view = sample.view("random5", "svm")
    column = view.columns[2]
    text = "".join(part for _, part in answer(view, column))
    second = view.order("lipo")[1]
    by = view.versus_best[second, "lipo"]
    assert text.startswith("Lipophilicity: minimol wins with the lowest RMSE, ")
    assert f"by {by.advantage:.3f} [{by.low:.3f}, {by.high:.3f}], beyond chance" in text
    behind = view.versus_reference["minimol", "lipo"].reversed()
    expected = f"behind minimol by {behind.advantage:.3f} [{behind.low:.3f}, {behind.high:.3f}], beyond chance."
    assert expected in text
    assert "<b> wins</b>" in sample.html and "- **Lipophilicity:** `minimol` **wins** with" in sample.markdown
    bace = "".join(part for _, part in answer(view, view.columns[3]))
    assert "level with it: the difference is within chance" in bace


def test_missing_scores_have_a_note(sample: Folder) -> None:
    view = sample.view("random5", "rf")
    cell = view.cells["floor", "bace"]
    assert np.isnan(cell.mean) and cell.n_missing == 5 and "floor" not in view.order("bace")
    assert view.ranks is not None and view.ranks.left_out == ["floor"]
    shown = cells_of(sample.markdown, "rf", "features", "floor")[3]
    number = re.fullmatch(r"n/a \((\d)\)", shown)
    assert number and f"({number[1]}) no score; one class in the test part." in sample.markdown
    assert cells_of(sample.markdown, "rf", f"`{OURS}` against", "floor")[3] == "n/a"
    some = sample.view("random5", "ridge").cells["floor", "freesolv"]
    values = sample.values["freesolv", "random5", "floor", "ridge", "rmse"]
    assert (some.n_splits, some.n_missing) == (4, 1) and some.mean == pytest.approx(np.nanmean(values))
    assert "1 of 5 splits have no score; one class in the test part" in sample.html
    assert "37 molecules without features" in sample.html and "37 molecules without features" in sample.markdown
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+|[a-z]+nan", "", sample.html.lower())


def test_protocol_warnings_stand_with_the_numbers(sample: Folder) -> None:
    warning = str(PROTOCOLS["paper"]["warning"])
    blocks = re.findall(
        r'<div class="view" data-protocol="paper".*?(?=<div class="view"|</section>)', sample.html, re.S
    )
    named = [block for block in blocks if warning in block]
    assert len(named) == 4  # answers, scores, differences, ranks
    assert warning in sample.markdown.split("## Protocol `paper`")[1]
    assert sample.view("paper", "svm").columns[0].metric == "mse"
    assert [c.title for c in sample.view("paper", "svm").columns] == ["ESOL", "FreeSolv", "Lipophilicity"]


def test_order_of_views_and_what_was_run(sample: Folder) -> None:
    keys = [(v.protocol, v.head) for v in sample.report.views]
    assert keys[:3] == [("random5", "svm"), ("random5", "ridge"), ("random5", "rf")]
    assert keys[-1] == ("paper", "svm") and len(keys) == 7
    for text in ("0123abcd" * 5, "2026-11-24 12:00:00 UTC", "Some CPU", "rdkit 2026.9.1", "2 parse_error, 1 empty"):
        assert text in sample.html
        assert text.replace("_", r"\_") in sample.markdown or text in sample.markdown
    assert "C 3 (3×), 1 (1×), 10 (1×)" in sample.html
    assert "4" * 64 in sample.html and "4" * 64 in sample.markdown


def test_the_page_loads_nothing(sample: Folder, hostile: Folder) -> None:
    for folder in (sample, hostile):
        tags = Tags(folder.html)
        for tag, attributes in tags.elements:
            assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "image", "use")
            assert "src" not in attributes and not any(name.startswith("on") for name in attributes)
            assert (attributes.get("href") or "#").startswith("#")
        assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", folder.html)
        policy = [a.get("content") for t, a in tags.elements if t == "meta" and "http-equiv" in a]
        assert policy == ["default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"]
    assert len(sample.html) < 3e6


def test_hostile_texts_are_escaped(hostile: Folder) -> None:
    tags = Tags(hostile.html)
    scripts = [a for t, a in tags.elements if t == "script"]
    assert scripts == [{"type": "application/json", "class": "mapdata"}, {}]
    assert "<script>alert" not in hostile.html and "&lt;script&gt;alert(1)" in hostile.html
    data = json.loads(re.findall(r'class="mapdata">(.*?)</script>', hostile.html, re.S)[0])
    assert data["points"][0][3] == HOSTILE  # whole again once parsed, and put into the page as text
    assert data["points"][0][5] == ""  # not a path
    assert data["points"][3][5] == "M1 2L3 4"
    outside_code = re.sub(r"`[^`\n]*`", "", hostile.markdown)
    assert "<script>" not in outside_code and "&lt;script&gt;" in outside_code
    tables = [line for line in hostile.markdown.splitlines() if line.startswith("| `")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {5, 7}  # 3 or 5 sets: no cell was torn apart


def test_reference(hostile: Folder, tmp_path: Path) -> None:
    assert default_reference(["ecfp4", "other:both", "molcmim-tiny:latent", "molcmim-tiny:both"]) == "molcmim-tiny:both"
    assert default_reference(["ecfp4", "other:both"]) == "other:both"
    assert default_reference(["rdkit2d", "ecfp4"]) == "rdkit2d"
    report = load_report(hostile.out, "minimol")
    view = report.views[0]
    assert view.versus_reference[OURS, "lipo"] == hostile.report.views[0].versus_reference["minimol", "lipo"].reversed()
    assert ("minimol", "lipo") not in view.versus_reference
    with pytest.raises(ValueError, match=r"reference: expected one of .*minimol.*, got 'nothing'"):
        write_report(hostile.out, "nothing")
    with pytest.raises(FileNotFoundError, match=r"expected a folder with results\.csv"):
        write_report(tmp_path)


def test_a_folder_of_one_number(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(ValueError, match="expected results, got no rows"):
        write_report(tmp_path)
    line = "mine,random5,ecfp4,svm,0,,rmse,0.5,80,20,0,1,,1.0,abc,\n"
    path.write_text(",".join(COLUMNS) + "\n" + line)
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| `ecfp4` | **0.500** |" in text and "`ecfp4` alone was scored: 0.500 RMSE" in text
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<b>0.500</b>" in html and "needs at least two data sets" in html
    assert "has no scores here, or nothing to be compared with" in html


def test_tasks_are_not_mixed_with_their_average(tmp_path: Path) -> None:
    rows = [
        f"sider,random5,{f},ridge,{s},{task},roc_auc,{value},80,20,0,2,,1,x,"
        for f, shift in (("a", 0.0), ("b", 0.1))
        for s in range(3)
        for task, value in (("", 0.6 + shift + (1 + shift) * s / 100), ("liver", 0.9), ("skin", 0.3))
    ]
    (tmp_path / "results.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    view = load_report(tmp_path).views[0]
    assert [view.cells[f, "sider"].mean for f in "ab"] == pytest.approx([0.61, 0.711])
    assert view.versus_reference["b", "sider"].verdict == "behind" and view.best == {"sider": "b"}


def test_ranks_and_cliques(sample: Folder) -> None:
    assert cliques([1.0, 2.0, 3.5, 6.0], 1.6) == [(0, 1), (1, 2)]
    assert cliques([1.0, 2.0, 3.0], 5.0) == [(0, 2)] and cliques([1.0, 3.0], 1.0) == []
    ranks = sample.view("random5", "svm").ranks
    assert ranks is not None and ranks.ranks == sorted(ranks.ranks) and sum(ranks.ranks) == pytest.approx(36)
    assert ranks.critical_difference == pytest.approx(statistics.critical_difference(8, 5))
    assert "5 data sets are few" in sample.html and f"more than {ranks.critical_difference:.2f} places" in sample.html


def test_plots_show_every_point() -> None:
    assert ticks(0.0, 1.0, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] and ticks(3.0, 3.0) == [3.0]
    x = np.array([10.0, 10.1, 50.0, 90.0])
    paths = hexagons(x, x, 4.0)
    assert sum(d.count("M") for d, _ in paths) == 3 and {level for _, level in paths} <= {1, 2, 3, 4, 5}
    few = agreement_plot(np.arange(5.0), np.array([0, 1, 2, 3, 99.0]), "kcal/mol", "reference")
    assert few.count('class="point"') == 5 and "measured, kcal/mol" in few
    drawn = [float(y) for y in re.findall(r'class="point" cx="[\d.]+" cy="([-\d.]+)"', few)]
    assert min(drawn) >= 0  # a prediction far outside is drawn at the edge


def test_map(tmp_path: Path) -> None:
    smiles = ["C[C@H](N)C(=O)O", "c1ccccc1Cl", "OS(=O)(=O)O", *("C" * k for k in range(1, 15)), " CCN "]
    n = len(smiles)
    y = np.arange(n, dtype=float)[:, None]
    data = Dataset("mine", "Mine", "regression", ("y",), smiles, [s.strip() for s in smiles], y, np.arange(n) + 5)
    x = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
    x[4] = np.nan
    x[:, 2] = 1.0
    path = make_map(data, x, tmp_path, n=15, features="ours:both")
    content = json.loads(path.read_text())
    assert path == tmp_path / "maps" / "mine.json" and content["features"] == "ours:both"
    points = content["points"]
    rows = [point["row"] for point in points]
    assert len(points) == 15 and rows == sorted(rows) and 9 not in rows  # row 4 has no features
    assert all(point["value"] == point["row"] - 5 and 0 <= point["x"] <= 1 for point in points)
    assert all(i not in point["near"] and len(point["near"]) == 5 for i, point in enumerate(points))
    values = np.array([point["value"] for point in points])
    near = np.mean([abs(values[i] - values[point["near"][0]]) for i, point in enumerate(points)])
    pairs = [abs(a - b) for i, a in enumerate(values) for b in values[:i]]
    assert content["neighbours"] == pytest.approx(near, abs=1e-3) and content["any_two"] == pytest.approx(
        np.mean(pairs), abs=1e-3
    )
    assert path.stat().st_size < 15 * 2000
    with pytest.raises(ValueError, match=r"x: expected shape \(18, d\), got \(3, 6\)"):
        make_map(data, x[:3], tmp_path)
    with pytest.raises(ValueError, match="at least 10 rows"):
        make_map(data, np.where(np.arange(n)[:, None] < 12, np.nan, x), tmp_path)
    examples = choose_examples(points)
    assert len(set(examples)) == 12
    assert map_plot(content, examples).count("data-i=") == 15


def test_drawings() -> None:
    drawing = draw("C[C@H](N)C(=O)[O-].c1ccc(Cl)cc1")
    texts = [label[3] for label in drawing["labels"]]
    assert sorted(texts) == sorted(["N", "H", "2", "O", "O", "-", "Cl"])
    assert {label[3]: label[4] for label in drawing["labels"]}["Cl"] == 4
    assert re.fullmatch(r"(M-?\d+ -?\d+(L-?\d+ -?\d+)+)+", drawing["lines"])
    wedge = draw("C[C@@H](N)C(=O)O")
    assert "fills" in wedge or drawing["lines"].count("M") > 12  # stereo is drawn: a wedge or a row of dashes
    assert draw("not a molecule") == {} and draw("") == {}


def test_intervals_allow_for_overlapping_test_parts(tmp_path: Path) -> None:
    """Splits that test nearly the same molecules count for less than random ones."""
    rows = [f"own,scaffold5,a,ridge,{s},,rmse,{1 + s / 10},80,20,0,1,,1,x," for s in range(3)]
    (tmp_path / "results.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    usual = load_report(tmp_path).views[0].cells["a", "own"]
    assert usual[:3] == pytest.approx(statistics.corrected_interval([1.0, 1.1, 1.2], 80, 20))
    (tmp_path / "splits").mkdir()
    tests = [list(range(20)), list(range(5, 25)), list(range(20))]  # 15, 20 and 15 of 20 in common
    splits = [{"train": [], "valid": [], "test": part} for part in tests]
    (tmp_path / "splits" / "own-scaffold5.json").write_text(json.dumps({"splits": splits}))
    overlap = (15 + 20 + 15) / 60
    wide = load_report(tmp_path).views[0].cells["a", "own"]
    expected = statistics.corrected_interval([1.0, 1.1, 1.2], round(20 * (1 - overlap) / overlap), 20)
    assert wide[:3] == pytest.approx(expected) and wide.low < usual.low - 0.1
