"""Ask a language model which numbered sentences answer a question, and read its citations as labels.

After Provence (Chirkova et al., ICLR 2025, section 3.2): answering with citations gives better labels than asking for
relevance. The wording and the rules for odd answers are ours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ctxprune.errors import CtxpruneError, GeneratorError, InputError
from ctxprune.generators.base import CUT, generated, reply_of

if TYPE_CHECKING:
    from ctxprune.generators import Generator


@dataclass(frozen=True, slots=True)
class Cited:
    """The cited sentences: distinct, ascending, from 0. `out_of_range`: citations of sentences that do not exist."""

    indices: tuple[int, ...]
    out_of_range: int = 0


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The model found no answer: no sentence is relevant."""


@dataclass(frozen=True, slots=True)
class Unparsed:
    """No label can be read from the answer; `reason` is one of a few fixed phrases, so that they can be counted."""

    reason: str


Labels: TypeAlias = Cited | NoAnswer | Unparsed

_PROMPT = """\
Below is a passage, one numbered sentence a line, and a question.

Passage:
{passage}

Question: {question}

Answer the question from what the passage says and from nothing else. Write short statements. After each statement put \
the number of every sentence that supports it in square brackets, like [0] or [2][5]; leave out no sentence that is \
needed to understand or to prove the answer. If the passage does not answer the question, write exactly: No answer
Answer:"""

_BRACKETED_NUMBER = re.compile(r"\[(\s*\d+(?:\s*[,;–-]\s*\d+)*\s*)\]")
_BRACKETS = re.compile(r"\[([^\[\]]{1,200})\]")
_IN_CITATION = re.compile(r"[0-9]+|sentences?|and|to|through|[\s,;&–—-]", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]+)\s*(?:[–—-]|to\b|through\b)\s*([0-9]+)|([0-9]+)", re.IGNORECASE)
#: "No answer" as the beginning or a statement of its own; "she got no answer to her letter" is neither.
_VERDICT = re.compile(
    r"^[\W_]*{phrase}\b|[.!?:\]\n][^\w\[\]]*{phrase}[\"'“”*_`]*\s*(?:[.,;:!(\[\n]|$)".replace(
        "{phrase}", r"(?:no[\s_-]?answer|unanswerable|not answerable)"
    ),
    re.IGNORECASE,
)
_STATED = re.compile(
    r"\b(?:there is|has|have|contains?|gives?|provides?) no answer\b"
    r"|\bno answer (?:is|was|can|could|found|given|available|provided|in the)\b"
    r"|\b(?:cannot|can't|can not) be answered\b"
    r"|\bpassage (?:does not|doesn't) (?:answer|contain|provide|give|say|mention)\b",
    re.IGNORECASE,
)


def numbered_prompt(question: str, sentences: Sequence[str]) -> str:
    """The request to answer `question` from `sentences`, shown as `[i] text` from 0, citing them or saying "No answer".

    Bracketed numbers inside the sentences (reference marks) are shown in parentheses: a model that quotes the passage
    would otherwise seem to cite them.
    """
    lines = [f"[{number}] {_one_line(sentence)}" for number, sentence in enumerate(sentences)]
    return _PROMPT.format(passage="\n".join(lines), question=_one_line(question))


def _one_line(text: str) -> str:
    return _BRACKETED_NUMBER.sub(r"(\1)", " ".join(text.split()))


def parse_labels(answer: str, n_sentences: int) -> Labels:
    """What the answer says of sentences 0 to `n_sentences` - 1. Never raises.

    [1], [1, 3], [1][3], [2-4], [1 and 3] and [sentence 2] are citations. Those beyond the last sentence are ignored,
    and counted in `Cited.out_of_range`; if no other is left the answer is Unparsed, as is one that cites and also says
    "No answer", or does neither. Reasoning is not looked at.
    """
    reply = reply_of(answer)
    if reply.fault:
        return Unparsed(reply.short_fault)
    answer = reply.text
    groups = [group for group in _BRACKETS.findall(answer) if not _IN_CITATION.sub("", group)]
    indices, out_of_range = _indices(groups, n_sentences)
    verdict = _VERDICT.search(answer) is not None
    if indices or out_of_range:
        if verdict:
            return Unparsed("cites and says no answer")
        return Cited(indices, out_of_range) if indices else Unparsed("cites only sentences that do not exist")
    return NoAnswer() if verdict or _STATED.search(answer) else Unparsed("neither cites nor says no answer")


def _indices(groups: Sequence[str], n_sentences: int) -> tuple[tuple[int, ...], int]:
    """(distinct sentences within range, ascending; how many citations or ranges reached beyond it)."""
    cited: set[int] = set()
    out_of_range = 0
    for match in (match for group in groups for match in _RANGE.finditer(group)):
        first, last, single = match.groups()
        low, high = sorted((int(first), int(last))) if single is None else (int(single), int(single))
        out_of_range += high >= n_sentences
        cited.update(range(low, min(high, n_sentences - 1) + 1))
    return tuple(sorted(cited)), out_of_range


def add_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--endpoint", metavar="URL", help="base URL of an OpenAI-compatible endpoint, e.g. http://localhost:8000/v1")
    add("--model", metavar="NAME", help="the model's name at the endpoint")
    add("--api-key-env", metavar="VARIABLE", help="the environment variable that holds the key, e.g. OPENAI_API_KEY")
    add("--local", metavar="PATH", help="a causal language model on disk or a hub id, instead of an endpoint")
    add("--gguf-file", metavar="NAME", help="the GGUF file to load from --local")
    add("--concurrency", type=positive, default=8, metavar="N", help="requests in flight (default: %(default)s)")


def check_teacher_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program with a message unless exactly one teacher is named."""
    if (arguments.endpoint is None) == (arguments.local is None) or (arguments.endpoint and not arguments.model):
        parser.error("give either --endpoint URL with --model NAME, or --local PATH")


def teacher_name(arguments: argparse.Namespace) -> str:
    """The name under which an `AnswerCache` knows the teacher's answers."""
    return arguments.model or f"{arguments.local} {arguments.gguf_file or ''}".strip()


@contextmanager
def open_teacher(arguments: argparse.Namespace) -> Iterator[Generator]:
    from ctxprune.generators import OpenAIGenerator, load_generator

    generator = load_generator(
        arguments.local or arguments.model,
        base_url=arguments.endpoint,
        api_key_env=arguments.api_key_env,
        concurrency=arguments.concurrency,
        gguf_file=arguments.gguf_file,
    )
    with generator if isinstance(generator, OpenAIGenerator) else nullcontext():
        yield generator


def positive(text: str) -> int:
    """An argument type: a whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


#: Enough to fill a batch or a pool of connections; a failed call loses no more than this.
PROMPTS_A_CALL = 64


class AnswerCache:
    """Answers by model and prompt: one `{"key", "model", "answer", "digest"}` a line, written as soon as known.

    A last line without its line end, as a killed process leaves it, is cut off and so asked again, as is an answer that
    does not fit its digest (earlier versions wrote none); any other line that cannot be read raises InputError. For one
    process at a time. Use as a context manager.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._answers: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise InputError(f"cannot open the answer cache {self.path}: {error}") from None
        try:
            self._load()
        except InputError:
            self._file.close()
            raise

    def _load(self) -> None:
        self._file.seek(0)
        complete = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                key, answer = row["key"], row["answer"]
                if row.get("digest", digest := _digest(key, answer)) == digest:
                    self._answers[key] = answer
            except (ValueError, LookupError, TypeError, AttributeError):
                raise InputError(
                    f"{self.path}:{number}: not an answer of a labelling run; delete the line to ask again, "
                    "or name another cache file"
                ) from None
            complete += len(line)
        self._file.truncate(complete)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, model: str, prompt: str) -> str | None:
        """The model's answer to the prompt, None if it was never asked."""
        return self._answers.get(_key(model, prompt))

    def put(self, model: str, prompt: str, answer: str) -> None:
        """Remember an answer, on disk before this returns."""
        key = _key(model, prompt)
        self._answers[key] = answer
        row = {"key": key, "model": model, "answer": answer, "digest": _digest(key, answer)}
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()

    def failure(self, model: str, prompt: str) -> str:
        """Why the reply to the prompt is no answer, in a few fixed words; "" where it is one or was not asked."""
        return self._failures.get(_key(model, prompt), "")

    def fail(self, model: str, prompt: str, reason: str) -> None:
        """Remember why a reply is no answer until the cache is closed, so that another run asks again."""
        self._failures[_key(model, prompt)] = reason

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def answer_all(
    prompts: Sequence[str],
    generator: Generator,
    *,
    model: str,
    cache: AnswerCache,
    max_new_tokens: int,
    whole: bool = True,
) -> int:
    """Put the answers to all prompts into the cache; returns how many were generated.

    Prompts in the cache are not asked again, and equal prompts are asked once, PROMPTS_A_CALL in a call. Of a reply
    that is no answer (empty, refused, only reasoning, or, where it must be `whole`, cut off) the cache tells the
    reason. What earlier versions remembered may hold reasoning: it is asked for again.
    """
    unknown = [prompt for prompt in dict.fromkeys(prompts) if not _settled(cache, model, prompt)]
    for begin in range(0, len(unknown), PROMPTS_A_CALL):
        asked = unknown[begin : begin + PROMPTS_A_CALL]
        for prompt, reply in zip(asked, generated(generator, asked, max_new_tokens=max_new_tokens), strict=True):
            if reply.fault or (whole and reply.cut):
                cache.fail(model, prompt, reply.short_fault or CUT)
            else:
                cache.put(model, prompt, reply.text)
    return len(unknown)


def _settled(cache: AnswerCache, model: str, prompt: str) -> bool:
    answer = cache.get(model, prompt)
    if answer is None:
        return bool(cache.failure(model, prompt))
    return reply_of(answer).text == answer.strip() != ""


def _key(model: str, prompt: str) -> str:
    return hashlib.sha256(json.dumps([model, prompt]).encode()).hexdigest()


def _digest(key: str, answer: str) -> str:
    return hashlib.blake2b(json.dumps([key, answer]).encode(), digest_size=12).hexdigest()


def data_step(work: Callable[[], Mapping[str, Any]], *, out: Path) -> int:
    """Do the work, which writes `out`; print its report and write it beside `out`. Returns the exit code."""
    try:
        shown = json.dumps(work(), indent=2)
        report_path(out).write_text(shown + "\n", encoding="utf-8")
    except (CtxpruneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, GeneratorError):
            print("the answers so far are kept; run the same command to go on", file=sys.stderr)
        return 1
    print(shown)
    return 0


def report_path(out: Path) -> Path:
    """labels.jsonl, labels.jsonl.gz -> labels.report.json."""
    return out.with_name(out.name.removesuffix(".gz").removesuffix(".jsonl") + ".report.json")
