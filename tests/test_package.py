"""The package as a whole: import time, version, public names, dependencies, README and example data."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import molcmim

CONDA_NAMES = {"pytorch": "torch"}
HEAVY = ("torch", "rdkit", "pandas", "pyarrow", "numpy")


def python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_api_does_not_import_the_compiler(root: Path) -> None:
    """Half of the seconds that importing it takes."""
    assert python("import sys, molcmim.api; print('torch._dynamo' in sys.modules)", root).strip() == "False"


def pyproject(root: Path) -> dict:
    return tomllib.loads(text(root / "pyproject.toml"))


def names_and_ranges(dependencies: list[str]) -> dict[str, str]:
    return dict(re.fullmatch(r"([a-z]+)(.*)", dependency).groups() for dependency in dependencies)


# ---------------------------------------------------------------------------------------------- import


def test_import_is_fast(root: Path) -> None:
    code = "import time; t = time.perf_counter(); import molcmim; print(time.perf_counter() - t)"
    seconds = []
    for _ in range(5):  # the least of several: other processes may share the machine
        seconds.append(float(python(code, root)))
        time.sleep(0.05)
    assert min(seconds) < 0.3


def test_import_loads_nothing_heavy(root: Path) -> None:
    loaded = python("import sys, molcmim, molcmim.__init__; print(*sys.modules)", root).split()
    assert not set(HEAVY) & set(loaded)


def test_every_public_name_is_there() -> None:
    for name in molcmim.__all__:
        assert getattr(molcmim, name) is not None
    assert set(molcmim.__all__) <= set(dir(molcmim))


def test_lazy_names_match_those_for_type_checkers(root: Path) -> None:
    """`TYPE_CHECKING` imports and the table of lazy names say the same."""
    tree = ast.parse(text(root / "molcmim" / "__init__.py"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    imported = {alias.name: node.module for node in imports for alias in node.names}
    assert imported == molcmim._HOME
    assert set(imported) == set(molcmim.__all__) - {"__version__"}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        molcmim.nonsense  # noqa: B018


# ---------------------------------------------------------------------------------------------- metadata


def test_version_is_that_of_the_installed_package() -> None:
    try:
        installed = metadata.version("molcmim")
    except metadata.PackageNotFoundError:
        pytest.skip("molcmim runs from its folder here and is not installed")
    assert molcmim.__version__ == installed


def test_changelog_has_this_version(root: Path) -> None:
    assert f"## [{molcmim.__version__}]" in text(root / "CHANGELOG.md")


def test_conda_environment_has_the_same_ranges(root: Path) -> None:
    project = pyproject(root)["project"]
    pip = names_and_ranges(project["dependencies"])
    listed = yaml.safe_load(text(root / "environment.yml"))["dependencies"]
    conda = names_and_ranges([entry for entry in listed if isinstance(entry, str) and entry != "pip"])
    assert conda.pop("python") == project["requires-python"]
    assert {CONDA_NAMES.get(name, name): version for name, version in conda.items()} == pip


def test_constraints_lie_within_the_ranges(root: Path) -> None:
    from packaging.requirements import Requirement

    ranges = {r.name: r.specifier for r in map(Requirement, pyproject(root)["project"]["dependencies"])}
    lines = text(root / "constraints.txt").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert [pin.name for pin in pins] == ["torch", "jsonschema"]
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert pin.name not in ranges or exact.version in ranges[pin.name]


# ---------------------------------------------------------------------------------------------- documents


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"])
def test_links_to_files_lead_somewhere(root: Path, document: str) -> None:
    path = root / document
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text(path))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_readme_lists_every_status(root: Path) -> None:
    section = text(root / "README.md").split("## What happens to bad rows")[1].split("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == [str(s) for s in molcmim.Status]


def test_readme_python_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from molcmim.pretrained import DEFAULT, available

    if DEFAULT not in available():
        pytest.skip(f"the checkpoint {DEFAULT} does not ship yet")
    blocks = re.findall(r"```python\n(.*?)```", text(root / "README.md"), flags=re.DOTALL)
    assert len(blocks) == 1
    scope: dict = {}
    exec(compile(blocks[0], "README.md", "exec"), scope)
    assert "['ok', 'ok', 'parse_error']" in capsys.readouterr().out
    assert scope["x"].shape[0] == 3
    assert scope["x"].dtype == "float32"


def test_python_of_the_generation_docs_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("cma", "PIL"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", text(root / "docs" / "generation.md"), flags=re.DOTALL)
    assert len(blocks) == 2
    scope: dict = {}
    for block in blocks:
        exec(compile(block, "generation.md", "exec"), scope)
    assert len(scope["table"]) == 100 and Path("samples.csv").exists() and Path("near.png").exists()
    assert scope["back"].canonical_smiles == ["CC(=O)Oc1ccccc1C(=O)O", "CC(C)Cc1ccc(C(C)C(=O)O)cc1"]
    assert scope["result"].best_score >= scope["result"].start_score
