"""The selector's labels, rankings and training, on a tiny random encoder and a generator that scores on a script."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_checkpoints import bert_tokenizer, randomised
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from benchmarks import recomp as recomp_evaluation
from ctxprune.compressors.recomp.extractive import load_model
from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.errors import CheckpointError, InputError
from ctxprune.files import write_rows
from ctxprune.models.sentence_encoders import SentenceTransformerEncoder
from ctxprune.trainers.recomp import extractive
from ctxprune.trainers.recomp import labels as recomp_labels
from ctxprune.trainers.recomp.choice import (
    Choice,
    Report,
    by_gold,
    by_worth,
    candidates,
    gold_rank,
    ranking_tasks,
    read_labels,
    recall,
    retrieval_tasks,
    shortlist,
    with_distractors,
)
from ctxprune.trainers.recomp.extractive import export_selector, training_rows
from ctxprune.trainers.recomp.labels import LabelOptions, gold_labels, scored_labels
from ctxprune.types import Document

MOON = "The moon orbits a planet. A planet is red. Cheese is not red."
MARS = "Mars is red. Two moons orbit mars."


def document(text: str, relevant: str = "", *, title: str = "", name: str = "") -> LabelledDocument:
    start = text.index(relevant)
    spans = ((start, start + len(relevant)),) if relevant else ()
    return LabelledDocument(Document(text, id=name, title=title), bool(relevant), relevant=spans)


def question(text: str = "how many moons has mars?", answers: tuple[str, ...] = ("two",)) -> Question:
    gold = document(MARS, "Two moons orbit mars.", title="mars", name="d2")
    return Question(text, text, answers, documents=(document(MOON, title="moon", name="d1"), gold))


class ScriptedJudge:
    """Scores by what stands in the prompt; keeps the prompts."""

    def __init__(self, worth: dict[str, float]) -> None:
        self.worth = worth
        self.prompts: list[str] = []

    def scores(self, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> list[float]:
        self.prompts += prompts
        return [max((v for text, v in self.worth.items() if text in prompt), default=-9.0) for prompt in prompts]


def test_candidates_are_slices_and_gold_by_overlap() -> None:
    found = candidates(question())
    assert [each.gold for each in found] == [False, False, False, False, True]
    for each in found:
        assert question().documents[each.document].document.text[each.start : each.end] == each.text
    assert found[-1].titled == "mars\nTwo moons orbit mars."
    assert [each.text for each in candidates(question(), "passage")] == [MOON, MARS]


def test_the_shortlist_is_gold_then_similar_and_has_no_text_twice() -> None:
    twice = Question("q", "is a planet red?", documents=(*question().documents, document(MOON, title="moon")))
    found = [each.text for each in shortlist(twice, size=9, unit="sentence", embedder=None)]
    assert found[:2] == ["Two moons orbit mars.", "A planet is red."]
    assert len(found) == len(set(found)) == 5
    assert len(shortlist(twice, size=3, unit="sentence", embedder=None)) == 3


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=8), st.floats(-20, 0), st.integers(1, 5), st.floats(0, 3))
def test_the_positive_beats_closed_book_and_every_negative(worth, closed, negatives, margin) -> None:
    choice = by_worth(worth, closed, [None] * len(worth), margin=margin, negatives=negatives)
    if isinstance(choice, str):
        worse = [value for value in worth if max(worth) - value > margin]
        assert choice == ("no negative" if max(worth) - closed > margin else "no positive")
        assert choice == "no positive" or not worse
        return
    (best,) = choice.positives
    assert worth[best] == max(worth) > closed
    assert 0 < len(choice.negatives) <= negatives
    assert all(worth[best] - worth[place] > margin for place in choice.negatives)


def test_gold_sentences_and_such_with_the_answer_are_no_negatives() -> None:
    assert by_worth([-1, -5, -6], -4, [False, True, False], margin=0.5, negatives=5) == Choice((0,), (2,))
    shown = candidates(question(answers=("red",)))
    assert by_gold(question(answers=("red",)), shown, negatives=5) == Choice((4,), (0,))
    assert by_gold(question(answers=("moon", "red")), shown, negatives=5) == "no negative"
    assert by_gold(question(), shown[:4], negatives=5) == "no positive"


def test_scored_labels_follow_the_generator_and_are_counted() -> None:
    judge = ScriptedJudge({"Mars is red.": -1.0, "Two moons": -2.0, "": -4.0})
    asked = [question(), question("who?", ()), question("why?")]
    judge.worth["Question: why?"] = -0.5
    report = Report()
    options = LabelOptions(candidates=4, margin=0.2)
    rows = list(scored_labels(asked, judge, match=None, embedder=None, options=options, report=report))
    assert (report.questions, report.kept, report.no_answer, report.no_positive) == (3, 1, 1, 1)
    assert report.to_dict()["agreement"] == 0.0
    [row] = rows
    assert row["closed_book"] == -4.0
    shown = row["candidates"]
    assert [shown[place]["text"] for place in row["positives"]] == ["Mars is red."]
    assert all(shown[place]["loglik"] == -4.0 and not shown[place]["gold"] for place in row["negatives"])
    assert judge.prompts[0] == "Answer in a few words.\nQuestion: how many moons has mars?\nAnswer:"
    assert "Answer in a few words.\nmars\nTwo moons orbit mars.\nQuestion: how" in judge.prompts[1]


def test_a_decoded_match_outweighs_likelihood() -> None:
    likelihood = ScriptedJudge({"Mars is red.": -1.0, "": -4.0})
    match = ScriptedJudge({"Two moons": 1.0, "": 0.0})
    options = LabelOptions(candidates=4)
    [row] = scored_labels([question()], likelihood, match=match, embedder=None, options=options, report=Report())
    assert [row["candidates"][place]["text"] for place in row["positives"]] == ["Two moons orbit mars."]


def test_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = gold_labels([question()], embedder=None, options=LabelOptions(), report=Report())
    write_rows(tmp_path / "labels.jsonl.gz", rows)
    [labelled] = read_labels(tmp_path / "labels.jsonl.gz")
    assert labelled.positives == ("mars\nTwo moons orbit mars.",)
    assert "moon\nA planet is red." in labelled.negatives
    [row] = training_rows([labelled], 6)
    assert list(row) == ["anchor", "positive", *(f"negative_{n}" for n in range(1, 7))]
    assert row["negative_5"] == row["negative_1"]
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"question": "q", "candidates": [], "positives": [1], "negatives": []}))
    with pytest.raises(InputError, match=r"bad\.jsonl:1: no labels for a sentence selector"):
        list(read_labels(bad))


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.booleans()), min_size=2, max_size=9))
def test_ranks_and_recall_are_those_of_a_sorted_list(pairs) -> None:
    scores, gold = np.array([score for score, _ in pairs]), [flag for _, flag in pairs]
    if not any(gold):
        return
    worst_first = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))
    assert gold_rank(scores, gold) == 1 + next(place for place, pair in enumerate(worst_first) if pair[1])
    in_order = sorted(range(len(pairs)), key=lambda place: -scores[place])
    assert recall(scores, gold)[2] == pytest.approx(sum(gold[place] for place in in_order[:2]) / sum(gold))


def test_tasks_leave_something_to_choose() -> None:
    [task] = ranking_tasks([question(), Question("x", "x", documents=(document(MOON),))])
    assert (task.question, sum(task.gold), len(task.texts)) == (question().text, 1, 5)
    [passages] = retrieval_tasks([question(), Question("x", "x", documents=(document("Red."),))])
    assert passages.gold == (False, True, False)


def test_distractors_are_of_the_same_title_and_without_the_answer() -> None:
    one = Question("1", "which?", ("two",), documents=(document(MARS, "Two moons orbit mars.", title="mars"),))
    rest = [
        Question(str(n), "x", documents=(document(text, title=title),))
        for n, (text, title) in enumerate([("Mars is old.", "mars"), ("Two mars.", "mars"), ("Far.", "sun")])
    ]
    widened = with_distractors([one, *rest], 3, seed=0)[0]
    assert [each.document.text for each in widened.documents] == [MARS, "Mars is old.", "Far."]
    assert [each.relevant for each in widened.documents[1:]] == [(), ()]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with mean pooling as a sentence-transformers folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    backbone, folder = tmp_path_factory.mktemp("backbone"), tmp_path_factory.mktemp("encoder")
    words = bert_tokenizer()
    config = BertConfig(
        vocab_size=words.get_vocab_size(), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    randomised(BertModel(config)).save_pretrained(backbone)
    specials = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **specials).save_pretrained(backbone)
    parts = [Transformer(str(backbone), max_seq_length=64), Pooling(32, "mean"), Normalize()]
    SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """(questions, gold labels of them)."""
    from ctxprune.data.questions import row_from_question

    words = ["red", "moon", "planet", "mars", "cheese"]
    asked = [question(f"{one} {two}?") for one in words for two in words]
    qa, labels = tmp_path / "qa.jsonl", tmp_path / "labels.jsonl"
    qa.write_text("\n".join(json.dumps(row_from_question(each)) for each in asked))
    command = ["--data", str(qa), "--labels", "gold", "--encoder", "none", "--out", str(labels)]
    assert recomp_labels.main(command) == 0
    return qa, labels


def test_training_moves_the_gold_sentence_up_saves_and_goes_on(encoder, files, tmp_path, capsys) -> None:
    qa, labels = files
    out = tmp_path / "model"
    command = ["--base", str(encoder), "--data", str(labels), "--validation", str(qa), "--out", str(out), "--cpu"]
    command += ["--precision", "no", "--lr", "3e-2", "--batch-size", "4", "--evaluate-every", "4", "--max-length", "64"]
    command += ["--freeze-embeddings"]
    assert extractive.main([*command, "--max-steps", "8"]) == 0
    history = json.loads((out / "history.json").read_text())
    assert history["after"]["mrr"] > history["before"]["mrr"]
    evaluations = [row["eval_mrr"] for row in history["log"] if "eval_mrr" in row]
    assert len(evaluations) == 2
    assert history["after"]["mrr"] == pytest.approx(max(evaluations))
    assert extractive.main([*command, "--max-steps", "12"]) == 0
    resumed = json.loads((out / "history.json").read_text())["log"]
    assert [row["step"] for row in resumed if "eval_mrr" in row] == [4, 8, 12]
    tuned, base = SentenceTransformerEncoder(str(out), device="cpu"), SentenceTransformerEncoder(str(encoder))
    assert not np.allclose(tuned.embed(["mars"]), base.embed(["mars"]))
    before, after = (model._model[0].auto_model.embeddings.word_embeddings.weight for model in (base, tuned))
    assert torch.equal(before, after)
    capsys.readouterr()
    rows = tmp_path / "rows.json"
    names = [f"base={encoder}", f"tuned={out}"]
    assert recomp_evaluation.main(["labels", "--data", str(qa), "--model", *names, "--out", str(rows)]) == 0
    found = {(row["task"], row["model"]): row["mrr"] for row in json.loads(rows.read_text())}
    assert found["sentences", "tuned"] > found["sentences", "base"]
    assert {model for _, model in found} == {"bm25", "base", "tuned"}
    assert "| qa | passages | tuned | 25 |" in capsys.readouterr().out


def test_time_ends_a_run(encoder, files, tmp_path) -> None:
    _, labels = files
    command = [
        "--base",
        str(encoder),
        "--data",
        str(labels),
        "--out",
        str(tmp_path / "m"),
        "--cpu",
        "--precision",
        "no",
    ]
    assert extractive.main([*command, "--batch-size", "2", "--epochs", "50", "--max-minutes", "1e-6"]) == 0
    assert json.loads((tmp_path / "m" / "history.json").read_text())["log"][-1]["step"] == 1


def test_an_export_ranks_as_its_model(encoder, tmp_path) -> None:
    words = ["red", "moon", "planet", "mars", "cheese", "two", "orbits", "a", "the", "is"]
    texts = [f"{one} {two}." for one in words for two in words]
    qa = tmp_path / "qa.jsonl"
    qa.write_text("\n".join(json.dumps({"question": text, "documents": [text + " moons"]}) for text in texts))
    figures = {"before": {"mrr": 0.5}}
    export_selector(encoder, tmp_path / "mini", qa=qa, base="tiny", recipe="none", figures=figures, texts=16)
    exported, model = load_model(str(tmp_path / "mini")), SentenceTransformerEncoder(str(encoder), device="cpu")
    assert (exported.name, exported.with_title, exported.similarity) == ("mini", True, "cosine")
    cosines = (exported.embed_sentences(texts) * model.embed(texts)).sum(axis=1)
    assert cosines.min() > 0.98
    assert '"mrr": 0.5' in (tmp_path / "mini" / "README.md").read_text()
    pooling = encoder / "1_Pooling" / "config.json"
    other = tmp_path / "cls"
    shutil.copytree(encoder, other)
    (other / "1_Pooling" / "config.json").write_text(pooling.read_text().replace('"mean"', '"cls"'))
    with pytest.raises(CheckpointError, match="pools by cls; the export needs mean pooling"):
        export_selector(other, tmp_path / "e", qa=qa, base="tiny", recipe="", figures={})


def test_bad_input_is_named(encoder, files, tmp_path, capsys) -> None:
    qa, labels = files
    base = ["--base", str(encoder), "--data", str(labels), "--out", str(tmp_path / "m")]
    assert extractive.main([*base, "--hard-negatives", "0"]) == 1
    assert extractive.main([*base, "--export", str(tmp_path / "e")]) == 1
    errors = capsys.readouterr().err
    assert "--hard-negatives must be at least 1, got 0" in errors
    assert "--export needs --validation" in errors
    assert extractive.main(["--base", str(encoder), "--data", str(qa), "--out", str(tmp_path / "m")]) == 1
    assert "make them with python -m ctxprune.trainers.recomp.labels" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        recomp_labels.main(["--data", str(qa), "--out", str(tmp_path / "l.jsonl")])
    assert "--labels scored needs --local" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="cannot load the sentence-transformers model"):
        extractive.load_encoder(str(tmp_path), extractive.parser().parse_args([*base, "--cpu"]))
