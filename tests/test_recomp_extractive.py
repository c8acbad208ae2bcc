"""RECOMP extractive: the best sentences of the whole context, by a dual encoder."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from fixtures_vectors import BagEmbedder
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import recomp as bench
from ctxprune import load
from ctxprune.compressors.recomp.extractive import DEFAULT_MODEL, EmbedderPair, RecompExtractive, load_model
from ctxprune.compressors.sentences import BM25Sentences
from ctxprune.errors import BudgetError, InputError, UnknownNameError
from ctxprune.prompt import render_context
from ctxprune.select import Policy
from ctxprune.tokens import WordCounter
from ctxprune.types import Context, Document, Summary
from tests.test_models_recomp import bare_folder, export_folder, transformer_folder
from tests.test_sentence_cache import Letters

VOLCANO = "Volcanoes erupt molten rock. Lava flows downhill. Ash travels far."
CAT = "Cats sleep most of the day. Cats hunt at night. A cat purrs."
RIVER = "Rivers carry water to the sea. Fish live there."
DOCUMENTS = (Document(VOLCANO, title="Volcano"), Document(CAT, title="Cat"), Document(RIVER))
CONTEXT = Context.of("When do cats hunt?", DOCUMENTS)


def bag(**options) -> RecompExtractive:
    return RecompExtractive(EmbedderPair(BagEmbedder()), counter=WordCounter(), **options)


@pytest.mark.parametrize("with_title", [False, True])
def test_scores_are_the_dot_products_of_single_sentences(with_title):
    model = Letters()
    (scored,) = RecompExtractive(model, with_title=with_title, cache=None).score([CONTEXT])
    query = model.embed_queries([CONTEXT.query])[0]
    for extract in scored.extracts:
        title = extract.source.title
        lead = f"{title}\n" if with_title and title else ""
        expected = [
            float(model.embed_queries([lead + extract.source.text[unit.start : unit.end]])[0] @ query)
            for unit in extract.units
        ]
        assert [unit.score for unit in extract.units] == pytest.approx(expected, rel=1e-6)
        assert extract.score == pytest.approx(max(expected), rel=1e-6)
    assert len(scored.extracts) == 3


def test_top_n_counts_over_the_whole_context_and_keeps_document_order():
    (scored,) = bag().score([CONTEXT])
    ranked = sorted((-unit.score, e.index, unit.start) for e in scored.extracts for unit in e.units)
    for n in range(1, 10):
        (result,) = bag(top_n=n).compress([CONTEXT])
        kept = [(extract.index, unit.start) for extract in result.extracts for unit in extract.kept_units()]
        assert kept == sorted((index, start) for _, index, start in ranked[:n])


def test_top_n_and_budget_and_threshold_hold_together():
    assert render_context(bag(top_n=1).compress([CONTEXT], budget=5)[0]) == "Cat\nCats hunt at night."
    assert render_context(bag(top_n=8).compress([CONTEXT], budget=5)[0]) == "Cat\nCats hunt at night."
    (scored,) = bag().score([CONTEXT])
    best = max(unit.score for extract in scored.extracts for unit in extract.units)
    (result,) = bag(top_n=8).compress([CONTEXT], threshold=best)
    assert sum(len(list(extract.kept_units())) for extract in result.extracts) == 1
    assert bag(top_n=2).compress([CONTEXT]) == bag(policy=Policy(top_n=2)).compress([CONTEXT])


def test_a_cosine_takes_thresholds_and_a_dot_product_does_not():
    (scored,) = bag().score([CONTEXT])
    for threshold in (0.0, 0.5, 1.0):
        (result,) = bag().compress([CONTEXT], threshold=threshold)
        for before, after in zip(scored.extracts, result.extracts, strict=True):
            assert list(after.kept) == [unit.score >= threshold for unit in before.units]
    assert bag().compress([CONTEXT]) == bag().compress([CONTEXT], threshold=RecompExtractive.default_cosine)
    unbounded = RecompExtractive(Letters())
    with pytest.raises(InputError, match="not probabilities"):
        unbounded.compress([CONTEXT], threshold=0.5)
    with pytest.raises(BudgetError, match="only ranks text"):
        unbounded.compress([CONTEXT])
    (result,) = RecompExtractive(Letters(), top_n=1).compress([CONTEXT])
    assert sum(sum(extract.kept) for extract in result.extracts) == 1
    assert RecompExtractive(Letters(similarity="cosine", default_threshold=0.2)).default_threshold == 0.2


@given(
    texts=st.lists(st.text(alphabet="ab. \n漢é,", max_size=60), max_size=4),
    query=st.text(alphabet="ab漢 ", max_size=8),
    n=st.integers(1, 9),
)
@settings(max_examples=40)
def test_kept_text_is_slices_of_the_source(texts, query, n):
    context = Context.of(query, [Document(text, title="t") for text in texts])
    (result,) = bag(top_n=n).compress([context])
    assert sum(sum(extract.kept) for extract in result.extracts) <= n
    for before, after in zip(context.pieces, result.extracts, strict=True):
        assert after.source is before.source
        covered = "".join(after.source.text[unit.start : unit.end] for unit in after.units)
        assert "".join(covered.split()) == "".join(after.source.text.split())


def test_a_narrowed_document_keeps_its_offsets_and_summaries_stay():
    first = BM25Sentences(counter=WordCounter()).compress([CONTEXT], budget=14)[0]
    (second,) = bag().compress([first], budget=1000)
    assert [extract.text for extract in second.extracts] == [extract.text for extract in first.extracts]
    mixed = Context("cats", (CONTEXT.pieces[0], Summary("A summary.", ()), CONTEXT.pieces[1]))
    (scored,) = bag().score([mixed])
    assert [type(piece) for piece in scored.pieces] == [type(piece) for piece in mixed.pieces]


def test_nothing_in_nothing_out():
    assert bag(top_n=1).compress([]) == []
    empty = [Context.of("q", []), Context.of("", ["", "  "])]
    assert [[extract.text for extract in each.extracts] for each in bag(top_n=1).compress(empty)] == [[], ["", ""]]


def test_threads_share_a_compressor():
    compressor, found = bag(top_n=2), []
    threads = [threading.Thread(target=lambda: found.append(compressor.compress([CONTEXT]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(each == found[0] for each in found)


def test_the_bundled_model_knows_meaning():
    compressor = load("recomp-extractive", top_n=1)
    assert compressor.model.name == DEFAULT_MODEL
    (result,) = compressor.compress([Context.of("What comes out of a volcano?", [CAT, VOLCANO, RIVER])])
    assert render_context(result) == "Volcanoes erupt molten rock."


def test_a_folder_is_known_by_its_files(tmp_path):
    for name, make in (("export", export_folder), ("transformer", transformer_folder)):
        folder = tmp_path / name
        folder.mkdir()
        make(folder)
        assert load(str(folder), top_n=1).name == "recomp-extractive"
    bare_folder(tmp_path / "bare", "bert")
    compressor = load("recomp-extractive", model=str(tmp_path / "bare"), device="cpu", top_n=1)
    assert compressor.default_threshold is None
    assert np.isfinite([unit.score for e in compressor.score([CONTEXT])[0].extracts for unit in e.units]).all()


def test_the_benchmark_has_a_row_for_known_and_new_documents(monkeypatch, capsys):
    monkeypatch.setattr(bench, "DOCUMENTS", 2)
    monkeypatch.setattr(bench, "WORDS", 30)
    assert bench.main(["cache", "--rounds", "2"]) == 0
    report = capsys.readouterr().out
    assert "python -m benchmarks.recomp cache --rounds 2" in report
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines()[-4:]]
    assert [row[0] for row in cells] == [bench.PEER, bench.COLD, bench.MEMORY, bench.FILE]
    assert cells[0][-1] == "1.000 [1.000, 1.000]"
    assert bench.main(["cache", "--model", "./missing"]) == 1
    assert "no model at './missing'" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["no-such-model", "./missing", str(Path("/missing/model"))])
def test_a_model_that_is_not_there_is_named(source):
    with pytest.raises(UnknownNameError, match="no model at"):
        load_model(source)


@pytest.mark.parametrize("top_n", [0, -1, 1.5])
def test_a_bad_top_n_is_refused(top_n):
    with pytest.raises(InputError, match="top_n must be a whole number from 1 up"):
        bag(top_n=top_n)
