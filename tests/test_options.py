"""Every door offers the options of `ctxprune.options.Options`, under the same names and with the same defaults."""

import ast
import importlib.util
import inspect
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import typer
from fixtures_scoring import LetterCompressor
from typer.testing import CliRunner

from ctxprune import Context, Pipeline, Policy
from ctxprune.cli import app as commands
from ctxprune.cli.options import Compression
from ctxprune.compressors.base import Choice
from ctxprune.compressors.llmlingua.compressor import ContentWords, RandomWords
from ctxprune.errors import BudgetError, InputError
from ctxprune.eval.config import CompressorConfig, EvalConfig
from ctxprune.integrations.adapter import Adapter
from ctxprune.integrations.client.calls import CompressOptions
from ctxprune.integrations.langchain import CtxPruneCompressor
from ctxprune.integrations.mapping import Work
from ctxprune.integrations.mapping import run as map_run
from ctxprune.integrations.server import schemas
from ctxprune.integrations.server.engine.jobs import Job
from ctxprune.one_call import prune
from ctxprune.options import Options, with_flags
from ctxprune.types import About, about_of

DEFAULTS = {each.name: each.default for each in fields(Options)}
#: A server has its own models, and no files of its callers.
SERVED = DEFAULTS.keys() - {"model", "calibration"}


def defaults_of(function):
    """The options of a command line, lists as they end up."""
    given = {name: each.default for name, each in inspect.signature(function).parameters.items()}
    return given | {"protect": tuple(given["protect"] or ())}


@pytest.mark.parametrize("command", [commands.compress, commands.run, map_run.command])
def test_command_lines(command):
    assert {name: value for name, value in defaults_of(command).items() if name in DEFAULTS} == DEFAULTS


def test_flags_give_the_values_that_options_take():
    got = []
    command_line = typer.Typer()

    @command_line.command()
    @with_flags
    def collect(name: str, *, options: Work, loud: bool = False) -> None:
        got.append((name, options, loud))

    runner = CliRunner()
    for line in (
        "a",
        "b --gap 2,7 --protect x+ --protect y --calibration c.json --no-title --task scores --loud",
        "c --top-p 0.5 --no-companions --on-empty original --units lines --elision ...",
    ):
        done = runner.invoke(command_line, line.split())
        assert done.exit_code == 0, done.output
    assert got[0] == ("a", Work(), False)
    rules = {"gap": (2, 7), "protect": ("x+", "y"), "keep_title": False}
    assert got[1] == ("b", Work(calibration="c.json", task="scores", **rules), True)
    assert got[2] == ("c", Work(top_p=0.5, companions=False, on_empty="original", units="lines", elision="..."), False)
    refused = runner.invoke(command_line, ["d", "--gap", "wide"])
    assert isinstance(refused.exception, InputError) and "two whole numbers" in str(refused.exception)


@pytest.mark.parametrize("kind", [Compression, Work])
def test_values_of_options(kind):
    assert {each.name: each.default for each in fields(kind) if each.name in DEFAULTS} == DEFAULTS
    assert issubclass(kind, Options)


def test_requests():
    served = {name: each.default for name, each in schemas.Options.model_fields.items()}
    assert served.keys() == SERVED
    assert all(value in (None, DEFAULTS[name]) for name, value in served.items())
    assert CompressOptions.__annotations__.keys() - {"return_spans", "return_html"} == SERVED
    rules = {each.name for each in fields(Policy)}
    jobs = {each.name for each in fields(Job)} | {"units"}  # there the word counts sentences
    assert SERVED - rules <= jobs


@pytest.mark.parametrize("door", [Adapter, CtxPruneCompressor, prune])
def test_adapters(door):
    """They take what a compressor is built with; the rest comes with a compressor that is loaded already."""
    offered = {name: each.default for name, each in inspect.signature(door).parameters.items()}
    shared = offered.keys() & DEFAULTS.keys()
    assert shared >= {"compressor", "threshold", "operating_point", "budget"}
    assert all(offered[name] in (None, DEFAULTS[name], inspect.Parameter.empty) for name in shared)


def test_benchmark():
    names = {f"{name}s" for name in ("threshold", "operating_point", "budget", "rate")}
    assert names <= CompressorConfig.model_fields.keys()
    assert {"tokenizer", "language"} <= EvalConfig.model_fields.keys()
    assert {name[:-1] for name in names} <= DEFAULTS.keys()


def test_rules_are_those_of_a_policy():
    """What is no field of Options is of no use at a door: it is settled by the compressor."""
    policy = {each.name: each.default for each in fields(Policy) if each.default is not MISSING}
    shared = policy.keys() & DEFAULTS.keys()
    assert {name: policy[name] for name in shared} == {name: DEFAULTS[name] for name in shared}
    assert Options().policy() == Policy()
    assert Choice.__annotations__.keys() - {"counter", "policy"} <= DEFAULTS.keys()


def test_a_budget_is_missed_before_anything_is_read():
    for kind in (Options, Compression, Work):
        with pytest.raises(BudgetError, match="bm25-sentences only ranks text"):
            kind(compressor="bm25-sentences").pipeline()
    Options(compressor="lead").check(About(ranks_only=True, budget=5))
    Options(compressor="lead", rate=0.5).check(About(ranks_only=True))
    with pytest.raises(InputError, match="takes no --rate"):
        Compression(compressor="lead", rate=0.5).pipeline()


class Bare:
    """As a package's plug-in may be: a name and `compress`."""

    name = "bare"

    def compress(self, contexts, *, budget=None, threshold=None):
        return list(contexts)


class Telling(Bare):
    needs_query = False
    default_threshold = None
    gives_soft_tokens = True


class Own(LetterCompressor):
    def compress(self, contexts, *, budget=None, threshold=None, operating_point=None):
        return super().compress(contexts, budget=budget, threshold=threshold)


def test_what_compressors_say_of_themselves():
    assert about_of(Bare()) == About()
    told = about_of(Telling())
    assert (told.needs_query, told.ranks_only, told.gives, told.scores) == (False, True, "soft tokens", False)
    letters = about_of(LetterCompressor("a"))
    assert (letters.scores, letters.common_rules, letters.ranks_only) == (True, True, False)
    assert (about_of(Own("a")).scores, about_of(Own("a")).common_rules) == (False, False)
    words = about_of(ContentWords(budget=3))
    assert (words.scores, words.common_rules, words.budget, words.needs_query) == (True, False, 3, False)


def test_one_reading_serves_every_choice():
    class Counting(LetterCompressor):
        read = 0

        def score(self, contexts):
            Counting.read += len(contexts)
            return super().score(contexts)

    contexts = [Context.of("q", ["a b. c d.", "a a. b b b."]), Context.of("q", ["b b. a."])]
    scored = Pipeline(Counting("a")).score(contexts)
    for limits in ({"threshold": 0.2}, {"threshold": 0.9}, {"budget": 5}, {}):
        again = scored.choose(**limits)
        assert [each.after for each in again] == LetterCompressor("a").compress(contexts, **limits)
        assert scored.kept(**limits) == [each.after for each in again]
        for result, one in zip(again, scored.each(), strict=True):
            assert [each.after for each in one.choose(**limits)] == [result.after]
    assert Counting.read == 2
    with pytest.raises(InputError, match="rate must be in"):
        scored.choose(rate=1.5)
    for result in scored.choose(rate=0.5):
        assert result.budget == max(1, int(result.tokens_before * 0.5))


def test_words_at_a_whole_rate_stay_as_they_are():
    contexts = [Context.of("", ["one two, three"])]
    scored = Pipeline(RandomWords(rate=1.0)).score(contexts)
    assert scored.kept() == contexts
    assert [each.status for each in Pipeline(RandomWords(rate=1.0)).run(contexts)] == ["passthrough"]


def test_compressors_are_asked_in_one_place():
    """`getattr` of a compressor stands in `about_of` alone, and nobody compares methods from outside."""
    asking = []
    for package in ("ctxprune", "ctxprune.eval", "ctxprune.integrations", "ctxprune.trainers", "benchmarks"):
        (folder, *_) = importlib.util.find_spec(package).submodule_search_locations
        for file in Path(folder).rglob("*.py"):
            source = file.read_text(encoding="utf-8")
            assert "is ScoringCompressor." not in source, file
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
                    asking += [file.name] if "compressor" in ast.unparse(node.args[0]).lower() else []
    assert set(asking) <= {"types.py"}
