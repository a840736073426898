"""What the scripts of this study share: options, held-out molecules, and results with the facts of their making."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molcmim import MolCMIM
from molcmim.chem import Status
from molcmim.corpus import TokenStore
from molcmim.provenance import PACKAGES, command_line, git_state, machine, now
from molcmim.rows import tokenize_rows
from molcmim.tokenizer import load_tokenizer

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SAMPLES = HERE / "samples"  #: what was written, not committed: the commands make the same files again


def options(doc: str | None, corpus: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that all scripts have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="molcmim-tiny")
    if corpus:
        parser.add_argument("--corpus", type=Path, required=True, help="token shards, made by molcmim corpus")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of matrix products")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def held_out(corpus: Path, seed: int = 0, source: str | None = None) -> list[str]:
    """SMILES of the corpus' validation part (chosen by a hash, never trained on), in random order.

    Parameters
    ----------
    corpus
        Directory of token shards.
    seed
        Of the order.
    source
        Only those of the source of that name, or of that name and an ending (``"moses"``: moses.smi).
    """
    store, tokenizer = TokenStore.open(corpus, "valid"), load_tokenizer(corpus / "vocab.json")
    rows = np.random.default_rng(seed).permutation(len(store))
    if source is not None:
        rows = rows[store.source[rows] == source_number(store, source)]
    return [tokenizer.decode(row.tolist()) for row in store.rows(rows)]


def source_number(store: TokenStore, name: str) -> int:
    """Number of the corpus' source of that name, whatever its ending; ValueError if there is none."""
    return [info.name.split(".")[0] for info in store.info.sources].index(name)


def embeddable(model: MolCMIM, smiles: Sequence[str]) -> list[str]:
    """Those that the model can embed, in order."""
    status = tokenize_rows(smiles, model.tokenizer, model.network.config.max_tokens).status
    return [text for text, each in zip(smiles, status, strict=True) if each is Status.ok]


class Study:
    """Takes the time, and writes results with the facts of their making."""

    def __init__(self, model: MolCMIM) -> None:
        self.model = model
        self.started, self.cpu = time.perf_counter(), time.process_time()
        self.commit = git_state()  # now: the tree may change while this runs

    def write(self, path: Path, results: Mapping[str, Any], script: str) -> None:
        """Write JSON, beside and renamed."""
        about = {
            "command": command_line(f"python benchmarks/generation/{script}", plain(sys.argv[1:])),
            "date": now(),
            **self.commit,
            "model": self.model.config["name"],
            "model_id": self.model.model_id,
            "dtype": self.model.dtype,
            "threads": torch.get_num_threads(),
            "minutes": round((time.perf_counter() - self.started) / 60, 2),
            "cpu_minutes": round((time.process_time() - self.cpu) / 60, 2),
            "machine": machine((*PACKAGES, "cma", "fcd_torch")),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        part.write_text(as_json({"about": about, **results}), encoding="utf-8")
        part.replace(path)
        print(f"wrote {path.name} after {about['minutes']} min")


def plain(words: Sequence[str]) -> list[str]:
    """Arguments of a command with CORPUS and KNOWN.npy for directories that mean nothing elsewhere, and no --out."""
    shown: list[str] = []
    given = iter(words)
    for word in given:
        if word == "--out":
            next(given, None)
        elif word in ("--corpus", "--known"):
            next(given, None)
            shown += [word, "CORPUS" if word == "--corpus" else "KNOWN.npy"]
        else:
            shown.append(word)
    return shown


def finite(value: Any) -> Any:
    """The same with null for NaN, which JSON doesn't know."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def as_json(value: Any) -> str:
    """Indented JSON, but lists of numbers, and of pairs of numbers, on one line."""
    text = json.dumps(finite(value), indent=1, allow_nan=False)
    for _ in range(2):
        text = re.sub(r"\[\s+([^][{}\"]+|(?:\[[^][]*\],?\s*)+)\s*\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    return text + "\n"


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
