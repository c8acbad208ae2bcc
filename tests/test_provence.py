"""The Provence compressor: with the bundled model on real sentences, and with tiny checkpoints against a slow loop."""

import itertools
import json
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fixtures_checkpoints import open_bert, provence, xprovence
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune import Context, Document, Pipeline, load
from ctxprune.compressors.provence.compressor import Provence, load_model
from ctxprune.compressors.provence.pruner import Passage, PrunerModel, title_sentence
from ctxprune.errors import CheckpointError, InputError, UnknownNameError
from ctxprune.text import split_sentences

BRIDGE = (
    "The Harrow Bridge crosses the Lenn at Ostwick. It was opened in 1911 by Clara Voss. "
    "The towers are of red granite. Swallows nest under the deck in summer."
)
FERRY = "The ferry to Calovert runs every hour. Bicycles travel free of charge. Dogs must be kept on a lead."
QUESTION = "When was the Harrow Bridge opened?"


@pytest.fixture(scope="module")
def bundled() -> Provence:
    return Provence()


def context(*documents: Document | str, query: str = QUESTION) -> Context:
    return Context.of(query, documents)


def scores(compressor: Provence, *contexts: Context) -> list[list[tuple[float | None, list[float]]]]:
    scored = compressor.score(contexts)
    return [[(e.score, [unit.score for unit in e.units]) for e in one.extracts] for one in scored]


def test_the_bundled_model_keeps_what_answers_and_drops_the_rest(bundled: Provence) -> None:
    [result] = Pipeline([bundled]).run(
        [context(Document(BRIDGE, title="Harrow Bridge"), Document(FERRY, title="Ferry"))]
    )
    assert "1911" in result.text
    assert "Bicycles" not in result.text
    bridge, ferry = result.after.extracts
    assert ferry.dropped
    assert bridge.score is not None
    assert ferry.score is not None
    assert bridge.score > ferry.score
    assert all(0 <= unit.score <= 1 for unit in bridge.units)


def test_scores_do_not_depend_on_batch_neighbours_or_order(bundled: Provence) -> None:
    contexts = [context(BRIDGE, FERRY), context(FERRY * 9, query="May I take my dog?"), context("One. Two.")]
    together = scores(bundled, *contexts)
    assert together == [scores(bundled, one)[0] for one in contexts]
    assert together[::-1] == scores(bundled, *contexts[::-1])


def test_sixteen_threads_get_what_one_thread_gets(bundled: Provence) -> None:
    rng = random.Random(0)
    sentences = [sentence for text in (BRIDGE, FERRY) for sentence in text.split(". ")]
    contexts = [context(". ".join(rng.choices(sentences, k=rng.randint(1, 30)))) for _ in range(48)]
    alone = [scores(bundled, one) for one in contexts]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda one: scores(bundled, one), contexts)) == alone


def test_a_long_document_is_read_to_its_end(bundled: Provence) -> None:
    filler = " ".join(f"Row {number} of the ledger lists timber and rope." for number in range(400))
    [scored] = bundled.score([context(f"{filler} {BRIDGE} {filler}")])
    [extract] = scored.extracts
    best = sorted(extract.units, key=lambda unit: -unit.score)[:2]
    assert "It was opened in 1911 by Clara Voss." in [extract.source.text[unit.start : unit.end] for unit in best]


def test_an_overlong_question_warns_and_still_works(bundled: Provence) -> None:
    [scored] = bundled.score([context(BRIDGE, query=QUESTION + " and also why" * 200)])
    assert any("query is longer" in warning for warning in scored.warnings)
    assert len(scored.extracts[0].units) == 4


def test_chained_after_another_compressor_offsets_point_into_the_original(bundled: Provence) -> None:
    first = load("bm25-sentences", budget=40)
    [result] = Pipeline([first, bundled]).run([context(BRIDGE, FERRY)])
    for extract in result.after.extracts:
        for unit in extract.kept_units():
            assert extract.source.text[unit.start : unit.end] in (BRIDGE + " " + FERRY)
    assert "1911" in result.text


def test_documents_emptied_earlier_stay_empty_and_are_not_read_again(bundled: Provence) -> None:
    [narrowed] = load("bm25-sentences", budget=12).compress([context(BRIDGE, FERRY)])
    assert narrowed.extracts[1].dropped
    [scored] = bundled.score([narrowed])
    assert scored.extracts[1] == narrowed.extracts[1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "\ud800 lone surrogate. And \udfff another.",
        "Control \x00\x07\x1b[31m characters. Still text.",
        "literal [SEP] and <unk> and [PAD] tokens. [CLS]",
        "吾輩は猫である。名前はまだ無い。",
        "افتتح الجسر عام 1911. السفن تمر تحته.",
        "word " * 3000,
        "x" * 5000,
        "🙂" * 50,
    ],
    ids=[
        "empty",
        "blank",
        "surrogates",
        "control",
        "special",
        "japanese",
        "arabic",
        "unpunctuated",
        "one-word",
        "emoji",
    ],
)
def test_odd_text_is_scored_whole_and_unchanged(bundled: Provence, text: str) -> None:
    [result] = Pipeline([bundled]).run([context(text, BRIDGE)], threshold=0.0)
    odd = result.after.extracts[0]
    covered = "".join(text[unit.start : unit.end] for unit in odd.units)
    assert "".join(covered.split()) == "".join(text.split())
    assert odd.source.text == text
    assert all(np.isfinite(unit.score) for unit in odd.units)
    json.dumps(result.to_dict(), allow_nan=False)


@settings(max_examples=25)
@given(st.lists(st.text(max_size=120), max_size=4), st.sampled_from([0.0, 0.05, 0.3, 0.9]))
def test_kept_text_is_always_slices_of_the_source_in_order(texts: list[str], threshold: float) -> None:
    [result] = Pipeline([BUNDLED_ONCE()]).run([context(*texts)], threshold=threshold)
    for text, extract in zip(texts, result.after.extracts, strict=True):
        place = 0
        for start, end in extract.slices():
            assert place <= start <= end <= len(text)
            place = end


def BUNDLED_ONCE(_cache: list[Provence] = []) -> Provence:  # noqa: B006, N802 - hypothesis forbids function fixtures
    if not _cache:
        _cache.append(Provence())
    return _cache[0]


def test_higher_thresholds_keep_subsets(bundled: Provence) -> None:
    kept = []
    for threshold in (0.0, 0.02, 0.1, 0.5, 0.9):
        [pruned] = bundled.compress([context(BRIDGE, FERRY)], threshold=threshold)
        kept.append({(e.index, unit.start) for e in pruned.extracts for unit in e.kept_units()})
    assert all(larger >= smaller for larger, smaller in itertools.pairwise(kept))


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_thresholds_outside_the_unit_interval_are_refused(bundled: Provence, threshold: float) -> None:
    with pytest.raises(InputError, match=r"threshold must be in \[0, 1\]"):
        bundled.compress([context(BRIDGE)], threshold=threshold)


@pytest.mark.parametrize("make", [open_bert, provence, xprovence])
@pytest.mark.parametrize("rounding", ["mean", "share"])
def test_published_layouts_score_sentences_as_a_slow_loop_does(tmp_path, make, rounding) -> None:
    tiny = make(tmp_path / "model")
    model = load_model(str(tmp_path / "model"), device="cpu")
    text = "mars is a red planet. it orbits and it is red. the moon is of cheese."
    [extract] = Provence(model, rounding=rounding).score([context(text, query="what is mars")])[0].extracts
    asked = model.tokenizer.encode("what is mars", add_special_tokens=False)
    passage = model.tokenizer.encode(text, add_special_tokens=False)
    sequence = model.layout.build(asked.ids, passage.ids)
    rank, tokens = tiny.reference(sequence.ids.tolist(), sequence.type_ids.tolist())
    start = model.layout.passage_start + len(asked.ids)
    keep = tokens.softmax(-1)[start : start + len(passage.ids), 1].tolist()
    for unit, span in zip(extract.units, split_sentences(text), strict=True):
        inside = [p for p, (a, b) in zip(keep, passage.offsets, strict=True) if a < span.end and b > span.start]
        expected = np.mean(inside) if rounding == "mean" else np.mean([p > 0.5 for p in inside])
        assert unit.score == pytest.approx(float(expected), abs=1e-4)
    logit = float(rank[0])
    assert extract.score == pytest.approx(1 / (1 + np.exp(-logit)) if model.score == "sigmoid" else logit, abs=1e-4)


def test_a_foreign_checkpoint_has_no_fusion(tmp_path) -> None:
    open_bert(tmp_path / "model")
    model = load_model(str(tmp_path / "model"), device="cpu")
    assert Provence(model).rounding == "mean"
    with pytest.raises(InputError, match="without a fusion"):
        Provence(model, rounding="fused")


def test_a_missing_or_damaged_export_names_the_file(tmp_path) -> None:
    with pytest.raises(UnknownNameError, match="no model at"):
        load_model(str(tmp_path / "absent"))
    (tmp_path / "pruner.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        PrunerModel.from_export(tmp_path)


def test_titles_are_read_as_the_first_sentence(bundled: Provence) -> None:
    assert title_sentence(" Harrow Bridge ") == "Harrow Bridge."
    assert title_sentence("Why?") == "Why?"
    assert title_sentence("") == ""
    [bare, titled] = bundled.model.read([Passage("q", "", BRIDGE), Passage("q", "Ostwick", BRIDGE)])
    assert bare.offsets.tolist() == titled.offsets.tolist()
    assert not np.allclose(bare.keep, titled.keep)
