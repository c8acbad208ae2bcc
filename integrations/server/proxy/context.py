"""Read the requests of three APIs as messages, find the context that they mark, and put compressed text in its place.

Context is: a message whose `name` is the configured one; a message with `"ctxprune": true`; messages that the body's
`ctxprune.messages` lists; and what stands between `<context>` and `</context>` (see `marks`). Assistant messages are
never context. Everything else stays; of tool results see `wires`. Pure functions, but for `SentTexts`.

A turn is a stretch of messages between assistant messages; the context of one turn is compressed together, for the
question of that turn. So a later turn finds the same context and the same question, and the compressed message stays
the same to the byte, which the upstream's prompt cache needs.

The messages of chat are those of the request. Anthropic: the system text, then the messages. Responses: the
instructions, then the input items. Of the last two only texts of the system and of messages can hold context.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ctxprune.cache import ENTRY_BYTES, BoundedCache
from ctxprune.integrations.server.proxy.marks import Block, find_blocks, outside, spliced, whole_block
from ctxprune.integrations.server.proxy.quoting import ImpatientError, Patience
from ctxprune.integrations.server.proxy.wires import caches_all, ends_cache
from ctxprune.integrations.tool_calls import Path, is_models, listed, role_of, texts_in, value_at, with_texts
from ctxprune.prompt import NO_CONTEXT

#: Context may stand in messages of these roles.
_ROLES = ("system", "developer", "user", "tool", "function")


#: What a tool gave, what stands between marks, or in an element that an operator names.
Kind = Literal["tool", "marked", "block"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A stretch of text that may be pruned: `[start, end)` of the text at `path` in message number `row`."""

    row: int
    path: Path
    start: int
    end: int
    text: str
    kind: Kind = "marked"

    @property
    def part(self) -> int:
        """The place of its part in the message's content; 0 where that is one text."""
        return int(self.path[1]) if len(self.path) > 1 else 0


@dataclass(frozen=True, slots=True)
class Turn:
    """The context of one turn. end: the index after its last message. question: "" when there is none to be found.
    is_new: whether it is the turn that now asks for an answer."""

    segments: tuple[Slot, ...]
    question: str
    end: int
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Marking:
    """How context is recognised. name: a message of this `name` is context. listed: indices of messages that are.
    blocks: elements that hold context where there are no marks."""

    name: str = "context"
    listed: frozenset[int] = frozenset()
    blocks: tuple[str, ...] = ()

    def takes(self, row: int, message: Mapping[str, Any]) -> bool:
        """Whether all of a message is context."""
        if message.get("ctxprune") is False:
            return False
        return row in self.listed or message.get("ctxprune") is True or message.get("name") == self.name


def find_turns(messages: Sequence[Any], marking: Marking, patience: Patience | None = None) -> list[Turn]:
    """The turns that hold context, in order. Messages of an unknown shape hold none.

    Where the patience ends the turns before are given, and its `cause` says why there are no more.
    """
    found = _found(messages, marking, patience or Patience())
    asked = [_asked(message, blocks) for message, blocks in zip(messages, found, strict=False)]
    said = [at for at, text in enumerate(asked) if text]
    last = max((at for at, message in enumerate(messages) if role_of(message) != "assistant"), default=-1)
    turns, start = [], 0
    for end in _turn_ends(messages):
        if end > len(found):  # what the turn asks is not known
            break
        segments = tuple(slot for each in found[start:end] for text in each for slot in text.slots)
        if segments:
            turns.append(Turn(segments, _question(asked, said, end), end, is_new=last < end))
        start = end
    return turns


def replaced(messages: Sequence[Any], texts: Mapping[Slot, str]) -> list[Any]:
    """New messages with each slot's text in its place; those without a slot are the same objects.

    Where nothing is left a few words say so: an empty message is refused by some upstreams, and an empty block reads
    like an oversight.
    """
    body, changed = {"messages": list(messages)}, dict[Path, str]()
    for (row, path), slots in by_place(texts).items():
        others = ((slot.start, slot.end, texts[slot] if texts[slot].strip() else NO_CONTEXT) for slot in slots)
        changed["messages", row, *path] = spliced(value_at(messages[row], path), others)
    return list(with_texts(body, changed)["messages"])


def by_place(texts: Iterable[Slot]) -> dict[tuple[int, Path], list[Slot]]:
    """The slots of each text of a message, in order."""
    places: dict[tuple[int, Path], list[Slot]] = {}
    for slot in sorted(texts, key=lambda slot: (slot.row, slot.start)):
        places.setdefault((slot.row, slot.path), []).append(slot)
    return places


def texts_of(message: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """The texts of a message's content, each with its path in the message."""
    return texts_in(message.get("content"), ("content",), parts=("text",))


def without_tags(messages: Sequence[Any]) -> list[Any]:
    """The messages without our own field, which the upstream would not know."""
    return [
        {name: value for name, value in message.items() if name != "ctxprune"}
        if isinstance(message, dict) and "ctxprune" in message
        else message
        for message in messages
    ]


def prompt_segments(prompt: str, patience: Patience) -> tuple[tuple[Slot, ...], str]:
    """The context of a plain prompt, and what stands outside it; nothing where the patience ends."""
    try:
        blocks = find_blocks(prompt, patience)
    except ImpatientError:
        return (), ""
    marked = MarkedText(0, ("content",), prompt, blocks)
    return marked.slots, marked.outside


@dataclass(frozen=True, slots=True)
class MarkedText:
    """One text of a message and the blocks in it."""

    row: int
    path: Path
    text: str
    blocks: Sequence[Block]
    kind: Kind = "marked"

    @property
    def slots(self) -> tuple[Slot, ...]:
        spans = sorted(span for block in self.blocks for span in block.prose)
        return tuple(Slot(self.row, self.path, *span, self.text[slice(*span)], self.kind) for span in spans)

    @property
    def outside(self) -> str:
        return outside(self.text, self.blocks)


def _found(messages: Sequence[Any], marking: Marking, patience: Patience) -> list[list[MarkedText]]:
    """Of each message its texts with their blocks, up to where the patience ends."""
    found: list[list[MarkedText]] = []
    try:
        for at, message in enumerate(messages):
            found.append(_marked(at, message, marking, patience))
    except ImpatientError:
        pass  # the patience knows why
    return found


def _marked(row: int, message: Any, marking: Marking, patience: Patience) -> list[MarkedText]:
    """The texts of a message with their blocks; of an unknown role or shape: none."""
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        return []
    whole = marking.takes(row, message)
    return [MarkedText(row, *each, _blocks(each[1], patience, whole=whole)) for each in texts_of(message)]


def _blocks(text: str, patience: Patience, *, whole: bool) -> list[Block]:
    blocks = find_blocks(text, patience)
    return [whole_block(text, patience)] if whole and not blocks and text.strip() else blocks


def _asked(message: Any, parts: Sequence[MarkedText]) -> str:
    """What a user message says outside its context; "" for other messages."""
    return "\n".join(filter(None, (part.outside for part in parts))) if role_of(message) == "user" else ""


def _turn_ends(messages: Sequence[Any]) -> list[int]:
    return [at for at, message in enumerate(messages) if role_of(message) == "assistant"] + [len(messages)]


def _question(asked: Sequence[str], said: Sequence[int], end: int) -> str:
    """The last one up to the turn's end, else the first after it (a leading system turn).

    Each is what the last user message was when the turn was new, or what it became with the first question.
    said: the places where anything was asked.
    """
    place = bisect_left(said, end)
    return asked[said[max(place - 1, 0)]] if said else ""


#: Before the first message.
_NOWHERE = (-1, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One request. body: without fields of ours. messages: as of chat, our fields among them. places: where the content
    of each stands in the body. shift: how many come before those that `ctxprune.messages` counts. cached_to: the
    message and the part at which the last `cache_control` stands."""

    body: Mapping[str, Any]
    messages: Sequence[Any]
    places: Sequence[Path]
    shift: int = 0
    cached_to: tuple[int, int] = _NOWHERE

    def cached(self, segments: Iterable[Slot]) -> frozenset[Slot]:
        """Those that the provider may have read before."""
        return frozenset(each for each in segments if (each.row, each.part) <= self.cached_to)

    def with_texts(self, texts: Mapping[Slot, str]) -> dict[str, Any]:
        """The body with each segment's text in its place, all else being the same objects."""
        after, changed = replaced(self.messages, texts), dict[Path, str]()
        for row, path in by_place(texts):
            place = self.places[row]
            is_string = isinstance(value_at(self.body, place), str)  # which was read as one part
            changed[place if is_string else (*place, *path[1:])] = value_at(after[row], path)
        return with_texts(self.body, changed)


def chat_conversation(body: Mapping[str, Any]) -> Conversation:
    """OpenAI chat. body: with a list of messages."""
    messages = body["messages"]
    places = [("messages", at, "content") for at in range(len(messages))]
    return Conversation(body=_bare(body, "messages"), messages=messages, places=places)


def anthropic_conversation(body: Mapping[str, Any]) -> Conversation:
    """Anthropic messages. A text counts the same as a string and as a block, with a `cache_control` and without, so
    that a conversation is known again where its client moved the mark."""
    messages = listed(body.get("messages"))
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    places: list[Path] = [("system",)] * len(system)
    places += [("messages", at, "content") for at in range(len(messages))]
    read = [*system, *messages]
    return Conversation(
        body=_bare(body, "messages"),
        messages=[_plain(message) for message in read],
        places=places,
        shift=len(system),
        cached_to=(len(read), 0) if caches_all(body) else _last_mark(read),
    )


def responses_conversation(body: Mapping[str, Any]) -> Conversation:
    """OpenAI responses. Other items than messages are the model's or a tool's."""
    given = body.get("input")
    items = listed(given)
    said = [("instructions", "system")] if isinstance(body.get("instructions"), str) else []
    said += [("input", "user")] if isinstance(given, str) else []
    texts = [_plain({"role": role, "content": body[name]}) for name, role in said]
    places: list[Path] = [(name,) for name, _ in said]
    return Conversation(
        body=_bare(body, "input"),
        messages=[*texts, *map(_item, items)],
        places=places + [("input", at, "content") for at in range(len(items))],
        shift=len(said),
    )


def _bare(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The body without fields of ours, also in the messages, which stand under this name."""
    rest = {key: value for key, value in body.items() if key != "ctxprune"}
    return rest | {name: without_tags(rest[name])} if isinstance(rest.get(name), list) else rest


def _plain(message: Any) -> Any:
    """A message with a list of parts, none of them with a `cache_control`."""
    if not isinstance(message, dict):
        return message
    content = message.get("content")
    if isinstance(content, str):
        return message | {"content": [{"type": "text", "text": content}]}
    return message | {"content": [_unmarked(part) for part in content]} if isinstance(content, list) else message


def _unmarked(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    bare = {name: value for name, value in part.items() if name != "cache_control"}
    if isinstance(bare.get("content"), list):
        bare["content"] = [_unmarked(inner) for inner in bare["content"]]
    return bare | {"type": "text"} if bare.get("type") == "input_text" else bare


def _item(item: Any) -> Any:
    if is_models(item):
        return {"role": "assistant", "item": item}
    is_message = isinstance(item, dict) and item.get("type", "message") == "message"
    return _plain(item) if is_message else {"role": "tool", "item": item}


def _last_mark(messages: Sequence[Any]) -> tuple[int, int]:
    marks = (
        (at, place)
        for at, message in enumerate(messages)
        if isinstance(message, dict)
        for place, block in enumerate(listed(message.get("content")))
        if isinstance(block, dict) and ends_cache(block)
    )
    return max(marks, default=_NOWHERE)


#: The text of each stretch; None for one that went as it came.
Sent = tuple[str | None, ...]


class SentTexts:
    """What turns or rows of conversations were sent as, by a key, so that later requests send the same bytes.

    What could not be pruned is remembered too: were it pruned at the next request, the provider's prompt cache would
    miss everything after it. limit: bytes of the texts, about; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        # up to four bytes a character, as Python keeps them
        self._sent: BoundedCache[bytes, Sent] = BoundedCache(
            limit, weigh=lambda sent: ENTRY_BYTES + sum(4 * len(text) for text in sent if text is not None)
        )

    def get(self, key: bytes, stretches: Sequence[Slot]) -> dict[Slot, str] | None:
        """The texts of those that were changed; None where nothing was decided on."""
        sent = self._sent.get(key)
        if sent is None or len(sent) != len(stretches):
            return None
        return {each: text for each, text in zip(stretches, sent, strict=True) if text is not None}

    def put(self, key: bytes, stretches: Sequence[Slot], texts: Mapping[Slot, str]) -> None:
        """texts: of those that were changed, of these and maybe others."""
        pairs = ((each, texts.get(each)) for each in stretches)
        self._sent.put(key, tuple(None if text == each.text else text for each, text in pairs))
