"""Heads: the small models that predict a measured value from frozen features.

| name | regression | classification | chosen on inner folds |
|---|---|---|---|
| `ridge` | ridge regression | logistic regression | alpha, C |
| `svm` | SVR, RBF kernel | SVC, RBF kernel | C |
| `knn` | k nearest neighbours, Euclidean | the same | k; features standardised or as they are |
| `knn-cosine` | k nearest neighbours, cosine | the same | the same |
| `mlp` | one hidden layer of 256, early stopping on 15 % of its training rows | the same | - |
| `rf` | random forest, 300 trees | the same | - |
| `xgb` | XGBoost, depth 6 | the same | number of trees |

All but the unscaled neighbours see features standardised on the training rows (`Standardise`). `make_estimator`
gives a head as a scikit-learn estimator. `predictions` gives what those estimators predict for every entry of a
grid, sharing work among the entries (one kernel for all C, one boosting run for all numbers of trees).
"""

# Axes: n training rows, m test rows, d features, k neighbours.

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.moleculenet.estimators import NoFeatures, Standardise
from molcmim.moleculenet.metrics import HIGHER_IS_BETTER, MAIN_METRIC, scores
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION, Array, Rows

HEADS = ("ridge", "svm", "knn", "knn-cosine", "mlp", "rf", "xgb")

INTERRUPTED = "Training interrupted by user"  #: what scikit-learn's MLP warns of

Params = dict[str, Any]
Grid = Sequence[Params]

ALPHAS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)  #: ridge penalties
LOGISTIC_COSTS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  #: inverse penalties of logistic regression
COSTS = (0.3, 1.0, 3.0, 10.0)  #: C of the SVM (those of the `spec5` protocol)
EPSILON = 0.1  #: of the SVR, in standard deviations of the target
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
ROUNDS = (25, 50, 100, 200)  #: trees of XGBoost
TREES = 300  #: of the random forest


class CannotFit(ValueError):
    """The training rows don't allow a model: one class only, or a constant target."""


def grid(head: str, task: str, n: int, d: int, wide: bool = False) -> list[Params]:
    """Hyper-parameters to choose from; a single entry where there is nothing to choose.

    Parameters
    ----------
    n, d
        Training rows and features.
    wide
        The larger grid of the protocol `paper`: C and gamma of the SVM, size and weight decay of the MLP.

    Raises
    ------
    ValueError
        If there is no such head or task.
    """
    check_head(head, task)
    if head == "svm":
        if wide:
            return [{"C": c, "gamma": f / d} for c in (0.1, 1.0, 10.0, 100.0) for f in (0.1, 0.3, 1.0, 3.0)]
        return [{"C": c, "gamma": "auto"} for c in COSTS]
    if head == "ridge":
        return [{"alpha": a} for a in ALPHAS] if task == REGRESSION else [{"C": c} for c in LOGISTIC_COSTS]
    if head.startswith("knn"):
        ks = [k for k in NEIGHBOURS if k < n] or [1]
        return [{"k": k, "scaled": scaled} for scaled in (True, False) for k in ks]
    if head == "xgb":
        return [{"rounds": rounds} for rounds in ROUNDS]
    if head == "mlp" and wide:
        return [{"hidden": hidden, "alpha": a} for hidden in (128, 512) for a in (1e-4, 1e-2)]
    return [{}]


def check_head(head: str, task: str) -> None:
    """ValueError unless there is such a head and task."""
    if head not in HEADS:
        raise ValueError(f"head: expected one of {', '.join(HEADS)}, got {head!r}")
    if task not in (REGRESSION, CLASSIFICATION):
        raise ValueError(f"task: expected {REGRESSION!r} or {CLASSIFICATION!r}, got {task!r}")


def make_estimator(head: str, task: str, params: Params, seed: int = 0) -> Any:
    """An unfitted scikit-learn estimator, `params` being an entry of `grid`.

    Its `fit` takes features (n, d), missing entries NaN, and targets (n,); see `class_scores` for classes.
    """
    check_head(head, task)
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps = Pipeline(
        [
            ("standardise", Standardise(scale=params.get("scaled", True))),
            ("head", _bare_estimator(head, task == CLASSIFICATION, params, seed)),
        ]
    )
    if task == REGRESSION and head in ("svm", "mlp"):  # which are not indifferent to the target's scale
        return TransformedTargetRegressor(steps, transformer=StandardScaler())
    return steps


def _bare_estimator(head: str, classes: bool, params: Params, seed: int) -> Any:
    """The head itself, to be fitted on standardised features."""
    if head == "ridge":
        from sklearn.linear_model import LogisticRegression, Ridge

        return LogisticRegression(C=params["C"], max_iter=2000, tol=1e-5) if classes else Ridge(alpha=params["alpha"])
    if head == "svm":
        from sklearn.svm import SVC, SVR

        shared = {"C": params["C"], "gamma": params["gamma"], "cache_size": 1000}
        return SVC(**shared) if classes else SVR(epsilon=EPSILON, **shared)
    if head.startswith("knn"):
        from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

        metric = "cosine" if head == "knn-cosine" else "euclidean"
        kind = KNeighborsClassifier if classes else KNeighborsRegressor
        return kind(params["k"], weights="distance", metric=metric, algorithm="brute")
    if head == "mlp":
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        return (MLPClassifier if classes else MLPRegressor)(
            hidden_layer_sizes=(params.get("hidden", 256),),
            alpha=params.get("alpha", 1e-3),
            batch_size=64,
            early_stopping=True,
            validation_fraction=0.15,
            max_iter=300,
            random_state=seed,
        )
    if head == "rf":
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        return (RandomForestClassifier if classes else RandomForestRegressor)(
            TREES, max_features="sqrt", random_state=seed
        )
    from xgboost import XGBClassifier, XGBRegressor

    return (XGBClassifier if classes else XGBRegressor)(
        n_estimators=params["rounds"],
        learning_rate=0.1,
        max_depth=6,
        subsample=0.8,
        colsample_bytree=0.2,
        tree_method="hist",
        max_bin=64,  # of few thousand rows; 256 take three times as long
        n_jobs=1,
        random_state=seed,
    )


def fitted(estimator: Any, x: npt.ArrayLike, y: Array) -> Any:
    """The estimator, fitted on (n, d) features and (n,) targets.

    Ctrl-C is a KeyboardInterrupt: scikit-learn's MLP would warn and return what it has learned by then.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=INTERRUPTED)
        try:
            return estimator.fit(x, y)
        except UserWarning as warning:
            if INTERRUPTED in str(warning):
                raise KeyboardInterrupt from warning
            raise


def class_scores(estimator: Any, x: npt.ArrayLike) -> Array:
    """(m,) scores of a fitted classifier, higher for class 1: decision function, or probability."""
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(x), dtype=np.float64)
    return np.asarray(estimator.predict_proba(x)[:, 1], dtype=np.float64)


def predict_with(estimator: Any, task: str, x: npt.ArrayLike) -> Array:
    """(m,) predicted values of a fitted estimator; scores of class 1 for a classifier."""
    if task == CLASSIFICATION:
        return class_scores(estimator, x)
    return np.asarray(estimator.predict(x), dtype=np.float64)


def check_trainable(task: str, y: Array) -> None:
    """CannotFit if the training targets (n,) are of one class, constant, or fewer than two."""
    if len(y) < 2:
        raise CannotFit(f"{len(y)} labelled training rows")
    if y.min() == y.max():
        what = "one class in the training part" if task == CLASSIFICATION else "constant target in the training part"
        raise CannotFit(what)


def predictions(
    head: str, task: str, x_train: npt.ArrayLike, y_train: Array, x_test: npt.ArrayLike, grid: Grid, seed: int = 0
) -> list[Array]:
    """What the head predicts for the test rows with each entry of a grid.

    The same numbers as ``make_estimator(head, task, entry, seed).fit(x_train, y_train)`` gives, up to rounding.

    Parameters
    ----------
    x_train, x_test
        (n, d) and (m, d) features; non-finite entries are missing ones.
    y_train
        (n,) targets without NaN; classes 0.0 and 1.0.

    Returns
    -------
    list of (m,) float64, one for each entry: values, or scores of class 1.

    Raises
    ------
    CannotFit
        If the training targets are constant, or no feature varies.
    ValueError
        If there is no such head or task.
    """
    check_head(head, task)
    y = np.asarray(y_train, dtype=np.float64)
    check_trainable(task, y)
    try:
        return _predictions(head, task, np.asarray(x_train), y, np.asarray(x_test), grid, seed)
    except NoFeatures as error:
        raise CannotFit(str(error)) from error


def _predictions(head: str, task: str, x_train: Array, y: Array, x_test: Array, grid: Grid, seed: int) -> list[Array]:
    if head.startswith("knn"):
        return _knn(head, x_train, y, x_test, grid)
    if head in ("svm", "ridge", "xgb"):
        standardise = Standardise().fit(x_train)
        x, x_new = standardise.transform(x_train), standardise.transform(x_test)
        if head == "svm":
            return _svm(task, x, y, x_new, grid)
        if head == "xgb":
            return _xgb(task, x, y, x_new, grid, seed)
        return _ridge(x, y, x_new, grid) if task == REGRESSION else _logistic(x, y, x_new, grid)
    results = []
    for params in grid:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=_convergence_warning())  # of the MLP: `max_iter` is a limit
            estimator = fitted(make_estimator(head, task, params, seed), x_train, y)
        results.append(predict_with(estimator, task, x_test))
    return results


def _convergence_warning() -> type[Warning]:
    from sklearn.exceptions import ConvergenceWarning

    return ConvergenceWarning


def _svm(task: str, x: Array, y: Array, x_new: Array, grid: Grid) -> list[Array]:
    """SVM with the kernel made here by one matrix product: libsvm's own loop takes several times as long."""
    from sklearn.metrics.pairwise import euclidean_distances
    from sklearn.svm import SVC, SVR

    square, square_new = euclidean_distances(x, squared=True), euclidean_distances(x_new, x, squared=True)
    results: list[Array] = []
    kernels: dict[Any, tuple[Array, Array]] = {}
    for params in grid:
        gamma = 1.0 / x.shape[1] if params["gamma"] == "auto" else params["gamma"]
        if gamma not in kernels:
            kernels = {gamma: (np.exp(-gamma * square), np.exp(-gamma * square_new))}  # one at a time
        kernel, kernel_new = kernels[gamma]
        shared = {"kernel": "precomputed", "C": params["C"], "cache_size": 1000}
        if task == CLASSIFICATION:
            results.append(SVC(**shared).fit(kernel, y).decision_function(kernel_new))
        else:
            center, scale = y.mean(), y.std()
            model = SVR(epsilon=EPSILON, **shared).fit(kernel, (y - center) / scale)
            results.append(model.predict(kernel_new) * scale + center)
    return results


def _ridge(x: Array, y: Array, x_new: Array, grid: Grid) -> list[Array]:
    """Ridge regression through one Gram matrix for all penalties, of rows or of columns, whichever are fewer."""
    from scipy.linalg import cho_factor, cho_solve

    mean, center = x.mean(axis=0), y.mean()
    x, x_new, y = x - mean, x_new - mean, y - center
    by_rows = len(x) < x.shape[1]
    gram = x @ x.T if by_rows else x.T @ x
    results = []
    for params in grid:
        factor = cho_factor(gram + params["alpha"] * np.eye(len(gram)))
        weights = x.T @ cho_solve(factor, y) if by_rows else cho_solve(factor, x.T @ y)  # (d,)
        results.append(x_new @ weights + center)
    return results


def _logistic(x: Array, y: Array, x_new: Array, grid: Grid) -> list[Array]:
    """Logistic regression, each penalty starting from the solution of the one before."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=2000, tol=1e-5, warm_start=True)
    results = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=_convergence_warning())
        for params in grid:
            model.set_params(C=params["C"]).fit(x, y)
            results.append(np.asarray(model.decision_function(x_new), dtype=np.float64))
    return results


def _knn(head: str, x_train: Array, y: Array, x_test: Array, grid: Grid) -> list[Array]:
    """Neighbours by distance, found once for all k; weights 1 / distance, as scikit-learn has them."""
    from sklearn.neighbors import NearestNeighbors

    metric = "cosine" if head == "knn-cosine" else "euclidean"
    found: dict[bool, tuple[Array, Rows]] = {}
    results = []
    for params in grid:
        scaled = params["scaled"]
        if scaled not in found:
            most = max(entry["k"] for entry in grid if entry["scaled"] == scaled)
            standardise = Standardise(scale=scaled).fit(x_train)
            index = NearestNeighbors(n_neighbors=most, metric=metric, algorithm="brute")
            index.fit(standardise.transform(x_train))
            found[scaled] = index.kneighbors(standardise.transform(x_test))
        distance, row = (part[:, : params["k"]] for part in found[scaled])  # (m, k)
        with np.errstate(divide="ignore"):
            weight = 1.0 / distance
        same = np.isinf(weight)  # neighbours at distance 0 count alone
        weight = np.where(same.any(axis=1, keepdims=True), same, weight)
        results.append((weight * y[row]).sum(axis=1) / weight.sum(axis=1))
    return results


def _xgb(task: str, x: Array, y: Array, x_new: Array, grid: Grid, seed: int) -> list[Array]:
    """One boosting run of the most rounds, read off after each number of rounds."""
    most = max(params["rounds"] for params in grid)
    model = _bare_estimator("xgb", task == CLASSIFICATION, {"rounds": most}, seed).fit(x, y)
    results = []
    for params in grid:
        rounds = (0, params["rounds"])
        if task == CLASSIFICATION:
            results.append(model.predict_proba(x_new, iteration_range=rounds)[:, 1].astype(np.float64))
        else:
            results.append(model.predict(x_new, iteration_range=rounds).astype(np.float64))
    return results


def choose(
    head: str,
    task: str,
    x: npt.ArrayLike,
    y: Array,
    folds: Sequence[tuple[Rows, Rows]],
    seed: int = 0,
    candidates: Grid | None = None,
) -> Params:
    """The entry of the grid with the best mean main metric (RMSE, ROC-AUC) over inner folds.

    Parameters
    ----------
    x, y
        (n, d) features and targets of the outer training rows: (n,), or (n, t) for several tasks, which then
        share one choice. NaN: no label.
    folds
        Pairs of row positions to fit on and to judge on.
    candidates
        Default: `grid`.

    Returns
    -------
    dict
        In folds where nothing can be fitted or judged no entry has a score; with no score at all it is the middle
        entry of the grid. Of equal ones it is the first.
    """
    features, targets = np.asarray(x), np.asarray(y, dtype=np.float64).reshape(len(y), -1)
    smallest = min((len(fit) for fit, _ in folds), default=len(features))
    entries = list(candidates) if candidates is not None else grid(head, task, smallest, features.shape[1])
    if len(entries) == 1:
        return dict(entries[0])
    metric = MAIN_METRIC[task]
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
    values = []  # one row a fold and task, one column an entry
    for fit, judge in folds:
        for target in targets.T:
            fit_on, judge_on = fit[~np.isnan(target[fit])], judge[~np.isnan(target[judge])]
            try:
                tried = predictions(head, task, features[fit_on], target[fit_on], features[judge_on], entries, seed)
            except CannotFit:
                continue
            # tasks of a regression set may have other units, so errors count in standard deviations
            unit = 1.0 if task == CLASSIFICATION else float(target[fit_on].std())
            y = target[judge_on]
            values.append([sign * scores(y, found, task, (metric,))[metric] / unit for found in tried])
    table = np.array(values, dtype=np.float64).reshape(-1, len(entries))
    table = table[np.isfinite(table).all(axis=1)]
    if not len(table):
        return dict(entries[len(entries) // 2])
    return dict(entries[int(np.argmax(table.mean(axis=0)))])
