"""The command line: `molcmim embed | decode | sample | neighbours | interpolate | optimize | fit | predict | ...`.

Commands import what they need when they run, so that `molcmim --help` answers at once. An error that a user
can do something about (a missing file, a bad checkpoint, a wrong option) is one line on stderr and exit
code 1; wrong usage is exit code 2; `molcmim --traceback ...` shows where an error came from.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from molcmim import (
    __version__,
    cli_benchmark,
    cli_corpus,
    cli_embed,
    cli_generate,
    cli_optimize,
    cli_predict,
    cli_search,
)
from molcmim.cli_options import (
    FormatOption,
    IdColumn,
    Input,
    ModelOption,
    Policy,
    PolicyOption,
    SmilesColumn,
    Workers,
)

if TYPE_CHECKING:
    from molcmim.cli_run import Summary


class OneLineErrors(TyperGroup):
    """Turns expected exceptions into one line and exit code 1, Ctrl-C into one and exit code 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, ArithmeticError, ImportError, RuntimeError) as error:
            # typer's own Exit and Abort are RuntimeErrors
            if ctx.params.get("traceback") or isinstance(error, BrokenPipeError | typer.Exit | typer.Abort):
                raise
            text = " ".join(str(error).split()) or type(error).__name__
            typer.echo(f"error: {text}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=OneLineErrors,
    help="Molecule embeddings, and SMILES back from them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_corpus.app, name="corpus")
app.add_typer(cli_benchmark.app, name="benchmark")


def print_version(wanted: bool) -> None:
    """Print the version and leave, if that is wanted."""
    if wanted:
        typer.echo(f"molcmim {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the program an error came from.")
    ] = False,
) -> None:
    """Options of the program itself; `OneLineErrors` reads --traceback."""


app.command()(cli_embed.embed)


@app.command()
def check(
    source: Input,
    model: ModelOption = None,
    vocab: Annotated[
        Path | None,
        typer.Option(help="Vocabulary file (vocab.json) to use instead of a model's.", show_default=False),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Token limit.", min=1, show_default="the model's; 200 with --vocab")
    ] = None,
    policy: PolicyOption = Policy.canonical,
    smiles_column: SmilesColumn = None,
    id_column: IdColumn = None,
    format: FormatOption = None,
    workers: Workers = None,
    examples: Annotated[int, typer.Option(help="Bad rows to show.", min=0)] = 10,
) -> None:
    """Count statuses and what the vocabulary lacks, without running a model."""
    from molcmim.checkpoint_files import find_checkpoint, read_config, read_tokenizer
    from molcmim.cli_run import check_file
    from molcmim.readers import MoleculeReader
    from molcmim.tokenizer import load_tokenizer

    if vocab is not None and model is not None:
        raise typer.BadParameter("give --vocab or --model, not both")
    if vocab is not None:
        tokenizer, limit = load_tokenizer(vocab), 200
    else:
        directory = find_checkpoint(model)
        config = read_config(directory)
        tokenizer, limit = read_tokenizer(directory, config), int(config["architecture"]["max_tokens"])
    limit = limit if max_tokens is None else max_tokens
    with MoleculeReader(source, smiles_column, id_column, format) as reader:
        report = check_file(reader, tokenizer, limit, policy.value, workers, examples)
    summary, n_ok = report.summary, report.summary.statuses["ok"]
    share = 100 * n_ok / max(1, summary.n_rows)
    typer.echo(f"{summary.n_rows:,} rows, {n_ok:,} of them ok ({share:.2f} %)")
    print_statuses(summary)
    readable = n_ok + summary.statuses["unknown_token"] + summary.statuses["too_many_tokens"]
    if readable:
        covered = 100 * (1 - summary.statuses["unknown_token"] / readable)
        vocabulary = f"vocabulary ({tokenizer.kind}, {tokenizer.vocab_size} tokens)"
        typer.echo(f"{vocabulary}: covers {covered:.2f} % of molecules")
        typer.echo(f"longest molecule: {report.longest} tokens (limit {limit})")
    if report.unknown:
        typer.echo("not in the vocabulary (molecules in which it is the first such piece):")
        for piece, count in report.unknown.most_common(10):
            typer.echo(f"  {count:>8,}  {shortened(piece, 60)}")
    if report.examples:
        typer.echo("examples (rows count from 0):")
        for row, status, smiles, missing in report.examples:
            note = f"  [{shortened(missing, 30)}]" if missing else ""
            typer.echo(f"  {row:>8}  {status:<15}  {shortened(smiles, 60)}{note}")


@app.command()
def info(
    model: Annotated[
        str | None,
        typer.Argument(help="Name of a shipped model, or a checkpoint directory.", show_default="the shipped one"),
    ] = None,
) -> None:
    """Print a model's card and key facts; its files are checked against their sha256."""
    from molcmim import checkpoint_files as files

    directory = files.find_checkpoint(model)
    config = files.read_config(directory)
    tokenizer = files.read_tokenizer(directory, config)
    weights = files.read_file(directory, config, files.WEIGHTS)
    architecture = config["architecture"]
    split = architecture.get("encoder_tokens", "same") == "atoms"
    facts = {
        "name": config["name"],
        "model id": files.model_id(config),
        "directory": directory,
        "parameters": f"{config['parameters']:,}" if isinstance(config.get("parameters"), int) else "?",
        "weights": f"{len(weights) / 1e6:.1f} MB",
        "objective": config["objective"]["name"],
        "encoder": f"{architecture.get('encoder')}{', reads atom-level tokens' * split}",
        "embedding": f"latent {architecture.get('latent')}, informative {architecture.get('width')}",
        "longest molecule": f"{architecture.get('max_tokens')} tokens{', atom-level ones' * (tokenizer.kind == 'bpe')}",
        "tokenizer": f"{tokenizer.kind}, {tokenizer.vocab_size} tokens, {tokenizer.fingerprint}",
        "policy": config["policy"],
        "format": config["format_version"],
    }
    typer.echo(files.read_card(directory, config).rstrip())
    typer.echo("")
    for field, value in facts.items():
        typer.echo(f"{field:<17} {value}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, see configs/.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIELD=VALUE]...", help="Fields to set, e.g. optimizer.lr=0.002", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
) -> None:
    """Train a model; at the end its run directory holds a checkpoint directory, `export`."""
    import json
    import logging

    import yaml

    values = {}
    for item in overrides or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected FIELD=VALUE, got {item!r}", param_hint="overrides")
        try:
            values[name] = parse_value(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"{name}: not a value: {value!r}", param_hint="overrides") from error
    from molcmim.train import TrainConfig
    from molcmim.train import train as run

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    typer.echo(json.dumps(run(TrainConfig.from_yaml(config, values), resume)))


app.command(name="neighbours-in")(cli_search.neighbours_in)
app.command()(cli_generate.decode)
app.command()(cli_generate.sample)
app.command()(cli_generate.neighbours)
app.command()(cli_generate.interpolate)
app.command()(cli_optimize.optimize)
app.command()(cli_predict.fit)
app.command()(cli_predict.predict)


def parse_value(text: str) -> Any:
    """A value as YAML reads it, and also numbers like 1e-3, which are text to YAML 1.1."""
    import yaml

    value = yaml.safe_load(text)
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def print_statuses(summary: Summary) -> None:
    """One line a status that occurs, the most frequent first."""
    for status, count in summary.statuses.most_common():
        typer.echo(f"  {status:<16} {count:>10,}")
    if summary.n_surplus:
        typer.echo(
            f"warning: {summary.n_surplus:,} rows have more fields than the header; the surplus is left out",
            err=True,
        )


def shortened(text: str, limit: int) -> str:
    """One printable line of at most about `limit` characters."""
    shown = text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
    return shown if shown.isprintable() else ascii(shown)[1:-1]
