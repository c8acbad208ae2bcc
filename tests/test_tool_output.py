"""What tools return stays valid: JSON parses, tables keep their header, Python compiles, and what is named stays."""

import ast
import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures_scoring import LetterCompressor
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune import Context, Document, Pipeline, Policy, load
from ctxprune.errors import BudgetError, InputError
from ctxprune.tokens import WordCounter
from ctxprune.tools import ToolOutputs, prune_tool_output
from ctxprune.tools.choice import READ_CHARACTERS
from ctxprune.tools.elements import identifiers
from ctxprune.tools.json_shape import NOTE
from ctxprune.tools.shapes import frame, shape_of
from ctxprune.types import Span


def by_line(text):
    return [Span(match.start(), match.end()) for match in re.finditer(r"[^\n]+", text)]


#: Keeps lines of which at least half of the words hold a "q", and counts words.
LETTERS = ToolOutputs(LetterCompressor("q", split=by_line, counter=WordCounter()))
BM25 = ToolOutputs(load("bm25-sentences", counter=WordCounter()))

ORDERS = {
    "page": 1,
    "orders": [
        {"id": 7100 + at, "city": ["Leeds", "Turin"][at % 2], "lines": [{"sku": f"K-{at}-{each}"} for each in range(3)]}
        for at in range(12)
    ],
    "next": None,
}
LOG = "".join(
    f"2026-03-0{at % 9 + 1} 10:00:{at:02d} INFO request {at} served from the cache in {at % 7} ms\n" for at in range(40)
)
LOG = LOG.replace("request 21 served", "payment 21 refused: card expired,")
GREP = "".join(f"src/shop/cart.py:{10 + 3 * at}:    total = total + price_{at}(line)\n" for at in range(12))
LISTING = "total 88\n" + "".join(
    f"-rw-r--r-- 1 root root {at * 17:5d} May  3 10:0{at % 10} {name}\n"
    for at, name in enumerate(["cart.py", "orders.py", "invoice.pdf", "readme.md", "mailer.cfg", "backup.sh"])
)
DIFF = "".join(
    f"diff --git a/{name} b/{name}\nindex 1..2 100644\n--- a/{name}\n+++ b/{name}\n"
    f"@@ -1,3 +1,3 @@\n keep\n-old {word}\n+new {word}\n keep\n@@ -20,2 +20,2 @@\n-left {word}\n+right {word}\n"
    for name, word in (("shop/cart.py", "discount"), ("shop/mail.py", "greeting"), ("docs/readme.md", "licence"))
)
CODE = '''"""A shop."""

import json


def discount(price):
    """Ten percent off."""
    return price * 0.9


@cached
def shipping(weight):
    # heavy parcels cost more
    if weight > 20:
        return 12
    else:
        return 5


class Cart:
    """Lines."""

    def __init__(self):
        self.lines = []

    def add(self, line):
        self.lines.append(line)

    def invoice(self):
        return json.dumps(self.lines)


class Empty:
    def only(self):
        return None

    def other(self):
        return 1
'''
CSV = "id,name,balance\n" + "".join(f'{at},"Person\n{at}, the",{at * 7}\n' for at in range(20))
MARKDOWN = "| city | trams |\n| --- | --- |\n" + "".join(f"| Town {at} | {at * 3} |\n" for at in range(12))
TREE = ".\n├── shop\n│   ├── cart.py\n│   └── mail.py\n└── docs\n    ├── readme.md\n    └── licence.txt\n\n2 folders\n"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (json.dumps(ORDERS), "json"),
        (json.dumps(ORDERS, indent=2), "json"),
        ("\n".join(json.dumps(each) for each in ORDERS["orders"]), "json lines"),
        (LOG, "log"),
        (GREP, "search"),
        ("shop/cart.py\n12:total\n19:total again\n\nshop/mail.py\n3:total\n", "search"),
        ("12:total\n19:total again\n45:no total\n", "search"),
        (LISTING, "listing"),
        ("./shop/cart.py\n./shop/mail.py\n./docs/readme.md\n", "listing"),
        (TREE, "listing"),
        (DIFF, "diff"),
        (CODE, "code"),
        ("".join(f"{at:6d}\t{line}\n" for at, line in enumerate(CODE.splitlines(), 1)), "code"),
        ("function a(x) {\n  return x;\n}\n\nfunction b(y) {\n  log(y);\n  return 2;\n}\n", "code"),
        (CSV, "table"),
        (MARKDOWN, "table"),
        ("The ferry runs every hour. Bicycles travel free.", "text"),
        ("Dear Ms Okafor,\n\nthank you for your letter: it came on Monday.\n\nYours,\nB. Lund\n", "text"),
    ],
)
def test_kinds(text, kind):
    shape = shape_of(text)
    assert (shape.kind if shape else "text") == kind
    if shape:
        assert shape.render([True] * len(shape.elements)) == text
        assert [text[each.start : each.end] for each in shape.elements if each.counted]


def test_json_keeps_its_keys_and_the_named_element_whole():
    output = prune_tool_output(json.dumps(ORDERS, indent=1), "Which city does order 7104 go to?")
    value = json.loads(output.text)
    assert (value["page"], value["next"], list(value)[:3]) == (1, None, list(ORDERS))
    assert ORDERS["orders"][4] in value["orders"]
    left = 12 - len(value["orders"])
    assert value[NOTE]["orders"] == f"{left} of 12" and output.left_out >= left > 0
    assert output.tokens_after < output.tokens_before and output.status == "compressed"


def test_a_named_element_costs_what_it_costs():
    output = BM25.prune(json.dumps(ORDERS), "order 7104", budget=4)
    assert json.loads(output.text)["orders"] == [ORDERS["orders"][4] | {"lines": []}]
    assert output.over_budget and "exceeded" in output.warnings[0]


#: Three of each, of which the second has most letters that count; a note takes six words of a text and of lines.
SMALL = {
    "text": "Trams stop at noon.\nQuick queues quit.\nParcels wait outside.",
    "log": "".join(f"2026-03-0{at} INFO {word} here\n" for at, word in enumerate(["slow", "quick", "late"], 1)),
    "search": "a.py:1: slow\na.py:7: quick q\na.py:9: late",
    "json": json.dumps([{"word": "slow"}, {"word": "quick q"}, {"word": "late"}]),
}


@pytest.mark.parametrize("budget", range(4, 10))
@pytest.mark.parametrize("kind", SMALL)
def test_the_note_never_takes_the_place_of_the_best(kind: str, budget: int) -> None:
    output = LETTERS.prune(SMALL[kind], "anything?", budget=budget, threshold=0)
    assert output.kind == kind and not output.over_budget
    assert "uick" in output.text
    assert output.tokens_after <= budget
    if kind == "json":
        assert {"word": "quick q"} in json.loads(output.text)


def test_the_note_stays_where_the_best_fits_beside_it() -> None:
    assert LETTERS.prune(SMALL["log"], "?", budget=11, threshold=0).text == (
        "2026-03-02 INFO quick here\n[ctxprune: 2 of 3 records left out]\n"
    )
    longer = SMALL["text"] + "\nNobody knew when the next tram would come that day."
    assert LETTERS.prune(longer, "?", budget=11, threshold=0).text == (
        "Quick queues quit.\n[ctxprune: 3 of 4 sentences left out]"
    )


def test_a_sentence_in_parts_is_not_counted_as_several_sentences() -> None:
    text = "The tram to the harbour, the quay and the mill stops at noon, at three and at nine at night. It rains."
    output = BM25.prune(text, "When does the tram to the mill stop?", budget=12)
    assert re.search(r"\[ctxprune: \d+ of \d+ parts left out]", output.text) and output.tokens_after <= 12


def test_arrays_within_arrays_lose_elements_of_their_own():
    nested = [
        {"shop": f"shop {at}", "parcels": [{"note": f"{'quick quiet' if at == each else 'slow'}"} for each in range(4)]}
        for at in range(4)
    ]
    value = json.loads(LETTERS.prune(json.dumps(nested), "?").text)
    assert [entry["parcels"] for entry in value[:-1]] == [[{"note": "quick quiet"}]] * 4
    assert value[-1] == {NOTE: {"$[].parcels": "12 of 16"}}


def test_numbers_and_spacing_stay_as_they_are_written():
    first, last = '[ {"a": 1.50, "q": "q q q"}', '{"a": 12345678901234567890, "a": 2, "q": "q q q q"}'
    text = f'{first},\n {{"a": 1e400, "b": "no no no no no no no no"}}, {last} ]'
    assert LETTERS.prune(text, "?").text.startswith(f"{first}, {last}")


def test_a_log_keeps_the_lines_beside():
    output = prune_tool_output(LOG, "Why was the payment refused?")
    lines = output.text.splitlines()
    at = next(place for place, line in enumerate(lines) if "card expired" in line)
    source = LOG.splitlines()
    assert lines[at - 1 : at + 2] == source[20:23]
    assert re.fullmatch(r"\[ctxprune: \d+ of 40 records left out\]", lines[-1])
    assert all(line in source for line in lines[:-1])


def test_a_stack_trace_is_one_record():
    trace = 'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\n    run()\nOSError: SKU-88\n'
    text = LOG[:900] + "2026-03-04 10:00:59 ERROR worker died\n" + trace + LOG[900:]
    assert trace in prune_tool_output(text, "What does SKU-88 have to do with it?").text


def test_hits_keep_their_file_and_the_lines_around():
    text = (
        "a/x.py-3-before\na/x.py:4:hit q q q q q\na/x.py-5-after\n--\nb/y.py-7-before\nb/y.py:8:other\nb/y.py-9-after\n"
    )
    output = LETTERS.prune(text, "b/y.py")
    assert output.text.startswith("--\nb/y.py-7-before\nb/y.py:8:other\nb/y.py-9-after\n[ctxprune: 1 of 2 hits")
    grouped = "a/x.py\n4:no\n9:qq\n\nb/y.py\n8:no it is never so\n12:never it is so\n"
    assert LETTERS.prune(grouped, "?").text == "a/x.py\n9:qq\n\n[ctxprune: 3 of 4 hits left out]\n"


def test_a_listing_keeps_the_folders_of_what_it_keeps():
    assert BM25.prune(TREE, "mail.py", budget=16).text.startswith(".\n├── shop\n│   └── mail.py\n")
    output = prune_tool_output(LISTING, "Which script makes the backup?")
    assert output.text.startswith("total 88\n") and "backup.sh" in output.text and "readme.md" not in output.text


def test_a_diff_keeps_whole_hunks_with_their_headers():
    output = BM25.prune(DIFF, "Which greeting was changed?", budget=45)
    lines = output.text.splitlines()
    assert lines[0] == "diff --git a/shop/mail.py b/shop/mail.py"
    assert "+new greeting" in lines and lines[3] == "+++ b/shop/mail.py" and "discount" not in output.text
    bodies = [body for body in re.split(r"(?=^@@)", DIFF, flags=re.MULTILINE) if body.startswith("@@")]
    kept = re.split(r"(?=^@@|^\[ctx)", output.text, flags=re.MULTILINE)
    assert all(any(body.startswith(each) for body in bodies) for each in kept if each.startswith("@@"))


def test_python_still_parses_and_keeps_whole_functions():
    output = prune_tool_output(CODE, "What does shipping a heavy parcel cost?")
    tree = ast.parse(output.text)
    assert "shipping" in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert "@cached\ndef shipping(weight):\n    # heavy" in output.text and "invoice" not in output.text
    for budget in range(4, 90, 3):
        for question in ("only", "the invoice of a cart", "other things", "__init__"):
            ast.parse(BM25.prune(CODE, question, budget=budget).text)


def test_tables_keep_their_header_and_their_width():
    output = prune_tool_output(CSV, "What is the balance of Person 13?")
    rows = list(csv.reader(io.StringIO(output.text)))
    assert rows[0] == ["id", "name", "balance"] and ["13", "Person\n13, the", "91"] in rows
    assert {len(row) for row in rows} == {3}
    table = BM25.prune(MARKDOWN, "How many trams has Town 7?", budget=40).text
    assert table.startswith("| city | trams |\n| --- | --- |\n") and "| Town 7 | 21 |" in table
    assert table.splitlines()[-1].count("|") == 3


def test_prose_falls_back_to_the_compressors_own_units():
    text = "The ferry runs every hour. Bicycles travel free. The pier was built in 1887. Dogs sleep on deck."
    output = prune_tool_output(text, "When was the pier built?", threshold=0.4)
    assert output.kind == "text"
    assert [text[span.start : span.end] for span in output.kept_spans] == ["The pier was built in 1887."]


@pytest.mark.parametrize("before", ["12-def total(lines):", "2025-11-02 08:15:00 WARN queue 4 is full", "7-    return"])
def test_a_hit_after_lines_that_open_nothing_is_one_with_them(before):
    text = f"{before}\n{before}\nsrc/yard/crane.py:31:    lift = weigh(load)"
    output = prune_tool_output(text, "Where is the load weighed?")
    assert "src/yard/crane.py:31:" in output.text
    assert all(line in text.splitlines() for line in output.text.splitlines() if "ctxprune" not in line)


def test_fences_and_status_lines_around_it_stay():
    fenced = f"```json\n{json.dumps(ORDERS)}\n```\n"
    output = BM25.prune(fenced, "order 7104", budget=40)
    assert output.text.startswith("```json\n{") and output.text.endswith("\n```\n")
    answered = "HTTP/1.1 200 OK\ncontent-type: application/json\n\n" + json.dumps(ORDERS)
    head, inner, tail = frame(answered)
    assert (head + inner + tail, json.loads(inner)) == (answered, ORDERS)
    assert json.loads(BM25.prune(answered, "7104", budget=40).text.partition("\n\n")[2])["page"] == 1


@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```\n", "HTTP/1.1 200 OK\n\n{}"])
def test_a_byte_order_mark_before_it_changes_nothing(around):
    text = around.replace("{}", json.dumps(ORDERS))
    plain, marked = BM25.prune(text, "order 7104", budget=40), BM25.prune("\ufeff" + text, "order 7104", budget=40)
    assert (marked.kind, marked.text, marked.left_out) == (plain.kind, "\ufeff" + plain.text, plain.left_out)
    assert marked.kept_spans == tuple(Span(each.start + 1, each.end + 1, each.score) for each in plain.kept_spans)


@pytest.mark.parametrize(
    ("question", "present", "absent"),
    [
        ("What of order 48213?", "order 48213 is late", "order 482130 is late"),
        ("see `retry_limit`", "retry_limit = 3", "retry_limits = 3"),
        ("see src/cart.py", "in src/cart.py:", "in lib/src/cart.pyx"),
        ("error E4102 in 2026", "E4102: full", "E41020: full"),
        ("before 2026?", "in 2026 it", "at 2026-03-01 it"),
        ('the "late parcel" rule', "the late parcel rule", "the late parcels"),
    ],
)
def test_identifiers_are_exact(question, present, absent):
    patterns = identifiers(question)
    assert any(pattern.search(present) for pattern in patterns)
    assert not any(pattern.search(absent) for pattern in patterns)


def test_ordinary_questions_name_nothing():
    assert identifiers("Which of the 12 cities, e.g. Leeds, is the 3rd largest and well-known?") == []


def test_what_stands_everywhere_names_nothing():
    output = BM25.prune(GREP, "Where is src/shop/cart.py adding price_7?", budget=14)
    assert "price_7(" in output.text and output.left_out == 11 and not output.over_budget


def test_nothing_passes_keeps_the_best():
    output = LETTERS.prune("alpha/one.txt\nbeta/q.txt\ngamma/three.txt\n" * 3, "?", threshold=1.0)
    assert output.of - output.left_out == 1 and "beta/q.txt" in output.text


def test_what_the_policy_protects_stays():
    pruner = ToolOutputs(
        LetterCompressor("q", split=by_line, counter=WordCounter(), policy=Policy(protect=("no stock",)))
    )
    text = "".join(f"{at},a b c d e f g,{'no stock' if at == 3 else 'q q q q q'}\n" for at in range(8))
    assert "3,a b c d e f g,no stock\n" in pruner.prune("id,name,state\n" + text, "?").text


def test_bad_input_is_named():
    with pytest.raises(InputError, match="question is empty"):
        BM25.prune("a", " ", budget=3)
    with pytest.raises(BudgetError, match="got 0"):
        BM25.prune("a", "b", budget=0)
    with pytest.raises(BudgetError, match="needs a budget"):
        BM25.prune("a", "b")
    with pytest.raises(InputError, match="threshold must be in"):
        LETTERS.prune("a", "b", threshold=2.0)
    with pytest.raises(InputError, match="text must be a string, got bytes"):
        BM25.prune(b"a", "b", budget=3)
    with pytest.raises(InputError, match="odd scores no text"):
        ToolOutputs(SimpleNamespace(name="odd"))
    with pytest.raises(InputError, match="a context of its own"):
        BM25.compress([Context.of("q", ["a", "b"])], budget=3)


def test_it_is_a_compressor_for_pipelines():
    (result,) = Pipeline([LETTERS]).run([Context.of("?", [Document(json.dumps(ORDERS), id="t1")])])
    assert result.status == "compressed" and json.loads(result.to_dict()["text"])["page"] == 1
    (same,) = Pipeline([LETTERS]).run([Context.of("?", ["No fences here."])])
    assert same.status == "passthrough"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=40,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(["id", "q", "name", "tags"]), VALUES, max_size=4), max_size=12)
DOCUMENTS = st.one_of(
    st.dictionaries(st.text(max_size=6), RECORDS | VALUES, max_size=4), RECORDS, st.lists(VALUES, max_size=20)
)
QUESTIONS = st.sampled_from(["q", "id 481", "the name of `tags`", "a_b?"])


def without_note(value):
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if not key.startswith(NOTE)}
    return value[:-1] if value and isinstance(value[-1], dict) and NOTE in value[-1] else value


def is_part(small, whole):
    """Whether `small` is `whole` without some elements of its arrays."""
    if isinstance(whole, dict):
        return (
            isinstance(small, dict) and small.keys() == whole.keys() and all(is_part(small[k], whole[k]) for k in whole)
        )
    if isinstance(whole, list):
        rest = iter(whole)
        return isinstance(small, list) and all(any(is_part(each, other) for other in rest) for each in small)
    return small == whole and type(small) is type(whole)


@settings(deadline=None, max_examples=60)
@given(DOCUMENTS, QUESTIONS, st.integers(1, 60), st.sampled_from([None, 1, 3]), st.booleans())
def test_json_stays_json(value, question, budget, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    for pruner, limit in ((BM25, budget), (LETTERS, None)):
        output = pruner.prune(text, question, budget=limit)
        assert is_part(without_note(json.loads(output.text)), value) or output.text == text
        assert all(text[span.start : span.end] for span in output.kept_spans)
        if limit is not None and not output.over_budget:
            assert WordCounter().count([output.text])[0] <= limit
        if not output.over_budget:
            assert pruner.prune(output.text, question, budget=limit).text == output.text


SOURCES = [line for text in (LOG, GREP, LISTING, DIFF, MARKDOWN) for line in text.splitlines()[:8]]
OTHERS = ["", "Prose, and q more of it.", '{"q": [1, 2]}', "a,b,c", "1,q,3"]
LINES = st.lists(st.sampled_from([*SOURCES, *CODE.splitlines(), *OTHERS]), max_size=40)


@settings(deadline=None, max_examples=60)
@given(LINES, QUESTIONS, st.integers(1, 60), st.sampled_from(["\n", "\r\n"]))
def test_lines_stay_lines(lines, question, budget, ending):
    text = ending.join(lines)
    for pruner, limit in ((BM25, budget), (LETTERS, None)):
        output = pruner.prune(text, question, budget=limit)
        if output.kind not in ("text", "json"):
            kept = [line for line in output.text.splitlines() if "ctxprune" not in line]
            rest = iter(text.splitlines())
            assert all(line in rest for line in kept), "lines stay in order and word for word"
        if limit is not None and not output.over_budget:
            assert WordCounter().count([output.text])[0] <= limit
        if not output.over_budget:
            assert pruner.prune(output.text, question, budget=limit).text == output.text
        assert output.tokens_after <= output.tokens_before


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=300), st.integers(1, 30))
def test_any_text_goes_through(text, budget):
    output = BM25.prune(text, "anything 123", budget=budget)
    assert output.tokens_after <= output.tokens_before
    assert WordCounter().count([output.text])[0] == output.tokens_after


def test_large_and_deep_output_takes_linear_time():
    deep = "[" * 3000 + "]" * 3000
    assert BM25.prune(deep, "x", budget=5).kind in ("text", "json")
    for text in ("a" * 300_000, "a:" * 100_000, "|" * 100_000, "│   " * 50_000, "((((" * 50_000, "a/" * 100_000):
        shape_of(text)
        shape_of("\n".join([text[:60_000]] * 4))


def test_the_pages_example_runs(capsys):
    page = (Path(__file__).parents[1] / "docs" / "agents.md").read_text(encoding="utf-8")
    block, *_ = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(block, "docs/agents.md", "exec"), {"__name__": "page"})  # our own text
    assert capsys.readouterr().out.splitlines()[1] == "held at the customs: the invoice is missing"


LONG_LOG = [f"2026-03-01 10:00:{at % 60:02d} INFO parcel number {at} went out in time" for at in range(20_000)]


@pytest.mark.parametrize("as_json", [False, True])
def test_of_a_megabyte_what_shares_words_with_the_question_is_read(as_json):
    reader = LetterCompressor("q", split=by_line, counter=WordCounter())
    read = []
    score = reader.score
    reader.score = lambda contexts: read.append(contexts[0].extracts[0].source.text) or score(contexts)
    lines = [line.replace("went out in time", "went to the quay, and sank") for line in LONG_LOG[7000:7001]]
    lines = [*LONG_LOG[:7000], *lines, *LONG_LOG[7001:]]
    text = json.dumps({"log": [{"line": line} for line in lines]}) if as_json else "\n".join(lines)
    output = ToolOutputs(reader).prune(text, "What sank?", threshold=0.05)
    assert len(text) > 900_000 and max(map(len, read)) <= READ_CHARACTERS + len(lines)
    assert "parcel number 7000 went to the quay" in output.text and output.left_out > 19_000
    assert [warning for warning in output.warnings if warning.startswith("of 20000 ") and "were read" in warning]
    if as_json:
        assert json.loads(output.text)["log"] == [{"line": lines[7000]}]


def test_where_nothing_shares_a_word_the_ends_are_read():
    lines = [*LONG_LOG[:-1], LONG_LOG[-1].replace("parcel", "quick parcel")]
    lines[0] = lines[0].replace("parcel", "quiet parcel")
    lines[7000] = lines[7000].replace("parcel", "quaint parcel")
    output = LETTERS.prune("\n".join(lines), "Why?", threshold=0.05)
    assert "quick" in output.text and "quiet" in output.text and "quaint" not in output.text


def test_what_only_ranks_reads_everything():
    output = BM25.prune("\n".join(LONG_LOG), "Did parcel number 7000 go?", budget=60)
    assert "parcel number 7000 " in output.text and not output.warnings
