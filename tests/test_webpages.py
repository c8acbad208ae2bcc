"""Web pages as text: blocks as lines, nothing that a reader does not see, whatever the source leaves open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.data.corpus import WebPage, decode_page, read_page
from ctxprune.text import split_sentences

PAGE = """<!DOCTYPE html><html><head><title>Opening
 hours</title><style>p { color: red }</style><script>if (a < b) document.write("<p>no</p>")</script></head><body>
<nav><a href="/">Start</a><a href="/map">Map</a></nav><h1>The pool</h1><p>Open from <b>seven</b>&nbsp;to
nine.<br/>Closed on Mondays &amp; holidays.<p>Bring a <i>towel</i>.<ul><li>One coin<li>Two coins</ul>
<table><tr><th>Day<th>Lanes<tr><td>Tuesday</td><td>8</td></tr></table><pre>
a:
  b:   1</pre><!-- a note --><noscript>Turn scripts on</noscript><svg><text>logo</text></svg></body></html>"""


def test_a_page_reads_as_it_is_shown() -> None:
    page = read_page(PAGE)
    assert page.title == "Opening hours"
    assert page.text.split("\n\n") == [
        "The pool",
        "Open from seven\xa0to nine.\nClosed on Mondays & holidays.",
        "Bring a towel.",
        "One coin\nTwo coins",
        "Day | Lanes\nTuesday | 8",
        "a:\n  b:   1",
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "<nav>We sail <a href=/1>at one</a> and never in a storm.</nav><p>x",
            "We sail at one and never in a storm.\n\nx",
        ),
        ("<nav><a href=/>Start</a><a href=/map>Map</a></nav>", "Start Map"),
        ("<nav><a href=/>Start</a><a href=/map>Map</a><p>never closed", "Start Map\n\nnever closed"),
        (
            "<p>Noon.</p><footer><a href=/i>Imprint</a> | <a href=/t>Terms</a><p>Call <a href=tel:7>7</a></footer>",
            "Noon.\n\nCall 7",
        ),
        ("<div class='navbar top'><div><a href=/>Start</a></div><a href=/m>Map</a></div><p>x", "x"),
        ("<ul role=navigation><li><a href=/>Start</a><li><a href=/m>Map</a></ul>x", "x"),
    ],
)
def test_what_only_leads_elsewhere_is_left_out_unless_there_is_nothing_else(source: str, text: str) -> None:
    assert read_page(source).text == text


@pytest.mark.parametrize(
    ("source", "page"),
    [
        ("", WebPage("", "")),
        ("just words", WebPage("just words", "")),
        ("<h1>Head<p>text", WebPage("Head\n\ntext", "Head")),
        ("<title>Left open<body><p>text", WebPage("text", "Left open")),
        ("<div>a</div><div>b</div>", WebPage("a\nb", "")),
        ("a<br><br>b<span> c</span>d", WebPage("a\n\nb cd", "")),
        ("<svg/>seen<br/>too", WebPage("seen\ntoo", "")),
        ("<template><p>x<template>y</template></template><p>z", WebPage("z", "")),
        ("1 < 2 & 3 &lt; 4", WebPage("1 < 2 & 3 < 4", "")),
    ],
)
def test_broken_and_bare_sources(source: str, page: WebPage) -> None:
    assert read_page(source) == page


@given(st.text(alphabet="<>/ab p&;\n\t\"'=!-", max_size=60))
def test_any_source_is_read(source: str) -> None:
    text = read_page(source).text
    assert "\n\n\n" not in text and not text.startswith("\n") and not text.endswith("\n")


@pytest.mark.parametrize(
    ("content", "source"),
    [
        ("é".encode(), "é"),
        (b"\xef\xbb\xbf" + "é".encode(), "é"),
        ("é".encode("utf-16"), "é"),
        (b'<meta charset="iso-8859-1">\xe9 \x80', '<meta charset="iso-8859-1">é €'),
        (
            "<meta content='text/html; charset=koi8-r'>да".encode("koi8-r"),
            "<meta content='text/html; charset=koi8-r'>да",
        ),
        # signs that only the vendors' supersets of the declared charset have, as pages do
        ("<meta charset=Shift_JIS>㈱①".encode("cp932"), "<meta charset=Shift_JIS>㈱①"),
        ("<meta charset=EUC-KR>뷁".encode("cp949"), "<meta charset=EUC-KR>뷁"),
        ("<meta charset=gb2312>镕€".encode("gb18030"), "<meta charset=gb2312>镕€"),
        ("<meta charset=windows-874>ไทย…".encode("cp874"), "<meta charset=windows-874>ไทย…"),
        (b"<meta charset=utf-16>\xc3\xa9", "<meta charset=utf-16>é"),
    ],
)
def test_the_declared_charset_counts(content: bytes, source: str) -> None:
    assert decode_page(content) == source


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_page(b"caf\xe9")
    with pytest.raises(LookupError):
        decode_page(b"<meta charset=klingon>x")


OLD_STYLE = """\
<HTML
><BODY
CLASS="BOOK"
><H1
><A
NAME="GATES"
></A
>Chapter 2. Gates</H1
><P
>      The keeper opens the <B
CLASS="NAME"
>upper gate</B
> at seven, when the boats have
      gone through to the basin.
    </P
><DL
><DT
>sill</DT
><DD
>What a gate stands on.</DD
></DL
></BODY
></HTML
>
"""


def test_tags_that_run_over_lines_are_never_torn() -> None:
    spans = split_sentences(OLD_STYLE)
    found = [OLD_STYLE[span.start : span.end] for span in spans]
    assert [unit for unit in found if unit.count("<") != unit.count(">")] == []
    assert sum("gone through to the basin." in unit and "The keeper opens" in unit for unit in found) == 1
    assert any("Chapter 2. Gates" in unit for unit in found)


@pytest.mark.parametrize(
    "marked",
    [
        "<p>The lock is open.¶&nbsp; Boats wait.¶&#160;The keeper eats.</p>¶<p>It rains.</p>",
        "<p>She said &ldquo;The lock is open.&rdquo; ¶Boats wait &amp; turn.&quot; ¶He eats.</p>¶<p>It rains.</p>",
        '<p>The lock opens.<sup id="c"><a href="#n1">[1]</a></sup> ¶Boats wait.<sup>2</sup> ¶It rains.</p>¶<p>I.</p>',
        "The lock is open.¶<br>Boats wait.¶<br/>\nThe keeper eats.",
    ],
)
def test_what_a_browser_shows_as_blanks_and_quotes_parts_sentences(marked: str) -> None:
    text = marked.replace("¶", "")
    assert [text[unit.start : unit.end] for unit in split_sentences(text)] == [
        part.strip() for part in marked.split("¶")
    ]
