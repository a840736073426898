"""Latent vectors to a table: how they are decoded, checked, and decoded again where the text is no molecule."""

# Axes: n rows, L latent.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch

from molcmim.chem import Prepared, Status
from molcmim.generate import Decoded, greedy
from molcmim.generated import BoolArray, GeneratedTable, Seeds, check_written, property_functions, tabulate
from molcmim.progress import row_bar

if TYPE_CHECKING:
    from molcmim.api import MolCMIM

FloatArray = npt.NDArray[np.float32]
Text = str | None

MODES = ("greedy", "sample", "beam")
MAX_REPAIR = 1000  #: attempts
REPAIR_TEMPERATURE = 0.5  #: of the first attempt; the last one's is 1


class DecodingArguments(TypedDict, total=False):
    """The keyword arguments that all verbs share, see `Decoding`."""

    mode: str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    width: int
    repair: int
    properties: Sequence[str]
    batch_size: int
    workers: int | None
    progress: bool


@dataclass(frozen=True)
class Decoding:
    """How vectors become rows of a table.

    Parameters
    ----------
    mode
        ``"greedy"``: the most likely next token each time. ``"sample"``: tokens drawn at `temperature`, from the
        `top_k` likeliest or from the likeliest that make up `top_p`. ``"beam"``: beam search of `width`. Default:
        ``"sample"`` if one of the three is given, else ``"greedy"``.
    temperature, top_k, top_p
        Of sampling; defaults: 1, all, all. Temperature 0 takes the most likely token.
    width
        Hypotheses kept by the beam search.
    repair
        Attempts to replace a text that is no molecule: the same z is decoded again by sampling, from temperature
        0.5 at first to 1 at last, until it is one. 0: none.
    properties
        Names in `molcmim.objectives.PROPERTIES`, for the table.
    batch_size
        Rows decoded at once.
    workers
        Processes that check the written texts, see `molcmim.chem.prepare_many`.
    progress
        Show a progress bar on stderr.

    Raises
    ------
    ValueError
        If a value is out of range, a property isn't known, or options of sampling come with another mode.
    """

    mode: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    width: int = 4
    repair: int = 0
    properties: Sequence[str] = ()
    batch_size: int = 512
    workers: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("temperature", "top_k", "top_p") if getattr(self, name) is not None]
        if self.mode is None:
            object.__setattr__(self, "mode", "sample" if given else "greedy")
        if self.mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {self.mode!r}")
        if given and self.mode != "sample":
            raise ValueError(f"{given[0]}: expected only with mode 'sample', got mode {self.mode!r}")
        if self.temperature is not None and not 0 <= self.temperature < np.inf:
            raise ValueError(f"temperature: expected 0 or more, got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected more than 0 and at most 1, got {self.top_p}")
        for name, least in (("top_k", 1), ("width", 1), ("repair", 0), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if self.repair > MAX_REPAIR:
            raise ValueError(f"repair: expected at most {MAX_REPAIR}, got {self.repair}")
        property_functions(self.properties)


# ---------------------------------------------------------------------------------------------- decoding


def write(model: MolCMIM, z: FloatArray, decoding: Decoding = Decoding(), seed: int = 0) -> list[Text]:
    """SMILES texts of (n, L) vectors, unchecked; None where z isn't finite or the decoder hadn't finished."""
    model.need_decoder("decode")
    finite = np.flatnonzero(np.isfinite(z).all(axis=1))
    rows = torch.from_numpy(np.ascontiguousarray(z[finite], dtype=np.float32))
    with (
        torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == "bfloat16"),
        row_bar(len(finite), decoding.progress) as advance,
    ):
        shown: dict[str, Any] = {} if advance is None else {"progress": advance}
        if decoding.mode == "greedy":
            written = greedy(model.network, rows, batch_size=decoding.batch_size, **shown)
        elif decoding.mode == "sample":
            from molcmim.generate import sampled

            temperature = 1.0 if decoding.temperature is None else decoding.temperature
            written = sampled(
                model.network,
                rows,
                temperature,
                decoding.top_k,
                decoding.top_p,
                seed,
                batch_size=decoding.batch_size,
                **shown,
            )
        else:
            from molcmim.beam import beam

            found = beam(
                model.network,
                rows,
                decoding.width,
                batch_size=max(1, decoding.batch_size // decoding.width),
                **shown,
            )
            written = Decoded([row[0].tokens for row in found], [row[0].finished for row in found])
    smiles: list[Text] = [None] * len(z)
    for row, ids, finished in zip(finite.tolist(), written.tokens, written.finished, strict=True):
        smiles[row] = model.tokenizer.decode(ids) if finished else None
    return smiles


def decode_table(
    model: MolCMIM, z: npt.ArrayLike, decoding: Decoding = Decoding(), seed: int = 0, seeds: Seeds | None = None
) -> GeneratedTable:
    """Decode (n, L) vectors (or embeddings of kind ``"both"``) into a table of n rows, see `MolCMIM.decode_table`."""
    model.need_decoder("decode_table")
    vectors = model.latent_part(z)
    has_vector: BoolArray = np.asarray(np.isfinite(vectors).all(axis=1))
    smiles = write(model, vectors, decoding, seed)
    prepared = check_written(smiles, decoding.workers)
    repaired = _repair(model, vectors, smiles, prepared, has_vector, decoding, seed)
    return tabulate(smiles, prepared, has_vector, repaired, seeds, decoding.properties)


def _repair(
    model: MolCMIM,
    z: FloatArray,
    smiles: list[Text],
    prepared: list[Prepared],
    has_vector: BoolArray,
    decoding: Decoding,
    seed: int,
) -> BoolArray:
    """Decode rows that are no molecule again, up to `decoding.repair` times; (n,) bool, rows replaced in the lists."""
    repaired = np.zeros(len(z), dtype=bool)
    for attempt in range(decoding.repair):
        bad = [i for i in np.flatnonzero(has_vector).tolist() if prepared[i].status is not Status.ok]
        if not bad:
            break
        share = attempt / max(1, decoding.repair - 1)
        temperature = REPAIR_TEMPERATURE + (1.0 - REPAIR_TEMPERATURE) * share
        again = replace(decoding, mode="sample", temperature=temperature, top_k=None, top_p=None, progress=False)
        texts = write(model, z[bad], again, seed=derived_seed(seed, 1 + attempt))
        for i, text, checked in zip(bad, texts, check_written(texts, decoding.workers), strict=True):
            if checked.status is Status.ok:
                smiles[i], prepared[i], repaired[i] = text, checked, True
    return repaired


def derived_seed(seed: int, number: int) -> int:
    """Another seed, for another use."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint32)[0])
