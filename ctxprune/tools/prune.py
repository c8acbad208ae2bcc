"""Prune what a tool returned for a question, by its shape: JSON stays JSON, a table keeps its header, code parses."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ctxprune.calibration import DEFAULT_POINT, OperatingPoints, check_point
from ctxprune.compressors import load
from ctxprune.compressors.base import ScoringCompressor
from ctxprune.errors import BudgetError, InputError
from ctxprune.plain import plain_budget, plain_threshold
from ctxprune.select import Policy
from ctxprune.text import UnitKind
from ctxprune.tokens import default_counter
from ctxprune.tools.choice import Choice, Chosen, worth_reading
from ctxprune.tools.elements import Kind, Shape, named, note_line, split_note, telling
from ctxprune.tools.shapes import frame, shape_of
from ctxprune.types import Compressor, Context, Extract, Piece, Span, Summary, TokenCounter

#: Entries of a list are alike, so a little of what the question asks for is in all of them: one stays when it scores
#: this share of the best one. Of no meaning where a threshold, an operating point or a budget is given.
BESIDE_BEST = 0.25


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What is left of a tool's output.

    kind: what it was taken for. left_out, of: elements that went in this call, and how many there were; an element is
    an entry of an array, a row, a record, a hit, a hunk, a block of code or a sentence. kept_spans: `[start, end)` of
    the input that stayed, with the score of each; what the elements stand in, such as JSON's keys, is not among them.
    status: "compressed" or "passthrough", and why. over_budget: what must stay is more than the budget.
    """

    text: str
    kind: Kind
    status: str
    reason: str = ""
    left_out: int = 0
    of: int = 0
    kept_spans: tuple[Span, ...] = ()
    tokens_before: int = 0
    tokens_after: int = 0
    tokenizer: str = ""
    exact: bool = False
    budget: int | None = None
    over_budget: bool = False
    warnings: tuple[str, ...] = ()


def prune_tool_output(
    text: str,
    question: str,
    *,
    budget: int | None = None,
    threshold: float | None = None,
    operating_point: str | None = None,
    compressor: str | Compressor = "provence",
    counter: TokenCounter | None = None,
) -> ToolOutput:
    """What of a tool's output answers the question; it is still of the form that it came in.

    budget: tokens of the text that comes out, its note included; where the best element fits only without the note,
    there is none. threshold, operating_point: as of the compressor, which scores the elements. What holds an identifier
    of the question (an id, a path, a code, what it quotes) stays whatever it scores and costs, unless it stands in more
    than half of the elements.
    Raises InputError for a compressor that scores no text and for an empty question, BudgetError for a budget below 1
    and for a compressor that only ranks and gets none.
    """
    pruner = _by_name(compressor) if isinstance(compressor, str) else ToolOutputs(compressor)
    return pruner.prune(
        text, question, budget=budget, threshold=threshold, operating_point=operating_point, counter=counter
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """One call's question and limits."""

    question: str
    budget: int | None
    threshold: float | None
    operating_point: str | None
    counter: TokenCounter


class ToolOutputs:
    """Prunes tool outputs with one compressor, which is loaded once; itself a compressor, for pipelines.

    Raises InputError for one that gives no scores, such as those that summarise.
    """

    def __init__(self, compressor: str | Compressor = "provence") -> None:
        loaded = load(compressor) if isinstance(compressor, str) else compressor
        if not isinstance(loaded, ScoringCompressor):
            raise InputError(f"{loaded.name} scores no text, so it cannot choose among a tool's output; take provence")
        self.compressor = loaded
        self.name = loaded.name
        self.needs_query = loaded.needs_query
        self.counter = loaded.counter
        self.budget = loaded.budget
        self.default_threshold = loaded.default_threshold
        self.operating_points: OperatingPoints | None = loaded.operating_points
        self.policy = loaded.policy

    def prune(
        self,
        text: str,
        question: str,
        *,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
        counter: TokenCounter | None = None,
    ) -> ToolOutput:
        """See `prune_tool_output`."""
        self._check(text, question, budget, threshold, operating_point)
        if threshold is None and operating_point is None:
            threshold, operating_point = self.compressor.threshold, self.compressor.operating_point
        budget = self.budget if budget is None else budget
        asked = _Asked(question, budget, threshold, operating_point, counter or self.counter or default_counter())
        before = asked.counter.count([text])[0]
        head, inner, tail = frame(text)
        shape = shape_of(inner)
        output = (
            self._as_text(text, asked, before) if shape is None else self._by_shape(shape, head, tail, asked, before)
        )
        output = replace(
            output, tokens_before=before, tokenizer=asked.counter.name, exact=asked.counter.exact, budget=budget
        )
        if output.status == "compressed" and output.tokens_after < before:
            return output
        return replace(
            output,
            text=text,
            status="passthrough",
            reason=output.reason or "nothing to remove: the note would take more than it saves",
            left_out=0,
            tokens_after=before,
            over_budget=budget is not None and before > budget,
        )

    def compress(
        self,
        contexts: Sequence[Context],
        *,
        budget: int | None = None,
        threshold: float | None = None,
        operating_point: str | None = None,
    ) -> list[Context]:
        """Each document as the output of a tool. A budget is of one document, so it takes contexts of one."""
        if budget is not None and any(len(context.pieces) > 1 for context in contexts):
            raise InputError("a budget for tool outputs is of one output; give each a context of its own")
        return [self._compressed(context, budget, threshold, operating_point) for context in contexts]

    def _compressed(
        self, context: Context, budget: int | None, threshold: float | None, operating_point: str | None
    ) -> Context:
        pieces: list[Piece] = []
        for piece in context.pieces:
            if isinstance(piece, Extract) and piece.text:
                output = self.prune(
                    piece.text, context.query, budget=budget, threshold=threshold, operating_point=operating_point
                )
                for warning in output.warnings:
                    context = context.warn(warning)
                if output.status == "compressed":
                    piece = Summary(output.text, (piece.source,), index=piece.index)
            pieces.append(piece)
        return replace(context, pieces=tuple(pieces))

    def _check(
        self, text: str, question: str, budget: int | None, threshold: float | None, operating_point: str | None
    ) -> None:
        for name, value in (("text", text), ("question", question)):
            if not isinstance(value, str):
                raise InputError(f"{name} must be a string, got {type(value).__name__}: {value!r:.80}")
        if self.needs_query and not question.strip():
            raise InputError("the question is empty; pass what the tool was asked for")
        budget, threshold = plain_budget(budget), plain_threshold(threshold)
        if budget is not None and budget <= 0:
            raise BudgetError(f"budget must be positive, got {budget}; leave it out to keep by threshold alone")
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise InputError(f"threshold must be in [0, 1], got {threshold}")
        check_point(operating_point, threshold)
        limits = (budget, self.budget, threshold, operating_point, self.compressor.threshold)
        if self.default_threshold is None and all(limit is None for limit in limits):
            raise BudgetError(f"{self.name} only ranks text and needs a budget; pass budget=<generator tokens>")
        if self.default_threshold is None and threshold is not None:
            raise InputError(f"{self.name} scores are not probabilities, so threshold={threshold} means nothing")

    def _by_shape(self, shape: Shape, head: str, tail: str, asked: _Asked, before: int) -> ToolOutput:
        if not shape.elements:
            return ToolOutput(shape.text, shape.kind, "passthrough", "there are no elements that could be left out")
        if shape.pruned_before and (asked.budget is None or before <= asked.budget):
            return ToolOutput(shape.text, shape.kind, "passthrough", "it was pruned before")
        lines, ranks_only = [element.reads for element in shape.elements], self.default_threshold is None
        places = list(range(len(lines))) if ranks_only else worth_reading(lines, asked.question)
        scores = self._scores(shape, places, asked.question)
        flags = self._always(shape, asked.question)
        around = asked.counter.count([f"{head}{tail}"])[0] if head or tail else 0
        choice = Choice(shape, scores, flags, asked.counter.count)
        threshold = self._threshold(asked, len(shape.elements))
        if asked.budget is None and asked.threshold is None and asked.operating_point is None:
            threshold = max(threshold, BESIDE_BEST * max(scores))
        if asked.budget is None:
            chosen = choice.by_threshold(threshold)
        else:
            chosen = choice.by_budget(max(1, asked.budget - around), threshold)
        output = self._output(shape, chosen, scores, asked, head, tail)
        if len(places) == len(shape.elements):
            return output
        read = f"of {len(shape.elements)} {shape.noun} {len(places)} were read"
        warning = f"{read}: those that share most words with the question"
        return replace(output, warnings=(*output.warnings, warning))

    def _output(
        self, shape: Shape, chosen: Chosen, scores: Sequence[float], asked: _Asked, head: str, tail: str
    ) -> ToolOutput:
        pairs = zip(shape.elements, chosen.kept, strict=True)
        counted = [stays for element, stays in pairs if shape.tells(element, chosen.kept)]
        out = counted.count(False)
        text = f"{head}{chosen.text}{tail}"
        tokens = asked.counter.count([text])[0]
        warnings = []
        over = chosen.over_budget or (asked.budget is not None and tokens > asked.budget)
        if over:
            warnings.append(
                f"the budget of {asked.budget} tokens is exceeded: what must stay of this {shape.kind} (its frame and "
                f"what the question names) takes {tokens}"
            )
        if chosen.emptied:
            warnings.append(f"no {shape.noun} fit the budget of {asked.budget} tokens or score enough")
        kept = tuple(
            Span(len(head) + element.start, len(head) + element.end, score)
            for element, score, stays in zip(shape.elements, scores, chosen.kept, strict=True)
            if stays
        )
        status, reason = ("compressed", "") if out else ("passthrough", "nothing to remove")
        return ToolOutput(
            text,
            shape.kind,
            status,
            reason,
            out,
            len(counted),
            kept,
            tokens_after=tokens,
            over_budget=over,
            warnings=tuple(warnings),
        )

    def _always(self, shape: Shape, question: str) -> list[bool]:
        """Elements that the question names, or that a pattern of the policy's `protect` touches."""
        flags = named(question, shape.elements)
        for pattern in self.policy.protect:
            finder = re.compile(pattern) if isinstance(pattern, str) else pattern
            for at, element in enumerate(shape.elements):
                flags[at] = flags[at] or any(match.end() > match.start() for match in finder.finditer(element.reads))
        return flags

    def _threshold(self, asked: _Asked, units: int) -> float:
        """The score from which an element stays; with only a budget the compressor's floor."""
        if asked.threshold is not None:
            return asked.threshold
        point = asked.operating_point
        if point is None and asked.budget is not None:
            return self.compressor.default_floor if self.compressor.default_floor is not None else float("-inf")
        if self.operating_points is not None:
            return self.operating_points.threshold(point or DEFAULT_POINT, units)
        assert self.default_threshold is not None
        return self.default_threshold

    def _scores(self, shape: Shape, places: Sequence[int], question: str) -> list[float]:
        """A score an element; 0 for those that are not at these places."""
        scores = [0.0] * len(shape.elements)
        read = self._line_scores([shape.elements[place].reads for place in places], question)
        for place, score in zip(places, read, strict=True):
            scores[place] = score
        return scores

    def _line_scores(self, lines: Sequence[str], question: str) -> list[float]:
        """A score a line: the best of the units that it was split into."""
        starts, place = [], 0
        for line in lines:
            starts.append(place)
            place += len(line) + 1
        reader = self._reading("lines")
        (scored,) = reader.score([Context.of(question, ["\n".join(lines)])])
        scores = [0.0] * len(lines)
        at = 0
        ranks_only = self.default_threshold is None
        for unit in scored.extracts[0].units if scored.extracts else ():
            while at + 1 < len(lines) and starts[at + 1] <= unit.start:
                at += 1
            first = at
            while first < len(lines) and starts[first] < unit.end:
                fresh = scores[first] == 0.0 and ranks_only
                scores[first] = unit.score if fresh else max(scores[first], unit.score)
                first += 1
        return scores

    def _reading(self, units: UnitKind, policy: Policy | None = None) -> ScoringCompressor:
        """The compressor, told to split otherwise or to choose by another policy."""
        twin = copy.copy(self.compressor)
        if twin.splits_units:
            twin.units = units
        if policy is not None:
            twin.policy = twin.settled(policy)
        return twin

    def _as_text(self, text: str, asked: _Asked, before: int) -> ToolOutput:
        """Running text, by the compressor's own units."""
        body, earlier = split_note(text)
        if not body.strip():
            return ToolOutput(text, "text", "passthrough", "it is empty")
        if earlier.counts and (asked.budget is None or before <= asked.budget):
            return ToolOutput(text, "text", "passthrough", "it was pruned before")
        (scored,) = self.compressor.score([Context.of(asked.question, [body])])
        chosen, is_noted = self._sentences(scored, body, asked)
        (extract,) = chosen.extracts
        out, of = extract.kept.count(False), len(extract.kept)
        if not out:
            return ToolOutput(text, "text", "passthrough", "nothing to remove", warnings=chosen.warnings)
        left, total = earlier.counts.get("", (0, 0))
        noun = "sentences" if of == len(scored.extracts[0].units) else "parts"  # long ones were cut
        note = note_line(left + out, max(total, left + of), noun) if is_noted else ""
        pruned = "\n".join(filter(None, (extract.text, note))) + ("\n" if text.endswith("\n") else "")
        tokens = asked.counter.count([pruned])[0]
        return ToolOutput(
            pruned,
            "text",
            "compressed",
            "",
            out,
            of,
            tuple(extract.kept_units()),
            tokens_after=tokens,
            over_budget=asked.budget is not None and tokens > asked.budget,
            warnings=chosen.warnings,
        )

    def _sentences(self, scored: Context, text: str, asked: _Asked) -> tuple[Context, bool]:
        """What is chosen of a text: what is named stays, and the best sentence where none scores enough. And whether
        a note of the rest goes below it, which must not crowd out the best."""
        units = scored.extracts[0].units
        texts = [text[unit.start : unit.end] for unit in units]
        protect = (*self.policy.protect, *telling(asked.question, texts))
        on_empty = "keep_top1" if self.policy.on_empty == "drop" else self.policy.on_empty
        reader = self._reading(self.compressor.units, replace(self.policy, protect=protect, on_empty=on_empty))
        threshold, point = asked.threshold, asked.operating_point
        if asked.budget is None or not units:
            if threshold is None and point is None:
                point = DEFAULT_POINT if self.operating_points is not None else None
                threshold = self.default_threshold if point is None else None
            return reader.choose(scored, threshold, point, None), True
        note = asked.counter.count([f"\n{note_line(len(units), len(units), 'sentences')}\n"])[0]
        fits, best = asked.budget > note, max(units, key=lambda unit: unit.score)
        with_note = reader.choose(scored, threshold, point, max(1, asked.budget - note))
        without = reader.choose(scored, threshold, point, asked.budget)
        (noted,), (bare,) = with_note.extracts, without.extracts
        if all(bare.kept) or (_holds(bare, best) and not (fits and _holds(noted, best))):
            return without, False
        return (without, False) if not bare.dropped and (noted.dropped or not fits) else (with_note, True)


def _holds(extract: Extract, unit: Span) -> bool:
    """Whether all of the unit is kept."""
    return any(start <= unit.start and unit.end <= end for start, end in extract.slices())


@lru_cache(maxsize=4)
def _by_name(name: str) -> ToolOutputs:
    return ToolOutputs(name)
