"""Saved predictors: a directory written beside and renamed, sha256 checked, no pickle.

    config.json          what was fitted on what, scores, calibration, thresholds, versions, sha256 of the others
    head.skops           the fitted scikit-learn heads, one a target
    domain.safetensors   embeddings of the training molecules, float32, of norm 1
    molecules.smi        their SMILES, one a line, in the same order

The model itself isn't in there: it is found by name, or at the path that it had, or where `model` says, and its id
(a sha256 of its weights) must be the one that the heads were fitted with.

What reading one trusts: a skops file names the types of its objects, and every name in it must be on a list of
the heads' own types (`predictor_heads`); skops then checks its own list too, and builds the objects without calling
code that the file names. The sha256 values stop accidents, not someone who rewrites config.json as well: such a file
can hold wrong or malformed heads (numbers that make compiled code of scikit-learn or XGBoost fail), so take predictors
from people you would take numbers from.
"""

# Axes: m different training molecules, d features, t targets.

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molcmim import __version__
from molcmim.checkpoint_files import MAX_CONFIG_BYTES, CheckpointError, parse_json
from molcmim.moleculenet.predictor_domain import DISTANCE_PERCENTILE, LOG_PROB_PERCENTILE, Domain
from molcmim.moleculenet.predictor_heads import PredictorError, dump_heads, load_heads
from molcmim.moleculenet.predictor_scores import INNER_FOLDS, OUTER_FOLDS, FittedHead
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION

if TYPE_CHECKING:
    from molcmim.api import MolCMIM
    from molcmim.moleculenet.predictor import Predictor, Target

FORMAT, FORMAT_VERSION = "molcmim-predictor", 1
CONFIG, HEADS, DOMAIN, MOLECULES = "config.json", "head.skops", "domain.safetensors", "molecules.smi"
PACKAGES = ("scikit-learn", "skops", "xgboost", "xgboost-cpu", "torch", "rdkit", "numpy")

# ---------------------------------------------------------------------------------------------- saving


def save_predictor(predictor: Predictor, directory: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """See `Predictor.save`."""
    from safetensors.numpy import save

    from molcmim.pretrained import write_directory

    target = Path(directory).resolve()
    check_target_directory(target, overwrite)
    contents = {
        HEADS: dump_heads([target.fitted.estimator for target in predictor.targets], HEADS),
        DOMAIN: bytes(save({"unit": np.ascontiguousarray(predictor.domain.unit)})),
        MOLECULES: "".join(f"{text}\n" for text in predictor.domain.smiles).encode("ascii"),
    }
    config = _config_of(predictor)
    config["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents[CONFIG] = (json.dumps(config, indent=2, allow_nan=False) + "\n").encode("ascii")
    write_directory(target, contents)
    return target


def check_target_directory(directory: Path, overwrite: bool) -> None:
    """FileExistsError if there is something, but for an empty directory, or with `overwrite` a saved predictor."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    is_predictor = HEADS in names and names <= {CONFIG, HEADS, DOMAIN, MOLECULES}
    if not is_predictor:
        raise FileExistsError(f"output: {directory} exists and isn't a saved predictor")
    if not overwrite:
        raise FileExistsError(f"output: {directory} exists; --overwrite (overwrite=True) replaces it")


def _config_of(predictor: Predictor) -> dict[str, Any]:
    domain, model = predictor.domain, predictor.model
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "molcmim": __version__,
        "versions": _versions(),
        "model": {"name": str(model.config["name"]), "model_id": model.model_id, "source": predictor.source},
        "kind": predictor.kind,
        "policy": predictor.policy,
        "head": predictor.head,
        "task": predictor.task,
        "coverage": predictor.coverage,
        "seed": predictor.seed,
        "folds": {"outer": OUTER_FOLDS, "inner": INNER_FOLDS, "grouped_by": "canonical SMILES"},
        "targets": [_target_config(target) for target in predictor.targets],
        "domain": {
            "molecules": len(domain.smiles),
            "max_distance": domain.max_distance,
            "min_log_prob_per_token": domain.min_log_prob,
            "percentiles": [DISTANCE_PERCENTILE, LOG_PROB_PERCENTILE],
        },
        "training": predictor.training._asdict(),
    }


def _target_config(target: Target) -> dict[str, Any]:
    fitted = target.fitted
    return {
        "name": target.name,
        "n": target.n,
        "n_molecules": target.n_molecules,
        "params": fitted.params,
        "scores": {name: _number(value) for name, value in fitted.scores.items()},
        "baseline": {name: _number(value) for name, value in fitted.baseline.items()},
        "half_width": fitted.half_width,
        "slope": fitted.slope,
        "intercept": fitted.intercept,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None  # JSON has no NaN


def _with_nan(table: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float("nan") if value is None else value for name, value in table.items()}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


# ---------------------------------------------------------------------------------------------- loading


def load_predictor(
    directory: str | os.PathLike[str],
    model: MolCMIM | str | os.PathLike[str] | None = None,
    device: str | None = None,
) -> Predictor:
    """See `Predictor.load`."""
    from molcmim.moleculenet.predictor import Predictor, Target, Training

    where = Path(directory)
    config = read_config(where)
    network, source = find_model(config["model"], model, device, where)
    heads = load_heads(_read(where, config, HEADS), str(where / HEADS))
    if len(heads) != len(config["targets"]):
        raise PredictorError(f"{where / HEADS}: expected {len(config['targets'])} heads, got {len(heads)}")
    targets = []
    for estimator, entry in zip(heads, config["targets"], strict=True):
        fitted = FittedHead(
            estimator,
            entry["params"],
            scores=_with_nan(entry["scores"]),
            baseline=_with_nan(entry["baseline"]),
            half_width=entry["half_width"],
            slope=entry["slope"],
            intercept=entry["intercept"],
        )
        targets.append(Target(entry["name"], entry["n"], entry["n_molecules"], fitted))
    return Predictor(
        model=network,
        source=source,
        **{name: config[name] for name in ("kind", "policy", "head", "task", "coverage", "seed")},
        targets=tuple(targets),
        domain=_read_domain(where, config, network),
        training=Training(**config["training"]),
    )


def read_config(directory: Path) -> dict[str, Any]:
    """Content of config.json, every field that loading relies on checked.

    Raises
    ------
    PredictorError
        If it is missing, not of this format, or newer than it.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise PredictorError(f"{directory}: not a saved predictor, it has no {CONFIG}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise PredictorError(f"{path}: expected at most {MAX_CONFIG_BYTES} bytes, got {path.stat().st_size}")
    try:
        config = parse_json(path.read_bytes(), str(path))
    except CheckpointError as error:
        raise PredictorError(str(error)) from error
    if config.get("format") != FORMAT:
        raise PredictorError(f"{path}: format: expected {FORMAT!r}, got {config.get('format')!r}")
    number = config.get("format_version")
    if type(number) is not int or number < 1:
        raise PredictorError(f"{path}: format_version: expected a whole number from 1, got {number!r}")
    if number > FORMAT_VERSION:
        raise PredictorError(
            f"{path}: format_version: expected at most {FORMAT_VERSION}, got {number}; upgrade molcmim"
        )
    _check_fields(config, str(path))
    saved, here = config["versions"].get("scikit-learn"), _versions().get("scikit-learn")
    if saved and here and saved.split(".")[:2] != here.split(".")[:2]:
        warnings.warn(f"{path}: fitted with scikit-learn {saved}, this is {here}; predictions may differ", stacklevel=3)
    return config


NUMBER = (int, float)
FIELDS: Mapping[str, Any] = {
    "versions": dict,
    "model": dict,
    "kind": str,
    "policy": str,
    "head": str,
    "task": str,
    "coverage": float,
    "seed": int,
    "targets": list,
    "domain": dict,
    "training": dict,
    "files": dict,
}
MODEL_FIELDS: Mapping[str, Any] = {"name": str, "model_id": str, "source": (str, type(None))}
DOMAIN_FIELDS: Mapping[str, Any] = {
    "molecules": int,
    "max_distance": NUMBER,
    "min_log_prob_per_token": (*NUMBER, type(None)),
}
TRAINING_FIELDS: Mapping[str, Any] = {"name": str, "sha256": str, "n_rows": int, "counts": dict}
TARGET_FIELDS: Mapping[str, Any] = {
    "name": str,
    "n": int,
    "n_molecules": int,
    "params": dict,
    "scores": dict,
    "baseline": dict,
    "half_width": (*NUMBER, type(None)),
    "slope": (*NUMBER, type(None)),
    "intercept": (*NUMBER, type(None)),
}


def _check_fields(config: Mapping[str, Any], where: str) -> None:
    from molcmim.chem import POLICIES

    _check_types_of(config, FIELDS, where)
    parts = (("model", MODEL_FIELDS), ("domain", DOMAIN_FIELDS), ("training", TRAINING_FIELDS))
    for name, fields in parts:
        _check_types_of(config[name], fields, f"{where}: {name}")
    if set(config["training"]) != set(TRAINING_FIELDS):
        raise PredictorError(f"{where}: training: expected {sorted(TRAINING_FIELDS)}, got {sorted(config['training'])}")
    choices = {
        "kind": ("latent", "informative", "both"),
        "policy": POLICIES,
        "task": (REGRESSION, CLASSIFICATION),
    }
    for name, allowed in choices.items():
        if config[name] not in allowed:
            raise PredictorError(f"{where}: {name}: expected one of {allowed}, got {config[name]!r}")
    if not config["targets"]:
        raise PredictorError(f"{where}: targets: expected at least one, got none")
    needed = ("half_width",) if config["task"] == REGRESSION else ("slope", "intercept")
    for k, target in enumerate(config["targets"]):
        if not isinstance(target, dict):
            raise PredictorError(f"{where}: targets: expected objects, got {type(target).__name__}")
        _check_types_of(target, TARGET_FIELDS, f"{where}: target {k}")
        for name in needed:
            if target[name] is None:
                raise PredictorError(f"{where}: target {k}: {name}: expected a number, got nothing")
        for name in ("scores", "baseline"):
            _check_types_of(target[name], dict.fromkeys(target[name], (*NUMBER, type(None))), f"{where}: target {k}")


def _check_types_of(values: Mapping[str, Any], fields: Mapping[str, Any], where: str) -> None:
    for name, kind in fields.items():
        kinds = kind if isinstance(kind, tuple) else (kind,)
        value = values.get(name)
        wrong = name not in values or not isinstance(value, kinds) or isinstance(value, bool)
        if wrong or (isinstance(value, float) and not math.isfinite(value)):
            expected = " or ".join("nothing" if each is type(None) else each.__name__ for each in kinds)
            got = "nothing" if name not in values else repr(value)[:60]
            raise PredictorError(f"{where}: {name}: expected {expected}, got {got}")


def _read(directory: Path, config: Mapping[str, Any], name: str) -> bytes:
    """Bytes of a file, after comparing its sha256 with the table in config.json."""
    path, expected = directory / name, config["files"].get(name)
    if not path.is_file():
        raise PredictorError(f"{directory}: {name} is missing")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        raise PredictorError(
            f"{path}: damaged or changed ({len(data)} bytes): expected sha256 {expected}, got {digest}"
        )
    return data


def find_model(
    recorded: Mapping[str, Any], model: MolCMIM | str | os.PathLike[str] | None, device: str | None, where: Path
) -> tuple[MolCMIM, str | None]:
    """The model that the heads were fitted with, and where it is.

    Raises
    ------
    PredictorError
        If it isn't where it was, or the one that is there has another id.
    """
    from molcmim import checkpoint_files
    from molcmim.api import MolCMIM

    name, expected = recorded["name"], recorded["model_id"]
    if isinstance(model, MolCMIM):
        _check_id(where, name, expected, str(model.config["name"]), model.model_id)
        return model, recorded["source"]
    source = os.fspath(model) if model is not None else recorded["source"] or name
    try:
        directory = checkpoint_files.find_checkpoint(source)
    except CheckpointError as error:
        if model is not None:
            raise
        raise PredictorError(
            f"{where}: its model {name!r} (id {expected}) isn't at {source!r}; say where it is (--model DIR, or model=)"
        ) from error
    config = checkpoint_files.read_config(directory)
    _check_id(where, name, expected, config["name"], checkpoint_files.model_id(config))
    network = MolCMIM.from_pretrained(source, device=device)
    _check_id(where, name, expected, str(network.config["name"]), network.model_id)
    return network, source if source in checkpoint_files.available() else str(directory.resolve())


def _check_id(where: Path, name: str, expected: str, got_name: str, got: str) -> None:
    if got != expected:
        raise PredictorError(
            f"{where}: was fitted on embeddings of the model {name!r} (id {expected}), got {got_name!r} (id {got})"
        )


def _read_domain(directory: Path, config: Mapping[str, Any], model: MolCMIM) -> Domain:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    from molcmim.embed import embedding_width

    path = directory / DOMAIN
    try:
        arrays = load(_read(directory, config, DOMAIN))
    except (SafetensorError, KeyError, TypeError) as error:
        raise PredictorError(f"{path}: not a valid safetensors file: {error}") from error
    molecules = _read(directory, config, MOLECULES).decode("ascii", "replace").splitlines()
    expected = (config["domain"]["molecules"], embedding_width(model.network, config["kind"], model.objective))
    unit = arrays.get("unit")
    if unit is None or unit.shape != expected or unit.dtype != np.float32 or not np.isfinite(unit).all():
        got = "nothing" if unit is None else f"{unit.dtype} {unit.shape}"
        raise PredictorError(f"{path}: expected finite float32 of shape {expected} in 'unit', got {got}")
    if len(molecules) != len(unit):
        raise PredictorError(f"{directory / MOLECULES}: expected {len(unit)} lines, got {len(molecules)}")
    limits = config["domain"]
    return Domain(unit, molecules, limits["max_distance"], limits["min_log_prob_per_token"])
