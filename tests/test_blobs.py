"""What only a machine can read: found, kept whole, scored nothing, and no harm to what stands beside it."""

from __future__ import annotations

import base64
import random

import pytest

from ctxprune import Context, Pipeline, load
from ctxprune.text import split_sentences
from ctxprune.text.markup import blobs, silent_units

BYTES = random.Random(7).randbytes(3000)
BASE64 = base64.b64encode(BYTES).decode()
URI = f"data:image/png;base64,{BASE64}"
MIME = "\n".join(BASE64[place : place + 76] for place in range(0, len(BASE64), 76))
SCRIPT = "!function(e,t){var n=e.document;" + "t.on=function(r){return n&&r.x===1?t.a(r):t.b(r)};" * 20 + "}(this,{});"
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
KEY = f"-----BEGIN CERTIFICATE-----\n{MIME}\n-----END CERTIFICATE-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"A photo: ![the wheel]({URI}) of 1911.", f"![the wheel]({URI})"),
        (f'<p><img alt="wheel" src="{URI}" width="3"></p>', f'<img alt="wheel" src="{URI}" width="3">'),
        (f"Raw: {BASE64} end", BASE64),
        (f"Body:\n\n{MIME}\n\nThe end.", MIME),
        (f"{MIME}\nThe end of it.", MIME),
        (f"sum {SHA} ok", SHA),
        (f"token {TOKEN}.", TOKEN),
        (f"Key:\n{KEY}\nThat is it.", KEY),
        (f"Text.\n{SCRIPT}\nText.", SCRIPT),
    ],
)
def test_blobs_are_found_whole(text: str, expected: str) -> None:
    assert [text[start:end] for start, end in blobs(text)] == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "See https://mill.example.org/archive/2023/11/30/the-wheel-of-the-upper-mill-turns?lang=en&page=2#top now.",
        "/usr/lib/python3/dist-packages/mill/wheels/upper/stones/granite/first/second/third/readme.txt",
        "getTheNumberOfStonesOfTheUpperMillInTheValleyOfTheMonksAsADecimalNumber()",
        "=" * 200,
        "a" * 300,
        "1" * 300,
        "水車" * 100,
        '{"mill":"upper","stones":[{"name":"first","kind":"granite"},{"name":"second","kind":"grit"}]}' * 5,
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
        "550e8400-e29b-41d4-a716-446655440000",
        "use `<script>` to load it and `</script>` to end it",
    ],
)
def test_words_paths_and_data_are_no_blobs(text: str) -> None:
    assert blobs(text) == []


def test_a_long_blob_is_a_unit_of_its_own_and_a_hash_stays_in_its_sentence() -> None:
    text = f"The wheel: ![old]({URI}) It was built in 1701. The sum is {SHA} today. End"
    assert [text[unit.start : unit.end] for unit in split_sentences(text)] == [
        "The wheel:",
        f"![old]({URI})",
        "It was built in 1701.",
        f"The sum is {SHA} today.",
        "End",
    ]


def test_units_are_silent_when_no_word_of_them_can_be_read() -> None:
    text = f"Sum: {SHA} of the mill\n\n{SHA}\n\n{URI}\n\nThe end"
    units = split_sentences(text)
    assert silent_units(text, units) == [False, True, True, False]


@pytest.mark.parametrize("name", ["provence", "bm25-sentences", "recomp-extractive", "random", "llmlingua2", "lead"])
@pytest.mark.parametrize("blob", [f"![wheel of the mill]({URI})", MIME, SCRIPT], ids=["uri", "mime", "script"])
def test_a_blob_is_never_kept_for_its_score_and_its_neighbours_are(name: str, blob: str) -> None:
    after = "The wheel of the mill was built in 1702, its weir in 1703."
    text = f"# Upper mill\n\nThe mill was built in 1701.\n\n{blob}\n\n{after}\n"
    pipeline = Pipeline([load(name)])
    (result,) = pipeline.run([Context.of("When was the mill built?", [text])], budget=60)
    assert blob[:60] not in result.text
    assert "1701" in result.text
    assert "weir" in result.text
