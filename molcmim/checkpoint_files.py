"""Finding and reading a checkpoint directory up to, but not including, its weights: no torch in here.

`molcmim.pretrained` describes the format, and builds the model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molcmim.tokenizer import Tokenizer, tokenizer_from_json

if TYPE_CHECKING:
    from molcmim.mixture import Mixture

FORMAT_VERSION = 1
DEFAULT = "molcmim-tiny-chem"
CHECKPOINTS = Path(__file__).with_name("checkpoints")  #: where the names of shipped models resolve
CONFIG, WEIGHTS, VOCAB, CARD = "config.json", "model.safetensors", "vocab.json", "README.md"
MIXTURE = "mixture.safetensors"  #: optional: where the model's codes lie, for sampling
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib")
MAX_CONFIG_BYTES = 1 << 24

CONFIG_FIELDS: Mapping[str, type] = {
    "name": str,
    "architecture": dict,
    "tokenizer": dict,
    "objective": dict,
    "scales": dict,
    "policy": str,
    "training": dict,
    "files": dict,
}


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, pickled, inconsistent or too new; the message says which."""


def available() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(path.parent.name for path in CHECKPOINTS.glob(f"*/{CONFIG}"))


def find_checkpoint(name_or_dir: str | os.PathLike[str] | None = None) -> Path:
    """Directory of a shipped model's name (these come first; write ``./name`` for a folder), or of a path.

    Raises
    ------
    CheckpointError
        If there is none, or the path is a file.
    """
    given = DEFAULT if name_or_dir is None else os.fspath(name_or_dir)
    if given in available():
        return CHECKPOINTS / given
    path = Path(given)
    if path.is_dir():
        return path
    if path.is_file():
        with path.open("rb") as file:
            refuse_pickle(path.name, file.read(8))
        raise CheckpointError(f"{path}: expected the directory of a checkpoint, got a file")
    shipped = ", ".join(available()) or "none"
    raise CheckpointError(
        f"no checkpoint {given!r}: no such directory, no such shipped model (those are: {shipped})"
    )


def read_config(directory: Path) -> dict[str, Any]:
    """Content of config.json, every field that loading relies on checked.

    Raises
    ------
    CheckpointError
        If the directory holds pickled files, or config.json is missing, not of this format, or newer than it.
    """
    for path in sorted(directory.iterdir()):
        refuse_pickle(path.name, b"")
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{directory}: not a checkpoint, it has no {CONFIG}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path}: expected at most {MAX_CONFIG_BYTES} bytes, got {path.stat().st_size}")
    config = parse_json(path.read_bytes(), str(path))
    version = config.get("format_version")
    if type(version) is not int or version < 1:
        raise CheckpointError(f"{path}: format_version: expected a whole number from 1, got {version!r}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version: expected at most {FORMAT_VERSION}, got {version}; upgrade molcmim"
        )
    for field, kind in CONFIG_FIELDS.items():
        if not isinstance(config.get(field), kind):
            got = type(config[field]).__name__ if field in config else "nothing"
            raise CheckpointError(f"{path}: {field}: expected {kind.__name__}, got {got}")
    _check_files_table(config["files"], str(path))
    check_values(config, str(path))
    return config


def _check_files_table(table: Mapping[str, object], where: str) -> None:
    for name, digest in table.items():
        if name in ("", ".", "..", CONFIG) or "/" in name or "\\" in name or "\0" in name or ":" in name:
            raise CheckpointError(f"{where}: files: expected plain file names, got {name!r}")
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise CheckpointError(f"{where}: files: {name}: expected a sha256 in hex, got {digest!r}")
    for name in (WEIGHTS, VOCAB):
        if name not in table:
            raise CheckpointError(f"{where}: files: {name} is not in the table")


def check_values(config: Mapping[str, Any], where: str) -> None:
    for name, value in config["scales"].items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name not in ("latent", "informative") or not is_number or not 0 < value < math.inf:
            raise CheckpointError(
                f"{where}: scales: expected positive latent, informative; got {name}: {value!r}"
            )
    objective, policy = config["objective"].get("name"), config["policy"]
    if not isinstance(objective, str):
        raise CheckpointError(f"{where}: objective: expected a 'name', got {objective!r}")
    if policy not in ("none", "canonical", "parent"):
        raise CheckpointError(f"{where}: policy: expected none, canonical or parent, got {policy!r}")


def read_file(directory: Path, config: Mapping[str, Any], name: str) -> bytes:
    """Bytes of one file of a checkpoint, after comparing its sha256 with the table in config.json."""
    path = directory / name
    if name not in config["files"] or not path.is_file():
        raise CheckpointError(f"{directory}: {name} is missing")
    data = path.read_bytes()
    refuse_pickle(name, data[:8])
    digest = hashlib.sha256(data).hexdigest()
    if digest != config["files"][name]:
        raise CheckpointError(
            f"{path}: damaged or incomplete ({len(data)} bytes): "
            f"expected sha256 {config['files'][name]}, got {digest}"
        )
    return data


def read_tokenizer(directory: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a checkpoint, checked against what config.json says about it."""
    where = str(directory / VOCAB)
    try:
        tokenizer = tokenizer_from_json(parse_json(read_file(directory, config, VOCAB), where))
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    comparisons = (
        ("kind", config["tokenizer"].get("kind"), tokenizer.kind),
        ("fingerprint", config["tokenizer"].get("fingerprint"), tokenizer.fingerprint),
        ("vocab_size", config["architecture"].get("vocab_size"), tokenizer.vocab_size),
    )
    for field, expected, got in comparisons:
        if expected != got:
            raise CheckpointError(f"{where}: {field}: expected {expected!r} (config.json), got {got!r}")
    return tokenizer


def read_card(directory: Path, config: Mapping[str, Any]) -> str:
    """The model card, or an empty text for a checkpoint without one."""
    return read_file(directory, config, CARD).decode("utf-8", "replace") if CARD in config["files"] else ""


def read_mixture(directory: Path, config: Mapping[str, Any]) -> Mixture | None:
    """The mixture fitted to the model's codes, or None for a checkpoint without one."""
    if MIXTURE not in config["files"]:
        return None
    from molcmim.mixture import Mixture

    where = str(directory / MIXTURE)
    data = read_file(directory, config, MIXTURE)
    try:
        mixture = Mixture.from_bytes(data, where)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if mixture.latent != config["architecture"].get("latent"):
        raise CheckpointError(
            f"{where}: expected {config['architecture'].get('latent')} dimensions (the model's), got {mixture.latent}"
        )
    return mixture


def model_id(config: Mapping[str, Any]) -> str:
    """First 12 hex digits of the sha256 of the weights, as the files table has it."""
    return str(config["files"][WEIGHTS][:12])


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def refuse_pickle(name: str, start: bytes) -> None:
    """Refuse a file by its suffix, or by its first bytes: pickle protocols 2 to 5, the zip of torch.save."""
    by_name = name.lower().endswith(PICKLE_SUFFIXES)
    if by_name or (len(start) > 1 and start[0] == 0x80 and start[1] <= 5) or start.startswith(b"PK\x03\x04"):
        raise CheckpointError(
            f"{name}: expected weights as {WEIGHTS}, got a pickled file; "
            "opening one can run any code, so molcmim refuses checkpoints that hold one"
        )
