"""Types and options that the commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from molcmim.cli_corpus import Policy

__all__ = [
    "Compute",
    "Format",
    "FormatOption",
    "IdColumn",
    "Input",
    "Kind",
    "ModelOption",
    "Policy",
    "PolicyOption",
    "SmilesColumn",
    "Workers",
]


class Kind(StrEnum):
    """Embeddings that a model has."""

    latent = "latent"
    informative = "informative"
    both = "both"


class Compute(StrEnum):
    """Precision of matrix products."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Format(StrEnum):
    """Input formats."""

    smi = "smi"
    csv = "csv"
    tsv = "tsv"


Input = Annotated[
    str,
    typer.Argument(
        metavar="IN",
        help="Molecules: .smi, .txt (SMILES and name on each line), .csv, .tsv (with a header), each also "
        "with .gz or .xz; - for standard input.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Name of a shipped model, or a checkpoint directory.",
        show_default="the shipped one",
    ),
]
PolicyOption = Annotated[
    Policy,
    typer.Option(help="canonical: RDKit's SMILES; parent: largest fragment, neutralised; none: text as given."),
]
SmilesColumn = Annotated[
    str | None, typer.Option(help="Column of a table that holds the SMILES.", show_default="smiles")
]
IdColumn = Annotated[str | None, typer.Option(help="Column of a table that names the rows.", show_default="id")]
FormatOption = Annotated[
    Format | None,
    typer.Option("--format", help="Format of the input.", show_default="by its name; smi for -"),
]
Workers = Annotated[
    int | None,
    typer.Option(help="Processes that parse SMILES; 0: none of its own.", min=0, show_default="one a CPU core"),
]
