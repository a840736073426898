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
    "schedule.max_minutes=null", "schedule.max_steps=100000", "validate_molecules=20", "reconstruct_molecules=5",
    "log_every=5", "peak_tflops=0.1", "device=cpu",
]  # fmt: skip


@pytest.mark.slow
def test_two_legs_come_home_in_parts(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path, 600)
    assert pack(corpus, tmp_path / "corpus.xz") < 20 * 2**20
    blocked = tmp_path / "blocked"  # a machine without chemistry
    for name in ("rdkit", "selfies", "tokenizers", "pyarrow"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text(f"raise ImportError('{name} is not on this machine')\n")
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(blocked), "LEG_MINUTES": "0.05",
                   "PART_MIB": "0.02", "OMP_NUM_THREADS": "1"}  # fmt: skip
    steps, sizes = [], []
    for _ in range(2):
        command = ["bash", str(SCRIPT), str(tmp_path / "corpus.xz"), str(tmp_path / "run"), str(tmp_path / "out")]
        done = subprocess.run([*command, *OVERRIDES], env=environment, cwd=tmp_path, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        records = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
        steps.append((records[-1]["event"], records[-1]["step"]))
        sizes.append(sorted(path.stat().st_size for path in (tmp_path / "out").glob("part-*.bin")))
    (_, first), (_, second) = steps
    assert 0 < first < second
    assert [r["step"] for r in records if r["event"] == "start"] == [0, first], (
        "the second leg goes on where the first ended"
    )
    assert len(sizes[1]) > 1 and max(sizes[1]) <= 0.02 * 2**20
    home = join(tmp_path / "out", tmp_path / "home")
    assert sorted(path.name for path in home.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "vocab.json",
    ]
    model = MolCMIM.from_pretrained(home, device="cpu")
    assert model.config["training"]["step"] == second
    assert np.isfinite(model.embed(["CCO", "c1ccccc1"])).all()


def test_script_says_how_it_is_called() -> None:
    done = subprocess.run(["bash", str(SCRIPT)], text=True, capture_output=True)
    assert done.returncode == 2
    assert "CORPUS.xz RUN_DIR OUT_DIR" in done.stderr


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
