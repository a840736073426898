"""Tables and figures from the results of this folder.

    python benchmarks/generation/report.py

Writes results.md, neighbours.png and optimization.png.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from study import HERE, RESULTS

mpl.use("agg")
import matplotlib.pyplot as plt

#: Published: MOSES' table (Polykovskiy et al. 2020) for its own models, trained on MOSES, 30,000 samples.
MOSES_PUBLISHED = {
    "CharRNN (published)": {"valid": 0.975, "FCD/Test": 0.073, "Novelty": 0.842},
    "VAE (published)": {"valid": 0.977, "FCD/Test": 0.099, "Novelty": 0.695},
    "JT-VAE (published)": {"valid": 1.0, "FCD/Test": 0.395, "Novelty": 0.914},
}
#: Published: MolMIM (arXiv 2208.09016), radius 2.0 in the units of its own latent space.
MOLMIM_PUBLISHED = {
    "validity": 0.99,
    "uniqueness": 1.0,
    "novelty": 0.69,
    "non_identicality": 1.0,
    "effective_novelty": 0.68,
}
#: Published: gain in penalised log P of JT-VAE (arXiv 1802.04364, table 3) on the 800 lowest of ZINC's test part.
JTVAE_PUBLISHED = {0.4: "0.84 ± 1.45", 0.6: "0.21 ± 0.71"}
MOSES_COLUMNS = {
    "valid": "valid ↑",
    "unique@1000": "unique@1k ↑",
    "unique@10000": "unique@10k ↑",
    "FCD/Test": "FCD/Test ↓",
    "FCD/TestSF": "FCD/TestSF ↓",
    "SNN/Test": "SNN/Test ↑",
    "Frag/Test": "Frag/Test ↑",
    "Scaf/Test": "Scaf/Test ↑",
    "Scaf/TestSF": "Scaf/TestSF ↑",
    "IntDiv": "IntDiv ↑",
    "Filters": "Filters ↑",
    "Novelty": "novelty ↑",
    "Novelty/known": "novelty, own corpus ↑",
}
SOURCES = {
    "prior": "prior N(0, I)",
    "mixture": "mixture of the checkpoint",
    "mixture-repair": "the same, repaired",
    "mixture-moses": "mixture of MOSES' training part",
    "mixture-moses-repair": "the same, repaired",
}
METHODS = {"cma": "CMA-ES", "random": "random search"}
BUDGETS = (100, 300, 1000, 2000, 5000)
Results = dict[str, Any]


def load(name: str) -> Results:
    result: Results = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def exists(name: str) -> bool:
    return (RESULTS / f"{name}.json").exists()


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def made(*results: Results) -> str:
    """How results were made, one line each."""
    lines = []
    for result in results:
        about = result["about"]
        state = " (modified)" if about["modified"] else ""
        machine = about["machine"]
        lines.append(
            f"`{about['command']}`, commit {str(about['commit'])[:7]}{state}, {about['dtype']}, {machine['cpu']}, "
            f"{machine['cores']} cores, {about['threads']} in use, torch {machine['torch']}, rdkit {machine['rdkit']}, "
            f"{about['cpu_minutes']:.0f} min of CPU{'; stopped ' + about['stopped'] if 'stopped' in about else ''}"
        )
    return "\n".join(f"- {line}" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


# ------------------------------------------------------------------------------------------------ sections


def sampling_section() -> str:
    found = {name: load(f"sampling_{name}") for name in SOURCES if exists(f"sampling_{name}")}
    rows = [
        [label, *(number(found[name]["measures"].get(key)) for key in MOSES_COLUMNS)]
        for name, label in SOURCES.items()
        if name in found
    ]
    rows += [[name, *(number(values.get(key)) for key in MOSES_COLUMNS)] for name, values in MOSES_PUBLISHED.items()]
    n = next(iter(found.values()))["n"]
    return f"""## Sampling: {n:,} molecules, MOSES' measures

{table(["source of z", *MOSES_COLUMNS.values()], rows)}

MOSES' models were trained on MOSES alone, and their published figures stand beside for orientation. Only the mixture of
MOSES' own training part aims at MOSES' distribution; the other rows' FCD measures, above all, another corpus.

{made(*found.values())}
"""


def neighbours_section(found: Results) -> str:
    names = tuple(MOLMIM_PUBLISHED)
    rows = [
        [
            f"{row['radius']:g} {row['unit']}",
            number(row["absolute"]),
            *(percent(row[name]) for name in names),
            number(row["tanimoto"], 2),
        ]
        for row in found["radii"]
    ]
    published = [percent(MOLMIM_PUBLISHED[name]) for name in names]
    rows.append(["MolMIM (published), 2.0 of its own", "-", *published, "-"])
    again = found["reconstruction"]
    heading = ["radius", "in z", "valid % ↑", "unique % ↑", "novel % ↑", "non-identical % ↑", "effective novelty % ↑"]
    return f"""## Around molecules: {found["seeds"]:,} held-out seeds, ten samples each, MolMIM's measures

{table([*heading, "Tanimoto to the seed"], rows)}

Radius 0 is reconstruction: {percent(again["exact"])} % exact, {percent(again["ignoring_stereo"])} % ignoring stereo,
{percent(again["valid"])} % valid.

{made(found)}
"""


def interpolation_section(found: Results) -> str:
    rows = [
        ["valid, each point from one end to the other, %", " ".join(f"{100 * x:.0f}" for x in found["valid_by_point"])],
        ["valid, inner points, %", percent(found["valid_inner"])],
        ["paths with all points valid, %", percent(found["all_valid"])],
        ["both ends written back exactly, %", percent(found["both_ends_back"])],
        [f"different molecules on a path, of {found['points']} points", number(found["distinct"], 2)],
        ["Tanimoto of consecutive different molecules, mean", number(found["step"])],
        ["Tanimoto of the two ends, mean", number(found["ends"])],
        ["order along the path (Spearman)", number(found["order"])],
        ["detour in weight, median (1: none)", number(found["detour_weight"], 2)],
        ["detour in log P, median (1: none)", number(found["detour_logp"], 2)],
    ]
    return f"""## Interpolation: {found["pairs"]} pairs of held-out molecules, {found["points"]} points

{table(["measure", "value"], rows)}

{made(found)}
"""


def qed_section(found: dict[str, Results]) -> str:
    budget = next(iter(found.values()))["budget"]
    calls = [n for n in BUDGETS if n <= budget]
    rows = []
    for method, result in found.items():
        shares = [succeeded(result, n) for n in calls]
        cells = [f"{100 * s.share:.0f} ({100 * s.low:.0f}–{100 * s.high:.0f})" if s else "-" for s in shares]
        rows.append([METHODS[method], *cells])
    starts = next(iter(found.values()))["starts"]
    mean = np.mean([entry["start_score"] for entry in starts])
    return f"""## QED: from at most 0.8 to 0.9 or more, at Tanimoto 0.4 or more

Share (%) of {len(starts)} starts that succeed within so many oracle calls, with Wilson's 95 % intervals:

{table(["search", *(f"{n:,} calls" for n in calls)], rows)}

{unfinished(found)}{paired_qed(found)}

Not comparable with published figures (MolMIM: 94.6 % of 800 seeds): they spend 50,000 calls, from QED 0.7-0.8.
These starts are any molecules of the validation part with QED up to 0.8, with a mean of {mean:.2f}.{band_text(found)}

{made(*found.values())}
"""


def unfinished(found: dict[str, Results]) -> str:
    """A warning, where a run hadn't ended."""
    parts = []
    for method, result in found.items():
        calls = [entry["calls"] for entry in result["starts"] if entry["stopped"] == "interrupted"]
        if calls:
            parts.append(f"of {METHODS[method]} {len(calls)} starts at {min(calls):,} to {max(calls):,} calls")
    if not parts:
        return ""
    return (
        f"The runs were stopped before all starts had spent their {next(iter(found.values()))['budget']:,} calls: "
        f"{'; '.join(parts)}. Such a start counts as far as it got (Kaplan and Meier); a dash where fewer than half of "
        "the starts without success got that far.\n\n"
    )


def band_text(found: dict[str, Results]) -> str:
    """Success by the start's own QED."""
    if unfinished(found):
        return ""
    parts = []
    for method, result in found.items():
        scores = np.array([entry["start_score"] for entry in result["starts"]])
        success = np.isfinite(goal_calls(result))
        near = scores >= 0.7
        parts.append(f"{METHODS[method]} {int(success[near].sum())} of {int(near.sum())}")
    return f" Of the starts with QED 0.7 or more succeed: {', '.join(parts)}."


def paired_qed(found: dict[str, Results]) -> str:
    if len(found) < 2 or unfinished(found):
        return ""
    a, b = (np.isfinite(goal_calls(found[name])) for name in ("cma", "random"))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    from scipy.stats import binomtest

    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return (
        f"At the full budget {only_a} starts succeed by CMA-ES only, {only_b} by random search only "
        f"(sign test, p = {p:.2g})."
    )


def plogp_section(found: dict[tuple[str, float], Results]) -> str:
    rows = []
    for (method, delta), result in found.items():
        gain = gains(result, result["budget"])
        low, high = interval(gain)
        row = [METHODS[method], f"{delta:g}", f"{gain.mean():.2f} ± {gain.std(ddof=1):.2f}", f"{low:.2f} to {high:.2f}"]
        rows.append([*row, percent(float((gain > 0).mean()))])
    rows += [["JT-VAE (published)", f"{delta:g}", text, "-", "-"] for delta, text in JTVAE_PUBLISHED.items()]
    differences = []
    for delta in JTVAE_PUBLISHED:
        if ("cma", delta) in found and ("random", delta) in found:
            a, b = (gains(found[name, delta], found[name, delta]["budget"]) for name in ("cma", "random"))
            low, high = interval(a - b)
            text = f"at δ = {delta:g} the gain of CMA-ES less that of random search is {(a - b).mean():+.2f}"
            differences.append(f"{text} ({low:+.2f} to {high:+.2f})")
    first = next(iter(found.values()))
    mean = np.mean([entry["start_score"] for entry in first["starts"]])
    return f"""## Penalised log P: gain within {first["budget"]:,} oracle calls

{len(first["starts"])} starts: the lowest of the validation part's MOSES molecules (mean {mean:.2f});
mean gain ± standard deviation over the starts, and the mean's 95 % interval:

{table(["search", "δ", "gain ↑", "interval of the mean", "improved % ↑"], rows)}

Paired, start by start: {"; ".join(differences)}. The published
figures are of other starts (the 800 lowest of ZINC250k's test part), and their search follows a property predictor's
gradient: for orientation only.

{made(*found.values())}
"""


def speed_section(found: Results) -> str:
    rows = [
        [name, f"{v['molecules_per_s']:.0f}", percent(v["valid"]), f"{v['valid_per_s']:.0f}"]
        for name, v in found["variants"].items()
    ]
    return f"""## Decoding speed

{table(["variant", "molecules/s", "valid %", "valid molecules/s"], rows)}

The cache makes a batch of 256 {found["cache_ratio"]:.1f} times as fast. Medians of {found["turns"]} rounds, in each of
which every variant has its turn.

{made(found)}
"""


def rescored_section(found: Results) -> str:
    rows = found["rows"]
    differences = [(abs(row["reported"] - row["again"]), row) for row in rows]
    worst = sorted(differences, key=lambda pair: -pair[0])[:6]
    listed = [[r["file"], r["measure"], number(r["reported"], 5), number(r["again"], 5)] for _, r in worst]
    far = sum(difference > 0.0005 for difference, _ in differences)
    return f"""## Scored again

An independent script, without the cache, the decoding loop or the measures of the package, looked at {len(rows)}
numbers; {far} differ by more than 0.0005. The largest differences:

{table(["file", "measure", "reported", "again"], listed)}

{made(found)}
"""


# ------------------------------------------------------------------------------------------------ numbers


def goal_calls(result: Results) -> np.ndarray:
    """The call at which each start reached QED 0.9; infinity where it didn't."""
    return np.array([min((c for c, s in e["trace"] if s >= 0.9), default=math.inf) for e in result["starts"]])


class Share(NamedTuple):
    share: float
    low: float
    high: float


def succeeded(result: Results, calls: int) -> Share | None:
    """Share of starts that reach QED 0.9 within so many calls, with Wilson's 95 % interval.

    Of a run that was stopped, a start counts as far as it got (Kaplan and Meier 1958). None where more than half of
    those without success hadn't got that far.
    """
    reached, spent = goal_calls(result), np.array([entry["calls"] for entry in result["starts"]])
    left = 1.0
    for n in np.unique(reached[reached <= calls]):
        left *= 1 - (reached == n).sum() / ((reached >= n) & (spent >= n)).sum()
    without = reached > calls
    followed = int((without & (spent >= min(calls, result["budget"]))).sum())
    if 2 * followed < without.sum():
        return None
    seen = len(reached) - int(without.sum()) + followed
    return Share(1 - left, *wilson((1 - left) * seen, seen)[1:])


def gains(result: Results, calls: int) -> np.ndarray:
    """Best feasible score within so many calls less the start's own, which is feasible itself."""
    best = [max(s for c, s in e["trace"] if c <= calls) for e in result["starts"]]
    return np.array(best) - np.array([e["start_score"] for e in result["starts"]])


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean over independent starts, Student's t."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def wilson(k: float, n: int, z: float = 1.96) -> tuple[float, float, float]:
    """A share and its 95 % interval (Wilson 1927)."""
    p, centre = k / n, (k + z * z / 2) / (n + z * z)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return p, centre - half, centre + half


# ------------------------------------------------------------------------------------------------ figures

COLOURS = {"cma": "#1f5fa8", "random": "#b0541c"}


def optimization_figure(qed: dict[str, Results], plogp: dict[tuple[str, float], Results], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for method, result in qed.items():
        calls = np.unique(np.geomspace(1, result["budget"], 200).astype(int))
        known = [(n, each) for n in calls if (each := succeeded(result, n)) is not None]
        calls, shares = np.array([n for n, _ in known]), 100 * np.array([each for _, each in known])
        left.plot(calls, shares[:, 0], color=COLOURS[method], label=METHODS[method])
        left.fill_between(calls, shares[:, 1], shares[:, 2], color=COLOURS[method], alpha=0.15, lw=0)
    left.set(xscale="log", xlabel="oracle calls per start", ylabel="starts with QED ≥ 0.9 (%)", ylim=(0, 100))
    left.set_title("QED ≤ 0.8 → ≥ 0.9 at Tanimoto ≥ 0.4", fontsize=10)
    left.legend(frameon=False, loc="upper left")
    for (method, delta), result in plogp.items():
        calls = np.unique(np.geomspace(1, result["budget"], 60).astype(int))
        each = [gains(result, n) for n in calls]
        low, high = np.array([interval(x) if x.std() > 0 else (0.0, 0.0) for x in each]).T
        style = "-" if delta == 0.4 else "--"
        label = f"{METHODS[method]}, δ = {delta:g}"
        right.plot(calls, [x.mean() for x in each], style, color=COLOURS[method], label=label)
        right.fill_between(calls, low, high, color=COLOURS[method], alpha=0.12, lw=0)
    right.set(xscale="log", xlabel="oracle calls per start", ylabel="mean gain", ylim=(0, None))
    right.set_title("penalised log P, lowest starts", fontsize=10)
    right.legend(frameon=False, loc="upper left", fontsize=8)
    finish(figure, (left, right), path)


def neighbours_figure(found: Results, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    rows = sorted((row for row in found["radii"]), key=lambda row: row["absolute"])
    rows = [row for row in rows if row["unit"] == "spread"]
    radius = [row["radius"] for row in rows]
    lines = {
        "validity": ("valid", "#1f5fa8"),
        "non_identicality": ("not the seed", "#2b7a4b"),
        "novelty": ("novel", "#7d4aa0"),
        "effective_novelty": ("effective novelty", "#b0541c"),
    }
    for name, (label, colour) in lines.items():
        left.plot(radius, [100 * row[name] for row in rows], "o-", ms=4, color=colour, label=label)
    left.set(xlabel="radius (spreads of the codes)", ylabel="%", ylim=(0, 102))
    left.legend(frameon=False, fontsize=8)
    right.plot(radius, [row["tanimoto"] for row in rows], "o-", ms=4, color="#1f5fa8")
    right.set(xlabel="radius (spreads of the codes)", ylabel="mean Tanimoto similarity to the seed", ylim=(0, 1))
    finish(figure, (left, right), path)


def finish(figure: Any, axes: Sequence[Any], path: Path) -> None:
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    qed = {
        m: load(f"optimization_qed_{m}_0.4") for m in METHODS if (RESULTS / f"optimization_qed_{m}_0.4.json").exists()
    }
    keys = [(m, d) for d in JTVAE_PUBLISHED for m in METHODS]
    plogp = {
        (m, d): load(f"optimization_plogp_{m}_{d}")
        for m, d in keys
        if (RESULTS / f"optimization_plogp_{m}_{d}.json").exists()
    }
    makers: dict[str, Callable[[], str]] = {
        "sampling_prior": sampling_section,
        "neighbours": lambda: neighbours_section(load("neighbours")),
        "interpolation": lambda: interpolation_section(load("interpolation")),
        "optimization_qed_cma_0.4": lambda: qed_section(qed),
        "optimization_plogp_random_0.4": lambda: plogp_section(plogp),
        "speed": lambda: speed_section(load("speed")),
        "rescored": lambda: rescored_section(load("rescored")),
    }
    sections = [make() for name, make in makers.items() if exists(name)]
    text = "# Generation: results\n\nMade by report.py from results/*.json.\n\n" + "\n".join(sections)
    (HERE / "results.md").write_text(text, encoding="utf-8")
    if qed and plogp:
        optimization_figure(qed, plogp, HERE / "optimization.png")
    if exists("neighbours"):
        neighbours_figure(load("neighbours"), HERE / "neighbours.png")


if __name__ == "__main__":
    main()
