"""Every configuration that ships loads, and builds the model that its comments promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from molcmim.model import CMIM
from molcmim.train_config import TrainConfig

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configuration_loads(path: Path) -> None:
    config = TrainConfig.from_yaml(path)
    parameters = sum(p.numel() for p in CMIM(replace(config.model, vocab_size=244)).parameters())
    assert f"{parameters / 1e6:.1f} M parameters" in path.read_text()
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_there_are_configurations() -> None:
    assert {"tiny", "pretrain_gpu"} <= {path.stem for path in CONFIGS}
