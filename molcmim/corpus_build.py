"""SMILES files to a corpus directory (see `molcmim.corpus` for what is in it).

    build_corpus([Source("molsets", 0.3, "moses"), Source("chembl.smi.gz", 1.0, "chembl")], "corpus")

Two passes. The first reads and prepares every row, drops repeats (the first source that has a molecule keeps
it) and spools the SMILES that remain; the second encodes them. What is held in memory per molecule is 18
bytes: a 64-bit hash for the repeats and the split, its source, and a few flags.
"""
# n rows, P properties

from __future__ import annotations

import platform
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from .corpus import SPLITS, CorpusInfo, PropertyInfo, SourceInfo, new_directory
from .corpus_files import SplitWriter, Spool, chunked
from .corpus_input import read_smiles
from .corpus_worker import Answer, Encoded, as_lines, run_job
from .tokenizer import KINDS, SmilesTokenizer, Tokenizer

VALID_FRACTION = 0.005


class Source(NamedTuple):
    """One input of a corpus.

    Attributes
    ----------
    path : Path or str
        A file that `read_smiles` knows, or ``molsets``.
    weight : float
        Expected passes per epoch.
    name : str
        Shown in `corpus.json`; empty = the file's name.
    column : str, optional
        SMILES column of a .csv or .tsv file.
    policy : str, optional
        Instead of the corpus's policy, for this source: ``none`` where the SMILES are known to be canonical
        already.
    mark : bool
        Use this source only to set the weight of molecules that a later source has: its other molecules are
        left out (`CorpusInfo.unmatched`). For example, listing ``molsets`` first with ``mark=True`` gives the
        MOSES part of a mixed file its own weight, without adding molecules that the file left out on purpose.
    """

    path: Path | str
    weight: float = 1.0
    name: str = ""
    column: str | None = None
    policy: str | None = None
    mark: bool = False


def build_corpus(
    inputs: Sequence[Source],
    out: str | Path,
    tokenizer: Tokenizer | str = "smiles",
    *,
    max_tokens: int = 200,
    policy: str = "canonical",
    workers: int = 2,
    valid_fraction: float = VALID_FRACTION,
    random_smiles: int = 0,
    properties: str | None = None,
    min_count: int = 5,
    max_vocab: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> CorpusInfo:
    """Build a corpus directory from SMILES files.

    Rows that can't be used are counted by status in ``corpus.json``; repeats (equal SMILES after preparation)
    are left out and counted, and the first source that has a molecule keeps it. So a molecule's weight is set
    by listing a file that contains it first (see ``Source.mark``). Which split a molecule falls in depends on
    its SMILES alone. Rows keep the order of the inputs.

    Parameters
    ----------
    inputs : sequence of Source
        At most 255.
    out : path
        The directory to make. It is built beside its final place and renamed when complete.
    tokenizer : Tokenizer or str
        A tokenizer, or the kind of one to train on this corpus: ``smiles``, ``selfies`` or ``bpe``.
    max_tokens : int
        Longer rows are ``too_many_tokens``. Special tokens don't count.
    policy : str
        How to prepare the SMILES: ``none``, ``canonical`` or ``parent`` (see `molcmim.chem`).
    workers : int
        Processes.
    valid_fraction : float
        Share of molecules for validation.
    random_smiles : int
        1 = also store one random SMILES of each molecule. Where that doesn't fit the tokenizer or
        `max_tokens`, the row itself is stored again.
    properties : str, optional
        Also store standardised RDKit descriptors: ``basic`` (36), ``wide`` (114) or
        ``morgan`` (those and 256 folded Morgan counts; `molcmim.corpus_chem`).
    min_count, max_vocab : int
        For a tokenizer trained here: rarer tokens are left out; largest vocabulary, special tokens included
        (``smiles`` only; 256 lets a token fit into one byte).
    seed : int
        For the random SMILES.
    overwrite : bool
        Replace `out` if it exists.
    progress : bool
        Show progress bars.

    Returns
    -------
    CorpusInfo

    Raises
    ------
    FileExistsError
        If `out` exists, without `overwrite`.
    ValueError
        For arguments out of range, inputs that can't be read, or if no row is left.
    """
    _check_arguments(inputs, max_tokens, valid_fraction, random_smiles, tokenizer, properties)
    # corpus.json is written last: no reader takes a directory without it for a corpus
    with new_directory(out, overwrite) as directory:
        spool = Spool(directory / "spool.smi")
        for number, source in enumerate(inputs):
            _read(spool, number, source, source.policy or policy, workers, progress)
        spool.finish([source.mark for source in inputs])
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = _train(tokenizer, spool, min_count, max_vocab, workers, progress)
        tokenizer.save(directory / "vocab.json")
        settings = {
            "job": "encode",
            "vocabulary": tokenizer.to_json(),
            "max_tokens": max_tokens,
            "random_smiles": bool(random_smiles),
            "properties": properties,
            "seed": seed,
        }
        is_valid = spool.hashes < np.uint64(int(valid_fraction * 2.0**64))
        writers, kept = _encode(
            spool, directory, settings, tokenizer.vocab_size, len(inputs), is_valid, workers, progress
        )
        spool.path.unlink()
        info = CorpusInfo(
            tokenizer_kind=tokenizer.kind,
            fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            n_train=writers[0].n,
            n_valid=writers[1].n,
            max_tokens=max_tokens,
            policy=policy,
            valid_fraction=valid_fraction,
            sources=tuple(
                SourceInfo(source.name or Path(source.path).name, float(source.weight), int(n))
                for source, n in zip(inputs, kept, strict=True)
            ),
            statuses={key: n for key, n in sorted(spool.statuses.items()) if n},
            duplicates=spool.duplicates,
            unmatched=spool.unmatched,
            has_random=bool(random_smiles),
            properties=_standardise(directory, writers, properties) if properties else None,
            built_with=_versions(),
        )
        info.save(directory)
    return info


def _check_arguments(
    inputs: Sequence[Source],
    max_tokens: int,
    valid_fraction: float,
    random_smiles: int,
    tokenizer: Tokenizer | str,
    properties: str | None,
) -> None:
    if not 1 <= len(inputs) <= 255:
        raise ValueError(f"inputs: 1 to 255 sources expected, got {len(inputs)}")
    for source in inputs:
        if not (np.isfinite(source.weight) and source.weight >= 0):
            raise ValueError(f"weight of {source.path}: a finite number from 0 expected, got {source.weight}")
    if max_tokens < 1:
        raise ValueError(f"max_tokens: at least 1 expected, got {max_tokens}")
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"valid_fraction: from 0 to below 1 expected, got {valid_fraction}")
    if random_smiles not in (0, 1):
        raise ValueError(f"random_smiles: 0 or 1 expected, got {random_smiles}")
    if isinstance(tokenizer, str) and tokenizer not in KINDS:
        raise ValueError(f"tokenizer: one of {sorted(KINDS)} expected, got {tokenizer!r}")
    if properties is not None:
        from .corpus_chem import PROPERTY_SETS

        if properties not in PROPERTY_SETS:
            raise ValueError(f"properties: one of {sorted(PROPERTY_SETS)} expected, got {properties!r}")


def _read(spool: Spool, number: int, source: Source, policy: str, workers: int, progress: bool) -> None:
    """The first pass over one source."""
    chunks = chunked(read_smiles(source.path, source.column))
    title = f"reading {source.name or Path(source.path).name}"
    with (
        tqdm(desc=title, unit=" rows", unit_scale=True, disable=not progress) as bar,
        closing(_prepared(chunks, policy, workers)) as answers,
    ):
        for rows in spool.add(number, answers):
            bar.update(rows)


def _prepared(chunks: Iterable[list[str]], policy: str, workers: int) -> Generator[Answer]:
    """Usable SMILES and statuses of chunks of rows. A row may kill RDKit, so that runs in a `WorkerPool`."""
    if policy == "none":
        yield from run_job({"job": "prepare"}, chunks, workers)
        return
    from . import chem

    with chem.WorkerPool(workers=max(1, workers), policy=policy) as pool:
        for prepared in pool.imap(chunks):
            yield as_lines(prepared)


def _train(kind: str, spool: Spool, min_count: int, max_vocab: int | None, workers: int, progress: bool) -> Tokenizer:
    texts = (texts for _, texts in spool.chunks())
    total = int(spool.first.sum())
    with tqdm(total=total, desc="vocabulary", unit=" rows", unit_scale=True, disable=not progress) as bar:

        def counted() -> Iterator[list[str]]:
            for chunk in texts:
                bar.update(len(chunk))
                yield chunk

        if kind == "smiles":
            counts: Counter[str] = Counter()
            with closing(run_job({"job": "count"}, counted(), workers)) as answers:
                for answer in answers:
                    counts.update(answer.data)
            return SmilesTokenizer.from_counts(counts, min_count, max_vocab)
        trained: Any = KINDS[kind]
        rows = (row for chunk in counted() for row in chunk)
        tokenizer: Tokenizer = trained.train(rows, min_count=min_count)
        return tokenizer


def _encode(
    spool: Spool,
    directory: Path,
    settings: dict[str, Any],
    vocab_size: int,
    n_sources: int,
    is_valid: npt.NDArray[np.bool_],
    workers: int,
    progress: bool,
) -> tuple[list[SplitWriter], npt.NDArray[np.int64]]:
    """The second pass: spool to token files. Returns the splits' writers, and rows kept by source."""
    dtype = np.dtype("<u1" if vocab_size <= 256 else "<u2")
    kept_by_source = np.zeros(n_sources, np.int64)
    under_way: deque[npt.NDArray[np.int64]] = deque()  # row numbers of the chunks sent, oldest first

    def texts() -> Iterator[list[str]]:
        for rows, chunk in spool.chunks():
            under_way.append(rows)
            yield chunk

    total = int(spool.first.sum())
    with (
        tqdm(total=total, desc="encoding", unit=" rows", unit_scale=True, disable=not progress) as bar,
        closing(run_job(settings, texts(), workers)) as answers,
        ExitStack() as stack,
    ):
        writers = [SplitWriter(stack, directory, split, dtype, settings) for split in SPLITS]
        for answer in answers:
            encoded, rows = Encoded(*answer.arrays), under_way.popleft()
            kept = rows[encoded.kept]
            refused = answer.data["statuses"]
            spool.statuses.update(refused)
            spool.statuses["ok"] -= sum(refused.values())
            kept_by_source += np.bincount(spool.source[kept], minlength=n_sources)
            for split, writer in enumerate(writers):
                writer.write(encoded, is_valid[kept] == bool(split), spool.source[kept])
            bar.update(len(rows))
    if writers[0].n == 0:
        raise ValueError(f"inputs: no usable row for training; rows by status: {dict(spool.statuses)}")
    return writers, kept_by_source


def _standardise(directory: Path, writers: Sequence[SplitWriter], kind: str) -> PropertyInfo:
    from .corpus_chem import standardise

    return standardise(directory, [writer.n for writer in writers], kind)


def _versions() -> dict[str, str]:
    """What made this corpus; canonical SMILES depend on RDKit's version."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    try:
        import rdkit
    except ImportError:
        return found
    return {**found, "rdkit": rdkit.__version__}
