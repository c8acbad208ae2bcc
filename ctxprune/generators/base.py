"""What a generator is, and what it replied, as a user would see it: without its reasoning, or why it is no answer.

Reasoning models show their thoughts in a field of their own, between tags, or in a channel; none of it is an answer, a
summary or something to score. What is left may be nothing: then the reply has failed, and says why.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from ctxprune.errors import GeneratorError, InputError
from ctxprune.prompt import DEFAULT_TEMPLATE
from ctxprune.types import Context


@runtime_checkable
class Generator(Protocol):
    """Writes an answer to each prompt."""

    @property
    def name(self) -> str: ...

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """One answer a prompt, in order, without the prompt and without special tokens."""
        ...


@runtime_checkable
class ContextGenerator(Protocol):
    """Writes an answer to each context; whether it can read soft tokens is its own business."""

    @property
    def name(self) -> str: ...

    def generate_contexts(
        self, contexts: Sequence[Context], *, template: str = DEFAULT_TEMPLATE, max_new_tokens: int = 64
    ) -> list[str]:
        """One answer a context, in order; `template` as in `ctxprune.prompt.render_prompt`."""
        ...


def checked_prompts(prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Raises InputError for a single string in place of a list, and for less than one new token."""
    if isinstance(prompts, str):
        raise InputError(f"prompts must be a sequence of strings, got one string; pass [{prompts!r:.60}]")
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    return list(prompts)


def checked_contexts(contexts: Sequence[Context], max_new_tokens: int) -> list[Context]:
    """Raises InputError for anything but contexts (text goes to `generate`), and for less than one new token."""
    if isinstance(contexts, Context):
        raise InputError("contexts must be a sequence, got one Context; pass [context]")
    for place, context in enumerate(contexts):
        if not isinstance(context, Context):
            raise InputError(
                f"contexts[{place}] must be a Context, got {type(context).__name__}; pass result.after, or a prompt's "
                "text to generate()"
            )
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    return list(contexts)


EMPTY: Final = "the reply is empty"
ONLY_REASONING: Final = "the reply is only reasoning, without an answer"
CUT: Final = "the reply was cut off at its limit of tokens"
REFUSED: Final = "the model refused"

_NAMES = r"(?:\w{1,20}[:_])?think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad|antthinking"
#: Opening marks, which come first in each pair, with the closing ones; the names in angle brackets must agree.
_TAG = re.compile(
    rf"(?P<close></\s*(?P<closes>{_NAMES})\s*>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<unused95>)"
    rf"|(?P<open><\s*(?P<opens>{_NAMES})(?:\s[^<>\n]{{0,200}})?>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>"
    r"|<unused94>(?:thought\b)?)",
    re.IGNORECASE,
)
#: Code and quoted marks: an answer that explains "`<think>`" is one.
_CODE = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`|[\"'“‘«](?=[<\[◁])[^\s\"'”’»]{1,40}[\"'”’»]", re.DOTALL
)
#: A closing mark of these names ends reasoning that the prompt opened for the model.
_ORPHAN = re.compile(r"(?:\w{1,20}[:_])?think(?:ing)?|thoughts?|reasoning", re.IGNORECASE)
#: As Open WebUI shows it.
_FOLDED = re.compile(
    r"<details\b[^<>]{0,200}\btype=[\"']?reasoning\b[^<>]{0,200}>.*?(?:</details>|\Z)", re.IGNORECASE | re.DOTALL
)
#: White space, and what takes no room: an answer of nothing else is none.
_UNSEEN = " \t\r\n\f\v\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"
_CHANNEL = re.compile(r"<\|channel\|>\s*(?P<name>\w+)[^<]*<\|message\|>")
#: gpt-oss decoded without its special tokens: the names of roles and channels stay.
_BARE_CHANNEL = re.compile(r"analysis(?=[A-Z\"'“(\d]|\s*\S).*?assistant\s*final(?P<answer>.*)\Z", re.DOTALL)
#: Reasoning in a code block of that name, before the answer.
_FENCED = re.compile(rf"\s*(`{{3,}}|~{{3,}})[ \t]*(?:{_NAMES})[ \t]*\n", re.IGNORECASE)
_FRAME = re.compile(
    r"<\|(?:begin_of_solution|end_of_solution|START_RESPONSE|END_RESPONSE|start|end|return|call|message|channel)\|>",
    re.IGNORECASE,
)
#: Special tokens that a tokenizer must leave in its text, for without them reasoning cannot be told from the answer.
REASONING_TOKEN: Final = re.compile(f"{_TAG.pattern}|{_FRAME.pattern}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reply:
    """text: what a user would see. fault: why it is no answer, "" where it is one.

    cut: the limit of new tokens ended it, not the model (None: not known); for a chat endpoint that is a fault too.
    model: which one an endpoint says has answered, "" where nobody says.
    """

    text: str
    fault: str = ""
    cut: bool | None = None
    model: str = ""

    @property
    def short_fault(self) -> str:
        """The fault in a few fixed words, to be counted."""
        return re.split("[:;]", self.fault)[0]

    def usable(self, name: str) -> str:
        """The text. Raises GeneratorError, with the reason, for a failed reply of the model `name`."""
        if self.fault:
            raise GeneratorError(f"{name} gave no answer: {self.fault}")
        return self.text


def reply_of(raw: str, *, cut: bool | None = None, reasoned: bool = False) -> Reply:
    """The reply in what a model wrote. cut: its limit ended it. reasoned: it thought in a field of its own."""
    text, in_text = without_reasoning(raw.strip(_UNSEEN))
    if text := text.strip(_UNSEEN):
        return Reply(text, cut=cut)
    if not (reasoned or in_text):
        return Reply("", CUT if cut else EMPTY, cut)
    more = "; raise max_new_tokens, or let the model think less"
    return Reply("", ONLY_REASONING + more, cut)


def opened_in(prompt: str) -> str:
    """The mark with which a prompt's end opens the reasoning for the model, "" where it does not."""
    end = prompt[-100:].rstrip()
    marks = [tag for tag in _TAG.finditer(end) if tag["open"] and tag.end() == len(end)]
    return marks[0].group() if marks else ""


def chat_reply(answer: Any) -> Reply:
    """The reply in the JSON of a chat completion. Raises LookupError or TypeError where there is none."""
    choice = answer["choices"][0]
    message = choice["message"]
    content = message.get("content")
    reasoned = any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking", "reasoning_details"))
    if refusal := message.get("refusal"):
        return Reply("", f"{REFUSED}: {refusal!s:.200}")
    if not isinstance(content, str | None):
        content, in_parts = _parts(content)
        reasoned = reasoned or in_parts
    return _ended(reply_of(content or "", cut=_is_cut(choice), reasoned=reasoned), choice, message)


def completion_reply(answer: Any) -> Reply:
    """The reply in the JSON of a completion. Raises LookupError or TypeError where there is none."""
    choice = answer["choices"][0]
    text = choice["text"]
    if not isinstance(text, str | None):
        raise TypeError("a completion's text must be a string")
    return _ended(reply_of(text or "", cut=_is_cut(choice)), choice, {}, chat=False)


def generated(generator: Generator, prompts: Sequence[str], *, max_new_tokens: int) -> list[Reply]:
    """One reply a prompt, in order, of any generator: of one that says no more than text, what can be read from that.

    Raises what the generator raises, and GeneratorError for another number of answers than prompts.
    """
    give = getattr(generator, "replies", None)
    if give is None:
        replies = [reply_of(text) for text in generator.generate(prompts, max_new_tokens=max_new_tokens)]
    else:
        replies = list(give(prompts, max_new_tokens=max_new_tokens))
    if len(replies) != len(prompts):
        raise GeneratorError(f"{generator.name} gave {len(replies)} answers to {len(prompts)} prompts")
    return replies


def without_reasoning(raw: str) -> tuple[str, bool]:
    """(what is left without the reasoning and its marks, whether there was any).

    A block is left out wherever it stands; what comes before a closing mark without an opening one, as prompts that
    open the block for the model leave it; and what follows an opening mark at the start of a line that none closes.
    """
    if folded := _FOLDED.match(raw):
        return without_reasoning(raw[folded.end() :])[0], True
    if fenced := _FENCED.match(raw):
        closing = re.compile(rf"^[ \t]*{fenced[1]}[ \t]*$", re.MULTILINE).search(raw, fenced.end())
        return (without_reasoning(raw[closing.end() :])[0] if closing else ""), True
    channels = list(_CHANNEL.finditer(raw))
    if channels:
        return _final(raw, channels)
    if raw.startswith("analysis") and (bare := _BARE_CHANNEL.match(raw)):
        return bare["answer"].strip(), True
    shown: list[str] = []
    begin, depth, any_reasoning = 0, 0, False
    for tag in _TAG.finditer(raw):
        if depth:
            depth += -1 if tag["close"] else 1
            begin = tag.end()
        elif tag.start() < begin or _in_code(raw, begin, tag):
            continue
        elif tag["close"] and _ORPHAN.fullmatch(tag["closes"] or "think"):
            shown, begin, any_reasoning = [], tag.end(), True
        elif tag["open"] and _opens(raw, tag):
            shown.append(raw[begin : tag.start()])
            begin, depth, any_reasoning = tag.end(), 1, True
    if not depth:
        shown.append(raw[begin:])
    return _FRAME.sub("", "".join(shown)).strip() if any_reasoning else _unframed(raw), any_reasoning


def _in_code(raw: str, begin: int, tag: re.Match[str]) -> bool:
    return any(code.start() <= tag.start() < code.end() for code in _CODE.finditer(raw, begin))


def _opens(raw: str, tag: re.Match[str]) -> bool:
    """Whether a mark opens a block: at the start of a line, or where one closes it further on."""
    if not raw[raw.rfind("\n", 0, tag.start()) + 1 : tag.start()].strip():
        return True
    return any(other["close"] and not _in_code(raw, tag.end(), other) for other in _TAG.finditer(raw, tag.end()))


def _final(raw: str, channels: Sequence[re.Match[str]]) -> tuple[str, bool]:
    """What stands in the channels meant for the user."""
    ends = [match.start() for match in channels[1:]] + [len(raw)]
    shown = [
        re.split(r"<\|(?:end|return|call|start)\|>", raw[match.end() : end])[0]
        for match, end in zip(channels, ends, strict=True)
        if match["name"] == "final"
    ]
    return "".join(shown).strip(), any(match["name"] != "final" for match in channels)


def _unframed(raw: str) -> str:
    return _FRAME.sub("", raw).strip() if raw.lstrip().startswith("<|") else raw.strip()


def _parts(content: Sequence[Any]) -> tuple[str, bool]:
    """(the text of a message in parts, whether other parts hold reasoning)."""
    if not all(isinstance(part, Mapping) for part in content):
        raise TypeError("the parts of a message must be objects")
    text = "".join(
        str(part.get("text") or "") for part in content if part.get("type", "text") in ("text", "output_text")
    )
    return text, any(part.get("type") in ("thinking", "reasoning", "redacted_thinking") for part in content)


def _is_cut(choice: Mapping[str, Any]) -> bool | None:
    reason = choice.get("finish_reason")
    return None if reason is None else reason in ("length", "max_tokens")


def _ended(reply: Reply, choice: Mapping[str, Any], message: Mapping[str, Any], *, chat: bool = True) -> Reply:
    """With the fault that the reason of its end gives. A completion that goes on until its limit is no fault."""
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        return Reply("", f"{REFUSED}: the endpoint's content filter stopped it")
    if reason == "error":
        return Reply("", "the endpoint ended the reply with an error")
    if not reply.text and message.get("tool_calls"):
        return Reply("", "the model called a tool instead of answering")
    if reply.cut and reply.text and chat:
        return Reply(reply.text, f"{CUT}; raise max_new_tokens", cut=True)
    return reply
