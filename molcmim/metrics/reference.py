"""MOSES' data: its files in the `molsets` wheel, and its test sets summarised.

The wheel (MIT licence) holds the train, test and scaffold-test sets as text, the structural filters, and statistics of
the two test sets. The published statistics are used, so that values compare with published tables; how they are read
is in `molcmim.metrics.published`. Fragments and scaffolds, which are counted by SMILES, are written again by the RDKit
in use. Where the statistics are missing (a folder with the text only) or are other ones, they are computed from the
text, which takes a quarter of an hour on two cores. Either way the result is kept in a cache directory:

    {RDKit version}/{test,test_scaffolds}/   reference.npz (plain arrays), counts.json, about.json
    {RDKit version}/train.npy, train.json    hashes of the training set, see `molcmim.metrics.known`
"""

# Axes: n molecules of a set, D = 512 activations of ChemNet, P properties.

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.util
import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.chem import prepare_many
from molcmim.corpus import new_directory
from molcmim.metrics import published
from molcmim.metrics.chemistry import FINGERPRINT_BITS, PROPERTIES, compile_filters, describe
from molcmim.metrics.fcd import WIDTH, ChemNet, Gaussian
from molcmim.metrics.known import KnownSet

VERSION = 1  #: of the definitions behind a kept summary
SPLITS = ("train", "test", "test_scaffolds")
DATA_VARIABLE = "MOLCMIM_DATA"
HOW_TO_GET = (
    "fetch it with `pip download molsets==0.3.1 --no-deps` and name the wheel (--moses), or put it into the folder "
    f"`moses` of the directory that {DATA_VARIABLE} names"
)
# in the package; or all in one flat folder
_FOLDERS = {"csv.gz": ("dataset/data/", ""), "npz": ("dataset/data/", ""), "csv": ("metrics/", "")}


class Reference(NamedTuple):
    """What the MOSES measures need of a set of n molecules."""

    gaussian: Gaussian  #: of ChemNet's activations
    fragments: Mapping[str, int]  #: BRICS fragment: how often
    scaffolds: Mapping[str, int]  #: Murcko scaffold: how many molecules
    fingerprints: npt.NDArray[np.uint8]  #: (n, 128), packed bits
    properties: npt.NDArray[np.float64]  #: (n, P), see `molcmim.metrics.chemistry.PROPERTIES`


class Moses(NamedTuple):
    """All of it."""

    test: Reference
    test_scaffolds: Reference  #: molecules with scaffolds that are in neither train nor test
    train: KnownSet
    filters: tuple[str, ...]  #: SMARTS, 22 MCF and 480 PAINS


class MosesFiles:
    """The files of `molsets`, in a wheel or a folder.

    Parameters
    ----------
    path
        The wheel, a folder with the wheel, a folder that holds the package `moses`, the package's own folder, or a
        flat folder with train.csv.gz, test.csv.gz, test_scaffolds.csv.gz, mcf.csv and wehi_pains.csv. None: the folder
        `moses` of the directory that MOLCMIM_DATA names, else an installed `molsets`.

    Raises
    ------
    FileNotFoundError
        If there is no such thing; says how to get it.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        places = [Path(path)] if path is not None else _usual_places()
        for place in places:
            for root in (place, *sorted(place.glob("molsets-*.whl")), place / "moses"):
                self._root = root
                if root.exists() and all(self._find(name) for name in _names()):
                    return
        where = f"no MOSES data in {path}" if path is not None else "no MOSES data found"
        raise FileNotFoundError(f"{where}: expected the molsets 0.3.1 wheel or its files; {HOW_TO_GET}")

    def smiles(self, split: str) -> list[str]:
        """SMILES of `train`, `test` or `test_scaffolds`, as written in the file."""
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
        name = f"{split}.csv.gz"
        try:
            rows = list(csv.reader(io.StringIO(gzip.decompress(self.read(name)).decode("ascii"))))
            column = rows[0].index("SMILES")
            return [row[column] for row in rows[1:]]
        except (ValueError, IndexError, OSError, EOFError) as error:
            raise ValueError(f"{name} of {self._root}: expected a table with a column SMILES: {error}") from error

    def filters(self) -> tuple[str, ...]:
        """SMARTS of the structural filters: first MCF, then PAINS."""
        mcf = [row["smarts"] for row in csv.DictReader(io.StringIO(self.read("mcf.csv").decode("ascii")))]
        pains = [row[0] for row in csv.reader(io.StringIO(self.read("wehi_pains.csv").decode("ascii"))) if row]
        compile_filters([*mcf, *pains])  # says which one is no SMARTS
        return (*mcf, *pains)

    def statistics(self, split: str) -> dict[str, dict[str, Any]] | None:
        """The published statistics of a test set; None if they aren't there or aren't those of molsets 0.3.1."""
        name = f"{split}_stats.npz"
        data = self.read(name) if self._find(name) else b""
        return published.read_statistics(data, split) if published.is_known(data, split) else None

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError if it isn't there."""
        place = self._find(name)
        if not place:
            raise FileNotFoundError(f"{self._root}: {name} is missing; {HOW_TO_GET}")
        if self._root.is_dir():
            return Path(place).read_bytes()
        with zipfile.ZipFile(self._root) as wheel:
            return wheel.read(place)

    def _find(self, name: str) -> str:
        """Path of a file, or name of the wheel's member; empty if it isn't there."""
        folders = _FOLDERS[name.partition(".")[2]]
        if self._root.is_dir():
            return next((str(p) for f in folders if (p := self._root / f / name).is_file()), "")
        if not zipfile.is_zipfile(self._root):
            return ""
        with zipfile.ZipFile(self._root) as wheel:
            members = set(wheel.namelist())
        return next((member for f in folders if (member := f"moses/{f}{name}") in members), "")


def load_moses(
    path: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "cpu",
    workers: int | None = None,
    progress: bool = False,
) -> Moses:
    """The MOSES references, from the cache or made and put there.

    Parameters
    ----------
    path
        See `MosesFiles`.
    cache
        Directory; None: `default_cache`.
    device
        For ChemNet, where a set has to be computed.
    workers
        Processes; None: one per CPU.
    progress
        Show bars on stderr while something is made.

    Raises
    ------
    FileNotFoundError, ValueError
        If the data aren't there or aren't what they should be.
    ImportError
        If `fcd_torch` isn't installed and a set has to be computed.
    """
    from rdkit import rdBase

    files = MosesFiles(path)
    folder = (Path(cache) if cache is not None else default_cache()) / rdBase.rdkitVersion
    sets = []
    for split in ("test", "test_scaffolds"):
        identity = {"version": VERSION, "sha256": hashlib.sha256(files.read(f"{split}.csv.gz")).hexdigest()}
        reference = read_reference(folder / split, identity)
        if reference is None:
            statistics = files.statistics(split)
            if statistics is not None:
                reference = from_published(statistics, workers)
            else:
                reference = make_reference(files.smiles(split), device, workers, f"MOSES {split}" if progress else None)
            write_reference(folder / split, reference, identity)
        sets.append(reference)
    return Moses(sets[0], sets[1], _train_set(files, folder / "train.npy", workers), files.filters())


def from_published(statistics: Mapping[str, Mapping[str, Any]], workers: int | None = None) -> Reference:
    """A summary out of the published statistics (see `molcmim.metrics.published.read_statistics`).

    Their fingerprints and properties are bit for bit those of RDKit 2026 (checked on 1,000 molecules of each set); of
    93,000 SMILES of fragments and scaffolds 11 are written another way by now.
    """
    fingerprints = np.packbits(statistics["SNN"]["fps"], axis=1)
    mean, covariance = (np.asarray(statistics["FCD"][key], dtype=np.float64) for key in ("mu", "sigma"))
    return Reference(
        Gaussian(mean, covariance, len(fingerprints)),
        _written_again(statistics["Frag"]["frag"], workers),
        _written_again(statistics["Scaf"]["scaf"], workers),
        fingerprints,
        np.stack([statistics[name]["values"] for name in PROPERTIES], axis=1),
    )


def make_reference(
    smiles: list[str], device: str = "cpu", workers: int | None = None, title: str | None = None
) -> Reference:
    """Summarise a set of n molecules.

    Parameters
    ----------
    smiles
        At least 2 molecules; rows that are none are an error here.
    device, workers
        See `load_moses`.
    title
        Of the progress bars; None: no bars.

    Raises
    ------
    ValueError
        If a row is no molecule.
    """
    network = ChemNet(device)  # first, so that a missing package is known at once
    canonical = []
    for row, (text, status) in enumerate(prepare_many(smiles, workers=workers)):
        if text is None:
            raise ValueError(f"smiles, row {row}: expected a molecule, got {smiles[row][:80]!r} ({status})")
        canonical.append(text)
    with _bar(title, "chemistry", len(canonical)) as step:
        found = describe(canonical, workers=workers, progress=step)
    with _bar(title, "ChemNet", len(canonical)) as step:
        gaussian = network.gaussian(canonical, step)
    return Reference(gaussian, found.fragments, found.scaffolds, found.fingerprints, found.properties)


def write_reference(folder: Path, reference: Reference, identity: Mapping[str, Any]) -> None:
    """Keep a summary; the directory appears complete or not at all."""
    with new_directory(folder, overwrite=True) as place:
        np.savez_compressed(
            place / "reference.npz",
            mean=reference.gaussian.mean,
            covariance=reference.gaussian.covariance,
            fingerprints=reference.fingerprints,
            properties=reference.properties,
        )
        counts = {"fragments": dict(reference.fragments), "scaffolds": dict(reference.scaffolds)}
        (place / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
        about = {**identity, "n": reference.gaussian.n, "properties": PROPERTIES}
        (place / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_reference(folder: Path, identity: Mapping[str, Any]) -> Reference | None:
    """A kept summary; None if there is none, or it is of other data or an older version.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    if not (folder / "about.json").is_file():
        return None
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        if any(about.get(key) != value for key, value in identity.items()):
            return None
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        with np.load(folder / "reference.npz", allow_pickle=False) as arrays:
            gaussian = Gaussian(arrays["mean"], arrays["covariance"], int(about["n"]))
            fingerprints, properties = arrays["fingerprints"], arrays["properties"]
        shapes = (gaussian.covariance.shape, fingerprints.shape, properties.shape)
        expected = ((WIDTH, WIDTH), (gaussian.n, FINGERPRINT_BITS // 8), (gaussian.n, len(PROPERTIES)))
        if shapes != expected:
            raise ValueError(f"expected arrays of shape {expected}, got {shapes}")
        return Reference(gaussian, counts["fragments"], counts["scaffolds"], fingerprints, properties)
    except (ValueError, KeyError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder}: expected a summary of a MOSES set (delete it to make it anew): {error}") from error


def default_cache() -> Path:
    """`moses/cache` of the directory that MOLCMIM_DATA names, else the user's cache directory."""
    if os.environ.get(DATA_VARIABLE):
        return Path(os.environ[DATA_VARIABLE]) / "moses" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "molcmim" / "moses"


def _written_again(counts: Mapping[str, int], workers: int | None) -> Counter[str]:
    """The same counts by canonical SMILES of the RDKit in use."""
    result: Counter[str] = Counter()
    rows = prepare_many(list(counts), workers=workers)
    for (smiles, count), (text, _) in zip(counts.items(), rows, strict=True):
        result[smiles if text is None else text] += count
    return result


def _train_set(files: MosesFiles, path: Path, workers: int | None) -> KnownSet:
    sha256 = hashlib.sha256(files.read("train.csv.gz")).hexdigest()
    if path.is_file():
        known = KnownSet.open(path)
        if known.about.get("sha256") == sha256:
            return known
    known = KnownSet.build(files.smiles("train"), False, {"source": "MOSES train", "sha256": sha256}, workers)
    known.save(path)
    return known


def _names() -> Iterator[str]:
    yield from (f"{split}.csv.gz" for split in SPLITS)
    yield from ("mcf.csv", "wehi_pains.csv")


def _usual_places() -> list[Path]:
    places = []
    if os.environ.get(DATA_VARIABLE):
        places.append(Path(os.environ[DATA_VARIABLE]) / "moses")
    spec = importlib.util.find_spec("moses")  # finds the package without importing it
    places += [Path(place) for place in (spec.submodule_search_locations or [])] if spec is not None else []
    return places


@contextmanager
def _bar(title: str | None, what: str, total: int) -> Iterator[Any]:
    """A function to be called with the number of molecules just done."""
    from tqdm import tqdm

    with tqdm(total=total, desc=f"{title}: {what}", unit="mol", unit_scale=True, disable=title is None) as bar:
        yield bar.update
