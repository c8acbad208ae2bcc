"""Contexts with soft tokens: a tiny random llama against one token at a time, and text-only generators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_llama import WORDS, save_llama
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from ctxprune.errors import InputError
from ctxprune.generators import ContextGenerator, Generator, LocalGenerator, TextOnly
from ctxprune.models.causal import PromptEncoder
from ctxprune.prompt import render_prompt
from ctxprune.types import Context, Document, Extract, SoftTokens, Span, Summary, whole

TEMPLATE = "the cat {context} and {question}"
CHAT = "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] | trim }}{% endfor %} </s>"
TABLE_WIDTH = 32


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"), chat_template=CHAT)


@pytest.fixture(scope="module")
def generator(llama: Path) -> LocalGenerator:
    return LocalGenerator(llama, device="cpu", batch_size=3, known_as="org/tiny")


def soft(rows: int, *, seed: int = 0, index: int = 0, generator: str = "org/tiny") -> SoftTokens:
    vectors = np.random.default_rng(seed).standard_normal((rows, TABLE_WIDTH)).astype(np.float32)
    return SoftTokens(vectors, Document("sea"), generator, index)


ROCK = whole(Document("river and rock", title="rock"))
CONTEXTS = [
    Context("the sun", (soft(1, seed=1),)),
    Context("the sun", (soft(1, seed=2),)),
    Context("a vote", (soft(2, seed=3), ROCK, soft(1, seed=4), soft(3, seed=5))),
    Context("the moon on the sea", (ROCK, Summary("star sea", ()), soft(1, seed=6))),
    Context("the moon on the sea", (ROCK,)),
    Context("sea", ()),
]


def slow_parts(context: Context) -> list[str | np.ndarray]:
    """The prompt by hand: words, and vectors one after another; documents that are text end a run of vectors."""
    words: list[str | np.ndarray] = ["<s>", "user", "the", "cat"]
    for piece in context.pieces:
        if isinstance(piece, SoftTokens):
            words += list(piece.embeddings)
        else:
            words += (piece.text if isinstance(piece, Summary) else f"{piece.source.title} {piece.text}").split()
    return [
        *words,
        *("" if context.pieces else "(no relevant text was found)").split(),
        "and",
        *context.query.split(),
        "</s>",
    ]


def slow_greedy(folder: Path, context: Context, max_new_tokens: int) -> str:
    """The whole forward pass again for each token, without cache, batch or padding."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    table = model.get_input_embeddings().weight.detach()
    rows = [
        table[WORDS.index(part) if part in WORDS else 0] if isinstance(part, str) else torch.from_numpy(part)
        for part in slow_parts(context)
    ]
    words: list[str] = []
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            best = int(model(inputs_embeds=torch.stack(rows)[None]).logits[0, -1].argmax())
        if best == 2:
            break
        rows.append(table[best])
        words += [WORDS[best]] if best > 2 else []
    return " ".join(words)


def test_a_batch_answers_as_one_context_at_a_time_and_as_the_slow_loop(llama: Path, generator: LocalGenerator) -> None:
    def answers(contexts: Sequence[Context]) -> list[str]:
        replies = generator.context_replies(contexts, template=TEMPLATE, max_new_tokens=10)
        return [reply.text for reply in replies]

    together = answers(CONTEXTS)
    assert together == [slow_greedy(llama, context, 10) for context in CONTEXTS]
    assert together == [answers([context])[0] for context in CONTEXTS]
    assert together == answers(CONTEXTS[::-1])[::-1]
    assert len(set(together)) > 3 and together[0] != together[1]


def test_without_soft_tokens_it_answers_as_to_the_rendered_prompt(generator: LocalGenerator) -> None:
    assert isinstance(generator, ContextGenerator)
    texts = CONTEXTS[-2:]
    prompts = [render_prompt(context, template=TEMPLATE) for context in texts]
    answers = generator.context_replies(texts, template=TEMPLATE, max_new_tokens=20)
    assert answers == generator.replies(prompts, max_new_tokens=20)
    assert generator.generate_contexts([]) == []


def test_soft_tokens_of_the_loaded_name_need_no_other(llama: Path, generator: LocalGenerator) -> None:
    [context] = CONTEXTS[:1]
    plain = LocalGenerator(llama, device="cpu")
    with pytest.raises(
        InputError, match=r"for 'org/tiny', this generator is .*known_as='org/tiny' if this is the same"
    ):
        plain.generate_contexts([context])
    own = replace(context, pieces=(replace(context.pieces[0], generator=str(llama)),))
    assert plain.context_replies([own], max_new_tokens=5) == generator.context_replies([context], max_new_tokens=5)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((1, 31), np.float32), r"contexts\[1\], document 4: .* shape \(1, 31\), .* reads \(n, 32\)"),
        (np.zeros(32, np.float32), r"shape \(32,\)"),
        (np.full((2, 32), np.inf, np.float32), "nan or infinity"),
    ],
)
def test_unusable_vectors_are_named(generator: LocalGenerator, vectors: np.ndarray, message: str) -> None:
    bad = Context("q", (SoftTokens(vectors, Document("x"), "org/tiny", 4),))
    with pytest.raises(InputError, match=message):
        generator.generate_contexts([CONTEXTS[0], bad])


def test_soft_tokens_count_towards_the_models_context(generator: LocalGenerator) -> None:
    full = Context("sun", (soft(55),))
    assert generator.context_replies([full], template=TEMPLATE, max_new_tokens=2)
    with pytest.raises(InputError, match=r"contexts\[0\] has 62 tokens and asks for 3 more, .* holds 64"):
        generator.generate_contexts([full], template=TEMPLATE, max_new_tokens=3)


def test_a_chat_template_that_repeats_the_prompt_is_refused(tmp_path: Path) -> None:
    twice = LocalGenerator(save_llama(tmp_path, chat_template="{{ messages[0].content }} {{ messages[0].content }}"))
    with pytest.raises(InputError, match="writes 2 runs of soft tokens where the prompt has 1"):
        twice.generate_contexts([Context("q", (soft(1, generator=twice.name),))])


class Letters:
    """A tokenizer of characters."""

    chat_template = None

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": [1] * add_special_tokens + [ord(letter) for letter in text]}


TEXT = st.text("[]soft-01 \n{}context", max_size=12)
PIECES = st.lists(TEXT | st.integers(0, 3), max_size=5)


@given(query=TEXT, pieces=PIECES)
def test_texts_that_look_like_markers_stay_text(query: str, pieces: list[str | int]) -> None:
    context = Context(
        query, tuple(soft(each) if isinstance(each, int) else Summary(each, ()) for each in [*pieces, "[soft-0-0]"])
    )
    parts = PromptEncoder(Letters(), name="letters").parts(context, template="{context}|{question}")
    seen = "".join(
        "".join(map(chr, part[:])) if isinstance(part, list) else "\N{BLACK SQUARE}" * len(part) for part in parts
    )
    texts = [("\N{BLACK SQUARE}" * each if isinstance(each, int) else each) for each in [*pieces, "[soft-0-0]"]]
    joined = "\n\n".join(text for text in texts if text.strip())
    while "\N{BLACK SQUARE}\n\n\N{BLACK SQUARE}" in joined:  # neighbours stand side by side
        joined = joined.replace("\N{BLACK SQUARE}\n\n\N{BLACK SQUARE}", "\N{BLACK SQUARE}" * 2)
    assert seen == f"\x01{joined}|{query}"


class Echo:
    """A text generator that answers with its prompt."""

    name = "echo"

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        return list(prompts)


class FirstWords:
    """A text compressor that puts the first two words of everything in its place."""

    name = "first-words"

    def compress(
        self, contexts: Sequence[Context], *, budget: int | None = None, threshold: float | None = None
    ) -> list[Context]:
        return [
            replace(context, pieces=tuple(Summary(" ".join(piece.text.split()[:2]), ()) for piece in context.pieces))
            for context in contexts
        ]


def test_text_only_generators_refuse_soft_tokens_before_they_write() -> None:
    reader = TextOnly(Echo())
    assert isinstance(reader, ContextGenerator) and isinstance(reader, Generator) and reader.name == "echo"
    assert reader.generate_contexts(CONTEXTS[4:5], template=TEMPLATE) == [
        "the cat rock\nriver and rock and the moon on the sea"
    ]
    assert reader.generate(["as it is"]) == ["as it is"]
    with pytest.raises(InputError, match="document 0 is 1 soft tokens for 'org/tiny', not text"):
        reader.generate_contexts(CONTEXTS, template=TEMPLATE)


def test_a_fallback_reads_the_whole_document_and_only_where_there_were_soft_tokens() -> None:
    reader = TextOnly(Echo(), fallback=FirstWords())
    hidden = SoftTokens(np.zeros((1, 4), np.float32), Document("one two three"), "any", 0)
    contexts = [Context("q", (hidden, ROCK)), Context("q", (ROCK,))]
    answers = reader.generate_contexts(contexts, template="{context}|{question}")
    assert answers == ["one two\n\nriver and|q", "rock\nriver and rock|q"]
    assert contexts[0].pieces == (hidden, ROCK)


def test_a_fallback_must_return_text() -> None:
    class Softener(FirstWords):
        name = "softener"
        gives_soft_tokens = True

    with pytest.raises(InputError, match="the fallback must return text, got 'softener'"):
        TextOnly(Echo(), fallback=Softener())


def mixed(text: str, *spans: tuple[int, int, bool]) -> SoftTokens:
    """spans: (start, end, whether it stands as text); the others have a vector each."""
    document = Document(text, title="rock")
    units = tuple(Span(start, end) for start, end, _ in spans)
    expanded = Extract(document, units, tuple(kept for *_, kept in spans))
    soft_spans = tuple(unit for unit, (*_, kept) in zip(units, spans, strict=True) if not kept)
    return SoftTokens(soft(len(soft_spans)).embeddings, document, "org/tiny", 0, soft_spans, expanded)


def spelled(context: Context) -> str:
    """The prompt as characters, a square for each vector."""
    parts = PromptEncoder(Letters(), name="letters").parts(context, template="{context}|{question}")
    squares = ("".join(map(chr, part)) if isinstance(part, list) else "\N{BLACK SQUARE}" * len(part) for part in parts)
    return "".join(squares).removeprefix("\x01")


def test_text_between_vectors_stands_in_the_documents_order() -> None:
    text = "sun. moon. star. sea."
    around = mixed(text, (0, 4, False), (5, 10, True), (11, 16, False), (17, 21, False))
    assert spelled(Context("q", (around,))) == "rock\n\N{BLACK SQUARE} moon.\N{BLACK SQUARE}\N{BLACK SQUARE}|q"
    first = mixed(text, (0, 4, True), (5, 10, True), (11, 16, False), (17, 21, True))
    assert spelled(Context("q", (first,))) == "rock\nsun. moon.\N{BLACK SQUARE} sea.|q"
    bare = mixed(text, (0, 4, False), (5, 10, False))
    assert spelled(Context("q", (bare, bare))) == "\n\n".join(["\N{BLACK SQUARE}" * 2] * 2) + "|q"


def test_the_vectors_of_several_pieces_keep_to_their_document() -> None:
    one = replace(soft(1), spans=(Span(0, 3),))
    two = replace(soft(2), spans=(Span(0, 1), Span(1, 3)))
    square = "\N{BLACK SQUARE}"
    assert (
        spelled(Context("q", (one, one, two, two, one)))
        == f"{square * 2}\n\n{square * 2}\n\n{square * 2}\n\n{square}|q"
    )


def test_soft_tokens_of_another_revision_are_refused_where_both_are_known(llama: Path) -> None:
    generator = LocalGenerator(llama, device="cpu", known_as="org/tiny")
    context = Context("the sun", (soft(1, generator="org/tiny@abc"),))
    unknown = generator.context_replies([context], template=TEMPLATE, max_new_tokens=3)
    generator._model.config._commit_hash = "abc"
    assert generator.context_replies([context], template=TEMPLATE, max_new_tokens=3) == unknown
    generator._model.config._commit_hash = "def"
    with pytest.raises(InputError, match="for revision 'abc' of 'org/tiny', this generator is its revision 'def'"):
        generator.generate_contexts([context])
    with pytest.raises(InputError, match="the soft tokens are for 'org/other@abc'"):
        generator.generate_contexts([Context("q", (soft(1, generator="org/other@abc"),))])
