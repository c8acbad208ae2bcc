"""Three hundred lines with things that must not be cut: each is kept whole or dropped whole, and never altered."""

import itertools

import pytest

from ctxprune import Context, Document, load
from ctxprune.compressors.llmlingua.words import word_offsets

#: What a word pruner may not take apart, by kind.
ITEMS = {
    "number": ["1,250,000", "3.14159", "-40", "0.5%", "$1,000.50", "€99", "1e-9", "12/17", "2:1"],
    "unit": ["25 °C", "250 MB", "3.5 GHz", "10 km/h", "120 mmHg", "5 kg", "1.5 mL", "60 fps"],
    "date": ["2026-11-23", "5 May 1911", "May 5, 2020", "23/11/2026", "14:05:09", "2026-11-23T02:15:00Z"],
    "identifier": ["ISO-9001", "RFC-2616", "user_id", "CVE-2024-3094", "X509v3", "part#77-B", "B0-42a", "COVID-19"],
    "address": ["https://example.org/a/b?c=1&d=2#e", "www.example.com/path", "ann.lee@example.co.uk", "10.0.0.1:8080"],
    "code": ["`git push --force`", "os.path.join(a, b)", "x->next", "std::vector<int>", "`a = b + c`", "foo.bar_baz()"],
    "path": ["/usr/local/bin/python3", "C:\\Temp\\x.txt", "src/main.rs", "report-v2.final.pdf"],
    "json": ['`{"id": 7, "ok": true}`', "`[1, 2, 3]`", '`{"rate": 0.33}`'],
}
FRAMES = (
    "The value given in the report was {} according to the second author.",
    "{} is what the operator entered before the alarm went off.",
    "Nobody in the office could say why {} had been chosen over the other.",
    "Please note: {}, and nothing else, must be quoted in the reply.",
    "See also the older entry ({}) that was removed from the list in spring.",
    "It compares {} with the figure of last year and finds no difference.",
    "After that, {}; then the whole procedure starts from the beginning.",
)


def lines():
    for frame, (kind, items) in itertools.product(FRAMES, ITEMS.items()):
        for item in items:
            text = frame.format(item)
            yield kind, item, text, text.index(item)


LINES = list(lines())


def test_there_are_enough_lines():
    assert len(LINES) >= 300


@pytest.mark.parametrize("rate", [0.4, 0.6, 0.8])
def test_each_is_kept_whole_or_dropped_whole(rate):
    documents = [Document(text, id=str(place)) for place, (_, _, text, _) in enumerate(LINES)]
    compressor = load("random-words", rate=rate)
    contexts = compressor.compress([Context.of("", [document]) for document in documents])
    whole = dropped = 0
    for (kind, item, text, start), context in zip(LINES, contexts, strict=True):
        (extract,) = context.extracts
        end = start + len(item)
        touching = [unit for unit in extract.kept_units() if unit.start < end and unit.end > start]
        if touching:
            assert len(touching) == 1 and touching[0].start <= start and touching[0].end >= end, (kind, item, text)
            assert item in extract.text
            whole += 1
        else:
            dropped += 1
    assert whole > 0 and dropped > 0


def test_units_cover_the_text_and_nothing_else():
    for _, _, text, _ in LINES:
        starts, ends = word_offsets(text)
        covered = "".join(text[start:end] for start, end in zip(starts, ends, strict=True))
        assert covered.replace(" ", "") == text.replace(" ", "")
