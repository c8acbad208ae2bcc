"""From the syntax of Python's regular expressions to that of RE2, with the same meaning, or a refusal by name.

RE2 takes \\d, \\w, \\s and \\b for ASCII, where Python takes them for Unicode. The classes have exact translations.
\\b has none, so a text with letters beyond ASCII is searched with marks put in where Python sees the edge of a word.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from ctxprune.errors import InputError

#: A code point that no text may hold; two stand at every edge of a word, as `(?:\b\b)` asks for both.
MARK, MARKS = "\ufdd0", 2
#: What a code point that UTF-8 or the marks cannot bear is searched as.
REPLACEMENT = "\ufffd"

_SPACES = [*map(chr, [*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)])]
_SPACES += ["\u2028", "\u2029", "\u202f", "\u205f", "\u3000"]
_SETS = {"d": r"\p{Nd}", "w": r"\p{L}\p{N}_", "s": "".join(f"\\x{{{ord(space):x}}}" for space in _SPACES)}
#: Negated sets that people write for "a letter": the only ones with \W inside that RE2 can express.
_LETTERS = {
    frozenset("W"): r"[\p{L}\p{N}_]",
    frozenset("W_"): r"[\p{L}\p{N}]",
    frozenset("Wd"): r"[\p{L}\p{Nl}\p{No}_]",
    frozenset("Wd_"): r"[\p{L}\p{Nl}\p{No}]",
}
_NAMED_SETS = frozenset(f"\\{name}" for name in _SETS) | frozenset(f"\\{name.upper()}" for name in _SETS)
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_DIGITS = {"x": 2, "u": 4, "U": 8}
_REFUSED = {
    "(?=": "looking ahead",
    "(?!": "looking ahead",
    "(?<=": "looking behind",
    "(?<!": "looking behind",
    "(?P=": "a reference back",
    "(?(": "a condition",
    "(?>": "an atomic group",
    "(?#": "a comment",
}
_FLAGS = re.compile(r"\(\?([ims]*)(?:-([ims]+))?([:)])")
_NAMED = re.compile(r"\(\?P<[^\W\d]\w*>")
_REPEAT = re.compile(r"(?:[*+?]|\{(\d*)(,?)(\d*)\})")


@dataclass(frozen=True, slots=True)
class Translation:
    """plain: for texts of ASCII alone, and for all where `has_boundary` is false. marked: for texts with marks.
    at_end: whether it has a `$`, which takes in a line's end that Python leaves out. is_literal: nothing repeats or
    branches. width: characters that it asks for, repetitions written out: so many places it can be at, at a time."""

    plain: str
    marked: str
    has_boundary: bool
    at_end: bool
    is_literal: bool
    width: int


def translated(pattern: str) -> Translation:
    """Raises InputError that names what RE2 cannot do."""
    plain = _Translator(pattern, marked=False)
    marked = _Translator(pattern, marked=True)
    return Translation(
        plain.run(), marked.run(), plain.has_boundary, plain.at_end, plain.is_literal, max(plain.widths[0], 1)
    )


def searchable(text: str) -> str:
    """The text, as long as before, with what UTF-8 or the marks cannot bear replaced."""
    return _UNBEARABLE.sub(REPLACEMENT, text)


_UNBEARABLE = re.compile(f"[\ud800-\udfff{MARK}]")


class _Translator:
    """One walk over a pattern; linear in its length, without recursion."""

    def __init__(self, pattern: str, *, marked: bool) -> None:
        self.pattern = pattern
        self.at = 0
        self.mark = f"\\x{{{ord(MARK):x}}}" if marked else ""
        self.skip = f"{self.mark}{{0,{MARKS}}}" if marked else ""
        self.has_boundary = self.at_end = False
        self.flags = [frozenset[str]()]
        self.parts: list[str] = []
        self.is_literal = True
        self.widths, self.last = [0], 0

    def run(self) -> str:
        while self.at < len(self.pattern):
            self._step(self.pattern[self.at])
        return "".join(self.parts)

    def _step(self, character: str) -> None:
        if character in "[(.|" or _REPEAT.match(self.pattern, self.at):
            self.is_literal = False
        if character == "\\":
            self._escape()
        elif character == "[":
            self.parts.append(self._consuming(self._set()))
        elif character == "(":
            self._group()
        elif match := _REPEAT.match(self.pattern, self.at):
            self._repeat(match)
        else:
            self.at += 1
            self._single(character)

    def _single(self, character: str) -> None:
        if character == ")":
            if len(self.flags) > 1:
                self.flags.pop()
                self.last = self.widths.pop()
                self.widths[-1] += self.last
            self.parts.append(")")
        elif character == "|":
            self.parts.append("|")
        elif character == ".":
            outside = self.mark if "s" in self.flags[-1] else f"\\n{self.mark}"
            self.parts.append(self._consuming(f"[^{outside}]" if outside else r"(?s:.)"))
        elif character == "^":
            self.parts.append("(?m:^)" if "m" in self.flags[-1] else r"\A")
        elif character == "$":
            self.at_end = True
            self.parts.append(f"(?:{self.skip}(?m:$))" if "m" in self.flags[-1] else rf"(?:{self.skip}\n?\z)")
        else:
            self.parts.append(self._consuming(_written(character)))

    def _consuming(self, atom: str) -> str:
        """One that takes a character, and the marks before it."""
        self.widths[-1] += 1
        self.last = 1
        return f"(?:{self.skip}{atom})" if self.skip else atom

    def _escape(self) -> None:
        name = self.pattern[self.at + 1 : self.at + 2]
        if name == "b":
            self.at += 2
            self.has_boundary = True
            self.parts.append(f"(?:{self.mark})" if self.mark else r"\b")
            if (match := _REPEAT.match(self.pattern, self.at)) and match[0] != "?":
                raise self._refusal(r"a repeated \b")
        elif name in ("A", "Z"):
            self.at += 2
            self.parts.append(r"\A" if name == "A" else rf"(?:{self.skip}\z)")
        elif name == "B":
            raise self._refusal(r"\B")
        elif name in tuple("123456789"):
            raise self._refusal("a reference back")
        elif name and name in "dwsDWS":
            self.at += 2
            negated = f"^{self.mark}" if name.isupper() else ""
            self.parts.append(self._consuming(f"[{negated}{_SETS[name.lower()]}]"))
        else:
            self.parts.append(self._consuming(_written(self._character())))

    def _character(self) -> str:
        """The one that an escape at this place stands for."""
        name = self.pattern[self.at + 1 : self.at + 2]
        self.at += 2
        if name in _DIGITS:
            digits = self.pattern[self.at : self.at + _DIGITS[name]]
            self.at += len(digits)
            if re.fullmatch(f"[0-9a-fA-F]{{{_DIGITS[name]}}}", digits) and int(digits, 16) <= 0x10FFFF:
                return chr(int(digits, 16))
            raise self._refusal(f"\\{name}{digits}, which stands for no character")
        if name == "N" and (match := re.compile(r"\{([^{}]+)\}").match(self.pattern, self.at)):
            self.at = match.end()
            try:
                return unicodedata.lookup(match[1])
            except KeyError:
                raise self._refusal(f"\\N{match[0]}, which stands for no character") from None
        if name == "0":
            match = re.compile("[0-7]{0,2}").match(self.pattern, self.at)
            self.at += len(match[0]) if match else 0
            return chr(int("0" + (match[0] if match else ""), 8))
        if name in _CONTROLS:
            return _CONTROLS[name]
        if not name or (name.isascii() and name.isalnum()):
            raise self._refusal(f"\\{name}, which means nothing")
        return name

    def _repeat(self, match: re.Match[str]) -> None:
        self.at = match.end()
        low, comma, high = match.groups()
        if match[0] == "{}" or match[0] == "{,}":  # to Python the first is text, and the second a star
            self.parts.append(self._consuming(r"\{") + self._consuming(r"\}") if match[0] == "{}" else "*")
        else:
            self.parts.append(f"{{{low or 0}{comma or ''}{high or ''}}}" if match[0][0] == "{" else match[0])
        times = int(high or 0) or int(low or 0) + 1 if match[0][0] == "{" else 1
        self.widths[-1] += self.last * (times - 1)
        self.last *= times
        suffix = self.pattern[self.at : self.at + 1]
        if suffix == "?" and match[0] != "{}":
            self.at += 1
            self.parts.append("?")
        elif suffix == "+" and match[0] != "{}":
            raise self._refusal(f"{match[0]}+, a repetition that gives nothing back")

    def _group(self) -> None:
        pattern = self.pattern
        for opening, what in _REFUSED.items():
            if pattern.startswith(opening, self.at):
                raise self._refusal(f"{opening}...), {what}")
        on = self.flags[-1]
        if match := _FLAGS.match(pattern, self.at):
            if match[3] == ")" and (self.at != 0 or match[2] or not match[1]):
                raise self._refusal(f"{match[0]} in the middle")
            on = (on | set(match[1])) - set(match[2] or "")
            if match[3] == ")":
                self.flags[-1] = on
                self.parts.append("(?i)" if "i" in on else "")
                self.at = match.end()
                return
            opened = "(?i:" if "i" in match[1] else "(?-i:" if "i" in (match[2] or "") else "(?:"
        elif match := _NAMED.match(pattern, self.at) or re.compile(r"\((?!\?)").match(pattern, self.at):
            opened = "(?:"  # nobody asks what a group took
        else:
            raise self._refusal(f"{pattern[self.at : self.at + 4]}")
        self.at = match.end()
        self.flags.append(on)
        self.widths.append(0)
        self.parts.append(opened)

    def _set(self) -> str:
        """The set of characters that begins here, as RE2 writes it."""
        negated = self.pattern.startswith("[^", self.at)
        first = self.at = self.at + 1 + negated
        members, named = list[tuple[str, str]](), list[str]()
        while self.at == first or not self.pattern.startswith("]", self.at):
            if self.at >= len(self.pattern):
                raise self._refusal("a [ that is not closed")
            low = self._member()
            if low in _NAMED_SETS:
                named.append(low[1])
            elif self.pattern.startswith("-", self.at) and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                members.append((low, self._member()))
            else:
                members.append((low, low))
        self.at += 1
        return self._written_set(members, named, negated=negated)

    def _member(self) -> str:
        """A character, or a named set as it is written."""
        character = self.pattern[self.at : self.at + 1]
        if character != "\\":
            self.at += 1
            return character
        name = self.pattern[self.at : self.at + 2]
        if name in _NAMED_SETS:
            self.at += 2
            return name
        if name == "\\b":
            self.at += 2
            return "\b"
        return self._character()

    def _written_set(self, members: list[tuple[str, str]], named: list[str], *, negated: bool) -> str:
        if bad := [pair for pair in members if len(pair[1]) != 1 or pair[0] > pair[1]]:
            raise self._refusal(f"the range {bad[0][0]}-{bad[0][1]}")
        inside = "".join(map(_range, members)) + "".join(_SETS[name] for name in named if name.islower())
        outside = [name for name in named if name.isupper()]
        if not negated:
            sets = [f"[{inside}]"] if inside else []
            return "(?:" + "|".join([*sets, *(f"[^{_SETS[name.lower()]}{self.mark}]" for name in outside)]) + ")"
        if not outside:
            return f"[^{inside}{self.mark}]"
        if outside == ["S"] and named == ["S"]:
            left = [space for space in _SPACES if not any(low <= space <= high for low, high in members)]
            if left:
                return f"[{''.join(map(_written, left))}]"
        letters = _LETTERS.get(frozenset(named) | {low for low, high in members if low == high == "_"})
        if letters is None or any(pair != ("_", "_") for pair in members):
            raise self._refusal(f"[^...] with \\{outside[0]} in it")
        return letters

    def _refusal(self, what: str) -> InputError:
        return InputError(
            f"protect has a bad regular expression {self.pattern!r:.80}: this server's matcher does not take {what}; "
            "write it in another way"
        )


def _range(pair: tuple[str, str]) -> str:
    """A range without the mark in it, which must not pass for a character."""
    low, high = (REPLACEMENT if end == MARK or "\ud800" <= end <= "\udfff" else end for end in pair)
    if low < MARK < high:
        return f"{_written(low)}-{_written(chr(ord(MARK) - 1))}{_written(chr(ord(MARK) + 1))}-{_written(high)}"
    return _written(low) if low == high else f"{_written(low)}-{_written(high)}"


def _written(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character
    return f"\\x{{{ord(searchable(character)):x}}}"
