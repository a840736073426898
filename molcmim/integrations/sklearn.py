"""scikit-learn: SMILES in, embeddings out, as a step of a pipeline.

>>> from sklearn.linear_model import Ridge                                    # doctest: +SKIP
>>> from sklearn.pipeline import make_pipeline                                # doctest: +SKIP
>>> make_pipeline(MolCMIMTransformer(), Ridge()).fit(smiles, y)               # doctest: +SKIP
"""

# Axes: n molecules, d features.

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from molcmim.chem import POLICIES
from molcmim.integrations import check_choice, config_of, feature_names, load, log_bad_rows, missing, one_column

if TYPE_CHECKING:
    from molcmim.embed import FloatArray
    from molcmim.integrations import ModelLike

try:
    from sklearn.base import BaseEstimator, TransformerMixin
except ImportError as error:
    raise missing("scikit-learn", "sklearn", error) from error


class MolCMIMTransformer(TransformerMixin, BaseEstimator):
    """Embeddings of molecules as a scikit-learn transformer. Nothing is fitted: the model is pretrained.

    Parameters
    ----------
    model
        Name of a shipped model, a checkpoint directory, or a loaded `MolCMIM`; default: the default model. Names and
        directories are read on the first `transform` of a process; a loaded model is shared by clones, not copied.
    kind
        ``"latent"``, ``"informative"`` or ``"both"``, see `MolCMIM.embed`.
    policy
        How SMILES are prepared: ``"canonical"``, ``"parent"`` or ``"none"``.
    batch_size
        Most molecules that go through the model at once.
    exact
        Fixed shapes, so that a row's bits don't depend on the other rows.
    on_error
        ``"nan"``: a row that can't be embedded is NaN, and a warning is logged (put an imputer behind if there may be
        such rows). ``"raise"``: it is a ValueError. Rows are never dropped: `y` would no longer belong to them.
    device, dtype
        As for `MolCMIM.from_pretrained`; None: its defaults, or what a loaded model has.
    workers
        Processes that parse, see `MolCMIM.embed`; use 0 where many searches run side by side already.

    Attributes
    ----------
    model_id_ : str
        Id of the weights at `fit`. Later calls refuse other weights: what was learned behind wouldn't hold.
    n_features_in_ : int
        1, the column of molecules.
    """

    def __init__(
        self,
        model: ModelLike = None,
        kind: str = "both",
        policy: str = "canonical",
        batch_size: int = 256,
        exact: bool = False,
        on_error: str = "nan",
        device: Any = None,
        dtype: str | None = None,
        workers: int | None = None,
    ) -> None:
        self.model = model
        self.kind = kind
        self.policy = policy
        self.batch_size = batch_size
        self.exact = exact
        self.on_error = on_error
        self.device = device
        self.dtype = dtype
        self.workers = workers

    def fit(self, X: Any, y: Any = None) -> MolCMIMTransformer:
        """Check the options and the shape of `X`; no molecule is looked at and no weights are read.

        Raises
        ------
        CheckpointError
            If there is no such model.
        ValueError
            If an option isn't one of those above, or `X` has more than one column.
        TypeError
            If `X` is a single molecule or a sparse matrix.
        """
        one_column(X)
        check_choice("policy", self.policy, POLICIES)
        check_choice("on_error", self.on_error, ("nan", "raise"))
        feature_names(self.model, self.kind)
        self.model_id_ = config_of(self.model)[1]
        self.n_features_in_ = 1
        return self

    def transform(self, X: Any) -> FloatArray:
        """Embed molecules: n in, n rows out, in order.

        Parameters
        ----------
        X
            n SMILES (or RDKit molecules, None, NaN) as a list, Series, (n,) or (n, 1) array, or a data frame of one
            column.

        Returns
        -------
        (n, d) float32, or what `set_output` asks for

        Raises
        ------
        CheckpointError
            If the model is missing or damaged.
        ValueError
            If an option or the shape is wrong, the model's weights aren't those of `fit`, or ``on_error="raise"`` and
            a row is bad.
        """
        rows = one_column(X)
        self._check_model_id()
        model = load(self.model, self.device, self.dtype)
        result = model.embed_with_status(
            rows, self.kind, self.batch_size, self.exact, self.on_error, self.policy, self.workers
        )
        log_bad_rows(result.status, "their rows are NaN")
        return result.embedding

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """(d,) names: ``molcmim_latent0`` ..., ``molcmim_informative0`` .... `input_features` plays no part."""
        self._check_model_id()
        return np.array([f"molcmim_{name}" for name in feature_names(self.model, self.kind)], dtype=object)

    def _check_model_id(self) -> None:
        now = config_of(self.model)[1]
        fitted = getattr(self, "model_id_", now)
        if now != fitted:
            raise ValueError(f"model: expected the weights that fit saw, model_id {fitted}, got {now}; fit again")

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # one column is taken, numbers aren't
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []  # float32, whatever comes in
        tags.requires_fit = False
        return tags

    def __sklearn_clone__(self) -> MolCMIMTransformer:
        """A clone that shares a loaded model, which is never changed; scikit-learn would copy the weights."""
        without_model = copy.copy(self)
        without_model.model = None
        clone: MolCMIMTransformer = super(MolCMIMTransformer, without_model).__sklearn_clone__()
        clone.model = self.model
        return clone
