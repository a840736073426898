"""Token rows to vectors: batches of similar length, the three embeddings, log-probabilities, exact mode.

A row's last bits depend on the shape of the batch that it is computed in (about 5e-7 in float32).
`exact=True` therefore gives every batch one of a few fixed shapes: `EXACT_ROWS` rows (missing ones are
dummies) of a padded length that depends on the row alone. Then a row's bits don't depend on what else is
embedded; they still depend on the kind of device, the build of torch and the number of threads.
"""

# Axes: N rows, B rows of a batch, T tokens, D width, L latent, d embedding.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from molcmim.generate import pad_rows
from molcmim.model import CMIM, decoder_input, encoder_input
from molcmim.objective import FACTORS, log_reconstruction
from molcmim.rows import TokenRows, tokenize_prepared, tokenize_rows
from molcmim.token_parts import PARTS_MULTIPLE
from molcmim.tokenizer import PAD

__all__ = [
    "KINDS",
    "EmbedOptions",
    "TokenRows",
    "check_kind",
    "embed_rows",
    "embed_tokens",
    "embedding_width",
    "fit_scales",
    "has_decoder",
    "score_tokens",
    "tokenize_prepared",
    "tokenize_rows",
]

KINDS = ("latent", "informative", "both")
DTYPES = ("float32", "bfloat16")
EXACT_ROWS = 32  #: rows of every batch in exact mode
EXACT_STEP = 16  #: in exact mode padded lengths (<eos> or <bos> counted) are multiples of this
TOKENS_PER_ROW = 64  #: a batch holds at most batch_size times this many tokens, padding counted

FloatArray = npt.NDArray[np.float32]


class EmbedOptions(NamedTuple):
    """How a model is run; what it computes doesn't depend on these, but for the last digits."""

    batch_size: int = 256  #: most rows of a batch (exact mode has its own constant)
    exact: bool = False  #: fixed shapes, so that a row's bits don't depend on the other rows
    dtype: str = (
        "float32"  #: ``"bfloat16"``: matrix products in bfloat16 (autocast); results are float32 anyway
    )
    progress: Callable[[int], object] | None = None  #: called with the number of rows done after each batch


def has_decoder(objective: str) -> bool:
    """Whether models trained with this objective have a trained decoder.

    Raises
    ------
    ValueError
        If there is no such objective.
    """
    if objective not in FACTORS:
        raise ValueError(f"objective: expected one of {sorted(FACTORS)}, got {objective!r}")
    return "reconstruction" in FACTORS[objective]


def check_kind(kind: str, objective: str) -> None:
    """Refuse (ValueError) an embedding that doesn't exist, or doesn't exist for models of this objective."""
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}")
    if not has_decoder(objective) and kind != "latent":
        raise ValueError(
            f"kind: expected 'latent', got {kind!r}: the model was trained with objective {objective!r}, "
            "which trains no decoder"
        )


def embedding_width(model: CMIM, kind: str, objective: str = "cmim") -> int:
    """Features d of an embedding: L for `latent` (D under `mlm`), D for `informative`, L + D for `both`."""
    check_kind(kind, objective)
    latent = model.config.width if objective == "mlm" else model.config.latent
    return {"latent": latent, "informative": model.config.width, "both": latent + model.config.width}[kind]


# ---------------------------------------------------------------------------------------------- batches


def _batches(
    model: CMIM, rows: Sequence[Sequence[int]], options: EmbedOptions
) -> Iterator[tuple[list[int], Tensor]]:
    """Row positions of each batch and their ids (B, T) on the model's device; dummy rows come last."""
    if options.batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {options.batch_size}")
    longest = model.config.max_tokens
    sizes = [_Size(len(row) if model.parts is None else model.parts.n_parts(row), len(row)) for row in rows]
    for position, size in enumerate(sizes):
        if size.encoder > longest:
            raise ValueError(f"rows: expected at most {longest} tokens, got {size.encoder} in row {position}")
    if options.exact:
        sizes = [_Size(*(_exact_length(n, longest) for n in size)) for size in sizes]
    device = model.embedding.weight.device
    order = sorted(range(len(rows)), key=sizes.__getitem__)
    chosen: list[int] = []
    for i in order:
        if options.exact:
            full = len(chosen) == EXACT_ROWS or bool(chosen and sizes[i] != sizes[chosen[-1]])
        else:
            n_tokens = (len(chosen) + 1) * (sizes[i].encoder + 1)
            full = len(chosen) == options.batch_size or n_tokens > options.batch_size * TOKENS_PER_ROW
        if chosen and full:
            yield chosen, _tensor(rows, chosen, sizes, options.exact).to(device)
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen, _tensor(rows, chosen, sizes, options.exact).to(device)


class _Size(NamedTuple):
    """Tokens of a row, without <eos> and <bos>, that encoder and decoder read; in exact mode padding counts."""

    encoder: int
    decoder: int


def _exact_length(n_tokens: int, max_tokens: int) -> int:
    """Padded length without <eos>: depends on the row's own length and the model only."""
    return min(-(-(n_tokens + 1) // EXACT_STEP) * EXACT_STEP, max_tokens + 1) - 1


def _tensor(rows: Sequence[Sequence[int]], chosen: list[int], sizes: list[_Size], exact: bool) -> Tensor:
    length = max(sizes[i].decoder for i in chosen)
    dummies: list[list[int]] = [[]] * (EXACT_ROWS - len(chosen)) if exact else []
    return pad_rows([*(rows[i] for i in chosen), *dummies], length)


def _run(
    model: CMIM,
    rows: Sequence[Sequence[int]],
    compute: Callable[[Tensor], Tensor],
    width: int,
    options: EmbedOptions,
    row_numbers: Sequence[int] | None,
) -> FloatArray:
    """Apply `compute` ((B, T) ids -> (B, width)) to all batches, results back in order: (N, width)."""
    if options.dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {DTYPES}, got {options.dtype!r}")
    device = model.embedding.weight.device
    result = np.empty((len(rows), width), dtype=np.float32)
    was_training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=options.dtype == "bfloat16"),
        ):
            for chosen, tokens in _batches(model, rows, options):
                result[chosen] = compute(tokens)[: len(chosen)].float().cpu().numpy()
                if options.progress is not None:
                    options.progress(len(chosen))
    finally:
        model.train(was_training)
    bad = np.flatnonzero(~np.isfinite(result).all(axis=1))
    if len(bad):
        number = int(bad[0]) if row_numbers is None else row_numbers[bad[0]]
        raise RuntimeError(f"row {number}: the model gave NaN or infinity for it ({len(bad)} such rows)")
    return result


# ---------------------------------------------------------------------------------------------- embeddings


def embed_tokens(
    model: CMIM,
    rows: Sequence[Sequence[int]],
    kind: str = "latent",
    scales: Mapping[str, float] | None = None,
    options: EmbedOptions = EmbedOptions(),
    objective: str = "cmim",
    row_numbers: Sequence[int] | None = None,
) -> FloatArray:
    """Embeddings of molecules given as token ids.

    Parameters
    ----------
    model
        Runs on the device that its weights are on.
    rows
        Token ids of each molecule, without special tokens, at most the model's `max_tokens`.
    kind
        ``"latent"``: mu of the posterior, (N, L); of `mlm` models the mean over tokens of the encoder's
        states after the final norm, (N, D). ``"informative"``: mean of the decoder's last hidden states
        over <bos>..last token, under teacher forcing with z = mu, (N, D). ``"both"``: the two side by side,
        each times its scale, (N, L + D).
    scales
        ``latent`` and ``informative``, the factors that give each part unit mean norm; needed for ``"both"``.
    options
        Batches, exactness, precision.
    objective
        What the model was trained with.
    row_numbers
        Numbers by which an error names the rows; default: positions in `rows`.

    Returns
    -------
    (N, d) float32, in the order of `rows`.

    Raises
    ------
    ValueError
        If `kind` doesn't apply, `scales` are missing, or a row has too many tokens.
    RuntimeError
        If the model's output isn't finite: this must never pass as a vector.
    """
    width = embedding_width(model, kind, objective)
    parts = dict(scales or {})
    if kind == "both" and not {"latent", "informative"} <= parts.keys():
        raise ValueError(f"scales: expected 'latent' and 'informative' for kind 'both', got {sorted(parts)}")

    def compute(tokens: Tensor) -> Tensor:  # (B, T) -> (B, d)
        if objective == "mlm":
            return mean_pooled(model, tokens)
        mu = encode(model, tokens, options)  # (B, L)
        if kind == "latent":
            return mu
        informative = model.informative(mu, decoder_input(tokens))  # (B, D)
        if kind == "informative":
            return informative
        return torch.cat((mu * parts["latent"], informative * parts["informative"]), dim=1)  # (B, L + D)

    return _run(model, rows, compute, width, options, row_numbers)


def encode(model: CMIM, tokens: Tensor, options: EmbedOptions) -> Tensor:
    """Molecule ids (B, T) -> mu (B, L)."""
    multiple = EXACT_STEP if options.exact else PARTS_MULTIPLE
    return model.encode(encoder_input(tokens), multiple).mu


def mean_pooled(model: CMIM, tokens: Tensor) -> Tensor:
    """Mean over the molecule's tokens (B, T), not <eos>, of the encoder's states after the norm: (B, D)."""
    states, _ = model.encoder.states(encoder_input(tokens))  # (B, T + 1, D)
    real = (tokens != PAD)[..., None]  # (B, T, 1)
    return (model.encoder.norm(states[:, :-1]).float() * real).sum(1) / real.sum(1).clamp(min=1)


def score_tokens(
    model: CMIM,
    rows: Sequence[Sequence[int]],
    options: EmbedOptions = EmbedOptions(),
    objective: str = "cmim",
    row_numbers: Sequence[int] | None = None,
) -> FloatArray:
    """log p(x | z = mu(x)) in nats, <eos> counted: (N,). Parameters and errors as for `embed_tokens`."""
    if not has_decoder(objective):
        raise ValueError(
            f"log_prob: expected a model with a decoder, got objective {objective!r}, which trains none"
        )

    def compute(tokens: Tensor) -> Tensor:  # (B, T) -> (B, 1)
        hidden = model.hidden(encode(model, tokens, options), decoder_input(tokens))  # (B, T + 1, D)
        return log_reconstruction(model.logits(hidden), encoder_input(tokens))[:, None]

    return _run(model, rows, compute, 1, options, row_numbers)[:, 0]


def embed_rows(
    model: CMIM,
    rows: TokenRows,
    kind: str = "latent",
    scales: Mapping[str, float] | None = None,
    options: EmbedOptions = EmbedOptions(),
    objective: str = "cmim",
    first_row: int = 0,
) -> FloatArray:
    """`embed_tokens` for rows of which some are bad: (N, d), NaN where the status isn't `ok`.

    `first_row` is the number of the first row, should an error have to name one.
    """
    ok = rows.ok
    result = np.full((len(rows.status), embedding_width(model, kind, objective)), np.nan, dtype=np.float32)
    tokens = [rows.tokens[i] or [] for i in ok]
    numbers = [first_row + i for i in ok]
    result[ok] = embed_tokens(model, tokens, kind, scales, options, objective, numbers)
    return result


def fit_scales(
    model: CMIM,
    rows: Sequence[Sequence[int]],
    objective: str = "cmim",
    options: EmbedOptions = EmbedOptions(),
) -> dict[str, float]:
    """Factors that bring each embedding to unit mean norm over these molecules, for `scales` of a checkpoint.

    Returns
    -------
    dict
        ``latent``, and ``informative`` for models with a decoder.

    Raises
    ------
    ValueError
        If there are no rows, or all vectors are zero.
    """
    if not rows:
        raise ValueError("rows: expected at least one molecule, got none")
    scales = {}
    for kind in ("latent", "informative") if has_decoder(objective) else ("latent",):
        vectors = embed_tokens(model, rows, kind, options=options, objective=objective)
        norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).mean())
        if norm == 0.0:
            raise ValueError(f"rows: expected vectors with a norm, got only zeros for kind {kind!r}")
        scales[kind] = 1.0 / norm
    return scales
