"""benchmarks/flagship: who is ahead on five sets together."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_scripts import importing
from tiny import SMILES, tiny_checkpoint, tiny_model, tiny_tokenizer
from training import small_corpus, small_smiles

pytest.importorskip("sklearn", reason="needs the `benchmark` extra")
from molcmim import MolCMIM
from molcmim.moleculenet.report_data import Score, read_scores
from molcmim.moleculenet.types import Dataset
from molcmim.pretrained import save_pretrained
from molcmim.tokenizer import BpeTokenizer, SmilesTokenizer, load_tokenizer

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch):
    with importing(monkeypatch, ROOT / "benchmarks" / "flagship", ROOT / "benchmarks" / "recipe") as load:
        yield load


@pytest.fixture
def standings(scripts) -> ModuleType:
    return scripts("standings")


@pytest.fixture
def curve(scripts) -> ModuleType:
    return scripts("curve")


def rows(standings: ModuleType) -> list[Score]:
    """Three feature sets: a best by one (two in AUC's hundredths) everywhere, c without the last split of one set."""
    made = []
    for dataset, metric in standings.SETS.items():
        for features, offset in (("a", 0), ("b", 1), ("c", 3)):
            for split in range(5):
                if (features, dataset, split) == ("c", "bbbp", 4):
                    continue
                value = offset + 0.1 * split if metric == "rmse" else 0.9 - 0.02 * offset - 0.001 * split
                made.append(Score(dataset, "random5", features, "svm", split, "", metric, value, 80, 20, 0, 1, "", ""))
    return made


def test_standings(standings):
    table = standings.collect(rows(standings), "random5", "svm")
    assert table.features == ["a", "b"], "c is not complete"
    assert table.scores.shape == (5, 2, 5) and (table.n_train, table.n_test) == (80, 20)
    found = standings.standings(table, "b")
    assert [(row["features"], row["mean_rank"]) for row in found] == [("a", 1.0), ("b", 2.0)]
    assert [row["standardised"] for row in found] == pytest.approx([1, -1])
    assert found[0]["ahead_by"] == pytest.approx(-2) and found[0]["wins"] == 0
    assert "| a | 1.0 | +1.00 | -2.00 |" in standings.markdown(found, "b")
    with pytest.raises(ValueError, match="ours: expected one of a, b"):
        standings.standings(table, "c")
    with pytest.raises(ValueError, match="no results of protocol 'x'"):
        standings.collect(rows(standings), "x", "svm")


def test_means_are_those_of_the_runner(standings):
    """On the committed results: as molcmim.moleculenet.statistics has it from means over splits."""
    from molcmim.moleculenet.statistics import standardised_scores

    path = ROOT / "benchmarks" / "moleculenet" / "results" / "results.csv"
    table = standings.collect(read_scores(path), "random5", "svm")
    found = {row["features"]: row["standardised"] for row in standings.standings(table, "molcmim-tiny:both")}
    expected = dict(zip(table.features, standardised_scores(table.scores.mean(axis=2), True), strict=True))
    assert len(found) >= 15 and found == pytest.approx(expected)
    assert np.isfinite(table.scores).all()


def test_contrasts(scripts, standings, tmp_path, monkeypatch):
    contrasts = scripts("contrasts")
    table = standings.collect(rows(standings), "random5", "svm")
    found = contrasts.contrast(table, "a", "b")
    assert found["esol"]["difference"] == pytest.approx(1) and found["bbbp"]["difference"] == pytest.approx(0.02)
    assert found["standardised"]["difference"] == pytest.approx(2)
    assert contrasts.contrast(table, "b", "a")["lipo"]["difference"] == pytest.approx(-1)
    for ours, theirs in (("a", "c"), ("c", "a"), ("a", "a")):
        with pytest.raises(ValueError, match="expected"):
            contrasts.contrast(table, ours, theirs)

    folder, pair = ROOT / "benchmarks" / "moleculenet" / "results", "molcmim-tiny:both=vicgae"
    words = [str(folder), "--pairs", pair, "--out", str(tmp_path / "pairs.json")]
    monkeypatch.setattr(sys, "argv", ["contrasts.py", *words])
    contrasts.main()
    (row,) = json.loads((tmp_path / "pairs.json").read_text())["contrasts"]
    for name in standings.SETS:
        assert row[name]["low"] < row[name]["difference"] < row[name]["high"]
        assert (row[name]["verdict"] == "tie") is (row[name]["low"] <= 0 <= row[name]["high"])
    lines = (tmp_path / "pairs.md").read_text().splitlines()
    assert lines[2].startswith("| ours | against | esol RMSE |") and lines[2].endswith("| bbbp AUC | standardised |")
    assert lines[4].startswith("| molcmim-tiny:both | vicgae | +0.") and lines[4].count("**+") == 3, "three of the six"


# ------------------------------------------------------------------------------------------ score against computing


def test_a_model_that_scores_like_a_committed_one_stands_where_that_one_stands(curve, standings):
    committed = curve.collect(read_scores(curve.COMMITTED / "results.csv"), curve.PROTOCOL, curve.HEAD)
    expected = {row["features"]: row["standardised"] for row in standings.standings(committed, "molcmim-tiny:both")}
    for name in ("molcmim-tiny:both", "minimol", "floor"):
        means = committed.scores.mean(axis=2)[:, committed.features.index(name)]
        assert curve.standardised(dict(zip(curve.SETS, means, strict=True)), committed) == pytest.approx(expected[name])


def test_the_curve_adds_up_legs_and_measures_each_model_once(curve, scripts, tmp_path, monkeypatch):
    facts = {"step": 7, "flops": 2e12, "molecules": 900, "seconds": 5.0}
    numbers = {"reconstruction_nats": 3.5, "token_accuracy": 0.9, "exact_reconstruction": 0.25}
    tokenizer, made, measured = tiny_tokenizer(), [], []
    for n, earlier in enumerate(([], [{"model_id": "x", **facts}])):
        training = {**facts, "validation": numbers} | ({"earlier_legs": earlier} if earlier else {})
        model, scales = tiny_model(tokenizer.vocab_size, seed=n), {"latent": 1.0, "informative": 1.0}
        words = {"objective": {"name": "cmim"}, "training": training, "scales": scales}
        made.append(save_pretrained(tmp_path / f"m{n}", model, tokenizer, **words))
    assert curve.spent(training) == {"flops": 4e12, "molecules": 1800, "seconds": 10.0}

    def few(name: str, folder: Path) -> Dataset:
        measured.append(name)
        draw, smiles = np.random.RandomState(0), SMILES * 10
        y = draw.rand(len(smiles), 1) if curve.SETS[name] == "rmse" else draw.randint(0, 2, (len(smiles), 1)) * 1.0
        task = "regression" if curve.SETS[name] == "rmse" else "classification"
        return scripts("development").make_dataset(name, task, ["y"], smiles, y)

    monkeypatch.setenv("MOLCMIM_DATA", str(tmp_path))
    monkeypatch.setattr(curve, "load_dataset", few)
    monkeypatch.setattr(sys, "argv", ["curve.py", "--name", "one", *map(str, made), "--out", str(tmp_path)])
    curve.main()
    curve.main()
    assert len(measured) == 2 * 5, "the second call measures nothing"
    records = json.loads((tmp_path / "curve.json").read_text())
    assert [(r["leg"], r["flops"]) for r in records] == [(1, 2e12), (2, 4e12)]
    assert all(-2 < r["scores"]["both"]["esol"] < 0 < r["scores"]["both"]["bace"] < 1 for r in records)
    table = (tmp_path / "curve.md").read_text().splitlines()
    assert table[4].startswith("| one | 1 | 2 | 1 | 3.50 | 25.0 % | latent | ") and "| one | 2 | 4 | 2 |" in table[6]
    assert (tmp_path / "curve.png").stat().st_size > 5000


# ------------------------------------------------------------------------------------------ vocabulary


def test_a_vocabulary_of_given_atoms_and_learned_merges(scripts, tmp_path, monkeypatch, capsys):
    pytest.importorskip("tokenizers")
    vocabulary, molecules = scripts("vocabulary"), small_smiles(400)
    (tmp_path / "a.smi").write_text("".join(f"{text}\n" for text in molecules[:300]))
    (tmp_path / "b.smi").write_text("".join(f"{text}\n" for text in molecules[300:]))
    atoms = SmilesTokenizer.train([*molecules, "[U+6]"])
    atoms.save(tmp_path / "atoms.json")

    def make(atoms: str, size: int, out: str) -> BpeTokenizer:
        files = [f"{tmp_path / 'a.smi'}=0.5", str(tmp_path / "b.smi"), "--atoms", str(tmp_path / atoms)]
        words = ["vocabulary.py", *files, "--size", str(size), "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", words)
        vocabulary.main()
        return load_tokenizer(tmp_path / out)

    size = atoms.vocab_size + 40
    first = make("atoms.json", size, "first.json")
    assert first.atoms == atoms.vocab[4:] and first.vocab_size == size
    assert f"{size} tokens, {atoms.vocab_size - 4} of them atom-level" in capsys.readouterr().out
    assert first.decode(first.encode("[U+6].c1ccccc1C")) == "[U+6].c1ccccc1C"
    second = make("first.json", size + 10, "second.json")
    assert second.atoms == first.atoms and second.merges[:40] == first.merges
    assert 100 < len(vocabulary.sample(f"{tmp_path / 'a.smi'}=0.5")) < 200


# ------------------------------------------------------------------------------------------ shipping


def test_a_shipped_model_comes_with_a_mixture_of_its_own_codes(scripts, tmp_path, monkeypatch):
    ship, export, into = scripts("ship"), tiny_checkpoint(tmp_path / "export", name="some-model"), tmp_path / "models"
    tiny_tokenizer().save(tmp_path / "vocab.json")
    for name, tokenizer in (("same", load_tokenizer(tmp_path / "vocab.json")), ("other", "smiles")):
        (tmp_path / name).mkdir()
        small_corpus(tmp_path / name, 200, tokenizer=tokenizer)
    words = ["ship.py", str(export), "--into", str(into), "--corpus"]
    monkeypatch.setattr(sys, "argv", [*words, str(tmp_path / "other" / "corpus")])
    with pytest.raises(SystemExit):
        ship.main()
    assert not into.exists()
    monkeypatch.setattr(sys, "argv", [*words, str(tmp_path / "same" / "corpus")])
    ship.main()
    shipped, given = (MolCMIM.from_pretrained(path, device="cpu") for path in (into / "some-model", export))
    assert shipped.model_id == given.model_id and given.mixture is None
    assert shipped.mixture.facts["corpus"] == "training part, all sources" and int(shipped.mixture.facts["n"]) > 50
