"""Rehearsal of the GPU kit on the CPU: pack, two legs, parts, join, embed; and parts that were damaged on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from training import small_corpus

from molcmim import MolCMIM
from molcmim.corpus_pack import pack
from molcmim.weights_parts import join, split

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "pretrain_gpu.sh"
OVERRIDES = [
    "model.width=32", "model.heads=2", "model.mlp_width=64", "model.encoder_layers=1", "model.decoder_layers=1",
    "model.latent=16", "model.max_tokens=40", "batch_size=32", "compile=false", "precision=float32", "loader_workers=1",
    "schedule.max_minutes=0.1", "validate_molecules=20", "reconstruct_molecules=5", "log_every=1",
    "peak_tflops=0.1", "device=cpu",
]  # fmt: skip


def leg(
    tmp_path: Path, *overrides: str, python: str = sys.executable, **environment: str
) -> subprocess.CompletedProcess[str]:
    """One call of the script, from another directory than the repository."""
    places = [str(tmp_path / name) for name in ("corpus.xz", "run", "out")]
    return subprocess.run(
        ["bash", str(SCRIPT), *places, *overrides],
        env={**os.environ, "PYTHON": python, "OMP_NUM_THREADS": "1", **environment},
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )


def without_chemistry(tmp_path: Path) -> str:
    """A PYTHONPATH on which the packages that a GPU machine may lack fail to import."""
    blocked = tmp_path / "blocked"
    for name in ("rdkit", "selfies", "tokenizers", "pyarrow"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('{name} is not on this machine')\n")
    return str(blocked)


def interpreter(tmp_path: Path, script: str) -> str:
    """An executable that stands in for the Python interpreter."""
    path = tmp_path / "python"
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
def test_two_legs_come_home_in_parts(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path, 600, tokenizer="bpe", properties="basic")
    assert pack(corpus, tmp_path / "corpus.xz") < 20 * 2**20
    settings = {"PYTHONPATH": without_chemistry(tmp_path), "PART_MIB": "0.03"}
    out, printed, logs = tmp_path / "out", [], []
    for wall_minutes in ("0.02", "5"):  # the second leg ends with the schedule
        done = leg(tmp_path, *OVERRIDES, f"wall_minutes={wall_minutes}", **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        printed.append(done.stdout)
        logs.append([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])
    first, second = (records[-1] for records in logs)
    assert 0 < first["step"] < second["step"] and first["seconds"] < 0.1 * 60 <= second["seconds"]
    starts = [record["step"] for record in logs[1] if record["event"] == "start"]
    assert starts == [0, first["step"]], "the second leg goes on where the first ended"
    rates = [record["lr_factor"] for record in logs[1] if record["event"] == "train"]
    assert rates[-1] < 0.2, "one schedule over both legs: it has decayed at the end of the second"
    assert "call again to go on" in printed[0] and "the schedule is complete" in printed[1]
    assert "rehearsal on the CPU" in printed[0]

    parts = sorted(out.glob("part-*.bin"))
    assert len(parts) > 1 and max(path.stat().st_size for path in parts) <= 0.03 * 2**20
    assert {path.name for path in out.iterdir()} - {path.name for path in parts} == {
        "parts.json", "log.jsonl", "log.txt"
    }  # fmt: skip
    text = (out / "log.txt").read_text()
    assert f"step {second['step']}, " in text and text.count("rehearsal on the CPU") == 2
    assert f"in OUT_DIR: {len(parts) + 3} files" in printed[1]
    home = join(out, tmp_path / "home")
    assert sorted(path.name for path in home.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "vocab.json",
    ]
    model = MolCMIM.from_pretrained(home, device="cpu")
    assert model.config["training"]["step"] == second["step"]
    assert np.isfinite(model.embed(["CCO", "c1ccccc1"])).all()
    assert len(model.decode(model.embed(["CCO"], kind="latent"))) == 1


def test_script_says_how_it_is_called() -> None:
    done = subprocess.run(["bash", str(SCRIPT)], text=True, capture_output=True)
    assert done.returncode == 2
    assert "CORPUS.xz RUN_DIR OUT_DIR" in done.stderr and "rdkit" in done.stderr


def test_missing_packages_are_named_before_anything_is_done(tmp_path: Path) -> None:
    bare = interpreter(tmp_path, f'exec "{sys.executable}" -I -S "$@"')  # the standard library only
    done = leg(tmp_path, "device=cpu", python=bare)
    assert done.returncode == 1
    assert "bring the wheels of torch, numpy, safetensors, pyyaml, tqdm" in done.stderr
    assert not (tmp_path / "run").exists() and not (tmp_path / "out").exists()


def test_without_a_gpu_only_a_rehearsal(tmp_path: Path) -> None:
    done = leg(tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert "sees no GPU" in done.stderr and "device=cpu" in done.stderr
    assert not (tmp_path / "run").exists()


TRAINER = """
case "$*" in
  *molcmim.train*)
    trap 'echo "asked to stop"; kill $!; exit "$STATUS"' TERM
    echo '{"step": 3}' > "$RUN/log.jsonl"
    sleep 60 & wait $! ;;
  *"weights_parts split"*) echo "weights: $*" ;;
esac
"""


@pytest.mark.parametrize("status", [0, 3])
def test_leg_keeps_its_time_and_brings_the_log(tmp_path: Path, status: int) -> None:
    (tmp_path / "corpus.xz").touch()
    (tmp_path / "run" / "export").mkdir(parents=True)  # of an earlier leg
    done = leg(
        tmp_path,
        python=interpreter(tmp_path, TRAINER),
        LEG_MINUTES="0.1",
        END_SECONDS="4",
        STATUS=str(status),
        RUN=str(tmp_path / "run"),
    )
    assert done.returncode == status
    splits = [line for line in done.stdout.splitlines() if line.startswith("weights: -m molcmim.weights_parts split")]
    assert len(splits) == (2 if status == 0 else 1), "the earlier leg's weights first, this one's only if it went well"
    assert "asked to stop" in (tmp_path / "out" / "log.txt").read_text()
    assert (tmp_path / "out" / "log.jsonl").read_text() == '{"step": 3}\n'


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.bin").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "model" / "b.txt").write_bytes(b"")
    assert [path.name for path in split(tmp_path / "model", tmp_path / "parts", 0.004)] == [
        "part-00.bin", "part-01.bin", "part-02.bin", "parts.json"
    ]  # fmt: skip
    return tmp_path / "parts"


def test_split_and_join_are_inverse(parts: Path, tmp_path: Path) -> None:
    home = join(parts, tmp_path / "home")
    assert {path.name: path.read_bytes() for path in home.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()
    }
    with pytest.raises(FileExistsError, match="home exists"):
        join(parts, tmp_path / "home")
    assert len(split(tmp_path / "model", parts, 1)) == 2, "parts of the earlier split are gone"
    assert not (parts / "part-01.bin").exists()


def test_damage_is_refused_and_leaves_nothing(parts: Path, tmp_path: Path) -> None:
    data = (parts / "part-01.bin").read_bytes()
    (parts / "part-01.bin").write_bytes(data[:-1] + b"\xff")
    with pytest.raises(ValueError, match=r"part-01\.bin: expected"):
        join(parts, tmp_path / "home")
    (parts / "part-01.bin").unlink()
    with pytest.raises(ValueError, match=r"part-01\.bin: part is missing"):
        join(parts, tmp_path / "home")
    index = (parts / "parts.json").read_text()
    (parts / "parts.json").write_text(index.replace("a.bin", "../a.bin"))
    with pytest.raises(ValueError, match="plain file names"):
        join(parts, tmp_path / "home")
    (parts / "parts.json").unlink()
    with pytest.raises(ValueError, match="not an index"):
        join(parts, tmp_path / "home")
    assert not (tmp_path / "home").exists()
    assert not list(tmp_path.glob(".home*"))
