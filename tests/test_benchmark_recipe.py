"""benchmarks/recipe: what is compared, the yardstick's arithmetic, how the study goes on, its tables."""

from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from benchmark_scripts import importing

pytest.importorskip("sklearn", reason="needs the `benchmark` extra")
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION

FOLDER = Path(__file__).parents[1] / "benchmarks" / "recipe"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch):
    """Import a script by name; other benchmarks have scripts of the same names."""
    with importing(monkeypatch, FOLDER) as load:
        yield load


# ------------------------------------------------------------------------------------------ variants and rounds


def test_every_variant_is_a_configuration_that_differs_from_the_base(scripts):
    variants = scripts("variants")
    plan = variants.load_plan(FOLDER / "variants.yaml")
    made = {
        json.dumps(
            variants.configuration(plan, variant, {"max_flops": 8}, Path("c"), Path("o"), 0).to_dict() | {"name": ""}
        )
        for variant in plan.variants.values()
    }
    assert len(made) == len(plan.variants)
    core = [variant for variant in plan.variants.values() if not variant.optional]
    assert 25 <= len(core) <= 40
    base = variants.configuration(plan, plan.variants["base"], {"max_flops": 8}, Path("c"), Path("o"), 3)
    assert (base.schedule.max_flops, base.seed, base.threads, base.corpus) == (8, 3, 1, "c/atom")


def test_an_unknown_field_is_an_error(scripts, tmp_path):
    text = (FOLDER / "variants.yaml").read_text() + "  wrong: {group: size, set: {model.wdith: 3}}\n"
    (tmp_path / "v.yaml").write_text(text)
    with pytest.raises(ValueError, match="wdith"):
        scripts("variants").load_plan(tmp_path / "v.yaml")


def small_plan(scripts) -> Any:
    v = scripts("variants")
    names = {name: v.Variant(name, "g", {}) for name in ("base", "a", "b", "c", "d")}
    names["late"] = v.Variant("late", "g", {}, from_round=2)
    names["extra"] = v.Variant("extra", "g", {}, optional=True)
    rounds = {1: v.Round(1, {}, 1, 2), 2: v.Round(2, {}, 1, 1, 0.5), 3: v.Round(3, {}, 2, 2, 1)}
    return v.Plan({"schedule": {}}, names, rounds)


def test_rounds_keep_the_best_and_the_base(scripts):
    v, plan = scripts("variants"), small_plan(scripts)
    assert v.contenders(plan, 1, {}) == ["base", "a", "b", "c", "d"]
    assert v.contenders(plan, 1, {}, everything=True)[-1] == "extra"
    before = {"a": 0.1, "base": 0.9, "b": 0.5, "c": 0.3, "d": 0.2}
    assert v.contenders(plan, 2, before) == ["base", "b", "c", "late"]
    assert v.contenders(plan, 3, before) == ["base", "b"]
    with pytest.raises(ValueError, match="round before"):
        v.contenders(plan, 2, {})
    jobs = [job.name for job in v.jobs_of(plan, 1, ["base", "a"])]
    assert jobs == ["base_1_0", "a_1_0", "base_1_1"]
    plan.variants["a"] = plan.variants["a"]._replace(seeds=2)
    assert [job.name for job in v.jobs_of(plan, 1, ["b", "a"])] == ["b_1_0", "a_1_0", "a_1_1"]


# ------------------------------------------------------------------------------------------ the development group


def test_nothing_is_read_of_the_final_table(scripts, tmp_path):
    development = scripts("development")
    assert not set(development.NAMES) & set(development.FORBIDDEN)
    for name in development.FORBIDDEN:
        with pytest.raises(ValueError, match="final table"):
            development.read_set(name, tmp_path)


def test_probes_that_count_are_none_that_a_model_is_trained_on(scripts):
    from molcmim.corpus_chem import PROPERTY_SETS

    development = scripts("development")
    trained = {name.lower().replace("calc", "") for name in PROPERTY_SETS["morgan"]}
    assert not {name.lower().replace(" ", "") for name in development.UNTRAINED} & trained
    assert {"crippenclogp", "tpsa", "fractioncsp3", "numatomstereocenters"} <= trained
    assert "probes-known" not in development.COUNTED
    sets = development.probe_sets(["CCO", "c1ccccc1CC", "C[C@H](N)C(=O)O", "[Na+].CCCC"])
    assert sets[0].y[:, list(development.UNTRAINED).index("diameter")] == pytest.approx([2, 5, 3, 3], abs=0.1)
    assert sets[1].y[2, -1] == pytest.approx(1, abs=0.1)


def test_rows_keep_all_actives_and_tasks_have_most_labels(scripts):
    development = scripts("development")
    y = np.full((100, 2), np.nan)
    y[:60, 0], y[50:90, 1] = 0, 0
    y[[3, 55], 0] = 1
    rows = development.choose_rows(y, development.SetPlan(10, (), keep_actives=True))
    assert len(rows) == 10 and {3, 55} <= set(rows.tolist()) and rows.max() < 90
    y = np.tile([0.0, 1.0], (4, 50)).T
    y[:50, 1] = np.nan
    y[:, 2] = 0
    assert development.choose_tasks(y, ["a", "b", "c", "TOX21_d"], 3, 0.1) == [0, 1]


@pytest.mark.parametrize("task", [REGRESSION, CLASSIFICATION])
def test_folds_test_every_molecule_once_and_spread_actives(scripts, task):
    development = scripts("development")
    y = np.zeros((90, 2))
    y[:6, 0], y[3:33, 1] = 1, 1
    names = [f"{'C' * (i + 1)}O" for i in range(90)]
    part = development.make_folds(development.make_dataset("x", task, ["a", "b"], names, y))
    assert sorted(np.concatenate([fold.test for fold in part.folds]).tolist()) == list(range(90))
    for fold in part.folds:
        assert not set(fold.train) & set(fold.test) and len(fold.train) == 60
        if task == CLASSIFICATION:
            assert y[fold.test, 0].sum() == 2


def test_cache_gives_the_same_set(scripts, tmp_path):
    development = scripts("development")
    y = np.array([[1.0, np.nan], [0.0, 1.0]])
    made = [
        development.cached(tmp_path, "x", CLASSIFICATION, make)
        for make in (lambda: development.make_dataset("x", CLASSIFICATION, ["a", "b"], ["C", "CC"], y), None)
    ]
    assert made[0].sha256 == made[1].sha256 and made[1].canonical == ["C", "CC"]
    np.testing.assert_array_equal(made[1].y, y)


# ------------------------------------------------------------------------------------------ the yardstick


def test_summary_is_the_share_of_the_way_from_floor_to_reference(scripts):
    develop = scripts("develop")
    names = develop.NAMES
    references = {"floor": dict.fromkeys(names, 0.5), "rdkit2d": dict.fromkeys(names, 0.9)}
    rows = [
        {"set": name, "task": task, "head": "svm", "kind": kind, "score": score}
        for name in names
        for kind, score in (("latent", 0.5), ("both", 0.8), ("informative", 0.1))
        for task in "ab"
    ]
    rows += [{"set": "probes-known", "task": "c", "head": "svm", "kind": "both", "score": -50.0}]
    found = develop.conclude(rows, references, ("latent", "both"))
    assert found["summary"] == pytest.approx((0 + 0.75) / 2), "probes-known and informative don't count"
    assert found["summary_by_kind"]["informative"] == pytest.approx(-1)


def test_scores_of_a_set_find_what_is_linear(scripts):
    development, develop = scripts("development"), scripts("develop")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 5))
    y = np.column_stack([x @ rng.normal(size=5), rng.normal(size=240)])
    names = [f"{'C' * (i + 1)}O" for i in range(240)]
    part = development.make_folds(development.make_dataset("x", REGRESSION, ["signal", "noise"], names, y))
    scores = {(row["task"], row["head"]): row["score"] for row in develop.score_set(x, part)}
    assert scores["signal", "ridge"] > 0.99 and scores["signal", "svm"] > 0.8
    assert scores["noise", "ridge"] < 0.1
    assert scores.keys() == {(task, head) for task in ("signal", "noise") for head in develop.HEADS}


def test_references_of_other_data_are_refused(scripts, tmp_path):
    development, develop = scripts("development"), scripts("develop")
    data = development.make_dataset("x", REGRESSION, ["a"], [f"{'C' * i}O" for i in range(9)], np.ones((9, 1)))
    group = {"x": development.make_folds(data)}
    path = tmp_path / "references.json"
    path.write_text(json.dumps({"digest": development.digest(group), "floor": {"x": 1}}))
    assert develop.read_references(group, path)["floor"] == {"x": 1}
    path.write_text(json.dumps({"digest": "other"}))
    with pytest.raises(ValueError, match="measured on other data"):
        develop.read_references(group, path)


def test_text_jump(scripts):
    compare = scripts("textjump").compare
    x = np.eye(4)
    assert compare(x, x) == {"n": 4, "jump": pytest.approx(0), "self_retrieval": 1.0}
    half = x + np.roll(x, 1, axis=0)  # 45 degrees from its own and from another one
    assert compare(x, half)["jump"] == pytest.approx(1 - 0.5**0.5)
    assert compare(x, x[[1, 0, 2, 3]]) == {"n": 4, "jump": pytest.approx(0.5), "self_retrieval": 0.5}
    half[2] = np.nan
    assert compare(x, half)["n"] == 3


def test_subset_is_a_share_by_hash(scripts):
    chosen = scripts("subset").chosen
    texts = [f"C{i}" for i in range(4000)]
    part = {text for text in texts if chosen(text, 0.25)}
    assert abs(len(part) / 4000 - 0.25) < 0.03
    assert part <= {text for text in texts if chosen(text, 0.5)}
    others = [{text for text in texts if chosen(text, 0.25, start)} for start in (0.25, 0.5, 0.75)]
    assert set.union(part, *others) == set(texts) and sum(map(len, others)) == len(texts) - len(part)


# ------------------------------------------------------------------------------------------ the study


def result_of(variant: str, summary: float, seed: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "variant": variant, "group": "g", "round": 1, "seed": seed, "status": "ok", "limit": {"max_flops": 8e12},
        "nats": 20.0,
        "token_accuracy": 0.8, "exact_reconstruction": 0.1, "molecules": 40000, "steps": 300, "parameters": 4_000_000,
        "molecules_per_cpu_second": 80.0, "commit": "a" * 40, "modified": False,
        "machine": {"cpu": "x", "cores": 2, "torch": "2"},
        "yardstick": {
            "summary": summary, "nats": 20.0,
            "summary_by_kind": {"latent": summary, "informative": summary, "both": summary},
            "standardised": {name: {"both": summary} for name in ("qm8", "probes")},
            "text_jump": {"both": {"jump": 0.4, "self_retrieval": 0.5}},
        },
        **changes,
    }  # fmt: skip


@pytest.fixture
def study(scripts, tmp_path, monkeypatch):
    """A study whose processes are made up: training of `d` diverges, develop.py scores by the variant's name."""
    module = scripts("study")
    arguments = argparse.Namespace(
        corpora=tmp_path / "c", out=tmp_path / "o", results=tmp_path / "r", only=None, all=False,
        score=Path("develop.py"),
    )  # fmt: skip
    plan = small_plan(scripts)
    schedule = SimpleNamespace(progress=lambda step, seconds, cpu, flops: flops / 8)
    fixed = {"to_dict": dict, "compile": False, "precision": "float32", "schedule": schedule}
    monkeypatch.setattr(module, "configuration", lambda *a: SimpleNamespace(**fixed))
    made = module.Study(arguments, plan, SimpleNamespace(requested=False), None)
    made.calls = []

    def call(command: list[str], log: Path) -> tuple[int, str]:
        made.calls.append((log.parent.name, threading.current_thread().name))
        variant = log.parent.name.split("_")[0]
        if command[0] == "-m":
            (log.parent / "log.jsonl").write_text(json.dumps({"parameters": 7}) + "\n")
            log.write_text("...\nFloatingPointError: loss is nan\n" if variant == "d" else "")
            final = dict.fromkeys(("molecules", "step", "seconds", "cpu_seconds", "token_accuracy"), 960)
            final |= {"reconstruction_nats": 9.0, "exact_reconstruction": 0.0, "flops": made.flops}
            return (1, "") if variant == "d" else (0, "progress\n" + json.dumps(final) + "\n")
        score = {"base": 0.4, "a": 0.5, "b": 0.3, "c": 0.6}[variant]
        (log.parent / "develop.json").write_text(json.dumps({"summary": score, "scores": [1], "digest": "x"}))
        return 0, ""

    made.call, made.flops, made.arguments, made.module = call, 8.1, arguments, module
    return made


def test_a_round_runs_once_and_the_best_go_on(study):
    module = study.module
    jobs = module.plan_round(study, 1, study.arguments)
    module.run_jobs(study, jobs, 2)
    found = {path.stem: json.loads(path.read_text()) for path in study.results.glob("*.json")}
    assert sorted(found) == ["a_1_0", "b_1_0", "base_1_0", "base_1_1", "c_1_0", "d_1_0"]
    assert found["a_1_0"]["yardstick"] == {"summary": 0.5, "digest": "x"}
    assert found["a_1_0"]["molecules_per_cpu_second"] == 1.0 and found["a_1_0"]["status"] == "ok"
    assert (found["d_1_0"]["status"], found["d_1_0"]["stage"]) == ("diverged", "training")
    assert module.plan_round(study, 1, study.arguments) == [], "finished ones are skipped"
    following = [job.name for job in module.plan_round(study, 2, study.arguments)]
    assert following == ["base_2_0", "c_2_0", "a_2_0", "late_2_0"]
    (study.results / "a_1_0.json").unlink()
    assert [job.name for job in module.plan_round(study, 1, study.arguments)] == ["a_1_0"]
    study.arguments.only = "b,a"
    assert [job.name for job in module.plan_round(study, 2, study.arguments)] == ["b_2_0", "a_2_0"]
    study.arguments.only = "z"
    with pytest.raises(ValueError, match="no variants"):
        module.plan_round(study, 1, study.arguments)


def test_a_run_that_was_stopped_leaves_no_result(study):
    study.flops = 7.9  # of 8
    study.module.run_jobs(study, study.module.plan_round(study, 1, study.arguments), 1)
    assert not list(study.results.glob("*.json"))
    assert len(study.calls) == 1


# ------------------------------------------------------------------------------------------ tables


def test_tables_are_sorted_and_say_the_difference_to_the_base(scripts):
    pytest.importorskip("matplotlib")
    report = scripts("report")
    results = [
        result_of("base", 0.4), result_of("base", 0.5, 1), result_of("better", 0.6),
        {**result_of("bad", 0.0), "status": "diverged", "stage": "training"},
    ]  # fmt: skip
    rows = report.merged(results)
    assert [row["variant"] for row in rows] == ["better", "base", "bad"]
    lines = report.table(rows)
    assert "| better | g | 0.600 | +0.150 |" in lines[2]
    assert "| base (2 seeds) | g | 0.450 | +0.000 |" in lines[3]
    assert "diverged in training" in lines[4]
    assert len({line.count("|") for line in lines}) == 1
    assert report.spread(rows) == (pytest.approx(0.5**0.5 * 0.1), 1)
    assert "## Round 1: 8 TFLOP a run" in report.text({1: results}, False)


def test_committed_tables_are_those_of_the_committed_results(scripts, tmp_path):
    report = scripts("report")
    rounds = report.read(FOLDER / "results")
    assert report.text(rounds, bool(rounds)) == (FOLDER / "results.md").read_text()


def test_committed_references_cover_every_set(scripts) -> None:
    path = FOLDER / "references.json"
    if not path.is_file():
        pytest.skip("not measured yet")
    found: dict[str, Any] = json.loads(path.read_text())
    module: ModuleType = scripts("develop")
    for name in module.COUNTED:
        assert found["floor"][name] < found["rdkit2d"][name], name
