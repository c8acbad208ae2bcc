"""The whole surface of llmlingua's class: there under its names and parameters, or left out with a word on it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from ctxprune.errors import InputError, NotOfferedError
from ctxprune.integrations.llmlingua.compressor import LEFT_OUT, WITHOUT_EFFECT, PromptCompressor

#: llmlingua 0.2.2: parameters by method, after `self`; those up to "|" may be given by place.
_OWN = (
    "iterative_size use_sentence_level_filter keep_split keep_first_sentence keep_last_sentence keep_sentence_number "
    "high_priority_bonus context_budget token_budget_ratio condition_in_question condition_compare rank_method"
)
OFFERED = {
    "compress_prompt": (
        "context instruction question rate target_token | force_context_ids force_context_number "
        "use_context_level_filter use_token_level_filter reorder_context dynamic_context_compression_ratio "
        "add_instruction concate_question context_segs context_segs_rate context_segs_compress target_context "
        "context_level_rate context_level_target_token return_word_label word_sep label_sep token_to_word force_tokens "
        f"force_reserve_digit drop_consecutive chunk_end_tokens strict_preserve_uncompressed {_OWN}"
    ),
    "compress_prompt_llmlingua2": (
        "context rate target_token | use_context_level_filter use_token_level_filter target_context context_level_rate "
        "context_level_target_token force_context_ids return_word_label word_sep label_sep token_to_word force_tokens "
        "force_reserve_digit drop_consecutive chunk_end_tokens"
    ),
    "structured_compress_prompt": (
        "context instruction question rate target_token | force_context_ids force_context_number "
        "use_context_level_filter use_token_level_filter reorder_context dynamic_context_compression_ratio "
        f"add_instruction concate_question strict_preserve_uncompressed {_OWN}"
    ),
    "compress_json": (
        "json_data json_config instruction question rate target_token | use_keyvalue_level_filter "
        f"use_token_level_filter reorder_keyvalue {_OWN}"
    ),
    "recover": "original_prompt compressed_prompt response |",
}
OTHERS = [
    "init_llmlingua2",
    "load_model",
    "get_ppl",
    "get_token_length",
    "get_prefix_length",
    "get_condition_ppl",
    "get_dynamic_compression_ratio",
    "get_structured_dynamic_compression_ratio",
    "token_segment",
    "control_context_budget",
    "control_sentence_budget",
    "get_compressed_input",
    "get_estimate_threshold_base_distribution",
    "iterative_compress_prompt",
    "get_rank_results",
    "segment_structured_context",
    "concate_segment_info",
]
REPORT = {
    "title": "Harbour report of the northern district for the month of March",
    "berths": 14,
    "open": True,
    "remarks": ["The crane at the second quay was repaired after the storm.", "No ship waited longer than a day."],
    "master": {"name": "Ada Lindqvist", "note": "She is of the opinion that the old pier should be rebuilt soon."},
    "draft_m": 7.25,
    "closed_on": None,
}
TYPES = {"title": "str", "berths": "int", "open": "bool", "remarks": "list", "master": "dict", "draft_m": "number"}
CONFIG = {
    key: {"rate": 0.5, "compress": True, "value_type": TYPES.get(key, "str"), "pair_remove": key == "remarks"}
    for key in REPORT
}


@pytest.fixture(scope="module")
def compressor() -> PromptCompressor:
    return PromptCompressor()


@pytest.mark.parametrize("method", OFFERED)
def test_every_parameter_is_taken_under_its_name_and_in_its_place(method: str) -> None:
    placed, _, named = OFFERED[method].partition("|")
    parameters = inspect.signature(getattr(PromptCompressor, method)).parameters
    by_place = [name for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert by_place[1:] == placed.split()
    taken = set(parameters) | WITHOUT_EFFECT | {"reorder_keyvalue"}
    taken |= set(inspect.signature(PromptCompressor.compress_prompt).parameters)
    assert set(named.split()) <= taken


def test_options_without_effect_are_taken_by_every_method(compressor: PromptCompressor) -> None:
    own = dict.fromkeys(_OWN.split())
    assert compressor.compress_prompt("The pier is old.", rate=1.0, **own)["compressed_prompt"] == "The pier is old."
    assert compressor.structured_compress_prompt(["The pier is old."], rate=1.0, **own)
    assert compressor.compress_json(REPORT, CONFIG, rate=1.0, reorder_keyvalue=False, **own)
    assert compressor.compress_prompt_llmlingua2("The pier is old.", 1.0)["compressed_prompt"] == "The pier is old."
    with pytest.raises(InputError, match="knows no option colour"):
        compressor.compress_json(REPORT, CONFIG, colour="red")


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_left_out_says_so_and_is_listed(compressor: PromptCompressor, name: str) -> None:
    with pytest.raises(NotOfferedError, match=f"PromptCompressor.{name} is left out here: ."):
        getattr(compressor, name)("text")
    assert not hasattr(compressor, name)
    page = Path(__file__).parent.parent / "docs" / "llmlingua-differences.md"
    assert f"`{name}`" in page.read_text(encoding="utf-8")


def test_the_list_of_what_is_left_out_is_llmlinguas(compressor: PromptCompressor) -> None:
    assert set(LEFT_OUT) == set(OTHERS)
    with pytest.raises(AttributeError, match="has no attribute 'colour'"):
        compressor.colour  # noqa: B018


def subsequence(short: str, long: str) -> bool:
    characters = iter(long)
    return all(each in characters for each in short if not each.isspace())


def test_compress_json_shortens_texts_and_keeps_the_object(compressor: PromptCompressor) -> None:
    result = compressor.compress_json(REPORT, CONFIG)
    values = result["compressed_prompt"]
    assert list(values) == list(REPORT)
    for key in ("berths", "open", "draft_m", "closed_on"):
        assert values[key] == REPORT[key] and type(values[key]) is type(REPORT[key])
    assert list(values["master"]) == ["name", "note"] and len(values["remarks"]) == 2
    pairs = [(values["title"], REPORT["title"]), (values["master"]["note"], REPORT["master"]["note"])]
    pairs += list(zip(values["remarks"], REPORT["remarks"], strict=True))
    assert all(len(short) < len(long) and subsequence(short, long) for short, long in pairs)
    assert result["compressed_tokens"] < result["origin_tokens"] and set(result) >= {"ratio", "rate", "saving"}
    assert [json.loads(each) for each in result["compressed_prompt_list"]] == [{key: values[key]} for key in values]


def test_compress_json_keeps_what_must_not_be_touched(compressor: PromptCompressor, tmp_path: Path) -> None:
    config: dict[str, Any] = {key: {"compress": False} for key in REPORT} | {"title": {"rate": 0.0}}
    values = compressor.compress_json(REPORT, config)["compressed_prompt"]
    assert values == REPORT | {"title": ""}
    assert compressor.compress_json(REPORT, CONFIG, use_token_level_filter=False)["compressed_prompt"] == REPORT
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"{key}: {{compress: false}}\n" for key in REPORT))
    assert compressor.compress_json(REPORT, str(path))["compressed_prompt"] == REPORT


def test_compress_json_may_drop_pairs_that_say_little(compressor: PromptCompressor) -> None:
    values = {"a": "The crane was repaired.", "b": "It is of the to and so.", "c": "Storm damage 1200 euros.", "d": "x"}
    config = {key: {"compress": False, "pair_remove": key != "d"} for key in values}
    kept = compressor.compress_json(values, config, rate=0.1, use_keyvalue_level_filter=True)["compressed_prompt"]
    assert "d" in kept and 1 < len(kept) < 4 and all(kept[key] == values[key] for key in kept)


@pytest.mark.parametrize(
    ("data", "config", "message"),
    [
        (["a"], {}, "must be an object"),
        ({"a": "x"}, {"b": {}}, "only one has a, b"),
        ({"a": "x"}, {"a": {"speed": 1}}, "has speed"),
        ({"a": "x"}, {"a": 0.5}, "has 0.5"),
        ({"a": "x"}, {"a": {"rate": 2}}, r"rate 2; it must be in \[0, 1\]"),
        ({"a": "x"}, {"a": {"value_type": "set"}}, "value_type 'set'"),
        ({"a": "x"}, "nowhere.yaml", "cannot read json_config from nowhere.yaml"),
    ],
)
def test_a_config_that_cannot_be_is_told(compressor: PromptCompressor, data: Any, config: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compressor.compress_json(data, config)


ORIGINAL = "The old pier, which was built in 1874, should be rebuilt before the winter storms. The crane is new."


@pytest.mark.parametrize(
    ("compressed", "response", "expected"),
    [
        ("old pier built 1874 rebuilt before storms", "The old pier built 1874 is unsafe.", ""),
        ("pier rebuilt before storms", "pier rebuilt before storms", "pier, which was built in 1874, should be rebuilt before the winter storms"),  # noqa: E501
        ("pier rebuilt before storms", "I think: pier rebuilt before storms!", "I think: pier, which was built in 1874, should be rebuilt before the winter storms!"),  # noqa: E501
        ("crane new", "Is the\ncrane new?", "Is the\ncrane is new?"),
        ("crane new", "The ferry sails.", "The ferry sails."),
        ("crane new", "", ""),
        ("storms ferry", "storms ferry", "storms ferry"),
    ],
)  # fmt: skip
def test_recover_puts_the_originals_words_back(
    compressor: PromptCompressor, compressed: str, response: str, expected: str
) -> None:
    expected = expected or response.replace("old pier built 1874", "old pier, which was built in 1874")
    assert compressor.recover(ORIGINAL, compressed, response) == expected
