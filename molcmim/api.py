"""The Python interface: `MolCMIM`, one pretrained model with its tokenizer.

>>> from molcmim import MolCMIM                                            # doctest: +SKIP
>>> model = MolCMIM.from_pretrained()                                      # doctest: +SKIP
>>> model.embed(["CCO", "c1ccccc1"]).shape                                 # doctest: +SKIP
(2, 512)
>>> model.decode(model.embed(["c1ccccc1"]))                                # doctest: +SKIP
['c1ccccc1']
"""

# Axes: n molecules, L latent, D width, d embedding (L, D or L + D).

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from molcmim.api_generate import GenerateMethods
from molcmim.checkpoint_files import read_card
from molcmim.chem import Status, to_text_list
from molcmim.decoding import Decoding, write
from molcmim.embed import EmbedOptions, FloatArray, check_kind, embed_rows, has_decoder, score_tokens
from molcmim.mixture import Mixture
from molcmim.model import CMIM
from molcmim.pretrained import Loaded, load_pretrained, save_pretrained
from molcmim.progress import row_bar
from molcmim.rows import TokenRows, tokenize_rows
from molcmim.tokenizer import Tokenizer


class EmbedResult(NamedTuple):
    """Embeddings with what happened to each row; all three have one entry a row of the input, in order."""

    embedding: FloatArray  #: (n, d) float32, NaN in rows whose status isn't `ok`
    status: list[Status]
    canonical_smiles: list[str | None]  #: what was embedded; None where there is no such molecule


class MolCMIM(GenerateMethods):
    """A pretrained model: SMILES to vectors, vectors to SMILES. Make one with `from_pretrained`.

    Attributes
    ----------
    network : CMIM
        The torch module, in eval mode, float32.
    tokenizer : Tokenizer
    config : dict
        Content of the checkpoint's config.json: architecture, objective, scales, policy, training summary.
    model_id : str
        First 12 hex digits of the sha256 of the weights file: equal means the same weights.
    mixture : Mixture or None
        Fitted to the model's codes, for `sample`, if the checkpoint holds one.
    dtype : str
        ``"float32"``, or ``"bfloat16"`` for matrix products in bfloat16.
    """

    def __init__(
        self, loaded: Loaded, device: str | torch.device | None = None, dtype: str = "float32"
    ) -> None:
        if dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype: expected 'float32' or 'bfloat16', got {dtype!r}")
        self.network: CMIM = loaded.model.to(resolve_device(device)).eval()
        self.tokenizer: Tokenizer = loaded.tokenizer
        self.config: dict[str, Any] = loaded.config
        self.model_id: str = loaded.model_id
        self.mixture: Mixture | None = loaded.mixture
        self.dtype = dtype
        self._card = read_card(loaded.directory, loaded.config)

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        dtype: str = "float32",
    ) -> MolCMIM:
        """Load a model that ships with the package, or a checkpoint directory.

        Parameters
        ----------
        name_or_dir
            Name of a shipped model or a directory; default: the shipped default model.
        device
            ``"cpu"``, ``"cuda"``, ``"cuda:1"``; default: cuda if there is one, else the CPU.
        dtype
            ``"float32"``, or ``"bfloat16"`` for matrix products in bfloat16: faster on GPUs and on CPUs
            that have such instructions, with about three decimal digits. Returned arrays are float32 in any
            case.

        Raises
        ------
        CheckpointError
            If there is no such checkpoint, or anything about it is wrong (it is a ValueError).
        ValueError
            If the device isn't available, or `dtype` is neither of the two.

        Examples
        --------
        >>> model = MolCMIM.from_pretrained()                              # doctest: +SKIP
        >>> model = MolCMIM.from_pretrained("runs/mine/export", device="cpu")      # doctest: +SKIP
        """
        resolve_device(device)  # before reading anything
        return cls(load_pretrained(name_or_dir), device, dtype)

    def save_pretrained(self, directory: str | os.PathLike[str], dtype: str = "float16") -> None:
        """Write the model as a checkpoint directory (see `molcmim.pretrained.save_pretrained`)."""
        save_pretrained(
            directory,
            self.network,
            self.tokenizer,
            objective=self.config["objective"],
            training=self.config["training"],
            scales=self.config["scales"],
            card=self._card or None,
            policy=self.config["policy"],
            name=self.config["name"],
            dtype=dtype,
            mixture=self.mixture,
        )

    def __repr__(self) -> str:
        facts = f"model_id={self.model_id!r}, device={str(self.device)!r}, dtype={self.dtype!r}"
        return f"MolCMIM({self.config['name']!r}, {facts})"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.embedding.weight.device

    @property
    def objective(self) -> str:
        """Name of the objective that the model was trained with."""
        return str(self.config["objective"]["name"])

    # ------------------------------------------------------------------------------------------ vectors

    def embed(
        self,
        smiles: Iterable[object],
        kind: str = "both",
        batch_size: int = 256,
        exact: bool = False,
        on_error: str = "nan",
        policy: str = "canonical",
        workers: int | None = None,
        progress: bool = False,
    ) -> FloatArray:
        """Embed molecules: n in, n rows out, in order.

        Parameters
        ----------
        smiles
            List, tuple, pandas Series or NumPy array of SMILES; RDKit molecules, None and NaN are fine too.
        kind
            ``"latent"``: mu of the posterior, (n, L). ``"informative"``: mean of the decoder's last hidden
            states when it reads the molecule itself, (n, D). ``"both"``: the two side by side, each scaled
            to about unit norm, (n, L + D).
        batch_size
            Most molecules that go through the model at once.
        exact
            Compute in batches of fixed shapes, so that a row's bits don't depend on the other rows (on one
            kind of device, build of torch and number of threads); `batch_size` plays no part then. Slower
            for few molecules.
        on_error
            ``"nan"``: rows that can't be embedded are NaN. ``"raise"``: they are a ValueError.
        policy
            How SMILES are prepared: ``"canonical"`` (RDKit's canonical isomeric SMILES), ``"parent"``
            (largest fragment, neutralised) or ``"none"`` (tokens of the text as given).
        workers
            Processes that parse; default: none for short lists, else one for each CPU core.
        progress
            Show a progress bar on stderr.

        Returns
        -------
        (n, d) float32

        Raises
        ------
        TypeError
            If `smiles` is a single string: pass a list.
        ValueError
            If an option is not one of those above, `kind` needs a decoder that the model hasn't got, or
            ``on_error="raise"`` and a row is bad.

        Examples
        --------
        >>> x = model.embed(["CCO", "not a molecule"])                     # doctest: +SKIP
        >>> np.isnan(x).all(axis=1)                                        # doctest: +SKIP
        array([False,  True])
        """
        return self.embed_with_status(
            smiles, kind, batch_size, exact, on_error, policy, workers, progress
        ).embedding

    def embed_with_status(
        self,
        smiles: Iterable[object],
        kind: str = "both",
        batch_size: int = 256,
        exact: bool = False,
        on_error: str = "nan",
        policy: str = "canonical",
        workers: int | None = None,
        progress: bool = False,
    ) -> EmbedResult:
        """As `embed`, with the status and the canonical SMILES of every row.

        Examples
        --------
        >>> result = model.embed_with_status(["OCC", "C1CC"])              # doctest: +SKIP
        >>> [str(status) for status in result.status], result.canonical_smiles     # doctest: +SKIP
        (['ok', 'parse_error'], ['CCO', None])
        """
        check_kind(kind, self.objective)
        rows = self._rows(smiles, on_error, policy, workers)
        with row_bar(len(rows.ok), progress) as advance:
            options = EmbedOptions(batch_size, exact, self.dtype, advance)
            embedding = embed_rows(self.network, rows, kind, self.config["scales"], options, self.objective)
        return EmbedResult(embedding, rows.status, rows.canonical_smiles)

    def log_prob(
        self,
        smiles: Iterable[object],
        batch_size: int = 256,
        exact: bool = False,
        on_error: str = "nan",
        policy: str = "canonical",
        workers: int | None = None,
        progress: bool = False,
    ) -> FloatArray:
        """log p(x | z = mu(x)) of each molecule in nats, <eos> counted: how familiar it is to the model.

        Other parameters and errors as for `embed`. Longer molecules have lower values by nature.

        Returns
        -------
        (n,) float32, NaN in bad rows.
        """
        self.need_decoder("log_prob")
        rows = self._rows(smiles, on_error, policy, workers)
        result = np.full(len(rows.status), np.nan, dtype=np.float32)
        ok = rows.ok
        with row_bar(len(ok), progress) as advance:
            options = EmbedOptions(batch_size, exact, self.dtype, advance)
            tokens = [rows.tokens[i] or [] for i in ok]
            result[ok] = score_tokens(self.network, tokens, options, self.objective, row_numbers=ok)
        return result

    # ------------------------------------------------------------------------------------------ SMILES

    def decode(self, z: npt.ArrayLike, batch_size: int = 512) -> list[str | None]:
        """Write the SMILES of latent vectors, greedily (the most likely next token each time).

        Parameters
        ----------
        z
            (n, L) latent vectors, or (n, L + D) embeddings of kind ``"both"``, whose latent part is taken.
        batch_size
            Rows decoded at once.

        Returns
        -------
        list
            n SMILES texts, not checked for validity. None where the row of `z` isn't finite (bad rows of
            `embed`) or the decoder hadn't finished at the model's token limit: a molecule is never cut.

        Raises
        ------
        ValueError
            If the shape is another one, or the model has no decoder.

        Examples
        --------
        >>> model.decode(model.embed(["CC(=O)Oc1ccccc1C(=O)O"], kind="latent"))    # doctest: +SKIP
        ['CC(=O)Oc1ccccc1C(=O)O']
        """
        self.need_decoder("decode")
        return write(self, self.latent_part(z), Decoding(batch_size=batch_size))

    # ------------------------------------------------------------------------------------------ shared

    def _rows(self, smiles: Iterable[object], on_error: str, policy: str, workers: int | None) -> TokenRows:
        if on_error not in ("nan", "raise"):
            raise ValueError(f"on_error: expected 'nan' or 'raise', got {on_error!r}")
        given = to_text_list(smiles)
        rows = tokenize_rows(given, self.tokenizer, self.network.config.max_tokens, policy, workers)
        if on_error == "raise":
            raise_bad_rows(given, rows.status)
        return rows

    def latent_part(self, z: npt.ArrayLike) -> FloatArray:
        """The latent vectors (n, L) of latent vectors, or of embeddings (n, L + D) of kind ``"both"``.

        Raises
        ------
        ValueError
            If the shape is another one.
        """
        vectors = np.asarray(z, dtype=np.float32)
        latent, both = self.network.config.latent, self.network.config.latent + self.network.config.width
        if vectors.ndim != 2 or vectors.shape[1] not in (latent, both):
            raise ValueError(
                f"z: expected shape (n, {latent}) or, of kind 'both', (n, {both}), got {vectors.shape}"
            )
        if vectors.shape[1] == both:
            vectors = vectors[:, :latent] / np.float32(self.config["scales"]["latent"])
        return vectors

    def need_decoder(self, what: str) -> None:
        """Refuse (ValueError) a method that needs a decoder, for a model trained without one."""
        if not has_decoder(self.objective):
            raise ValueError(
                f"{what}: expected a model with a decoder, got objective {self.objective!r}, which has none"
            )


def raise_bad_rows(given: Sequence[object], status: Sequence[Status]) -> None:
    """ValueError that names the first row whose status isn't `ok`; nothing if all are."""
    bad = [i for i, value in enumerate(status) if value is not Status.ok]
    if bad:
        first = bad[0]
        raise ValueError(
            f"row {first}: {_short(given[first])} can't be used: {status[first].value} "
            f"({len(bad)} bad of {len(status)} rows)"
        )


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The torch device of that name, cuda or else the CPU for None; ValueError if it isn't there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        built = (
            f"torch {torch.__version__} was built without CUDA"
            if torch.version.cuda is None
            else "torch sees no GPU"
        )
        raise ValueError(f"device: expected a CUDA GPU for {str(device)!r}, but {built}; use device='cpu'")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: expected cuda:0 to cuda:{torch.cuda.device_count() - 1}, got {str(device)!r}"
        )
    return resolved


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 10]}... ({len(str(value))} characters)"
