"""A small corpus and a small training configuration, for tests of the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdkit import RDConfig

from molcmim.corpus_build import Source, build_corpus
from molcmim.train_config import TrainConfig


def small_smiles(n: int, longest: int = 24) -> list[str]:
    """The first n distinct short SMILES of RDKit's NCI sample, as written there."""
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text(encoding="utf-8").splitlines()
    texts = dict.fromkeys(line.split()[0] for line in lines if line.strip())
    return [text for text in texts if len(text) <= longest][:n]


def small_corpus(directory: Path, n: int = 600, **options: Any) -> Path:
    """A corpus directory of n molecules, a twentieth of them for validation."""
    text = directory / "molecules.smi"
    text.write_text("\n".join(small_smiles(n)) + "\n", encoding="utf-8")
    settings: dict[str, Any] = {
        "policy": "none",
        "workers": 1,
        "valid_fraction": 0.05,
        "min_count": 1,
        "max_tokens": 40,
    }
    build_corpus([Source(text)], directory / "corpus", progress=False, **{**settings, **options})
    return directory / "corpus"


def small_config(corpus: Path, output: Path, **changes: Any) -> TrainConfig:
    """A run of a few seconds; dotted keys are given with two underscores (`model__width`)."""
    values: dict[str, Any] = {
        "corpus": str(corpus),
        "output": str(output),
        "model": {
            "width": 32,
            "heads": 2,
            "mlp_width": 64,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "latent": 16,
            "memory": 2,
            "max_tokens": 40,
        },
        "objective": {"name": "cmim"},
        "schedule": {"max_steps": 12, "warmup_steps": 4},
        "batch_size": 32,
        "precision": "float32",
        "log_every": 4,
        "validate_minutes": 0,
        "validate_molecules": 20,
        "reconstruct_molecules": 10,
        "threads": 1,
        "peak_tflops": 0.1,
    }
    for key, value in changes.items():
        *parents, leaf = key.split("__")
        target = values
        for parent in parents:
            target = target[parent]
        target[leaf] = value
    return TrainConfig.from_dict(values)
