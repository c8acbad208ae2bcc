"""Do soft tokens carry their documents? Against controls: `python -m benchmarks.soft`.

Likelihoods of held-out passages and which of 32 a token belongs to, answers on held-out questions, and what it costs.
Every part writes its rows into --out as it goes; the same command goes on with them, and measures nothing twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.measure import Bootstrap, command_line, repeating
from benchmarks.soft.arms import (
    CostMeasure,
    ModelSize,
    Row,
    TextTokens,
    answer_figures,
    arms,
    cost_figures,
    identification_figures,
    passage_figures,
)
from benchmarks.soft.measure import (
    CANDIDATES,
    READ_TOKENS,
    AnswerMeasure,
    AskedSet,
    PassageMeasure,
    SoftLikelihood,
    bridge_digest,
    measured_rows,
    read_asked,
    read_passages,
)
from benchmarks.soft.names import MIXED, TEXT
from ctxprune.compressors import load
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.compressors.xrag.bridge import load_bridge
from ctxprune.compressors.xrag.expand import checked_policy
from ctxprune.eval.config import Step
from ctxprune.eval.report.markdown import table
from ctxprune.eval.run.compress import model_hash
from ctxprune.eval.run.folder import to_json, write_whole
from ctxprune.generators import LocalGenerator
from ctxprune.models.sentence_encoders import embedder_name, load_embedder
from ctxprune.trainers.shared.corpora import Source
from ctxprune.trainers.shared.teacher import positive


class Evaluation:
    """One command's parts, in order; each adds its figures to `report`. Models are loaded when a part needs them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._bridge = load_bridge(args.bridge, encoder=args.encoder)
        config = self._bridge.config
        self._embedder = load_embedder(args.encoder or embedder_name(config.encoder, unit=config.normalised))
        self._draw = Bootstrap(seed=args.seed)
        # not the batch size: it decides how long it takes
        self._identity: list[Any] = [bridge_digest(self._bridge), self._embedder.name, args.generator]
        self._identity += [model_hash(Step(name=args.generator)), args.dtype, args.seed, args.policy]
        self._model = lru_cache(maxsize=1)(self._load_model)
        self._generator = lru_cache(maxsize=1)(self._load_generator)
        self._policy = lru_cache(maxsize=1)(self._load_policy) if args.policy else None
        self.report: dict[str, Any] = {"bridge": asdict(config)}

    def run(self) -> Iterator[None]:
        """Yields after each part; raises InputError for files without what is asked of them, before anything runs."""
        args = self._args
        limits = {"tokens": args.passage_tokens, "limit": args.passage_limit}
        passages = read_passages(args.passages, **limits, seed=args.seed)
        sets = [
            read_asked(
                Path(source.path),
                limit=source.limit or args.limit,
                max_tokens=args.max_tokens,
                among=args.among,
                seed=args.seed,
            )
            for source in map(Source.parse, args.questions)
        ]
        yield from self._passages(passages)
        lent = {each.name: self._tokens([text for asked in each.asked for text in asked.documents]) for each in sets}
        likelihoods = {each.name: self._answer_rows("likelihoods", each, lent[each.name]) for each in sets}
        self._model.cache_clear()  # the generator needs the memory
        self.report["sets"] = {}
        for each in sets:
            written = self._answer_rows("predictions", each, lent[each.name])
            figures = answer_figures(likelihoods[each.name], written, self._draw)
            self.report["sets"][each.name] = {**figures, "left_out": each.left_out}
            yield
        if args.rounds:
            self._cost(sets[0], lent[sets[0].name], likelihoods[sets[0].name])
            yield

    def _passages(self, passages: Sequence[str]) -> Iterator[None]:
        measure = PassageMeasure(passages, self._tokens(passages), self._model)
        rows = self._rows("passages", [passages], range(len(passages)), measure.likelihoods)
        self.report["passages"] = passage_figures(rows, self._draw)
        yield
        # only passages of groups that are full
        count = min(self._args.identify, len(passages) // CANDIDATES * CANDIDATES)
        if count:
            rows = self._rows("identification", [passages], range(count), measure.identifications, chunk=8)
            self.report["identification"] = identification_figures(rows, self._draw)
            yield

    def _answer_rows(self, part: str, asked: AskedSet, tokens: TextTokens) -> list[Row]:
        limit = self._args.max_new_tokens
        template = self._bridge.config.template
        measure = AnswerMeasure(tokens, self._model, self._generator, template=template, max_new_tokens=limit)
        identity = [[each.to_dict() for each in asked.asked], [*arms(asked.asked[0], tokens)]]
        identity += [limit] if part == "predictions" else []
        work: Callable[[list[Any]], list[Row]] = getattr(measure, part)
        return self._rows(f"{part}-{asked.name}", identity, asked.asked, work, chunk=32)

    def _cost(self, asked: AskedSet, tokens: TextTokens, likelihoods: Sequence[Row]) -> None:
        args = self._args
        measure = CostMeasure(
            self._bridge,
            self._embedder,
            tokens,
            self._generator,
            max_new_tokens=args.max_new_tokens,
            rounds=args.rounds,
        )
        step = max(1, len(asked.asked) // args.cost_questions)
        group, known = asked.asked[::step][: args.cost_questions], likelihoods[::step][: args.cost_questions]
        identity = [[each.to_dict() for each in group], args.max_new_tokens, args.rounds]
        (row,) = self._rows("cost", identity, [group], measure.seconds)
        lengths = [each["prompt_tokens"] for each in known]
        self.report["cost"] = cost_figures(row, lengths, ModelSize.of(args.generator))

    def _rows(
        self,
        part: str,
        identity: Sequence[Any],
        items: Sequence[Any],
        work: Callable[[list[Any]], list[Row]],
        *,
        chunk: int = 64,
    ) -> list[Row]:
        return measured_rows(self._args.out, part, [*self._identity, *identity], items, work, chunk=chunk)

    def _tokens(self, texts: Sequence[str]) -> TextTokens:
        return TextTokens(self._bridge, self._embedder, texts, seed=self._args.seed, policy=self._policy)

    def _load_policy(self) -> ScoringCompressor:
        return checked_policy(load(self._args.policy))

    def _load_model(self) -> SoftLikelihood:
        args = self._args
        return SoftLikelihood(args.generator, self._bridge.config, known_as=args.known_as, dtype=args.dtype)

    def _load_generator(self) -> LocalGenerator:
        args = self._args
        return LocalGenerator(args.generator, dtype=args.dtype, batch_size=args.batch_size, known_as=args.known_as)


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not measured yet, write report.json and report.md after each part, and print the Markdown."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    evaluation = Evaluation(args)
    evaluation.report["command"] = repeating("soft", given)
    args.out.mkdir(parents=True, exist_ok=True)
    for _ in evaluation.run():
        write_whole(args.out / "report.json", to_json(evaluation.report, indent=1) + "\n")
        write_whole(args.out / "report.md", render(evaluation.report))
    print(render(evaluation.report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soft",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bridge", required=True, metavar="FOLDER", help="of a trained bridge, or its hub id")
    parser.add_argument("--generator", required=True, metavar="PATH_OR_ID", help="the language model it serves")
    parser.add_argument("--known-as", metavar="NAME", help="what the bridge calls that model, if it is another name")
    parser.add_argument("--encoder", help="the bridge's encoder from another place")
    parser.add_argument("--passages", type=Path, required=True, metavar="FILE", help="held-out questions: documents")
    parser.add_argument("--questions", required=True, nargs="+", metavar="FILE[:LIMIT]", help="held-out questions")
    parser.add_argument(
        "--among",
        type=positive,
        metavar="N",
        help="hide each question's document among N of the file's own, itself one",
    )
    parser.add_argument("--policy", help="a compressor: its best sentence as text beside vectors, and its pruned text")
    parser.add_argument("--passage-limit", type=positive, default=256, help="passages (default: 256)")
    parser.add_argument("--passage-tokens", type=positive, default=64, help="of a passage at most (default: 64)")
    parser.add_argument("--identify", type=int, default=64, help=f"passages, each among {CANDIDATES} (default: 64)")
    parser.add_argument("--limit", type=positive, default=100, help="questions a file (default: 100)")
    parser.add_argument("--max-tokens", type=positive, default=400, help="of a question's document (default: 400)")
    parser.add_argument("--max-new-tokens", type=positive, default=24, help="of an answer (default: 24)")
    parser.add_argument("--cost-questions", type=positive, default=4, help="timed, of the first file (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="of the timing; 0 leaves it out (default: 5)")
    parser.add_argument("--dtype", default="bfloat16", help="what the language model computes in (default: bfloat16)")
    parser.add_argument("--batch-size", type=positive, default=16, help="questions answered together (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of passages, shuffles and bootstrap (default: 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for rows, report.json and report.md")
    return parser


Figures = Mapping[str, Any]

_READING = """\
Brackets hold 95% percentile bootstrap intervals over passages or questions; differences are paired. **True**: the
document's own soft token. **Shuffled**: that of another document of the same file, which shows what any document's
token does. **Constant**: one token, trained beside the bridge, that is the same for all. Only what true does better
than shuffled was read from the document."""

_ANSWERS = """\
The document that holds the answer, or all that were retrieved; the same prompt in all arms, but for the closed book,
which is the question alone. **Best sentence**: of the policy, in whole pieces; with xRAG, all other pieces as soft
tokens, or (shuffled) those of another document. **Pruned text**: what the policy keeps by itself. **Nats**: of the
first accepted answer, per token, without the end of the turn; lower is better. **Match**: percent of questions where an
accepted answer occurs in the greedy answer. **Resilience**: match of those that are right in the closed book;
**boost**: of those that are wrong there."""

_COST = """\
Seconds a question, one after another, the arms in turn: median of {rounds} rounds and their extremes. Prefill: until
the first token. Whole: until the model ends its answer, so arms with longer answers take longer. "× text": seconds of
the text / seconds of this arm; 2.0 is twice as fast. Prefill operations of a prompt of T tokens:
2·P·T + 2·L·A·T·(T+1) + 2·d·V, with P = {parameters:,} parameters without embeddings and head, L = {layers} layers,
attention width A = {attention_width}, width d = {width}, vocabulary V = {vocabulary:,}; a multiply-add counts two."""


def render(report: Figures) -> str:
    """The whole report, with a section for each part that is there. report: see `Evaluation`."""
    parts = ["# Soft tokens", f"Made by:\n\n    {report['command']}", _bridge(report["bridge"]), _READING]
    if "passages" in report:
        parts += _passages_section(report["passages"], report.get("identification"))
    if report.get("sets"):
        parts += ["## Answers", _ANSWERS]
        for name, figures in report["sets"].items():
            parts += _answers(name, figures)
    if "cost" in report:
        parts += _cost_section(report["cost"])
    return "\n\n".join(parts) + "\n"


def _bridge(bridge: Figures) -> str:
    return (
        f"Bridge from {bridge['encoder']} ({bridge['d_retriever']} dimensions) to {bridge['generator']} "
        f"({bridge['d_model']}), one token for at most {bridge['shard_tokens']} tokens of text "
        f"({bridge['pieces']})."
    )


def _passages_section(figures: Figures, identification: Figures | None) -> Iterator[str]:
    yield "## Passages"
    yield (
        f"{figures['passages']:,} passages, {figures['tokens']:,} tokens, each after a soft token in a paraphrase "
        "prompt: nats per token of the passage (mean over passages)."
    )
    rows = []
    for name, nats in figures["nats"].items():
        more, better = figures["minus_true"].get(name), figures["true_better"].get(name)
        rows.append(
            [name, _number(nats), _signed(more) if more else "", _number(better, scale=100, digits=0) if better else ""]
        )
    yield table(["soft token", "nats per token", "this − true", "true is better, % of passages"], rows)
    if identification:
        count, candidates = identification["passages"], identification["candidates"]
        yield (
            f"**Identification.** Of {candidates} passages' tokens, the passage's own makes its first {READ_TOKENS} "
            f"tokens likeliest for {_number(identification['right'], scale=100, digits=1)}% of {count:,} passages; "
            f"chance is {100 / candidates:.1f}%."
        )


def _answers(name: str, figures: Figures) -> Iterator[str]:
    yield f"### {name}"
    left_out = figures.get("left_out", 0)
    yield f"{figures['questions']:,} questions" + (f"; {left_out:,} of the file do not suit." if left_out else ".")
    rows = []
    for arm, row in figures["arms"].items():
        against = figures["xrag_minus"].get(arm)
        differences = (
            [_signed(against["nats"]), _signed(against["match"], scale=100, digits=1)] if against else ["", ""]
        )
        match = _number(row["match"], scale=100, digits=1)
        rows.append([arm, f"{row['prompt_tokens']:.0f}", _number(row["nats"]), match, *differences])
    yield table(["arm", "prompt tokens", "nats", "match", "nats: xRAG − this", "match: xRAG − this"], rows)
    if figures["mixed_minus"]:
        yield table(
            [f"{MIXED} − this", "nats", "match"],
            [
                [arm, _signed(row["nats"]), _signed(row["match"], scale=100, digits=1)]
                for arm, row in figures["mixed_minus"].items()
            ],
        )
    kept = [
        [arm, *(_number(row[metric], scale=100, digits=1) for metric in ("resilience", "boost"))]
        for arm, row in figures["kept"].items()
    ]
    yield table(["with", "resilience", "boost"], kept)


def _cost_section(figures: Figures) -> Iterator[str]:
    arms, count = figures["arms"], figures["questions"]
    rounds = len(arms[TEXT]["whole"]["runs"])
    yield "## Cost"
    yield _COST.format(rounds=rounds, **figures["size"])
    yield table(
        ["arm", "prompt tokens", "10^9 operations", "× text", "prefill, s", "× text", "whole, s", "× text"],
        [_cost_row(arm, row, arms[TEXT]["flops"], count) for arm, row in arms.items()],
    )
    embedding, machine = figures["embedding"], figures["machine"]
    yield (
        f"Not in the table, as it is done once, offline: a document's vectors by {embedding['encoder']} take "
        f"{_seconds(embedding, count)} s."
    )
    load = "" if machine["load"] is None else f"; load average before: {machine['load']:.1f}"
    yield f"{machine['processor']}, {machine['cpus']} cores; {count} questions{load}."


def _cost_row(arm: str, row: Figures, text_flops: float, count: int) -> list[str]:
    cells = [arm, f"{row['prompt_tokens']:.0f}", f"{row['flops'] / 1e9:.1f}", f"{text_flops / row['flops']:.2f}"]
    for part in ("prefill", "whole"):
        cells += [_seconds(row[part], count), f"{row[part]['faster']['median']:.2f}"]
    return cells


def _seconds(timing: Figures, count: int) -> str:
    """Of one question or document, where `count` were timed together."""
    median, low, high = (timing[name] / count for name in ("median", "low", "high"))
    return f"{median:.3f} [{low:.3f}, {high:.3f}]"


def _number(figures: Figures, *, scale: float = 1.0, digits: int = 3) -> str:
    return _spelled(figures, f".{digits}f", scale)


def _signed(figures: Figures, *, scale: float = 1.0, digits: int = 3) -> str:
    return _spelled(figures, f"+.{digits}f", scale)


def _spelled(figures: Figures, form: str, scale: float) -> str:
    if not figures["n"]:
        return "–"
    mean, low, high = (format(scale * figures[name], form) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    sys.exit(main())
