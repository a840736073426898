"""Evaluate a checkpoint: reconstruction of held-out molecules, and property prediction from frozen embeddings.

    export MOLCMIM_DATA=...                 # with moleculenet/*.csv.gz below it
    python benchmarks/tiny/evaluate.py --model molcmim-tiny --corpus CORPUS --out benchmarks/tiny/results.json \\
        [--log RUN/log.jsonl] [--peers DIR] [--sets esol,freesolv] [--card CHECKPOINT [--notes TEXT.md]]

Writes results.json, the same as tables in results.md, and the learning curve as results.png (if matplotlib is
there). `--card` writes those numbers into the checkpoint's README.md as well.
"""

# Axes: B molecules, T tokens, L latent, D width, V vocabulary.

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem, rdBase
from report import card_text, curve_table, plot_curve, read_logs, reconstruction_table, spec5_table

from molcmim import MolCMIM
from molcmim.corpus import TokenStore
from molcmim.embed import has_decoder
from molcmim.generate import greedy, pad_rows
from molcmim.model import CMIM, decoder_input, encoder_input
from molcmim.moleculenet.datasets import SMALL, load_dataset
from molcmim.moleculenet.evaluate import evaluate
from molcmim.moleculenet.features import compute, parse_features
from molcmim.moleculenet.metrics import MAIN_METRIC
from molcmim.moleculenet.protocols import get_protocol
from molcmim.moleculenet.types import Dataset
from molcmim.pretrained import update_card
from molcmim.provenance import command_line, git_state, machine, now
from molcmim.rows import tokenize_rows
from molcmim.tokenizer import PAD, load_tokenizer
from molcmim.validate import validation_rows

HELD_OUT = 5000  #: molecules of the validation split, chosen with seed 0


# ---------------------------------------------------------------------------------------- reconstruction


@torch.inference_mode()
def write_back(
    model: CMIM, rows: Sequence[Sequence[int]], batch_size: int = 256
) -> tuple[np.ndarray, list[list[int] | None]]:
    """Encode molecules and write them back from their mu.

    Returns
    -------
    counts : (n, 3) float64
        Of each molecule: tokens ranked first under teacher forcing, tokens, -log p(x | z = mu) in nats; <eos>
        counts as a token.
    written : list
        Token ids that greedy decoding wrote, None where it didn't finish.
    """
    device = model.embedding.weight.device
    counts = np.empty((len(rows), 3))
    written: list[list[int] | None] = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        tokens = pad_rows([rows[i] for i in chosen]).to(device)  # (B, T)
        target = encoder_input(tokens)  # (B, T + 1)
        real = target != PAD
        mu = model.encode(target).mu  # (B, L)
        logits = model.logits(model.hidden(mu, decoder_input(tokens))).float()  # (B, T + 1, V)
        right = ((logits.argmax(-1) == target) & real).sum(1)  # (B,)
        log_p = logits.log_softmax(-1).gather(-1, target[..., None])[..., 0].double()  # (B, T + 1)
        nats = -(log_p * real).sum(1)  # (B,)
        counts[chosen] = torch.stack((right.double(), real.sum(1).double(), nats), dim=1).cpu().numpy()
        decoded = greedy(model, mu, batch_size=batch_size)
        for i, ids, finished in zip(chosen, decoded.tokens, decoded.finished, strict=True):
            written[i] = ids if finished else None
    return counts, written


def flat_smiles(smiles: str) -> str | None:
    """Canonical SMILES without stereo; None if RDKit can't parse it."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        return None
    Chem.RemoveStereochemistry(mol)
    return str(Chem.MolToSmiles(mol))


def reconstruction(model: MolCMIM, corpus: Path, n: int = HELD_OUT) -> dict[str, Any]:
    """How well the model writes n held-out molecules back, as shares of 1, and in nats a molecule.

    The corpus' rows go through the model's own tokenizer, so it may be trained on another one.
    """
    store, given = TokenStore.open(corpus, "valid"), load_tokenizer(corpus / "vocab.json")
    chosen = validation_rows(store, n)
    texts = [given.decode(row.tolist()) for row in store.rows(chosen)]
    rows = tokenize_rows(texts, model.tokenizer, model.network.config.max_tokens, policy="none", workers=0)
    counts, written = write_back(model.network, [rows.tokens[i] or [] for i in rows.ok])
    exact, same_flat, valid = (np.zeros(len(counts), dtype=bool) for _ in range(3))
    for position, (i, ids) in enumerate(zip(rows.ok, written, strict=True)):
        text = None if ids is None else model.tokenizer.decode(ids)
        exact[position] = text == texts[i]
        flat = flat_smiles(text) if text else None
        valid[position] = flat is not None
        same_flat[position] = flat is not None and flat == flat_smiles(texts[i])
    source = store.source[chosen][rows.ok]
    by_source = {
        info.name: {"n": int((source == k).sum()), "exact": float(exact[source == k].mean())}
        for k, info in enumerate(store.info.sources)
        if (source == k).any()
    }
    return {
        "n": len(counts),
        "not_encoded": n_bad(rows.status),
        "token_accuracy": float(counts[:, 0].sum() / counts[:, 1].sum()),
        "exact": float(exact.mean()),
        "exact_without_stereo": float(same_flat.mean()),
        "valid": float(valid.mean()),
        "nats": float(counts[:, 2].mean()),
        "tokens": float(counts[:, 1].mean()),
        "exact_by_source": by_source,
    }


def n_bad(status: Sequence[str]) -> int:
    return sum(value != "ok" for value in status)


# ---------------------------------------------------------------------------------------- properties


def spec5(model: MolCMIM, data: Path, sets: Sequence[str], peers: Path | None) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores of every feature set on every benchmark set: {set: {features: score}}."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for name in sets:
        dataset = load_dataset(name, data)
        others = parse_features("floor", data)
        if peers is not None:
            found = sorted(path.parent for path in peers.glob(f"*/{name}.npz"))
            others += [spec for path in found for spec in parse_features(f"{path.name}={path}", data)]
        features = embeddings(model, dataset.smiles) | {spec.label: compute(spec, dataset).x for spec in others}
        table[name] = {}
        for label, x in features.items():
            started = time.perf_counter()
            score = spec5_score(x, dataset)
            table[name][label] = {"n": len(x), "d": x.shape[1], **score}
            seconds = time.perf_counter() - started
            mean, std, cost = score["mean"], score["std"], score["cost"]
            print(f"{name:9} {label:30} {mean:.4f} +- {std:.4f}  C {cost:g}  {seconds:.0f} s")
    return table


def spec5_score(x: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    """Mean and standard deviation over the splits of the protocol `spec5` with the SVM, each split's value, and C."""
    protocol = get_protocol("spec5")
    found = evaluate(x, dataset, protocol, protocol.make_splits(dataset), "svm")
    records = [record for record in found.records if record["metric"] == MAIN_METRIC[dataset.task]]
    splits = [record["value"] for record in records]
    return {
        "mean": float(np.mean(splits)),
        "std": float(np.std(splits)),
        "splits": splits,
        "cost": json.loads(records[0]["params"])["C"],
        "not_embedded": int((~np.isfinite(x).any(axis=1)).sum()),
    }


def embeddings(model: MolCMIM, smiles: list[str]) -> dict[str, np.ndarray]:
    """The embeddings that the model has, in one pass: `both` is the other two side by side.

    Its parts differ from `latent` and `informative` by a constant factor, which standardising removes.
    """
    if not has_decoder(model.objective):
        return {"latent": model.embed(smiles, kind="latent", workers=0)}
    both = model.embed(smiles, kind="both", workers=0)
    latent = model.network.config.latent
    return {"latent": both[:, :latent], "informative": both[:, latent:], "both": both}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="name or directory; default: the shipped model")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus directory, for its validation split")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    parser.add_argument("--sets", default=",".join(SMALL))
    parser.add_argument("--molecules", type=int, default=HELD_OUT, help="held-out molecules to reconstruct")
    parser.add_argument("--peers", type=Path, help="other models' embeddings: PEERS/NAME/SET.npz")
    parser.add_argument("--log", type=Path, nargs="+", help="log.jsonl of the training run, or of each of its legs")
    parser.add_argument("--card", type=Path, help="checkpoint directory whose README.md to write")
    parser.add_argument("--notes", type=Path, help="Markdown for the card: how the recipe was chosen")
    arguments = parser.parse_args()
    if "MOLCMIM_DATA" not in os.environ:
        parser.error("MOLCMIM_DATA must name the directory that holds moleculenet/*.csv.gz")
    started = time.perf_counter()
    model = MolCMIM.from_pretrained(arguments.model)
    if arguments.card and MolCMIM.from_pretrained(arguments.card).model_id != model.model_id:
        parser.error(f"--card {arguments.card} holds other weights than the model evaluated")
    results: dict[str, Any] = {
        "command": command_line("python benchmarks/tiny/evaluate.py"),
        "date": now(),
        **git_state(Path(__file__).parent),
        "machine": {**machine(), "threads": torch.get_num_threads()},
        "model": {key: model.config[key] for key in ("name", "parameters", "objective")} | {"id": model.model_id},
        "reconstruction": None,
    }
    if has_decoder(model.objective):
        results["reconstruction"] = reconstruction(model, arguments.corpus, arguments.molecules)
    print(json.dumps(results["reconstruction"]))
    data = Path(os.environ["MOLCMIM_DATA"])
    results["spec5"] = spec5(model, data, arguments.sets.split(","), arguments.peers)
    results["training"] = read_logs(arguments.log) if arguments.log else None
    results["seconds"] = round(time.perf_counter() - started, 1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    tables = [reconstruction_table(results["reconstruction"]), spec5_table(results["spec5"])]
    if results["training"]:
        tables.append(curve_table(results["training"]))
        if plot_curve(results["training"]["curve"], arguments.out.with_suffix(".png")):
            tables.append(f"![learning curve]({arguments.out.stem}.png)")
    arguments.out.with_suffix(".md").write_text(
        f"# {model.config['name']} ({model.model_id})\n\n" + "\n\n".join(tables) + "\n", encoding="utf-8"
    )
    if arguments.card:
        notes = arguments.notes.read_text(encoding="utf-8") if arguments.notes else ""
        update_card(arguments.card, card_text(model.config, results, notes))


if __name__ == "__main__":
    main()
