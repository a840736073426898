"""Checkpoints: what is saved comes back; what is damaged, pickled or inconsistent is refused, and why."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_checkpoint, tiny_model, tiny_tokenizer

from molcmim import pretrained
from molcmim.model import encoder_input
from molcmim.pretrained import CheckpointError, load_pretrained, save_pretrained


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("template") / "tiny", card="# the card\n")


@pytest.fixture
def checkpoint(template: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(template, tmp_path / "tiny"))


def edit_config(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def rehash(directory: Path) -> None:
    """Make the table of sha256 values fit the files, as someone who edits a checkpoint on purpose would."""

    def change(config: dict[str, Any]) -> None:
        for name in config["files"]:
            config["files"][name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()

    edit_config(directory, change)


# ---------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3), ("bfloat16", 1e-2)])
def test_weights_tokenizer_and_config_come_back(tmp_path: Path, dtype: str, tolerance: float) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size)
    objective = {"name": "cmim", "tau": 0.1, "weights": {"contrastive": 2.0}}
    scales = {"latent": 0.3, "informative": 0.7}
    directory = tmp_path / "deep" / "mine"
    save_pretrained(
        directory, model, tokenizer, objective=objective, training={"steps": 3}, scales=scales, dtype=dtype
    )
    state = torch.random.get_rng_state()
    loaded = load_pretrained(directory)
    assert torch.equal(torch.random.get_rng_state(), state), "loading must not draw random numbers"
    assert loaded.tokenizer == tokenizer
    assert loaded.model.config == model.config
    assert not loaded.model.training
    got = dict(loaded.model.named_parameters())
    for name, expected in model.named_parameters():
        assert got[name].dtype == torch.float32
        assert torch.allclose(got[name], expected, atol=tolerance, rtol=tolerance), name
    assert loaded.model.encoder.embedding is loaded.model.embedding is loaded.model.decoder.embedding
    for name, buffer in model.named_buffers():
        assert torch.equal(dict(loaded.model.named_buffers())[name], buffer), name
    assert loaded.config["objective"] == objective
    assert loaded.config["scales"] == scales
    assert loaded.config["training"] == {"steps": 3}
    assert loaded.config["name"] == "mine"
    assert loaded.model_id == hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()[:12]
    assert sorted(os.listdir(directory)) == ["README.md", "config.json", "model.safetensors", "vocab.json"]
    if dtype == "float32":
        tokens = encoder_input(torch.tensor([tokenizer.encode("CCO")]))
        assert torch.equal(loaded.model.encode(tokens).mu, model.encode(tokens).mu)


def test_saving_what_was_loaded_gives_the_same_files(template: Path, tmp_path: Path) -> None:
    loaded = load_pretrained(template)
    again = tmp_path / "again"
    save_pretrained(
        again,
        loaded.model,
        loaded.tokenizer,
        objective=loaded.config["objective"],
        training=loaded.config["training"],
        scales=loaded.config["scales"],
        card="# the card\n",
        name="tiny",
    )
    for name in os.listdir(template):
        assert (again / name).read_bytes() == (template / name).read_bytes(), name


@pytest.mark.parametrize(
    "architecture", [{"encoder": "perceiver"}, {"posterior": "sampled"}, {"n_properties": 5}]
)
def test_every_architecture_comes_back(tmp_path: Path, architecture: dict[str, Any]) -> None:
    directory = tiny_checkpoint(tmp_path / "x", dtype="float32", **architecture)
    tokens = torch.tensor([[5, 6, 2]])
    expected = tiny_model(tiny_tokenizer().vocab_size, **architecture).encode(tokens).mu
    assert torch.equal(load_pretrained(directory).model.encode(tokens).mu, expected)


# ---------------------------------------------------------------------------------------------- attacks

Break = Callable[[Path], object]


class Exploit:
    """Unpickling it makes a file: the sign that code was run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_byte(directory: Path) -> None:
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def drop_in(name: str) -> Break:
    return lambda directory: (directory / name).write_bytes(pickle.dumps(Exploit(directory / "pwned")))


def pickle_as_weights(directory: Path) -> None:
    drop_in("model.safetensors")(directory)
    rehash(directory)


def torch_save_as_weights(directory: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"exploit": Exploit(directory / "pwned")}, buffer)
    (directory / "model.safetensors").write_bytes(buffer.getvalue())
    rehash(directory)


def old_pickle_as_weights(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(pickle.dumps(Exploit(directory / "pwned"), protocol=0))
    rehash(directory)


def huge_header(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}" * 50)
    rehash(directory)


def truncate_and_rehash(directory: Path) -> None:
    truncate(directory)
    rehash(directory)


def change_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Break:
    def apply(directory: Path) -> None:
        path = directory / "model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        rehash(directory)

    return apply


def spoil_one_value(tensors: dict[str, torch.Tensor]) -> None:
    tensors["unembed.weight"][3, 5] = float("nan")


def config(change: Callable[[dict[str, Any]], Any]) -> Break:
    return lambda directory: edit_config(directory, change)


def other_vocabulary(directory: Path) -> None:
    path = directory / "vocab.json"
    data = json.loads(path.read_text())
    data["vocab"][4], data["vocab"][5] = data["vocab"][5], data["vocab"][4]
    path.write_text(json.dumps(data))
    rehash(directory)


def secret_file_in_the_table(name: str) -> Break:
    def apply(directory: Path) -> None:
        (directory.parent / "secret.txt").write_text("secret")
        digest = hashlib.sha256(b"secret").hexdigest()
        edit_config(directory, lambda config: config["files"].update({name: digest}))

    return apply


def config_text(text: str) -> Break:
    return lambda directory: (directory / "config.json").write_text(text)


BREAKS: dict[str, tuple[Break, str]] = {
    "truncated weights": (
        truncate,
        r"model.safetensors: damaged or incomplete \(\d+ bytes\): expected sha256",
    ),
    "truncated weights, table edited": (truncate_and_rehash, "not a valid safetensors file"),
    "a flipped byte": (flip_a_byte, "model.safetensors: damaged or incomplete"),
    "empty weights": (
        lambda d: ((d / "model.safetensors").write_bytes(b""), rehash(d)),
        "not a whole safetensors",
    ),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no vocabulary": (lambda d: (d / "vocab.json").unlink(), "vocab.json is missing"),
    "no config": (lambda d: (d / "config.json").unlink(), "it has no config.json"),
    "no card": (lambda d: (d / "README.md").unlink(), "README.md is missing"),
    "edited card": (lambda d: (d / "README.md").write_text("better"), "README.md: damaged or incomplete"),
    "newer format": (
        config(lambda c: c.update(format_version=2)),
        "format_version: expected at most 1, got 2; upgrade",
    ),
    "format as text": (
        config(lambda c: c.update(format_version="1")),
        "format_version: expected a whole number",
    ),
    "format 0": (
        config(lambda c: c.update(format_version=0)),
        "format_version: expected a whole number from 1",
    ),
    "format true": (
        config(lambda c: c.update(format_version=True)),
        "format_version: expected a whole number",
    ),
    "no format": (config(lambda c: c.pop("format_version")), "format_version: expected a whole number"),
    "no architecture": (config(lambda c: c.pop("architecture")), "architecture: expected dict, got nothing"),
    "scales as list": (config(lambda c: c.update(scales=[1])), "scales: expected dict, got list"),
    "config is a list": (config_text("[]"), "expected a JSON object, got list"),
    "config isn't JSON": (config_text("{"), "config.json: not JSON"),
    "config is nested deeply": (config_text("[" * 100_000), "config.json: not JSON"),
    "a pickle .pt beside": (drop_in("extra.pt"), "extra.pt: .* pickled file"),
    "a pickle .bin beside": (drop_in("pytorch_model.bin"), "pytorch_model.bin: .* pickled file"),
    "a pickle .pkl beside": (drop_in("X.PKL"), "X.PKL: .* pickled file"),
    "a pickle as weights": (pickle_as_weights, "model.safetensors: .* pickled file"),
    "torch.save as weights": (torch_save_as_weights, "model.safetensors: .* pickled file"),
    "a text pickle as weights": (old_pickle_as_weights, "not a whole safetensors file"),
    "header of 4 EiB": (huge_header, "expected a header of 4611686018427387904 bytes"),
    "a NaN among the weights": (change_weights(spoil_one_value), "unembed.weight: expected finite weights"),
    "a tensor too few": (change_weights(lambda t: t.pop("unembed.weight")), "'unembed.weight'. missing"),
    "a tensor too many": (change_weights(lambda t: t.update(x=torch.ones(2))), r"\['x'\] unknown"),
    "integer weights": (
        change_weights(lambda t: t.update({"encoder.norm.weight": torch.ones(32, dtype=torch.int32)})),
        "encoder.norm.weight: expected one of .* got torch.int32",
    ),
    "wrong width": (
        config(lambda c: c["architecture"].update(width=64)),
        r"expected shape \(\d+, 64\), got \(\d+, 32\)",
    ),
    "another head count": (
        config(lambda c: c["architecture"].update(heads=5)),
        "expected an even whole number",
    ),
    "too many layers": (
        config(lambda c: c["architecture"].update(encoder_layers=10**6)),
        "expected at most 512",
    ),
    "a huge position table": (
        config(lambda c: c["architecture"].update(max_tokens=10**12)),
        "max_tokens: expected at",
    ),
    "huge widths": (config(lambda c: c["architecture"].update(width=2**20, heads=1)), "expected shape"),
    "width as text": (config(lambda c: c["architecture"].update(width="32")), "architecture"),
    "width as float": (config(lambda c: c["architecture"].update(width=32.0)), "architecture"),
    "width negative": (config(lambda c: c["architecture"].update(width=-32)), "width: expected at least 1"),
    "width null": (
        config(lambda c: c["architecture"].update(width=None)),
        "width: expected a number or text",
    ),
    "unknown architecture field": (
        config(lambda c: c["architecture"].update(colour="red")),
        "unknown fields",
    ),
    "vocab_size edited": (
        config(lambda c: c["architecture"].update(vocab_size=99)),
        "vocab_size: expected 99",
    ),
    "other vocabulary": (other_vocabulary, "vocab.json: fingerprint: expected"),
    "other tokenizer kind": (config(lambda c: c["tokenizer"].update(kind="bpe")), "kind: expected 'bpe'"),
    "scale of 0": (config(lambda c: c["scales"].update(latent=0)), "scales: expected positive"),
    "scale of NaN": (config(lambda c: c["scales"].update(latent=float("nan"))), "scales: expected positive"),
    "scale as text": (config(lambda c: c["scales"].update(latent="1")), "scales: expected positive"),
    "no objective name": (config(lambda c: c["objective"].pop("name")), "objective: expected a 'name'"),
    "unknown policy": (
        config(lambda c: c.update(policy="magic")),
        "policy: expected none, canonical or parent",
    ),
    "no weights in the table": (config(lambda c: c["files"].pop("model.safetensors")), "not in the table"),
    "no hash": (config(lambda c: c["files"].update({"vocab.json": ""})), "vocab.json: expected a sha256"),
    "path out of the directory": (secret_file_in_the_table("../secret.txt"), "expected plain file names"),
    "absolute path": (secret_file_in_the_table("/etc/passwd"), "expected plain file names"),
    "path with a backslash": (secret_file_in_the_table("..\\secret.txt"), "expected plain file names"),
    "the parent": (secret_file_in_the_table(".."), "expected plain file names"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_refused_with_a_reason(checkpoint: Path, case: str) -> None:
    breaking, message = BREAKS[case]
    breaking(checkpoint)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(checkpoint)
    assert not (checkpoint / "pwned").exists(), "code in a pickle was run"


def test_the_unbroken_copy_loads(checkpoint: Path) -> None:
    rehash(checkpoint)
    assert load_pretrained(checkpoint).config["name"] == "tiny"


# ---------------------------------------------------------------------------------------------- names


def test_names_and_directories(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from molcmim import checkpoint_files

    with pytest.raises(CheckpointError, match=r"no checkpoint 'molcmim-huge': .*shipped model"):
        load_pretrained("molcmim-huge")
    with pytest.raises(CheckpointError, match="expected the directory of a checkpoint, got a file"):
        load_pretrained(checkpoint / "config.json")
    with pytest.raises(CheckpointError, match=r"it has no config.json"):
        load_pretrained(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pickled file"):
        load_pretrained(tmp_path / "weights.pt")
    monkeypatch.setattr(checkpoint_files, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(checkpoint_files, "DEFAULT", "tiny")
    assert pretrained.available() == ["tiny"]
    assert load_pretrained().directory == load_pretrained("tiny").directory == checkpoint
    with pytest.raises(CheckpointError, match=r"those are: tiny"):
        load_pretrained("molcmim-huge")


# ---------------------------------------------------------------------------------------------- saving


def save_tiny(directory: Path, **changes: Any) -> Path:
    tokenizer = tiny_tokenizer()
    options: dict[str, Any] = {
        "model": tiny_model(tokenizer.vocab_size),
        "tokenizer": tokenizer,
        "objective": {"name": "cmim"},
        "training": {},
        "scales": {"latent": 1.0, "informative": 1.0},
    }
    return save_pretrained(directory, **{**options, **changes})


def test_saving_replaces_a_checkpoint_as_a_whole(checkpoint: Path) -> None:
    before = load_pretrained(checkpoint).model_id
    save_tiny(checkpoint, model=tiny_model(tiny_tokenizer().vocab_size, seed=1), card="# new\n")
    loaded = load_pretrained(checkpoint)
    assert loaded.model_id != before
    assert (checkpoint / "README.md").read_text() == "# new\n"
    assert os.listdir(checkpoint.parent) == ["tiny"], "no temporary directories are left"


def test_a_failed_save_leaves_the_old_checkpoint(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_pretrained(checkpoint).model_id

    def fail(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        save_tiny(checkpoint)
    assert os.listdir(checkpoint.parent) == ["tiny"]
    assert load_pretrained(checkpoint).model_id == before


def test_interrupted_between_the_renames_the_old_one_comes_back(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = load_pretrained(checkpoint).model_id, Path.rename

    def fail_for_part(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_part)
    with pytest.raises(KeyboardInterrupt):
        save_tiny(checkpoint)
    assert os.listdir(checkpoint.parent) == ["tiny"]
    assert load_pretrained(checkpoint).model_id == before


def test_other_directories_are_not_replaced(tmp_path: Path, checkpoint: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("ten years")
    with pytest.raises(CheckpointError, match=r"thesis\.tex"):
        save_tiny(home)
    (checkpoint / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="expected an empty directory or a checkpoint"):
        save_tiny(checkpoint)
    with pytest.raises(CheckpointError, match="got a file"):
        save_tiny(home / "thesis.tex")
    assert (home / "thesis.tex").read_text() == "ten years"
    assert (checkpoint / "notes.txt").read_text() == "mine"


def test_unsavable_models_are_refused(tmp_path: Path) -> None:
    large = tiny_model(tiny_tokenizer().vocab_size)
    with torch.no_grad():
        large.unembed.weight[0, 0] = 1e5  # float16 ends at 65504
    with pytest.raises(ValueError, match=r"unembed.weight: expected weights that are finite in float16"):
        save_tiny(tmp_path / "x", model=large)
    assert save_tiny(tmp_path / "y", model=large, dtype="float32").is_dir()
    with pytest.raises(ValueError, match="tokenizer: expected 7 tokens"):
        save_tiny(tmp_path / "x", model=tiny_model(7))
    with pytest.raises(ValueError, match="dtype: expected float16"):
        save_tiny(tmp_path / "x", dtype="int8")
    with pytest.raises(ValueError, match="scales: expected positive"):
        save_tiny(tmp_path / "x", scales={"latent": -1.0})
    with pytest.raises(ValueError, match="Out of range float"):
        save_tiny(tmp_path / "x", training={"loss": float("nan")})
    assert not (tmp_path / "x").exists()
