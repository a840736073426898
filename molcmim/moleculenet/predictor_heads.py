"""Fitted heads to and from skops files, with a list of the types that may be in one.

A skops file is a zip archive of a JSON tree and plain .npy arrays. Each node of the tree names the type of an object
and the way to make it. All names are compared with the lists here before skops sees the file; it then compares them
with its own list, and builds the objects without calling code that the file names.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

# What a head consists of. Anything else in a file is refused by name.
CONTAINERS = ("builtins.bytearray", "builtins.dict", "builtins.list", "builtins.str", "builtins.tuple")
ARRAYS = ("numpy.ndarray", "numpy.float32", "numpy.float64", "numpy.int32", "numpy.int64", "numpy.bool")
ESTIMATORS = (
    "molcmim.moleculenet.estimators.Standardise",
    "numpy.random.mtrand.RandomState",
    "sklearn.compose._target.TransformedTargetRegressor",
    "sklearn.ensemble._forest.RandomForestClassifier",
    "sklearn.ensemble._forest.RandomForestRegressor",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.linear_model._ridge.Ridge",
    "sklearn.neighbors._classification.KNeighborsClassifier",
    "sklearn.neighbors._regression.KNeighborsRegressor",
    "sklearn.neural_network._multilayer_perceptron.MLPClassifier",
    "sklearn.neural_network._multilayer_perceptron.MLPRegressor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.preprocessing._label.LabelBinarizer",
    "sklearn.svm._classes.SVC",
    "sklearn.svm._classes.SVR",
    "sklearn.tree._classes.DecisionTreeClassifier",
    "sklearn.tree._classes.DecisionTreeRegressor",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRegressor",
)
TYPES = frozenset((*CONTAINERS, *ARRAYS, *ESTIMATORS))
#: skops' ways to make an object; those that call a function, look up a method or import a name are not among them
LOADERS = frozenset(
    {
        "BytearrayNode",
        "DictNode",
        "JsonNode",
        "ListNode",
        "NdArrayNode",
        "ObjectNode",
        "RandomStateNode",
        "TreeNode",
        "TupleNode",
        "TypeNode",
    }
)


class PredictorError(ValueError):
    """A saved predictor that is missing, damaged, changed, too new, or of another model; the message says which."""


def dump_heads(estimators: list[Any], where: str) -> bytes:
    """The heads as bytes of a skops file.

    Raises
    ------
    PredictorError
        If a head has a type that isn't on the lists: it could not be read again.
    ImportError
        Without skops.
    """
    data = bytes(_skops().dumps(estimators, compression=zipfile.ZIP_DEFLATED))
    check_types(data, where)
    return data


def _skops() -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(f"saved predictors need skops ({error}): pip install 'molcmim[benchmark]'") from error
    return skops.io


def load_heads(data: bytes, where: str) -> list[Any]:
    """The heads in a skops file, if nothing else is in it.

    Raises
    ------
    PredictorError
        If it isn't a skops file, or names a type or a way to make objects that isn't on the lists; says which.
    """
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import Pipeline

    io_ = _skops()
    check_types(data, where)
    try:
        heads = io_.loads(data, trusted=list(ESTIMATORS))
    except Exception as error:  # a malformed file can fail anywhere in skops, NumPy or scikit-learn
        raise PredictorError(f"{where}: can't be read: {type(error).__name__}: {error}") from error
    if not isinstance(heads, list) or not all(isinstance(h, Pipeline | TransformedTargetRegressor) for h in heads):
        raise PredictorError(f"{where}: expected a list of pipelines, got something else")
    return heads


def check_types(data: bytes, where: str) -> None:
    """PredictorError unless every object in a skops file is of `TYPES`, made in one of the ways of `LOADERS`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, NotImplementedError) as error:
        raise PredictorError(f"{where}: not a skops file: {error}") from error
    foreign = set()
    for node in _nodes(schema):
        name, loader = f"{node.get('__module__')}.{node.get('__class__')}", str(node["__loader__"])
        if name not in TYPES:
            foreign.add(name)
        elif loader not in LOADERS:
            foreign.add(f"{name} by {loader}")
    if foreign:
        raise PredictorError(
            f"{where}: holds types that no head has, and was not loaded: {', '.join(sorted(foreign)[:5])}"
        )


def _nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every object that a skops schema describes."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__loader__" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
