"""The verbs on latent vectors: decode, sample, neighbours, interpolate. Each returns a `GeneratedTable`.

    neighbours     z = mu(seed) + radius * noise     noise ~ N(0, I): MolMIM (arXiv 2208.09016), section 3
    sample         z ~ a mixture of Gaussians fitted to codes, or z ~ N(0, I)
    interpolate    z = (1 - t) mu(a) + t mu(b)       t = 0, ..., 1

`MolCMIM` has these as methods. Random numbers are drawn row by row: a row depends on its number (with several seeds: on
the seed's number and its own), not on how many rows there are. Still, a batch of another shape changes the last digits
of its scores, which may turn a close call between two tokens. The same call with the same seed gives the same table.
"""

# Axes: n rows, S seeds, L latent.

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from molcmim.chem import Status, to_text_list
from molcmim.decoding import MAX_REPAIR, Decoding, DecodingArguments, decode_table, derived_seed, write
from molcmim.embed import EmbedOptions, embed_tokens
from molcmim.generate import pad_rows
from molcmim.generated import BoolArray, GeneratedTable, Seeds, with_properties
from molcmim.mixture import COMPONENTS, Mixture
from molcmim.model import encoder_input
from molcmim.progress import row_bar
from molcmim.rows import tokenize_rows

if TYPE_CHECKING:
    from molcmim.api import MolCMIM

__all__ = [
    "Decoding",
    "DecodingArguments",
    "Mixture",
    "decode_table",
    "find_source",
    "fit_mixture",
    "interpolate",
    "neighbours",
    "sample",
    "sample_counted",
    "write",
]

FloatArray = npt.NDArray[np.float32]

UNITS = ("absolute", "spread")
RADIUS_UNIT = "spread"  #: the default of `neighbours`
MAX_BLOCKS = 20  #: `sample` gives up filling a table after drawing this many times n rows
MIXTURE_ROWS = 20_000  #: molecules that a mixture is fitted to
SIGMA_ROWS = 1000  #: of them, those whose posterior's sigma is averaged


# ---------------------------------------------------------------------------------------------- sampling


def find_source(model: MolCMIM, source: str | Mixture | None) -> Mixture:
    """The distribution to draw from: a mixture, the checkpoint's own, or the prior; see `MolCMIM.sample`."""
    latent = model.network.config.latent
    if source is None:
        if model.mixture is None:
            warnings.warn(
                f"source: the prior N(0, I), for {model.config['name']} holds no mixture fitted to its codes",
                stacklevel=3,
            )
        return model.mixture or Mixture.prior(latent)
    if isinstance(source, Mixture):
        if source.latent != latent:
            raise ValueError(f"source: expected a mixture in {latent} dimensions, got {source.latent}")
        fitted_to = source.facts.get("model_id", model.model_id)
        if fitted_to != model.model_id:
            raise ValueError(f"source: expected a mixture of model {model.model_id}, got one of {fitted_to}")
        return source
    if source == "prior":
        return Mixture.prior(latent)
    if source == "mixture":
        if model.mixture is None:
            raise ValueError(
                f"source: {model.config['name']} holds no mixture; fit one (fit_mixture), or use source='prior'"
            )
        return model.mixture
    raise ValueError(f"source: expected 'mixture', 'prior' or a Mixture, got {source!r}")


class Counted(NamedTuple):
    """A sample, and what it took."""

    table: GeneratedTable
    n_drawn: int  #: rows drawn; more than the table has if some were left out


def sample(
    model: MolCMIM,
    n: int,
    source: str | Mixture | None = None,
    seed: int = 0,
    valid_only: bool = False,
    unique: bool = False,
    decoding: Decoding = Decoding(),
) -> GeneratedTable:
    """Molecules of vectors drawn from `source`, see `MolCMIM.sample`."""
    return sample_counted(model, n, source, seed, valid_only, unique, decoding).table


def sample_counted(
    model: MolCMIM,
    n: int,
    source: str | Mixture | None = None,
    seed: int = 0,
    valid_only: bool = False,
    unique: bool = False,
    decoding: Decoding = Decoding(),
) -> Counted:
    """As `sample`, with the number of rows that were drawn for it."""
    check_count("n", n)
    check_seed(seed)
    model.need_decoder("sample")
    mixture = find_source(model, source)
    if not (valid_only or unique):
        return Counted(decode_table(model, mixture.draw(n, seed), decoding, seed), n)
    bare = replace(decoding, properties=())  # not for rows that are dropped
    kept: list[GeneratedTable] = []
    seen: set[str] = set()
    n_kept = n_drawn = 0
    while n_kept < n and n_drawn < MAX_BLOCKS * n:
        z = mixture.draw(n_drawn + n, seed)[n_drawn:]
        table = decode_table(model, z, bare, seed if not kept else derived_seed(seed, MAX_REPAIR + len(kept)))
        table = table.select(_wanted(table, seen, valid_only, unique))
        kept.append(table)
        n_kept += len(table)
        n_drawn += n
    if n_kept < n:
        warnings.warn(f"n: {n_kept} rows instead of {n}: gave up after drawing {n_drawn}", stacklevel=3)
    whole = GeneratedTable.concatenated(kept).select(np.arange(min(n, n_kept)))
    return Counted(with_properties(whole, decoding.properties), n_drawn)


def _wanted(table: GeneratedTable, seen: set[str], valid_only: bool, unique: bool) -> BoolArray:
    """(n,) bool; molecules are added to `seen`. A row without a molecule is like no other."""
    wanted = np.ones(len(table), dtype=bool)
    for i, text in enumerate(table.canonical_smiles):
        if text is None:
            wanted[i] = not valid_only
        elif unique:
            wanted[i] = text not in seen
            seen.add(text)
    return wanted


def fit_mixture(
    model: MolCMIM,
    molecules: Iterable[object],
    n: int = MIXTURE_ROWS,
    k: int | Sequence[int] | None = None,
    seed: int = 0,
    progress: bool = False,
    **facts: object,
) -> Mixture:
    """A mixture of Gaussians fitted to the codes of a corpus, widened by the posterior's own sigma.

    Parameters
    ----------
    model
        Whose codes.
    molecules
        SMILES (or whatever `MolCMIM.embed` takes), or rows of token ids without special tokens (as
        `molcmim.corpus.TokenStore.rows` gives them). Bad rows and rows over the token limit are left out.
    n
        Molecules used; if there are more, n of them are drawn.
    k
        Components, or several numbers of them of which the best is taken; default: see `molcmim.mixture`.
    seed
        Of the choice of molecules and of the fit.
    progress
        Show a progress bar while embedding.
    facts
        Added to those of the mixture, e.g. ``corpus="MOSES, training part"``.

    Returns
    -------
    Mixture
        Of z as the decoder was trained on it: code + sigma * noise.

    Raises
    ------
    ValueError
        If there are too few molecules.
    """

    check_count("n", n, 2)
    check_seed(seed)
    given: list[Any] = to_text_list(molecules)
    if len(given) > n:
        given = [given[i] for i in np.sort(np.random.default_rng(seed).choice(len(given), n, replace=False)).tolist()]
    limit = model.network.config.max_tokens
    if given and isinstance(given[0], list | tuple | np.ndarray):
        rows = [[int(token) for token in row] for row in given if 0 < model.tokenizer.length(row) <= limit]
    else:
        tokens = tokenize_rows(given, model.tokenizer, limit).tokens
        rows = [row for row in tokens if row is not None]
    if len(rows) < 2:
        raise ValueError(f"molecules: expected at least 2 that the model can embed, got {len(rows)}")
    with row_bar(len(rows), progress) as advance:
        options = EmbedOptions(dtype=model.dtype, progress=advance)
        codes = embed_tokens(model.network, rows, "latent", options=options, objective=model.objective)
    fitted = Mixture.fit(codes, COMPONENTS if k is None else k, seed)
    sigma = posterior_sigma(model, rows[:SIGMA_ROWS])
    return fitted.widened(sigma).with_facts(model_id=model.model_id, sigma=f"{float(sigma.mean()):.4g}", **facts)


@torch.inference_mode()
def posterior_sigma(model: MolCMIM, rows: Sequence[Sequence[int]], batch_size: int = 100) -> FloatArray:
    """Root mean square over molecules of the posterior's sigma, (L,); the rows are token ids."""
    total = np.zeros(model.network.config.latent)
    for start in range(0, len(rows), batch_size):
        tokens = encoder_input(pad_rows(rows[start : start + batch_size])).to(model.device)  # (B, T + 1)
        total += model.network.encode(tokens).log_sigma.double().mul(2).exp().sum(0).cpu().numpy()
    return np.sqrt(total / len(rows)).astype(np.float32)


# ---------------------------------------------------------------------------------------------- around molecules


def radius_in(model: MolCMIM, radius: float, unit: str) -> float:
    """A radius as a standard deviation per latent dimension.

    ``"absolute"`` is that already. ``"spread"``: in units of the spread of the model's codes, the mean norm of mu over
    validation molecules divided by the square root of L, which every checkpoint records (`scales`).
    """
    if unit not in UNITS:
        raise ValueError(f"unit: expected one of {', '.join(UNITS)}, got {unit!r}")
    if not 0 <= radius < np.inf:
        raise ValueError(f"radius: expected 0 or more, got {radius}")
    if unit == "absolute":
        return float(radius)
    return float(radius) / (float(model.config["scales"]["latent"]) * model.network.config.latent**0.5)


def neighbours(
    model: MolCMIM,
    smiles: str | Iterable[object],
    radius: float = 1.0,
    n: int = 10,
    seed: int = 0,
    unit: str = RADIUS_UNIT,
    policy: str = "canonical",
    decoding: Decoding = Decoding(),
) -> GeneratedTable:
    """n molecules around each of S seeds, see `MolCMIM.neighbours`."""
    check_count("n", n)
    check_seed(seed)
    sigma = radius_in(model, radius, unit)
    model.need_decoder("neighbours")
    given = [smiles] if isinstance(smiles, str) else to_text_list(smiles)
    mu, status, canonical = model.embed_with_status(
        given, kind="latent", exact=True, policy=policy, workers=decoding.workers
    )
    noise = np.empty((len(given), n, mu.shape[1]), dtype=np.float32)  # (S, n, L)
    for number in range(len(given)):
        generator = np.random.default_rng([seed, number])
        noise[number] = generator.standard_normal(noise.shape[1:], dtype=np.float32)
    z = mu[:, None, :] + np.float32(sigma) * noise
    distance = np.linalg.norm((z - mu[:, None, :]).astype(np.float64), axis=2)  # (S, n)
    at = np.repeat(np.arange(len(given)), n)
    seeds = Seeds(
        [as_text(given[i]) for i in at], [canonical[i] for i in at], [status[i] for i in at], distance.ravel()
    )
    return decode_table(model, z.reshape(-1, mu.shape[1]), decoding, seed, seeds)


def interpolate(
    model: MolCMIM,
    a: object,
    b: object,
    steps: int = 10,
    seed: int = 0,
    policy: str = "canonical",
    decoding: Decoding = Decoding(),
) -> GeneratedTable:
    """Molecules on the straight line between two, see `MolCMIM.interpolate`."""
    check_count("steps", steps, 2)
    check_seed(seed)
    model.need_decoder("interpolate")
    mu, status, canonical = model.embed_with_status([a, b], kind="latent", exact=True, policy=policy)
    for name, value, what in zip("ab", (a, b), status, strict=True):
        if what is not Status.ok:
            raise ValueError(f"{name}: expected a molecule that the model can embed, got {value!r} ({what.value})")
    t = np.linspace(0.0, 1.0, steps, dtype=np.float32)[:, None]
    z = (1.0 - t) * mu[:1] + t * mu[1:]  # (steps, L)
    distance = np.linalg.norm((z - mu[:1]).astype(np.float64), axis=1)
    seeds = Seeds([as_text(a)] * steps, [canonical[0]] * steps, [status[0]] * steps, distance)
    return decode_table(model, z, decoding, seed, seeds)


def as_text(value: object) -> str:
    """A seed for the table: texts as given, an RDKit molecule as its SMILES, nothing for a missing one."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("ascii", "replace")
    from molcmim.chem import prepare

    return prepare(value, policy="none").canonical_smiles or ""


def check_seed(seed: int) -> None:
    """ValueError unless `seed` is a whole number from 0."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, got {seed!r}")


def check_count(name: str, value: int, least: int = 1) -> None:
    """ValueError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
