"""Verbs on latent vectors: what is drawn and decoded, rows in = rows out, the same seed gives the same table."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import SMILES, tiny_checkpoint

from molcmim import CheckpointError, MolCMIM, decoding, sampling
from molcmim.chem import Prepared, Status, prepare_many
from molcmim.mixture import Mixture
from molcmim.pretrained import load_pretrained, save_mixture
from molcmim.sampling import fit_mixture, posterior_sigma, radius_in

ASPIRIN, SALICYLIC = "CC(=O)Oc1ccccc1C(=O)O", "O=C(O)c1ccccc1O"
IBUPROFEN, IBUPROFEN_OTHERWISE = "CC(C)Cc1ccc(C(C)C(=O)O)cc1", "OC(=O)C(C)c1ccc(CC(C)C)cc1"
L = 24


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("sampling") / "tiny")


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def shipped() -> MolCMIM:
    return MolCMIM.from_pretrained(device="cpu")


@pytest.fixture
def mixture() -> Mixture:
    means = np.array([[0.0] * L, [5.0] * L, [-5.0] * L])
    return Mixture(np.array([0.5, 0.5, 0.0]), means, np.full((3, L), 0.1), {"note": "x"})


# ---------------------------------------------------------------------------------------------- mixture


def test_draws_follow_the_mixture_and_rows_do_not_depend_on_n(mixture: Mixture) -> None:
    z = mixture.draw(4000, seed=1)
    assert z.shape == (4000, L)
    assert z.dtype == np.float32
    near_5 = z.mean(1) > 2.5
    assert abs(near_5.mean() - 0.5) < 0.03
    assert not (z.mean(1) < -2.5).any(), "a component of weight 0"
    assert z[near_5].mean() == pytest.approx(5.0, abs=0.01)
    assert z[~near_5].std() == pytest.approx(0.1, abs=0.003)
    np.testing.assert_array_equal(mixture.draw(7, seed=1), z[:7])
    assert not np.array_equal(mixture.draw(7, seed=2), z[:7])


def test_log_prob_by_hand() -> None:
    two = Mixture(np.array([0.25, 0.75]), np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 2.0], [0.5, 1.0]]))
    z = np.array([0.5, -1.0])
    first = np.exp(-0.5 * (0.25 + 0.25)) / (2 * np.pi * 2.0)
    second = np.exp(-0.5 * (1.0 + 1.0)) / (2 * np.pi * 0.5)
    assert two.log_prob(z[None])[0] == pytest.approx(np.log(0.25 * first + 0.75 * second), rel=1e-6)


def test_fit_finds_the_clusters_and_how_many(mixture: Mixture) -> None:
    z = mixture.draw(600, seed=3)
    fitted = Mixture.fit(z, k=(1, 2), seed=0)
    assert len(fitted) == 2
    assert fitted.facts["k"] == "2"
    np.testing.assert_allclose(np.sort(fitted.means.mean(1)), [0.0, 5.0], atol=0.02)
    np.testing.assert_allclose(fitted.stds, 0.1, atol=0.03)
    assert fitted.to_bytes() == Mixture.fit(z, k=(1, 2), seed=0).to_bytes()
    with pytest.raises(ValueError, match="k: expected 1 to 1 components for 3 rows, got"):
        Mixture.fit(z[:3], k=2)
    with pytest.raises(ValueError, match="latents: expected finite"):
        Mixture.fit(np.full((4, 2), np.nan), k=1)


def test_mixture_files(tmp_path: Path, mixture: Mixture) -> None:
    path = mixture.save(tmp_path / "m.safetensors")
    loaded = Mixture.load(path)
    for name in ("weights", "means", "stds"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(mixture, name))
    assert loaded.facts == {"note": "x"}
    assert loaded.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    whole = path.read_bytes()
    for data in (b"", b"\x80\x04K\x01.", whole[:100], whole[:-1], b"\xff" * 64):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"m\.safetensors: "):
            Mixture.load(path)
    with pytest.raises(ValueError, match=r"ending in \.safetensors, got 'm\.npz'"):
        mixture.save(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.5, 0.4, 0.0]}, "add up to 1, got a sum of 0.9"),
        ({"weights": [1.5, -0.5, 0.0]}, "weights of 0 or more"),
        ({"stds": np.zeros((3, L))}, "positive stds"),
        ({"means": np.full((3, L), np.nan)}, "finite values"),
        ({"means": np.zeros((2, L))}, r"means \(K, L\)"),
    ],
)
def test_impossible_mixtures(mixture: Mixture, change: dict, message: str) -> None:
    parts = {"weights": mixture.weights, "means": mixture.means, "stds": mixture.stds}
    with pytest.raises(ValueError, match=message):
        Mixture(**{**parts, **change})


def test_widening_adds_variances(mixture: Mixture) -> None:
    np.testing.assert_allclose(mixture.widened(0.2).stds, np.sqrt(0.1**2 + 0.2**2), rtol=1e-6)


# ---------------------------------------------------------------------------------------------- in a checkpoint


def test_a_checkpoint_may_hold_a_mixture(tmp_path: Path, checkpoint: Path, mixture: Mixture) -> None:
    directory = tmp_path / "model"
    shutil.copytree(checkpoint, directory)
    identity = load_pretrained(directory).model_id
    assert load_pretrained(directory).mixture is None
    save_mixture(directory, mixture)
    save_mixture(directory, mixture)  # and replaces it
    assert sorted(os.listdir(tmp_path)) == ["model"], "no temporary directories are left"
    model = MolCMIM.from_pretrained(directory, device="cpu")
    assert model.model_id == identity
    assert model.mixture is not None
    np.testing.assert_array_equal(model.mixture.means, mixture.means)
    assert model.mixture.facts == {"note": "x", "model_id": identity}
    model.save_pretrained(tmp_path / "copy")
    assert load_pretrained(tmp_path / "copy").mixture.draw(2).tolist() == mixture.draw(2).tolist()

    stored = directory / "mixture.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"mixture\.safetensors: damaged or incomplete"):
        load_pretrained(directory)


def test_mixtures_that_do_not_fit_the_checkpoint(tmp_path: Path, checkpoint: Path, mixture: Mixture) -> None:
    before = sorted(os.listdir(checkpoint))
    with pytest.raises(ValueError, match=r"mixture: expected one of model \w{12}, got one of abc"):
        save_mixture(checkpoint, mixture.with_facts(model_id="abc"))
    with pytest.raises(ValueError, match="mixture: expected 24 dimensions"):
        save_mixture(checkpoint, Mixture.prior(5))
    assert sorted(os.listdir(checkpoint)) == before


def test_fit_mixture_from_smiles_and_tokens(tiny: MolCMIM) -> None:
    smiles = [*SMILES * 3, "nonsense", ""]
    fitted = fit_mixture(tiny, smiles, k=1, corpus="these")
    codes = tiny.embed(SMILES * 3, kind="latent").astype(np.float64)
    sigma = posterior_sigma(tiny, [tiny.tokenizer.encode(text) for text in SMILES])
    np.testing.assert_allclose(fitted.means[0], codes.mean(0), atol=1e-5)
    np.testing.assert_allclose(fitted.stds[0] ** 2, codes.var(0) + sigma**2, rtol=1e-3)
    assert (sigma >= np.exp(-3.0) - 1e-6).all()
    assert fitted.facts["n"] == "24"
    assert (fitted.facts["model_id"], fitted.facts["corpus"]) == (tiny.model_id, "these")
    canonical = [row.canonical_smiles for row in prepare_many(SMILES * 3, workers=0)]
    rows = [np.array(tiny.tokenizer.encode(text)) for text in canonical if text is not None]
    np.testing.assert_allclose(fit_mixture(tiny, rows, k=1).means, fitted.means, atol=1e-5)
    assert fit_mixture(tiny, rows, n=10, k=1).facts["n"] == "10"
    with pytest.raises(ValueError, match="molecules: expected at least 2 that the model can embed, got 0"):
        fit_mixture(tiny, ["nonsense"] * 3)


# ---------------------------------------------------------------------------------------------- decode


def test_decode_table_keeps_rows_without_vectors(shipped: MolCMIM) -> None:
    z = shipped.embed([ASPIRIN, "nonsense", IBUPROFEN], kind="both")
    table = shipped.decode_table(z, properties=["rings"])
    assert table.smiles == shipped.decode(z)
    assert table.canonical_smiles == [ASPIRIN, None, IBUPROFEN]
    assert table.status == ["ok", "no_vector", "ok"]
    assert table.seed == [""] * 3
    np.testing.assert_array_equal(table.properties["rings"], [1, np.nan, 1])


def test_the_plain_model_writes_ethanol_back() -> None:
    """The default doesn't, and the README sends who needs very small molecules to this one."""
    plain = MolCMIM.from_pretrained("molcmim-tiny", device="cpu")
    z = plain.embed(["CCO", "OCC"], kind="both")
    assert plain.decode(z) == ["CCO", "CCO"]
    assert plain.decode_table(z, mode="beam", width=3).canonical_smiles == ["CCO", "CCO"]


def test_decode_table_of_nothing(tiny: MolCMIM) -> None:
    assert len(tiny.decode_table(np.empty((0, L)))) == 0


@pytest.mark.parametrize("options", [{"temperature": 0.7}, {"top_k": 3}, {"mode": "sample"}, {"top_p": 0.5}])
def test_sampling_is_seeded(shipped: MolCMIM, options: dict) -> None:
    vectors = 0.12 * np.random.default_rng(0).standard_normal((6, shipped.network.config.latent))
    first, again, other = (shipped.decode_table(vectors, seed=seed, **options).smiles for seed in (4, 4, 5))
    assert first == again != other


def test_beam_of_one_is_greedy(shipped: MolCMIM) -> None:
    z = shipped.embed([ASPIRIN, IBUPROFEN], kind="latent")
    assert shipped.decode_table(z, mode="beam", width=1).smiles == [ASPIRIN, IBUPROFEN]
    assert shipped.decode_table(z, mode="beam", width=3).canonical_smiles == [ASPIRIN, IBUPROFEN]


def test_repair_keeps_the_first_valid_attempt(tiny: MolCMIM, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[float], str, float | None, int]] = []

    def scripted(model: MolCMIM, z: np.ndarray, how: decoding.Decoding, seed: int = 0) -> list[str | None]:
        calls.append((z[:, 0].tolist(), str(how.mode), how.temperature, seed))
        texts = {0: ["CC", "C1", None, "C("], 1: ["C1", "CO", None], 2: ["CCC", "C"]}
        return texts[len(calls) - 1]

    monkeypatch.setattr(decoding, "write", scripted)
    z = np.zeros((5, L), dtype=np.float32)
    z[:, 0] = range(5)
    z[4] = np.nan
    texts = decoding.write
    monkeypatch.setattr(decoding, "write", lambda *a, **k: [*texts(*a, **k), *([None] if len(calls) == 1 else [])])
    table = tiny.decode_table(z, seed=9, repair=3)
    assert table.smiles == ["CC", "CCC", "CO", "C", None]
    assert table.valid.tolist() == [True, True, True, True, False]
    assert table.repaired.tolist() == [False, True, True, True, False]
    assert table.status[4] == "no_vector"
    assert [call[0] for call in calls[1:]] == [[1.0, 2.0, 3.0], [1.0, 3.0]], "only rows that are no molecule yet"
    assert [call[1:3] for call in calls[1:]] == [("sample", 0.5), ("sample", 0.75)]
    assert len({call[3] for call in calls}) == 3, "other random numbers each time"


def test_repair_on_real_texts(shipped: MolCMIM) -> None:
    options = {"radius": 0.5, "n": 8, "unit": "absolute", "seed": 1}
    plain, repaired = (shipped.neighbours(ASPIRIN, repair=times, **options) for times in (0, 4))
    assert not plain.repaired.any()
    assert plain.valid.sum() < repaired.valid.sum()
    assert repaired.repaired.sum() == repaired.valid.sum() - plain.valid.sum()
    same = [i for i in range(8) if not repaired.repaired[i]]
    assert [plain.smiles[i] for i in same] == [repaired.smiles[i] for i in same]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "best"}, "mode: expected one of greedy, sample, beam, got 'best'"),
        ({"mode": "greedy", "temperature": 1.0}, "temperature: expected only with mode 'sample'"),
        ({"temperature": -1.0}, "temperature: expected 0 or more, got -1"),
        ({"top_p": 1.5}, "top_p: expected more than 0 and at most 1, got 1.5"),
        ({"top_k": 0}, "top_k: expected at least 1, got 0"),
        ({"repair": -1}, "repair: expected at least 0, got -1"),
        ({"repair": 10**6}, "repair: expected at most 1000"),
        ({"width": 0}, "width: expected at least 1"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"properties": ["beauty"]}, "properties: expected some of qed, .*; got 'beauty'"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
    ],
)
def test_options_that_are_none(tiny: MolCMIM, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.decode_table(np.zeros((1, L)), **options)


# ---------------------------------------------------------------------------------------------- sample


def test_sample_decodes_what_was_drawn(shipped: MolCMIM) -> None:
    latent = shipped.network.config.latent
    here = Mixture(np.ones(1), shipped.embed([ASPIRIN], kind="latent"), np.full((1, latent), 1e-4))
    table = shipped.sample(3, here, properties=["rings"])
    assert table.canonical_smiles == [ASPIRIN] * 3
    assert table.properties["rings"].tolist() == [1, 1, 1]
    assert table.seed == ["", "", ""]


def test_rows_of_a_sample_do_not_depend_on_their_number(shipped: MolCMIM) -> None:
    codes = shipped.embed([ASPIRIN, IBUPROFEN], kind="latent")
    around = Mixture(np.array([0.5, 0.5]), codes, np.full(codes.shape, 0.3))
    for options in ({}, {"temperature": 0.9}):
        whole = shipped.sample(7, around, seed=5, **options).smiles
        assert len(set(whole)) > 2
        assert shipped.sample(4, around, seed=5, **options).smiles == whole[:4]
        assert shipped.sample(7, around, seed=5, batch_size=2, **options).smiles == whole
        assert shipped.sample(7, around, seed=6, **options).smiles != whole


def test_sources(tiny: MolCMIM, mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match=r"source: the prior N\(0, I\), for tiny holds no mixture"):
        by_default = tiny.sample(3)
    assert by_default.smiles == tiny.sample(3, "prior").smiles
    assert by_default.smiles == tiny.decode(Mixture.prior(L).draw(3))
    with pytest.raises(ValueError, match="source: tiny holds no mixture"):
        tiny.sample(3, "mixture")
    with pytest.raises(ValueError, match="source: expected 'mixture', 'prior' or a Mixture, got 'moon'"):
        tiny.sample(3, "moon")
    with pytest.raises(ValueError, match="source: expected a mixture in 24 dimensions, got 5"):
        tiny.sample(3, Mixture.prior(5))
    with pytest.raises(ValueError, match=r"source: expected a mixture of model \w{12}, got one of abc"):
        tiny.sample(3, mixture.with_facts(model_id="abc"))
    monkeypatch.setattr(tiny, "mixture", mixture)
    assert tiny.sample(3).smiles == tiny.sample(3, "mixture").smiles == tiny.decode(mixture.draw(3))


def test_unique_and_valid_only_draw_on(tiny: MolCMIM, mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(["C", "C1", "CC", "C", "CC", "OC", "C", "CO", "N", "C2", "O", "S"])
    monkeypatch.setattr(decoding, "write", lambda model, z, *rest, **more: [next(texts) for _ in z])
    table = tiny.sample(4, mixture, valid_only=True, unique=True, properties=["heavy"])
    assert table.canonical_smiles == ["C", "CC", "CO", "N"]
    assert table.properties["heavy"].tolist() == [1, 2, 2, 1]

    monkeypatch.setattr(decoding, "write", lambda model, z, *rest, **more: ["C", "CC", "CO", "C1"][: len(z)])
    counted = sampling.sample_counted(tiny, 3, mixture, valid_only=True)
    assert (counted.table.smiles, counted.n_drawn) == (["C", "CC", "CO"], 3)

    monkeypatch.setattr(decoding, "write", lambda model, z, *rest, **more: ["C"] * len(z))
    with pytest.warns(UserWarning, match="n: 1 rows instead of 3: gave up after drawing 60"):
        assert tiny.sample(3, mixture, unique=True).canonical_smiles == ["C"]


def test_unique_keeps_rows_without_molecule(tiny: MolCMIM, mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "write", lambda model, z, *rest, **more: ["C1", "C1", "C"][: len(z)])
    assert tiny.sample(3, mixture, unique=True).status == ["parse_error", "parse_error", "ok"]


# ---------------------------------------------------------------------------------------------- neighbours


def test_neighbours_of_several_seeds(shipped: MolCMIM) -> None:
    table = shipped.neighbours([ASPIRIN, "nonsense", IBUPROFEN_OTHERWISE], radius=0.02, n=3, unit="absolute")
    assert table.seed == [ASPIRIN] * 3 + ["nonsense"] * 3 + [IBUPROFEN_OTHERWISE] * 3
    assert table.status[3:6] == ["seed_parse_error"] * 3
    assert [table.smiles[3], table.canonical_smiles[3]] == [None, None]
    assert np.isnan(table.distance[3:6]).all()
    assert table.canonical_smiles[:3] == [ASPIRIN] * 3
    assert table.canonical_smiles[6] == IBUPROFEN
    assert table.tanimoto[[0, 6]].tolist() == [1.0, 1.0]
    # 0.02 times the norm of 256 standard normal numbers, about 16
    np.testing.assert_allclose(table.distance[[0, 1, 2, 6, 7, 8]], 0.32, atol=0.06)


def test_all_seeds_bad_is_no_error(tiny: MolCMIM) -> None:
    table = tiny.neighbours(["", None], n=2)
    assert table.status == ["seed_empty"] * 4
    assert not table.valid.any()


def test_neighbours_lie_where_they_should(tiny: MolCMIM, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    real = decoding.write
    monkeypatch.setattr(decoding, "write", lambda model, z, *rest: drawn.append(z) or real(model, z, *rest))
    tiny.neighbours(["CCO", "C"], radius=0.5, n=5, seed=3, unit="absolute")
    tiny.neighbours(["CCO", "C"], radius=1.0, n=2, seed=3, unit="absolute")
    tiny.neighbours(["CCO"], radius=1.0, n=2, seed=3, unit="absolute")
    mu = tiny.embed(["CCO", "C"], kind="latent", exact=True)[:, None]
    small, large = drawn[0].reshape(2, 5, L) - mu, drawn[1].reshape(2, 2, L) - mu
    np.testing.assert_allclose(2 * small[:, :2], large, atol=1e-5)  # the same directions for other n and radius
    np.testing.assert_array_equal(drawn[2], drawn[1][:2])
    assert not np.allclose(small[0], small[1]), "each seed has noise of its own"
    assert small.std() == pytest.approx(0.5, abs=0.07)


def test_radius_in_units_of_the_spread(tiny: MolCMIM) -> None:
    assert radius_in(tiny, 0.7, "absolute") == 0.7
    assert radius_in(tiny, 0.7, "spread") == pytest.approx(0.7 * 4.0 / L**0.5)  # its scale of latents is 0.25
    assert radius_in(tiny, 0.0, "spread") == 0.0


def test_radius_0_is_reconstruction(shipped: MolCMIM) -> None:
    table = shipped.neighbours(ASPIRIN, radius=0, n=2)
    assert table.canonical_smiles == [ASPIRIN] * 2
    assert table.distance.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": -0.1}, "radius: expected 0 or more, got -0.1"),
        ({"radius": float("nan")}, "radius: expected 0 or more, got nan"),
        ({"n": 0}, "n: expected a whole number of at least 1, got 0"),
        ({"unit": "mile"}, "unit: expected one of absolute, spread, got 'mile'"),
        ({"seed": 1.5}, "seed: expected a whole number"),
    ],
)
def test_neighbours_refusals(tiny: MolCMIM, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.neighbours("CCO", **options)


# ---------------------------------------------------------------------------------------------- interpolate


def test_interpolation_goes_from_end_to_end(shipped: MolCMIM) -> None:
    table = shipped.interpolate(ASPIRIN, "OC(=O)c1ccccc1O", steps=5)
    assert len(table) == 5
    assert table.canonical_smiles[0] == ASPIRIN
    assert table.canonical_smiles[-1] == SALICYLIC
    a, b = shipped.embed([ASPIRIN, SALICYLIC], kind="latent")
    np.testing.assert_allclose(table.distance, np.linalg.norm(a - b) * np.arange(5) / 4, atol=1e-5)
    assert set(table.seed) == {ASPIRIN}
    assert table.tanimoto[0] == 1.0


def test_interpolation_refusals(tiny: MolCMIM) -> None:
    with pytest.raises(ValueError, match=r"b: expected a molecule that the model can embed, got 'C1C' \(parse_error\)"):
        tiny.interpolate("CCO", "C1C")
    with pytest.raises(ValueError, match="steps: expected a whole number of at least 2, got 1"):
        tiny.interpolate("CCO", "C", steps=1)


# ---------------------------------------------------------------------------------------------- shared


def test_models_without_decoder(tmp_path: Path) -> None:
    model = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path / "x", objective="infonce"), device="cpu")
    for what, call in {
        "decode_table": lambda: model.decode_table(np.zeros((1, L))),
        "sample": lambda: model.sample(1, "prior"),
        "neighbours": lambda: model.neighbours("CCO"),
        "interpolate": lambda: model.interpolate("CCO", "C"),
    }.items():
        with pytest.raises(ValueError, match=f"{what}: expected a model with a decoder, got objective 'infonce'"):
            call()


def test_the_same_seed_gives_the_same_bytes(shipped: MolCMIM, tmp_path: Path) -> None:
    for name in ("a", "b"):
        table = shipped.neighbours(
            [ASPIRIN, IBUPROFEN], 0.1, 4, 7, "absolute", temperature=0.8, repair=2, properties=["qed"]
        )
        table.write(tmp_path / f"{name}.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv").read_bytes().count(b"\n") == 9


def test_texts_are_checked_where_they_can_do_no_harm(tiny: MolCMIM, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that would kill RDKit is one row without a molecule; nothing but `prepare_many` sees it."""
    monkeypatch.setattr(decoding, "write", lambda *rest, **more: ["C" * 30_000, "CC"])
    table = tiny.decode_table(np.zeros((2, L)))
    assert table.status == ["too_many_chars", "ok"]
    checked: list[list[str | None]] = []

    def watch(smiles: list[str | None], workers: int | None = None) -> list[Prepared]:
        checked.append(list(smiles))
        return [Prepared("CC", Status.ok) for _ in smiles]

    monkeypatch.setattr(decoding, "check_written", watch)
    assert tiny.decode_table(np.zeros((2, L))).canonical_smiles == ["CC", "CC"]
    assert checked == [["C" * 30_000, "CC"]]


def test_names_of_the_module() -> None:
    assert all(hasattr(sampling, name) for name in sampling.__all__)
