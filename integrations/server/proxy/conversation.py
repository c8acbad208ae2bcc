"""Read the requests of three APIs as one list of messages in which marked context is found; pure functions.

Chat: the messages. Anthropic: the system text, then the messages. Responses: the instructions, then the input items.
Of the last two only texts of the system and of messages can hold context: a tool's result is pruned as such (`wires`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctxprune.integrations.server.proxy.context import Segment, replaced, without_tags
from ctxprune.integrations.server.proxy.wires import caches_all, ends_cache
from ctxprune.integrations.tool_calls import Path, is_models, with_texts

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

    def cached(self, segments: Iterable[Segment]) -> frozenset[Segment]:
        """Those that the provider may have read before."""
        return frozenset(each for each in segments if (each.message, each.part or 0) <= self.cached_to)

    def with_texts(self, texts: Mapping[Segment, str]) -> dict[str, Any]:
        """The body with each segment's text in its place, all else being the same objects."""
        after, changed = replaced(self.messages, texts), dict[Path, str]()
        for at, part in {(each.message, each.part) for each in texts}:
            content, place = after[at]["content"], self.places[at]
            if part is None:
                changed[place] = content
            else:
                is_string = isinstance(_value_at(self.body, place), str)
                changed[place if is_string else (*place, part, "text")] = content[part]["text"]
        return with_texts(self.body, changed)


def chat_conversation(body: Mapping[str, Any]) -> Conversation:
    """OpenAI chat. body: with a list of messages."""
    messages = body["messages"]
    places = [("messages", at, "content") for at in range(len(messages))]
    return Conversation(body=_bare(body, "messages"), messages=messages, places=places)


def anthropic_conversation(body: Mapping[str, Any]) -> Conversation:
    """Anthropic messages. A text counts the same as a string and as a block, with a `cache_control` and without, so
    that a conversation is known again where its client moved the mark."""
    given = body.get("messages")
    messages = given if isinstance(given, list) else []
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
    items = given if isinstance(given, list) else []
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


def _bare(body: Mapping[str, Any], listed: str) -> dict[str, Any]:
    rest = {name: value for name, value in body.items() if name != "ctxprune"}
    return rest | {listed: without_tags(rest[listed])} if isinstance(rest.get(listed), list) else rest


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
    contents = [message.get("content") if isinstance(message, dict) else None for message in messages]
    return max(
        (
            (at, place)
            for at, content in enumerate(contents)
            for place, block in enumerate(content if isinstance(content, list) else ())
            if isinstance(block, dict) and ends_cache(block)
        ),
        default=_NOWHERE,
    )


def _value_at(body: Any, path: Path) -> Any:
    for step in path:
        body = body[step]
    return body
