"""What results say of the machine that made them."""

from __future__ import annotations

import platform

import pytest

from molcmim.provenance import cpu_kind, machine

INFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: {model}
model name\t: AMD EPYC
flags\t\t: fpu sse2 {flags}

processor\t: 1
cpu family\t: 25
model\t\t: {model}
model name\t: AMD EPYC
flags\t\t: fpu sse2 {flags}
"""


@pytest.mark.parametrize(
    ("model", "flags", "expected"),
    [
        (1, "avx avx2 fma", "AMD EPYC (family 25, model 1, avx2)"),
        (17, "avx2 avx512f avx512_bf16", "AMD EPYC (family 25, model 17, avx512_bf16)"),
        (17, "", "AMD EPYC (family 25, model 17)"),
    ],
)
def test_machines_of_one_name_are_told_apart(model: int, flags: str, expected: str) -> None:
    assert cpu_kind(INFO.format(model=model, flags=flags)) == expected


def test_arm_and_systems_without_proc() -> None:
    bare = platform.processor() or platform.machine()
    assert cpu_kind("processor : 0\nFeatures : fp asimd bf16\n") == f"{bare} (bf16)"
    assert cpu_kind("") == bare


def test_machine_names_versions_of_installed_packages_only() -> None:
    facts = machine(("numpy", "no-such-package"))
    assert {"cpu", "cores", "python", "molcmim", "numpy"} == set(facts)
