"""Originals of pruned texts, kept for a while so that their owner, and nobody else, can have them back by hash."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctxprune.errors import InputError
from ctxprune.tools.elements import ORIGINAL
from ctxprune.tools.shapes import with_original

HASH = re.compile(r"[0-9a-f]{24}", re.ASCII)
TOOL_NAME = "ctxprune_retrieve"
#: Tools whose results are originals that the model asked to have back: shortened again, it would ask for ever.
RETRIEVE_TOOLS = (TOOL_NAME, "headroom_retrieve", "compresr_retrieve", "retrieve_original")
#: Clients set a server's name before a tool's, with marks of all kinds between, or behind it: "tool_mcp_server".
_RETRIEVES = re.compile(rf"(?:.*[^A-Za-z0-9])?(?:{'|'.join(RETRIEVE_TOOLS)})(?:_mcp_.*)?", re.DOTALL)
#: In brackets, with what a table, a comment or a fence has after them; or in the note of a JSON text.
_MARKER = re.compile(
    r"\[ctxprune: [^\[\]\n]{1,200} hash=([0-9a-f]{24})\][\s|,;`~]*\Z"
    rf'|"{re.escape(ORIGINAL)}": "hash=([0-9a-f]{{24}})"[\s}}\]`~]*\Z',
    re.ASCII,
)
_SCHEMA = """
create table if not exists originals (
    caller blob not null, hash text not null, bytes integer not null, stored real not null, used integer not null,
    text blob not null, primary key (caller, hash)
);
create index if not exists by_use on originals (caller, used);
create index if not exists by_age on originals (stored);
create index if not exists by_size on originals (caller, bytes);
"""
#: Bytes of an entry besides its text, about.
_OVERHEAD = 200


def hash_of(text: str, *, caller: bytes) -> str:
    """24 hex digits that only this caller's text has: whoever guesses a text does not know another one's hash of it.

    The same for the same text at any time, so that a marked text stays the same to the byte.
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12, key=caller[:64])
    return digest.hexdigest()


def marker(hash_value: str) -> str:
    """What follows a pruned text that has no note of its own."""
    return f"\n[ctxprune: parts were left out; the whole text is to be had, hash={hash_value}]"


def marked(text: str, hash_value: str) -> str:
    """A pruned text that names its original: in the note of what was left out, so that it keeps its form."""
    return with_original(text, hash_value) or text + marker(hash_value)


def marked_hash(text: str) -> str | None:
    """The hash that the text ends with; anyone can write one, so look it up before trusting it."""
    found = _MARKER.search(text[-400:])
    return (found[1] or found[2]) if found else None


def gives_originals(*names: str) -> bool:
    """Whether one of these names of a tool is that of a tool for originals, also with a server's name beside it."""
    return any(_RETRIEVES.fullmatch(name) for name in names)


class Originals:
    """A bounded store in memory or in a SQLite file, which processes may share. Safe to use from several threads.

    limit: bytes of all texts together; 0 keeps nothing. share: what one caller may hold of it. max_age: seconds.
    path: of the file, made readable for its owner alone; None: in memory. clock: seconds since the epoch.
    Beyond its share a caller loses its own oldest texts first; beyond the limit, whoever holds the most does.
    """

    def __init__(
        self,
        limit: int,
        *,
        max_age: float,
        share: float = 1.0,
        path: str | Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limit, self.most = limit, int(limit * share)
        self._max_age, self._clock = max_age, clock
        self._lock = threading.Lock()
        self._database = _opened(path)

    def put(self, caller: bytes, text: str) -> str | None:
        """The hash that `get` takes; None when the text alone is larger than what the caller may hold."""
        encoded = text.encode("utf-8", "surrogatepass")
        size, now = len(encoded) + _OVERHEAD, self._clock()
        if size > self.most:
            return None
        name = hash_of(text, caller=caller)
        with self._lock, self._database as database:
            database.execute("begin immediate")
            database.execute("delete from originals where stored < ?", (now - self._max_age,))
            last = "select coalesce(max(used), 0) from originals where caller = ?"
            (newest,) = database.execute(last, (caller,)).fetchone()
            row = (caller, name, size, now, newest + 1, encoded)
            database.execute("insert or replace into originals values (?, ?, ?, ?, ?, ?)", row)
            self._shrink(database, caller)
        return name

    def get(self, caller: bytes, hash_value: str) -> str | None:
        """None for a hash that this caller was never given, and for one that has expired or made room for others."""
        if not HASH.fullmatch(hash_value):
            return None
        with self._lock:
            row = self._database.execute(
                "select text from originals where caller = ? and hash = ? and stored >= ?",
                (caller, hash_value, self._clock() - self._max_age),
            ).fetchone()
        return None if row is None else bytes(row[0]).decode("utf-8", "surrogatepass")

    @property
    def weight(self) -> int:
        """Bytes held, of all callers."""
        with self._lock:
            return int(_held(self._database))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _shrink(self, database: sqlite3.Connection, caller: bytes) -> None:
        while _held(database, caller) > self.most:
            _drop_oldest(database, caller)
        while _held(database) > self.limit:
            order = "select caller from originals group by caller order by sum(bytes) desc limit 1"
            _drop_oldest(database, database.execute(order).fetchone()[0])


def for_an_hour() -> Originals:
    """Room in memory for 64 MB of what is not older than an hour."""
    return Originals(64_000_000, max_age=3600.0)


@dataclass(frozen=True, slots=True)
class OwnOriginals:
    """Those of one owner, whom nobody else can name: whoever has a text of someone else's cannot learn that it was
    pruned here."""

    store: Originals = field(default_factory=for_an_hour)
    _owner: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    def put(self, text: str) -> str | None:
        return self.store.put(self._owner, text)

    def get(self, hash_value: str) -> str | None:
        return self.store.get(self._owner, hash_value)


def retrieve_tool(shape: str = "openai") -> dict[str, Any]:
    """The definition to offer the model: OpenAI's shape, or Anthropic's."""
    description = (
        "Get the whole text behind a note of ctxprune with hash=... in it. Call it when what you need may be among "
        "the parts that were left out."
    )
    digits = {"type": "string", "description": "The 24 hexadecimal digits of the note.", "pattern": "^[0-9a-f]{24}$"}
    schema = {"type": "object", "properties": {"hash": digits}, "required": ["hash"]}
    if shape == "anthropic":
        return {"name": TOOL_NAME, "description": description, "input_schema": schema}
    return {
        "type": "function",
        "function": {"name": TOOL_NAME, "description": description, "parameters": schema},
    }


def with_tool(tools: Sequence[Any] | None) -> list[Any]:
    """The tools of a request and ours after them, in the shape that the others have."""
    others = list(tools or ())
    if any(_name(tool) == TOOL_NAME for tool in others):
        return others
    is_anthropic = bool(others) and all(isinstance(tool, dict) and "input_schema" in tool for tool in others)
    return [*others, retrieve_tool("anthropic" if is_anthropic else "openai")]


def _name(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    return function.get("name") if isinstance(function, dict) else tool.get("name")


def _opened(path: str | Path | None) -> sqlite3.Connection:
    try:
        if path is not None:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # others must not read what users were told
        database = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None, timeout=5.0)
        database.execute("pragma journal_mode = wal" if path else "pragma journal_mode = memory")
        database.execute("pragma synchronous = normal")
        database.executescript(_SCHEMA)
    except (OSError, sqlite3.Error) as error:
        raise InputError(f"the store of originals {str(path)!r} cannot be opened: {error}") from None
    return database


def _held(database: sqlite3.Connection, caller: bytes | None = None) -> int:
    which = ("", ()) if caller is None else (" where caller = ?", (caller,))
    (held,) = database.execute(f"select coalesce(sum(bytes), 0) from originals{which[0]}", which[1]).fetchone()
    return int(held)


def _drop_oldest(database: sqlite3.Connection, caller: bytes) -> None:
    database.execute(
        "delete from originals where caller = ? and hash in "
        "(select hash from originals where caller = ? order by used limit 1)",
        (caller, caller),
    )
