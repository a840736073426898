"""Decoding speed: molecules a second, with and without the cache, in one run, the variants taking turns.

    python benchmarks/generation/speed.py --corpus CORPUS

Codes (mu) of held-out molecules, greedy. "cached" and "uncached" decode 256 rows as one batch each, with one thread:
what the cache is worth. "2 threads, 4096" is what a user gets: 4,096 rows, batches side by side on two cores; "one
batch at a time" is how it was before, with torch dividing each operation between the threads. Only decoding is timed,
not parsing. A rate of valid molecules counts those that RDKit accepts. Medians over the turns go to results/speed.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from study import Study, held_out, options

from molcmim import MolCMIM, generate
from molcmim.chem import Status, prepare_many
from molcmim.generate import Decoded, greedy, uncached
from molcmim.model import CMIM

BATCH, MANY = 256, 4096


def one_at_a_time(model: CMIM, z: torch.Tensor) -> Decoded:
    """Greedy decoding where torch divides each operation between the threads, instead of whole batches."""
    side_by_side = generate.in_threads
    try:
        generate.in_threads = lambda run, batches, n: side_by_side(run, batches, 1)
        return greedy(model, z)
    finally:
        generate.in_threads = side_by_side


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args(arguments)
    model = MolCMIM.from_pretrained(given.model)
    study = Study(model)
    smiles = held_out(given.corpus, given.seed)
    mu, status, _ = model.embed_with_status(smiles[: 2 * MANY], kind="latent")
    usable = [i for i, each in enumerate(status) if each is Status.ok][:MANY]
    z = torch.from_numpy(mu[usable])  # (MANY, L)

    def timed(rows: int, dtype: str, threads: int, decoder: Callable[..., Decoded]) -> tuple[float, float]:
        """Molecules a second, and of them the share that is valid."""
        torch.set_num_threads(threads)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            began = time.perf_counter()
            written = decoder(model.network, z[:rows])
            seconds = time.perf_counter() - began
        texts = [model.tokenizer.decode(ids) for ids in written.tokens]
        valid = sum(each.status is Status.ok for each in prepare_many(texts, workers=0))
        return rows / seconds, valid / rows

    variants = {
        "uncached, float32, 1 thread, 256": (BATCH, "float32", 1, uncached),
        "cached, float32, 1 thread, 256": (BATCH, "float32", 1, greedy),
        "cached, float32, 2 threads, 4096": (MANY, "float32", 2, greedy),
        "cached, bfloat16, 2 threads, 4096": (MANY, "bfloat16", 2, greedy),
        "one batch at a time, float32, 2 threads, 4096": (MANY, "float32", 2, one_at_a_time),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    valid: dict[str, float] = {}
    for _ in range(given.turns):
        for name, variant in variants.items():
            rate, valid[name] = timed(*variant)
            rates[name].append(rate)
            print(f"{name}: {rate:.0f} molecules/s, {valid[name]:.1%} valid", flush=True)
    fast, slow = rates["cached, float32, 1 thread, 256"], rates["uncached, float32, 1 thread, 256"]
    results: dict[str, Any] = {
        "turns": given.turns,
        "variants": {
            name: {
                "molecules_per_s": round(median(rates[name]), 1),
                "valid": valid[name],
                "valid_per_s": round(median(rates[name]) * valid[name], 1),
                "all": [round(rate, 1) for rate in rates[name]],
            }
            for name in variants
        },
        "cache_ratio": round(median(a / b for a, b in zip(fast, slow, strict=True)), 2),
    }
    study.write(given.out / "speed.json", results, "speed.py")


if __name__ == "__main__":
    main()
