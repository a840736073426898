"""The objective against values that any implementation must give, and against slow, obvious formulas."""

import dataclasses
import math

import pytest
import torch

from molcmim import objective
from molcmim.model import CMIM, MLP, ModelConfig, Posterior, decoder_input, encoder_input
from molcmim.objective import FACTORS, Batch, ObjectiveConfig
from molcmim.tokenizer import BOS, EOS, MASK, PAD

CONFIG = ModelConfig(
    vocab_size=20,
    width=16,
    heads=2,
    mlp_width=32,
    encoder_layers=1,
    decoder_layers=1,
    latent=8,
    memory=2,
    max_tokens=16,
    n_properties=3,
)


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def model() -> CMIM:
    torch.manual_seed(0)
    return CMIM(CONFIG).double()


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, 20, (5, 7), generator=generator)
    for row, length in enumerate((7, 3, 1, 5, 6)):
        tokens[row, length:] = PAD
    return Batch(
        tokens,
        tokens.roll(1, 1).masked_fill(tokens == PAD, PAD),
        torch.randn(5, 3, generator=generator),
        torch.randn(5, 8, generator=generator).double(),
        torch.rand(5, 1, generator=generator).double() * -3,
        torch.rand(5, 7, generator=generator),
    )


# ------------------------------------------------------------------------------------------ the contrastive factor


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
def test_contrastive_is_zero_for_one_molecule(tau):
    assert objective.log_contrastive(torch.randn(1, 8), tau).tolist() == [0.0]


@pytest.mark.parametrize("tau", [0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("n", [2, 3, 64])
def test_contrastive_of_identical_latents_is_minus_log_2(n, tau):
    value = objective.log_contrastive(torch.ones(n, 8), tau)
    assert value == pytest.approx(torch.full((n,), -math.log(2)), abs=1e-6)


@pytest.mark.parametrize(("tau", "expected"), [(0.1, -4.540e-5), (0.5, -0.1269), (1.0, -0.3133)])
@pytest.mark.parametrize("n", [2, 64])
def test_contrastive_of_orthogonal_latents(n, tau, expected):
    value = objective.log_contrastive(torch.eye(64)[:n], tau)
    four_digits = 5e-4 * 10.0 ** math.floor(math.log10(-expected))
    assert value == pytest.approx(torch.full((n,), expected), abs=four_digits)


def test_contrastive_equals_the_definition():
    z = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    tau = 0.3
    s = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=-1)
    expected = []
    for i in range(9):
        negatives = sum(math.exp(s[i, j] / tau) for j in range(9) if j != i) / 8
        expected.append(1 / tau - math.log(math.exp(1 / tau) + negatives))
    assert objective.log_contrastive(z, tau) == pytest.approx(torch.tensor(expected), abs=1e-5)


def test_contrastive_is_computed_in_float32_under_autocast():
    z = torch.eye(64)
    with torch.autocast("cpu", torch.bfloat16):
        value = objective.log_contrastive(z.bfloat16(), 0.1)
    assert value.dtype == torch.float32
    assert value == pytest.approx(torch.full((64,), -4.540e-5), rel=2e-4)


def test_contrastive_against_gathered_latents_is_the_global_value():
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
    whole = objective.log_contrastive(z, 0.2)
    parts = [objective.log_contrastive(z[start : start + 3], 0.2, z, start) for start in (0, 3)]
    assert torch.cat(parts) == pytest.approx(whole, abs=1e-6)


def test_infonce_of_identical_latents_is_minus_log_b():
    value = objective.log_infonce(torch.ones(7, 4), torch.ones(7, 4), 0.1)
    assert value == pytest.approx(torch.full((7,), -math.log(7)), abs=1e-6)


# ------------------------------------------------------------------------------------------ the other factors


def test_log_normal_and_kl_agree_with_torch_distributions():
    mu, log_sigma, z = (torch.randn(4, 6, dtype=torch.float64) for _ in range(3))
    q = torch.distributions.Normal(mu, log_sigma.exp())
    prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    assert objective.log_normal(z, mu, log_sigma) == pytest.approx(q.log_prob(z).sum(-1))
    kl = torch.distributions.kl_divergence(q, prior).sum(-1)
    assert objective.negative_kl(Posterior(mu, log_sigma)) == pytest.approx(-kl)


def test_reconstruction_sums_over_real_tokens_and_eos_only(model, batch):
    z = torch.randn(5, 8, dtype=torch.float64)
    target = encoder_input(batch.tokens)
    log_p = model.logits(model.hidden(z, decoder_input(batch.tokens))).log_softmax(-1)
    expected = []
    for row, length in enumerate((7, 3, 1, 5, 6)):
        ids = [*batch.tokens[row, :length].tolist(), EOS]
        assert target[row].tolist() == ids + [PAD] * (8 - len(ids))
        expected.append(sum(float(log_p[row, t, i]) for t, i in enumerate(ids)))
    value = objective.log_reconstruction(model.logits(model.hidden(z, decoder_input(batch.tokens))), target)
    assert value.double() == pytest.approx(torch.tensor(expected, dtype=torch.float64), rel=1e-5)


def expected_loss(name: str, f: dict[str, torch.Tensor], beta: float) -> torch.Tensor:
    """The table of the paper, written out."""
    log_p, log_q, log_prior = f.get("reconstruction"), f.get("log_q"), f.get("log_prior")
    return {
        "ae": lambda: -log_p,
        "dae": lambda: -log_p,
        "mlm": lambda: -f["masked_tokens"],
        "vae": lambda: -log_p - beta * f["negative_kl"],
        "mim": lambda: -(log_p + 0.5 * (log_q + log_prior)),
        "cmim": lambda: -(log_p + 0.5 * (log_q + log_prior)) - f["contrastive"],
        "cvae": lambda: -log_p - beta * f["negative_kl"] - f["contrastive"],
        "infonce": lambda: -f["infonce"],
    }[name]()


@pytest.mark.parametrize("name", FACTORS)
def test_loss_is_the_table(model, batch, name):
    config = ObjectiveConfig(name, beta=0.7)
    factors = objective.log_factors(model, batch, config)
    loss, means = objective.loss(model, batch, config)
    assert float(loss) == pytest.approx(float(expected_loss(name, factors, 0.7).mean()), rel=1e-5)
    assert set(means) == set(config.factors)


def test_mean_scaling_divides_by_own_tokens_and_dimensions_but_not_the_contrastive_factor(model, batch):
    config = ObjectiveConfig("cmim", scaling="mean", weights={"contrastive": 3.0, "log_prior": 2.0})
    f = objective.log_factors(model, batch, config)
    n = torch.tensor([8.0, 4, 2, 6, 7])
    expected = -(f["reconstruction"] / n + (0.5 * f["log_q"] + f["log_prior"]) / 8 + 3 * f["contrastive"]).mean()
    assert float(objective.loss(model, batch, config)[0]) == pytest.approx(float(expected), rel=1e-5)


def test_properties_factor_is_a_unit_normal_averaged_over_descriptors(model, batch):
    config = ObjectiveConfig("cmim", properties=True)
    y = batch.properties
    z, _ = objective.sample_latent(model.encode(encoder_input(batch.tokens)), batch, model)
    prediction = model.property_head(z)
    expected = (-0.5 * (y - prediction) ** 2 - 0.5 * math.log(2 * math.pi)).mean(1)
    assert objective.log_factors(model, batch, config)["properties"].double() == pytest.approx(expected, rel=1e-5)


def test_sampled_posterior_uses_one_sigma_a_molecule(batch):
    torch.manual_seed(0)
    model = CMIM(ModelConfig(**{**CONFIG.to_dict(), "posterior": "sampled"})).double()
    posterior = model.encode(encoder_input(batch.tokens))
    z, used = objective.sample_latent(posterior, batch, model)
    assert torch.equal(used.log_sigma, batch.log_sigma.expand(5, 8))
    assert z == pytest.approx(posterior.mu + batch.log_sigma.exp() * batch.noise)
    drawn = objective.sample_latent(posterior, batch._replace(log_sigma=None), model)[1].log_sigma
    assert ((2 * drawn >= -6) & (2 * drawn <= 0)).all()
    assert (drawn == drawn[:, :1]).all()


def test_log_sigma_never_falls_below_its_floor(model, batch):
    with torch.no_grad():
        model.encoder.to_log_sigma.bias.fill_(-100)
    assert (model.encode(encoder_input(batch.tokens)).log_sigma >= CONFIG.log_sigma_floor).all()


# ------------------------------------------------------------------------------------------ what is refused


def test_perceiver_refuses_mlm(batch):
    model = CMIM(ModelConfig(**{**CONFIG.to_dict(), "encoder": "perceiver"})).double()
    with pytest.raises(ValueError, match="per-token states"):
        objective.loss(model, batch, ObjectiveConfig("mlm"))
    objective.loss(model, batch, ObjectiveConfig("cmim"))


@pytest.mark.parametrize(
    "config",
    [
        ObjectiveConfig("infonce"),
        ObjectiveConfig("dae", corruption="random_smiles"),
        ObjectiveConfig("cmim", encoder_input="random_smiles"),
    ],
)
def test_missing_random_smiles_is_an_error(model, batch, config):
    assert config.needs_random_smiles
    with pytest.raises(ValueError, match="second SMILES"):
        objective.loss(model, batch._replace(random_tokens=None), config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "gan"}, "objective name"),
        ({"scaling": "median"}, "scaling"),
        ({"tau": 0.0}, "tau"),
        ({"weights": {"negative_kl": 1.0}}, "has no factors"),
        ({"mask_rate": 1.0}, "mask_rate"),
        ({"random_share": 0.0, "encoder_input": "random_smiles"}, "random_share"),
        ({"random_share": 0.5}, "encoder_input 'random_smiles'"),
        ({"random_share": 0.5, "encoder_input": "random_smiles", "name": "infonce"}, "with a decoder"),
        ({"decoder_dropout": 1.0}, "decoder_dropout"),
        ({"decoder_dropout": 0.1, "name": "mlm"}, "no decoder"),
    ],
)
def test_bad_configuration_names_the_field(values, message):
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**values)


def test_masks_touch_real_tokens_only_and_at_least_one(batch):
    mask = objective.mask_tokens(batch.tokens, 0.001, batch.mask_score)
    assert mask.sum(1).tolist() == [1, 1, 1, 1, 1]
    assert not (mask & (batch.tokens == PAD)).any()
    dae = objective.encoder_side(batch, ObjectiveConfig("dae", mask_rate=0.5))
    assert (dae == MASK).any() and torch.equal(dae == PAD, batch.tokens == PAD)


def test_decoder_dropout_masks_what_the_decoder_reads_in_training_only(model, batch):
    score = torch.linspace(0, 0.99, batch.tokens.numel(), dtype=torch.float64).view(batch.tokens.shape)
    batch, config = batch._replace(drop_score=score), ObjectiveConfig("cmim", decoder_dropout=0.4)
    dropped = objective.drop_tokens(batch.tokens, 0.4, score)
    assert torch.equal(dropped == MASK, (score < 0.4) & (batch.tokens != PAD)) and (dropped == MASK).any()
    assert decoder_input(dropped)[:, 0].tolist() == [BOS] * 5

    def reconstruction(config: ObjectiveConfig) -> torch.Tensor:
        return objective.log_factors(model, batch, config)["reconstruction"]

    z, _ = objective.sample_latent(model.encode(encoder_input(batch.tokens)), batch, model)
    logits = model.logits(model.hidden(z, decoder_input(dropped)))
    expected = objective.log_reconstruction(logits, encoder_input(batch.tokens))  # the target is whole
    assert torch.equal(reconstruction(config), expected)
    assert not torch.equal(expected, reconstruction(ObjectiveConfig("cmim")))
    model.eval()
    assert torch.equal(reconstruction(config), reconstruction(ObjectiveConfig("cmim")))


# ------------------------------------------------------------------------------------------ the model


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_pooling_is_one_half_of_both(model, batch, pooling):
    torch.manual_seed(0)
    single = CMIM(ModelConfig(**{**CONFIG.to_dict(), "pooling": pooling})).double()
    weights = {k: v for k, v in model.state_dict().items() if k in single.state_dict() and "to_" not in k}
    single.load_state_dict(weights, strict=False)
    tokens = encoder_input(batch.tokens)
    both = model.encoder.pool(*model.encoder.states(tokens))
    half = both[:, : CONFIG.width] if pooling == "mean" else both[:, CONFIG.width :]
    assert torch.equal(single.encoder.pool(*single.encoder.states(tokens)), half)
    assert single.encode(tokens).mu.shape == (5, CONFIG.latent)
    assert hasattr(single.encoder, "pool_query") is (pooling == "attention")
    with pytest.raises(ValueError, match="pooling"):
        ModelConfig(vocab_size=9, pooling="max")


def test_activations():
    x = torch.randn(5, CONFIG.width)
    functions = {"gelu": lambda y: 0.5 * y * (1 + torch.erf(y / 2**0.5)), "relu2": lambda y: y.clamp(min=0) ** 2}
    for name, function in functions.items():
        mlp = MLP(dataclasses.replace(CONFIG, activation=name))
        expected = function(x @ mlp.up.weight.T) @ mlp.down.weight.T
        torch.testing.assert_close(mlp(x), expected, atol=2e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="activation"):
        ModelConfig(vocab_size=9, activation="tanh")


def test_a_configuration_of_an_earlier_version_is_that_of_the_defaults():
    old = {name: value for name, value in CONFIG.to_dict().items() if name not in ("pooling", "activation")}
    assert ModelConfig.from_dict(old) == CONFIG


@pytest.mark.parametrize("encoder", ["transformer", "perceiver"])
def test_padding_changes_nothing(batch, encoder):
    torch.manual_seed(0)
    model = CMIM(ModelConfig(**{**CONFIG.to_dict(), "encoder": encoder})).double()
    for block in model.residual_blocks():  # they start at zero
        torch.nn.init.normal_(block.out.weight)
        torch.nn.init.normal_(block.mlp.down.weight)
    whole = model.encode(encoder_input(batch.tokens))
    informative = model.informative(whole.mu, decoder_input(batch.tokens))
    for row, length in enumerate((7, 3, 1, 5, 6)):
        tokens = batch.tokens[row : row + 1, :length]
        alone = model.encode(encoder_input(tokens))
        assert alone.mu[0] == pytest.approx(whole.mu[row], abs=1e-5)
        assert model.informative(alone.mu, decoder_input(tokens))[0] == pytest.approx(informative[row], abs=1e-5)


def test_decoder_is_causal_and_reads_z(model, batch):
    for block in model.residual_blocks():
        torch.nn.init.normal_(block.out.weight)
    z = torch.randn(5, 8, dtype=torch.float64)
    tokens = decoder_input(batch.tokens)
    before = model.hidden(z, tokens)
    changed = tokens.clone()
    changed[:, 4:] = 5
    after = model.hidden(z, changed)
    assert torch.allclose(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    assert not torch.allclose(before, model.hidden(z.flip(0), tokens))
    assert tokens[:, 0].tolist() == [BOS] * 5
