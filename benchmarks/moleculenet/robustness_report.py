"""What `robustness.py` measured, as a page with tables and a figure."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

BADLY = 0.9  #: share of own molecules found below which the page calls it bad
FEW = 10  #: fewer variants than that make no sentence
OURS = ("latent", "informative", "both")


def write_page(path: Path) -> None:
    """Write the page (.md) and, with matplotlib, the figure (.png) beside the results (.json) at `path`.

    Raises
    ------
    FileNotFoundError
        If there are no results.
    """
    results = json.loads(path.read_text(encoding="utf-8"))
    figure = plot(results, path.with_suffix(".png"))
    path.with_suffix(".md").write_text(page(results, path.stem, figure), encoding="utf-8")


def page(results: Mapping[str, Any], stem: str, figure: bool) -> str:
    """The whole page as Markdown."""
    model, molecules = results["model"], results["molecules"]
    labels, n = list(results["features"]), molecules["n"]
    sets = ", ".join(f"{title} {count}" for title, count in molecules["by_set"].items())
    left_out = "; ".join(f"{reason}: {count}" for reason, count in molecules["left_out"].items())
    parts = [
        f"# Robustness: how far do embeddings move when a molecule is written or drawn in another way?\n\n"
        f"{n:,} molecules, several other forms of each, and the distance of each form to its own molecule: for "
        f"the embeddings of `{model['name']}` ({model['id']}), and for two classical feature sets as a yardstick.\n\n"
        "**How to read it.** Distances are cosine distances divided by the median distance between two different "
        "molecules: 0 is the same vector, 1 is as far away as another molecule usually is. *Own molecule found* is "
        f"the share of forms whose nearest neighbour among all {n:,} molecules is the molecule that they were made "
        "from. A salt, another tautomer or another spelling should stay near. Stereoisomers and molecules with "
        "one changed atom are other molecules: they should move, but little.",
        "## In short\n\n" + "\n".join(f"- {line}" for line in findings(results)),
        *([f"![distances and shares]({stem}.png)"] if figure else []),
        "## Own molecule found\n\n" + shares(results, labels),
        "## Distance to the own molecule\n\nMedian, and 10th to 90th percentile, as a multiple of the median distance "
        "between two different molecules.\n\n" + distances(results, labels),
        "The same with Euclidean distances (medians):\n\n" + euclidean(results, labels),
        "## What preparation undoes\n\nThe policy turns these forms into the very text of the original, so that "
        "the vector is the same to the last bit; `not undone` counts the others.\n\n" + undone(results),
        "## One change, two ways to write it\n\n" + text_effect(results),
        "## Examples\n\n" + examples(results),
        f"## How it was measured\n\n    {results['command']}\n\n" + method(results, sets, left_out),
    ]
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------------------------------- sentences


def findings(results: Mapping[str, Any]) -> list[str]:
    """The main results as sentences, those that there are enough molecules for."""
    rows = {(row["kind"], row["policy"]): row for row in results["rows"]}
    main = main_label(results)
    lines: list[str] = []

    def add(key: tuple[str, str], sentence: Callable[[Row], str]) -> None:
        row = rows.get(key)
        if row is not None and row["scores"][main]["n"] >= FEW:
            lines.append(sentence(row))

    trained = (
        " The model was trained on canonical SMILES only." if results["model"]["encoder_input"] == "canonical" else ""
    )
    add(
        ("random-smiles", "none"),
        lambda row: (
            f"**Another SMILES of the same molecule, policy `none`**: {near(row, main)}.{trained} Use `none` only for "
            "text that is in RDKit's canonical form already."
        ),
    )
    add(("kekule", "none"), lambda row: f"**Kekulé SMILES, policy `none`**: {near(row, main)}.")
    add(
        ("random-smiles", "canonical"),
        lambda row: (
            f"**The default policy, `canonical`, undoes both**: {row['same_text']:,} of {row['variants']:,} other "
            "SMILES become the text of the original, and with it the same vector."
        ),
    )
    add(("ammonium-chloride", "canonical"), lambda row: f"**Salts** (amine and HCl as two ions): {near(row, main)}.")
    parents = [row for row in results["rows"] if row["policy"] == "parent"]
    if sum(row["variants"] for row in parents) >= FEW:
        same, total = (sum(row[key] for row in parents) for key in ("same_text", "variants"))
        lines.append(
            f"**Policy `parent` undoes salts and charges**: {same:,} of {total:,} forms become the original's text. "
            "Use it where a data set mixes salts with free bases and acids."
        )
    add(
        ("ring-tautomer", "canonical"),
        lambda row: f"**Tautomers** (on an aromatic ring): {near(row, main)}. {NO_POLICY}",
    )
    add(
        ("enantiomer", "canonical"),
        lambda row: (
            f"**Mirror images** are told apart, but stay near: {near(row, main)}. For ECFP4 counts the distance is "
            f"{middle(row['scores']['ecfp4-count']['cosine'])}, for RDKit's descriptors "
            f"{middle(row['scores']['rdkit2d']['cosine'])}."
        ),
    )
    add(
        ("methyl", "canonical"),
        lambda row: (
            f"**A methyl more** moves the vector more than the change explains: {rewritten(row, main)}"
            if is_uneven(row, main)
            else f"**A methyl more**: {near(row, main)}."
        ),
    )
    lines.append(badly(results, main))
    return lines


NO_POLICY = "No policy unites tautomers: standardise them beforehand if that matters."


def near(row: Row, main: str) -> str:
    """Distance and share of the main embedding, and the other embeddings' shares."""
    others = [
        f"`{label}` {percent(row['scores'][label]['top1'])}"
        for label in OURS
        if label in row["scores"] and label != main
    ]
    score = row["scores"][main]
    return (
        f"`{main}` is at {score['cosine']['median']:.2f} of the distance between different molecules, and "
        f"{percent(score['top1'])} find their own molecule" + (f" ({', '.join(others)})" if others else "")
    )


def is_uneven(row: Row, main: str) -> bool:
    """Whether rewriting the canonical SMILES doubles how far the embedding moves, and not how far ECFP4 counts do."""
    one, more = (row["by_text"][name] for name in ("one_place", "rewritten"))
    if min(one[main]["n"], more[main]["n"]) < FEW:
        return False
    ratio = {x: more[x]["cosine"]["median"] / max(one[x]["cosine"]["median"], 1e-9) for x in (main, "ecfp4-count")}
    return ratio[main] > 2 and ratio["ecfp4-count"] < 1.5


def rewritten(row: Row, main: str) -> str:
    one, more = (row["by_text"][name][main] for name in ("one_place", "rewritten"))
    fingerprint = [middle(part["ecfp4-count"]["cosine"]) for part in row["by_text"].values()]
    return (
        f"by {one['cosine']['median']:.2f} where the canonical SMILES changes in one place, but by "
        f"{more['cosine']['median']:.2f} where RDKit then writes the atoms in another order "
        f"({percent(more['n'] / (one['n'] + more['n']), 0)} of cases), and only {percent(more['top1'])} of those find "
        f"the molecule that they were made from. ECFP4 counts move by {fingerprint[0]} and {fingerprint[1]}: it is the "
        "text that jumps, not the molecule. See *One change, two ways to write it*."
    )


def badly(results: Mapping[str, Any], main: str) -> str:
    """All kinds of which fewer than nine in ten find their own molecule."""
    bad = [row for row in moved(results) if row["scores"][main]["n"] >= FEW and row["scores"][main]["top1"] < BADLY]
    bad.sort(key=lambda row: row["scores"][main]["top1"])
    names = "; ".join(
        f"{title(row)} {percent(row['scores'][main]['top1'], 0)} (ECFP4 counts "
        f"{percent(row['scores']['ecfp4-count']['top1'], 0)})"
        for row in bad
    )
    return f"**Where fewer than {percent(BADLY, 0)} find their own molecule** with `{main}`: {names or 'nowhere'}."


# ---------------------------------------------------------------------------------------- tables


def main_label(results: Mapping[str, Any]) -> str:
    """The embedding that sentences are about: `both`, of a model that has it."""
    return "both" if "both" in results["features"] else "latent"


def moved(results: Mapping[str, Any]) -> list[Row]:
    """Rows of forms that no policy has undone."""
    return [row for row in results["rows"] if not is_undone(row)]


def is_undone(row: Row) -> bool:
    return row["policy"] == "parent" or (row["group"] == "text" and row["policy"] == "canonical")


def title(row: Row) -> str:
    return row["title"] + (", policy `none`" if row["policy"] == "none" else "")


def percent(share: float | None, digits: int = 1) -> str:
    return "n/a" if share is None else f"{100 * share:.{digits}f} %"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], others: str = "---:") -> str:
    """A Markdown table, first column to the left, the others to the right (``"---"``: to the left)."""
    lines = [header, ["---", *[others] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shares(results: Mapping[str, Any], labels: Sequence[str]) -> str:
    rows = [
        [title(row), f"{row['variants']:,}", *(percent(row["scores"][label]["top1"]) for label in labels)]
        for row in moved(results)
    ]
    return table(["form", "n", *(f"`{label}`" for label in labels)], rows)


def distances(results: Mapping[str, Any], labels: Sequence[str]) -> str:
    features = results["features"]
    reference = [
        [name, "", *(band(features[label]["cosine"][key]) for label in labels)]
        for name, key in (("*nearest other molecule*", "nearest_other"), ("*two different molecules*", "two_molecules"))
    ]
    rows = [
        [title(row), f"{row['variants']:,}", *(band(row["scores"][label]["cosine"]) for label in labels)]
        for row in moved(results)
    ]
    return table(["form", "n", *(f"`{label}`" for label in labels)], rows + reference)


def euclidean(results: Mapping[str, Any], labels: Sequence[str]) -> str:
    rows = [[title(row), *(middle(row["scores"][label]["euclidean"]) for label in labels)] for row in moved(results)]
    nearest = [middle(results["features"][label]["euclidean"]["nearest_other"]) for label in labels]
    return table(["form", *(f"`{label}`" for label in labels)], [*rows, ["*nearest other molecule*", *nearest]])


def band(spread: Mapping[str, float] | None) -> str:
    if spread is None:
        return "n/a"
    return f"{spread['median']:.2f} ({spread['p10']:.2f}-{spread['p90']:.2f})"


def middle(spread: Mapping[str, float] | None) -> str:
    return "n/a" if spread is None else f"{spread['median']:.2f}"


def undone(results: Mapping[str, Any]) -> str:
    rows = []
    for row in results["rows"]:
        if is_undone(row):
            rest = row["variants"] - row["same_text"]
            rows.append(
                [row["title"], f"`{row['policy']}`", f"{row['variants']:,}", f"{row['same_text']:,}", f"{rest:,}"]
            )
    exceptions = [
        f"`{given}` became `{text}`, not `{original}`"
        for row in results["rows"]
        if is_undone(row)
        for original, given, text in row["not_undone"]
    ]
    after = "\n\nNot undone, for example: " + "; ".join(exceptions) + "." if exceptions else ""
    return table(("form", "policy", "n", "the original's text", "not undone"), rows) + after


def text_effect(results: Mapping[str, Any]) -> str:
    """The table of changes whose text changes in one place, or all over."""
    main = main_label(results)
    rows = []
    for row in results["rows"]:
        parts = row["by_text"]
        if parts is None or min(parts[name][main]["n"] for name in parts) < FEW:
            continue
        cells = [
            f"{middle(parts[name][label]['cosine'])}, {percent(parts[name][label]['top1'], 0)}"
            for label in (main, "ecfp4-count")
            for name in ("one_place", "rewritten")
        ]
        rows.append([row["title"], *(f"{parts[name][main]['n']:,}" for name in parts), *cells])
    header = ("form", "n, one place", "n, rewritten", f"`{main}`, one place", f"`{main}`, rewritten")
    return (
        "A small change of a molecule can change its canonical SMILES in one place, as `CCO` and `CCOC` differ, or "
        "make RDKit write the atoms in another order or number the rings anew, so that the whole text is another. "
        "Median distance, and own molecule found, for the two cases apart; *one place* means that the texts are equal "
        "but for one piece of at most six characters. The fingerprint, which reads no text, shows whether the changes "
        "themselves differ.\n\n" + table((*header, "`ecfp4-count`, one place", "`ecfp4-count`, rewritten"), rows)
    )


def examples(results: Mapping[str, Any]) -> str:
    rows: dict[str, list[str]] = {}
    for row in results["rows"]:
        if row["example"]:
            rows.setdefault(row["title"], [f"`{row['example'][0]}`", f"`{row['example'][1]}`", f"{row['molecules']:,}"])
    return table(("form", "molecule", "its form", "molecules"), [[name, *cells] for name, cells in rows.items()], "---")


def method(results: Mapping[str, Any], sets: str, left_out: str) -> str:
    where, molecules, labels = results["machine"], results["molecules"], list(results["features"])
    commit = (results["commit"] or "no repository")[:12] + (", files modified" if results["modified"] else "")
    taken = {row["kind"]: row["another_of_the_molecules"] for row in results["rows"]}
    refused = {row["kind"]: row["refused"] for row in results["rows"]}
    failed = {label: sum(row["scores"][label]["failed"] for row in results["rows"]) for label in labels}
    missing = ", ".join(f"`{label}` {count}" for label, count in failed.items() if count)
    widths = ", ".join(f"`{label}` {results['features'][label]['width']}" for label in labels)
    versions = ", ".join(
        f"{name} {where[name]}" for name in ("python", "molcmim", "torch", "rdkit", "numpy") if name in where
    )
    pairs = next(iter(results["features"].values()))["pairs"]
    return (
        f"- Molecules: {sets}; drawn with seed {results['seed']}, {molecules['looked_at']:,} looked at. Each is taken "
        f"as policy `parent` leaves it. Left out: {left_out}.\n"
        f"- Two different molecules: all {pairs:,} pairs. The share of own molecules found depends on how many there "
        "are to choose from; ties count in part.\n"
        "- Forms: at most three other SMILES a molecule, one form of each other kind, where the molecule has one. The "
        "atom or centre to change is drawn at random. Amines are aliphatic, acids carboxylic or sulfonic. Of several "
        "tautomers the one that RDKit scores best; enumeration is cut at 50 tautomers and 100 transformations, and "
        "left out above 40 heavy atoms. Many of the *other* tautomers are rare in a flask.\n"
        f"- Forms left out because they are another one of the molecules (toluene made from benzene): "
        f"{sum(taken.values())}. Refused by RDKit: {sum(refused.values())}. Without "
        f"features: {missing or 'none'}.\n"
        f"- Widths: {widths} (`rdkit2d` standardised on the molecules, constant columns dropped). Each text "
        "is embedded once.\n"
        f"- {results['date'][:10]}, commit {commit}; {where['cpu']}, {where['threads']} thread(s); "
        f"{versions}. All numbers are in the JSON file beside this page."
    )


# ---------------------------------------------------------------------------------------- figure


def plot(results: Mapping[str, Any], path: Path) -> bool:
    """Distances of the model's embeddings, and shares of all features; False without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    rows, labels = moved(results)[::-1], list(results["features"])
    colours = dict(zip([*OURS, *labels[-2:]], ("#7fb2e5", "#1f5fa8", "#d1495b", "#999999", "#555555"), strict=True))
    figure = Figure(figsize=(11, 0.42 * len(rows) + 1.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    ours = [label for label in OURS if label in labels]
    for k, label in enumerate(ours):
        for y, row in enumerate(rows):
            spread = row["scores"][label]["cosine"]
            if spread is not None:
                at = y + 0.22 * ((len(ours) - 1) / 2 - k)
                left.plot((spread["p10"], spread["p90"]), (at, at), color=colours[label], lw=1.5, alpha=0.6)
                left.plot(spread["median"], at, "o", ms=5, color=colours[label], label=label if not y else None)
    main = main_label(results)
    nearest = results["features"][main]["cosine"]["nearest_other"]["median"]
    for x, text in ((nearest, f"nearest other ({main})"), (1.0, "two molecules")):
        left.axvline(x, color="#888888", lw=1, ls=":")
        left.text(x, len(rows) - 0.45, text, fontsize=8, ha="center", color="#555555")
    left.set_xlabel("distance to the own molecule\n(median, 10th to 90th percentile)")
    left.set_yticks(range(len(rows)), [title(row).replace("`", "") for row in rows])
    for label in labels:
        found = [(100 * row["scores"][label]["top1"], y) for y, row in enumerate(rows) if row["scores"][label]["n"]]
        right.plot(*zip(*found, strict=True), "o" if label in ours else "|", ms=6 if label in ours else 11,
                   mew=2 if label not in ours else 1, color=colours[label], label=label, alpha=0.85)  # fmt: skip
    right.set_xlabel("own molecule is the nearest neighbour (%)")
    right.set_xlim(-2, 102)
    right.legend(fontsize=9, loc="lower left", framealpha=0.9)
    for axes in (left, right):
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    return True
