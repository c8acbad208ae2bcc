"""The quality run end to end: a few questions, a toy compressor whose every choice is known."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys

import pytest

from benchmarks.quality import __main__ as quality
from benchmarks.quality.figures import evaluate, plain, shown
from benchmarks.quality.report import render, require_matplotlib
from ctxprune.compressors.base import ScoringCompressor, narrow, visible_units
from ctxprune.data.questions import LabelledDocument, Question, question_from_row
from ctxprune.errors import InputError, MissingExtraError
from ctxprune.eval.judge import Reference, context_of, document_ranks, retriever_ranks, unit_outcomes
from ctxprune.select import Policy
from ctxprune.tokens import load_counter
from ctxprune.types import Document, Span, whole

WORDS = load_counter("words")

TOWER = "The tower is in Paris. It was built in 1889 by Gustave Eiffel. Many people visit it every year."
BRIDGE = "The bridge is in London. It opened in 1894. Ships pass below it."
RIVER = "A river runs through both towns. It is long and calm."


def sentences(text):
    """Sentences of the plain texts above: they end at a point."""
    spans, start = [], 0
    for place, character in enumerate(text):
        if character == ".":
            spans.append(Span(start, place + 1))
            start = place + 2
    return spans


class Overlap(ScoringCompressor):
    """Probability 0.9 for a sentence with the query's last word, else 0.2; a document scores as its best sentence."""

    name = "overlap"
    default_threshold = 0.5

    def score(self, contexts):
        return [self._scored(context) for context in contexts]

    def _scored(self, context):
        wanted = context.query.split()[-1].rstrip("?")
        pieces = []
        for extract in context.extracts:
            units = [
                Span(unit.start, unit.end, 0.9 if wanted in extract.source.text[unit.start : unit.end] else 0.2)
                for unit in visible_units(extract, sentences)
            ]
            pieces.append(narrow(extract, units, score=max((unit.score for unit in units), default=0.0)))
        return type(context)(context.query, tuple(pieces), context.id)


class First(Overlap):
    """Ranks sentences by their place, earliest first: no probabilities, no document scores."""

    name = "first"
    default_threshold = None

    def _scored(self, context):
        pieces = [
            narrow(
                extract, [Span(unit.start, unit.end, -float(unit.start)) for unit in visible_units(extract, sentences)]
            )
            for extract in context.extracts
        ]
        return type(context)(context.query, tuple(pieces), context.id)


class Whole:
    """Keeps everything, and offers nothing but `compress`."""

    name = "whole"

    def compress(self, contexts, *, budget=None, threshold=None):
        return list(contexts)


def span_of(text, part):
    return [text.index(part), text.index(part) + len(part)]


def document(text, *, answer=None, relevant=None, title=""):
    return {
        "text": text,
        "title": title,
        "is_gold": answer is not None or relevant is not None,
        "answer_spans": [span_of(text, answer)] if answer else [],
        "relevant_sentences": [span_of(text, relevant)] if relevant else [],
    }


def rows():
    built = "It was built in 1889 by Gustave Eiffel."
    tower = document(TOWER, answer="1889", relevant=built, title="A tower")
    return [
        {"id": "q1", "question": "When was it built?", "answers": ["1889"], "documents": [document(RIVER), tower]},
        {
            "id": "q2",
            "question": "Where is the tower?",
            "answers": ["Paris"],
            "documents": [
                document(TOWER, answer="Paris", relevant="The tower is in Paris.", title="A tower"),
                document(BRIDGE),
            ],
        },
        {
            "id": "q3",
            "question": "Who painted them?",
            "answerable": False,
            "documents": [document(BRIDGE), document(RIVER)],
        },
        {
            "id": "q4",
            "question": "What do they visit?",
            "answers": ["Because people like towers."],
            "documents": [document(TOWER, relevant="Many people visit it every year."), document(RIVER)],
        },
    ]


def questions():
    return [question_from_row(row, default_id="") for row in rows()]


def by(figures, table, **wanted):
    (row,) = [row for row in figures[table] if all(row[key] == value for key, value in wanted.items())]
    return row


@pytest.fixture(scope="module")
def figures():
    compressors = {"overlap": Overlap(), "first": First(), "whole": Whole()}
    return evaluate(questions(), compressors, budgets=[8], thresholds=[0.5], batch_size=3, resamples=200)


def test_answer_kept_at_a_budget(figures):
    # overlap keeps the 8-word sentence with 1889, "The tower is in Paris." and "Many people visit it every year."
    assert by(figures, "budgets", compressor="overlap")["answer_kept"]["mean"] == 1.0
    # first keeps the head of the documents: the answer of q2 only
    assert by(figures, "budgets", compressor="first")["answer_kept"]["mean"] == pytest.approx(1 / 3)
    assert by(figures, "budgets", compressor="whole")["recall"]["mean"] == 1.0
    assert all(row["answer_kept"]["n"] == 3 for row in figures["budgets"])
    assert by(figures, "budgets", compressor="overlap")["words"] <= 8


def test_differences_are_paired_with_the_first_compressor(figures):
    found = by(figures, "differences", baseline="first", metric="answer_kept")
    assert found["ours"] == "overlap"
    assert found["mean"] == pytest.approx(2 / 3)
    tie = by(figures, "differences", baseline="whole", metric="answer_kept")
    assert (tie["mean"], tie["verdict"]) == (0.0, "tie")


def test_thresholds_only_for_probabilities(figures):
    (row,) = figures["thresholds"]
    assert row["compressor"] == "overlap"
    assert (row["answer_kept"]["mean"], row["precision"]["mean"], row["recall"]["mean"]) == (1.0, 1.0, 1.0)
    assert row["answerable_emptied"]["mean"] == 0.0
    assert row["unanswerable_emptied"]["mean"] == 1.0


def test_words_removed_are_those_of_answerable_questions(figures):
    (row,) = figures["thresholds"]
    lengths = [len(RIVER.split()) + len(TOWER.split()), len(TOWER.split()) + len(BRIDGE.split())]
    shares = [1 - 8 / lengths[0], 1 - 5 / lengths[1], 1 - 6 / lengths[0]]
    assert row["removed"]["mean"] == pytest.approx(sum(shares) / 3)
    assert row["removed"]["n"] == 3


def test_ranks_compare_with_the_retriever(figures):
    # gold comes second, first and first of two
    retriever = by(figures, "ranks", ranker="retriever order")
    assert retriever["mrr"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert retriever["gold_first"] == pytest.approx(2 / 3)
    assert by(figures, "ranks", ranker="overlap")["gold_first"] == 1.0
    assert [row["ranker"] for row in figures["ranks"]] == ["retriever order", "overlap"]


def test_calibration_counts_every_labelled_sentence(figures):
    (row,) = figures["calibration"]
    texts = [document["text"] for row in rows() for document in row["documents"]]
    assert row["sentences"] == sum(text.count(".") for text in texts) == sum(each["count"] for each in row["bins"])
    low, high = row["bins"]
    assert low["predicted"] == pytest.approx(0.2)
    assert high["predicted"] == pytest.approx(0.9)
    assert row["ece"] == pytest.approx(
        sum(each["count"] * abs(each["predicted"] - each["observed"]) for each in row["bins"]) / row["sentences"]
    )


def test_results_do_not_depend_on_the_batch():
    compressors = {"overlap": Overlap(), "first": First()}
    one, many = (
        evaluate(questions(), compressors, budgets=[8], thresholds=[0.5], batch_size=size, resamples=50)
        for size in (1, 9)
    )
    del one["scoring_seconds"], many["scoring_seconds"]
    assert plain(one) == plain(many)


def test_titles_do_not_spend_the_budget():
    titled = Overlap(policy=Policy(keep_title=True))
    assert evaluate(questions()[:1], {"it": titled}, budgets=[8])["budgets"][0]["answer_kept"]["mean"] == 1.0


def test_nothing_to_evaluate():
    with pytest.raises(InputError, match="at least one question"):
        evaluate([], {"overlap": Overlap()}, budgets=[8])
    with pytest.raises(InputError, match="budget or a threshold"):
        evaluate(questions(), {"overlap": Overlap()})


def pruned(question, *kept):
    """The question's context with the given slices of each document kept."""
    pieces = []
    for extract, slices in zip(context_of(question).extracts, kept, strict=True):
        pieces.append(
            type(extract)(extract.source, tuple(Span(*s) for s in slices), (True,) * len(slices), index=extract.index)
        )
    return type(context_of(question))(question.text, tuple(pieces))


def judged(question, *kept):
    return Reference.of(question, split=sentences, counter=WORDS).judge(pruned(question, *kept), counter=WORDS)


def test_a_kept_answer_string_counts_in_a_gold_document_only():
    row = {
        "question": "q",
        "answers": ["May"],
        "documents": [
            document("It fell in May. It rose in May.", answer="May", relevant="It fell in May."),
            document("May it be."),
        ],
    }
    question = question_from_row(row, default_id="1")
    assert judged(question, [(0, 15)], []).answer_kept == 1.0  # the span
    assert judged(question, [(16, 31)], []).answer_kept == 1.0  # the string elsewhere in the gold document
    assert judged(question, [], [(0, 10)]).answer_kept == 0.0  # the string in a document that does not answer
    assert judged(question, [(0, 12)], []).answer_kept == 0.0  # the span is cut: "It fell in M"


def test_judgement_of_an_emptied_context():
    judgement = judged(questions()[0], [], [])
    assert (judgement.answer_kept, judgement.recall, judgement.removed, judgement.emptied) == (0.0, 0.0, 1.0, True)
    assert math.isnan(judgement.precision)


def test_half_a_sentence_is_not_a_kept_sentence():
    question = questions()[0]
    sentence = TOWER.index("It was built"), TOWER.index("Many") - 1
    half = (sentence[0] + sentence[1]) // 2
    assert judged(question, [], [(sentence[0], half)]).recall == 0.0
    assert judged(question, [], [(sentence[0], half + 2)]).recall == 1.0


def test_documents_are_found_again_whatever_their_order():
    question = questions()[0]
    context = context_of(question)
    backwards = type(context)(context.query, tuple(reversed(context.pieces)))
    reference = Reference.of(question, split=sentences, counter=WORDS)
    assert reference.judge(backwards, counter=WORDS) == reference.judge(context, counter=WORDS)


def test_unknown_labels_are_not_counted_as_irrelevant():
    unknown = LabelledDocument(Document(RIVER), relevant=None)
    question = Question("1", "Where is the tower?", ("Paris",), documents=(questions()[1].documents[0], unknown))
    everything = judged(question, [(0, len(TOWER))], [(0, len(RIVER))])
    assert everything.precision == pytest.approx(1 / 3)  # of the tower's three sentences
    (scored,) = Overlap().score([context_of(question)])
    assert len(unit_outcomes(question, scored)) == 3


def test_ranks_need_a_choice_and_a_judge():
    question = questions()[0]
    context = context_of(question)
    assert document_ranks(question, context) is None  # nobody judged
    assert retriever_ranks(question) == [2]
    single = Question("1", "q", documents=(LabelledDocument(Document("a"), is_gold=True),))
    assert retriever_ranks(single) is None
    assert document_ranks(single, type(context)("q", (whole(Document("a")),))) is None


@pytest.fixture
def command(tmp_path, monkeypatch):
    path = tmp_path / "toy.jsonl.gz"
    with gzip.open(path, "wt") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows())
    offered = {"overlap": Overlap, "first": First}
    monkeypatch.setattr("ctxprune.load", lambda name: offered[name](), raising=False)
    return ["--data", str(path), "--compressors", "overlap,first", "--budgets", "8", "--thresholds", "0.5"]


def test_command_writes_both_files(command, tmp_path, capsys):
    assert quality.main([*command, "--out", str(tmp_path / "out"), "--figures", str(tmp_path / "shown.json")]) == 0
    markdown = (tmp_path / "out" / "quality.md").read_text()
    report = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert json.loads((tmp_path / "shown.json").read_text()) == shown(report)
    assert "python -m benchmarks.quality --data toy.jsonl.gz --compressors overlap,first --budgets 8" in markdown
    assert str(tmp_path) not in markdown
    assert report["sets"]["toy"]["questions"] == 4
    assert by(report["sets"]["toy"], "budgets", compressor="overlap")["answer_kept"]["mean"] == 1.0
    assert "toy: 4/4 questions" in capsys.readouterr().err


def test_command_prints_without_out_and_limits(command, capsys):
    assert quality.main([*command, "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 questions (1 unanswerable)" in out
    assert "| budget | compressor |" in out


def test_command_reports_errors_without_a_traceback(command, capsys):
    assert quality.main([*command[:1], "missing.jsonl", *command[2:]]) == 1
    assert capsys.readouterr().err.startswith("error: cannot read missing.jsonl")
    with pytest.raises(SystemExit, match="2"):
        quality.main([*command, "--plot"])
    with pytest.raises(SystemExit, match="2"):
        quality.main([*command, "--budgets", "few"])


def test_command_with_a_pool(tmp_path, command, capsys):
    data, corpus = tmp_path / "one.jsonl", tmp_path / "corpus.jsonl"
    row = {
        "id": "p",
        "question": "Where is the tower?",
        "answers": ["Paris"],
        "documents": [document(TOWER, answer="Paris")],
    }
    data.write_text(json.dumps(row) + "\n")
    corpus.write_text("".join(json.dumps({"id": n, "text": f"Town {n} has a tower."}) + "\n" for n in range(12)))
    assert quality.main(["--data", str(data), "--pool", str(corpus), *command[2:]]) == 0
    out = capsys.readouterr().out
    assert "## one\n" in out
    assert "## one+pool\n" in out
    more = [*command[2:], "--pool-sizes", "10,12"]
    assert quality.main(["--data", str(data), "--pool", str(corpus), *more]) == 0
    out = capsys.readouterr().out
    assert "## one+pool\n" in out and "## one+pool12\n" in out
    assert "--pool corpus.jsonl --pool-sizes 10,12 " in out


def test_evenly_spaced_covers_the_file():
    assert quality.evenly_spaced(list(range(10)), 3) == [0, 3, 6]
    assert quality.evenly_spaced([1, 2], 5) == quality.evenly_spaced([1, 2], None) == [1, 2]


def test_report_flags_losses():
    behind = evaluate(questions()[:2], {"first": First(), "overlap": Overlap()}, budgets=[8], resamples=200)
    row = by(behind, "differences", metric="answer_kept")
    row.update(low=-0.7, high=-0.1, verdict="loss")
    markdown = render({"command": "x", "sets": {"toy": behind}})
    assert "| toy | 8 | 0.500 | 1.000 **loses** |" in markdown
    assert "first wins 0, ties 0 and loses 1 of 1 comparisons." in markdown
    assert "-0.500 [-0.700, -0.100] **loses**" in markdown


def test_report_shows_what_could_not_be_measured_as_a_dash():
    row = {"question": "Is it?", "answers": ["yes"], "documents": [{"text": RIVER, "is_gold": True}]}
    found = evaluate([question_from_row(row, default_id="1")], {"first": First(), "overlap": Overlap()}, budgets=[8])
    markdown = render({"command": "x", "sets": {"bare": found}})
    assert "| 8 | first | 6 | – | – | – |  |" in markdown
    assert "| bare | 8 |" not in markdown
    assert not re.search(r"\bnan\b", markdown)
    json.dumps(plain(found), allow_nan=False)


def test_a_plot_without_matplotlib_names_the_extra(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"ctxprune-rag\[bench\]"):
        require_matplotlib()
    assert quality.main([*command, "--out", str(tmp_path), "--plot"]) == 1
    assert "pip install" in capsys.readouterr().err
