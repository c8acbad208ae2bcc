"""What a line of a log, of settings or of code must score beside the others; what people write has no such rule."""

from dataclasses import replace

import pytest

from ctxprune import Context, Document, Pipeline, load
from ctxprune.select import Policy, select
from ctxprune.select.standout import STANDOUT, is_of_lines
from ctxprune.text import split_sentences
from ctxprune.tokens import WordCounter
from ctxprune.types import Extract, Span

SETTINGS = """\
[pump]
inlet_pressure = 2.4
outlet_pressure = 6.1
max_rpm = 2900
[heater]
target_celsius = 61
[alarm]
siren = true
phone = "+49 30 5550172"
"""
LOG = """\
2026-10-04 06:11:02 INFO  scale   zero point set
2026-10-04 06:11:40 INFO  belt    started with 0.8 m/s
2026-10-04 06:15:13 ERROR printer label roll is empty
2026-10-04 06:15:14 WARN  belt    stopped by printer
2026-10-04 06:20:55 INFO  scale   4210 parcels weighed
"""
MACHINE_TEXTS = {
    "settings": SETTINGS,
    "log": LOG,
    "json": '{\n  "hive": "north",\n  "frames": 10,\n  "queen": {\n    "born": 2024,\n    "marked": true\n  }\n}\n',
    "yaml": "kiln:\n  cones:\n    - 04\n    - 6\n  vents: closed\n  fan:\n    speed: 3\n",
    "code": "import os\n\ndef depth(path):\n    return path.count(os.sep)\n\n"
    "def leaf(path):\n    return os.path.basename(path)\n\nclass Walk:\n    limit = 5\n",
    "commented settings": "#ListenPort=7000\n#MaxGuests=25\n#IdleMinutes=9\n#Banner=none\n",
}
PEOPLE_TEXTS = {
    "prose": "The bees came late. It was cold until May! Nobody had cut grass. The keeper (she is 80) did not mind.",
    "table": "| Bridge | Opened | Length |\n| --- | --- | --- |\n| Aln | 1832 | 90 m |\n| Wark | 1878 | 120 m |\n",
    "list": "What to bring:\n\n- a lamp\n- two blankets\n- bread for a day\n- the map\n",
    "chat": "[10:02] ruth: I left the keys with Ben.\n[10:03] ola: Which ones?\n"
    "[10:05] ruth: Those of the boat shed!\n",
    "speech": "so we went down to the harbour and the boats were all gone\n\n"
    "we asked the man and he said nothing\n\nand then it rained\n",
}


def scored(*documents):
    """Each a text and its units' scores."""
    pieces = []
    for place, (text, scores) in enumerate(documents):
        units = split_sentences(text)
        units = tuple(replace(unit, score=score) for unit, score in zip(units, scores, strict=True))
        pieces.append(Extract(Document(text), units, (True,) * len(units), index=place))
    return Context("Why did the belt stop?", tuple(pieces))


def kept(context, *, threshold=0.02, standout=0.2, **policy):
    after = select(
        context,
        threshold=threshold,
        budget=None,
        counter=WordCounter(),
        policy=Policy(**policy),
        standout=standout,
    )
    return [extract.kept for extract in after.extracts]


@pytest.mark.parametrize("name", MACHINE_TEXTS)
def test_what_machines_write_is_of_lines(name):
    text = MACHINE_TEXTS[name]
    assert is_of_lines(text, split_sentences(text))


@pytest.mark.parametrize("name", PEOPLE_TEXTS)
def test_what_people_write_is_not(name):
    text = PEOPLE_TEXTS[name]
    assert not is_of_lines(text, split_sentences(text))


def test_lines_that_score_far_less_than_the_best_go():
    context = scored((LOG, [0.05, 0.06, 0.7, 0.5, 0.05]))
    assert kept(context) == [(False, False, True, True, False)]
    assert kept(context, standout=0.0) == [(True,) * 5]


def test_of_lines_that_are_much_alike_none_goes():
    assert kept(scored((LOG, [0.11, 0.12, 0.13, 0.12, 0.11]))) == [(True,) * 5]


def test_a_line_well_above_the_middle_stays_however_good_the_best_is():
    assert kept(scored((LOG, [0.05, 0.05, 0.9, 0.1, 0.05]))) == [(False, False, True, True, False)]


def test_lines_are_measured_by_lines_and_sentences_by_the_threshold():
    prose = "The belt is of rubber. It stops when no label comes. A new roll is in the drawer."
    context = scored((LOG, [0.03, 0.03, 0.05, 0.06, 0.03]), (prose, [0.03, 0.9, 0.04]))
    assert kept(context) == [(True,) * 5, (True,) * 3]
    assert kept(scored((LOG, [0.03, 0.03, 0.5, 0.06, 0.03]), (prose, [0.03, 0.9, 0.04]))) == [
        (False, False, True, True, False),
        (True,) * 3,
    ]


def test_what_is_protected_or_asked_for_by_number_stays():
    context = scored((LOG, [0.05, 0.06, 0.7, 0.5, 0.05]))
    assert kept(context, protect=("weighed",)) == [(False, False, True, True, True)]
    assert kept(context, min_keep=3) == [(False, True, True, True, False)]


def test_operating_points_ask_it_but_for_the_safe_one_and_thresholds_do_not():
    compressor = load("provence", policy=Policy(companions=False))
    text = SETTINGS + "".join(f"[zone{number}]\nvalve = open\nlitres = {number}5\n" for number in range(1, 9))
    [context] = compressor.score([Context.of("How fast may the pump turn?", [text])])
    scores = [unit.score for unit in context.extracts[0].units]
    for name, share in STANDOUT.items():
        threshold = compressor.operating_points.threshold(name, len(scores), best=max(scores))
        strict, loose = (
            sum(compressor.choose(context, *limits, None).extracts[0].kept)
            for limits in ((None, name), (threshold, None))
        )
        assert strict < loose if name == "balanced" else strict <= loose
        assert share or strict == loose
        assert "max_rpm = 2900" in compressor.choose(context, None, name, None).extracts[0].text


def test_prose_below_lines_of_keys_is_measured_by_the_threshold_alone() -> None:
    keys = ["DOI: 10.1000/kiln.7", "SHA: 9f2c11", "Date: 2014-06-18", "License: cc-by", "Authors: Abt and Orr"]
    finding = "Glazes that hold a little more tin than lead are slow to craze and keep their white for longer"
    text = "\n".join([*keys, finding, "We fired them twice."])
    units = [Span(text.index(line), text.index(line) + len(line)) for line in text.split("\n")]
    scores = [0.9, 0.02, 0.02, 0.02, 0.02, 0.03, 0.03]
    units = [replace(unit, score=score) for unit, score in zip(units, scores, strict=True)]
    context = Context("q", (Extract(Document(text), tuple(units), (True,) * len(units)),))
    kept = select(context, threshold=0.01, budget=None, counter=WordCounter(), policy=Policy(), standout=0.2)
    assert kept.extracts[0].text == "\n".join([keys[0], finding, "We fired them twice."])


LETTER = """\
Kanalamt West
Schleusenweg 4
48143 Münster

Münster, den 3. Juni 2025

Sehr geehrter Herr Plate,

die Schleuse bleibt bis zum 14. Juli gesperrt. Boote fahren durch den Altarm.

Mit freundlichen Grüßen

Ida Moor
Kanalamt West

Anlage: Karte
PS: Der Schlüssel liegt im Boot.
"""


def _kept_of_letter(scores: list[float], share: float = STANDOUT["balanced"], text: str = LETTER) -> list[str]:
    spans = split_sentences(text)
    assert len(spans) == len(scores)
    units = tuple(replace(span, score=score) for span, score in zip(spans, scores, strict=True))
    extract = Extract(Document(text), units, (True,) * len(units))
    context = select(
        Context("Bis wann?", (extract,)),
        threshold=0.01,
        budget=None,
        counter=WordCounter(),
        policy=Policy(),
        standout=share,
    )
    (piece,) = context.pieces
    return [text[unit.start : unit.end] for unit, kept in zip(piece.units, piece.kept, strict=True) if kept]


#: Address, date, greeting, two sentences, closing, signature, enclosure, postscript.
CONFIDENT = [0.05, 0.05, 0.0, 0.9, 0.05, 0.0, 0.05, 0.05, 0.05]
SENTENCES = [
    "die Schleuse bleibt bis zum 14. Juli gesperrt.",
    "Boote fahren durch den Altarm.",
    "PS: Der Schlüssel liegt im Boot.",
]


def test_what_stands_around_a_letter_is_measured_by_its_best_sentence() -> None:
    assert _kept_of_letter(CONFIDENT) == SENTENCES


def test_a_signature_stays_where_it_answers_about_as_well() -> None:
    scores = [0.05, 0.05, 0.0, 0.2, 0.05, 0.0, 0.12, 0.02, 0.05]
    assert _kept_of_letter(scores) == [
        "Kanalamt West\nSchleusenweg 4\n48143 Münster",
        "Münster, den 3. Juni 2025",
        *SENTENCES[:2],
        "Ida Moor\nKanalamt West",
        SENTENCES[2],
    ]


def test_nothing_around_a_letter_is_measured_so_at_the_point_safe_nor_without_a_greeting() -> None:
    safe = _kept_of_letter(CONFIDENT, STANDOUT["safe"])
    assert "Ida Moor\nKanalamt West" in safe and "Münster, den 3. Juni 2025" in safe
    note = LETTER.replace("Sehr geehrter Herr Plate,", "Zur Kenntnis an alle Häfen am Kanal")
    assert "Münster, den 3. Juni 2025" in _kept_of_letter(CONFIDENT, text=note)


@pytest.mark.parametrize("texts", [[""], ["", ""], ["\n"], []])
def test_documents_without_a_unit_are_measured_by_nothing(texts: list[str]) -> None:
    [result] = Pipeline([load("provence")]).run([Context.of("What opened?", texts)])
    assert (result.status, result.tokens_after) == ("passthrough", 0)
    context = Context.of("What opened?", texts)
    assert not select(
        context, threshold=0.1, budget=None, counter=WordCounter(), policy=Policy(), standout=0.15
    ).warnings
