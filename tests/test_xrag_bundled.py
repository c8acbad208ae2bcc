"""The bridges that come with the package: loaded by name, without a hub, and each with its own encoder and pieces."""

import math

import pytest

from ctxprune import Context, Pipeline, load
from ctxprune.compressors.xrag.bridge import DEFAULT_BRIDGE, load_bridge
from ctxprune.tokens import default_counter
from ctxprune.types import SoftTokens

BUNDLED = ("xrag-smollm2-mini", "xrag-smollm2-pieces")
DOCUMENT = (
    "The weir was finished in 1911. Its sluices are of iron, and two of them have been stuck since the flood. "
    "The keeper lives above the mill race. He opens the third sluice by hand when the alarm bell rings."
)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_bridge_is_loaded_by_name(name: str) -> None:
    bridge = load_bridge(name)
    assert bridge.config.generator == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert load("xrag", model=name).bridge.config == bridge.config


def test_the_default_has_one_vector_a_document_and_the_other_one_for_each_sixteen_tokens() -> None:
    assert load("xrag").bridge.config == load_bridge(DEFAULT_BRIDGE).config
    counts = {}
    for name in BUNDLED:
        [result] = Pipeline([load("xrag", model=name)]).run([Context.of("When was the weir finished?", [DOCUMENT])])
        [piece] = result.after.pieces
        assert isinstance(piece, SoftTokens)
        counts[name] = len(piece.embeddings)
    [tokens] = default_counter().count([DOCUMENT])
    assert counts == {"xrag-smollm2-mini": 1, "xrag-smollm2-pieces": math.ceil(tokens / 16)}
