"""Silver labels: prompts, citations read from answers, a cache that survives interruption, reports that add up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.data.questions import LabelledDocument, Question, read_jsonl
from ctxprune.errors import GeneratorError, InputError
from ctxprune.trainers.provence.labels import (
    AnswerCache,
    Cited,
    LabelOptions,
    LabelReport,
    Labels,
    NoAnswer,
    Unparsed,
    label_questions,
    main,
    numbered_prompt,
    parse_labels,
    write_labels,
)
from ctxprune.trainers.shared.teacher import report_path
from ctxprune.types import Document

PASSAGE = "Lima lies in Peru. It is the capital. It rarely rains there."
NEITHER = Unparsed("neither cites nor says no answer")
BOTH = Unparsed("cites and says no answer")
BEYOND = Unparsed("cites only sentences that do not exist")


class Script:
    """A generator that answers by a function of the prompt and remembers what it was asked."""

    def __init__(self, answer: Callable[[str], str], *, fail_after: int | None = None) -> None:
        self.name = "script"
        self.answer = answer
        self.fail_after = fail_after
        self.asked: list[str] = []

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        if self.fail_after is not None and len(self.asked) >= self.fail_after:
            raise GeneratorError("the endpoint went away")
        self.asked.extend(prompts)
        return [self.answer(prompt) for prompt in prompts]


def question(name: str, *texts: str) -> Question:
    documents = tuple(LabelledDocument(Document(text, id=f"{name}:{at}")) for at, text in enumerate(texts))
    return Question(name, f"Question {name}?", ("Lima",), documents=documents)


# the prompt


def test_the_prompt_numbers_sentences_from_zero() -> None:
    prompt = numbered_prompt("Where\nis it?", ["It is\n here.", "Not {there} [12] or [3, 4]."])
    assert "\n[0] It is here.\n[1] Not {there} (12) or (3, 4).\n" in prompt
    assert "Question: Where is it?\n" in prompt
    assert "No answer" in prompt


# the parser


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("It is Lima [1].", Cited((1,))),
        ("It is Lima. [1, 3]", Cited((1, 3))),
        ("Lima [1][3]", Cited((1, 3))),
        ("Lima [3] [1] [3]", Cited((1, 3))),
        ("Lima [2-4]", Cited((2, 3, 4))),
        ("Lima [2–4; 0]", Cited((0, 2, 3, 4))),
        ("Lima [4-2]", Cited((2, 3, 4))),
        ("Lima [1 to 2]", Cited((1, 2))),
        ("Lima [1 and 3]", Cited((1, 3))),
        ("Lima [1, 2 & 3]", Cited((1, 2, 3))),
        ("Lima [sentence 2]", Cited((2,))),
        ("Lima [Sentences 2, 3]", Cited((2, 3))),
        ("Lima [[2]]", Cited((2,))),
        ("Lima [ 2 ]", Cited((2,))),
        ("[0]", Cited((0,))),
        ("Lima [1] [7]", Cited((1,), out_of_range=1)),
        ("Lima [3-9]", Cited((3, 4), out_of_range=1)),
        ("Lima [0-99999999999999999999]", Cited((0, 1, 2, 3, 4), out_of_range=1)),
        ("Lima [5]", BEYOND),
        ("In [1998] it was Lima [2].", Cited((2,), out_of_range=1)),
        ("Founded in [1998].", BEYOND),
        ("No answer", NoAnswer()),
        ("No answer.", NoAnswer()),
        ("no answer", NoAnswer()),
        ("NO ANSWER!", NoAnswer()),
        ("No-answer", NoAnswer()),
        ("NoAnswer", NoAnswer()),
        ('"No answer"', NoAnswer()),
        ("**No answer.**", NoAnswer()),
        ("Answer: No answer", NoAnswer()),
        ("No answer. The passage only tells of the weather.", NoAnswer()),
        ("No answer is given in the passage.", NoAnswer()),
        ("There is no answer in the passage.", NoAnswer()),
        ("The passage does not say who.\n\nNo answer", NoAnswer()),
        ("The question cannot be answered from the passage.", NoAnswer()),
        ("The passage doesn't mention a date.", NoAnswer()),
        ("Unanswerable.", NoAnswer()),
        ("No answer [2]", BOTH),
        ("No answer. Rain is rare [2].", BOTH),
        ("Rain is rare [2]. No answer.", BOTH),
        ("It rains [2]\nNo answer", BOTH),
        ("No answer can be found; rain is rare [9].", BOTH),
        ("She got no answer to her letter [2].", Cited((2,))),
        ("The passage does not say when, but it is Lima [1].", Cited((1,))),
        ("It is Lima.", NEITHER),
        ("She got no answer to her letter.", NEITHER),
        ("Lima (1)", NEITHER),
        ("Lima [citation needed]", NEITHER),
        ("Lima [to]", NEITHER),
        ("Lima []", NEITHER),
        ("Lima [1", NEITHER),
        ("", Unparsed("the reply is empty")),
        (" \n", Unparsed("the reply is empty")),
        ("<think>maybe [0]?</think>It is Lima [1].", Cited((1,))),
        ("<think>maybe [0]?</think>\n\nNo answer", NoAnswer()),
        ("<think>maybe [0]? or", Unparsed("the reply is only reasoning, without an answer")),
    ],
)
def test_answers_are_read(answer: str, labels: Labels) -> None:
    assert parse_labels(answer, 5) == labels


pieces = st.sampled_from(
    ["[", "]", "0", "1", "7", "42", "-", "–", ",", " ", "and", "No answer", ".", "Lima", "</think>"]
)


@given(st.one_of(st.text(), st.lists(pieces, max_size=25).map("".join)), st.integers(0, 9))
def test_no_label_is_ever_out_of_range(answer: str, n_sentences: int) -> None:
    labels = parse_labels(answer, n_sentences)
    if isinstance(labels, Cited):
        assert labels.indices == tuple(sorted(set(labels.indices)))
        assert labels.indices
        assert set(labels.indices) <= set(range(n_sentences))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.sampled_from([", ", "][", "; ", " and ", "]\n["]))
def test_every_way_to_list_citations_reads_the_same(indices: list[int], separator: str) -> None:
    assert parse_labels(f"So it is [{separator.join(map(str, indices))}].", 31) == Cited(tuple(sorted(set(indices))))


def test_a_long_run_of_digits_is_read_in_no_time() -> None:
    assert parse_labels("[" + "1" * 50_000, 5) == NEITHER
    assert parse_labels("[" * 50_000, 5) == NEITHER


# labels from answers


def test_documents_are_labelled_by_their_citations(tmp_path: Path) -> None:
    given = Question(
        "q", "Capital?", ("Peru",), documents=(LabelledDocument(Document(PASSAGE, id="a"), True, ((13, 17), (20, 22))),)
    )
    answers = Script(lambda prompt: "Lima [1] is it [2]")
    with AnswerCache(tmp_path / "cache") as cache:
        (labelled,), _ = label_questions([given], answers, model="m", cache=cache)
    (document,) = labelled.documents
    assert document.relevant is not None
    cited = [PASSAGE[start:end] for start, end in document.relevant]
    assert cited == ["It is the capital.", "It rarely rains there."]
    # an answer place outside the cited sentences is no longer known to be one
    assert (document.is_gold, document.answer_spans, labelled.answerable) == (True, ((20, 22),), True)


def outcomes(prompt: str) -> str:
    """The answer by the first letter of the question's name."""
    answers = {"a": "Lima [1].", "b": "No answer", "c": "Lima.", "d": "Lima [0].", "e": "Lima [0] [8]."}
    return answers[prompt.split("Question ")[-1][0]]


def test_the_report_adds_up(tmp_path: Path) -> None:
    asked = [question(name, PASSAGE) for name in "abcd"] + [question("e", "One sentence."), question("a", PASSAGE)]
    asked.append(question("f", "", " ".join(["Yes."] * 9)))
    script = Script(outcomes)
    options = LabelOptions(max_sentences=5)
    with AnswerCache(tmp_path / "cache") as cache:
        kept, report = label_questions(asked, script, model="m", cache=cache, options=options)
    assert [labelled.id for labelled in kept] == ["a", "b", "e", "a"]
    assert [labelled.answerable for labelled in kept] == [True, False, True, True]
    assert report.to_dict() == {
        "questions": 7,
        "questions_kept": 4,
        "passages": 8,
        "cited": 3,
        "no_answer": 1,
        "generated": 5,
        "from_cache": 1,
        "out_of_range": 1,
        "sentences": 10,
        "relevant_sentences": 3,
        "dropped": {
            "neither cites nor says no answer": 1,
            "only the first sentence cited": 1,
            "empty passage": 1,
            "more than 5 sentences": 1,
        },
    }
    assert report.passages == report.cited + report.no_answer + sum(report.dropped.values())


def test_first_only_citations_stay_when_asked_for(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "cache") as cache:
        (kept,), _ = label_questions(
            [question("d", PASSAGE)],
            Script(outcomes),
            model="m",
            cache=cache,
            options=LabelOptions(drop_first_only=False),
        )
    assert kept.documents[0].relevant == ((0, 18),)


reports = st.builds(
    LabelReport,
    passages=st.integers(0, 9),
    cited=st.integers(0, 9),
    dropped=st.dictionaries(st.sampled_from("ab"), st.integers(1, 9)),
)


@given(reports, reports)
def test_reports_add_field_by_field(left: LabelReport, right: LabelReport) -> None:
    total = left + right
    assert (total.passages, total.cited) == (left.passages + right.passages, left.cited + right.cited)
    assert all(total.dropped.get(key, 0) == left.dropped.get(key, 0) + right.dropped.get(key, 0) for key in "ab")


# the cache


def many(count: int) -> list[Question]:
    return [question(f"a{number}", f"{PASSAGE} {number} times.") for number in range(count)]


def test_an_interrupted_run_asks_only_for_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    broken = Script(outcomes, fail_after=4)
    with AnswerCache(tmp_path / "cache") as cache, pytest.raises(GeneratorError):
        write_labels(many(6), out, broken, model="m", cache=cache, batch_size=2)
    assert not out.exists()
    script = Script(outcomes)
    with AnswerCache(tmp_path / "cache") as cache:
        report = write_labels(many(6), out, script, model="m", cache=cache, batch_size=2)
    assert (len(broken.asked), len(script.asked)) == (4, 2)
    assert not set(broken.asked) & set(script.asked)
    assert (report.generated, report.from_cache, report.cited) == (2, 4, 6)
    assert [labelled.id for labelled in read_jsonl(out)] == [f"a{number}" for number in range(6)]


@pytest.mark.parametrize("tail", [b'{"key": "abc", "answ', b'{"key": "abc", "answer": "\xc3', b"\0\0\0", b"{}"])
def test_a_half_written_last_line_is_asked_again(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "cache"
    with AnswerCache(path) as cache:
        cache.put("m", "p", "kept")
        cache.put("m", "q", "lost")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"\n") + 1] + tail)
    with AnswerCache(path) as cache:
        assert (cache.get("m", "p"), cache.get("m", "q")) == ("kept", None)
        cache.put("m", "q", "again")
    assert path.read_bytes().count(b"\n") == 2
    with AnswerCache(path) as cache:
        assert (len(cache), cache.get("m", "q")) == (2, "again")


def test_a_changed_answer_is_asked_again_and_one_without_a_digest_is_not(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    with AnswerCache(path) as cache:
        cache.put("m", "p", "The mill opened in 1820.")
        cache.put("m", "q", "whole")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["answer"] = rows[0]["answer"].replace("1820", "1920")
    del rows[1]["digest"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with AnswerCache(path) as cache:
        assert (cache.get("m", "p"), cache.get("m", "q")) == (None, "whole")
        cache.put("m", "p", "again")
    with AnswerCache(path) as cache:
        assert cache.get("m", "p") == "again"


def test_an_answer_belongs_to_its_model_and_prompt(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "new" / "cache") as cache:
        cache.put("m", "p", "a\nb é \ud800")
        assert cache.get("m", "p") == "a\nb é \ud800"
        assert (cache.get("n", "p"), cache.get("m", "P"), cache.get("mp", "")) == (None, None, None)


def test_a_foreign_file_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text('{"question": "q"}\n')
    with pytest.raises(InputError, match=r"cache:1: not an answer"):
        AnswerCache(tmp_path / "cache")
    assert (tmp_path / "cache").read_text() == '{"question": "q"}\n'


# the command


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script(outcomes)
    monkeypatch.setattr("ctxprune.generators.LocalGenerator", lambda path, gguf_file, chat: script)
    return script


def test_the_command_writes_rows_and_a_report(
    tmp_path: Path, scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": name, "question": f"Question {name}?", "documents": [PASSAGE]} for name in "abc"]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl.gz"
    command = ["--data", str(source), "--out", str(out), "--local", "tiny"]
    assert main([*command, "--limit", "2"]) == 0
    first, second = read_jsonl(out)
    assert (first.documents[0].relevant, second.documents[0].relevant) == (((19, 37),), ())
    written = json.loads((tmp_path / "out.report.json").read_text())
    assert written == json.loads(capsys.readouterr().out)
    assert (written["passages"], written["generated"]) == (2, 2)
    assert main(command) == 0
    assert len(scripted.asked) == 3
    assert json.loads(capsys.readouterr().out)["dropped"] == {"neither cites nor says no answer": 1}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "{tmp}/none.jsonl", "--local", "tiny"], "no file or folder"),
        (
            ["--data", "{tmp}/in.jsonl", "--endpoint", "http://x/v1", "--model", "m", "--api-key-env", "NO_SUCH"],
            "NO_SUCH",
        ),
        (["--data", "{tmp}/out.jsonl", "--local", "tiny"], "is the input file"),
    ],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, scripted: Script, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    for name in ("in.jsonl", "out.jsonl"):
        (tmp_path / name).write_text('{"question": "Question a?", "documents": []}\n')
    command = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    assert main([*command, "--out", str(tmp_path / "out.jsonl")]) == 1
    assert complaint in capsys.readouterr().err
    assert not scripted.asked


@pytest.mark.parametrize("which", [[], ["--local", "x", "--endpoint", "y", "--model", "m"], ["--endpoint", "y"]])
def test_the_command_needs_one_generator(which: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--data", "a", "--out", "b", *which])
    assert "either --endpoint URL with --model NAME, or --local PATH" in capsys.readouterr().err


def test_an_endpoint_that_fails_tells_how_to_go_on(
    tmp_path: Path, scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.fail_after = 0
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"question": "Question a?", "documents": [PASSAGE]}))
    assert main(["--data", str(source), "--out", str(tmp_path / "out.jsonl"), "--local", "tiny"]) == 1
    assert "run the same command to go on" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_the_report_lies_beside_the_labels() -> None:
    assert report_path(Path("a/b.jsonl.gz")) == report_path(Path("a/b.jsonl")) == Path("a/b.report.json")
