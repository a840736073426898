"""30,000 molecules from the prior and from mixtures fitted to codes, by MOSES' measures.

    export MOLCMIM_DATA=...              # with moses/ below it: the molsets wheel, or its files
    python benchmarks/generation/sampling.py --corpus CORPUS --known KNOWN.npy [--only prior,mixture]

Sources: prior, N(0, I); mixture, the checkpoint's own, fitted to a part of its training corpus; mixture-moses, fitted
to MOSES' training molecules only: a distance to MOSES' test set says nothing about a model whose proposal is another
corpus. Decoding is greedy; -repair: texts that are no molecule are decoded again, up to five times, by sampling.
Writes samples/sampling_NAME.csv and results/sampling_NAME.json each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from study import SAMPLES, Study, options, sha256, source_number

from molcmim import MolCMIM
from molcmim.corpus import TokenStore
from molcmim.metrics.known import KnownSet
from molcmim.metrics.moses import moses_metrics
from molcmim.metrics.reference import load_moses
from molcmim.mixture import Mixture
from molcmim.sampling import MIXTURE_ROWS, fit_mixture
from molcmim.tokenizer import load_tokenizer

SOURCES = ("prior", "mixture", "mixture-repair", "mixture-moses", "mixture-moses-repair")
REPAIR = 5


def moses_mixture(model: MolCMIM, corpus: Path, seed: int) -> Mixture:
    """A mixture fitted to the codes of MOSES' training molecules, of those in the corpus' training part."""
    store, tokenizer = TokenStore.open(corpus, "train"), load_tokenizer(corpus / "vocab.json")
    rows = np.flatnonzero(np.asarray(store.source) == source_number(store, "moses"))
    rows = np.random.default_rng(seed).choice(rows, MIXTURE_ROWS, replace=False)
    smiles = [tokenizer.decode(row.tolist()) for row in store.rows(np.sort(rows))]
    return fit_mixture(model, smiles, seed=seed, corpus="MOSES, training part")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--known", type=Path, required=True, help="hashes of the training molecules (metrics/known.py)")
    parser.add_argument("-n", type=int, default=30_000)
    parser.add_argument("--only", default=",".join(SOURCES))
    parser.add_argument("--workers", type=int)
    given = parser.parse_args(arguments)
    model = MolCMIM.from_pretrained(given.model, dtype=given.dtype)
    moses, known = load_moses(), KnownSet.open(given.known)
    fitted: Mixture | None = None
    SAMPLES.mkdir(exist_ok=True)
    for name in given.only.split(","):
        study = Study(model)
        source: str | Mixture = name.removesuffix("-repair")
        if source == "mixture-moses":
            fitted = fitted or moses_mixture(model, given.corpus, given.seed)
            source = fitted
        began = time.perf_counter()
        repair = REPAIR if name.endswith("-repair") else 0
        table = model.sample(given.n, source=source, seed=given.seed, repair=repair, workers=given.workers)
        seconds = time.perf_counter() - began
        path = table.write(SAMPLES / f"sampling_{name}.csv")
        measures = moses_metrics(table.smiles, moses, "cpu", given.workers, known=known)
        results = {
            "source": name,
            "n": given.n,
            "facts": dict(source.facts) if isinstance(source, Mixture) else {},
            "seconds_sampling": round(seconds, 1),
            "repaired": float(table.repaired.mean()),
            "sha256": sha256(path),
            "measures": measures,
        }
        study.write(given.out / f"sampling_{name}.json", results, "sampling.py")
        print({key: round(measures[key], 4) for key in ("valid", "unique@10000", "FCD/Test", "Novelty")})


if __name__ == "__main__":
    main()
