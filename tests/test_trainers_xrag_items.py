"""What the xRAG trainer reads and how it scores: passages, prompts, the losses and the controls."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_llama import WORDS, save_llama
from hypothesis import given
from hypothesis import strategies as st

from ctxprune.compressors.xrag.bridge import Projector
from ctxprune.errors import InputError
from ctxprune.models.causal import PromptEncoder, load_causal_lm
from ctxprune.prompt import render_prompt
from ctxprune.tokens import default_counter
from ctxprune.trainers.shared.corpora import Source
from ctxprune.trainers.xrag.data import (
    MIN_TOKENS,
    PARAPHRASES,
    Exercise,
    SoftItem,
    Trained,
    answer_items,
    batch_losses,
    paraphrase_items,
    pieces,
    prompt,
    read_exercises,
    read_passages,
)
from ctxprune.trainers.xrag.train import bags, evaluate, identified, nearest, warm_start
from ctxprune.types import Context
from ctxprune.vectors import Pieces

CHAT = "{% for message in messages %}user {{ message['content'] }} {% endfor %}"
ASK = "the {context} and {question}"
WIDTH = 5


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = save_llama(tmp_path_factory.mktemp("llama"), chat_template=CHAT)
    tokenizer, model = load_causal_lm(str(folder), device="cpu", dtype="float32", gguf_file=None)
    return tokenizer, model.requires_grad_(False)


@pytest.fixture
def trained() -> Trained:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        projector = Projector(WIDTH, 32, output_scale=3.0)
        return Trained(projector, torch.randn(32))


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


def words(ids: tuple[int, ...]) -> str:
    return " ".join(WORDS[token] for token in ids)


SENTENCE = st.lists(st.sampled_from(["river", "1,000", "Vote", "naïve"]), min_size=1, max_size=30).map(" ".join)


@given(st.lists(SENTENCE, max_size=8), st.integers(MIN_TOKENS, 40))
def test_pieces_are_whole_sentences_in_order_that_fit(sentences: list[str], limit: int) -> None:
    text = ". ".join([*sentences, ""])
    found = list(pieces(text, limit))
    assert all(0 < count <= limit for count in default_counter().count(found))
    place = 0
    for piece in found:
        place = text.index(piece, place) + len(piece)
    if default_counter().count([text])[0] >= MIN_TOKENS and len(found) == 1:
        assert found[0] in text


def write(path: Path, rows: list[dict[str, Any]]) -> Source:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(str(path))


def test_a_passage_that_many_questions_share_is_read_once(tmp_path: Path) -> None:
    text = "The river was wide and the bridge across it was older than the town around it."
    rows = [{"question": f"what {n}?", "answers": ["x"], "documents": [text]} for n in range(3)]
    one, two = (
        write(tmp_path / "one.jsonl", rows),
        write(tmp_path / "two.jsonl", [*rows, {"text": "Another one. " * 5}]),
    )
    assert len(read_passages([one, two], max_tokens=180, seed=0)) == 2
    with pytest.raises(InputError, match="no passages"):
        read_passages([write(tmp_path / "none.jsonl", [{"text": "Short."}])], max_tokens=180, seed=0)


def test_exercises_have_an_answer_and_a_gold_document(tmp_path: Path) -> None:
    gold = [{"text": "no"}, {"text": "the sun", "is_gold": True}]
    rows = [
        {"question": "a?", "answers": [" ", "sun", "moon"], "documents": gold},
        {"question": "b?", "answers": [], "documents": gold},
        {"question": "c?", "answers": ["sun"], "documents": gold[:1]},
        {"question": "d?", "answers": ["sun"], "answerable": False, "documents": gold},
    ]
    source = write(tmp_path / "rows.jsonl", rows)
    assert read_exercises([Source(source.path, repeat=2)], seed=0) == [Exercise("a?", "the sun", "sun")] * 2
    with pytest.raises(InputError, match="no question with an answer"):
        read_exercises([write(tmp_path / "rows.jsonl", rows[1:])], seed=0)


def test_a_paraphrase_is_cut_to_what_is_asked_for(loaded: tuple[Any, Any]) -> None:
    texts = ["the cat sat on a mat", "sun moon"]
    found = [vectors(1), vectors(2)]
    items = paraphrase_items(texts, [Pieces(each) for each in found], loaded[0], max_length=4, rng=random.Random(0))
    assert [words(item.target) for item in items] == ["the cat sat on", "sun moon"]
    assert items[1].vectors is found[1] and items[0].bare == items[0].before + items[0].after
    assert all(before.isprintable() or after for before, after in PARAPHRASES) and len({*PARAPHRASES}) >= 5


def test_an_answer_item_is_encoded_as_a_generator_does_it(loaded: tuple[Any, Any]) -> None:
    tokenizer, _ = loaded
    exercise = Exercise("the moon", "rock sea", "star")
    [item] = answer_items([exercise], [Pieces(vectors(2))], tokenizer, template=ASK, max_length=64, name="tiny")
    assert words(item.before) == "user the" and words(item.after) == "and the moon"
    assert words(item.target) == "star </s>" and words(item.bare) == "user the moon"
    prompt = render_prompt(Context.of("the moon", ["rock sea"]), template=ASK)
    assert [*item.told] == PromptEncoder(tokenizer, name="tiny").ids(prompt)
    assert words(item.told) == "user the rock sea and the moon"
    assert len(item.ids) == sum(map(len, (item.before, item.after, item.target, item.told)))
    assert answer_items([exercise], [Pieces(vectors(1))], tokenizer, template=ASK, max_length=6, name="tiny") == []


def item(seed: int, target: str, told: str = "") -> SoftItem:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(WORDS.index(word) for word in text.split())

    return SoftItem(ids("the"), ids("and a"), vectors(1, seed), ids(target), ids("the and a"), ids(told))


def slow_distributions(model: Any, before: list[Any], target: tuple[int, ...]) -> torch.Tensor:
    """(target tokens, vocabulary) log-probabilities, the prompt's embeddings given, one row without padding."""
    table = model.get_input_embeddings()
    embeds = torch.cat([*before, table(torch.tensor(target))])
    logits = model(inputs_embeds=embeds[None]).logits[0]
    first = len(embeds) - len(target) - 1
    return logits[first : first + len(target)].log_softmax(-1)


def test_losses_are_those_of_single_rows_and_the_tenth_has_the_constant_token(
    loaded: tuple[Any, Any], trained: Trained
) -> None:
    _, model = loaded
    table = model.get_input_embeddings()
    targets = ["sun", "moon star sea", "rock cell", "vote", "mat </s>"]
    batch = [item(n, targets[n % 5], "the rock sea and the moon" if n % 4 else "") for n in range(11)]
    losses = batch_losses(model, trained, batch, alpha=2.0)
    nll: dict[bool, list[float]] = {True: [], False: []}
    kl: list[float] = []
    with torch.no_grad():
        for place, each in enumerate(batch):
            token = trained.projector(torch.from_numpy(each.vectors)) if place != 9 else trained.constant[None] * 3.0
            around = [table(torch.tensor(each.before)), token, table(torch.tensor(each.after))]
            student = slow_distributions(model, around, each.target)
            nll[place == 9] += (-student[range(len(each.target)), list(each.target)]).tolist()
            if each.told:
                teacher = slow_distributions(model, [table(torch.tensor(each.told))], each.target)
                kl += (teacher.exp() * (teacher - student)).sum(-1).tolist()
    assert losses.nll == pytest.approx(np.mean(nll[False]), abs=1e-4)
    assert losses.constant == pytest.approx(np.mean(nll[True]), abs=1e-4)
    assert losses.kl == pytest.approx(np.mean(kl), abs=1e-4)
    total = np.mean(nll[False] + nll[True]) + 2.0 * np.mean(kl)
    assert losses.total.item() == pytest.approx(total, abs=1e-4)
    losses.total.backward()
    assert trained.constant.grad is not None and trained.constant.grad.any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_small_batch_leaves_the_constant_token_alone(loaded: tuple[Any, Any], trained: Trained) -> None:
    losses = batch_losses(loaded[1], trained, [item(1, "sun"), item(2, "moon")], alpha=2.0)
    losses.total.backward()
    assert np.isnan(losses.constant) and losses.kl == 0.0
    assert trained.constant.grad is not None and not trained.constant.grad.any()
    assert trained.projector.projector[0].weight.grad.any()


def test_scales_are_in_the_checkpoint(trained: Trained) -> None:
    other = Trained(Projector(WIDTH, 32), torch.zeros(32))
    other.load_state_dict(trained.state_dict())
    assert other.projector.output_scale == 3.0
    assert torch.equal(other.constant_token(), trained.constant_token())


def test_controls_are_what_their_names_say(loaded: tuple[Any, Any], trained: Trained) -> None:
    items = [item(n, "sun moon", "the rock") for n in range(3)]
    measured = evaluate(loaded[1], trained, items, identify=0)
    assert {"true", "shuffled", "constant", "none", "text"} <= measured.keys() and "identified" not in measured
    # equal targets: what is shuffled among the items stays the same in sum
    assert measured["true"] == pytest.approx(measured["shuffled"], abs=1e-5)
    same = [SoftItem(each.before, each.after, items[0].vectors, each.target, each.bare) for each in items]
    assert evaluate(loaded[1], trained, same, identify=0)["shuffled_minus_true"] == pytest.approx(0, abs=1e-6)


def test_the_nearest_item_is_of_another_document(loaded: tuple[Any, Any], trained: Trained) -> None:
    towards = np.eye(WIDTH, dtype=np.float32)
    rows = [towards[:1], towards[:1] + 0.1 * towards[1:2], 5 * towards[1:2], towards[1:3] * 2, -towards[:1]]
    items = [replace(item(n, "sun moon"), vectors=row) for n, row in enumerate(rows)]
    assert nearest(items)[:4] == [1, 0, 3, 2]
    # two questions on one document are no test of each other
    twins = [replace(each, vectors=items[0].vectors) for each in items[:2]]
    assert nearest([*twins, items[1]]) == [2, 2, 0] and nearest(twins) == [0, 1]
    assert evaluate(loaded[1], trained, twins, identify=0)["nearest_minus_true"] == pytest.approx(0, abs=1e-6)


def test_a_document_is_identified_by_the_token_that_makes_it_likely(loaded: tuple[Any, Any], trained: Trained) -> None:
    _, model = loaded
    table = model.get_input_embeddings()
    items = [item(n, WORDS[4 + 2 * n]) for n in range(6)]
    own = [3.0 * trained.projector(torch.from_numpy(each.vectors)).detach() for each in items]
    right = 0
    for place, each in enumerate(items):
        ends = table(torch.tensor(each.before)), table(torch.tensor(each.after))
        likely = [
            float(slow_distributions(model, [ends[0], token, ends[1]], each.target)[0, each.target[0]]) for token in own
        ]
        right += int(np.argmax(likely)) == place
    assert 0 < right < 6
    assert identified(model, items, own, 6) == pytest.approx(right / 6)
    # where all documents are the same, one token suits all of them best
    alike = [item(n, "sun") for n in range(6)]
    assert identified(model, alike, own, 6) == pytest.approx(1 / 6)


def test_bags_weigh_rare_tokens_and_are_as_long_as_embeddings(loaded: tuple[Any, Any]) -> None:
    table = loaded[1].get_input_embeddings().weight
    texts = [[5, 6, 6], [5, 7], [5]]
    found = bags(texts, table)
    slow = []
    for text in texts:
        weight = {token: np.log(4 / (sum(token in other for other in texts) + 1)) ** 2 + 1e-6 for token in text}
        mean = sum(weight[token] * table[token].numpy() for token in text)
        slow.append(mean / np.linalg.norm(mean) * np.median(np.linalg.norm(table.numpy(), axis=1)))
    # the median of an even number of rows is the lower one in torch
    assert found.numpy() == pytest.approx(np.array(slow) * float(found[0].norm()) / np.linalg.norm(slow[0]), abs=1e-4)
    assert float(found[0].norm()) == pytest.approx(float(table.norm(dim=1).median()), rel=1e-4)


def test_a_warm_start_brings_soft_tokens_near_their_bags(loaded: tuple[Any, Any], trained: Trained) -> None:
    table = loaded[1].get_input_embeddings().weight
    rng = random.Random(0)
    made = [item(n, " ".join(rng.sample(WORDS[4:], 4))) for n in range(20)]
    items = [replace(each, pieces=(each.target,)) for each in made]
    wanted = bags([each.target for each in items], table)

    def likeness() -> float:
        with torch.no_grad():
            found = trained.projector(torch.from_numpy(np.concatenate([each.vectors for each in items])))
        return torch.nn.functional.cosine_similarity(found, wanted).mean().item()

    before = likeness()
    with torch.random.fork_rng(devices=[]):
        warm_start(trained.projector, items, table, epochs=200)
    assert before < 0.3 and likeness() > 0.7


def test_the_evidence_stands_as_text_between_the_vectors_of_the_rest(loaded: tuple[Any, Any]) -> None:
    tokenizer, _ = loaded
    document = "rock sea the cat sat star"
    cut = Pieces(vectors(3), ((0, 8), (9, 20), (21, 25)))
    for evidence, before, middle, after, rows in (
        ((13, 16), "user the", "the cat sat", "and the moon", [0, 2]),
        ((0, 4), "user the rock sea", "", "and the moon", [1, 2]),
        ((9, 25), "user the", "", "the cat sat star and the moon", [0]),
        (None, "user the", "", "and the moon", [0, 1, 2]),
        ((0, 25), "user the", "", "and the moon", [0, 1, 2]),
    ):
        exercise = Exercise("the moon", document, "star", evidence)
        [item] = answer_items([exercise], [cut], tokenizer, template=ASK, max_length=64, name="tiny", expanded=1.0)
        assert (words(item.before), words(item.middle), words(item.after)) == (before, middle, after)
        assert np.array_equal(item.vectors, cut.vectors[rows])
    [plain] = answer_items([exercise], [cut], tokenizer, template=ASK, max_length=64, name="tiny")
    assert plain.middle == () and len(plain.vectors) == 3


def test_a_prompt_with_text_between_holds_the_tokens_on_both_sides() -> None:
    item = SoftItem((1,), (2,), vectors(3), (3,), (4,), middle=(5, 6), split=2)
    tokens = torch.arange(6).reshape(3, 2)
    before, first, middle, second, after = prompt(item, tokens)
    assert (before, middle, after) == ((1,), (5, 6), (2,))
    assert torch.equal(torch.cat([first, second]), tokens) and len(first) == 2
    assert [len(part) for part in prompt(item, tokens[:1])] == [1, 1, 2, 0, 1]  # the constant token alone


def test_the_evidence_is_the_sentence_that_holds_the_answer(tmp_path: Path) -> None:
    gold = {"text": "Rain fell. The sun rose. Night came.", "is_gold": True}
    rows = [
        {"answer_spans": [[15, 18]], "relevant_sentences": [[0, 10], [11, 24]]},
        {"answer_spans": [], "relevant_sentences": [[0, 10], [11, 24]]},
        {"answer_spans": [[15, 18]], "relevant_sentences": None},
    ]
    for number, row in enumerate(rows):
        made = {"question": f"{number}?", "answers": ["sun"], "documents": [gold | row]}
        [exercise] = read_exercises([write(tmp_path / f"{number}.jsonl", [made])], seed=0)
        assert exercise.evidence == [(11, 24), (0, 10), None][number]
