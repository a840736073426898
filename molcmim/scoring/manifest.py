"""The work plan of a sharded run: manifest.json, written before any shard and never changed.

It says what decides the bytes of the shards (the model, the settings, the versions, the content of the input)
and how the rows are cut into shards. A second run into the same folder must agree with it.

    format_version   1
    settings         model, kind, policy, dtype, exact, batch_size, versions, ... (see `settings_of`)
    extra            the pass-through columns: name and Arrow type
    input            per file: name, size, sha256, n_rows; and how columns were chosen
    shard_rows, n_rows
    shards           ranges of rows: first, n, file, row, offset
    fingerprint      sha256 of all that decides the bytes of a shard; it stands in the footer of each
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from molcmim.beside import part_path
from molcmim.scoring.durable import write_durably
from molcmim.scoring.source import FileFacts, Progress, RowRange, Source

if TYPE_CHECKING:
    from molcmim.api import MolCMIM

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SHARD_ROWS = 1_000_000  #: rows of a shard, unless told otherwise
DIGITS = 5  #: in a shard's file name, at least
HASH_BYTES = 1 << 20


class ManifestError(ValueError):
    """A run and the manifest of the folder that it is to write to don't agree; the message says in what."""


class JobOptions(NamedTuple):
    """What the user chose about the vectors."""

    kind: str = "both"
    policy: str = "canonical"
    dtype: str = "float32"  #: of the vectors in the files: float32, float16 or int8
    exact: bool = False
    batch_size: int = 256


@dataclass(frozen=True)
class Manifest:
    """Content of manifest.json."""

    settings: dict[str, Any]
    extra: list[tuple[str, str]]
    files: list[FileFacts]
    columns: dict[str, str | None]
    shard_rows: int
    n_rows: int
    shards: list[RowRange]

    @property
    def fingerprint(self) -> str:
        """Sha256 (hex) of what decides the bytes of a shard, but for its number."""
        contents = [(file.size, file.sha256, file.n_rows) for file in self.files]  # a file may be moved
        deciding = [FORMAT_VERSION, self.settings, self.extra, contents, self.columns, self.shard_rows]
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    @property
    def options(self) -> JobOptions:
        """What the user chose about the vectors."""
        return JobOptions(**{name: self.settings[name] for name in JobOptions._fields})

    def shard_name(self, number: int) -> str:
        """File name of a shard: ``part-00042.parquet``."""
        digits = max(DIGITS, len(str(len(self.shards) - 1)))
        return f"part-{number:0{digits}d}.parquet"

    def check_model(self, model: MolCMIM) -> None:
        """ManifestError unless shards that this model makes here are those of this manifest."""
        compare_settings(self.settings, settings_of(model, self.options))

    def to_bytes(self) -> bytes:
        """The JSON text of the file."""
        values = {
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "extra": self.extra,
            "input": [file._asdict() for file in self.files],
            "columns": self.columns,
            "shard_rows": self.shard_rows,
            "n_rows": self.n_rows,
        }
        head = json.dumps(values, indent=1)[:-2]
        shards = ",\n".join("  " + json.dumps(list(shard)) for shard in self.shards)
        return f'{head},\n "shards": [\n{shards}\n ]\n}}\n'.encode()


def settings_of(model: MolCMIM, options: JobOptions, device: str | None = None) -> dict[str, Any]:
    """What decides a row's vector: the model, the options, the versions of the software.

    `device` is the kind of device (``"cpu"``, ``"cuda"``) that will do the work, if it isn't the one `model` is on.
    """
    from molcmim.cli_run import facts_of
    from molcmim.embed import check_kind, embedding_width

    check_kind(options.kind, model.objective)
    files = model.config["files"]
    parts = {name: model.config[name] for name in ("architecture", "tokenizer", "objective", "scales", "policy")}
    parts["vocabulary"] = files.get("vocab.json")
    facts: dict[str, Any] = dict(facts_of(model, options.kind, options.policy, options.exact, options.dtype))
    if device is not None:
        facts["device"] = device
    return {
        **facts,
        "exact": options.exact,
        "batch_size": None if options.exact else options.batch_size,  # exact mode has its own
        "weights_sha256": files.get("model.safetensors"),
        "config_sha256": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(),
        "width": embedding_width(model.network, options.kind, model.objective),
    }


def make_manifest(
    model: MolCMIM,
    source: Source,
    options: JobOptions = JobOptions(),
    shard_rows: int = SHARD_ROWS,
    columns: Mapping[str, str | None] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> Manifest:
    """Plan a run: one pass over the input.

    Parameters
    ----------
    columns
        How the input was opened (``smiles_column``, ``id_column``, ``format``, ``header``), to be compared by
        later runs.
    progress
        See `Source.scan`.
    device
        See `settings_of`.

    Raises
    ------
    ValueError, OSError
        If an option is not one of those there are, or the input can't be read twice or is damaged.
    """
    settings = settings_of(model, options, device)
    check_seekable(source)
    scan = source.scan(shard_rows, progress)
    shards = list(scan.ranges) or [RowRange(0, 0, 0, 0, None)]  # no rows: one shard that says so
    return Manifest(settings, extra_of(source), list(scan.files), dict(columns or {}), shard_rows, scan.n_rows, shards)


def check_seekable(source: Source) -> None:
    """ValueError for standard input, which can't be planned or read again."""
    if not source.seekable:
        raise ValueError(
            "input: expected files when the output is a folder of shards, got standard input or a pipe, which can't "
            "be read twice; write it to a file first, or give an output named *.parquet or *.npy"
        )


def extra_of(source: Source) -> list[tuple[str, str]]:
    """Pass-through columns and their types, as text."""
    return [(name, str(kind)) for name, kind in source.extra]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of shards.

    Raises
    ------
    ManifestError
        If there is none, it is damaged, or its format is newer.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ManifestError(f"{folder}: expected a folder of shards, but it has no {MANIFEST}") from None
    except ValueError as error:
        raise ManifestError(f"{path}: damaged: {error}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise ManifestError(f"{path}: format_version: expected {FORMAT_VERSION}, got {version!r}")
    try:
        manifest = Manifest(
            values["settings"],
            [(name, kind) for name, kind in values["extra"]],
            [FileFacts(**file) for file in values["input"]],
            values["columns"],
            values["shard_rows"],
            values["n_rows"],
            [RowRange(*shard) for shard in values["shards"]],
        )
        fingerprint = manifest.fingerprint
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{path}: damaged: {type(error).__name__}: {error}") from error
    if fingerprint != values["fingerprint"]:
        raise ManifestError(
            f"{path}: fingerprint: expected {fingerprint} (of its content), got {values['fingerprint']}"
        )
    return manifest


def open_job(
    folder: Path,
    model: MolCMIM,
    source: Source,
    options: JobOptions = JobOptions(),
    shard_rows: int | None = None,
    columns: Mapping[str, str | None] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
) -> Manifest:
    """The folder's manifest if it agrees with this run, or a new one, written.

    A manifest that is there already saves the pass over the rows: the files are only hashed.

    Parameters
    ----------
    folder
        Made if it isn't there; its parent must be.
    shard_rows
        Default: what the manifest says, or `SHARD_ROWS`.
    device
        See `settings_of`.

    Raises
    ------
    ManifestError
        If they don't agree, or the folder holds something else; nothing is touched then.
    ValueError, OSError
        As `make_manifest`; or the folder can't be written to.
    """
    columns = dict(columns or {})
    check_folder(folder)
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        compare_job(manifest, settings_of(model, options, device), source, shard_rows, columns, progress)
        return manifest
    check_seekable(source)
    settings_of(model, options)  # before the folder is made
    folder.mkdir(exist_ok=True)
    probe_writable(folder)
    manifest = make_manifest(
        model, source, options, SHARD_ROWS if shard_rows is None else shard_rows, columns, progress, device
    )
    if (folder / MANIFEST).exists():  # another rank was quicker
        compare_manifests(read_manifest(folder), manifest)
    else:
        write_durably(folder / MANIFEST, manifest.to_bytes())
    return manifest


def check_folder(folder: Path) -> None:
    """ManifestError or OSError unless `folder` is a folder of shards, empty, or can be made."""
    if not folder.exists():
        if not folder.parent.is_dir():
            raise FileNotFoundError(f"output: no such directory: {folder.parent}")
        return
    if not folder.is_dir():
        raise NotADirectoryError(f"output: expected a folder, got the file {folder}")
    if (folder / MANIFEST).exists():
        return
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if others:
        raise ManifestError(
            f"{folder}: expected an empty folder, or one with a {MANIFEST}, got {', '.join(others[:5])}"
        )


def probe_writable(folder: Path) -> None:
    """OSError now, and not after the pass over the input, if files can't be made in the folder."""
    probe = part_path(folder / MANIFEST)  # a name that is cleared away should this process be killed here
    probe.touch()
    probe.unlink()


def compare_job(
    manifest: Manifest,
    settings: Mapping[str, Any],
    source: Source,
    shard_rows: int | None,
    columns: Mapping[str, str | None],
    progress: Progress | None = None,
) -> None:
    """ManifestError that names the first thing in which this run and the manifest differ."""
    compare_settings(manifest.settings, settings)
    if shard_rows is not None:
        _compare("shard_rows", manifest.shard_rows, shard_rows)
    for name in sorted(manifest.columns.keys() | columns.keys()):
        _compare(name, manifest.columns.get(name), columns.get(name))
    check_seekable(source)
    _compare("number of input files", len(manifest.files), len(source.paths))
    sizes = [path.stat().st_size for path in source.paths]
    for file, path, size in zip(manifest.files, source.paths, sizes, strict=True):
        _compare(f"size of input file {path}", file.size, size)
    _compare("pass-through columns", [list(column) for column in manifest.extra], [list(c) for c in extra_of(source)])
    done = 0
    for file, path in zip(manifest.files, source.paths, strict=True):
        digest = hashlib.sha256()
        with path.open("rb") as opened:
            while data := opened.read(HASH_BYTES):
                digest.update(data)
                done += len(data)
                if progress is not None:
                    progress(done, 0)
        _compare(f"sha256 of input file {path}", file.sha256, digest.hexdigest())


def compare_settings(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """ManifestError that names the first setting that differs."""
    for name in [*wanted, *(name for name in got if name not in wanted)]:
        _compare(name, wanted.get(name), got.get(name))


def compare_manifests(wanted: Manifest, got: Manifest) -> None:
    """ManifestError that says in what two plans differ."""
    compare_settings(wanted.settings, got.settings)
    _compare("shard_rows", wanted.shard_rows, got.shard_rows)
    _compare("input", [file[1:] for file in wanted.files], [file[1:] for file in got.files])
    _compare("fingerprint", wanted.fingerprint, got.fingerprint)


def _compare(name: str, wanted: object, got: object) -> None:
    if wanted != got:
        raise ManifestError(
            f"{name}: the {MANIFEST} of the output folder says {wanted!r}, but this run has {got!r}; "
            "give the same again, or another output folder"
        )
