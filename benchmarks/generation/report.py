"""Tables and figures from the results of this folder.

    python benchmarks/generation/report.py

Writes results.md, neighbours.png and optimization.png.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import numpy as np
from figures import METHODS, neighbours_figure, optimization_figure
from shares import Results, gains, goal_calls, interval, succeeded
from study import HERE, RESULTS

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
RESCORED = ("rescored_samples", "rescored_optimization")
BUDGETS = (100, 300, 1000, 2000, 5000)


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


def rate(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


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
        [name, rate(v["molecules_per_s"]), percent(v["valid"]), rate(v["valid_per_s"])]
        for name, v in found["variants"].items()
    ]
    return f"""## Decoding speed

{table(["variant", "molecules/s", "valid %", "valid molecules/s"], rows)}

The cache makes a batch of 256 {found["cache_ratio"]:.0f} times as fast. Medians of {found["turns"]} rounds, in each of
which every variant has its turn.

{made(found)}
"""


def rescored_section(found: Sequence[Results]) -> str:
    rows = [row for result in found for row in result["rows"]]
    differences = [(abs(row["reported"] - row["again"]), row) for row in rows]
    worst = sorted(differences, key=lambda pair: -pair[0])[:6]
    listed = [[r["file"], r["measure"], number(r["reported"], 5), number(r["again"], 5)] for _, r in worst]
    far = sum(difference > 0.0005 for difference, _ in differences)
    files = ", ".join(dict.fromkeys(row["file"] for row in rows))
    return f"""## Scored again

An independent script, without the cache, the decoding loop or the measures of the package, looked at {len(rows)}
numbers; {far} differ by more than 0.0005. Files: {files}. The largest differences:

{table(["file", "measure", "reported", "again"], listed)}

{made(*found)}
"""


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
        "rescored_samples": lambda: rescored_section([load(name) for name in RESCORED if exists(name)]),
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
