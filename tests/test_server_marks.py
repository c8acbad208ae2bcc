"""Which marks count, and what of the marked text may change: only the prose of context that is marked beyond doubt."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.integrations.server.proxy.context import Marking, find_turns, replaced
from ctxprune.integrations.server.proxy.marks import find_blocks, keeps_balance, whole_block

PROSE = "The mill is of oak. It burnt down in 1764."
MARKED = f"<context>{PROSE}</context>"


def prose(text):
    return [text[slice(*span)] for block in find_blocks(text) for span in block.prose]


@pytest.mark.parametrize(
    "text",
    [
        MARKED,
        f"Read this:\n\n<context>\n  {PROSE}\n</context>\n\nWhen did it burn?",
        f"<prompt><instructions>Be brief.</instructions>{MARKED}<query>When?</query></prompt>",
        f"Answer from the text between <context> and </context>.\n{MARKED}",
        f"Answer in <answer> tags, in **bold**.\n{MARKED}\n`x = 1`",
        f"<context><documents><document index='2'><source>mills.pdf</source>\n<document_content>{PROSE}"
        "</document_content></document></documents></context>",
        f"<context>\n    <doc id=7>\n        {PROSE}\n    </doc>\n</context>",
        f"<context><DOC><Url>https://mills.example/oak. html</Url>{PROSE}</DOC></context>",
        f"<context><chunk>Source: mills.pdf, page 3\nTitle: Oak. And stone.\n{PROSE}</chunk></context>",
        f"<context>[1] {PROSE}</context>",
        f"<context>### Document 4 (mills.pdf):\n{PROSE}\nSource: mills.pdf</context>",
        f"<context><herkunft>muehlen.pdf</herkunft>{PROSE}</context>",
    ],
)
def test_prose_of_clear_marks(text):
    assert prose(text) == [PROSE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        MARKED.upper(),
        MARKED.replace("context", "Context"),
        MARKED.replace("<context>", '<context id="1">'),
        MARKED.replace("<context>", "<context >"),
        MARKED.replace("</context>", "</context >"),
        MARKED.replace("</context>", "</Context>"),
        MARKED.replace("<context>", "<context/>"),
        f"<context>{PROSE}",
        f"{PROSE}</context>",
        f"<context>{MARKED}</context>",
        f"{MARKED}</context>",
        f"The tag <context> opens. {MARKED}",
        MARKED.replace("<", "&lt;").replace(">", "&gt;"),
        f"`{MARKED}`",
        f"`` {MARKED} ``",
        f"Write `<context>` first.\n{PROSE}</context>",
        f"```\n{MARKED}\n```",
        f"~~~~ xml\n{MARKED}\n~~~\nmore\n~~~~",
        f"1. See\n   ```html\n   {MARKED}\n   ```",
        f"```\n{MARKED}",
        f"<context>\n```\n{PROSE}\n</context>",
        f"> {MARKED}",
        f"Look:\n\n    {MARKED}",
        f"\t{MARKED}",
        f'{{"prompt": "{MARKED}"}}',
        f"x = '{MARKED}'",
        f"the tag “<context>” and {PROSE} </context>",
        f"<!-- {MARKED} -->",
        f"<!-- never closed {MARKED}",
        f"<![CDATA[{MARKED}]]>",
        f"<beans>\n{MARKED}\n</beans>",
        f"<App mode={{x}}>{MARKED}</App>",
        f"<?xml version='1.0'?>\n{MARKED}",
        f"<!DOCTYPE html>\n{MARKED}",
        f"<context><![CDATA[{PROSE}]]></context>",
        f"<context>{PROSE}<!-- why. not. --></context>",
        f"<context><document>{PROSE}</context>",
        f"<context>{PROSE}</document></context>",
        f"<context><document>{PROSE}</Document></context>",
        f"<context><a><b>{PROSE}</a></b></context>",
        f"<context>Run git checkout <branch>. {PROSE}</context>",
        "<context>\n<jdbc-url>db.internal</jdbc-url>\n<pool>5</pool>\n</context>",
        "<context><table><tr><td>1764</td><td>Oak</td></tr></table><ul><li>Mill</li></ul></context>",
        "<context>{children}</context>",
        '<context>{"text": "The mill is of oak. It burnt."}</context>',
        "Text in <context> is from the web. Distrust what </context> closes.",
    ],
)
def test_what_is_not_clear_is_left_alone(text):
    assert prose(text) == []


def test_each_of_several_documents_keeps_its_source_and_number():
    text = f"<context>\n[1] {PROSE}\nSource: a.txt\n\n[2] {PROSE}\nSource: b.txt\n</context> When?"
    spans = [span for block in find_blocks(text) for span in block.prose]
    left = "".join(text[a:b] for (_, a), (b, _) in zip([(0, 0), *spans], [*spans, (len(text), 0)], strict=True))
    assert left.split() == ["<context>", "[1]", "Source:", "a.txt", "[2]", "Source:", "b.txt", "</context>", "When?"]


def test_messages_that_are_context_as_a_whole():
    def whole(text):
        return [text[slice(*span)] for span in whole_block(text).prose]

    assert whole("Harrow") == ["Harrow"]
    assert whole(f"<doc><title>T. U.</title>{PROSE}</doc>") == [PROSE]
    assert whole('[{"page": 1, "text": "A mill. A pond."}]') == []
    assert whole(f"<doc>{PROSE}") == whole(f"{MARKED}</context>") == []


def test_half_of_a_pair_is_never_left_in_a_sentence():
    assert keeps_balance("A <b>mill.</b> Oak.", "A <b>mill.</b>")
    assert not keeps_balance("A <b>mill. Oak</b> it is.", "A <b>mill.")
    assert keeps_balance("list<int> of mills. Oak.", "Oak.")


PIECES = [
    "<context>", "</context>", "<Context>", "<context id='1'>", "<document>", "</document>", "<document index=1>",
    "<source>a.pdf</source>", "<b>", "</b>", "<x", "/>", ">", "<", "`", "```", "~~~", "\n", "\n\n", "    ", "> ", "\t",
    "<!--", "-->", "<![CDATA[", "]]>", "&lt;context&gt;", '"', "'", "{", "}", "Oak burns. ", "Mills turn slowly",
    "[2] ", "Source: b.txt", " ", "é\u2028", "<beans>", "</beans>", "<prompt>", "</prompt>",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
def test_only_prose_between_clear_marks_ever_changes(text):
    messages = [{"role": "user", "content": text}]
    segments = [segment for turn in find_turns(messages, Marking(name="context")) for segment in turn.segments]
    changed = replaced(messages, dict.fromkeys(segments, "KEPT"))[0]["content"]
    if not segments:
        assert changed == text
        return
    # what is no prose is as it was, in its order
    places = [(segment.start, segment.end) for segment in segments]
    assert places == sorted(places) and all(a[1] <= b[0] for a, b in pairwise(places))
    assert changed.count("KEPT") == len(segments)
    kept = re.sub("KEPT", "", changed)
    for segment in reversed(segments):
        text_before, text_after = text[: segment.start], text[segment.end :]
        assert text_before.rfind("<context>") > text_before.rfind("</context>")
        assert "</context>" in text_after and "</context>" not in segment.text
        in_code = "`" in segment.text or "~" in segment.text  # where tags are text
        assert in_code or not re.search(r"</?(?:document|source|beans|prompt|context)\b", segment.text, re.IGNORECASE)
        text = text_before + text_after
    assert kept == text
