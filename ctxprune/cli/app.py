"""The commands and their options; what they do is in the modules beside this one, imported when a command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ctxprune.cli.options import Compression
from ctxprune.cli.output import View, notes
from ctxprune.files import checked_output
from ctxprune.options import with_flags

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    help="Prune retrieved documents for a question before the generator reads them.",
)
train = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Train, label, calibrate; see --help of each.")
app.add_typer(train, name="train")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a result (docs/result.md).")]
AsText = Annotated[bool, typer.Option("--text", help="Print the pruned text alone, as it goes into a prompt.")]
KeptOnly = Annotated[bool, typer.Option("--kept", help="Show only what is kept.")]
Everything = Annotated[
    bool, typer.Option("--all", help="Show everything, also of a long text (a terminal shows only what is kept).")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No notes and no progress bar on stderr.")]
Html = Annotated[
    Path | None,
    typer.Option(metavar="FILE", callback=checked_output, help="Write a page that shows what was kept and removed."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from ctxprune import __version__

        typer.echo(f"ctxprune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Options before the command; `main` looks for --debug itself, since it must work when parsing fails too."""


@app.command()
@with_flags
def compress(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE|FOLDER]...", help="Text, HTML, CSV or .jsonl[.gz]; - or nothing: standard input."
        ),
    ] = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="What the documents are to answer.")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='.jsonl[.gz] with {"question", "documents"} a line, - for standard input; writes a result a line.',
        ),
    ] = None,
    *,
    compression: Compression,
    as_json: AsJson = False,
    as_text: AsText = False,
    kept: KeptOnly = False,
    everything: Everything = False,
    html: Html = None,
    quiet: Quiet = False,
) -> None:
    """Prune documents for one question, or for a file of questions with documents."""
    _check_asked(question, batch, inputs=bool(inputs), page=html is not None, shown=as_text or kept or everything)
    view = View.of(as_json=as_json, text=as_text, kept=kept, everything=everything, html=html, quiet=quiet)
    if batch is None and not inputs and sys.stdin.isatty():
        raise typer.BadParameter("give files or a folder, or pipe a text into the command")
    from ctxprune.cli.run import compress_batch, compress_one

    if batch is not None:
        compress_batch(batch, compression, quiet=quiet)
    else:
        compress_one(question or "", inputs or [Path("-")], compression, view)


def _check_asked(question: str | None, batch: Path | None, *, inputs: bool, page: bool, shown: bool) -> None:
    """Refuse what a call with --batch and one without it cannot have. shown: whether a view for readers is wanted."""
    if batch is None and question is None:
        raise typer.BadParameter("give the question with -q, or a file of questions with --batch")
    if batch is not None and (question is not None or inputs or page):
        raise typer.BadParameter("--batch brings its own questions and documents; leave out -q, files and --html")
    if batch is not None and shown:
        raise typer.BadParameter("--batch writes a JSON object a line; leave out --text, --kept and --all")


@app.command()
@with_flags
def run(
    question: Annotated[list[str] | None, typer.Option("--question", "-q", help="A question; may be repeated.")] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='Questions: one a line, or .jsonl with {"question", "answers"?}; -: standard input.'
        ),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER", help="Documents to retrieve from (default: the bundled sample); -: standard input."
        ),
    ] = None,
    retriever: Annotated[
        str, typer.Option(help="bm25, dense, hybrid, or a .jsonl file of retrieved documents.")
    ] = "bm25",
    depth: Annotated[int, typer.Option("--documents", "-k", help="Documents to retrieve for a question.")] = 5,
    *,
    compression: Compression,
    generator: Annotated[str | None, typer.Option(help="local:PATH_OR_ID or openai:MODEL; without: no answer.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Of the openai generator, e.g. http://localhost:8000/v1.")
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(metavar="NAME", help="Environment variable with the key.")] = None,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Show what the generator would read.")] = False,
    as_json: AsJson = False,
    as_text: AsText = False,
    kept: KeptOnly = False,
    everything: Everything = False,
    html: Html = None,
    quiet: Quiet = False,
) -> None:
    """From question to prompt: retrieve, prune, render, and answer when a generator is given."""
    view = View.of(as_json=as_json, text=as_text, kept=kept, everything=everything, html=html, quiet=quiet)
    if questions == corpus == Path("-"):
        raise typer.BadParameter("standard input can be read once; give - to --questions or to --corpus, not to both")
    from ctxprune.cli.options import load_generator, load_questions, load_retriever
    from ctxprune.cli.run import Run

    asked = load_questions(question or (), questions, retriever=retriever, sample=corpus is None)
    Run(
        pipeline=compression.pipeline(),
        retriever=load_retriever(retriever, corpus, tell=notes(quiet=quiet)),
        generator=load_generator(generator, base_url=base_url, api_key_env=api_key_env) if generator else None,
        depth=depth,
        show_prompt=show_prompt,
    ).report(asked, view)


@app.command()
def index(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="FILE|FOLDER...", help="Documents, or a corpus (.jsonl[.gz]); -: standard input."),
    ],
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=checked_output,
            help='Word scores (SQLite), for `load("llmlingua2", cache=FILE)`; made or added to.',
        ),
    ] = None,
    sentences: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=checked_output,
            help='Sentence vectors (SQLite), for `load("recomp-extractive", cache=FILE)`; made or added to.',
        ),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            callback=checked_output,
            help="A vector store, for retrieval and xRAG; made or appended to.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Word model of --scores: a folder or a hub id.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Of --vectors: bundled, token-means, a sentence-transformers folder or hub id, or some with +."
        ),
    ] = None,
    shard_tokens: Annotated[
        int | None, typer.Option(metavar="TOKENS", help="Of --vectors: a vector for each so many tokens of a document.")
    ] = None,
    pieces: Annotated[
        str | None, typer.Option(help="Of --vectors: what a vector stands for at most: tokens, or sentences.")
    ] = None,
    titles: Annotated[
        bool | None, typer.Option("--titles/--no-titles", help="Of --vectors: embed the titles with the texts.")
    ] = None,
) -> None:
    """Score or embed documents ahead of time, so that no query waits for them; what is there already is kept."""
    if scores is None and sentences is None and vectors is None:
        raise typer.BadParameter("say what to make: --scores FILE, --sentences FILE, --vectors FOLDER, or several")
    if vectors is None and {encoder, shard_tokens, pieces, titles} != {None}:
        raise typer.BadParameter("--encoder, --shard-tokens, --pieces and --titles are for --vectors FOLDER")
    if scores is None and model is not None:
        raise typer.BadParameter("--model is for --scores FILE; name the encoder of --vectors with --encoder")
    from ctxprune.cli.run import VectorOptions, documents_to_index, index_scores, index_sentences, index_vectors

    documents = documents_to_index(inputs)
    if scores is not None:
        index_scores(documents, scores, model=model)
    if sentences is not None:
        index_sentences(documents, sentences)
    if vectors is not None:
        options = VectorOptions(encoder=encoder, shard_tokens=shard_tokens, pieces=pieces, titles=titles)
        index_vectors(documents, vectors, options)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8080,
    fail_closed: Annotated[bool, typer.Option("--fail-closed", help="An error instead of the original text.")] = False,
) -> None:
    """Serve the REST API and the OpenAI-compatible proxy; more settings are CTXPRUNE_... variables."""
    from importlib import import_module

    server = import_module("ctxprune.integrations.server.app")
    options = {"fail_closed": True} if fail_closed else {}
    server.serve(host=host, port=port, settings=server.settings_from_environment(**options))


@app.command(context_settings={"allow_interspersed_args": False})
def mcp(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND...]", help="With --wrap: the other server, or its URL.")
    ] = None,
    wrap: Annotated[
        bool, typer.Option("--wrap", help="Stand in front of another server, whose results are pruned.")
    ] = False,
    http: Annotated[
        bool, typer.Option("--http", help="Streamable HTTP at /mcp (default: standard input and output).")
    ] = False,
    host: Annotated[str, typer.Option(help="Of --http: address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --http: port to listen on.")] = 8090,
    compressor: Annotated[
        str, typer.Option("--compressor", "-c", help="A name of `ctxprune models`, a folder or a hub id.")
    ] = "provence",
    min_tokens: Annotated[int, typer.Option(min=0, help="Of --wrap: shorter results pass as they are.")] = 200,
    budget: Annotated[int | None, typer.Option(metavar="TOKENS", help="Of --wrap: what each result may keep.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Keep what scores at least this, 0 to 1 (default: the model's).")
    ] = None,
) -> None:
    """Serve prune, rerank and retrieve_original to agents over MCP, or prune what another MCP server returns."""
    if command and not wrap:
        raise typer.BadParameter("give --wrap before the command of the server to stand in front of")
    if wrap and not command:
        raise typer.BadParameter("--wrap needs the command or the URL of the server to stand in front of")
    if not wrap and (budget, threshold) != (None, None):
        raise typer.BadParameter("--budget and --threshold are for --wrap; without it, callers give them")
    from importlib import import_module

    served = import_module("ctxprune.integrations.mcp.server")
    served.run(
        transport="http" if http else "stdio",
        host=host,
        port=port,
        compressor=compressor,
        command=command if wrap else None,
        wrapping=served.Wrapping(min_tokens=min_tokens, budget=budget, threshold=threshold),
    )


@app.command()
def models() -> None:
    """List the compressors, and the models inside the package."""
    from ctxprune.cli.doctor import list_models

    list_models()


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False) -> None:
    """Check this installation; exit code 1 when the bundled model does not work."""
    from ctxprune.cli.doctor import diagnose

    raise typer.Exit(diagnose(as_json=as_json))


# Their own parsers read the arguments, --help too; the modules import torch, so they are named here and not imported.
_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


_TRAIN = {
    "provence": ("ctxprune.trainers.provence.train", "Train a pruner from labelled questions, and export it."),
    "distil": ("ctxprune.trainers.provence.distil", "Let a stronger pruner label the pairs of a smaller one."),
    "labels": ("ctxprune.trainers.provence.labels", "Label sentences with a language model that cites them."),
    "llmlingua2": ("ctxprune.trainers.llmlingua2.train", "Train a word pruner from word targets."),
    "deletion": ("ctxprune.trainers.llmlingua2.deletion", "Word targets from a language model that only deletes."),
    "coverage": ("ctxprune.trainers.llmlingua2.targets", "Word targets from what questions ask about."),
    "self-information": (
        "ctxprune.trainers.llmlingua2.self_information",
        "Word targets from a language model's surprise.",
    ),
    "recomp-labels": ("ctxprune.trainers.recomp.labels", "Label sentences by what they do for a generator's answer."),
    "recomp-extractive": ("ctxprune.trainers.recomp.extractive", "Fine-tune a dual encoder to choose sentences."),
    "recomp-summaries": ("ctxprune.trainers.recomp.summaries", "Summaries to learn from, where they help a generator."),
    "recomp-abstractive": ("ctxprune.trainers.recomp.abstractive", "Train a model that summarises for a question."),
    "xrag": ("ctxprune.trainers.xrag.train", "Train a bridge from a retriever's vectors to a language model."),
    "fusion": ("ctxprune.trainers.provence.fusion", "Fit the context head of an exported pruner."),
    "unexport": ("ctxprune.trainers.provence.unexport", "Read an int8 export back, to go on training from it."),
}
_TOP = {
    "eval": (
        "ctxprune.eval.command",
        "Benchmark compressors on questions: data, run, report, compare, ls, calibrate, break-even.",
    ),
    "map": ("ctxprune.integrations.mapping.run", "Compress, embed or score a whole file on several workers."),
}


def _passing_on(module: str) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        _pass_on(module, context.args)

    return command


for _group, _commands in ((train, _TRAIN), (app, _TOP)):
    for _name, (_module, _help) in _commands.items():
        _group.command(_name, context_settings=_PASS_ON, help=_help)(_passing_on(_module))


def _pass_on(module: str, arguments: list[str]) -> None:
    from importlib import import_module

    raise typer.Exit(import_module(module).main(arguments) or 0)
