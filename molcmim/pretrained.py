"""Checkpoint directories: written beside and renamed, sha256 checked, no pickle anywhere.

    config.json         format_version, name, architecture, tokenizer, objective, scales, policy, training,
                        and `files`: the sha256 of every other file
    model.safetensors   the weights, loaded as float32
    vocab.json          the tokenizer
    README.md           the model card
    mixture.safetensors optional: a mixture of Gaussians fitted to the model's codes (`molcmim.mixture`)

What reading one trusts: nothing. A file is hashed and parsed from the same bytes, pickles are refused by name
and by content, and shapes are compared before any memory is asked for. The sha256 values stop accidents
(truncation, mixed up files), not someone who rewrites config.json as well; such a checkpoint can give wrong
vectors, but runs no code.
Torch is imported only by what touches weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from molcmim.checkpoint_files import (
    CARD,
    CHECKPOINTS,
    CONFIG,
    DEFAULT,
    FORMAT_VERSION,
    MIXTURE,
    VOCAB,
    WEIGHTS,
    CheckpointError,
    available,
    check_values,
    find_checkpoint,
    model_id,
    read_card,
    read_config,
    read_file,
    read_mixture,
    read_tokenizer,
)
from molcmim.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from molcmim.mixture import Mixture
    from molcmim.model import CMIM, ModelConfig

__all__ = [
    "CHECKPOINTS",
    "DEFAULT",
    "CheckpointError",
    "Loaded",
    "available",
    "load_pretrained",
    "save_mixture",
    "save_pretrained",
    "update_card",
]

MAX_FIELD = {"encoder_layers": 512, "decoder_layers": 512, "perceiver_token_layers": 512}  # others: 2**20
DTYPES = ("float16", "bfloat16", "float32")


class Loaded(NamedTuple):
    """What a checkpoint directory holds."""

    model: CMIM  #: float32, on the CPU, in eval mode
    tokenizer: Tokenizer
    config: dict[str, Any]  #: content of config.json
    model_id: str  #: first 12 hex digits of the sha256 of model.safetensors
    directory: Path
    mixture: Mixture | None = None  #: fitted to the model's codes, if the checkpoint holds one


# ---------------------------------------------------------------------------------------------- loading


def load_pretrained(name_or_dir: str | os.PathLike[str] | None = None) -> Loaded:
    """Read and check a whole checkpoint.

    Parameters
    ----------
    name_or_dir
        Name of a shipped model, or a directory; default `DEFAULT`.

    Returns
    -------
    Loaded
        The global random state is left as it was.

    Raises
    ------
    CheckpointError
        If anything about it is wrong; the message names the file and the reason.
    """
    directory = find_checkpoint(name_or_dir)
    config = read_config(directory)
    tokenizer = read_tokenizer(directory, config)
    read_card(directory, config)
    mixture = read_mixture(directory, config)
    architecture = _architecture(config["architecture"], str(directory / CONFIG))
    tensors = _parse_weights(read_file(directory, config, WEIGHTS), str(directory / WEIGHTS))
    model = _assemble(architecture, tokenizer, tensors, str(directory / WEIGHTS))
    return Loaded(model.eval(), tokenizer, config, model_id(config), directory, mixture)


def _architecture(values: Mapping[str, Any], where: str) -> ModelConfig:
    from molcmim.model import ModelConfig

    for name, value in values.items():
        limit = MAX_FIELD.get(name, 1 << 20)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise CheckpointError(f"{where}: architecture: {name}: expected a number or text, got {value!r}")
        if not isinstance(value, str) and not abs(value) <= limit:
            raise CheckpointError(f"{where}: architecture: {name}: expected at most {limit}, got {value}")
    try:
        return ModelConfig.from_dict(dict(values))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{where}: architecture: {error}") from error


def _parse_weights(data: bytes, where: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    header = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header > len(data) - 8:
        raise CheckpointError(
            f"{where}: not a whole safetensors file: expected a header of {header} bytes, "
            f"got a file of {len(data)}"
        )
    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{where}: not a valid safetensors file: {error}") from error


def _assemble(
    architecture: ModelConfig, tokenizer: Tokenizer, tensors: Mapping[str, Tensor], where: str
) -> CMIM:
    """The model with these weights.

    It is laid out on the meta device first: shapes are compared before memory is taken, and no random numbers
    are drawn.
    """
    import torch
    from torch import nn

    from molcmim.model import CMIM, Rotary
    from molcmim.token_parts import TokenParts

    try:
        with torch.device("meta"):
            model = CMIM(architecture, tokenizer.parts())
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{where}: the architecture can't be built: {error}") from error
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        raise CheckpointError(
            f"{where}: expected the architecture's weights, got {missing[:5]} missing, {surplus[:5]} unknown"
        )
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"{where}: {name}: expected shape {shape}, got {tuple(tensor.shape)}")
        if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            raise CheckpointError(f"{where}: {name}: expected one of {DTYPES}, got {tensor.dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{where}: {name}: expected finite weights, got NaN or infinity")
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor.float()))
    for module in model.modules():
        if isinstance(module, Rotary):  # its tables aren't weights: computed anew
            positions, half = module.cos.shape
            fresh = Rotary(2 * half, positions)
            module.cos, module.sin = fresh.cos, fresh.sin
    if model.parts is not None:
        model.parts = TokenParts(tokenizer.parts(), model.parts.limit)
    return model


# ---------------------------------------------------------------------------------------------- saving


def save_pretrained(
    directory: str | os.PathLike[str],
    model: CMIM,
    tokenizer: Tokenizer,
    *,
    objective: Mapping[str, Any],
    training: Mapping[str, Any],
    scales: Mapping[str, float],
    card: str | None = None,
    policy: str = "canonical",
    name: str | None = None,
    dtype: str = "float16",
    mixture: Mixture | None = None,
) -> Path:
    """Write a checkpoint directory: complete under a temporary name beside, then renamed.

    Parameters
    ----------
    directory
        Where to. A checkpoint already there is replaced as a whole; any other non-empty directory is refused.
    model, tokenizer
        What to save.
    objective
        Fields of `ObjectiveConfig`, with `name`.
    training
        Summary of the training, JSON types only.
    scales
        ``latent`` and (with a decoder) ``informative``: factors that bring each embedding to unit mean norm.
    card
        Text of README.md; default: a short one made from the other arguments.
    policy
        How molecules were prepared in training: ``none``, ``canonical`` or ``parent``.
    name
        Default: the directory's name.
    dtype
        Of the stored weights: ``float16``, ``bfloat16`` or ``float32``.
    mixture
        Fitted to this model's codes; default: none.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    ValueError
        If the weights aren't finite in `dtype`, the tokenizer isn't the model's, or JSON can't hold a value.
    CheckpointError
        If `directory` exists and isn't a checkpoint.
    """
    target = Path(directory).resolve()
    _check_replaceable(target)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"tokenizer: expected {model.config.vocab_size} tokens (the model's), got {tokenizer.vocab_size}"
        )
    config: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "name": target.name if name is None else name,
        "architecture": model.config.to_dict(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokenizer": {"kind": tokenizer.kind, "fingerprint": tokenizer.fingerprint},
        "objective": dict(objective),
        "scales": {key: float(value) for key, value in scales.items()},
        "policy": policy,
        "training": dict(training),
    }
    check_values(config, "config")
    contents = {
        WEIGHTS: _weights_bytes(model, dtype),
        VOCAB: (json.dumps(tokenizer.to_json(), indent=1) + "\n").encode("ascii"),
        CARD: (_default_card(config) if card is None else card).encode("utf-8"),
    }
    if mixture is not None:  # another dtype of the weights means another id
        contents[MIXTURE] = _mixture_bytes(mixture, config, hashlib.sha256(contents[WEIGHTS]).hexdigest()[:12])
    config["files"] = {key: hashlib.sha256(value).hexdigest() for key, value in contents.items()}
    contents[CONFIG] = _config_bytes(config)
    write_directory(target, contents)
    return target


def update_card(name_or_dir: str | os.PathLike[str], text: str) -> Path:
    """Replace the model card of a checkpoint; the weights keep their bytes, and the model its id.

    Every file is checked against its sha256 on the way, so a damaged checkpoint is refused, not passed on.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or anything about its files is wrong.
    """
    directory = find_checkpoint(name_or_dir).resolve()
    return _replace_file(directory, read_config(directory), CARD, text.encode("utf-8"))


def save_mixture(name_or_dir: str | os.PathLike[str], mixture: Mixture) -> Path:
    """Put a mixture fitted to a model's codes into its checkpoint, or replace the one there; as `update_card`.

    Raises
    ------
    CheckpointError
        As `update_card`.
    ValueError
        If the mixture has other dimensions than the model's codes, or was fitted to another model's.
    """
    directory = find_checkpoint(name_or_dir).resolve()
    config = read_config(directory)
    fitted_to = mixture.facts.get("model_id", model_id(config))
    if fitted_to != model_id(config):
        raise ValueError(f"mixture: expected one of model {model_id(config)}, got one of {fitted_to}")
    return _replace_file(directory, config, MIXTURE, _mixture_bytes(mixture, config, model_id(config)))


def _mixture_bytes(mixture: Mixture, config: Mapping[str, Any], identity: str) -> bytes:
    latent = config["architecture"].get("latent")
    if mixture.latent != latent:
        raise ValueError(f"mixture: expected {latent} dimensions (the model's), got {mixture.latent}")
    return mixture.with_facts(model_id=identity).to_bytes()


def _replace_file(directory: Path, config: dict[str, Any], name: str, data: bytes) -> Path:
    """Write the checkpoint anew with this file added or replaced."""
    _check_replaceable(directory)
    contents = {key: read_file(directory, config, key) for key in config["files"] if key != name}
    contents[name] = data
    config["files"][name] = hashlib.sha256(data).hexdigest()
    contents[CONFIG] = _config_bytes(config)
    write_directory(directory, contents)
    return directory


def _config_bytes(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, allow_nan=False, default=_to_json) + "\n").encode("utf-8")


def _weights_bytes(model: CMIM, dtype: str) -> bytes:
    import torch
    from safetensors.torch import save

    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected {' or '.join(DTYPES)}, got {dtype!r}")
    kind = getattr(torch, dtype)
    tensors = {key: value.detach().to("cpu", kind).contiguous() for key, value in model.named_parameters()}
    for key, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{key}: expected weights that are finite in {dtype}, got NaN or infinity")
    return bytes(save(tensors, metadata={"format": "pt"}))


def _to_json(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"config: expected JSON types, got {type(value).__name__}")


def _default_card(config: Mapping[str, Any]) -> str:
    fields = ("parameters", "objective", "policy", "tokenizer", "training")
    facts = "\n".join(f"- {field}: {config[field]}" for field in fields)
    return f"# {config['name']}\n\nA molcmim checkpoint. Nobody has written a card for it yet.\n\n{facts}\n"


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise CheckpointError(f"{target}: expected a directory to write to, got a file")
    others = sorted(path.name for path in target.iterdir())
    surplus = set(others) - {CONFIG, WEIGHTS, VOCAB, CARD, MIXTURE}
    if surplus or (others and CONFIG not in others):
        raise CheckpointError(
            f"{target}: expected an empty directory or a checkpoint to replace, got {others[:5]}"
        )


def write_directory(target: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files under a temporary name beside `target`, then swap the directories."""
    target.parent.mkdir(parents=True, exist_ok=True)
    token = f"{os.getpid()}.{secrets.token_hex(4)}"
    part, old = (target.with_name(f".{target.name}.{token}.{kind}") for kind in ("part", "old"))
    try:
        part.mkdir()
        for name, data in contents.items():
            with open(part / name, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            target.rename(old)
        part.rename(target)
    except BaseException:  # Ctrl-C too must not leave the place empty
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
