"""The context head: columns by hand, a plain loop, permutations, what a fit learns, thresholds by size."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from test_fusion import evidence, random_fusion

from ctxprune.compressors.provence.context_head import COLUMNS, ContextHead, context_table, read_scorer
from ctxprune.compressors.provence.fusion import Fusion, SentenceEvidence, sentence_features
from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.trainers.provence.contexts import FORMS, Example, Library, contexts, joined
from ctxprune.trainers.provence.fusion import cross_fitted, fit, report
from ctxprune.trainers.provence.pairs import Pair
from ctxprune.trainers.provence.points import operating_points
from ctxprune.types import Document


def column(table: np.ndarray, name: str) -> list[float]:
    return table[:, COLUMNS.index(name)].tolist()


def random_head(networks: int = 2, width: int = 3) -> ContextHead:
    rng = np.random.default_rng(0)
    wide = len(COLUMNS)
    return ContextHead(
        rng.normal(size=wide), rng.uniform(1, 2, size=wide), rng.normal(size=(networks, wide)),
        rng.normal(size=(networks, width, wide)), rng.normal(size=(networks, width)),
        rng.normal(size=(networks, width)), rng.normal(size=networks), rng.normal(size=4),
    )  # fmt: skip


def test_columns_of_a_small_context() -> None:
    table = context_table(evidence())
    assert table.shape == (3, len(COLUMNS))
    assert column(table, "cover") == [0.5, 0.5, 0.0]  # "bridge", "granite", neither
    assert column(table, "window_cover") == [1.0, 1.0, 0.0]
    assert column(table, "title_cover") == [0.5, 0.5, 0.0]
    assert column(table, "opening") == [1.0, 0.0, 1.0]
    assert column(table, "leaning") == [0.0, 1.0, 0.0]
    assert column(table, "keep_before") == [-6.0, 1.0, -6.0]
    assert column(table, "keep_after") == [2.0, -6.0, -6.0]
    assert column(table, "keep_gap") == [-1.0, 0.0, -5.0]
    assert column(table, "rank_gap") == [0.0, 0.0, -5.0]
    assert column(table, "sentences") == pytest.approx([np.log(3)] * 3)
    assert max(column(table, "order_gap")) == 0.0
    assert sorted(column(table, "place")) == pytest.approx(sorted(np.log1p([0, 1, 2])))


def test_a_long_document_is_judged_by_its_windows() -> None:
    long = evidence(
        titles=("Harrow Bridge",), document=np.zeros(3, int), rank=np.array([3.0]), window_rank=np.array([-1.0, 3.0])
    )
    table = context_table(replace(long, window=np.array([0, 1, 1])))
    assert column(table, "rank") == [-1.0, 3.0, 3.0]
    assert column(table, "window_cover") == [0.5, 0.5, 0.5]
    assert column(table, "documents") == [0.0] * 3
    assert column(table, "windows") == pytest.approx([np.log(2)] * 3)


def two_steps(titles: tuple[str, ...] = ("Alder Press", "Ilse Karow", "Karow family")) -> SentenceEvidence:
    """Who printed the book is in the first document, where that printer was born in the second."""
    texts = ("Winter Tides was printed by Ilse Karow.", "Ilse was born in Emden.", "The family traded in salt.")
    return evidence(
        query="Where was the printer of Winter Tides born?",
        texts=texts,
        titles=titles,
        document=np.arange(3),
        keep=np.array([4.0, -3.0, -4.0]),
        answer=np.array([2.0, -4.0, -4.0]),
        rank=np.array([2.0, -1.0, -2.0]),
        peak=np.array([5.0, -2.0, -3.0]),
        tokens=np.full(3, 8.0),
        window=np.arange(3),
        window_rank=np.array([2.0, -1.0, -2.0]),
    )


def test_a_document_whose_title_the_best_sentence_names_is_the_next_step() -> None:
    table = context_table(two_steps())
    assert column(table, "link_gap") == [-8.0, 0.0, -8.0]  # the best sentence names the second document only
    assert column(table, "link") == pytest.approx([np.exp(-8), 1.0, np.exp(-8)])
    assert column(table, "link_on") == column(table, "link")  # the question names none of the titles
    # of the words printer, Winter, Tides, born the best sentence has all but "born" (and perhaps "printer")
    left = column(table, "left_cover")
    assert left[0] == left[2] == 0.0
    assert left[1] > 0.4
    assert column(table, "left_best_cover")[1] == left[1]


def test_a_title_that_the_question_names_is_no_next_step() -> None:
    known = two_steps()
    asked = replace(known, query="Where was Ilse Karow, the printer of Winter Tides, born?")
    table = context_table(asked)
    assert column(table, "title_asked") == [0.0, 1.0, 0.0]
    assert column(table, "link")[1] == 1.0
    assert column(table, "link_on")[1] == 0.0


@pytest.mark.parametrize("titles", [("", "", ""), ("Ink", "Sea", "Ilk"), ("A", "B", "Winter Tides")])
def test_documents_without_a_telling_title_are_not_linked(titles: tuple[str, ...]) -> None:
    table = context_table(two_steps(titles))
    expected = [0.0, 0.0, 1.0] if "Winter Tides" in titles else [0.0] * 3
    assert column(table, "title_asked") == expected
    assert column(table, "link_on") == pytest.approx([np.exp(-8), np.exp(-8), np.exp(-8) * (1 - expected[2])], abs=1e-3)


@pytest.mark.parametrize(
    "titles", [("Die Kirche und der Turm", "Das Haus", ""), ("La maison de la mer et des îles", "", "")]
)
def test_titles_in_another_language_than_the_sentences_are_read_alike(titles: tuple[str, ...]) -> None:
    bare = replace(
        two_steps(titles), texts=("Rows 1-3 | 12.5", "x = 4", "17:30"), query="Does Winters Haus der Turm run?"
    )
    assert context_table(bare).shape == (3, len(COLUMNS))


def test_links_do_not_depend_on_the_order_of_documents() -> None:
    table = context_table(two_steps())
    backwards = [2, 1, 0]
    known = two_steps()
    fields = ("keep", "answer", "peak", "tokens", "rank", "window_rank")
    turned = replace(
        known,
        texts=known.texts[::-1],
        titles=known.titles[::-1],
        **{name: getattr(known, name)[::-1] for name in fields},
    )
    assert context_table(turned)[backwards] == pytest.approx(table)


def test_a_head_of_fewer_columns_scores_as_it_did() -> None:
    head = random_head()
    older = [place for place, name in enumerate(COLUMNS) if name not in ("link_gap", "link", "link_on", "left_cover")]
    saved = head.to_dict()
    fewer = saved | {
        "columns": [COLUMNS[place] for place in older],
        **{name: np.array(saved[name])[..., older].tolist() for name in ("mean", "scale", "skip", "hidden")},
    }
    table = context_table(two_steps())
    inputs = np.clip((table[:, older] - np.array(fewer["mean"])) / np.array(fewer["scale"]), -4, 4)
    expected = sum(
        inputs @ np.array(skip) + np.tanh(inputs @ np.array(hidden).T + np.array(shift)) @ np.array(out) + bias
        for skip, hidden, shift, out, bias in zip(
            *(fewer[name] for name in ("skip", "hidden", "hidden_bias", "out", "bias")), strict=True
        )
    )
    assert read_scorer(fewer).score(two_steps())[0] == pytest.approx(expected / 2)


def test_scores_are_what_a_plain_loop_computes() -> None:
    head, known = random_head(), evidence()
    expected = []
    for row in context_table(known):
        x = [min(4.0, max(-4.0, (v - m) / s)) for v, m, s in zip(row, head.mean, head.scale, strict=True)]
        total = 0.0
        for net in range(2):
            inner = [
                np.tanh(sum(w * v for w, v in zip(weights, x, strict=True)) + shift)
                for weights, shift in zip(head.hidden[net], head.hidden_bias[net], strict=True)
            ]
            total += sum(w * v for w, v in zip(head.skip[net], x, strict=True)) + head.bias[net]
            total += sum(w * v for w, v in zip(head.out[net], inner, strict=True))
        expected.append(total / 2)
    assert head.score(known)[0] == pytest.approx(expected)


def permuted(known: SentenceEvidence) -> tuple[SentenceEvidence, list[int]]:
    """The second document first; and the new place of each sentence."""
    order = [2, 0, 1]
    fields = {name: getattr(known, name)[order] for name in ("keep", "answer", "peak", "tokens")}
    again = replace(
        known,
        texts=tuple(known.texts[place] for place in order),
        titles=known.titles[::-1],
        rank=known.rank[::-1],
        window_rank=known.window_rank[::-1],
        document=np.array([0, 1, 1]),
        window=np.array([0, 1, 1]),
        **fields,
    )
    return again, order


def test_the_order_of_documents_changes_no_score() -> None:
    head, known = random_head(), evidence()
    again, order = permuted(known)
    logits, ranks = head.score(known)
    new_logits, new_ranks = head.score(again)
    assert new_logits == pytest.approx(logits[order])
    assert new_ranks == pytest.approx(ranks[::-1])


def test_saved_and_read_back_it_scores_the_same_and_old_exports_still_load() -> None:
    again = read_scorer(json.loads(json.dumps(random_head().to_dict())))
    assert isinstance(again, ContextHead)
    np.testing.assert_allclose(again.score(evidence())[0], random_head().score(evidence())[0], atol=1e-3)
    assert isinstance(read_scorer(random_fusion().to_dict()), Fusion)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": ["keep", "moon"]}, "export again"),
        ({"columns": ["keep", "keep"]}, "export again"),
        ({"columns": ["keep"]}, "names 1 columns"),
        ({"document": [1.0]}, "document of the context head"),
        ({"bias": [float("nan")] * 2}, "finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_scorer(random_head().to_dict() | change)


def synthetic(rng: np.random.Generator, documents: int = 4) -> Example:
    """A context in which the relevant sentence shows in `keep` and its document in `rank`, with noise."""
    n = 3 * documents
    document = np.repeat(np.arange(documents), 3)
    labels = np.zeros(n)
    right = rng.integers(n)
    labels[right] = 1
    gold = (np.arange(documents) == document[right]).astype(float)
    keep, rank = rng.normal(size=n) + 4 * labels, rng.normal(size=documents) + 4 * gold
    made = evidence(
        texts=tuple(f"Sentence {rng.integers(50)} number {i}." for i in range(n)),
        titles=("",) * documents,
        document=document,
        keep=keep,
        answer=rng.normal(size=n),
        rank=rank,
        peak=keep + 1,
        tokens=np.full(n, 6.0),
        window=document,
        window_rank=rank,
    )
    features = sentence_features(made)
    table = context_table(made, features)
    return Example(features, table, labels, np.ones(n, bool), labels, made, gold, "made", "many")


def test_a_fit_finds_the_evidence_and_is_calibrated_at_every_size() -> None:
    rng = np.random.default_rng(1)
    train = [synthetic(rng, documents) for documents in (1, 4, 12) for _ in range(80)]
    head = fit(train)
    for documents in (1, 4, 12):
        test = [synthetic(rng, documents) for _ in range(80)]
        figures = report(test, head)["made"]
        assert figures["top1"] > 0.8
        assert figures["gold_first"] > 0.8 or documents == 1
        probabilities = 1 / (1 + np.exp(-np.concatenate([head.score(one.evidence)[0] for one in test])))
        assert probabilities.mean() == pytest.approx(1 / (3 * documents), abs=0.06)


def test_operating_points_keep_the_named_shares_and_more_of_small_contexts() -> None:
    rng = np.random.default_rng(2)
    examples = [synthetic(rng, documents) for documents in (1, 12) for _ in range(150)]
    logits = cross_fitted(examples, folds=2)
    points = operating_points(examples, logits)
    assert list(points) == ["safe", "balanced", "aggressive", "beside"]
    assert [size for size, _ in points["beside"]] == [3, 12]
    for name, kept in (("safe", 0.99), ("balanced", 0.97), ("aggressive", 0.93)):
        for place, sentences, share in ((0, 3, 1 - (1 - kept) / 2), (-1, 36, kept)):
            passing = [
                float(1 / (1 + np.exp(-one_logits[one.answers > 0].max()))) >= points[name][place][1] - 1e-4
                for one, one_logits in zip(examples, logits, strict=True)
                if len(one.labels) == sentences
            ]
            assert np.mean(passing) == pytest.approx(share, abs=0.011)
    assert points["safe"][-1][0] is None
    assert points["safe"][-1][1] < points["aggressive"][-1][1]


def test_operating_points_hold_for_the_sources_that_are_named() -> None:
    rng = np.random.default_rng(3)
    easy = [synthetic(rng, 1) for _ in range(60)]
    hard = [replace(synthetic(rng, 1), source="hard") for _ in range(60)]
    logits = [np.full(3, 3.0)] * 60 + [np.full(3, -3.0)] * 60
    assert operating_points([*easy, *hard], logits, ["made"])["balanced"][0][1] == pytest.approx(0.9526, abs=1e-3)
    assert operating_points([*easy, *hard], logits, ["hard"])["balanced"][0][1] == pytest.approx(0.0474, abs=1e-3)


def library_questions() -> list[Question]:
    """Twelve passages of one article, a question on each."""
    questions = []
    for place in range(12):
        year = 1900 + place
        text = f"Pier number {place} is long. It was opened in {year}. Boats call at it in summer. The rest is sand."
        start = text.index(str(year))
        gold = LabelledDocument(
            Document(text, title="Piers of Lenn"), True, ((start, start + 4),), ((start - 18, start + 5),)
        )
        questions.append(Question(str(place), f"When was pier number {place} opened?", (str(year),), True, (gold,)))
    return questions


def test_contexts_come_in_every_form_and_keep_their_labels() -> None:
    questions = library_questions()
    library = Library.of(questions)
    assert list(library.articles) == ["Piers of Lenn"]
    made = [(form, pairs) for seed in range(30) for form, pairs in contexts(questions, library, random.Random(seed))]
    assert {form for form, _ in made} == FORMS.keys() - {"joined"}
    for form, pairs in made:
        kept = [pair.text[low:high] for pair in pairs for low, high in pair.keep or ()]
        assert all("opened in" in text for text in kept)
        if form == "sentence":
            assert len(pairs) == 1
            assert pairs[0].text.startswith("It was opened in") or not pairs[0].relevant
        if form == "article":
            [pair] = pairs
            assert pair.text.count("Pier number") == 12
            assert len(kept) == 1
        if form == "many":
            answer = questions[int(pairs[0].question.split("number ")[1].split()[0])].answers[0]
            assert all(answer not in pair.text for pair in pairs if not pair.relevant)


def test_joined_passages_move_their_labels_along() -> None:
    pairs = [
        Pair("q", "One two.", False, (), (), "T"),
        Pair("q", "Three four.", True, ((0, 11),), ((6, 10),), "T"),
    ]
    whole = joined(pairs)
    assert whole.text == "One two.\n\nThree four."
    assert [whole.text[low:high] for low, high in whole.keep] == ["Three four."]
    assert [whole.text[low:high] for low, high in whole.answers] == ["four"]
    assert joined([replace(pairs[0], keep=None), pairs[1]]).keep is None
