"""Files written beside and renamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from molcmim.beside import written_beside


def test_the_file_is_there_at_the_end_only(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    target.write_text("old")
    with written_beside(target) as part:
        part.write_text("new")
        assert target.read_text() == "old"
        assert part.name.startswith(".x.json.") and part.name.endswith(".part")
    assert target.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "x.npz"
    target.write_text("old")
    with pytest.raises(error), written_beside(target, ".npz") as part:
        assert part.suffix == ".npz"
        part.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
