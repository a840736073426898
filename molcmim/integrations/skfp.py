"""scikit-fingerprints: embeddings as a neural fingerprint.

>>> MolCMIMFingerprint(kind="latent").transform(["CCO", "c1ccccc1"]).shape    # doctest: +SKIP
(2, 256)
"""

# Axes: n molecules, d features.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from molcmim.chem import POLICIES
from molcmim.integrations import KINDS, feature_names, load, log_bad_rows, missing, one_column

if TYPE_CHECKING:
    from molcmim.api import EmbedResult
    from molcmim.embed import FloatArray
    from molcmim.integrations import ModelLike

try:
    from joblib import effective_n_jobs
    from skfp.bases import BaseFingerprintTransformer
    from skfp.utils import run_in_parallel
    from skfp.utils.parallel import get_tqdm_settings
    from sklearn.utils._param_validation import StrOptions
except ImportError as error:
    raise missing("scikit-fingerprints", "skfp", error) from error

NETWORK_ROWS = 256  # of a forward pass where batch_size is None
PROGRESS_ROWS = 1024  # between two steps of the progress bar


class MolCMIMFingerprint(BaseFingerprintTransformer):
    """Embeddings of molecules as a fingerprint of scikit-fingerprints: dense, float32, of pretrained weights.

    Parameters
    ----------
    kind
        ``"latent"``, ``"informative"`` or ``"both"``, see `MolCMIM.embed`.
    model
        Name of a shipped model, a checkpoint directory, or a loaded `MolCMIM`; default: the default model.
    policy
        How SMILES are prepared: ``"canonical"``, ``"parent"`` or ``"none"``.
    on_error
        ``"nan"``: a row that can't be embedded is NaN, and a warning is logged. ``"raise"``: it is a ValueError; the
        other fingerprints of scikit-fingerprints raise (a TypeError) and lose the batch.
    exact
        Fixed shapes, so that a row's bits don't depend on the other rows.
    device, dtype
        As for `MolCMIM.from_pretrained`; None: its defaults, or what a loaded model has.
    n_jobs
        Processes, each with a model of its own, among which the molecules are divided, on the CPU; on a GPU one
        process does all. None is 1, -1 all CPUs. torch uses several CPUs in one process already, so this pays for
        large inputs only.
    batch_size
        Most molecules that go through the model at once; with several processes also the molecules handed to one at a
        time. None: 256, and as many parts as processes.
    verbose
        1 or a dict of tqdm's options: show a progress bar.

    Attributes
    ----------
    n_features_out : int
        d, of the model and `kind`.
    requires_conformers : bool
        False.
    """

    _parameter_constraints: dict = {  # noqa: RUF012 (scikit-learn's name and form)
        **BaseFingerprintTransformer._parameter_constraints,
        "kind": [StrOptions(set(KINDS))],
        "policy": [StrOptions(set(POLICIES))],
        "on_error": [StrOptions({"nan", "raise"})],
        "exact": ["boolean"],
    }

    def __init__(
        self,
        kind: str = "both",
        model: ModelLike = None,
        policy: str = "canonical",
        on_error: str = "nan",
        exact: bool = False,
        device: Any = None,
        dtype: str | None = None,
        n_jobs: int | None = None,
        batch_size: int | None = None,
        verbose: int | dict[str, Any] = 0,
    ) -> None:
        super().__init__(
            n_features_out=len(feature_names(model, kind)), n_jobs=n_jobs, batch_size=batch_size, verbose=verbose
        )
        self.kind = kind
        self.model = model
        self.policy = policy
        self.on_error = on_error
        self.exact = exact
        self.device = device
        self.dtype = dtype

    def set_params(self, **params: Any) -> MolCMIMFingerprint:
        """Change options; the number of features follows `kind` and `model`."""
        super().set_params(**params)
        self._n_features_out = self.n_features_out = len(feature_names(self.model, self.kind))
        return self

    def transform(self, X: Any, copy: bool = False) -> FloatArray:
        """Embed molecules: n in, n rows out, in order.

        Parameters
        ----------
        X
            SMILES or RDKit molecules, in any mixture; None and NaN are bad rows.
        copy
            Plays no part: `X` isn't changed.

        Returns
        -------
        (n, d) float32, or what `set_output` asks for

        Raises
        ------
        CheckpointError
            If the model is missing or damaged.
        ValueError
            If an option is wrong, or ``on_error="raise"`` and a row is bad.
        """
        self._validate_params()
        rows = one_column(X)
        n_jobs = effective_n_jobs(self.n_jobs)
        progress = get_tqdm_settings(self.verbose, total=len(rows))
        if n_jobs > 1 and len(rows) > 1 and load(self.model, self.device, self.dtype).device.type == "cpu":
            results = run_in_parallel(
                self._embed, rows, n_jobs=n_jobs, batch_size=self.batch_size, verbose=self.verbose
            )
        elif progress["disable"]:
            results = [self._embed(rows)]
        else:
            from tqdm import tqdm

            results = []
            with tqdm(**progress) as bar:
                for start in range(0, max(len(rows), 1), PROGRESS_ROWS):
                    results.append(self._embed(rows[start : start + PROGRESS_ROWS]))
                    bar.update(len(results[-1].status))
        status = [value for result in results for value in result.status]
        if self.on_error == "raise":
            from molcmim.api import raise_bad_rows

            raise_bad_rows(rows, status)
        log_bad_rows(status, "their rows are NaN")
        return np.vstack([result.embedding for result in results])

    def _embed(self, rows: list[object]) -> EmbedResult:
        # parsing stays in this process: n_jobs says how many there are
        return load(self.model, self.device, self.dtype).embed_with_status(
            rows, self.kind, self.batch_size or NETWORK_ROWS, self.exact, policy=self.policy, workers=0
        )

    def _calculate_fingerprint(self, X: Any) -> FloatArray:
        return self._embed(one_column(X)).embedding
