"""molcmim inside other libraries; each module needs its library, this package needs none of them.

    from molcmim.integrations.sklearn import MolCMIMTransformer      # pip install molcmim[sklearn]
    from molcmim.integrations.deepchem import MolCMIMFeaturizer      # pip install molcmim[deepchem]
    from molcmim.integrations.skfp import MolCMIMFingerprint         # pip install molcmim[skfp]
    from molcmim.integrations.molfeat import MolCMIMTransformer      # pip install molcmim[molfeat]

What they share, here: a model is given as a shipped name, a checkpoint directory, or a loaded `MolCMIM`; a name or
directory is read when vectors are first needed and kept for the process, so clones and pickles stay small and
worker processes load it themselves. Nothing in here imports torch before that.
"""

# Axes: n molecules, d features.

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from molcmim.checkpoint_files import find_checkpoint, model_id, read_config
from molcmim.chem import Status, to_text_list

if TYPE_CHECKING:
    from molcmim.api import MolCMIM

    ModelLike = str | os.PathLike[str] | MolCMIM | None  #: name, directory or loaded model; None: the default model

KINDS = ("latent", "informative", "both")

logger = logging.getLogger(__name__)


def missing(library: str, extra: str, error: ImportError) -> ImportError:
    """The error to raise where `library` can't be imported."""
    return ImportError(f"{library} can't be imported ({error}); pip install molcmim[{extra}]")


def is_loaded(model: object) -> bool:
    """Whether `model` is a `MolCMIM`, told without importing torch."""
    return hasattr(model, "embed_with_status")


def config_of(model: Any) -> tuple[dict[str, Any], str]:
    """Content of config.json and the model id of a name, a directory or a loaded model; reads no weights.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or its config.json is wrong.
    """
    if is_loaded(model):
        return model.config, model.model_id
    config = read_config(find_checkpoint(model))
    return config, model_id(config)


def feature_names(model: Any, kind: str) -> list[str]:
    """Names of the d features in order: ``latent0`` ..., ``informative0`` ....

    Raises
    ------
    CheckpointError
        If there is no such checkpoint.
    ValueError
        If `kind` isn't one of `KINDS`, or needs a decoder that the model hasn't got.
    """
    check_choice("kind", kind, KINDS)
    config, _ = config_of(model)
    sizes = {"latent": config["architecture"]["latent"], "informative": config["architecture"]["width"]}
    if config["objective"]["name"] == "mlm":  # its embedding is the mean token state, of the model's width
        sizes["latent"] = config["architecture"]["width"]
    if kind != "latent" and "informative" not in config["scales"]:
        raise ValueError(f"kind: expected 'latent', got {kind!r}: model {config['name']!r} has no decoder")
    parts = ("latent", "informative") if kind == "both" else (kind,)
    return [f"{part}{i}" for part in parts for i in range(sizes[part])]


def check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """ValueError unless `value` is one of the texts allowed."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {tuple(allowed)}, got {value!r}")


def load(model: Any, device: Any = None, dtype: str | None = None) -> MolCMIM:
    """The model: as given if it is loaded already, else read once in this process.

    Parameters
    ----------
    model
        Name, directory, `MolCMIM`, or None for the default model.
    device, dtype
        As for `MolCMIM.from_pretrained`; None: its defaults, or what a loaded model has.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it is damaged.
    ValueError
        If a loaded model isn't on `device` or of `dtype`: it isn't moved or changed behind its owner's back.
    """
    if not is_loaded(model):
        directory = find_checkpoint(model).resolve()
        config = json.dumps(read_config(directory), sort_keys=True)  # another checkpoint in this place is read anew
        digest = hashlib.sha256(config.encode()).hexdigest()
        return _load(str(directory), digest, None if device is None else str(device), dtype or "float32")
    loaded: MolCMIM = model
    if device is not None:
        from molcmim.api import resolve_device

        wanted = resolve_device(device)
        if wanted.type != loaded.device.type or wanted.index not in (None, loaded.device.index):
            raise ValueError(f"device: expected None or {str(loaded.device)!r}, the model's, got {str(device)!r}")
    if dtype not in (None, loaded.dtype):
        raise ValueError(f"dtype: expected None or {loaded.dtype!r}, the model's, got {dtype!r}")
    return loaded


@lru_cache(maxsize=4)
def _load(directory: str, digest: str, device: str | None, dtype: str) -> MolCMIM:
    from molcmim.api import MolCMIM

    return MolCMIM.from_pretrained(directory, device, dtype)


def one_column(molecules: Any) -> list[object]:
    """The molecules as a flat list, in order, from whatever holds one column of them.

    Parameters
    ----------
    molecules
        List, tuple, Series, (n,) array, or one column: (n, 1) array, DataFrame, list of lists of one.

    Raises
    ------
    TypeError
        If it is a single molecule, has no order, or is a sparse matrix.
    ValueError
        If there is more than one column.
    """
    if hasattr(molecules, "tocsr"):
        raise TypeError(
            f"X: expected one column of molecules, got a {type(molecules).__name__}; sparse is not supported"
        )
    columns = getattr(molecules, "columns", None)
    shape = getattr(molecules, "shape", None)
    if shape is not None and len(shape) > 1:
        if len(shape) != 2 or shape[1] != 1:
            raise ValueError(f"X: expected one column of molecules, got shape {tuple(shape)}")
        molecules = molecules[columns[0]] if columns is not None else molecules[:, 0]
    rows = to_text_list(molecules)
    if rows and all(isinstance(row, list | tuple) for row in rows):
        wide = next((row for row in rows if len(row) != 1), None)  # type: ignore[arg-type]
        if wide is not None:
            raise ValueError(f"X: expected one column of molecules, got a row {wide!r}")
        rows = [row[0] for row in rows]  # type: ignore[index]
    return rows


def log_bad_rows(status: Sequence[Status], consequence: str) -> None:
    """Log, as one warning, how many rows have no embedding, why, and what becomes of them."""
    counts = Counter(value.value for value in status if value is not Status.ok)
    if counts:
        reasons = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        logger.warning(
            "%d of %d molecules have no embedding (%s): %s", counts.total(), len(status), reasons, consequence
        )
