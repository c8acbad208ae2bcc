"""Soft tokens against controls: rows that survive a stop, inputs, shuffles, likelihoods, figures, cost, the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures_llama import WORDS, save_llama
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.measure import Bootstrap
from benchmarks.soft import __main__ as command
from benchmarks.soft.arms import (
    Asked,
    ModelSize,
    TextTokens,
    answer_figures,
    arms,
    identification_figures,
    passage_figures,
)
from benchmarks.soft.measure import (
    CANDIDATES,
    PassageMeasure,
    SoftLikelihood,
    bridge_digest,
    measured_rows,
    read_asked,
    read_passages,
)
from benchmarks.soft.names import CLOSED, LENT, MIXED, PRUNED, SENTENCE, SHUFFLED, TEXT, XRAG
from ctxprune.compressors.base import ScoringCompressor, narrow, visible_sentences
from ctxprune.compressors.xrag.bridge import Bridge, BridgeConfig, Projector, save_bridge
from ctxprune.errors import InputError
from ctxprune.generators.soft_prompt import PARAPHRASES
from ctxprune.prompt import readable_text
from ctxprune.types import Context, SoftTokens

WIDTH, OUT = 6, 32
NAME = "org/tiny"


class Hashed:
    """An encoder whose vector of a text is drawn from the text."""

    name = "hashed"
    dimension = WIDTH

    def embed(self, texts: Any) -> np.ndarray:
        rows = [np.random.default_rng(list(text.encode())).standard_normal(WIDTH) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(len(texts), WIDTH)


def bridge(*, encoder: str = "hashed", width: int = WIDTH, constant: bool = True) -> Bridge:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        projector = Projector(width, OUT, scale=math.sqrt(width))
    config = BridgeConfig(generator=NAME, encoder=encoder, d_retriever=width, d_model=OUT)
    return Bridge(projector, config, constant=np.ones(OUT, np.float32) if constant else None)


def passage(number: int) -> str:
    """18 words that the tiny tokenizer knows, another text for each number."""
    rng = np.random.default_rng(number)
    return " ".join(WORDS[place] for place in rng.integers(4, len(WORDS), size=18))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def question_file(folder: Path, count: int) -> Path:
    return write(
        folder / "held.jsonl",
        [
            {
                "question": f"cat sat {number}",
                "answers": [passage(number).split()[3]],
                "documents": [
                    {"text": "the cat sat", "is_gold": True},
                    {"text": passage(number), "is_gold": True},
                ],
            }
            for number in range(count)
        ],
    )


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(model_folder: Path) -> SoftLikelihood:
    return SoftLikelihood(str(model_folder), bridge().config, known_as=NAME, dtype="float32")


# rows


@given(stop=st.integers(0, 9), torn=st.booleans())
@settings(max_examples=20)
def test_a_stopped_measurement_goes_on_and_measures_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory, stop: int, torn: bool
) -> None:
    folder, seen = tmp_path_factory.mktemp("rows"), []

    def squares(some: list[int]) -> list[dict[str, Any]]:
        if stop in some and stop not in seen:
            seen.append(stop)
            raise KeyboardInterrupt
        seen.extend(some)
        return [{"square": number**2} for number in some]

    with pytest.raises(KeyboardInterrupt):
        measured_rows(folder, "part", ["x"], range(10), squares, chunk=2)
    if torn:
        for file in folder.iterdir():
            file.write_text(file.read_text() + '{"squa')
    seen.remove(stop)
    first = [*seen]
    seen.append(stop)
    rows = measured_rows(folder, "part", ["x"], range(10), squares, chunk=2)
    assert [row["square"] for row in rows] == [number**2 for number in range(10)]
    assert first == list(range(stop // 2 * 2))
    assert measured_rows(folder, "part", ["x"], range(6), squares) == rows[:6]


def test_other_settings_have_rows_of_their_own_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    measured_rows(tmp_path, "part", [1], [1], lambda some: [{"a": 1}])
    assert measured_rows(tmp_path, "part", [2], [1], lambda some: [{"a": 2}]) == [{"a": 2}]
    first = next(path for path in tmp_path.iterdir() if '"a": 1' in path.read_text())
    first.write_text("{not json}\n")
    with pytest.raises(InputError, match="delete it"):
        measured_rows(tmp_path, "part", [1], [1], lambda some: [{"a": 1}])


# inputs


def test_passages_are_distinct_beginnings(tmp_path: Path) -> None:
    path = question_file(tmp_path, 9)
    passages = read_passages(path, tokens=12, limit=5, seed=1)
    assert len(set(passages)) == 5
    assert all(any(passage(number).startswith(text) for number in range(9)) for text in passages)
    assert max(len(text.split()) for text in passages) <= 12
    assert "the cat sat" not in read_passages(path, tokens=12, limit=50, seed=1)
    with pytest.raises(InputError, match="2 are needed"):
        read_passages(question_file(tmp_path, 1), tokens=12, limit=5, seed=1)


def test_a_question_gets_the_gold_document_with_its_answer(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in question_file(tmp_path, 6).read_text().splitlines()]
    rows[0]["answers"], rows[1]["answerable"], rows[2]["documents"] = [" "], False, ["not gold"]
    rows[3]["documents"][1]["text"] *= 30
    rows[3]["answers"] = ["moon moon"]
    found = read_asked(write(tmp_path / "held.jsonl.copy", rows), limit=10, max_tokens=60)
    assert [asked.documents for asked in found.asked][1:] == [(passage(4),), (passage(5),)]
    assert found.asked[0].documents == ("the cat sat",)  # no gold document holds the answer: the first
    assert (found.left_out, len(found.asked)) == (3, 3)
    with pytest.raises(InputError, match="at least 2 are needed"):
        read_asked(tmp_path / "held.jsonl.copy", limit=1, max_tokens=60)


# tokens


@given(numbers=st.lists(st.integers(0, 6), max_size=9).filter(lambda some: len({*some}) > 1), seed=st.integers())
@settings(max_examples=30)
def test_shuffled_tokens_are_those_of_another_text(numbers: list[int], seed: int) -> None:
    texts = [passage(number) for number in numbers]
    tokens = TextTokens(bridge(), Hashed(), texts, seed=seed)
    lent = [tokens.of(text)["shuffled"].tobytes() for text in dict.fromkeys(texts)]
    own = [tokens.of(text)["true"].tobytes() for text in dict.fromkeys(texts)]
    assert sorted(lent) == sorted(own)
    assert all(one != other for one, other in zip(lent, own, strict=True))


def test_tokens_are_the_bridges_and_the_constant_may_be_missing() -> None:
    made = bridge(constant=False)
    tokens = TextTokens(made, Hashed(), ["one", "two"], seed=0)
    assert np.allclose(tokens.of("two")["true"], made.project(Hashed().embed(["two"])), atol=1e-6)
    assert "constant" not in tokens.of("one")
    asked = arms(Asked("1", "who", ("x",), ("one",)), tokens)
    assert list(asked) == [CLOSED, SHUFFLED, XRAG, TEXT]
    assert isinstance(asked[XRAG].pieces[0], SoftTokens)
    with pytest.raises(InputError, match="2 texts or more"):
        TextTokens(made, Hashed(), ["one", "one"], seed=0)
    assert bridge_digest(made) == bridge_digest(bridge(constant=False)) != bridge_digest(bridge())


# likelihoods


def test_nats_are_those_of_single_forward_passes(model: SoftLikelihood) -> None:
    passages = [passage(number) for number in range(CANDIDATES + 1)]
    tokens = TextTokens(bridge(), Hashed(), passages, seed=0)
    measure = PassageMeasure(passages, tokens, lambda: model)
    (row,) = measure.likelihoods([9])
    assert row["tokens"] == 18
    for name, soft in [*tokens.of(passages[9]).items(), ("none", np.zeros((0, OUT), np.float32))]:
        assert row["nats"][name] == pytest.approx(slow_nats(model, 9, soft, passages[9]), abs=1e-3)
    (found,) = measure.identifications([3])
    assert found["own"] == 3
    for place in (0, 3, 31):
        expected = slow_nats(model, 3, tokens.of(passages[place])["true"], passages[3])
        assert found["nats"][place] == pytest.approx(expected, abs=1e-3)
    with pytest.raises(InputError, match="32 are needed"):
        measure.identifications([32])


def slow_nats(model: SoftLikelihood, place: int, soft: np.ndarray, text: str) -> float:
    llama, tokenizer = model._model, model._tokenizer
    before, after = PARAPHRASES[place % len(PARAPHRASES)]
    ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after, text)]
    table = llama.get_input_embeddings()
    head, tail, target = (table(torch.tensor(part, dtype=torch.int64)) for part in ids)
    with torch.no_grad():
        embeds = torch.cat([head, torch.from_numpy(soft), tail, target])[None]
        logs = llama(inputs_embeds=embeds).logits[0].log_softmax(-1)
    first = len(head) + len(soft) + len(tail) - 1
    return -sum(float(logs[first + step, token]) for step, token in enumerate(ids[2]))


def test_a_bridge_for_another_model_is_refused(model_folder: Path) -> None:
    with pytest.raises(InputError, match="known_as='org/tiny'"):
        SoftLikelihood(str(model_folder), bridge().config)


# figures


def test_passage_and_identification_figures() -> None:
    rows = [{"tokens": 10, "nats": {"true": 10 + n, "shuffled": 15 + n, "none": 9 + n}} for n in range(4)]
    found = passage_figures(rows, Bootstrap())
    assert found["minus_true"]["shuffled"] == pytest.approx({"mean": 0.5, "low": 0.5, "high": 0.5, "n": 4})
    assert found["true_better"]["shuffled"]["mean"] == 1.0
    assert found["true_better"]["none"]["mean"] == 0.0
    ties = [{"own": 0, "nats": [1.0, 1.0]}, {"own": 1, "nats": [2.0, 1.0]}]
    assert identification_figures(ties, Bootstrap())["right"]["mean"] == 0.5


def test_answer_figures_pair_the_arms() -> None:
    names = (CLOSED, SHUFFLED, XRAG, TEXT)
    likely = [
        {"tokens": 2, "nats": dict.fromkeys(names, 4.0) | {XRAG: 2.0}, "prompt_tokens": dict.fromkeys(names, 7)}
    ] * 4
    right = [(1, 0, 1, 1), (1, 0, 0, 1), (0, 1, 1, 1), (0, 0, 0, 1)]
    written = [{"match": dict(zip(names, map(float, each), strict=True))} for each in right]
    found = answer_figures(likely, written, Bootstrap())
    assert found["arms"][XRAG]["nats"]["mean"] == 1.0
    assert found["xrag_minus"][CLOSED]["nats"]["mean"] == -1.0
    assert found["xrag_minus"][SHUFFLED]["match"]["mean"] == 0.25
    assert [found["kept"][XRAG][name]["mean"] for name in ("resilience", "boost")] == [0.5, 0.5]
    assert [found["kept"][SHUFFLED][name]["n"] for name in ("resilience", "boost")] == [2, 2]


# cost


def test_prefill_operations_are_those_of_each_token_in_turn(model_folder: Path, model: SoftLikelihood) -> None:
    size = ModelSize.of(str(model_folder))
    inner = sum(each.numel() for name, each in model._model.named_parameters() if "embed" not in name)
    assert size.parameters == inner - (0 if model._model.config.tie_word_embeddings else len(WORDS) * OUT)
    slow = 2 * len(WORDS) * OUT
    for token in range(1, 6):
        slow += 2 * size.parameters + 2 * (2 * OUT * token + 2 * OUT * token)  # two layers, keys and values
    assert size.prefill_flops(5) == slow


# the command


def test_the_command_writes_its_report_and_repeats_nothing(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "load_embedder", lambda name: Hashed())
    save_bridge(bridge(), tmp_path / "bridge")
    held = question_file(tmp_path, CANDIDATES + 2)
    argv = ["--bridge", str(tmp_path / "bridge"), "--generator", str(model_folder), "--known-as", NAME]
    argv += ["--passages", str(held), "--questions", str(held), "--limit", "3", "--identify", "8", "--rounds", "2"]
    argv += ["--cost-questions", "1", "--max-new-tokens", "3", "--dtype", "float32", "--out", str(tmp_path / "out")]
    assert command.main(argv) == 0
    first = capsys.readouterr().out
    assert "best sentence" not in first
    for words in ("## Passages", "Identification", "### held", "| xRAG", "resilience", "## Cost", "--bridge bridge"):
        assert words in first
    assert str(tmp_path.parent) not in first
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["sets"]["held"]["mixed_minus"] == {}
    assert report["identification"]["passages"] == 8
    assert report["sets"]["held"]["arms"][XRAG]["prompt_tokens"] < report["sets"]["held"]["arms"][TEXT]["prompt_tokens"]
    assert report["cost"]["arms"][TEXT]["whole"]["faster"]["median"] == 1.0
    for name in ("SoftLikelihood", "LocalGenerator"):
        monkeypatch.setattr(command, name, None)  # nothing may be loaded again
    assert command.main(argv) == 0
    assert capsys.readouterr().out == first


SENTENCES = "The sun rose *** high. Moon sea rock. Cats sat on mats."


class Starred(ScoringCompressor):
    """Sentences with a star are best."""

    name = "starred"
    default_threshold = 0.5

    def score(self, contexts: Any) -> list[Context]:
        return [Context(each.query, [self._scored(extract) for extract in each.extracts]) for each in contexts]

    def _scored(self, extract: Any) -> Any:
        text = extract.source.text
        units = visible_sentences(extract)
        return narrow(extract, [replace(unit, score=0.9 * ("*" in text[unit.start : unit.end])) for unit in units])


def piecewise() -> Bridge:
    made = bridge()
    return Bridge(made.projector, replace(made.config, shard_tokens=40, pieces="sentences"), constant=made.constant)


def test_a_policys_best_sentence_stands_alone_and_beside_the_vectors_of_the_rest() -> None:
    documents = ("Gulls cry.", SENTENCES)
    tokens = TextTokens(piecewise(), Hashed(), documents, seed=0, policy=Starred)
    asked = arms(Asked("1", "who", ("x",), documents), tokens)
    assert list(asked) == [CLOSED, "constant token", SHUFFLED, XRAG, SENTENCE, LENT, MIXED, PRUNED, TEXT]
    assert [len(piece.embeddings) for piece in asked[XRAG].pieces] == [1, 3]
    assert [len(piece.embeddings) for piece in asked[SHUFFLED].pieces] == [3, 1]
    first, second = asked[MIXED].pieces
    assert [len(first.embeddings), len(second.embeddings)] == [1, 2]
    assert second.expanded.text == "The sun rose *** high."
    gulls = tokens.of("Gulls cry.")["true"]
    lent = asked[LENT].pieces[1]
    assert np.array_equal(lent.embeddings, np.concatenate([gulls, gulls])) and lent.expanded == second.expanded
    for arm in (SENTENCE, PRUNED):
        assert readable_text(asked[arm]) == "The sun rose *** high."
        assert not any(isinstance(piece, SoftTokens) for piece in asked[arm].pieces)


def test_questions_with_retrieved_documents_keep_them_all(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in question_file(tmp_path, 3).read_text().splitlines()]
    rows[1]["documents"].append({"text": "rock sea", "is_gold": False})
    found = read_asked(write(tmp_path / "held.jsonl", rows), limit=9, max_tokens=60)
    assert [len(asked.documents) for asked in found.asked] == [1, 3, 1]


def test_a_document_is_hidden_among_others_of_its_file_that_lack_the_answer(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in question_file(tmp_path, 8).read_text().splitlines()]
    for row in rows:
        [document] = row["documents"] = row["documents"][1:]
        start = document["text"].index(row["answers"][0])
        document["answer_spans"] = [[start, start + len(row["answers"][0])]]
    rows[0]["documents"].append({"text": "rock sea", "is_gold": False})  # has others already: left out
    del rows[1]["documents"][0]["answer_spans"]
    path = write(tmp_path / "held.jsonl", rows)
    found = read_asked(path, limit=9, max_tokens=60, among=3)
    assert found.name == "held-among-3" and len(found.asked) + found.left_out == len(rows)
    for asked in found.asked:
        assert len({*asked.documents}) == 3 and sum(asked.answers[0] in text.split() for text in asked.documents) == 1
    assert len({asked.documents.index(passage(int(asked.question.split()[-1]))) for asked in found.asked}) > 1
    with pytest.raises(InputError, match="2 or more, itself included, got 1"):
        read_asked(path, limit=9, max_tokens=60, among=1)


def test_the_command_compares_with_a_policy(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "load_embedder", lambda name: Hashed())
    save_bridge(piecewise(), tmp_path / "bridge")
    held = question_file(tmp_path, 3)
    argv = ["--bridge", str(tmp_path / "bridge"), "--generator", str(model_folder), "--known-as", NAME]
    argv += ["--passages", str(held), "--questions", f"{held}:2", "--identify", "0", "--rounds", "1"]
    argv += ["--policy", "bm25-sentences", "--cost-questions", "1", "--max-new-tokens", "2", "--dtype", "float32"]
    assert command.main([*argv, "--out", str(tmp_path / "out")]) == 1  # no threshold: it prunes by a budget alone
    assert "bm25-sentences only ranks" in capsys.readouterr().err
    argv[argv.index("bm25-sentences")] = "provence"
    assert command.main([*argv, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "best sentence + xRAG − this" in shown and shown.count("| pruned text") == 3
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["sets"]["held"]["questions"] == 2
    assert set(report["cost"]["arms"]) == {CLOSED, XRAG, MIXED, PRUNED, TEXT}


def test_bad_input_is_one_line_and_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_bridge(bridge(encoder="bundled"), tmp_path / "bridge")
    held = question_file(tmp_path, 1)
    options = ["--passages", str(held), "--questions", str(held), "--out", str(tmp_path / "out")]
    assert command.main(["--bridge", str(tmp_path / "bridge"), "--generator", "none", *options]) == 1
    assert "2 are needed" in capsys.readouterr().err
