"""Question files made from official files: what holds of every set, the command, and errors."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from fixtures_official import (
    OFFICIAL,
    fields,
    made,
    official,
    spans,
    squad11,
    squad_file,
    squad_question,
    written,
)
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.cli import main
from ctxprune.data.questions import LabelledDocument, Question, read_jsonl
from ctxprune.errors import InputError, UnknownNameError
from ctxprune.eval.convert import made as module
from ctxprune.eval.convert.made import Made, Shape, items_with, windows
from ctxprune.eval.convert.sets import SOURCES, Checked, build, fault_of
from ctxprune.types import Document

# every set


def test_there_is_a_sample_of_every_set() -> None:
    assert OFFICIAL.keys() == SOURCES.keys()


@pytest.mark.parametrize("name", SOURCES)
def test_a_set_is_sound_and_the_same_bytes_on_every_run(tmp_path: Path, name: str) -> None:
    questions, built = made(tmp_path, name)
    assert questions and built.questions == len(questions)
    assert [fault_of(question) for question in questions] == [""] * len(questions)
    assert {row["source"] for row in fields(tmp_path, name)} == {name}
    other = tmp_path / "elsewhere" / "again.jsonl.gz"
    again = build(name, [tmp_path / OFFICIAL[name][0]], other)
    assert other.read_bytes() == (tmp_path / f"{name}.made.jsonl.gz").read_bytes()
    assert [digest for _, digest in again.digests] == [digest for _, digest in built.digests]


@pytest.mark.parametrize("name", SOURCES)
def test_a_set_runs_through_the_quality_table_and_the_benchmark(tmp_path: Path, name: str) -> None:
    from benchmarks.quality.__main__ import main as quality

    made(tmp_path, name)
    file = str(tmp_path / f"{name}.made.jsonl.gz")
    flags = ["--compressors", "bm25-sentences,lead", "--budgets", "20", "--resamples", "20"]
    assert quality(["--data", file, *flags, "--out", str(tmp_path / "q")]) == 0
    run = ["eval", "run", "--data", file, "--compressor", "bm25-sentences", "--budgets", "20", "--baselines", "lead"]
    assert main([*run, "--out", str(tmp_path / "r"), "--cache", str(tmp_path / "c.sqlite")]) == 0
    assert (tmp_path / "r" / "results.json").is_file()


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("other", ["squad20", "covidqa", "hotpotqa", "qed", "selqa", "qmsum"])
def test_the_file_of_another_set_is_named_as_wrong(tmp_path: Path, name: str, other: str) -> None:
    if name == other or (name, other) == ("xquad", "squad20"):
        return
    path = official(tmp_path, other)
    with pytest.raises(InputError, match=r"expected .*, found") as told:
        build(name, [path], tmp_path / "out.jsonl")
    assert str(path) in str(told.value)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("content", ["", "[]", "{}", "17", '"text"', "no JSON at all", '[{"data"'])
def test_what_is_no_such_file_at_all_is_refused(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / OFFICIAL[name][0]
    path.write_text(content)
    with pytest.raises(InputError):
        build(name, [path], tmp_path / "out.jsonl")


@pytest.mark.parametrize("name", ["contractnli", "wice", "qmsum", "tatqa", "hotpotqa", "qed", "selqa", "timeqa"])
def test_a_part_of_another_kind_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    parts = {
        "contractnli": ('"spans": [1, 10]', '"spans": ["x"]'),
        "wice": ("[[1, 3], [3]]", "[1, 3]"),
        "qmsum": ('"speaker": "P0"', '"who": "P0"'),
        "tatqa": ('"order": 1', '"order": "first"'),
        "hotpotqa": ('["Low Tide", 9]', '["Low Tide"]'),
        "qed": ('"sentence_starts": [0', '"sentence_starts": ["0"'),
        "selqa": ('"answers": [1]', '"answers": ["1"]'),
        "timeqa": ('"para": 2', '"para": "2"'),
    }
    path = official(tmp_path, name)
    text = path.read_text()
    assert parts[name][0] in text
    path.write_text(text.replace(*parts[name], 1))
    with pytest.raises(InputError) as told:
        build(name, [path], tmp_path / "out.jsonl")
    assert str(path) in str(told.value)


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    path = official(tmp_path, "hotpotqa")
    with pytest.raises(InputError, match="'hotpotqa:h1' stands twice"):
        build("hotpotqa", [path, path], tmp_path / "out.jsonl")


@pytest.mark.parametrize("name", SOURCES)
def test_options_of_other_sets_are_refused(tmp_path: Path, name: str) -> None:
    path = official(tmp_path, name)
    for option, value in {"whole": True, "passages": 2}.items():
        if option not in SOURCES[name].options:
            with pytest.raises(InputError, match=f"{name} has no --{option}"):
                build(name, [path], tmp_path / "out.jsonl", shape=Shape(**{option: value}))


def test_a_folder_is_its_files_by_name_and_a_missing_one_says_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "xquad"
    folder.mkdir()
    written(folder / "xquad.es.json", squad11())
    written(folder / "xquad.de.json", squad11())
    (folder / "README.md").write_text("read me")
    build("xquad", [folder], tmp_path / "out.jsonl")
    languages = [json.loads(line)["lang"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert languages == ["de"] * 3 + ["es"] * 3
    with pytest.raises(
        InputError, match=r"no file or folder .*xquad.LANGUAGE.json from https://github.com/google-deepmind"
    ):
        build("xquad", [tmp_path / "nowhere"], tmp_path / "out.jsonl")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"holds no \.json file"):
        build("xquad", [tmp_path / "bare"], tmp_path / "out.jsonl")


def test_unknown_sets_and_names_of_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no data set 'squad12'; there are squad11"):
        build("squad12", [tmp_path], tmp_path / "out.jsonl")
    with pytest.raises(InputError, match=r"must end in \.jsonl or \.jsonl\.gz, got 'out.json'"):
        build("squad11", [tmp_path], tmp_path / "out.json")


# --passages


def many(count: int) -> dict[str, Any]:
    """Paragraphs on keepers of numbered locks; every tenth repeats the first keeper's name."""
    paragraphs = []
    for n in range(count):
        text = f"Lock {n} lies on the canal near mile {n}. Its keeper is called Keeper{n}."
        text += " Keeper0 helps out." if n and n % 10 == 0 else ""
        paragraphs.append((text, [squad_question(f"k{n}", f"Who keeps lock {n}?", text, f"Keeper{n}")]))
    return squad_file(*paragraphs)


def test_passages_hides_the_paragraph_among_others_without_the_answer(tmp_path: Path) -> None:
    path = written(tmp_path / "dev-v1.1.json", many(60))
    out = tmp_path / "ten.jsonl"
    built = build("squad11", [path], out, shape=Shape(passages=10, unanswerable=0.25))
    questions = list(read_jsonl(out))
    assert [question.id for question in questions] == [f"k{n}" for n in range(60)]
    assert {len(question.documents) for question in questions} == {10}
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert 0 < built.unanswerable < 30
    for question, row in zip(questions, rows, strict=True):
        golds = [each for each in question.documents if each.is_gold]
        assert len(golds) == question.answerable
        name = (row["removed_answers"] or list(question.answers))[0]
        others = [each.document.text for each in question.documents if not each.is_gold]
        assert not any(name in text.replace(".", " ").split() for text in others)
        assert (row["removed_answers"] is None) == question.answerable
        assert all(spans(each) == [name] for each in golds)


@pytest.mark.parametrize(("share", "unanswerable"), [(0.0, 0), (1.0, 30)])
def test_the_share_of_unanswerable_questions_goes_from_none_to_all(
    tmp_path: Path, share: float, unanswerable: int
) -> None:
    path = written(tmp_path / "dev-v1.1.json", many(30))
    built = build("squad11", [path], tmp_path / "out.jsonl", shape=Shape(passages=5, unanswerable=share))
    assert (built.questions, built.unanswerable) == (30, unanswerable)


def test_another_seed_draws_other_questions(tmp_path: Path) -> None:
    path = written(tmp_path / "dev-v1.1.json", many(40))
    for seed in (0, 1):
        build("squad11", [path], tmp_path / f"{seed}.jsonl", shape=Shape(passages=5, seed=seed))
    assert (tmp_path / "0.jsonl").read_bytes() != (tmp_path / "1.jsonl").read_bytes()


@pytest.mark.parametrize("wrong", [{"passages": 1}, {"unanswerable": -0.1}, {"unanswerable": 1.5}])
def test_shapes_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be"):
        Shape(**wrong)


# the pieces


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), max_size=30),
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 50)), max_size=4),
)
def test_windows_hold_every_unit_once_in_order_and_cut_no_span(
    gaps: list[tuple[int, int]], size: int, raw: list[tuple[int, int]]
) -> None:
    units, at = [], 0
    for gap, length in gaps:
        units.append((at + gap, at + gap + length))
        at += gap + length
    uncut = [(start, start + length) for start, length in raw]
    found = windows(units, size=size, uncut=uncut)
    assert all(first[1] <= second[0] for first, second in pairwise(found))
    inside = [[unit for unit in units if start <= unit[0] and unit[1] <= end] for start, end in found]
    assert [unit for each in inside for unit in each] == units
    for start, end in found:
        held = [unit for unit in units if start <= unit[0] and unit[1] <= end]
        assert end - start <= size or len(held) == 1 or any(a < end and start < b for a, b in uncut)
    for a, b in uncut:
        touched = [window for window in found if a < window[1] and window[0] < b]
        assert len(touched) <= 1


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=30) | st.integers(), max_size=3), max_size=6))
def test_an_array_is_read_item_by_item_wherever_the_pieces_end(items: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_READ", 3)
        path = Path(folder) / "items.json"
        path.write_text(json.dumps(items, ensure_ascii=False, indent=1), encoding="utf-8")
        assert [item for _, item in items_with(path, "items")] == items


@pytest.mark.parametrize("text", ['[{"a": 1}', '[{"a": 1} {"a": 2}]', '[{"a": 1}, {"a', '[{"a": 1},]'])
def test_a_cut_off_array_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "half.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"not a whole JSON array .*download it again"):
        list(items_with(path, "items", a=int))


def question(**changes: Any) -> Question:
    labelled = LabelledDocument(Document("Lima is in Peru. It rains.", id="d"), True, ((0, 4),), ((0, 16),))
    parts: dict[str, Any] = {"id": "q", "text": "Where?", "answers": ("Lima",), "documents": (labelled,)}
    return Question(**(parts | changes))


def document(**changes: Any) -> tuple[LabelledDocument, ...]:
    return (replace(question().documents[0], **changes),)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"text": " "}, "it has no text"),
        ({"documents": ()}, "it has no documents"),
        ({"answerable": False}, "a document answers the unanswerable"),
        ({"documents": document(is_gold=False)}, "answerable without a gold document"),
        ({"documents": document(answer_spans=((5, 7),))}, "'is' at 5, which is no answer"),
        ({"documents": document(relevant=((17, 26),))}, "outside of every relevant sentence"),
        ({"documents": document(relevant=((0, 17),))}, "empty, untrimmed or outside"),
        ({"documents": document(relevant=((0, 16), (0, 16)))}, "out of order"),
        ({"documents": document(relevant=((0, 16), (17, 99)))}, "empty, untrimmed or outside"),
    ],
)
def test_what_is_not_sound_is_told(changes: dict[str, Any], fault: str) -> None:
    assert fault in fault_of(question(**changes)) if fault else fault_of(question(**changes)) == ""


def test_ids_are_distinct_over_all_files() -> None:
    passes = Checked()
    assert len(list(passes([Made(question())], "a.json"))) == 1
    with pytest.raises(InputError, match=r"'q' stands twice, in a\.json and in b\.json"):
        list(passes([Made(question())], "b.json"))
    with pytest.raises(InputError, match=r"'r' stands twice, in b\.json;"):
        list(passes([Made(question(id="r")), Made(question(id="r"))], "b.json"))


# the command


def test_the_command_writes_the_file_and_says_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = official(tmp_path, "tatqa"), tmp_path / "tatqa.jsonl.gz"
    assert main(["eval", "data", "tatqa", "--from", str(path), "--out", str(out)]) == 0
    told = capsys.readouterr().err
    assert "3 questions, 0 of them unanswerable, 3.0 documents each" in told
    assert "left out 1: the answer is no span (arithmetic)" in told
    assert f"  {path}\n" in told and f"  {out}\n" in told


def test_the_list_names_source_files_licence_and_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "data", "--list"]) == 0
    told = capsys.readouterr().out
    for name, source in SOURCES.items():
        assert f"{name}: {source.title}" in told
        assert all(part in told for part in (source.page, source.licence, *source.files))


@pytest.mark.parametrize("flags", [[], ["squad11"], ["squad11", "--from", "x.json"], ["--out", "y.jsonl"]])
def test_without_set_files_or_output_the_command_says_what_to_give(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "data", *flags]) != 0
    assert "NAME --from FILE --out" in capsys.readouterr().err.replace("\n", " ")
