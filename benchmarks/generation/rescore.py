"""Score the samples again, by other means than those that scored them.

    export MOLCMIM_DATA=...              # with moses/ below it
    python benchmarks/generation/rescore.py --corpus CORPUS

Nothing here uses molcmim's decoding loop, cache, metrics or sets of hashes: tokens come from whole-sequence passes of
the network over the growing prefix, measures from RDKit, pandas and fcd_torch, the training set from its texts. Needs
samples/ as the other scripts of this folder have left it (--only optimization: results/ alone); files of samples that
aren't there are left out, and named. Writes results/rescored_samples.json and results/rescored_optimization.json: each
number as reported and as found again.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rdkit import Chem, DataStructs, RDConfig, rdBase
from rdkit.Chem import QED, AllChem, Crippen
from study import RESULTS, SAMPLES, Study, options

from molcmim import MolCMIM
from molcmim.corpus import TokenStore
from molcmim.tokenizer import BOS, EOS, MASK, PAD, load_tokenizer

sys.path.append(str(Path(RDConfig.RDContribDir) / "SA_Score"))
import sascorer  # type: ignore[import-not-found]

DECODED_AGAIN = 200  #: rows of each file of samples
Row = dict[str, Any]


@torch.inference_mode()
def write_slowly(model: MolCMIM, z: np.ndarray) -> list[str]:
    """(n, L) -> texts: the likeliest next token, from a pass over all that is written so far, until <eos>."""
    network, vectors = model.network, torch.from_numpy(z)
    ids = torch.full((len(z), 1), BOS)
    open_ = torch.ones(len(z), dtype=torch.bool)
    while bool(open_.any()) and ids.shape[1] <= network.config.max_tokens + 1:
        scores = network.logits(network.hidden(vectors, ids)[:, -1]).float()
        scores[:, [PAD, BOS, MASK]] = -torch.inf
        best = scores.argmax(1)
        ids = torch.cat((ids, best[:, None]), 1)
        open_ &= best != EOS
    texts = []
    for row in ids[:, 1:].tolist():
        texts.append(model.tokenizer.decode(row[: row.index(EOS)]) if EOS in row else "")
    return texts


def canonical(text: Any) -> str | None:
    """RDKit's canonical SMILES, or None."""
    if not isinstance(text, str) or not text:
        return None
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(text)
    return None if molecule is None or not molecule.GetNumAtoms() else str(Chem.MolToSmiles(molecule))


def penalised_logp(smiles: str) -> float:
    """Normalised by ZINC250k's means and standard deviations, as in the code of GCPN (arXiv 1806.02473)."""
    molecule = Chem.MolFromSmiles(smiles)
    rings = [len(ring) for ring in molecule.GetRingInfo().AtomRings()]
    logp, sa, cycle = Crippen.MolLogP(molecule), sascorer.calculateScore(molecule), max([0, *rings]) - 6
    terms = ((logp - 2.4570953396190123) / 1.434324401111988, (-sa + 3.0525811293166134) / 0.8335207024513095)
    return sum(terms) + (-max(cycle, 0) + 0.0485696876403053) / 0.2860212110245455


def similarity(a: str, b: str) -> float:
    """Tanimoto, Morgan radius 2, 2,048 bits."""
    with rdBase.BlockLogs():
        prints = [AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(each), 2, 2048) for each in (a, b)]
    return float(DataStructs.TanimotoSimilarity(*prints))


# ------------------------------------------------------------------------------------------------ the files


def neighbours(model: MolCMIM, training: set[str], seed: int) -> Iterator[Row]:
    reported = json.loads((RESULTS / "neighbours.json").read_text())
    for row in reported["radii"]:
        name = f"neighbours_{row['unit']}_{row['radius']}"
        if not there(name):
            continue
        frame = pd.read_csv(SAMPLES / f"{name}.csv", keep_default_na=False)
        frame["again"] = [canonical(text) for text in frame.smiles]
        valid = frame.dropna(subset="again")
        groups = valid.groupby("seed", sort=False)
        distinct = set(valid.again)
        new = valid[[text not in training and text != own for text, own in zip(valid.again, valid.seed, strict=True)]]
        n_seeds = frame.seed.nunique()
        found = {
            "validity": len(valid) / len(frame),
            "uniqueness": float((groups.again.nunique() / groups.size()).mean()),
            "novelty": len(distinct - training) / len(distinct),
            "non_identicality": 1 - float((valid.again == valid.seed).groupby(valid.seed).mean().mean()),
            "effective_novelty": float(new.groupby("seed").again.nunique().sum() / (10 * n_seeds)),
        }
        yield from (
            {"file": name, "measure": key, "reported": row[key], "again": value} for key, value in found.items()
        )
        seeds = list(dict.fromkeys(frame.seed))[: DECODED_AGAIN // 10]
        mu = model.embed(seeds, kind="latent", exact=True)
        noise = [
            np.random.default_rng([seed, i]).standard_normal((10, mu.shape[1]), dtype=np.float32)
            for i in range(len(seeds))
        ]
        z = (mu[:, None] + np.float32(row["absolute"]) * np.stack(noise)).reshape(-1, mu.shape[1])
        yield same_texts(name, frame.smiles[: len(z)], write_slowly(model, z))


def sampling(model: MolCMIM, training: set[str], moses_training: set[str], seed: int) -> Iterator[Row]:
    from fcd_torch import FCD

    from molcmim.metrics.reference import load_moses

    reference = load_moses().test.gaussian
    fcd = FCD(device="cpu", n_jobs=1)
    for path in sorted(RESULTS.glob("sampling_*.json")):
        if not there(path.stem):
            continue
        reported = json.loads(path.read_text())["measures"]
        frame = pd.read_csv(SAMPLES / f"{path.stem}.csv", keep_default_na=False)
        valid = [text for text in map(canonical, frame.smiles) if text is not None]
        statistics = fcd.precalc(valid)
        found = {
            "valid": len(valid) / len(frame),
            "Novelty": len(set(valid) - moses_training) / len(set(valid)),
            "Novelty/known": len(set(valid) - training) / len(set(valid)),
            "FCD/Test": float(fcd.metric({"mu": reference.mean, "sigma": reference.covariance}, statistics)),
        }
        found |= {f"unique@{k}": len(set(valid[:k])) / k for k in (1000, 10_000) if len(valid) >= k}
        yield from (
            {"file": path.stem, "measure": key, "reported": reported[key], "again": value}
            for key, value in found.items()
        )
        if path.stem in ("sampling_prior", "sampling_mixture"):
            source = path.stem.removeprefix("sampling_")
            if source == "prior":
                from molcmim.mixture import Mixture

                z = Mixture.prior(model.network.config.latent).draw(DECODED_AGAIN, seed)
            else:
                z = model.mixture.draw(DECODED_AGAIN, seed)  # type: ignore[union-attr]
            yield same_texts(path.stem, frame.smiles[:DECODED_AGAIN], write_slowly(model, z))


def interpolation() -> Iterator[Row]:
    reported = json.loads((RESULTS / "interpolation.json").read_text())
    frame = pd.read_csv(SAMPLES / "interpolation.csv", keep_default_na=False)
    valid = np.array([canonical(text) is not None for text in frame.smiles]).reshape(reported["pairs"], -1)
    found = {"valid_inner": float(valid[:, 1:-1].mean()), "all_valid": float(valid.all(1).mean())}
    yield from (
        {"file": "interpolation", "measure": key, "reported": reported[key], "again": value}
        for key, value in found.items()
    )


def optimization() -> Iterator[Row]:
    """Scores and similarities of the best molecule of each start, and what the tables are made of them."""
    for path in sorted(RESULTS.glob("optimization_*.json")):
        reported = json.loads(path.read_text())
        score = penalised_logp if reported["task"] == "plogp" else lambda smiles: QED.qed(Chem.MolFromSmiles(smiles))
        before, best, again, start, near = [], [], [], [], []
        for entry in reported["starts"]:
            if "best_smiles" in entry:
                best.append(entry["best"])
                before.append(entry["start_score"])
                again.append(score(entry["best_smiles"]))
                start.append(score(entry["start"]))
                near.append(similarity(entry["start"], entry["best_smiles"]))
        rows = {"least similarity to the start": (reported["delta"], min(near))}
        if reported["task"] == "qed":
            rows["share that reaches 0.9"] = (
                float(np.mean(np.array(best) >= 0.9)),
                float(np.mean(np.array(again) >= 0.9)),
            )
            rows["highest score of a start"] = (max(before), max(start))
        else:
            gains = (np.subtract(best, before), np.subtract(again, start))
            rows["mean gain"] = (float(gains[0].mean()), float(gains[1].mean()))
        yield from ({"file": path.stem, "measure": key, "reported": a, "again": b} for key, (a, b) in rows.items())


def same_texts(name: str, given: Sequence[str], again: Sequence[str]) -> Row:
    same = float(np.mean([a == b for a, b in zip(given, again, strict=True)]))
    return {
        "file": name,
        "measure": f"same text, first {len(again)} rows, without the cache",
        "reported": 1.0,
        "again": same,
    }


def there(name: str) -> bool:
    """Whether the samples are there."""
    found = (SAMPLES / f"{name}.csv").exists()
    if not found:
        print(f"{name}.csv is not there: left out", file=sys.stderr)
    return found


# ------------------------------------------------------------------------------------------------ training sets


def training_texts(corpus: Path) -> set[str]:
    store, tokenizer = TokenStore.open(corpus, "train"), load_tokenizer(corpus / "vocab.json")
    texts: set[str] = set()
    for start in range(0, len(store), 100_000):
        rows = store.rows(np.arange(start, min(start + 100_000, len(store))))
        texts.update(tokenizer.decode(row.tolist()) for row in rows)
    return texts


def moses_training_texts() -> set[str]:
    """The published texts, as they are: another RDKit wrote them, so a few differ from today's."""
    import os

    (wheel,) = (Path(os.environ["MOLCMIM_DATA"]) / "moses").glob("molsets-*.whl")
    with zipfile.ZipFile(wheel) as files:
        packed = files.read("moses/dataset/data/train.csv.gz")
    return set(pd.read_csv(io.BytesIO(gzip.decompress(packed))).SMILES)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--only", choices=("samples", "near", "optimization"), help="near: neighbours and paths alone")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = MolCMIM.from_pretrained(given.model)
    if given.only != "optimization":
        study = Study(model)
        training = training_texts(given.corpus)
        rows = [] if given.only == "near" else list(sampling(model, training, moses_training_texts(), given.seed))
        rows += [*neighbours(model, training, given.seed), *interpolation()]
        write(study, given.out / "rescored_samples.json", rows, {"training_molecules": len(training)})
    if given.only in (None, "optimization"):
        study = Study(model)
        write(study, given.out / "rescored_optimization.json", list(optimization()), {})


def write(study: Study, path: Path, rows: list[Row], facts: Row) -> None:
    for row in rows:
        print(f"{row['file']:38} {row['measure']:48} {row['reported']:.5f} {row['again']:.5f}")
    study.write(path, {**facts, "rows": rows}, "rescore.py")


if __name__ == "__main__":
    main()
