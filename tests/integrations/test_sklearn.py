"""The scikit-learn transformer in scikit-learn's own tools."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SMILES, tiny_checkpoint

pytest.importorskip("sklearn", minversion="1.6", reason="needs scikit-learn 1.6 or newer")

from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

from molcmim import MolCMIM
from molcmim.integrations.sklearn import MolCMIMTransformer
from molcmim.pretrained import CheckpointError

BAD = ["CCO", "C1CC", None, "C", "[Xe]"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("sklearn") / "model")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def transformer(checkpoint: Path) -> MolCMIMTransformer:
    return MolCMIMTransformer(checkpoint, device="cpu")


# ---------------------------------------------------------------------------------------------- check_estimator


class OfNumbers(MolCMIMTransformer):
    """For scikit-learn's checks, which feed rows of numbers: each becomes an alkane, longer for a larger sum."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True  # else there would be no checks at all
        return tags

    def fit(self, X: Any, y: Any = None) -> MolCMIMTransformer:
        return super().fit(self.alkanes(X), y)

    def transform(self, X: Any) -> Any:
        return super().transform(self.alkanes(X))

    @staticmethod
    def alkanes(X: Any) -> Any:
        if hasattr(X, "tocsr"):
            return X  # for the transformer itself to refuse
        return ["C" * (1 + int(abs(np.nansum(row)) * 4) % 20) for row in np.asarray(X)]


NOT_FOR_MOLECULES = {
    "check_complex_data": "refusing complex numbers is for estimators that take numbers",
    "check_dtype_object": "a dict as an entry fails in the sum of the row, in this file",
    "check_estimators_empty_data_messages": "no rows in, no rows out: (0, d), no error",
    "check_fit1d": "a one-dimensional X is what the transformer is for",
    "check_fit2d_predict1d": "a one-dimensional X is what the transformer is for",
    "check_n_features_in": "n_features_in_ is 1, the column of molecules, not the columns of numbers",
    "check_n_features_in_after_fitting": "n_features_in_ is 1, the column of molecules, not those of numbers",
}


def test_check_estimator(checkpoint: Path) -> None:
    """All applicable checks pass, and each of the others fails for its reason: none is listed needlessly."""
    estimator = OfNumbers(str(checkpoint), exact=True, device="cpu")  # the checks compare subsets closely
    results = check_estimator(estimator, expected_failed_checks=NOT_FOR_MOLECULES, on_skip=None, on_fail=None)
    names = {status: {r["check_name"] for r in results if r["status"] == status} for status in ("failed", "xfail")}
    assert names == {"failed": set(), "xfail": set(NOT_FOR_MOLECULES)}
    passed = [r["check_name"] for r in results if r["status"] == "passed"]
    assert len(passed) >= 30
    assert {
        "check_dict_unchanged",
        "check_estimator_sparse_array",
        "check_estimators_pickle",
        "check_fit_idempotent",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_no_attributes_set_in_init",
        "check_transformer_general",
        "check_transformers_unfitted_stateless",
    } <= set(passed)


# ---------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("kind", ["latent", "informative", "both"])
def test_equals_embed(transformer: MolCMIMTransformer, model: MolCMIM, kind: str) -> None:
    x = transformer.set_params(kind=kind).fit_transform(SMILES)
    np.testing.assert_array_equal(x, model.embed(SMILES, kind=kind))
    assert x.dtype == np.float32
    assert x.shape[1] == len(transformer.get_feature_names_out())


def test_the_default_model_is_the_shipped_one() -> None:
    np.testing.assert_array_equal(MolCMIMTransformer().fit_transform(SMILES), MolCMIM.from_pretrained().embed(SMILES))


def test_options_reach_the_model(checkpoint: Path, model: MolCMIM) -> None:
    salt = ["CCO.C", "C"]
    parent = MolCMIMTransformer(checkpoint, policy="parent", device="cpu", exact=True, batch_size=1, workers=0)
    np.testing.assert_array_equal(parent.transform(salt), model.embed(["CCO", "C"], exact=True))
    half = MolCMIMTransformer(checkpoint, dtype="bfloat16", device="cpu").transform(["CCO"])
    expected = MolCMIM.from_pretrained(checkpoint, device="cpu", dtype="bfloat16").embed(["CCO"])
    np.testing.assert_array_equal(half, expected)


def test_bad_rows_are_nan_in_place(
    transformer: MolCMIMTransformer, model: MolCMIM, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "molcmim"):
        x = transformer.fit_transform(BAD)
    np.testing.assert_array_equal(x, model.embed(BAD))
    assert np.isnan(x).all(axis=1).tolist() == [False, True, True, False, True]
    assert np.isfinite(x[[0, 3]]).all()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("3 of 5 molecules have no embedding (")
    with pytest.raises(ValueError, match=r"row 1: 'C1CC' can't be used: parse_error \(3 bad of 5 rows\)"):
        transformer.set_params(on_error="raise").fit_transform(BAD)


def test_every_form_of_one_column(transformer: MolCMIMTransformer, model: MolCMIM) -> None:
    pandas = pytest.importorskip("pandas", reason="Series and DataFrame need pandas")
    expected = model.embed(SMILES)
    column = np.array(SMILES, dtype=object)
    for form in (SMILES, column, column[:, None], pandas.Series(SMILES), pandas.DataFrame({"smiles": SMILES})):
        np.testing.assert_array_equal(transformer.fit_transform(form), expected)
    assert transformer.transform([]).shape == (0, 56)
    with pytest.raises(ValueError, match="X: expected one column of molecules"):
        transformer.fit(np.stack([column, column], axis=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "graph"}, "kind: expected one of"),
        ({"policy": "salt"}, "policy: expected one of"),
        ({"on_error": "drop"}, r"on_error: expected one of \('nan', 'raise'\), got 'drop'"),
    ],
)
def test_wrong_options_are_found_by_fit(transformer: MolCMIMTransformer, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformer.set_params(**options).fit(SMILES)


def test_fit_reads_no_weights_and_no_torch(checkpoint: Path) -> None:
    code = (
        "import sys; from molcmim.integrations.sklearn import MolCMIMTransformer as T; "
        f"t = T({str(checkpoint)!r}).fit(['C']); print(len(t.get_feature_names_out()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["56", "False"]
    with pytest.raises(CheckpointError, match="no checkpoint 'nonsense'"):
        MolCMIMTransformer("nonsense").fit(SMILES)


# ---------------------------------------------------------------------------------------------- scikit-learn's tools


def test_pandas_output_has_names_and_index(transformer: MolCMIMTransformer, model: MolCMIM) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas output")
    index = [f"mol{i}" for i in range(len(SMILES))]
    table = transformer.set_output(transform="pandas").fit_transform(pandas.DataFrame({"smiles": SMILES}, index=index))
    assert table.index.tolist() == index
    assert table.columns[[0, 23, 24, 55]].tolist() == [
        "molcmim_latent0",
        "molcmim_latent23",
        "molcmim_informative0",
        "molcmim_informative31",
    ]
    np.testing.assert_array_equal(table.to_numpy(), model.embed(SMILES))
    assert clone(transformer).fit_transform(SMILES).columns.tolist() == table.columns.tolist()


def test_clone_and_pickle_carry_no_weights(checkpoint: Path, transformer: MolCMIMTransformer, model: MolCMIM) -> None:
    x = transformer.fit_transform(SMILES)
    data = pickle.dumps(transformer)
    assert len(data) < 2000 < (checkpoint / "model.safetensors").stat().st_size
    np.testing.assert_array_equal(pickle.loads(data).transform(SMILES), x)
    twin = clone(transformer)
    assert twin.get_params() == transformer.get_params()
    assert not hasattr(twin, "model_id_")
    np.testing.assert_array_equal(twin.transform(SMILES), x)
    check_is_fitted(twin)  # stateless

    of_loaded = MolCMIMTransformer(model, kind="latent").fit(SMILES)
    assert clone(of_loaded).model is model
    assert clone(make_pipeline(of_loaded, Ridge()))[0].model is model
    assert of_loaded.model is model
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(of_loaded)).transform(SMILES), model.embed(SMILES, kind="latent")
    )


def test_other_weights_than_those_of_fit_are_refused(tmp_path: Path) -> None:
    transformer = MolCMIMTransformer(tiny_checkpoint(tmp_path / "model"), device="cpu").fit(SMILES)
    fitted = transformer.model_id_
    tiny_checkpoint(tmp_path / "model", seed=1)
    with pytest.raises(ValueError, match=f"model: expected the weights that fit saw, model_id {fitted}, got "):
        transformer.transform(SMILES)
    assert transformer.fit(SMILES).transform(SMILES).shape == (len(SMILES), 56)


def test_pipeline_with_bad_rows_and_a_column_transformer(checkpoint: Path, model: MolCMIM) -> None:
    pandas = pytest.importorskip("pandas", reason="a table with a column of SMILES")
    table = pandas.DataFrame({"smiles": pandas.Series(BAD, dtype=object), "dose": [1.0, 2.0, 3.0, 4.0, 5.0]})
    columns = ColumnTransformer([("molecule", MolCMIMTransformer(checkpoint, device="cpu"), ["smiles"])],
                                remainder="passthrough")  # fmt: skip
    x = columns.fit_transform(table)
    np.testing.assert_array_equal(x[:, :-1].astype(np.float32), model.embed(BAD))
    np.testing.assert_array_equal(x[:, -1].astype(float), table["dose"])
    pipeline = make_pipeline(columns, SimpleImputer(), Ridge()).fit(table, [0.0, 1.0, 2.0, 3.0, 4.0])
    assert np.isfinite(pipeline.predict(table)).all()


def test_grid_search_in_two_processes(checkpoint: Path, model: MolCMIM) -> None:
    smiles = ["C" * n + "O" for n in range(1, 13)]
    y = np.arange(12.0)
    pipeline = Pipeline([("embed", MolCMIMTransformer(checkpoint, device="cpu")), ("ridge", Ridge())])
    grid = {"embed__kind": ["latent", "both"], "ridge__alpha": [0.01, 10.0]}
    folds = KFold(3)
    search = GridSearchCV(pipeline, grid, cv=folds, n_jobs=2, scoring="r2", error_score="raise").fit(smiles, y)
    scores = search.cv_results_["mean_test_score"]
    for params, score in zip(search.cv_results_["params"], scores, strict=True):  # as computed without any of it
        x = model.embed(smiles, kind=params["embed__kind"])
        by_hand = [
            Ridge(alpha=params["ridge__alpha"]).fit(x[fit], y[fit]).score(x[test], y[test])
            for fit, test in folds.split(x)
        ]
        np.testing.assert_allclose(score, np.mean(by_hand), rtol=1e-3)
    assert search.best_params_ == search.cv_results_["params"][int(np.argmax(scores))]
    assert search.predict(smiles[:3]).shape == (3,)
