"""Families of training pairs: what shares a batch, and the losses that compare."""

import json
import math
from pathlib import Path

import pytest
import torch

from ctxprune.trainers.provence.items import PairFamily, read_families, repeats
from ctxprune.trainers.provence.losses import highest_by_item, listwise, sentence_table, twin_margin
from ctxprune.trainers.provence.pairs import Variation
from ctxprune.trainers.shared.corpora import Source
from ctxprune.trainers.shared.loop import IGNORE

LEFT = "The mill stands by the river. It was built of brick in 1822. Storks nest on its roof every spring."
RIGHT = "The tower stands on the hill. It was built of slate in 1790. A bell rings there at noon each day."
CALM = Variation(
    hard_negatives=0, random_negatives=0, broken=0, chunk=0, sentences=0, no_title=0, plain_question=0, keywords=0
)


def row(name: str, question: str, text: str, answer: str = "", **more: object) -> dict[str, object]:
    start = text.index(answer) if answer else 0
    begin, end = text.rfind(". ", 0, start) + 2, text.find(".", start) + 1
    document = {
        "id": f"{name}-passage",
        "text": text,
        "is_gold": bool(answer),
        "answer_spans": [[start, start + len(answer)]] if answer else [],
        "relevant_sentences": [[begin, end]] if answer else [],
    }
    answers = [answer] if answer else []
    return {
        "id": name,
        "question": question,
        "answers": answers,
        "answerable": bool(answer),
        "documents": [document],
    } | more


def families(tmp_path: Path, rows: list[dict[str, object]], **options: object) -> list[PairFamily]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    settings = {"seed": 1, "variation": CALM, "hold_out": 0.0} | options
    return read_families([Source(str(path))], **settings)


def test_a_twin_without_a_row_is_made_from_the_pair_it_names(tmp_path) -> None:
    pair = {"id": "a", "question": "When was the brick mill built?", "answers": ["1822"]}
    [family] = families(tmp_path, [row("u", "When was the slate mill built?", LEFT, pair=pair)])
    answerable, unanswerable = family.pairs
    assert family.questions == (0, 1)
    assert family.twins == ((0, 1),)
    assert (answerable.question, unanswerable.question) == (pair["question"], "When was the slate mill built?")
    assert answerable.text == unanswerable.text
    [(start, end)] = answerable.keep
    assert answerable.text[start:end] == "It was built of brick in 1822."
    assert (unanswerable.keep, unanswerable.answers, unanswerable.relevant) == ((), (), False)


def test_twins_with_rows_of_their_own_become_one_family_on_the_very_same_cut(tmp_path) -> None:
    rows = [
        row("u", "When was the slate mill built?", LEFT, pair={"id": "elsewhere", "question": "?", "answers": []}),
        row("t", "When was the mill built?", LEFT, "1822", pair={"id": "u", "question": "?", "answers": []}),
    ]
    cut = Variation(hard_negatives=0, random_negatives=0, broken=0, chunk=1.0, chunk_words=8, sentences=0, no_title=0)
    [family] = families(tmp_path, rows, variation=cut)
    assert family.pairs[0].text == family.pairs[1].text
    assert len(family.pairs[0].text.split()) == 8
    assert "1822" in family.pairs[0].text


def test_a_twin_whose_answer_is_not_in_the_passage_is_left_out(tmp_path) -> None:
    pair = {"id": "a", "question": "Who?", "answers": ["Napoleon"]}
    assert families(tmp_path, [row("u", "Who else?", LEFT, pair=pair)]) == []


def test_questions_on_one_passage_are_limited_and_repeats_are_counted(tmp_path) -> None:
    rows = [row(str(place), f"Question {place}?", LEFT, "1822") for place in range(6)]
    rows += [row("other", "When was the tower built?", RIGHT, "1790")]
    assert len(families(tmp_path, rows, per_passage=2)) == 3
    everything = families(tmp_path, rows)
    assert len(everything) == 7
    assert repeats(everything) == pytest.approx(5 / 7)


def test_families_are_the_same_for_the_same_seed(tmp_path) -> None:
    rows = [row(str(place), f"When was mill {place} built?", LEFT, "1822") for place in range(5)]
    made = [families(tmp_path, rows, variation=Variation(), seed=4) for _ in "ab"]
    assert made[0] == made[1]


def test_sentences_take_the_mean_of_their_tokens_and_the_label_of_most() -> None:
    logits = torch.zeros(1, 6, 2)
    logits[0, 1, 1], logits[0, 2, 1] = 2.0, -2.0  # sigmoids .881 and .119: their mean is one half
    sentence = torch.tensor([[IGNORE, 0, 0, 1, 1, 1]])
    keep = torch.tensor([[IGNORE, 1, 0, 1, 1, 0]])
    table = sentence_table(logits, keep, sentence, first_item=4)
    assert table.logits.tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    assert table.labels.tolist() == [0.0, 1.0]
    assert table.item.tolist() == [4, 4]
    assert highest_by_item(table, 6).tolist() == pytest.approx([-10, -10, -10, -10, 0, -10], abs=1e-5)


def test_listwise_is_the_softmax_loss_of_each_relevant_entry_among_the_others() -> None:
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0, 5.0], requires_grad=True)
    labels = torch.tensor([1.0, 0.0, 1.0, math.nan, 1.0])
    group = torch.tensor([0, 0, 0, 0, 1])  # the second group has no irrelevant entry
    value = listwise(logits, labels, group)
    expected = (math.log1p(math.exp(-1.0)) + math.log1p(math.exp(-2.0))) / 2
    assert float(value.detach()) == pytest.approx(expected, abs=1e-6)
    value.backward()
    assert logits.grad is not None
    assert logits.grad[3] == logits.grad[4] == 0


def test_the_margin_between_twins_is_measured_where_the_answer_is() -> None:
    highest = torch.tensor([1.0, 9.0, 0.5])
    relevant = torch.tensor([True, False, False])
    question = torch.tensor([0, 0, 1])
    assert float(twin_margin(highest, relevant, question, [(0, 1)], 3.0)) == pytest.approx(2.5)
    assert float(twin_margin(highest, relevant, question, [], 3.0)) == 0.0


def test_random_draws_differ_between_families(tmp_path) -> None:
    rows = [row(str(place), "When was the mill by the river built?", LEFT, "1822") for place in range(30)]
    texts = {pair.question for family in families(tmp_path, rows, variation=Variation()) for pair in family.pairs}
    assert len(texts) > 1
