"""The trainer: exact resume after SIGKILL, several processes, clean stops, what it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from training import small_config, small_corpus

from molcmim.model import CMIM, ModelConfig
from molcmim.objective import Batch, ObjectiveConfig
from molcmim.pretrained import load_pretrained
from molcmim.train import Objective, end_process_group, train
from molcmim.train_config import OptimizerConfig, ScheduleConfig, TrainConfig
from molcmim.train_state import build_optimizers

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
    "OMP_NUM_THREADS": "1",
}

DRIVER = textwrap.dedent("""
    import json, sys
    from molcmim.train import train
    from molcmim.train_config import TrainConfig

    def on_step(step, loss):
        print(step, float.hex(loss), flush=True)

    if __name__ == "__main__":
        train(TrainConfig.from_dict(json.load(open(sys.argv[1]))), resume=True, on_step=on_step)
""")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return small_corpus(tmp_path_factory.mktemp("train"))


def start(tmp_path: Path, config: TrainConfig, name: str) -> subprocess.Popen[str]:
    """The driver in a process of its own; it prints the loss of each step to the bit."""
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / f"{name}.json").write_text(json.dumps(config.to_dict()))
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / f"{name}.json")],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def losses(lines: list[str]) -> dict[int, str]:
    return {int(step): value for step, value in (line.split() for line in lines if line.strip())}


def test_sigkill_in_mid_epoch_and_resume_is_bit_equal_to_no_interruption(corpus, tmp_path):
    changes = {
        "schedule__max_steps": 90,
        "loader_workers": 2,
        "ema_decay": 0.9,
        "checkpoint_minutes": 0,
        "log_every": 5,
        "reconstruct_molecules": 0,
    }
    whole = start(tmp_path, small_config(corpus, tmp_path / "whole", **changes), "whole")
    expected = losses(whole.communicate(timeout=300)[0].splitlines())
    assert whole.returncode == 0
    assert len(expected) == 90

    config = small_config(corpus, tmp_path / "killed", **changes)
    killed = start(tmp_path, config, "killed")
    for line in killed.stdout:
        if int(line.split()[0]) == 28:  # epochs have 17 batches: in the middle of the second one
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait(60)
    assert killed.returncode == -signal.SIGKILL
    resumed = start(tmp_path, config, "killed")
    after = losses(resumed.communicate(timeout=300)[0].splitlines())
    assert resumed.returncode == 0
    first = min(after)
    assert 20 <= first <= 31, "resumed from a checkpoint in mid-epoch"
    assert len(after) >= 50
    assert after == {step: value for step, value in expected.items() if step >= first}
    one, other = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert any(name.startswith("average.") for name in one) and any(name.startswith("optimizer.1.") for name in one)


def test_number_of_loader_workers_changes_nothing(corpus, tmp_path):
    seen: dict[int, list[float]] = {}
    for workers in (0, 2):
        seen[workers] = []
        train(
            small_config(corpus, tmp_path / str(workers), loader_workers=workers, schedule__max_steps=6),
            on_step=lambda step, loss, into=seen[workers]: into.append(loss),
        )
    assert seen[0] == seen[2]
    assert len(seen[0]) == 6


def test_run_writes_log_checkpoint_and_a_loadable_export(corpus, tmp_path):
    result = train(small_config(corpus, tmp_path / "run", name="molcmim-test"))
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["event"] for record in records] == ["start", "train", "train", "train", "validation"]
    last = records[-1]
    for name in (
        "loss",
        "reconstruction",
        "log_q",
        "log_prior",
        "contrastive",
        "sigma_at_floor",
        "token_accuracy",
        "exact_reconstruction",
        "reconstruction_nats",
    ):
        assert isinstance(last[name], float), name
        assert result[name] == last[name]
    assert last["step"] == 12 and last["molecules"] == 12 * 32
    assert records[1]["flop_utilisation"] > 0
    assert records[-2]["loss"] < records[1]["loss"], "12 steps lower the loss"
    loaded = load_pretrained(tmp_path / "run" / "export")
    assert loaded.config["name"] == "molcmim-test"
    assert loaded.config["training"]["molecules"] == 12 * 32
    assert set(loaded.config["scales"]) == {"latent", "informative"}
    average = load_file(tmp_path / "run" / "checkpoint.safetensors")
    for name, p in loaded.model.named_parameters():
        assert torch.equal(p, average[f"average.{name}"].half().float()), name


def test_finished_or_foreign_output_is_not_overwritten(corpus, tmp_path):
    config = small_config(corpus, tmp_path / "run", schedule__max_steps=4)
    train(config)
    with pytest.raises(FileExistsError, match="resume"):
        train(config)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    assert train(config, resume=True)["step"] == 4
    with pytest.raises(ValueError, match="another architecture"):
        train(small_config(corpus, tmp_path / "run", model__width=16), resume=True)
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(before[: len(before) // 2])
    with pytest.raises(ValueError, match="not a readable training checkpoint"):
        train(config, resume=True)


def test_resuming_another_configuration_says_so(corpus, tmp_path, caplog):
    train(small_config(corpus, tmp_path / "run", schedule__max_steps=4))
    same = {"schedule__max_steps": 4, "validate_molecules": 7, "wall_minutes": 60}
    train(small_config(corpus, tmp_path / "run", **same), resume=True)
    assert "another configuration" not in caplog.text
    longer = {"schedule__max_steps": 6, "optimizer": {"lr": 0.5}, "source_weights": {"molecules.smi": 0.5}}
    assert train(small_config(corpus, tmp_path / "run", **longer), resume=True)["step"] == 6
    said = [record.message for record in caplog.records if "another configuration" in record.message]
    before = small_config(corpus, tmp_path / "run", schedule__max_steps=4)
    expected = [f"optimizer.lr: 0.5, was {before.optimizer.lr}", "schedule.max_steps: 6, was 4"]
    expected += ["source_weights: {'molecules.smi': 0.5}, was {}"]
    assert said == ["the checkpoint is of a run with another configuration. " + "; ".join(expected)]


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(corpus, tmp_path):
    config = small_config(corpus, tmp_path / "run", schedule__max_steps=100_000)
    process = start(tmp_path, config, "run")
    for line in process.stdout:
        if int(line.split()[0]) == 7:
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert len(rest.splitlines()) < 1000
    load_pretrained(tmp_path / "run" / "export")
    config = small_config(corpus, tmp_path / "run", schedule__max_steps=100_000, wall_minutes=0.0)
    assert train(config, resume=True)["step"] >= 7


def test_wall_minutes_stop_the_leg(corpus, tmp_path):
    started = time.monotonic()
    result = train(small_config(corpus, tmp_path / "run", schedule__max_steps=10**6, wall_minutes=0.03))
    assert 0 < result["step"] < 10**6
    assert time.monotonic() - started < 60


def test_a_loss_that_is_not_finite_ends_the_run_with_an_error(corpus, tmp_path):
    with pytest.raises(FloatingPointError, match="at step"):
        train(small_config(corpus, tmp_path / "run", optimizer={"name": "adamw", "lr": 1e30, "grad_clip": 1e30}))


def test_training_needs_no_rdkit(corpus, tmp_path):
    """With every chemistry and table package blocked, in the order of a GPU machine: from a prepared corpus."""
    (tmp_path / "config.json").write_text(
        json.dumps(small_config(corpus, tmp_path / "run", schedule__max_steps=2).to_dict())
    )
    script = textwrap.dedent("""
        import json, sys
        for name in ("rdkit", "selfies", "tokenizers", "pyarrow", "pandas", "typer", "sklearn"):
            sys.modules[name] = None
        from molcmim.train import train
        from molcmim.train_config import TrainConfig
        print(train(TrainConfig.from_dict(json.load(open(sys.argv[1]))))["step"])
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "config.json")],
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.stdout.strip() == "2", done.stderr
    load_pretrained(tmp_path / "run" / "export")


@pytest.mark.parametrize(
    "changes",
    [
        {"objective__name": "infonce"},
        {"objective__name": "mlm"},
        {"objective__name": "dae"},
        {"objective__encoder_input": "random_smiles", "objective__properties": True},
        {"model__posterior": "sampled"},
        {"model__encoder": "perceiver", "optimizer": {"name": "adamw"}},
        {"model__pooling": "mean", "model__activation": "relu2"},
        {"model__pooling": "attention", "objective__decoder_dropout": 0.3},
        {"objective__encoder_input": "random_smiles", "objective__random_share": 0.5},
        {"objective__properties": True, "objective__tau": 0.5, "objective__weights": {"properties": 10.0}},
        {"precision": "bf16", "objective__scaling": "mean"},
    ],
)
def test_every_kind_of_run_trains_validates_and_exports(tmp_path, tmp_path_factory, changes):
    directory = tmp_path_factory.getbasetemp() / "rich"
    if not directory.exists():
        directory.mkdir()
        small_corpus(directory, 200, random_smiles=1, properties="basic", policy="canonical")
    result = train(small_config(directory / "corpus", tmp_path / "run", schedule__max_steps=3, **changes))
    assert result["step"] == 3
    decodes = ObjectiveConfig(changes.get("objective__name", "cmim")).has_decoder
    assert ("exact_reconstruction" in result) is decodes
    assert ("sigma_at_floor" in result) is (
        decodes and result.get("log_q") is not None and "model__posterior" not in changes
    )
    loaded = load_pretrained(tmp_path / "run" / "export")
    assert (loaded.model.property_head is not None) is bool(changes.get("objective__properties"))


def test_init_from_starts_from_pretrained_weights(corpus, tmp_path):
    train(small_config(corpus, tmp_path / "first", schedule__max_steps=3))
    start = tmp_path / "first" / "export"
    frozen = {"optimizer": {"name": "adamw", "lr": 0.0}, "schedule__max_steps": 1, "ema_decay": 0.0}
    train(small_config(corpus, tmp_path / "second", init_from=str(start), **frozen))
    one, other = (load_file(path / "model.safetensors") for path in (start, tmp_path / "second" / "export"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    first, second = (load_pretrained(tmp_path / name / "export") for name in ("first", "second"))
    (leg,) = second.config["training"]["earlier_legs"]
    counted = {key: first.config["training"][key] for key in ("step", "molecules", "seconds", "flops")}
    assert leg == {"model_id": first.model_id, **counted} and leg["step"] == 3 and leg["flops"] > 0
    assert "earlier_legs" not in first.config["training"]
    train(small_config(corpus, tmp_path / "next", init_from=str(tmp_path / "second" / "export"), **frozen))
    legs = load_pretrained(tmp_path / "next" / "export").config["training"]["earlier_legs"]
    assert [one["step"] for one in legs] == [3, 1]
    with pytest.raises(ValueError, match=r"another architecture.*'log_sigma_floor': \(-3.0, -6.0\)"):
        train(small_config(corpus, tmp_path / "third", init_from=str(start), model__log_sigma_floor=-6.0))


def test_init_from_a_plain_model_gets_a_new_head_for_the_descriptors(tmp_path):
    corpus = small_corpus(tmp_path, 200, properties="basic", policy="canonical")
    frozen = {"optimizer": {"name": "adamw", "lr": 0.0}, "schedule__max_steps": 1, "ema_decay": 0.0}
    train(small_config(corpus, tmp_path / "plain", **frozen))
    start = tmp_path / "plain" / "export"
    train(small_config(corpus, tmp_path / "chem", init_from=str(start), objective__properties=True, **frozen))
    one, other = (load_file(path / "model.safetensors") for path in (start, tmp_path / "chem" / "export"))
    assert set(other) - set(one) == {"property_head.weight", "property_head.bias"}
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    with pytest.raises(ValueError, match=r"another architecture.*'n_properties'"):
        train(small_config(corpus, tmp_path / "back", init_from=str(tmp_path / "chem" / "export")))


# ------------------------------------------------------------------------------------------ several processes


def objective_and_gradients(
    name: str, rank: int, world_size: int, gathered: bool
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss (mean over ranks) and averaged gradients of one step on this rank's share of a global batch of 8."""
    torch.manual_seed(0)
    model = CMIM(
        ModelConfig(
            vocab_size=20,
            width=16,
            heads=2,
            mlp_width=32,
            encoder_layers=1,
            decoder_layers=1,
            latent=8,
            memory=2,
            max_tokens=16,
        )
    )
    whole = Batch(torch.randint(4, 20, (8, 6)), torch.randint(4, 20, (8, 6)), noise=torch.randn(8, 8))
    n = 8 // world_size
    batch = Batch(*(None if x is None else x[rank * n : (rank + 1) * n] for x in whole))
    module: torch.nn.Module = Objective(model, ObjectiveConfig(name, tau=1.0, gather_negatives=gathered))
    if world_size > 1:
        module = torch.nn.parallel.DistributedDataParallel(module, find_unused_parameters=name == "infonce")
    loss, _ = module(batch)
    loss.backward()
    loss = loss.detach() / world_size
    if world_size > 1:
        dist.all_reduce(loss)
    return loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _rank(rank: int, directory: str, name: str, gathered: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=2)
    loss, gradients = objective_and_gradients(name, rank, 2, gathered)
    if rank == 0:
        from safetensors.torch import save_file

        save_file({"loss": loss, **gradients}, f"{directory}/rank0.safetensors")
    end_process_group()


@pytest.mark.parametrize(("name", "gathered"), [("cmim", True), ("cmim", False), ("infonce", True)])
def test_two_processes_with_gathered_negatives_give_loss_and_gradients_of_one(tmp_path, name, gathered):
    torch.multiprocessing.spawn(_rank, (str(tmp_path), name, gathered), nprocs=2)
    two = load_file(tmp_path / "rank0.safetensors")
    loss, gradients = objective_and_gradients(name, 0, 1, gathered=False)
    agrees = [torch.allclose(two["loss"], loss, atol=1e-6)]
    agrees += [torch.allclose(two[name], gradient, atol=1e-5) for name, gradient in gradients.items()]
    # without gathering, each process contrasts with its own four molecules only: another objective
    assert all(agrees) if gathered else not all(agrees)


def test_torchrun_trains_with_two_processes(corpus, tmp_path):
    import yaml

    config = small_config(corpus, tmp_path / "run", schedule__max_steps=3, objective__gather_negatives=True).to_dict()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--master-port=0",
        "--standalone",
        "-m",
        "molcmim.train",
        str(tmp_path / "config.yaml"),
    ]
    done = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert records[0]["world_size"] == 2
    assert records[-1]["molecules"] == 3 * 2 * 32


def test_models_on_the_way_are_kept(tmp_path):
    corpus = small_corpus(tmp_path, 200)
    changes = {"keep_steps": [3, 8], "schedule__decay_fraction": 1e-9}
    whole = train(small_config(corpus, tmp_path / "run", **changes))
    assert sorted(path.name for path in (tmp_path / "run" / "kept").iterdir()) == ["3", "8"]
    short = {"schedule": {"max_steps": 8, "warmup_steps": 4, "decay_fraction": 1e-9}}
    train(small_config(corpus, tmp_path / "short", **short))
    places = ("run/kept/3", "run/kept/8", "short/export")
    early, late, alone = ((tmp_path / place / "model.safetensors").read_bytes() for place in places)
    assert early != late == alone
    kept = json.loads((tmp_path / "run" / "kept" / "3" / "config.json").read_text())["training"]
    assert kept["molecules"] == 3 * 32 and kept["flops"] == pytest.approx(whole["flops"] / 4, rel=0.2)


# ------------------------------------------------------------------------------------------ configuration


def test_schedules():
    wsd = ScheduleConfig("wsd", warmup_steps=10, decay_fraction=0.5, final=0.1, max_steps=100)
    assert [wsd.factor(step, 0) for step in (0, 9, 50)] == pytest.approx([0.1, 1.0, 1.0])
    assert wsd.factor(75, 0) == pytest.approx(0.55)
    assert wsd.factor(100, 0) == pytest.approx(0.1)
    cosine = ScheduleConfig("cosine", warmup_steps=1, final=0.0, max_minutes=10)
    assert [cosine.factor(5, seconds) for seconds in (0, 300, 600)] == pytest.approx([1.0, 0.5, 0.0])
    by_cpu = ScheduleConfig("cosine", warmup_steps=1, final=0.0, max_cpu_minutes=10)
    assert [by_cpu.factor(5, 1e6, seconds) for seconds in (0, 300, 600)] == pytest.approx([1.0, 0.5, 0.0])
    by_flops = ScheduleConfig("cosine", warmup_steps=1, final=0.0, max_flops=1e12)
    assert [by_flops.factor(5, 1e6, 1e6, flops) for flops in (0, 5e11, 1e12)] == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_steps": 5, "max_minutes": 5}, "max_steps or max_flops or max_minutes"),
        ({"max_flops": 5, "max_cpu_minutes": 5}, "max_steps or max_flops or max_minutes"),
        ({}, "max_steps or max_flops or max_minutes"),
        ({"max_minutes": 5, "max_cpu_minutes": 5}, "or max_cpu_minutes"),
        ({"max_cpu_minutes": 0}, "above 0"),
        ({"name": "step", "max_steps": 5}, "schedule name"),
        ({"max_steps": 5, "decay_fraction": 0}, "decay_fraction"),
    ],
)
def test_bad_schedules(values, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**values)


def test_yaml_overrides_and_unknown_fields(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("corpus: c\noutput: o\noptimizer: {lr: 0.5, muon_lr: 3e-2}\n")
    config = TrainConfig.from_yaml(path, {"optimizer.lr": 0.25, "schedule.max_steps": 7, "objective.name": "vae"})
    assert (config.optimizer.lr, config.schedule.max_steps, config.objective.name) == (0.25, 7, "vae")
    assert config.optimizer.muon_lr == 0.03, "YAML reads 3e-2 as text"
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    path.write_text("corpus: c\noutput: o\noptimiser: {}\n")
    with pytest.raises(ValueError, match=r"unknown fields \['optimiser'\]"):
        TrainConfig.from_yaml(path)
    path.write_text("output: o\n")
    with pytest.raises(ValueError, match="corpus"):
        TrainConfig.from_yaml(path)


def test_muon_trains_the_hidden_matrices_and_adamw_the_rest():
    model = CMIM(
        ModelConfig(vocab_size=20, width=16, heads=2, mlp_width=32, encoder_layers=1, decoder_layers=1, latent=8)
    )
    adamw, muon = build_optimizers(model, OptimizerConfig())
    names = {id(p): name for name, p in model.named_parameters()}
    hidden = sorted(names[id(p)] for group in muon.param_groups for p in group["params"])
    assert hidden == [
        "decoder.blocks.0.memory_kv.weight",
        "decoder.blocks.0.mlp.down.weight",
        "decoder.blocks.0.mlp.up.weight",
        "decoder.blocks.0.out.weight",
        "decoder.blocks.0.qkv.weight",
        "decoder.z_to_input.weight",
        "decoder.z_to_memory.weight",
        "encoder.blocks.0.mlp.down.weight",
        "encoder.blocks.0.mlp.up.weight",
        "encoder.blocks.0.out.weight",
        "encoder.blocks.0.qkv.weight",
        "encoder.pool_value.weight",
    ]
    rest = [names[id(p)] for group in adamw.param_groups for p in group["params"]]
    assert sorted(rest + hidden) == sorted(names.values())
    assert len(build_optimizers(model, OptimizerConfig(name="adamw"))) == 1
