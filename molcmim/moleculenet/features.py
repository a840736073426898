"""Feature sets by name: our embeddings, classical features, other models' vectors.

    molcmim-tiny:both           an embedding of a shipped model, or of a checkpoint directory: latent, informative, both
                                (without one: both) or all (each of the three)
    floor, maccs, ecfp4, ecfp4-count, rdkit2d, rdkit2d+ecfp4; classical (all six)
    npz:PATH                    other vectors: a .npz file, or a folder with <data set>.npz
    peer:NAME, peers            the same from the data directory's peers/NAME, or all that are there
    LABEL=...                   any model or vectors under a label of your own

>>> specs = parse_features("molcmim-tiny:both,rdkit2d", None)                  # doctest: +SKIP
>>> features = compute(specs[0], dataset, cache=Path("out/cache"))             # doctest: +SKIP
>>> features.x.shape, features.n_failed                                        # doctest: +SKIP
((1128, 512), 0)
"""

# Axes: n molecules, d features.

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.beside import written_beside
from molcmim.checkpoint_files import CONFIG, VOCAB, WEIGHTS, CheckpointError, find_checkpoint, model_id, read_config
from molcmim.checkpoint_files import available as shipped_models
from molcmim.moleculenet.features_classical import CLASSICAL, classical, classical_identity
from molcmim.moleculenet.features_npz import align, read_vectors
from molcmim.moleculenet.types import Dataset

__all__ = ["CLASSICAL", "EMBEDDINGS", "FeatureSpec", "Features", "available", "compute", "parse_features"]

EMBEDDINGS = ("latent", "informative", "both")
POLICY = "canonical"  #: how molecules are prepared for our models
LONGEST_LABEL = 100


class FeatureSpec(NamedTuple):
    """One feature set, as asked for. Make it with `parse_features`."""

    label: str  #: as shown in tables: ``"molcmim-tiny:both"``, ``"rdkit2d"``
    kind: str  #: ``"model"``, ``"classical"`` or ``"npz"``
    name: str  #: of the model, the classical set, or the file or folder of vectors
    embedding: str = ""  #: of a model: ``"latent"``, ``"informative"`` or ``"both"``
    path: Path | None = None  #: checkpoint directory, .npz file or folder of them


class Features(NamedTuple):
    """A feature set computed for the n molecules of a data set."""

    x: npt.NDArray[Any]  #: (n, d) float32, or float64 with descriptors; NaN where missing, a whole row or an entry
    label: str
    identity: str  #: what computed it: equal texts (and molecules) mean equal features
    n_failed: int  #: rows without any value


# ---------------------------------------------------------------------------------------------- names


def parse_features(text: str, data_dir: Path | None = None) -> list[FeatureSpec]:
    """Feature sets from a comma-separated text; see the module's docstring for what it may hold.

    A classical name or a shipped model's comes before a folder of that name: write ``./floor`` for the folder.

    Parameters
    ----------
    data_dir
        Where ``peers/`` is; default: the directory that MOLCMIM_DATA names.

    Returns
    -------
    list of FeatureSpec
        In the order given, the same one only once. Nothing is computed, but checkpoints and files are looked for.

    Raises
    ------
    ValueError
        If a name means nothing, a model lacks the embedding, or two feature sets would have the same label.
    """
    if data_dir is None and os.environ.get("MOLCMIM_DATA"):
        data_dir = Path(os.environ["MOLCMIM_DATA"])
    words = [word.strip() for word in text.split(",")]
    specs = list(dict.fromkeys(spec for word in words if word for spec in _parse(word, data_dir)))
    if not specs:
        raise ValueError(f"features: expected at least one feature set, got {text!r}")
    by_label: dict[str, FeatureSpec] = {}
    for spec in specs:
        other = by_label.setdefault(spec.label, spec)
        if other is not spec:
            raise ValueError(
                f"features: expected a label of its own for each, got {spec.label!r} for {other.path or other.name} "
                f"and {spec.path or spec.name}; write LABEL={spec.path or spec.name} for one of them"
            )
    return specs


def _parse(word: str, data_dir: Path | None) -> list[FeatureSpec]:
    """The feature sets that one word means: several for `classical`, `peers` and MODEL:all."""
    if word == "classical":
        return [FeatureSpec(name, "classical", name) for name in CLASSICAL]
    if word in CLASSICAL:
        return [FeatureSpec(word, "classical", word)]
    if word == "peers":
        names = sorted(path.parent.name for path in _peers(data_dir).glob("*/*.npz"))
        if not names:
            raise ValueError(f"features: expected folders with .npz files in {_peers(data_dir)}, got none")
        return [_peer(name, data_dir) for name in dict.fromkeys(names)]
    label, equals, rest = word.partition("=")
    if equals and not re.search(r"[:/\\]", label):  # else it is part of a path
        return _relabelled(label.strip(), rest.strip(), data_dir)
    return _model_or_vectors(word, data_dir)


def _relabelled(label: str, rest: str, data_dir: Path | None) -> list[FeatureSpec]:
    specs = _model_or_vectors(rest, data_dir)
    _checked(label, rest)
    if label in CLASSICAL or label in ("classical", "peers"):
        raise ValueError(f"features: {label!r} is the name of RDKit features or of a group; choose another label")
    return [
        spec._replace(label=_checked(f"{label}:{spec.embedding}" if spec.embedding else label, label)) for spec in specs
    ]


def _model_or_vectors(word: str, data_dir: Path | None) -> list[FeatureSpec]:
    if word.startswith("peer:"):
        return [_peer(word.removeprefix("peer:"), data_dir)]
    if word.startswith("npz:"):
        return [_vectors(_path(word.removeprefix("npz:")))]
    path = _path(word)
    is_folder_of_vectors = word not in shipped_models() and not (path / CONFIG).is_file() and any(path.glob("*.npz"))
    if path.suffix == ".npz" or (word and is_folder_of_vectors):
        return [_vectors(path)]
    return _model(word)


def _path(word: str) -> Path:
    return Path(os.path.expanduser(word))  # the shell leaves ~ alone after a colon


def _peers(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise ValueError("features: peers are in a data directory: expected MOLCMIM_DATA to name it, got nothing")
    return data_dir / "peers"


def _peer(name: str, data_dir: Path | None) -> FeatureSpec:
    path = _peers(data_dir) / name
    if not name or Path(name).name != name or not path.is_dir():
        names = ", ".join(sorted({each.parent.name for each in _peers(data_dir).glob("*/*.npz")}))
        raise ValueError(f"features: peer: expected one of {names or '(none)'}, got {name!r}")
    return _vectors(path)


def _vectors(path: Path) -> FeatureSpec:
    if not path.is_file() and not any(path.glob("*.npz")):
        raise ValueError(f"features: expected a .npz file or a folder that holds them, got {str(path)!r}")
    name = path.stem if path.is_file() else path.resolve().name
    return FeatureSpec(_checked(name, str(path)), "npz", name, "", path)


def _model(word: str) -> list[FeatureSpec]:
    """A checkpoint with the embedding asked for; all those that it has for `all`."""
    before, colon, wanted = word.rpartition(":")
    if not colon or wanted not in (*EMBEDDINGS, "all"):
        before, wanted = word, ""
    try:
        if not before:
            raise CheckpointError("no name")
        directory = find_checkpoint(_path(before) if before.startswith("~") else before)
        config = read_config(directory)
    except CheckpointError as error:
        known = ", ".join([*CLASSICAL, "classical", "peers"])
        raise ValueError(
            f"features: expected one of {known}, peer:NAME, npz:PATH, or a model as "
            f"NAME_OR_DIRECTORY:latent|informative|both|all, got {word!r} ({error})"
        ) from error
    there = EMBEDDINGS if "informative" in config["scales"] else ("latent",)  # the others need a decoder
    if wanted not in (*there, "", "all"):
        objective = config["objective"]["name"]
        raise ValueError(
            f"features: {before}: expected the embedding 'latent', got {wanted!r}: the model was trained with "
            f"objective {objective!r}, which trains no decoder"
        )
    chosen = there if wanted == "all" else (wanted or there[-1],)
    return [
        FeatureSpec(_checked(f"{config['name']}:{embedding}", word), "model", config["name"], embedding, directory)
        for embedding in chosen
    ]


def _checked(label: str, word: str) -> str:
    """The label, if tables and file names can show it."""
    if not label.strip() or not label.isprintable() or "," in label or len(label) > LONGEST_LABEL:
        raise ValueError(
            f"features: expected a printable label of 1 to {LONGEST_LABEL} characters without commas, "
            f"got {label[: LONGEST_LABEL + 1]!r}; write LABEL={word}"
        )
    return label


# ---------------------------------------------------------------------------------------------- values


def available(spec: FeatureSpec, dataset_name: str) -> bool:
    """Whether there are features for a data set: False where a folder of vectors has no file of its name."""
    return spec.kind != "npz" or _vectors_path(spec, dataset_name).is_file()


def compute(spec: FeatureSpec, dataset: Dataset, cache: Path | None = None, workers: int | None = None) -> Features:
    """Compute a feature set for a data set, or read it from the cache.

    Parameters
    ----------
    cache
        Folder to keep features in, made if need be; a file in it that is damaged is computed anew.
    workers
        Processes for what is slow on one; default: one for each CPU for all but small data sets.

    Returns
    -------
    Features
        x is (n, d). A row is NaN as a whole where the molecule has no features: one that our model can't embed (it
        is too long, or has a token that the model doesn't know), or that another model's file lacks.

    Raises
    ------
    FileNotFoundError
        If a folder of vectors has none for this data set; see `available`.
    ValueError
        If a file of vectors or a checkpoint is damaged, or doesn't fit.
    """
    identity, values = _recipe(spec, dataset, workers)
    path = None if cache is None else cache / _cache_name(spec, dataset, identity)
    x = None if path is None else _read_cache(path, len(dataset))
    if x is None:
        x = np.ascontiguousarray(values())
        if path is not None:
            _write_cache(path, x)
    return Features(x, spec.label, identity, int(np.isnan(x).all(axis=1).sum()))


def _recipe(spec: FeatureSpec, dataset: Dataset, workers: int | None) -> tuple[str, Callable[[], npt.NDArray[Any]]]:
    """Identity of the features, and the function that computes them."""
    if spec.kind == "classical":
        return classical_identity(spec.name), lambda: classical(spec.name, dataset.smiles, workers)
    if spec.kind == "npz":
        path = _vectors_path(spec, dataset.name)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no vectors of {spec.label} for {dataset.name}")
        vectors = read_vectors(path)
        return f"sha256 {vectors.sha256}", lambda: align(vectors, dataset, workers)
    if spec.kind == "model":
        return _model_identity(spec), lambda: _embed(spec, dataset, workers)
    raise ValueError(f"kind: expected 'model', 'classical' or 'npz', got {spec.kind!r}")


def _vectors_path(spec: FeatureSpec, dataset_name: str) -> Path:
    if spec.path is None:
        raise ValueError(f"path: expected that of the vectors of {spec.label!r}, got None")
    return spec.path / f"{dataset_name}.npz" if spec.path.is_dir() else spec.path


def _model_identity(spec: FeatureSpec) -> str:
    """Weights, embedding and policy, and a hash of all else that a vector depends on."""
    import rdkit

    config = read_config(find_checkpoint(spec.path))
    facts = [config[key] for key in ("architecture", "objective", "scales")]
    facts += [config["files"][name] for name in (WEIGHTS, VOCAB)]
    rest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return f"model {model_id(config)}-{rest}, {spec.embedding}, policy {POLICY}, rdkit {rdkit.__version__}"


def _embed(spec: FeatureSpec, dataset: Dataset, workers: int | None) -> npt.NDArray[np.float32]:
    from molcmim.api import MolCMIM  # torch

    model = MolCMIM.from_pretrained(spec.path)
    return model.embed(dataset.smiles, kind=spec.embedding, policy=POLICY, workers=workers)


# ---------------------------------------------------------------------------------------------- cache


def _cache_name(spec: FeatureSpec, dataset: Dataset, identity: str) -> str:
    """File name of features: readable, and with a hash of everything that they depend on."""
    facts = [dataset.sha256, dataset.canonical, dataset.smiles, identity]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "_", f"{dataset.name[:60]}-{spec.label}").lstrip(".")
    return f"{readable}-{digest}.npy"


def _read_cache(path: Path, n: int) -> npt.NDArray[Any] | None:
    """The array (n, d), or None where there is no such file or it is damaged."""
    try:
        with path.open("rb") as file:
            x: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError):  # the last: a damaged header asks for any amount
        return None
    fits = x.ndim == 2 and len(x) == n and x.shape[1] > 0 and x.dtype in (np.float32, np.float64)
    return x if fits else None


def _write_cache(path: Path, x: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)  # threads of one process may write the same file
    with written_beside(path, f".{token}") as part, part.open("xb") as file:
        np.save(file, x, allow_pickle=False)
