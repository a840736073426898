"""DeepChem: embeddings as a featurizer, also of the MoleculeNet loaders.

>>> import deepchem as dc                                                     # doctest: +SKIP
>>> tasks, (train, valid, test), transformers = dc.molnet.load_delaney(       # doctest: +SKIP
...     featurizer=MolCMIMFeaturizer(), splitter="scaffold")
"""

# Axes: n molecules, d features.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from molcmim.chem import Status
from molcmim.integrations import check_choice, config_of, load, log_bad_rows, missing, one_column

if TYPE_CHECKING:
    from molcmim.integrations import ModelLike

try:
    from deepchem.feat import MolecularFeaturizer
except ImportError as error:
    raise missing("DeepChem", "deepchem", error) from error


class MolCMIMFeaturizer(MolecularFeaturizer):
    """Embeddings of molecules as a DeepChem featurizer.

    DeepChem's own featurizers put an empty array where a molecule fails, which makes the array of all rows ragged, and
    its loaders then leave such rows out without a word about how many. Here the default keeps every row and the array
    regular: a row that can't be embedded is NaN, and a warning with the counts is logged.

    What that means in ``dc.molnet.load_*`` and ``dc.data.CSVLoader``: NaN rows stay in the data set with their labels
    and weights, and most models refuse NaN or learn NaN from it. So impute them, select the others with
    ``dataset.select(np.flatnonzero(np.isfinite(dataset.X).all(axis=1)))``, or ask for ``on_error="drop"``, which does
    what DeepChem does, with the warning. Of a SMILES that RDKit can't read, DeepChem's ScaffoldSplitter leaves the row
    out all the same, without a word, and its ButinaSplitter and FingerprintSplitter stop with an error.

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
    on_error
        ``"nan"``: bad rows are NaN. ``"drop"``: they are empty arrays, so that DeepChem's loaders leave them out.
        ``"raise"``: they are a ValueError.
    device, dtype
        As for `MolCMIM.from_pretrained`; None: its defaults, or what a loaded model has.
    workers
        Processes that parse, see `MolCMIM.embed`.
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
        super().__init__()
        check_choice("on_error", on_error, ("nan", "drop", "raise"))
        self.model = model
        self.kind = kind
        self.policy = policy
        self.batch_size = batch_size
        self.exact = exact
        self.on_error = on_error
        self.device = device
        self.dtype = dtype
        self.workers = workers

    def featurize(self, datapoints: Any, log_every_n: int = 1000, **kwargs: Any) -> Any:
        """Embed molecules: n in, n rows out, in order.

        Parameters
        ----------
        datapoints
            SMILES or RDKit molecules, many or a single one.
        log_every_n
            Plays no part: all rows are computed together.
        **kwargs
            Play no part either; ``SDFLoader`` passes atom positions, which no SMILES has.

        Returns
        -------
        (n, d) float32
            With ``on_error="drop"``, and only if there is a bad row, (n,) object instead: arrays of d numbers, or of
            none in bad rows.

        Raises
        ------
        CheckpointError
            If the model is missing or damaged.
        ValueError
            If an option is wrong, or ``on_error="raise"`` and a row is bad.
        """
        if isinstance(datapoints, str) or hasattr(datapoints, "GetNumAtoms"):
            datapoints = [datapoints]
        rows = one_column(datapoints)
        result = load(self.model, self.device, self.dtype).embed_with_status(
            rows,
            self.kind,
            self.batch_size,
            self.exact,
            "raise" if self.on_error == "raise" else "nan",
            self.policy,
            self.workers,
        )
        drop = self.on_error == "drop"
        log_bad_rows(result.status, "DeepChem's loaders drop them" if drop else "their rows are NaN")
        if not drop or all(status is Status.ok for status in result.status):
            return result.embedding
        ragged = np.empty(len(rows), dtype=object)
        for i, status in enumerate(result.status):
            ragged[i] = result.embedding[i] if status is Status.ok else np.empty(0, dtype=np.float32)
        return ragged

    def _featurize(self, datapoint: Any, **kwargs: Any) -> Any:
        """(d,) of one molecule."""
        return self.featurize([datapoint])[0]

    def __str__(self) -> str:
        """Names DeepChem's folder of cached data sets: other weights or options must not find those of these.

        DeepChem's own version leaves out paths, so that two checkpoint directories would share a folder.
        """
        _, model_id = config_of(self.model)
        dtype = self.dtype or getattr(self.model, "dtype", "float32")
        exact = "_exact" if self.exact else ""
        return f"{type(self).__name__}_{model_id}_{self.kind}_{self.policy}_{self.on_error}_{dtype}{exact}"
