"""Random words and content words: seeded, the same in any company, stop words first to go."""

import pytest

from ctxprune import Context, load, load_counter
from ctxprune.errors import BudgetError
from ctxprune.text.words import STOP_WORDS

TEXT = "The ferry of the northern line leaves at noon, and it carries the mail to the islands of the bay."


def kept(name, text=TEXT, company=(), **options):
    compressor = load(name, counter=load_counter("words"), **options)
    results = compressor.compress([Context.of("", [each]) for each in (*company, text)], budget=6)
    return results[-1].extracts[0].text.split()


@pytest.mark.parametrize("name", ["random-words", "content-words"])
def test_the_choice_depends_on_seed_and_text_alone(name):
    alone = kept(name)
    assert alone == kept(name, company=["Another text altogether, of no concern."])
    assert len(alone) == 6 and all(word in TEXT.split() for word in alone)
    assert len({tuple(kept(name, seed=seed)) for seed in range(8)}) > 1


def test_stop_words_go_first():
    assert not {word.strip(",.").lower() for word in kept("content-words")} & STOP_WORDS
    mixed = [word.strip(",.").lower() for seed in range(5) for word in kept("random-words", seed=seed)]
    assert set(mixed) & STOP_WORDS


def test_ranks_are_no_probabilities():
    with pytest.raises(BudgetError, match="random-words only ranks"):
        load("random-words").compress([Context.of("", [TEXT])])
