"""`molcmim benchmark generation`: measure a file of generated molecules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from molcmim.metrics.known import KnownSet


def generation(
    samples: Annotated[
        Path,
        typer.Argument(
            metavar="SAMPLES",
            help="Generated molecules: .csv, .tsv, .smi (also .gz, .xz) or .parquet; rows without a SMILES count "
            "as invalid.",
            show_default=False,
        ),
    ],
    moses: Annotated[
        Path | None,
        typer.Option(
            metavar="WHEEL_OR_DIR",
            help="The molsets wheel, or a folder with it or its files (pip download molsets==0.3.1 --no-deps).",
            show_default="moses/ in MOLCMIM_DATA, else an installed molsets",
        ),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(
            help="Training set for novelty: a .npy of hashes, a corpus directory, or a file of SMILES; hashes of the "
            "latter two are kept as known.npy in --out.",
            show_default=False,
        ),
    ] = None,
    known_canonical: Annotated[
        bool,
        typer.Option(
            "--known-canonical",
            help="--known's SMILES are canonical and of this RDKit: don't parse them (seconds rather than minutes).",
        ),
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column with the seed of each row: MolMIM's measures, and those of MOSES only with --moses.",
            show_default=False,
        ),
    ] = None,
    smiles_column: Annotated[
        str | None, typer.Option(help="Column of a table that holds the SMILES.", show_default="smiles")
    ] = None,
    ignore_stereo: Annotated[
        bool, typer.Option("--ignore-stereo", help="Remove stereo before MOSES' measures: its molecules have none.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for generation.json and generation.md.")] = Path(
        "generation_output"
    ),
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what is computed of MOSES' test sets, once.",
            show_default="moses/cache in MOLCMIM_DATA, else the user's cache",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.", show_default="cuda if there is one")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes.", show_default="one a CPU core")] = None,
) -> None:
    """Measure generated molecules: MOSES, or with --seeds MolMIM's per-seed measures."""
    from molcmim.metrics.generation import by_seed, read_samples, table_text, write_results

    rows = read_samples(samples, smiles_column, seeds)
    tables: dict[str, dict[str, float]] = {}
    training = None if known is None else open_known(known, out, known_canonical, workers)
    if seeds is not None:
        from molcmim.metrics.molmim import molmim_metrics

        tables["MolMIM, around seeds"] = molmim_metrics(*by_seed(rows), known=training, workers=workers)
    if seeds is None or moses is not None:
        import torch

        from molcmim.metrics.moses import moses_metrics
        from molcmim.metrics.reference import load_moses

        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        data = load_moses(moses, cache, where, workers, progress=True)
        title = "MOSES, stereo removed" if ignore_stereo else "MOSES"
        tables[title] = moses_metrics(rows.smiles, data, where, workers, ignore_stereo, known=training)
    typer.echo(table_text(tables), nl=False)
    for path in write_results(out, tables, about(samples, training)):
        typer.echo(f"wrote {path}")


def open_known(path: Path, out: Path, canonical: bool, workers: int | None) -> KnownSet:
    """The training set; what had to be hashed is kept in the output folder."""
    from molcmim.metrics.known import KnownSet

    training = KnownSet.from_source(path, canonical or None, workers)
    if path.suffix != ".npy":
        out.mkdir(parents=True, exist_ok=True)
        training.save(out / "known.npy")
        typer.echo(f"kept the hashes of {len(training):,} molecules: --known {out / 'known.npy'} is quicker", err=True)
    return training


def about(samples: Path, training: KnownSet | None) -> dict[str, Any]:
    """Facts for the results: file, command, versions, and the training set."""
    from molcmim import provenance

    facts: dict[str, Any] = {
        "samples": samples.name,
        "command": provenance.command_line("molcmim"),
        "date": provenance.now(),
        "machine": provenance.machine((*provenance.PACKAGES, "fcd_torch")),
    }
    if training is not None:
        facts["known"] = {"molecules": len(training), **training.about}
    return facts
