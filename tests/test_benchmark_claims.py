"""examples/images and benchmarks/claims: objectives on images, cells that are computed once, geometry, tables."""

from __future__ import annotations

import math
import re
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_scripts import importing
from training import small_corpus

pytest.importorskip("sklearn", reason="needs the `benchmark` extra")
from molcmim import MolCMIM
from molcmim.objective import FACTORS, ObjectiveConfig

ROOT = Path(__file__).parents[1]
FOLDERS = [ROOT / "benchmarks" / "claims", ROOT / "benchmarks" / "recipe", ROOT / "examples" / "images"]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch):
    """Import a script by name; other benchmarks have scripts of the same names."""
    with importing(monkeypatch, *FOLDERS) as load:
        yield load


# ------------------------------------------------------------------------------------------ images


def test_image_losses_are_the_table(scripts):
    """Every factor by hand, for the objectives that need no sampling of anything else."""
    model_of = scripts("image_model")
    torch.manual_seed(0)
    model, x = model_of.ImageModel((1, 8, 8), latent=5), torch.rand(6, 1, 8, 8)
    for name in ("ae", "mim", "cmim", "vae", "cvae"):
        torch.manual_seed(1)
        total, _ = model_of.loss(model, x, ObjectiveConfig(name, tau=0.5, beta=0.3))
        torch.manual_seed(1)
        mu, log_sigma = model.encode(x)
        z = mu + log_sigma.exp() * torch.randn_like(mu) if name != "ae" else mu
        p = torch.sigmoid(model.to_pixels(model.hidden(z))).view_as(x)
        expected = (x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3))
        if "mim" in name:
            normal = torch.distributions.Normal
            expected = expected + 0.5 * normal(mu, log_sigma.exp()).log_prob(z).sum(1)
            expected = expected + 0.5 * normal(0.0, 1.0).log_prob(z).sum(1)
        if "vae" in name:
            prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
            posterior = torch.distributions.Normal(mu, log_sigma.exp())
            expected = expected - 0.3 * torch.distributions.kl_divergence(posterior, prior).sum(1)
        if name.startswith("c"):
            u = torch.nn.functional.normalize(z, dim=1)
            s = (u @ u.T / 0.5).exp()
            others = (s.sum(1) - s.diagonal()) / 5
            expected = expected + torch.log(math.exp(2) / (math.exp(2) + others))
        assert float(total.detach()) == pytest.approx(-float(expected.mean().detach()), rel=1e-4), name
    assert set(model_of.OBJECTIVES) == set(FACTORS) - {"mlm"}


def test_infonce_of_images_sees_moved_images(scripts):
    model_of = scripts("image_model")
    torch.manual_seed(0)
    x = torch.zeros(50, 1, 8, 8)
    x[:, :, 4, 4] = 100.0
    places = {tuple(place) for image in model_of.augment(x) for place in (image[0] > 50).nonzero().tolist()}
    assert places == {(i, j) for i in (3, 4, 5) for j in (3, 4, 5)}
    loss, factors = model_of.loss(model_of.ImageModel((1, 8, 8)), x, ObjectiveConfig("infonce"))
    assert float(loss) == -float(factors["infonce"]) > 0


def test_digits_are_told_apart(scripts, monkeypatch, capsys):
    train_images = scripts("train_images")
    monkeypatch.setattr(sys, "argv", ["train_images.py", "--examples", "3000", "--lr", "0.002"])
    train_images.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["latent", "informative", "both", "reconstruction"]
    assert all(float(line.split()[2]) > 0.9 for line in lines[:3])
    assert float(lines[3].split()[1]) < 30, "of 44 nats with all pixels at one half"


def test_npz_files_of_images(scripts, tmp_path):
    load = scripts("train_images").load
    x, y = np.arange(20 * 9).reshape(20, 3, 3).astype(np.uint8), np.arange(20)
    np.savez(tmp_path / "a.npz", x_train=x[:15], y_train=y[:15], x_test=x[15:], y_test=y[15:, None])
    data = load(tmp_path / "a.npz")
    assert [len(part[1]) for part in data] == [12, 4, 4]
    for images, labels in data:
        np.testing.assert_allclose(images[:, 0].numpy(), x[labels] / 255, rtol=1e-6)
    colours = np.repeat(x[..., None], 3, axis=3)
    np.savez(tmp_path / "b.npz", images=colours, labels=y)
    assert load(tmp_path / "b.npz", 10).train[0].shape == (6, 3, 3, 3)
    np.savez(tmp_path / "c.npz", images=colours, labels=y[:3])
    with pytest.raises(ValueError, match="20 images and 3 labels"):
        load(tmp_path / "c.npz")


# ------------------------------------------------------------------------------------------ cells


def test_cells_are_computed_once(scripts, tmp_path, capsys):
    cells, path = scripts("cells"), tmp_path / "r" / "x.jsonl"
    wanted, done = [{"n": n} for n in range(4)], []

    def work(cell: dict) -> dict:
        done.append(cell["n"])
        if len(done) == 2:
            signal.raise_signal(signal.SIGINT)
        return {"square": cell["n"] ** 2}

    assert cells.compute(path, wanted, work) is False, "stopped after the second"
    with path.open("a") as file:
        file.write('{"cell": {"n": 2}, "resu')  # of a process that was killed
    assert [line["cell"]["n"] for line in cells.read(path)] == [0, 1]
    assert cells.compute(path, wanted, work) is True
    assert done == [0, 1, 2, 3]
    assert [line["result"]["square"] for line in cells.read(path)] == [0, 1, 4, 9]
    size = path.stat().st_size
    assert cells.compute(path, wanted[1:2], work, again=True)
    assert path.stat().st_size == size and '"before": {"square": 1}' in capsys.readouterr().out


def test_learning_rates_are_tried_until_the_best_is_inside(scripts, tmp_path):
    cells, path, ladder = scripts("cells"), tmp_path / "x.jsonl", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    best = {"inside": 4.0, "low": 2.0, "end": 7.0}
    settings = [{"name": name} for name in best]

    def work(cell: dict) -> dict:
        return {"score": -abs(cell["lr"] - best[cell["name"]])}

    def score(result: dict) -> float:
        return result["score"]

    for name, rate in best.items():  # reported at rates that were the best once, and for `inside` still are
        wanted = [{"name": name, "lr": old, "seed": 1} for old in {4.0, rate}]
        assert cells.compute(path, wanted, work)
    assert cells.tune(path, settings, lambda setting: ladder, score, work)
    lines = cells.read(path)
    tried = {name: sorted(cells.tuned(lines, {"name": name}, score)) for name in best}
    assert tried == {"inside": [3.0, 4.0, 5.0], "low": [1.0, 2.0, 3.0, 4.0, 5.0], "end": [3.0, 4.0, 5.0, 6.0, 7.0]}
    kept = cells.without_superseded(lines, score)
    assert {x["cell"]["name"]: x["cell"]["lr"] for x in kept if x["cell"]["seed"]} == best
    assert len(kept) == len(lines) - 2, "the superseded, and none of the cells for tuning"
    size = path.stat().st_size
    assert cells.tune(path, settings, lambda setting: ladder, score, work) and path.stat().st_size == size


def test_image_study_tunes_and_reports(scripts, tmp_path, monkeypatch):
    images = scripts("images")
    monkeypatch.setattr(images, "EXAMPLES", 300)
    monkeypatch.setattr(images, "RATES", (5e-4, 2e-3))
    monkeypatch.setattr(images, "SEEDS", (1, 2))
    monkeypatch.setattr(images, "HEADS", ("knn",))
    wanted = [images.DEFAULT, images.DEFAULT | {"tau": 0.5}, images.DEFAULT | {"objective": "infonce"}]
    monkeypatch.setattr(images, "settings", lambda study: wanted)
    out = tmp_path / "images.jsonl"
    monkeypatch.setattr(sys, "argv", ["images.py", "--study", "tau", "--images", "300", "--out", str(out)])
    images.main()
    lines = scripts("cells").read(out)
    tuning = [line for line in lines if line["cell"].get("seed") == 0]
    assert len(tuning) == 3 * 2
    finals = [line for line in lines if line["cell"].get("seed")]
    assert len(finals) == 6 + 2 and set(finals[0]["result"]["latent"]) == {"knn_all", "knn_few"}
    assert {line["cell"]["lr"] for line in finals if line["cell"]["objective"] == images.UNTRAINED} == {0.0}
    for line in (line for line in finals if line["cell"]["objective"] != images.UNTRAINED):
        mine = [t for t in tuning if all(t["cell"][name] == line["cell"][name] for name in images.DEFAULT)]
        scores = {t["cell"]["lr"]: images.validation_score(t["result"]) for t in mine}
        assert scores[line["cell"]["lr"]] == max(scores.values())
    report = scripts("report_images")
    monkeypatch.setattr(report, "IMAGE_SCORES", ("knn_few", "knn_all"))
    kept = scripts("cells").without_superseded(lines, images.validation_score)
    assert kept == lines, "the untrained model, which no rate was chosen for, too"
    assert "| untrained | both |" in "\n".join(report.image_grid(lines))
    assert "| infonce | latent |" in "\n".join(report.image_grid(lines))
    assert len(report.image_series(lines, "tau")) == 2 + 3


# ------------------------------------------------------------------------------------------ geometry


def test_geometry(scripts):
    geometry, rng = scripts("geometry"), np.random.default_rng(0)
    x = rng.normal(size=(600, 8))
    assert geometry.uniformity(np.ones((9, 4))) == pytest.approx(0)
    assert geometry.uniformity(np.eye(9)) == pytest.approx(-4)
    assert geometry.effective_rank(x) == pytest.approx(8, abs=0.1)
    assert geometry.effective_rank(x * [1, 1, 1, 0, 0, 0, 0, 0]) == pytest.approx(3, abs=0.05)
    angles = np.deg2rad([0, 10, 12, 90, 95])
    assert geometry.nearest(np.c_[np.cos(angles), np.sin(angles)])[:, 0].tolist() == [1, 2, 1, 4, 3]


def test_neighbours_by_structure(scripts):
    smiles = ["c1ccccc1C", "c1ccccc1CC", "C1CCCCC1O", "C1CCCCC1N", "CCO", "CCCO"]
    x = np.repeat(np.eye(3), 2, axis=0) + 0.01 * np.arange(18).reshape(6, 3)
    found = scripts("geometry").neighbour_chemistry(x, smiles)
    assert found["same_scaffold"] == 1.0 and 0.2 < found["tanimoto"] < 0.8


# ------------------------------------------------------------------------------------------ molecules


def test_every_run_of_the_plan_is_a_configuration(scripts):
    variants = scripts("variants")
    plan = variants.load_plan(FOLDERS[0] / "molecules.yaml")
    objectives = {variant.overrides.get("objective.name", "cmim") for variant in plan.variants.values()}
    assert objectives == set(FACTORS)
    assert len(variants.jobs_of(plan, 1, list(plan.variants))) == 28


def test_committed_tables_are_those_of_the_committed_results(scripts):
    report = scripts("report")
    expected = report.text(*report.read_results())
    assert (FOLDERS[0] / "results.md").read_text(encoding="utf-8") == expected


def test_numbers_of_the_write_up_are_in_the_tables():
    """Each number with two digits or more after its point, which none of the numbers that describe the study has."""
    write_up, tables = ((FOLDERS[0] / name).read_text(encoding="utf-8") for name in ("README.md", "results.md"))
    number = re.compile(r"(?<![\d.])\d{1,2}\.\d{2,}(?!\d)")
    stated = set(number.findall(write_up))
    assert len(stated) > 30
    assert stated <= set(number.findall(tables)), sorted(stated - set(number.findall(tables)))


SETS = {"esol": "rmse", "freesolv": "rmse", "lipo": "rmse", "bace": "roc_auc", "bbbp": "roc_auc"}


def molecule_result(score: float, seed: int = 0, kinds: tuple[str, ...] = ("latent", "both"), **fields: Any) -> dict:
    """What study.py writes: R2 and AUC are `score`, RMSE is 1 - `score`; splits differ by a hundredth of it."""
    cells = []
    for name, main in SETS.items():
        for kind in kinds:
            for metric in ("rmse", "r2") if main == "rmse" else (main,):
                mean = 1 - score if metric == "rmse" else score
                values = [mean + 0.01 * score * (split % 3 - 1) for split in range(5)]
                shared = {"set": name, "kind": kind, "metric": metric, "mean": mean, "values": values}
                cells += [shared | {"head": head} for head in ("svm", "knn", "mlp")]
    geometry = {"uniformity": -3.0, "effective_rank": 20.0} | {
        f"neighbour_{what}{where}": 0.25 for what in ("tanimoto", "same_scaffold") for where in ("", "_at_random")
    }
    result = {"status": "ok", "variant": "base", "group": "base", "seed": seed, "overrides": {}, "nats": 12.0}
    result |= {"token_accuracy": 0.9, "exact_reconstruction": 0.25, "sigma_at_floor": 0.5}
    return result | {"yardstick": {"cells": cells, "geometry": geometry}} | fields


@pytest.fixture
def molecule_variants() -> dict[str, list[dict]]:
    objective = {"group": "objective"}
    return {
        "cmim": [molecule_result(0.7, 0), molecule_result(0.8, 1)],
        "mim": [molecule_result(0.7, 0, **objective), molecule_result(0.6, 1, **objective)],
        "infonce": [molecule_result(0.9, 0, ("latent",), nats=None, exact_reconstruction=None, **objective)],
        "vae": [{"status": "diverged", "variant": "vae", "seed": 0, "group": "objective", "overrides": {}}],
        "tau1": [molecule_result(0.75, group="tau", overrides={"objective.tau": 1.0})],
        "latent32": [molecule_result(0.65, group="width", overrides={"model.latent": 32})],
    }


def test_molecule_tables(scripts, molecule_variants):
    report = scripts("report_molecules")
    grid = report.molecule_grid(report.of_objectives(molecule_variants), "svm")
    assert grid[2].startswith("| cmim | latent | 0.250 ± 0.071 | 0.750 ± 0.071 |")
    assert grid[3].startswith("| cmim | informative | n/a | n/a |")
    assert [row.split(" | ")[0] for row in grid[2::3]] == ["| cmim", "| mim", "| infonce", "| vae"]
    assert grid[11].startswith("| vae | latent | diverged |")
    means = report.molecule_means(molecule_variants)
    assert means[2] == "| cmim | latent | 0.750 ± 0.071 | 0.750 ± 0.071 | 0.750 ± 0.071 |"
    facts = report.molecule_facts(report.of_objectives(molecule_variants))
    assert "| 2 | 12.00 ± 0.00 | 0.900 ± 0.000 | 25.0 ± 0.0 | 50.0 ± 0.0 |" in facts[2]
    assert "| 1 | n/a | 0.900 | n/a |" in facts[4] and "| vae | 0 | n/a |" in facts[5]


def test_molecule_contrasts(scripts, molecule_variants):
    report = scripts("report_molecules")
    rows = {tuple(row.split(" | ")[:2]): row.split(" | ")[2] for row in report.rival_contrasts(molecule_variants)}
    assert rows["| cmim, latent", "mim, latent"] == "0.100 ± 0.141; 5 / 0", "ahead on every set, over the seeds' means"
    assert rows["| cmim, latent", "infonce, latent"] == "-0.200; 0 / 5", "of the one seed that both have"
    assert rows["| cmim, both", "infonce, latent"] == "-0.200; 0 / 5", "InfoNCE has no other embedding"
    note = report.untrained_note({"untrained": molecule_variants["infonce"]}, ["esol", "bace"])
    assert note == "The grid's untrained model has, in `latent`: SVM 0.900, kNN 0.900, MLP 0.900."
    assert report.untrained_note(molecule_variants, ["esol"]) == ""
    rows = report.embedding_contrasts(molecule_variants)
    assert rows[2].startswith("| cmim | both against latent | 0.000 ± 0.000; 0 / 0 |")
    assert not any("infonce" in row for row in rows)


def test_molecule_series_and_figures(scripts, molecule_variants, tmp_path):
    report = scripts("report_molecules")
    rows = report.molecule_series(molecule_variants, "tau")
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 0.1", "| 1"]
    assert rows[3].startswith("| 1 | 1 | 0.750 | 0.750 | n/a |")
    rows = report.molecule_series(molecule_variants, "latent")
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| 32", "| 128"]
    report.series_figure(molecule_variants, "latent", tmp_path / "a.png")
    report.objectives_figure(molecule_variants, tmp_path / "b.png")
    assert min((tmp_path / name).stat().st_size for name in ("a.png", "b.png")) > 5000
    text = scripts("report").text([], molecule_variants_with_facts(molecule_variants), [])
    assert "## Molecules: latent width (cMIM)" in text and "(modified)" not in text


def molecule_variants_with_facts(variants: dict[str, list[dict]]) -> dict[str, list[dict]]:
    facts = {"commit": "0123456789", "modified": False, "machine": {"cpu": "a CPU", "torch": "2"}}
    return {name: [result | facts for result in results] for name, results in variants.items()}


def small_batch_study(scripts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """The script and where it writes: 64 molecules a run, two objectives, two rates, batches of 8."""
    batch = scripts("molecules_batch")
    corpus, out = small_corpus(tmp_path, 300, random_smiles=1), tmp_path / "batch.jsonl"
    plan = batch.load_plan(FOLDERS[0] / "molecules.yaml")
    monkeypatch.setattr(batch, "load_plan", lambda path: plan._replace(base={**plan.base, "source_weights": {}}))
    monkeypatch.setattr(batch, "EXAMPLES", 64)
    monkeypatch.setattr(batch, "RATES", (1e-3, 3e-3))
    monkeypatch.setattr(batch, "BATCHES", (8,))
    monkeypatch.setattr(batch, "OBJECTIVES", ("cmim", "infonce"))
    monkeypatch.setattr(sys, "argv", ["molecules_batch.py", "--corpus", str(corpus), "--out", str(out)])
    return batch, out


def test_batch_sizes_on_molecules_are_tuned_and_reported(scripts, tmp_path, monkeypatch):
    batch, out = small_batch_study(scripts, tmp_path, monkeypatch)

    def probe(model: MolCMIM, corpus: Path) -> float:  # cMIM is better at the higher rate, InfoNCE at the lower one
        rate = model.config["training"]["optimizer"]["lr"]
        return rate if model.objective == "cmim" else -rate

    monkeypatch.setattr(batch, "probe_score", probe)
    scored = [{"set": "esol", "kind": "latent", "head": "svm", "metric": "r2", "mean": 0.5}]
    monkeypatch.setattr(batch, "score_sets", lambda model, sets, heads: scored)
    monkeypatch.setattr(batch, "geometry", lambda model, corpus: {"effective_rank": 3.0})
    batch.main()
    lines = scripts("cells").read(out)
    assert len(lines) == 2 * (2 + 2)
    finals = [line["cell"] for line in lines if line["cell"]["seed"]]
    rates = {(cell["objective"], cell["batch"]): cell["lr"] for cell in finals}
    assert rates == {("cmim", 8): pytest.approx(3e-3 / 4), ("infonce", 8): pytest.approx(1e-3 / 4)}
    losses = {line["cell"]["objective"]: line["result"]["loss"] for line in lines}
    assert losses["cmim"] != losses["infonce"] > 0
    report = scripts("report_molecules")
    table = report.molecule_batches(lines)
    assert table[2].startswith("| 8 | cmim | n/a | 0.500 ± 0.000 | n/a |")
    assert len(table) == 2 + 2
    report.batch_figure(lines, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_ctrl_c_in_training_leaves_no_half_trained_cell(scripts, tmp_path, monkeypatch):
    batch, out = small_batch_study(scripts, tmp_path, monkeypatch)
    monkeypatch.setattr(batch, "probe_score", lambda model, corpus: 0.5)
    n_runs, train = [], batch.train

    def interrupted(config: Any) -> Any:
        n_runs.append(1)
        return train(config, on_step=stop)

    def stop(step: int, loss: float) -> None:
        if step == 3 and len(n_runs) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(batch, "train", interrupted)
    with pytest.raises(SystemExit) as ended:
        batch.main()
    assert ended.value.code == 130 and len(n_runs) == 2
    assert len(scripts("cells").read(out)) == 1, "only the cell before"


def test_a_run_that_diverges_is_a_result(scripts, tmp_path, monkeypatch):
    batch = scripts("molecules_batch")

    def diverge(cell: dict, corpus: Path) -> None:
        raise FloatingPointError("loss is nan at step 3")

    monkeypatch.setattr(batch, "run", diverge)
    cell = {"objective": "cmim", "batch": 4, "lr": 1.0, "seed": 0}
    result = batch.measure(cell, tmp_path)
    assert result == {"error": "diverged: loss is nan at step 3"}
    assert batch.probe_of(result) == -np.inf
    table = scripts("report_molecules").molecule_batches([{"cell": {**cell, "seed": 1}, "result": result}])
    assert table[2].startswith("| 4 | cmim | diverged |")

    def fail(cell: dict, corpus: Path) -> None:
        raise ValueError("corpus: not there")

    monkeypatch.setattr(batch, "run", fail)
    with pytest.raises(ValueError, match="not there"):
        batch.measure(cell, tmp_path)
