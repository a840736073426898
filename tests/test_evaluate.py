"""benchmarks/tiny: the protocol's terms one by one, reconstruction, and the card of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the `benchmark` extra")
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from tiny import SMILES, tiny_checkpoint, tiny_model, tiny_tokenizer

from molcmim import MolCMIM
from molcmim.generate import reconstruction
from molcmim.moleculenet.types import Dataset
from molcmim.pretrained import CheckpointError, load_pretrained, update_card


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Puts benchmarks/tiny on the import path, as running its script does."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "tiny"))


def test_spec5_score(benchmark: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the protocol written out: splits, choice of C inside the first one, SVR on a standardised target."""
    import evaluate

    rng = np.random.default_rng(1)
    x = rng.normal(size=(150, 4))
    y = 40 * (x[:, 0] * x[:, 1] + 0.3 * rng.normal(size=150)) + 7
    names = [f"{'C' * (i + 1)}O" for i in range(150)]
    dataset = Dataset("own", "own", "regression", ("y",), names, names, y[:, None], np.arange(150))

    def rmse(train: np.ndarray, test: np.ndarray, cost: float) -> float:
        scale = StandardScaler().fit(x[train])
        model = TransformedTargetRegressor(SVR(gamma=1 / 4, C=cost, epsilon=0.1), transformer=StandardScaler())
        predicted = model.fit(scale.transform(x[train]), y[train]).predict(scale.transform(x[test]))
        return float(np.sqrt(np.mean((predicted - y[test]) ** 2)))

    orders = [np.random.RandomState(seed).permutation(150) for seed in range(5)]
    fit, choose = train_test_split(orders[0][:120], test_size=0.2, random_state=99)
    cost = min((0.3, 1.0, 3.0, 10.0), key=lambda c: rmse(fit, choose, c))
    score = evaluate.spec5_score(x, dataset)
    assert score["cost"] == cost
    assert score["splits"] == pytest.approx([rmse(order[:120], order[120:], cost) for order in orders], rel=1e-3)
    assert (score["mean"], score["std"]) == pytest.approx((np.mean(score["splits"]), np.std(score["splits"])))
    x[[3, 7]] = np.nan
    assert evaluate.spec5_score(x, dataset)["not_embedded"] == 2


def test_write_back_gives_the_numbers_of_generate(benchmark: None) -> None:
    import evaluate

    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size)
    rows = [tokenizer.encode(smiles) for smiles in SMILES]
    counts, written = evaluate.write_back(model, rows, batch_size=3)
    reference = reconstruction(model, rows)
    assert counts[:, 0].sum() / counts[:, 1].sum() == pytest.approx(reference.token_accuracy)
    assert counts[:, 1].tolist() == [len(row) + 1 for row in rows]
    assert counts[:, 2].mean() == pytest.approx(reference.nats, rel=1e-5)
    assert np.mean([a == b for a, b in zip(rows, written, strict=True)]) == reference.exact


def test_flat_smiles_ignores_stereo_only(benchmark: None) -> None:
    import evaluate

    assert evaluate.flat_smiles("C[C@H](N)C(=O)O") == evaluate.flat_smiles("OC(=O)[C@H](C)N")
    assert evaluate.flat_smiles("C/C=C/C") == evaluate.flat_smiles("C/C=C\\C")
    assert evaluate.flat_smiles("[13CH4]") != evaluate.flat_smiles("C")
    assert evaluate.flat_smiles("C1CC") is None


def test_embeddings_both_is_latent_and_informative(benchmark: None, tmp_path: Path) -> None:
    import evaluate

    model = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path / "m"))
    parts = evaluate.embeddings(model, SMILES)
    assert parts["both"].shape == (len(SMILES), 56)
    np.testing.assert_allclose(parts["latent"], 0.25 * model.embed(SMILES, kind="latent"), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        parts["informative"], 0.5 * model.embed(SMILES, kind="informative"), rtol=1e-5, atol=1e-6
    )


def test_update_card_leaves_all_else_as_it_was(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "m", card="# old\n")
    before = load_pretrained(directory)
    weights = (directory / "model.safetensors").read_bytes()
    assert update_card(directory, "# new, in µg\n") == directory.resolve()
    after = load_pretrained(directory)  # checks the sha256 of every file
    assert (directory / "README.md").read_text(encoding="utf-8") == "# new, in µg\n"
    assert (directory / "model.safetensors").read_bytes() == weights
    assert after.model_id == before.model_id
    before.config["files"].pop("README.md"), after.config["files"].pop("README.md")
    assert after.config == before.config
    (directory / "model.safetensors").write_bytes(weights[:-1] + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        update_card(directory, "# passed on\n")
    assert (directory / "README.md").read_text(encoding="utf-8") == "# new, in µg\n"


def test_card_says_scores_compute_data_and_licences(benchmark: None, tmp_path: Path) -> None:
    import report

    config = load_pretrained(tiny_checkpoint(tmp_path / "m")).config
    config["objective"] |= {"tau": 0.1, "scaling": "sum"}
    config["training"] = {
        "molecules": 1_500_000, "step": 11719, "batch_size": 128, "seconds": 7200.0, "flops": 1.25e15,
        "optimizer": {"name": "muon", "lr": 0.001, "muon_lr": 0.02}, "schedule": {"name": "wsd"},
        "precision": "bf16", "ema_decay": 0.998, "seed": 0, "source_weights": {"a": 0.3},
        "corpus": {"n_train": 1000, "n_valid": 5, "sources": [{"name": "a", "weight": 1.0, "n": 1005}]},
    }  # fmt: skip
    log = [
        {"event": "start", "device": "cpu", "threads": 2, "world_size": 1, "torch": "2.13.0", "gemm_tflops": 0.2,
         "config": {"reconstruct_molecules": 200}},
        {"event": "validation", "step": 10, "molecules": 1280, "seconds": 60.0, "reconstruction_nats": 9.5,
         "token_accuracy": 0.5, "exact_reconstruction": 0.25},
    ]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    results = {
        "date": "2026-11-24T10:00:00+00:00",
        "machine": {"cpu": "a CPU", "threads": 1, "torch": "2.13.0", "rdkit": "2026.9.1"},
        "model": {"id": "0123456789ab"},
        "reconstruction": {"n": 5000, "not_encoded": 2, "token_accuracy": 0.98, "exact": 0.4, "valid": 0.9,
                           "exact_without_stereo": 0.45, "nats": 3.25, "tokens": 40.0,
                           "exact_by_source": {"a": {"n": 5000, "exact": 0.4}}},
        "spec5": {"esol": {"both": {"n": 1128, "mean": 0.7014, "std": 0.05, "not_embedded": 3}}},
        "training": report.read_logs([tmp_path / "log.jsonl"]),
    }  # fmt: skip
    card = report.card_text(config, results, "## Choices\n\nMuon won.")
    for text in (
        "| exact, greedy decoding | 40.0 % |",
        "5000 held-out molecules, 2 more not encodable",
        "| `both` | 0.701 ± 0.050 |",
        "Rows not embedded: `both` ESOL 3.",
        "| 10 | 0.00 | 1 | 9.50 | 50.0 % | 25.0 % |",
        "Validation during training, on 200 molecules.",
        "1.50 M molecules in 11719 steps of 128: 2.00 hours of training on cpu (processes: 1, threads: 2, torch 2.13.0",
        "1.25e+15 FLOPs",
        "`a` 1,005 (weight 0.3)",
        "CC BY-SA 3.0",
        "CC BY-SA 4.0",
        "Muon won.",
        "## Limits",
        "Only canonical SMILES were seen",
    ):
        assert text in card
    leg = {"model_id": "ba9876543210", "molecules": 500_000, "step": 4000, "seconds": 3600.0, "flops": 0.75e15}
    config["training"]["earlier_legs"] = [leg]
    config["objective"] |= {"encoder_input": "random_smiles", "random_share": 0.5}
    results["training"] = report.read_logs([tmp_path / "log.jsonl", tmp_path / "log.jsonl"])
    card = report.card_text(config, results)
    for text in (
        "| 20 | 0.00 | 2 | 9.50 | 50.0 % | 25.0 % |",
        "2.00 M molecules in 15719 steps of 128: 3.00 hours of training",
        "2.00e+15 FLOPs of matrix products. 2 legs, each from the averaged weights of the one before",
        "Of 50.0 % of the molecules the encoder read a random SMILES",
    ):
        assert text in card
