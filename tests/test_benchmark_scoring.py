"""The scripts of benchmarks/scoring: what they calculate and check, and that each runs, on a small job."""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_scripts import importing
from scoring_tools import run_job
from tiny import tiny_checkpoint
from worker_tools import linux

from molcmim import MolCMIM
from molcmim.scoring.manifest import JobOptions

FOLDER = Path(__file__).parents[1] / "benchmarks" / "scoring"
SMILES = [f"{'C' * (1 + i % 12)}{'NOS'[i % 3]}{'C' * (i // 12)}" for i in range(120)]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch):
    """Import a script by name; other studies have modules of the same names."""
    with importing(monkeypatch, FOLDER) as load:
        yield load


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")


def words(tmp_path: Path, checkpoint: Path, molecules: bool = True) -> list[str]:
    """Options of a small job."""
    given = ["--model", str(checkpoint), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]
    if molecules:
        (tmp_path / "molecules.smi").write_text("\n".join(SMILES) + "\n")
        given += ["--molecules", str(tmp_path / "molecules.smi")]
    return given


def result(tmp_path: Path, name: str) -> dict:
    return json.loads((tmp_path / "results" / f"{name}.json").read_text())


# ------------------------------------------------------------------------------------------------ what is shared


def test_molecules_are_different_and_a_seed_chooses_them(scripts, tmp_path):
    study = scripts("study")
    (tmp_path / "x.smi.gz").write_bytes(gzip.compress(b"C\nCC ethane\n\nC\nCCC\n"))
    chosen = study.read_molecules(tmp_path / "x.smi.gz", 3, 1)
    assert sorted(chosen) == ["C", "CC", "CCC"]
    assert chosen == study.read_molecules(tmp_path / "x.smi.gz", 3, 1)
    with pytest.raises(ValueError, match="at least 4 different SMILES, got 3"):
        study.read_molecules(tmp_path / "x.smi.gz", 4)


def test_commands_are_shown_without_places(scripts):
    given = ["--molecules", "/somewhere/x.smi", "--out=/here", "--work", "/there", "--rows", "5", "--molecules=y"]
    shown = ["--molecules", "MOLECULES", "--rows", "5", "--molecules", "MOLECULES"]
    assert scripts("study").plain(given) == shown


def test_what_was_measured_is_not_measured_again_unless_settings_change(scripts, tmp_path, checkpoint):
    study = scripts("study")
    given = argparse.Namespace(model=str(checkpoint), work=tmp_path / "work", out=tmp_path)
    calls: list[int] = []

    def make() -> dict[str, int]:
        calls.append(1)
        return {"n": len(calls)}

    for rows, wanted in ((1, 1), (1, 1), (2, 2)):
        found = study.Study(given, "some", {"rows": rows}).measure("it", make)
        assert found["n"] == wanted
        assert {"commit", "modified", "cpu_minutes"} <= found.keys()


@linux
def test_memory_of_descendants_is_seen(scripts):
    job = scripts("job")
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    process = subprocess.Popen([sys.executable, "-c", inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # the grandchild is up
    usage = job.memory_of(process.pid)
    process.communicate(b"\n")
    assert process.pid in usage
    assert len(usage) == 2
    assert all(peak > 1000 for peak, _ in usage.values())  # KiB
    assert job.memory_of(process.pid) == {}


# ------------------------------------------------------------------------------------------------ rates


def test_cost_of_a_billion(scripts):
    hours, money = scripts("report").cost(1000.0, 2, 0.04)
    assert hours == pytest.approx(555.56, abs=0.01)
    assert money == pytest.approx(22.22, abs=0.01)


def test_medians_shares_and_ratios(scripts):
    rates = scripts("rates")

    def turn(seconds: float) -> dict:
        return {
            "rows": 100,
            "embedded": 100,
            "seconds": seconds,
            "total_seconds": seconds + 3,
            "waiting_seconds": seconds / 4,
            "model_seconds": seconds / 2,
            "writing_seconds": seconds / 10,
            "cpu": {"chemistry": 1.0, "writing": 1.0, "model": 2.0},
            "bytes_per_row": 7.0,
        }

    found = rates.summary([turn(1.0), turn(4.0), turn(2.0)])
    assert found["rate"] == 50.0
    assert found["startup_seconds"] == 3.0
    assert found["cpu"] == {"chemistry": 0.25, "writing": 0.25, "model": 0.5}
    assert found["wall"] == {"waiting": 0.25, "model": 0.5, "writing": 0.1}
    variants = [{"kind": "both", "compute": "float32", "cores": n, "workers": None} for n in (1, 2)]
    measured = {
        f"{rates.name_of(variant)}, turn {i}": turn(seconds)
        for variant, both in zip(variants, ((4.0, 6.0, 9.0), (2.0, 4.0, 3.0)), strict=True)
        for i, seconds in enumerate(both)
    }
    assert rates.two_cores(measured, variants, 3) == [{"kind": "both", "compute": "float32", "ratio": 2.0}]


def test_every_variant_has_a_name_of_its_own(scripts):
    rates = scripts("rates")
    variants = rates.list_variants((1, 2))
    assert len({rates.name_of(variant) for variant in variants}) == len(variants)
    assert {variant["workers"] for variant in variants if variant["cores"] == 2} == {None, 0, 1}


# ------------------------------------------------------------------------------------------------ hostile rows


def test_hostile_rows_are_scattered_and_each_has_its_status(scripts):
    hostile = scripts("hostile_rows")
    chosen = hostile.attacks(200, 6, 2)
    assert len(chosen) == 200
    assert sum(status == "crash" for _, status in chosen) == 6
    assert sum(status == "timeout" for _, status in chosen) == 2
    rows = hostile.scattered(1000, chosen, 3)
    assert [row for row in rows if isinstance(row, int)] == list(range(1000))
    assert len(rows) == 1200
    at = [i for i, row in enumerate(rows) if not isinstance(row, int)]
    assert at != list(range(at[0], at[0] + 200))  # not all in one place
    with pytest.raises(ValueError, match="expected at least 8 hostile rows, got 7"):
        hostile.attacks(7, 6, 2)


def test_the_check_finds_what_is_wrong(scripts, tmp_path, checkpoint):
    hostile, job = scripts("hostile_rows"), scripts("job")
    model = MolCMIM.from_pretrained(checkpoint, device="cpu")
    rows = hostile.scattered(len(SMILES), hostile.attacks(125, 0, 0), 0)
    job.write_input(tmp_path / "clean.parquet", SMILES)
    hostile.write_rows(tmp_path / "hostile.parquet", SMILES, rows)
    clean, folder = tmp_path / "clean", tmp_path / "hostile"
    for path, target in ((tmp_path / "clean.parquet", clean), (tmp_path / "hostile.parquet", folder)):
        run_job(model, path, target, JobOptions("latent"), 100)
    found = hostile.check(SMILES, rows, {}, clean, folder)
    assert found["wrong_rows"] == []
    assert found["wrong"] == 0
    assert found["rows_out"] == found["rows_in"] == len(rows)
    assert sum(found["expected"].values()) == 125
    assert 0 <= found["largest_difference"] < 1e-5

    at = next(i for i, row in enumerate(rows) if not isinstance(row, int) and row[1] == "parse_error")
    changed = [*rows[:at], (rows[at][0], "crash"), *rows[at + 1 :]]
    assert hostile.check(SMILES, changed, {}, clean, folder)["wrong_rows"] == [
        {"row": at, "id": f"h{at}", "status": "parse_error", "problem": "expected crash"}
    ]
    assert hostile.check(SMILES, [*rows, len(SMILES)], {}, clean, folder)["wrong"] == 1  # a row is missing
    swapped = [SMILES[1], SMILES[0], *SMILES[2:]]
    assert hostile.check(swapped, rows, {}, clean, folder)["wrong"] == 2
    (folder / "part-00000.parquet").unlink()
    assert hostile.check(SMILES, rows, {}, clean, folder)["wrong"] >= 100


# ------------------------------------------------------------------------------------------------ whole scripts


@linux
@pytest.mark.slow
def test_memory_and_hostile_rows_share_the_clean_run(scripts, tmp_path, checkpoint, monkeypatch):
    given = words(tmp_path, checkpoint)
    scripts("memory").main([*given, "--rows", "60", "120", "--formats", "parquet"])
    run = result(tmp_path, "memory")["runs"][0]
    assert run["ratio"]["parent_mib"] == pytest.approx(1, abs=0.1)
    assert run["many"]["worker_mib"] > 10
    assert run["many"]["together_mib"] > run["many"]["worker_mib"]
    assert [(each["allocator"], each["rows"]) for each in result(tmp_path, "memory")["reading"]] == [
        ("mimalloc", 60),
        ("system", 60),
        ("mimalloc", 120),
        ("system", 120),
    ]
    scripts("hostile_rows").main([*given, "--rows", "120", "--share", "1.1", "--crashes", "3", "--timeouts", "1"])
    found = result(tmp_path, "hostile_rows_tiny")
    assert found["clean"] == run["many"]
    for name, n in (("without_timeouts", 0), ("with_timeouts", 1)):
        assert found[name]["check"]["wrong_rows"] == []
        assert found[name]["check"]["statuses"]["crash"] == 3
        assert found[name]["check"]["statuses"].get("timeout", 0) == n
    assert found["timeout"]["rows"] == 1
    assert found["timeout"]["calculated_seconds"] == pytest.approx(12 / found["timeout"]["workers"], abs=0.1)
    report = reported(scripts, tmp_path, monkeypatch)
    assert "## Peak memory" in report
    assert "## 132 hostile rows among 120 clean ones" in report


def test_the_light_model_is_like_the_shipped_one(scripts, tmp_path: Path) -> None:
    scripts("light_model").main([str(tmp_path / "light")])
    light, shipped = MolCMIM.from_pretrained(tmp_path / "light", device="cpu"), MolCMIM.from_pretrained(device="cpu")
    assert light.tokenizer.fingerprint == shipped.tokenizer.fingerprint
    x = light.embed(["CCO", "c1ccccc1", "C" * 300], kind="latent")
    assert x.shape == shipped.embed(["CCO", "c1ccccc1", "C" * 300], kind="latent").shape
    assert np.isfinite(x[:2]).all() and np.isnan(x[2]).all() and not np.allclose(x[0], x[1])


@linux
@pytest.mark.slow
def test_rates_and_plan(scripts, tmp_path, checkpoint, monkeypatch):
    scripts("plan").main([*words(tmp_path, checkpoint, False), "--rows", "3000", "--shard-rows", "1000"])
    (plan,) = result(tmp_path, "plan")["plans"]
    assert (plan["rows"], plan["shards"], plan["bytes"]) == (3000, 3, 12_000)
    assert not (tmp_path / "work" / "plan.smi").exists()
    rates = scripts("rates")
    monkeypatch.setattr(rates, "KINDS", ("latent",))
    monkeypatch.setattr(rates, "COMPUTE", ("float32",))
    monkeypatch.setattr(rates, "WORKERS_OF", ())
    rates.main([*words(tmp_path, checkpoint), "--rows", "100", "--turns", "1", "--cores", "1"])
    found = result(tmp_path, "rates")
    (variant,) = found["variants"]
    assert variant["rate"] > 0
    assert sum(variant["cpu"].values()) == pytest.approx(1, abs=0.001)
    sizes = {each["dtype"]: each["bytes_per_row"] for each in found["sizes"]}
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]
    scripts("number_formats").main([*words(tmp_path, checkpoint), "--rows", "100"])
    for each in result(tmp_path, "number_formats")["formats"]:
        assert 0 < each["median_error"] <= each["largest_error"] < 1e-3
        assert 0 < each["largest_change"] < 0.05 and 0.5 < each["neighbours_kept"] <= 1.0
    report = reported(scripts, tmp_path, monkeypatch)
    assert "### A billion molecules" in report
    assert "## Number formats" in report and "| int8 |" in report
    assert "0.04 USD" in report
    assert "| 3,000 |" in report


def reported(scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What report.py makes of the results of a test."""
    report: ModuleType = scripts("report")
    monkeypatch.setattr(report, "HERE", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    report.main([])
    return (tmp_path / "results.md").read_text()


# ------------------------------------------------------------------------------------------------ committed results


def test_committed_tables_are_those_of_the_committed_results(scripts, tmp_path, monkeypatch):
    report = scripts("report")
    monkeypatch.setattr(report, "HERE", tmp_path)
    report.main([])
    assert (tmp_path / "results.md").read_text() == (FOLDER / "results.md").read_text()


def test_results_say_how_they_were_made():
    for path in (FOLDER / "results").glob("*.json"):
        about = json.loads(path.read_text())["about"]
        assert not about["modified"], path.name
        assert all(len(commit) == 40 for commit in [about["commit"], *about["commits"]])
        assert about["cpu_minutes"] >= 0
