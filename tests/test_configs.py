"""Every configuration that ships loads, and builds the model that its comments promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from molcmim.corpus_chem import PROPERTY_SETS
from molcmim.model import CMIM
from molcmim.train_config import TrainConfig

CONFIGS = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configuration_loads(path: Path) -> None:
    config = TrainConfig.from_yaml(path)
    size = {"same": 244, "atoms": 576}[config.model.encoder_tokens]  # of molcmim-tiny's vocabulary, and molcmim-base's
    n_properties = len(PROPERTY_SETS["wide"]) if config.objective.properties else 0
    architecture = replace(config.model, vocab_size=size, n_properties=n_properties)
    parameters = sum(p.numel() for p in CMIM(architecture, [[i] for i in range(size)]).parameters())
    assert f"{parameters / 1e6:.1f} M parameters" in path.read_text()
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_there_are_configurations() -> None:
    assert {"tiny", "pretrain_gpu"} <= {path.stem for path in CONFIGS}
