"""Reads variants.yaml, and says which variants a round compares."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from molcmim.train_config import TrainConfig

BASE = "base"


class Variant(NamedTuple):
    """One recipe: the base with some fields changed."""

    name: str
    group: str
    overrides: dict[str, Any]  #: dotted field names to values
    corpus: str = "atom"
    optional: bool = False
    from_round: int = 1
    seeds: int | None = None  #: None: the round's


class Round(NamedTuple):
    """One round of the study."""

    number: int
    limit: dict[str, float]  #: of a training run: {"max_flops": ...} or another limit of ScheduleConfig
    seeds: int
    base_seeds: int
    keep: float = 1.0  #: of the round before: a share below 1, or how many


class Plan(NamedTuple):
    """All of variants.yaml."""

    base: dict[str, Any]
    variants: dict[str, Variant]  #: the base is the first
    rounds: dict[int, Round]


class Job(NamedTuple):
    """One training run and its score."""

    variant: str
    round: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}_{self.round}_{self.seed}"


def load_plan(path: Path) -> Plan:
    """Read the file.

    Raises
    ------
    ValueError
        For an unknown field, or a variant whose configuration is not one.
    """
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    variants = {BASE: Variant(BASE, BASE, {})}
    for name, fields in values["variants"].items():
        fields = dict(fields)
        try:
            variants[name] = Variant(name, fields.pop("group"), fields.pop("set"), **fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path.name}: variant {name}: {error}") from error
    rounds = {number: Round(number, **fields) for number, fields in values["rounds"].items()}
    for this in rounds.values():  # YAML 1.1 reads 2.5e13 (without a sign) as text
        this.limit.update({name: float(value) for name, value in this.limit.items() if isinstance(value, str)})
    plan = Plan(values["base"], variants, rounds)
    for variant in variants.values():
        configuration(plan, variant, {"max_steps": 1}, Path("corpora"), Path("out"), 0)
    return plan


def configuration(
    plan: Plan, variant: Variant, limit: Mapping[str, float], corpora: Path, output: Path, seed: int
) -> TrainConfig:
    """Of one run. Raises ValueError for a field that the trainer doesn't know."""
    values = copy.deepcopy(plan.base)
    for dotted, value in variant.overrides.items():
        *parents, leaf = dotted.split(".")
        target = values
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = value
    values["schedule"] |= limit
    values |= {"corpus": str(corpora / variant.corpus), "output": str(output), "name": variant.name, "seed": seed}
    return TrainConfig.from_dict(values)


def contenders(plan: Plan, number: int, previous: Mapping[str, float], everything: bool = False) -> list[str]:
    """Names of the variants of a round, the base first.

    Parameters
    ----------
    previous
        Yardstick of each variant in the round before; those that failed are not in it. Empty for the first round.
    everything
        The optional ones too, in the first round.

    Raises
    ------
    ValueError
        If a later round is asked for without results of the one before.
    """
    joining = [v.name for v in plan.variants.values() if v.from_round == number and (everything or not v.optional)]
    joining = [name for name in joining if name != BASE]
    if number == min(plan.rounds):
        return [BASE, *joining]
    ranked = sorted((name for name in previous if name != BASE), key=lambda name: -previous[name])
    if not ranked:
        raise ValueError(f"round {number}: expected results of the round before, got none")
    keep = plan.rounds[number].keep
    n = max(1, round(keep * len(ranked))) if keep < 1 else int(keep)
    return list(dict.fromkeys([BASE, *ranked[:n], *joining]))


def jobs_of(plan: Plan, number: int, names: Sequence[str]) -> list[Job]:
    """Runs of a round, one seed after the other."""
    this = plan.rounds[number]
    seeds = {name: this.base_seeds if name == BASE else plan.variants[name].seeds or this.seeds for name in names}
    return [Job(name, number, seed) for seed in range(max(seeds.values())) for name in names if seed < seeds[name]]
