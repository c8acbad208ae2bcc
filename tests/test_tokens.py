"""Counting tokens: the bundled estimate, exact counters by name, long texts and broken input."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from ctxprune import tokens
from ctxprune.errors import CheckpointError, MissingExtraError, UnknownNameError
from ctxprune.tokens import DEFAULT_TOKENIZER, PART_CHARACTERS, TokenizerCounter, default_counter, load_counter


@pytest.fixture
def tokenizer_file(tmp_path):
    """A WordLevel tokenizer saved with truncation and padding on, as published ones often are."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_words():
    counter = load_counter("words")
    assert (counter.name, counter.exact) == ("words", True)
    assert counter.count(["one  two\nthree", "", " "]) == [3, 0, 0]


def test_the_estimate_takes_the_names_of_special_tokens_for_what_a_text_says():
    """A generator reads them as ordinary characters too, and each of the brackets is one."""
    plain, named = default_counter().count(["the mask is torn", "the [MASK] is torn"])
    assert named == plain + 2


def test_the_estimate_shares_the_bundled_models_tokenizer():
    from ctxprune.models.formats import plain_tokenizer

    assert plain_tokenizer(DEFAULT_TOKENIZER) is plain_tokenizer(str(DEFAULT_TOKENIZER))
    fresh = default_counter.__wrapped__()  # others may have been read since the one that is kept
    assert fresh._tokenizer is plain_tokenizer(DEFAULT_TOKENIZER)


def test_default_is_an_estimate_without_special_tokens_truncation_or_padding():
    counter = default_counter()
    assert counter is load_counter("default")
    assert (counter.name, counter.exact) == ("provence-mini (estimate)", False)
    assert counter.count(["Hello, world", "", "word " * 1000]) == [3, 0, 1000]


def test_words_unknown_to_the_estimate_count_by_their_bytes():
    assert default_counter().count(["x" * 300, "🤖", "ordinary"]) == [100, 2, 1]


def test_a_file_or_its_folder_is_counted_exactly(tokenizer_file):
    for spec in (str(tokenizer_file), str(tokenizer_file.parent)):
        counter = load_counter(spec)
        assert (counter.name, counter.exact) == (spec, True)
        assert counter.count(["a b a", "", "a nothing"]) == [3, 0, 2]


def test_a_long_text_counts_as_the_sum_of_its_words():
    text = "Rain, in 1859!\n\n" * 40_000
    assert len(text) > 6 * PART_CHARACTERS
    assert default_counter().count(["a", text]) == [1, 40_000 * default_counter().count(["Rain, in 1859!"])[0]]


@settings(deadline=None)
@given(st.text("ab \n", max_size=60))
def test_cutting_a_text_loses_nothing_and_cuts_no_word(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "PART_CHARACTERS", 10)
        parts = list(tokens._parts(text))
    assert "".join(parts) == text
    assert all(len(part) <= 20 for part in parts)
    for left, right in pairwise(parts):
        assert (right[0].isspace() and not left[-1].isspace()) or len(left) == 20


class Watched:
    """A tokenizer, and the lengths of the texts that it was given."""

    def __init__(self, tokenizer):
        self.tokenizer, self.lengths = tokenizer, []

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def encode_batch_fast(self, texts, **options):
        self.lengths += map(len, texts)
        return self.tokenizer.encode_batch_fast(texts, **options)


def test_megabytes_without_a_space_reach_the_tokenizer_once_and_in_parts():
    watched = Watched(Tokenizer.from_file(str(DEFAULT_TOKENIZER)))
    [count] = TokenizerCounter(watched, name="watched", unknown_bytes=3).count(["x" * 2_000_000])
    assert sum(watched.lengths) == 2_000_000
    assert max(watched.lengths) <= 2 * PART_CHARACTERS  # it may take the square of a word's length
    assert [count] == default_counter().count(["x" * 2_000_000])
    assert 600_000 < count < 700_000


def test_lone_surrogates_count_like_any_unknown_character():
    assert default_counter().count(["a \ud800 b"]) == default_counter().count(["a \ufffd b"])


def test_counts_do_not_depend_on_threads():
    texts = [f"text number {n} with {n * 'more '}words" for n in range(200)]
    expected = [default_counter().count([text])[0] for text in texts]
    with ThreadPoolExecutor(16) as pool:
        for counts in pool.map(lambda _: default_counter().count(texts), range(32)):
            assert counts == expected


def test_tiktoken_counts_through_its_encoding(monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")

    class Letters:
        def encode_ordinary_batch(self, texts):
            return [list(text.encode()) for text in texts]

    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: Letters())
    counter = load_counter("tiktoken:cl100k_base")
    assert (counter.name, counter.exact, counter.count(["abc", ""])) == ("tiktoken:cl100k_base", True, [3, 0])
    with pytest.raises(UnknownNameError, match=r"no encoding or model 'nope'.*cl100k_base"):
        load_counter("tiktoken:nope")


def test_tiktoken_without_a_network_says_so(monkeypatch):
    tiktoken = pytest.importorskip("tiktoken")

    def fail(name):
        raise OSError("no route to host")

    monkeypatch.setattr(tiktoken, "get_encoding", fail)
    with pytest.raises(CheckpointError, match=r"cannot fetch .* 'cl100k_base': no route to host"):
        load_counter("tiktoken:cl100k_base")


def test_missing_tiktoken_names_the_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ctxprune-rag\[tokens\]'"):
        load_counter("tiktoken:cl100k_base")


def test_hub_ids_go_to_the_hub(monkeypatch, tokenizer_file):
    class Hub:
        @staticmethod
        def from_pretrained(name):
            if name != "org/name":
                raise OSError("401")
            return Tokenizer.from_file(str(tokenizer_file))

    monkeypatch.setattr(tokens, "Tokenizer", Hub)
    assert load_counter("org/name").count(["a b a"]) == [3]
    with pytest.raises(CheckpointError, match=r"'org/other' from the hub: 401; .*pass the path"):
        load_counter("org/other")


@pytest.mark.parametrize("spec", ["gpt9", "", "a/b/c", "missing/tokenizer.json"])
def test_unknown_names_list_what_works(spec):
    with pytest.raises(UnknownNameError, match=r"use default, words, tiktoken:"):
        load_counter(spec)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot read a tokenizer from"):
        load_counter(str(tmp_path))


def test_counting_loads_neither_torch_nor_transformers():
    code = (
        "import sys; from ctxprune.tokens import default_counter; default_counter().count(['a']);"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_estimate_agrees_with_the_tokenizer_on_known_words():
    plain = TokenizerCounter(Tokenizer.from_file(str(DEFAULT_TOKENIZER)), name="plain")
    texts = ["The harbour's lighthouse, lit in 1859, is 32 m high.", "https://example.org/a?b=1"]
    assert plain.count(texts) == default_counter().count(texts)
