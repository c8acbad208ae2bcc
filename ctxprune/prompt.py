"""Render a context, and a question with its context, as the text that a generator reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ctxprune.errors import InputError
from ctxprune.types import Context, Extract, Piece, SoftTokens, Summary, TokenCounter

DOCUMENT_SEPARATOR: Final = "\n\n"
TITLE_SEPARATOR: Final = "\n"

#: Stands where the context would, so that the generator is told and does not meet a hole.
NO_CONTEXT: Final = "(no relevant text was found)"

DEFAULT_TEMPLATE: Final = (
    "Answer the question from the context. If the context does not hold the answer, say that you do not know.\n\n"
    "Context:\n{context}\n\n"
    "Question: {question}\n"
    "Answer:"
)


#: What headings wear in Markdown, wikis and HTML, as a line's beginning or end.
_HEADING_MARKS = re.compile(r"^(?:<h[1-6][^<>]*>|[#=*_\s])+|(?:</h[1-6]\s*>|[#=*_\s])+$", re.IGNORECASE)
#: What parts the title of a page from the name of its site.
_SITE = re.compile(r" [|–—·»-] ")


def title_line(extract: Extract) -> str:
    """The title, its line break included, as it stands before a text that does not begin with it: the most it takes."""
    return extract.source.title + TITLE_SEPARATOR if extract.titled and extract.source.title.strip() else ""


def title_header(extract: Extract) -> str:
    """The title line before a document's text; "" when the title stays out or is the heading that the text begins with.

    Without the second a page that opens with its own title would name it twice.
    """
    return _header(extract, extract.text)


def _header(extract: Extract, text: str) -> str:
    line = title_line(extract)
    first = text.lstrip().partition("\n")[0]
    return "" if line and _bare(first) == _bare(extract.source.title) else line


def says_title(extract: Extract, text: str) -> bool:
    """Whether a text is the document's title, or its part before the name of the site: "Ferry" of "Ferry | Pier"."""
    title, said = _bare(extract.source.title), _bare(text)
    return bool(said) and (title == said or (_SITE.match(title, len(said)) is not None and title.startswith(said)))


def _bare(heading: str) -> str:
    return " ".join(_HEADING_MARKS.sub("", heading).casefold().split()) or heading.strip()


def piece_text(piece: Piece) -> str:
    """What one piece puts into the prompt; "" when nothing of it is left, and for soft tokens without any text."""
    if isinstance(piece, SoftTokens):
        return "" if piece.expanded is None else piece_text(piece.expanded)
    text = piece.text
    if not text.strip():
        return ""
    return text if isinstance(piece, Summary) else _header(piece, text) + text


def readable_text(context: Context) -> str:
    """The pieces that have text, in their order, joined by a blank line; soft tokens give what stands between them."""
    return DOCUMENT_SEPARATOR.join(text for piece in context.pieces if (text := piece_text(piece)))


def same_text(one: str, other: str) -> bool:
    """Whether they differ in white space at most."""
    return one == other or one.split() == other.split() or "".join(one.split()) == "".join(other.split())


def render_context(context: Context) -> str:
    """What goes into the prompt: documents joined by a blank line, each with its title on a line of its own.

    Empty pieces are left out. Raises InputError for soft tokens, which only their own generator can read.
    """
    for piece in context.pieces:
        if isinstance(piece, SoftTokens):
            raise InputError(
                f"document {piece.index} is {len(piece.embeddings)} soft tokens for {piece.generator!r}, not text; "
                "pass the context to that generator, or use a compressor that returns text"
            )
    return readable_text(context)


def render_prompt(context: Context, *, template: str = DEFAULT_TEMPLATE) -> str:
    """The template with `{question}` and `{context}` filled in; any other brace stays as it is, in the texts too.

    An empty context reads `NO_CONTEXT`. Raises InputError when the template lacks one of the two placeholders.
    """
    for placeholder in ("{question}", "{context}"):
        if placeholder not in template:
            raise InputError(f"the prompt template needs {placeholder}, got {template!r:.80}")
    values = {"{question}": context.query, "{context}": render_context(context) or NO_CONTEXT}
    # one pass over the template alone: a question that contains "{context}" must stay a question
    return re.sub(r"\{(?:question|context)\}", lambda match: values[match.group()], template)


def count_contexts(contexts: Sequence[Context], counter: TokenCounter) -> list[int]:
    """Tokens that each context takes in the prompt: its text by `counter`, the blank lines beside soft tokens included,
    plus its soft tokens, one each."""
    texts = counter.count([_counted_text(context) for context in contexts])
    return [
        count + sum(len(piece.embeddings) for piece in context.pieces if isinstance(piece, SoftTokens))
        for context, count in zip(contexts, texts, strict=True)
    ]


def _counted_text(context: Context) -> str:
    """The text with nothing where soft tokens stand; those that run on into each other have no blank line between."""
    texts: list[str] = []
    ran_on = False
    for piece in context.pieces:
        soft = isinstance(piece, SoftTokens) and len(piece.embeddings) > 0
        text, runs_on = piece_text(piece), isinstance(piece, SoftTokens) and piece.runs_on
        if text or (soft and not (runs_on and ran_on)):
            texts.append(text)
        if text or soft:
            ran_on = runs_on
    return DOCUMENT_SEPARATOR.join(texts)
