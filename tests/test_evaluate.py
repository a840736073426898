"""benchmarks/tiny: the protocol's terms one by one, reconstruction, and the card of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the `benchmark` extra")
from rdkit import Chem
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC, SVR
from tiny import SMILES, tiny_checkpoint, tiny_model, tiny_tokenizer

from molcmim import MolCMIM
from molcmim.generate import reconstruction
from molcmim.pretrained import CheckpointError, load_pretrained, update_card


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Puts benchmarks/tiny on the import path, as running its script does."""
    monkeypatch.syspath_prepend(str(root / "benchmarks" / "tiny"))


@pytest.fixture
def protocol(benchmark: None) -> Any:
    import protocol

    return protocol


def test_split_is_the_permutation_of_randomstate_cut_at_80_percent(protocol: Any) -> None:
    train, test = protocol.split(642, seed=3)
    assert (len(train), len(test)) == (513, 129)
    assert np.concatenate((train, test)).tolist() == np.random.RandomState(3).permutation(642).tolist()


def test_inner_split_is_scikit_learns(protocol: Any) -> None:
    for n in (513, 902, 1210, 1631):
        fit, choose = protocol.inner_split(np.arange(n) * 3)
        theirs = train_test_split(np.arange(n) * 3, test_size=0.2, random_state=99)
        assert set(fit) == set(theirs[0])
        assert choose.tolist() == theirs[1].tolist()


def test_standardise_uses_the_training_part_and_clips(protocol: Any) -> None:
    train = np.array([[0.0], [2.0], [4.0], [2.0]])  # mean 2, standard deviation sqrt(2)
    scaled, scaled_test = protocol.standardise(train, np.array([[2.0], [4.0], [1e6], [-1e6]]))
    assert scaled[:, 0] == pytest.approx([-(2**0.5), 0, 2**0.5, 0])
    assert scaled_test[:, 0] == pytest.approx([0, 2**0.5, 10, -10])


def test_standardise_drops_columns_constant_in_training(protocol: Any) -> None:
    train = np.array([[0.1, 5.0], [0.1, 6.0], [0.1, 7.0]])  # the standard deviation of three times 0.1 isn't 0
    scaled, scaled_test = protocol.standardise(train, np.array([[9.0, 6.0]]))
    assert scaled.shape == (3, 1)
    assert scaled_test.tolist() == [[0.0]]
    with pytest.raises(ValueError, match="columns that vary"):
        protocol.standardise(train[:, :1], train[:, :1])


def test_standardise_gives_rows_without_features_the_mean(protocol: Any) -> None:
    nan = np.nan
    train = np.array([[1.0, 2.0], [nan, nan], [3.0, 6.0]])
    scaled, scaled_test = protocol.standardise(train, np.array([[nan, nan], [3.0, 2.0]]))
    assert scaled.tolist() == [[-1, -1], [0, 0], [1, 1]]  # the NaN row counts neither in mean nor deviation
    assert scaled_test.tolist() == [[0, 0], [1, -1]]
    with pytest.raises(ValueError, match="got none"):
        protocol.standardise(train[1:2], train)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_svm_is_scikit_learns_rbf(protocol: Any, task: str) -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(120, 6)), rng.normal(size=120)
    x[:, 2] = 1.0
    y = np.sin(2 * x[:, 0]) * x[:, 1] + 0.5 * noise
    y = (y > 0).astype(float) if task == "classification" else 40 * y + 7
    train, test = protocol.split(120, 0)
    a, b = protocol.standardise(x[train], x[test])
    if task == "classification":
        model = SVC(kernel="rbf", gamma=1 / 5, C=3.0).fit(a, y[train])
        decision, positive = model.decision_function(b), y[test] == 1
        pairs = decision[positive][:, None] - decision[~positive]
        expected = float((pairs > 0).mean() + 0.5 * (pairs == 0).mean())
    else:
        center, scale = y[train].mean(), y[train].std()
        model = SVR(kernel="rbf", gamma=1 / 5, C=3.0, epsilon=0.1).fit(a, (y[train] - center) / scale)
        expected = float(np.sqrt(np.mean((model.predict(b) * scale + center - y[test]) ** 2)))
    got = protocol.svm_scores(x, y, train, test, task, (0.3, 3.0))
    assert got[1] == pytest.approx(expected, abs=1e-3)
    assert got[0] != pytest.approx(expected, abs=1e-3)


def test_evaluate_chooses_cost_inside_the_first_training_part(protocol: Any) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(150, 4))
    y = x[:, 0] * 2 + x[:, 1] + 0.1 * rng.normal(size=150)
    inner = train_test_split(protocol.split(150, 0)[0], test_size=0.2, random_state=99)  # 96 and 24 of 120 rows
    trials = protocol.svm_scores(x, y, *inner, "regression", protocol.COSTS)
    score = protocol.evaluate(x, y, "regression")
    assert score.cost == protocol.COSTS[int(np.argmin(trials))]
    splits = [protocol.svm_scores(x, y, *protocol.split(150, s), "regression", (score.cost,))[0] for s in range(5)]
    assert score.splits == splits
    assert (score.mean, score.std) == pytest.approx((np.mean(splits), np.std(splits)))
    x[[3, 7]] = np.nan
    assert protocol.evaluate(x, y, "regression").not_embedded == 2
    with pytest.raises(ValueError, match=r"expected shape \(150, d\), got \(149, 4\)"):
        protocol.evaluate(x[1:], y, "regression")


def test_floor_counts_of_a_molecule_done_by_hand(protocol: Any) -> None:
    smiles = "C#CC(=O)[O-].Cc1ccncc1 "
    names = ("C", "N", "O", "F", "P", "S", "Cl", "Br", "I", "B", "Si", "aromatic atoms", "charge", "hydrogens",
             "double", "triple", "ring bonds", "rings", "length")  # fmt: skip
    expected = dict.fromkeys(names, 0) | {"C": 9, "N": 1, "O": 2, "aromatic atoms": 6, "charge": -1, "hydrogens": 8}
    expected |= {"double": 1, "triple": 1, "ring bonds": 6, "rings": 1, "length": 23}
    got = protocol.floor_features(Chem.MolFromSmiles(smiles), smiles)
    assert dict(zip(names, got, strict=True)) == expected


def test_sets_leave_out_what_rdkit_cannot_parse(protocol: Any, tmp_path: Path) -> None:
    (tmp_path / "moleculenet").mkdir()
    (tmp_path / "moleculenet" / "BBBP.csv").write_text("num,name,p_np,smiles\n1,a,1,OCC\n2,b,0,C1CC\n3,c,0,CN \n")
    dataset = protocol.load_set(tmp_path, "bbbp")
    assert (dataset.smiles, dataset.y.tolist(), dataset.unparsable) == (["OCC", "CN "], [1.0, 0.0], 1)
    np.savez(tmp_path / "bbbp.npz", smiles=np.array(["OCC", "CN "]), emb=np.ones((2, 3), dtype=np.float16))
    assert protocol.load_peer(tmp_path, "bbbp", dataset.smiles).shape == (2, 3)
    with pytest.raises(ValueError, match="in its order"):
        protocol.load_peer(tmp_path, "bbbp", dataset.smiles[::-1])


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
        "training": report.read_log(tmp_path / "log.jsonl"),
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
    ):
        assert text in card
