"""`molcmim corpus build | pack | unpack | info`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from molcmim.corpus import CorpusInfo

app = typer.Typer(help="Training data: SMILES files to token shards.", no_args_is_help=True)


class Policy(StrEnum):
    """Ways to prepare a SMILES."""

    none = "none"
    canonical = "canonical"
    parent = "parent"


class Properties(StrEnum):
    """Sets of descriptors."""

    none = "none"
    basic = "basic"
    wide = "wide"
    morgan = "morgan"


class TokenizerKind(StrEnum):
    """Tokenizers that can be trained on a corpus."""

    smiles = "smiles"
    selfies = "selfies"
    bpe = "bpe"


Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Corpus directory.", show_default=False)]


@app.command()
def build(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="PATH or PATH=WEIGHT, weight being the expected passes an epoch (default 1). PATH is "
            "a .smi, .txt, .csv or .tsv file (.gz, .xz), a molsets wheel, or the word molsets for the "
            "installed one. A molecule of several sources belongs to the first.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Directory to make.")],
    mark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Like SOURCE, but only to give its weight to molecules that a SOURCE has: its others are left out.",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        TokenizerKind, typer.Option(help="Kind of the tokenizer that is trained on the corpus.")
    ] = TokenizerKind.smiles,
    vocab: Annotated[
        Path | None,
        typer.Option(help="Use this vocabulary (vocab.json) instead of training one.", show_default=False),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Longer molecules are left out.", min=1)] = 200,
    policy: Annotated[
        Policy, typer.Option(help="How SMILES are prepared; none where they are canonical already.")
    ] = Policy.canonical,
    column: Annotated[str | None, typer.Option(help="SMILES column of tables.", show_default="by its name")] = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    valid_fraction: Annotated[
        float, typer.Option(help="Share of molecules for validation, chosen by hash.", min=0.0, max=1.0)
    ] = 0.005,
    random_smiles: Annotated[
        bool, typer.Option("--random-smiles", help="Also store a random SMILES of each molecule.")
    ] = False,
    properties: Annotated[
        Properties, typer.Option(help="Also store RDKit descriptors: 36, 114, or those and 256 Morgan counts.")
    ] = Properties.none,
    min_count: Annotated[int, typer.Option(help="Rarer tokens are left out of the vocabulary.", min=1)] = 5,
    max_vocab: Annotated[
        int | None,
        typer.Option(help="Largest vocabulary (smiles tokenizer).", min=1, show_default="no limit"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random SMILES.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the directory if it exists.")] = False,
) -> None:
    """Build a corpus: check, prepare, drop repeats, tokenize, split."""
    from molcmim.corpus_build import Source, build_corpus
    from molcmim.tokenizer import load_tokenizer

    marks = [Source(path, weight, column=column, mark=True) for path, weight in map(parse_source, mark or [])]
    info = build_corpus(
        [*marks, *(Source(path, weight, column=column) for path, weight in map(parse_source, sources))],
        output,
        tokenizer.value if vocab is None else load_tokenizer(vocab),
        max_tokens=max_tokens,
        policy=policy.value,
        workers=workers,
        valid_fraction=valid_fraction,
        random_smiles=int(random_smiles),
        properties=None if properties is Properties.none else properties.value,
        min_count=min_count,
        max_vocab=max_vocab,
        seed=seed,
        overwrite=overwrite,
    )
    describe(output, info)


@app.command()
def pack(
    directory: Directory,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write (.xz).", show_default=False)],
    properties: Annotated[
        bool, typer.Option("--properties/--no-properties", help="Keep the descriptors, most of the file if any.")
    ] = True,
) -> None:
    """Pack the token ids and descriptors of a corpus into one small file (random SMILES are not in it)."""
    from molcmim import corpus_pack

    corpus_pack.pack(directory, file, properties=properties)
    typer.echo(f"{directory} -> {file}, {file.stat().st_size / 1e6:.1f} MB")


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that pack wrote.", show_default=False)],
    directory: Directory,
) -> None:
    """Make the corpus directory again from a packed file."""
    from molcmim import corpus_pack
    from molcmim.corpus import CorpusInfo

    corpus_pack.unpack(file, directory)
    describe(directory, CorpusInfo.load(directory))


@app.command()
def info(directory: Directory) -> None:
    """Print what a corpus holds."""
    from molcmim.corpus import CorpusInfo

    describe(directory, CorpusInfo.load(directory))


def parse_source(text: str) -> tuple[str, float]:
    """``PATH`` or ``PATH=WEIGHT``; what follows the last ``=`` belongs to the path unless it is a number."""
    path, equals, weight = text.rpartition("=")
    if equals:
        try:
            return path, float(weight)
        except ValueError:
            pass
    return text, 1.0


def describe(directory: Path, info: CorpusInfo) -> None:
    """Print the key facts of a corpus."""
    typer.echo(f"{directory}: {info.n_train:,} molecules to train on, {info.n_valid:,} to validate")
    typer.echo(f"  tokenizer     {info.tokenizer_kind}, {info.vocab_size} tokens, {info.fingerprint}")
    typer.echo(f"  longest       {info.max_tokens} tokens at most")
    typer.echo(f"  policy        {info.policy}")
    typer.echo(f"  random SMILES {'yes' if info.has_random else 'no'}")
    typer.echo(f"  descriptors   {len(info.properties.names) if info.properties else 'no'}")
    for source in info.sources:
        typer.echo(f"  source        {source.name}: {source.n:,} molecules, {source.weight:g} passes an epoch")
    typer.echo(f"  duplicates    {info.duplicates:,} left out")
    for status, count in sorted(info.statuses.items(), key=lambda item: -item[1]):
        typer.echo(f"  {status:<16} {count:>12,}")
