"""molfeat: embeddings as a pretrained molecule transformer.

>>> MolCMIMTransformer(kind="latent")(["CCO", "c1ccccc1"]).shape              # doctest: +SKIP
(2, 256)
"""

# Axes: n molecules, d features.

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from molcmim.chem import Status, cpu_count
from molcmim.integrations import config_of, feature_names, is_loaded, load, log_bad_rows, missing, one_column

if TYPE_CHECKING:
    from molcmim.integrations import ModelLike

try:
    from molfeat.trans.pretrained import PretrainedMolTransformer
    from molfeat.utils import datatype
except ImportError as error:
    raise missing("molfeat", "molfeat", error) from error


class MolCMIMTransformer(PretrainedMolTransformer):
    """Embeddings of molecules as a pretrained transformer of molfeat.

    Bad rows follow molfeat: an error, or with ``ignore_errors=True`` None in their place (`transform`), or left out
    and missing from the returned positions (calling the object). A warning with the counts is logged.

    There is no cache inside; wrap it in molfeat's ``PrecomputedMolTransformer`` for one.

    Parameters
    ----------
    model
        Name of a shipped model, a checkpoint directory, or a loaded `MolCMIM`; default: the default model. Names and
        directories are read when first needed.
    kind
        ``"latent"``, ``"informative"`` or ``"both"``, see `MolCMIM.embed`.
    policy
        How SMILES are prepared: ``"canonical"``, ``"parent"`` or ``"none"``.
    batch_size
        Most molecules that go through the model at once.
    exact
        Fixed shapes, so that a row's bits don't depend on the other rows.
    device
        As for `MolCMIM.from_pretrained`. (The model computes in float32, or as a loaded one does.)
    n_jobs
        Processes that parse; 1: none but this one; -1: one for each CPU.
    verbose
        As molfeat has it; plays no part.
    dtype
        Of the output: a NumPy or torch type, or ``"df"``.
    **params
        Other options of molfeat's transformers.
    """

    def __init__(
        self,
        model: ModelLike = None,
        kind: str = "both",
        policy: str = "canonical",
        batch_size: int = 256,
        exact: bool = False,
        device: Any = None,
        n_jobs: int = 1,
        verbose: bool = False,
        dtype: Any = np.float32,
        **params: Any,
    ) -> None:
        if params.get("precompute_cache"):
            raise ValueError("precompute_cache: expected None; wrap the transformer in PrecomputedMolTransformer")
        own = {"model": model, "kind": kind, "policy": policy, "batch_size": batch_size, "exact": exact}
        super().__init__(dtype=dtype, n_jobs=n_jobs, verbose=verbose, device=device, **own, **params)

    def transform(self, smiles: Any, ignore_errors: bool = False, **kwargs: Any) -> Any:
        """Embed molecules: n in, n rows out, in order.

        Parameters
        ----------
        smiles
            SMILES or RDKit molecules, many or a single one.
        ignore_errors
            Put None where a row can't be embedded, instead of an error.
        **kwargs
            Ignored, as in molfeat.

        Returns
        -------
        (n, d) array, or a list of n arrays (None in bad rows)
            An array if `dtype` is one of NumPy or ``"df"``, and no row is bad.

        Raises
        ------
        CheckpointError
            If the model is missing or damaged.
        ValueError
            If an option is wrong, or a row is bad and `ignore_errors` is not set.
        """
        if isinstance(smiles, str) or hasattr(smiles, "GetNumAtoms"):
            smiles = [smiles]
        rows = one_column(smiles)
        workers = {1: 0, -1: cpu_count()}.get(self.n_jobs, self.n_jobs)
        result = load(self.model, self.device).embed_with_status(
            rows, self.kind, self.batch_size, self.exact, policy=self.policy, workers=workers
        )
        if not ignore_errors:
            from molcmim.api import raise_bad_rows

            raise_bad_rows(rows, result.status)
        log_bad_rows(result.status, "None in their place")
        if not rows:
            return result.embedding
        pairs = zip(result.embedding, result.status, strict=True)
        features = [vector if status is Status.ok else None for vector, status in pairs]
        return datatype.as_numpy_array_if_possible(features, self.dtype)

    def __call__(self, mols: Any, enforce_dtype: bool = True, ignore_errors: bool = False, **kwargs: Any) -> Any:
        """As `transform`, cast to `dtype`; with `ignore_errors` the good rows only, and their positions.

        Returns
        -------
        (n, d) of type `dtype`, or a pair of that for the m good rows, (m, d), and their m positions in the input
        """
        features = self.transform(mols, ignore_errors=ignore_errors, **kwargs)
        positions = [i for i, feature in enumerate(features) if feature is not None]
        if ignore_errors:
            features = [features[i] for i in positions]
        if self.dtype is not None and enforce_dtype:
            rows = features if len(features) else [np.zeros(len(self))]  # molfeat can't cast nothing
            features = datatype.cast(rows, dtype=self.dtype, columns=self.columns)[: len(features)]
        return (features, positions) if ignore_errors else features

    def _transform(self, mol: Any, **kwargs: Any) -> Any:
        """(d,) of one molecule, None if it can't be embedded."""
        return self.transform([mol], ignore_errors=True)[0]

    def _embed(self, smiles: Any, **kwargs: Any) -> Any:
        """(n, d), for what molfeat's base class does with it."""
        return self.transform(smiles)

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def columns(self) -> list[str]:
        """Names of the d features, the columns of ``dtype="df"``."""
        return [f"molcmim_{name}" for name in feature_names(self.model, self.kind)]

    def to_state_dict(self) -> dict[str, Any]:
        """The options, and the id of the weights, as a dict of JSON types; the weights stay where they are.

        Reading it back with ``MoleculeTransformer.from_state_dict`` needs this module imported, which registers it.

        Raises
        ------
        ValueError
            If `model` is a loaded `MolCMIM`: a state can only name one.
        """
        if is_loaded(self.model):
            raise ValueError(f"model: expected a name or a directory, which a state can hold, got {self.model!r}")
        state: dict[str, Any] = super().to_state_dict()
        if self.model is not None:
            state["args"]["model"] = os.fspath(self.model)
        state["model_id"] = config_of(self.model)[1]
        return state

    def __repr__(self) -> str:
        """Also decides equality in molfeat, so it names all that changes the vectors."""
        _, model_id = config_of(self.model)
        return f"{type(self).__name__}({model_id=}, kind={self.kind!r}, policy={self.policy!r}, dtype={self.dtype!r})"
