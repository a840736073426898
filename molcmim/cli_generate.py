"""`molcmim decode`, `sample`, `neighbours` and `interpolate`: latent vectors to tables of molecules."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molcmim.cli_options import FormatOption, IdColumn, ModelOption, Policy, PolicyOption, SmilesColumn, Workers
from molcmim.cli_tables import check_outputs, finish, read_molecules, warnings_on_stderr

if TYPE_CHECKING:
    from molcmim.api import MolCMIM
    from molcmim.decoding import DecodingArguments
    from molcmim.generated import GeneratedTable
    from molcmim.mixture import Mixture

BAR_ROWS = 300  #: rows from which on a progress bar is worth showing
DEFAULT_UNIT = "spread"  #: of radii, as `molcmim.sampling.RADIUS_UNIT`; here so that --help needs no torch


class Mode(StrEnum):
    """Ways of decoding."""

    greedy = "greedy"
    sample = "sample"
    beam = "beam"


class Unit(StrEnum):
    """Units of a radius."""

    absolute = "absolute"
    spread = "spread"


Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="OUT", help="*.csv, *.tsv or *.parquet.", show_default="print a table"),
]
OutputFile = Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="*.csv, *.tsv or *.parquet.")]
ModeOption = Annotated[
    Mode | None,
    typer.Option(
        help="greedy: the likeliest token each time; sample: drawn; beam: beam search.",
        show_default="sample with --temperature, --top-k or --top-p, else greedy",
    ),
]
Temperature = Annotated[float | None, typer.Option(help="Of sampling.", show_default="1")]
TopK = Annotated[int | None, typer.Option(help="Sample from the k likeliest tokens.", min=1, show_default="all")]
TopP = Annotated[
    float | None, typer.Option(help="Sample from the likeliest tokens that make up this share.", show_default="all")
]
Width = Annotated[int, typer.Option(help="Hypotheses that beam search keeps.", min=1)]
Repair = Annotated[
    int, typer.Option(help="Attempts to replace a text that is no molecule, by sampling from the same vector.", min=0)
]
Properties = Annotated[
    str,
    typer.Option(help="Columns to add, with commas between: qed, logp, sa, plogp, mw, tpsa, ...", show_default="none"),
]
Image = Annotated[
    Path | None, typer.Option(help="Picture of the molecules: *.png, *.svg or *.html.", show_default=False)
]
Seed = Annotated[int, typer.Option(help="Of all random numbers: the same one gives the same file.", min=0)]
BatchSize = Annotated[int, typer.Option(help="Rows decoded at once.", min=1)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.", show_default="cuda if there is one")]
Progress = Annotated[
    bool | None, typer.Option(help="Progress bar on stderr.", show_default="for long work, in a terminal")
]


def decode(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help="*.parquet or *.npy as `molcmim embed` writes, kind latent or both.", show_default=False
        ),
    ],
    output: OutputFile,
    model: ModelOption = None,
    mode: ModeOption = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    width: Width = 4,
    repair: Repair = 0,
    properties: Properties = "",
    image: Image = None,
    seed: Seed = 0,
    batch_size: BatchSize = 512,
    workers: Workers = None,
    device: Device = None,
    progress: Progress = None,
) -> None:
    """Write the SMILES of embeddings: one row out for each row in, in order; a row without vector has empty cells."""
    check_outputs(output, image)
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(f"output: {output} would replace the input")
    options = decoding(mode, temperature, top_k, top_p, width, repair, properties, batch_size, workers)
    from molcmim.vectors import read_vectors

    network = load_model(model, device, "decode")
    z = read_vectors(source, network)
    options["progress"] = wants_bar(len(z), progress)
    table = network.decode_table(z, seed=seed, **options)
    finish(with_names(table, source), output, image, network, f"decoded from {source.name}")


def sample(
    n: Annotated[int, typer.Option("-n", help="Molecules to write.", min=1, show_default=False)],
    output: Output = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="mixture: the model's own mixture of Gaussians; prior: N(0, I); or a *.safetensors file of one.",
            show_default="mixture if the model has one, else prior",
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="CORPUS", help="Fit a mixture to these molecules instead.", show_default=False),
    ] = None,
    fit_rows: Annotated[int, typer.Option(help="Molecules of --fit to use, drawn at random.", min=2)] = 20_000,
    save_mixture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Keep the mixture of --fit, *.safetensors, for --source.", show_default=False
        ),
    ] = None,
    unique: Annotated[bool, typer.Option("--unique", help="Each molecule once; draws on until there are n.")] = False,
    valid_only: Annotated[
        bool, typer.Option("--valid-only", help="Molecules only; draws on until there are n.")
    ] = False,
    model: ModelOption = None,
    mode: ModeOption = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    width: Width = 4,
    repair: Repair = 0,
    properties: Properties = "",
    image: Image = None,
    seed: Seed = 0,
    batch_size: BatchSize = 512,
    workers: Workers = None,
    device: Device = None,
    progress: Progress = None,
) -> None:
    """Write molecules of vectors drawn at random, from a mixture fitted to the model's codes or from the prior."""
    check_outputs(output, image)
    if source is not None and fit is not None:
        raise typer.BadParameter("give --source or --fit, not both")
    if save_mixture is not None and fit is None:
        raise typer.BadParameter("--save-mixture keeps the mixture of --fit, which isn't given")
    options = decoding(mode, temperature, top_k, top_p, width, repair, properties, batch_size, workers)
    network = load_model(model, device, "sample")
    from molcmim.decoding import Decoding
    from molcmim.sampling import sample_counted

    options["progress"] = wants_bar(n, progress)
    mixture, what = find_mixture(network, source, fit, fit_rows, seed, options["progress"])
    if save_mixture is not None and not isinstance(mixture, str):
        mixture.save(save_mixture)
        typer.echo(f"mixture: {save_mixture}", err=True)
    typer.echo(f"source: {what}", err=True)
    with warnings_on_stderr():
        table, n_drawn = sample_counted(network, n, mixture, seed, valid_only, unique, Decoding(**options))
    finish(table, output, image, network, f"{len(table):,} samples", n_drawn=n_drawn if valid_only or unique else None)


def neighbours(
    smiles: Annotated[
        str, typer.Argument(metavar="SMILES|FILE", help="A molecule, or a file of molecules.", show_default=False)
    ],
    radius: Annotated[float, typer.Option(help="Standard deviation of the noise.", min=0.0)] = 1.0,
    n: Annotated[int, typer.Option("-n", help="Molecules to write for each seed.", min=1)] = 10,
    unit: Annotated[
        Unit,
        typer.Option(help="Of the radius. absolute: of each latent dimension; spread: of the model's codes."),
    ] = Unit(DEFAULT_UNIT),
    output: Output = None,
    model: ModelOption = None,
    policy: PolicyOption = Policy.canonical,
    mode: ModeOption = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    width: Width = 4,
    repair: Repair = 0,
    properties: Properties = "",
    image: Image = None,
    seed: Seed = 0,
    smiles_column: SmilesColumn = None,
    id_column: IdColumn = None,
    format: FormatOption = None,
    batch_size: BatchSize = 512,
    workers: Workers = None,
    device: Device = None,
    progress: Progress = None,
) -> None:
    """Write molecules around a molecule, or around each of a file: z = mu + radius * noise.

    Exit code 1 if no seed can be used.
    """
    check_outputs(output, image)
    options = decoding(mode, temperature, top_k, top_p, width, repair, properties, batch_size, workers)
    seeds, ids = read_molecules(smiles, smiles_column, id_column, format)
    network = load_model(model, device, "neighbours")
    options["progress"] = wants_bar(n * len(seeds), progress)
    table = network.neighbours(seeds, radius, n, seed, unit.value, policy.value, **options)
    table = table.named([name for name in ids for _ in range(n)])
    finish(table, output, image, network, f"radius {radius:g}")
    bad = sum(status.startswith("seed_") for status in table.status) // n
    if bad:
        typer.echo(f"warning: {bad:,} of {len(seeds):,} seeds can't be used, see the column status", err=True)
    if bad == len(seeds) > 0:
        raise typer.Exit(1)


def interpolate(
    a: Annotated[str, typer.Argument(metavar="A", help="SMILES to start from.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="SMILES to end at.", show_default=False)],
    steps: Annotated[int, typer.Option(help="Rows, both ends counted.", min=2)] = 10,
    output: Output = None,
    model: ModelOption = None,
    policy: PolicyOption = Policy.canonical,
    mode: ModeOption = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    width: Width = 4,
    repair: Repair = 0,
    properties: Properties = "",
    image: Image = None,
    seed: Seed = 0,
    batch_size: BatchSize = 512,
    device: Device = None,
    progress: Progress = None,
) -> None:
    """Write molecules on the straight line between two in latent space."""
    check_outputs(output, image)
    options = decoding(mode, temperature, top_k, top_p, width, repair, properties, batch_size, None)
    network = load_model(model, device, "interpolate")
    options["progress"] = wants_bar(steps, progress)
    table = network.interpolate(a, b, steps, seed, policy.value, **options)
    finish(table, output, image, network, f"{a} to {b}", ends=(a, b))


# ---------------------------------------------------------------------------------------------- in


def load_model(name: str | None, device: str | None, what: str) -> MolCMIM:
    """The model, if it has a decoder; ValueError otherwise."""
    from molcmim.api import MolCMIM

    network = MolCMIM.from_pretrained(name, device=device)
    network.need_decoder(what)
    return network


def decoding(
    mode: Mode | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    width: int,
    repair: int,
    properties: str,
    batch_size: int,
    workers: int | None,
) -> DecodingArguments:
    """Options as the methods of `MolCMIM` take them, but for `progress`; ValueError if they don't go together."""
    from molcmim.decoding import Decoding

    options: DecodingArguments = {
        "mode": None if mode is None else mode.value,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "width": width,
        "repair": repair,
        "properties": [name.strip() for name in properties.split(",") if name.strip()],
        "batch_size": batch_size,
        "workers": workers,
    }
    Decoding(**options)
    return options


def wants_bar(n_rows: int, progress: bool | None) -> bool:
    """Whether to show a progress bar: as asked for, or for long work in a terminal."""
    return n_rows > BAR_ROWS and sys.stderr.isatty() if progress is None else progress


def with_names(table: GeneratedTable, source: Path) -> GeneratedTable:
    """Decoded rows with what the file of embeddings says about them: name, SMILES, similarity to it."""
    from molcmim.chem import prepare_many
    from molcmim.generated import with_seeds
    from molcmim.vectors import read_names

    names = read_names(source)
    if names is None or len(names.id) != len(table):
        return table
    prepared = prepare_many(names.canonical_smiles)  # again: who knows who wrote the file
    return with_seeds(table.named(names.id), names.smiles, [row.canonical_smiles for row in prepared])


def find_mixture(
    network: MolCMIM, source: str | None, fit: str | None, fit_rows: int, seed: int, progress: bool
) -> tuple[str | Mixture, str]:
    """What to draw from, and how to call it."""
    from molcmim.mixture import Mixture
    from molcmim.sampling import find_source, fit_mixture

    if fit is not None:
        molecules = read_some(fit, fit_rows, seed)
        fitted = fit_mixture(network, molecules, fit_rows, seed=seed, progress=progress, corpus=Path(fit).name)
        return fitted, f"mixture of {len(fitted)} Gaussians fitted to {fitted.facts['n']} molecules of {fit}"
    if source is not None and source.endswith(".safetensors"):
        mixture = find_source(network, Mixture.load(source))
        return mixture, f"mixture of {len(mixture)} Gaussians, {source}"
    if source not in (None, "mixture", "prior"):
        raise ValueError(f"source: expected mixture, prior or the name of a *.safetensors file, got {source!r}")
    if source is None and network.mixture is None:
        return "prior", f"prior N(0, I), for {network.config['name']} holds no mixture fitted to its codes"
    if source == "prior":
        return "prior", "prior N(0, I)"
    mixture = find_source(network, "mixture")
    return mixture, f"mixture of {len(mixture)} Gaussians that comes with {network.config['name']}"


def read_some(path: str, n: int, seed: int) -> list[str]:
    """n molecules of a file drawn at random, or all if there are fewer, in the order of the file."""
    import numpy as np

    from molcmim.readers import MoleculeReader

    generator = np.random.default_rng(seed)
    kept: list[tuple[int, str]] = []  # reservoir sampling: the file may be larger than memory
    n_read = 0
    with MoleculeReader(path) as reader:
        for chunk in reader.chunks():
            for text, draw in zip(chunk.smiles, generator.random(len(chunk.smiles)).tolist(), strict=True):
                place = int(draw * (n_read + 1))
                if n_read < n:
                    kept.append((n_read, text))
                elif place < n:
                    kept[place] = (n_read, text)
                n_read += 1
    return [text for _, text in sorted(kept)]
