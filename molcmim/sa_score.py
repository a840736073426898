"""Synthetic accessibility by RDKit's own program (Ertl and Schuffenhauer 2009, doi 10.1186/1758-2946-1-8).

RDKit ships the program and its table of fragment contributions as `Contrib/SA_Score`, which isn't a package, so it is
imported by its path. Its table is a pickle, which molcmim neither writes nor reads; here RDKit's code reads RDKit's
file, both out of one installation: whoever could alter the table could as well alter the program beside it. So a table
that isn't the known one is used too, but said, because scores may then differ from published ones.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from typing import Any

TABLE = "fpscores.pkl.gz"
TABLE_SHA256 = "10dcef9340c873e7b987924461b0af5365eb8dd96be607203debe8ddf80c1e73"  #: of RDKit 2026.03 and 2026.09

logger = logging.getLogger(__name__)


def sa_score(molecule: Any) -> float:
    """Synthetic accessibility of an RDKit molecule: 1, easy to make, to 10, hard.

    Raises
    ------
    ImportError
        If this RDKit comes without `Contrib/SA_Score`.
    """
    return float(_program().calculateScore(molecule))


@functools.cache
def _program() -> Any:
    """RDKit's module, its table read."""
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    from rdkit import RDConfig

    directory = Path(RDConfig.RDContribDir) / "SA_Score"
    program, table = directory / "sascorer.py", directory / TABLE
    spec = spec_from_file_location("rdkit_contrib_sascorer", program)
    if not program.is_file() or not table.is_file() or spec is None or spec.loader is None:
        raise ImportError(
            f"SA scores: expected RDKit's Contrib/SA_Score (sascorer.py and {TABLE}), which this RDKit comes without; "
            "the rdkit packages of PyPI and conda-forge have it"
        )
    found = hashlib.sha256(table.read_bytes()).hexdigest()
    if found != TABLE_SHA256:
        logger.warning("SA scores: %s of this RDKit isn't the one known (sha256 %s...)", TABLE, found[:12])
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.readFragmentScores()  # now, so that a damaged table is an error here
    return module
