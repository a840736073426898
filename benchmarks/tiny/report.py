"""What `evaluate.py` measured, as Markdown tables, a figure of the learning curve, and a model card."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from molcmim.moleculenet.datasets import SETS

CURVE_FIELDS = ("step", "molecules", "seconds", "reconstruction_nats", "token_accuracy", "exact_reconstruction")
OURS = ("latent", "informative", "both", "floor")  #: order of the table's first rows; peers follow

#: Where the pretraining molecules come from: text, million rows given (the sources overlap), licence as stated there
SOURCES = (
    ("MOSES training set (ZINC Clean Leads)", 1.58, "MIT; ZINC is free to use under its terms"),
    ("ChEMBL subsets, releases 16-36", 1.37, "CC BY-SA 3.0"),
    ("ZINC15 and ZINC250k samples", 0.45, "ZINC is free to use under its terms"),
    ("OpenFF submissions to QCArchive", 0.33, "CC BY 4.0"),
    ("PubChem samples", 0.21, "public domain"),
    ("ExCAPE-DB (DRD2, GSK3, JNK3 sets)", 0.16, "CC BY-SA 4.0"),
    ("QM9", 0.13, "CC0 / CC BY"),
    ("Natural products: COCONUT, CMNPD", 0.09, "CC BY 4.0, part of COCONUT CC0"),
    ("Others: ADMET collections, organic photovoltaics, drug repurposing hub, AqSolDB and more", 0.28,
     "MIT, BSD or Apache-2.0 repositories; AqSolDB CC0, the hub CC BY 4.0"),
)  # fmt: skip


def table(header: Sequence[str], rows: Sequence[Sequence[str]], others: str = "---:") -> str:
    """A Markdown table, first column to the left, the others to the right (``"---"``: to the left)."""
    lines = [header, ["---", *[others] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


# ---------------------------------------------------------------------------------------- tables


def reconstruction_table(values: Mapping[str, Any] | None) -> str:
    """Reconstruction of held-out molecules, one number a row."""
    if values is None:
        return "Reconstruction: n/a, the model has no decoder."
    rows = [
        ("exact, greedy decoding", percent(values["exact"])),
        *(
            (f"exact, source `{name}` ({part['n']} molecules)", percent(part["exact"]))
            for name, part in values["exact_by_source"].items()
        ),
        ("the same molecule but for stereo", percent(values["exact_without_stereo"])),
        ("valid SMILES", percent(values["valid"])),
        ("tokens ranked first, teacher-forced", percent(values["token_accuracy"])),
        ("nats a molecule, -log p(x \\| z = mu)", f"{values['nats']:.2f}"),
        ("tokens a molecule, end token included", f"{values['tokens']:.1f}"),
    ]
    left_out = f", {values['not_encoded']} more not encodable" if values["not_encoded"] else ""
    return table((f"{values['n']} held-out molecules{left_out}", ""), rows)


def spec5_table(scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Scores, feature sets down and benchmark sets across."""
    sets = list(scores)
    found = list(dict.fromkeys(label for name in sets for label in scores[name]))
    labels = [*(x for x in OURS if x in found), *(x for x in found if x not in OURS)]
    units = {"regression": "RMSE", "classification": "AUC"}
    header = ["features", *(f"{SETS[name].title} {units[SETS[name].task]}" for name in sets)]
    rows = [
        [f"`{label}`", *(score_text(scores[name][label]) if label in scores[name] else "" for name in sets)]
        for label in labels
    ]
    sizes = ", ".join(f"{SETS[name].title} {next(iter(scores[name].values()))['n']}" for name in sets)
    note = f"Mean ± standard deviation of five random 80/20 splits. Molecules: {sizes}."
    missing = [
        f"`{label}` {SETS[name].title} {score['not_embedded']}"
        for name in sets
        for label, score in scores[name].items()
        if score["not_embedded"]
    ]
    return f"{table(header, rows)}\n\n{note} Rows not embedded: {', '.join(missing) or 'none'}."


def score_text(score: Mapping[str, Any]) -> str:
    return f"{score['mean']:.3f} ± {score['std']:.3f}"


def curve_table(training: Mapping[str, Any], most: int = 14) -> str:
    """Validation during training (see `read_logs`); at most `most` records, evenly spread, the last among them."""
    curve = training["curve"]
    chosen = np.unique(np.linspace(0, len(curve) - 1, min(most, len(curve))).round().astype(int))
    rows = [
        [
            str(record["step"]),
            f"{record['molecules'] / 1e6:.2f}",
            f"{record['seconds'] / 60:.0f}",
            "n/a" if record["reconstruction_nats"] is None else f"{record['reconstruction_nats']:.2f}",
            *("n/a" if record[f] is None else percent(record[f]) for f in CURVE_FIELDS[4:]),
        ]
        for record in (curve[i] for i in chosen)
    ]
    numbers = table(("step", "million molecules", "minutes", "nats", "token accuracy", "exact"), rows)
    return f"{numbers}\n\nValidation during training, on {training['validation_molecules']} molecules."


# ---------------------------------------------------------------------------------------- learning curve


def read_logs(paths: Sequence[Path]) -> dict[str, Any]:
    """The learning curve of a training run, and what it ran on, from its log.jsonl.

    Several are runs that each started from the weights of the one before: steps, molecules and seconds are added up.
    """
    starts: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    rates: list[float] = []
    for path in paths:
        before = {field: curve[-1][field] if curve else 0 for field in ("step", "molecules", "seconds")}
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        starts += [record for record in records if record["event"] == "start"]
        rates += [record["molecules_per_second"] for record in records if record["event"] == "train"]
        for record in records:
            if record["event"] == "validation":
                point = {field: record.get(field) for field in CURVE_FIELDS}
                curve.append(point | {field: value + record[field] for field, value in before.items()})
    return {
        "curve": curve,
        "machine": {key: starts[-1][key] for key in ("device", "threads", "world_size", "torch", "gemm_tflops")},
        "legs": len(starts),
        "validation_molecules": starts[-1]["config"]["reconstruct_molecules"],
        "molecules_per_second": float(np.median(rates)) if rates else None,
    }


def plot_curve(curve: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Nats and shares against molecules seen; False without matplotlib or a decoder."""
    points = [record for record in curve if record["reconstruction_nats"] is not None]
    if not points or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(7.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = [record["molecules"] / 1e6 for record in points]
    left.plot(x, [record["reconstruction_nats"] for record in points], marker=".")
    left.set(ylabel="reconstruction, nats a molecule", yscale="log")
    left.set_yticks([1, 2, 5, 10, 20, 50], labels=["1", "2", "5", "10", "20", "50"])
    left.minorticks_off()
    for field, label in (("token_accuracy", "tokens, teacher-forced"), ("exact_reconstruction", "exact, greedy")):
        right.plot(x, [100 * record[field] for record in points], marker=".", label=label)
    right.set(ylabel="of validation molecules, %", ylim=(0, 100))
    left.yaxis.set_major_formatter(ScalarFormatter())
    left.yaxis.set_minor_formatter(ScalarFormatter())
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.set(xlabel="training molecules seen, millions")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    return True


# ---------------------------------------------------------------------------------------- model card


def card_text(config: Mapping[str, Any], results: Mapping[str, Any], notes: str = "") -> str:
    """The model card.

    Parameters
    ----------
    config
        Content of the checkpoint's config.json.
    results
        What `evaluate.py` writes to results.json.
    notes
        Markdown: how the recipe was chosen.
    """
    architecture, objective = config["architecture"], config["objective"]
    split = architecture.get("encoder_tokens", "same") == "atoms"
    reads = "; the encoder reads the atom-level tokens that they join, which the limit counts" if split else ""
    sections = [
        f"# {config['name']}",
        f"A contrastive Mutual Information Machine for molecules (SMILES), {config['parameters'] / 1e6:.1f} M "
        f"parameters: {architecture['encoder_layers']} {architecture['encoder']} encoder and "
        f"{architecture['decoder_layers']} decoder layers of width {architecture['width']}, latent "
        f"{architecture['latent']}, at most {architecture['max_tokens']} tokens of {architecture['vocab_size']} "
        f"(`{config['tokenizer']['kind']}`{reads}). Objective `{objective['name']}`, tau {objective['tau']}, `"
        f"{objective['scaling']}`, log sigma >= {architecture['log_sigma_floor']}; "
        f"{'with' if objective.get('properties') else 'without'} the descriptor factor. Weights id "
        f"`{results['model']['id']}`.",
        f"```python\nfrom molcmim import MolCMIM\n\nmodel = MolCMIM.from_pretrained({config['name']!r})\n"
        'model.embed(["CCO"], kind="both")      # (1, '
        f"{architecture['latent'] + architecture['width']}) float32\n```",
        "## Scores\n\n" + reconstruction_table(results["reconstruction"]),
        "Frozen embeddings and an RBF support vector machine (random splits; `floor` is 19 counts of atoms and "
        "bonds, the least that an embedding must beat):\n\n" + spec5_table(results["spec5"]),
    ]
    if results["training"]:
        sections.append("## Learning curve\n\n" + curve_table(results["training"]))
    sections += [_training_section(config["training"], results["training"]), _data_section(config["training"])]
    if notes:
        sections.append(notes.strip())
    sections += [_limits_section(architecture, objective), _measured(results)]
    return "\n\n".join(sections) + "\n"


def _training_section(training: Mapping[str, Any], log: Mapping[str, Any] | None) -> str:
    where = ""
    if log:
        facts = log["machine"]
        where = (
            f" on {facts['device']} (processes: {facts['world_size']}, threads: {facts['threads']}, "
            f"torch {facts['torch']}, whose matrix products reach {facts['gemm_tflops']:.2f} TFLOP/s there)"
        )
    optimizer, schedule = training["optimizer"], training["schedule"]
    earlier = training.get("earlier_legs", [])
    total = {key: training[key] + sum(leg[key] for leg in earlier) for key in ("molecules", "step", "seconds", "flops")}
    legs = (
        f" {len(earlier) + 1} legs, each from the averaged weights of the one before with a new optimiser and schedule."
        if earlier
        else ""
    )
    return (
        f"## Training and compute\n\n{total['molecules'] / 1e6:.2f} M molecules in {total['step']} steps of "
        f"{training['batch_size']}: {total['seconds'] / 3600:.2f} hours of training{where}, "
        f"{total['flops']:.2e} FLOPs of matrix products.{legs} Optimiser `{optimizer['name']}` (lr {optimizer['lr']}, "
        f"Muon lr {optimizer['muon_lr']}), `{schedule['name']}` schedule, {training['precision']}, averaged weights "
        f"(decay {training['ema_decay']}), seed {training['seed']}. The whole configuration is in config.json."
    )


def _data_section(training: Mapping[str, Any]) -> str:
    corpus = training["corpus"]
    weights = training["source_weights"]
    used = ", ".join(
        f"`{s['name']}` {s['n']:,} (weight {weights.get(s['name'], s['weight']):g})" for s in corpus["sources"]
    )
    rows = [(text, f"{millions:.2f}", licence) for text, millions, licence in SOURCES]
    return (
        f"## Data and licences\n\n{corpus['n_train']:,} distinct SMILES for training and {corpus['n_valid']:,} set "
        f"aside by hash: {used}; the weight is the number of passes an epoch. They come from public sources that "
        f"overlap:\n\n{table(('source', 'million rows given', 'licence as stated'), rows, '---')}\n\n"
        "The ChEMBL part is CC BY-SA 3.0 and the ExCAPE part CC BY-SA 4.0: share-alike licences that ask for "
        "attribution (ChEMBL: EMBL-EBI; ExCAPE-DB: Sun et al., J. Cheminform. 2017). The weights hold no copy of a "
        "source, but were fitted to them: mind this when you redistribute. One small source (PharmaBench, within the "
        "ChEMBL row) states no licence of its own. Molecules that occur in the MoleculeNet or ADME benchmark sets, and "
        "MOSES' test sets, were removed beforehand, so no molecule scored above was seen in training."
    )


def _limits_section(architecture: Mapping[str, Any], objective: Mapping[str, Any]) -> str:
    seen = "Only canonical SMILES were seen: under the policy `none` other spellings of a molecule give other vectors."
    if objective.get("encoder_input") == "random_smiles":
        share = percent(objective.get("random_share", 1.0))
        seen = f"Of {share} of the molecules the encoder read a random SMILES: other spellings give similar vectors."
    return (
        "## Limits\n\n"
        f"- Molecules of more than {architecture['max_tokens']} tokens, or with tokens outside the vocabulary (rare "
        "elements, isotopes), get no vector but a status.\n"
        "- Trained on drug-like, lead-like and natural-product-like organic molecules: polymers, metal complexes, "
        "peptides and large mixtures are far from the data. `log_prob` tells how familiar a molecule is.\n"
        "- Random splits flatter: expect less on new scaffolds. Fingerprints, descriptors and supervised graph nets "
        "are stronger on some of these sets; compare before you choose.\n"
        "- A decoded SMILES may be invalid or another molecule than the one encoded: see the scores.\n"
        f"- {seen}\n"
        "- Research use. Nothing here is a measured property, and nothing should be made or taken because of it."
    )


def _measured(results: Mapping[str, Any]) -> str:
    where = results["machine"]
    return (
        f"Measured {results['date'][:10]} by `benchmarks/tiny/evaluate.py` on {where['cpu']} (threads: "
        f"{where['threads']}), torch {where['torch']}, RDKit {where['rdkit']}."
    )
