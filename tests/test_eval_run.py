"""A benchmark run from end to end: small questions, real compressors, an endpoint that answers on a script."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from fixtures_towns import checked

from ctxprune.cli import main
from ctxprune.compressors.sentences import BM25Sentences
from ctxprune.errors import GeneratorError, InputError
from ctxprune.eval.config import GeneratorConfig, config_from
from ctxprune.eval.run.folder import claimed
from ctxprune.eval.run.runner import run
from ctxprune.eval.run.samples import configured
from ctxprune.eval.run.score import METRICS


def answer(body):
    """Reads the year from the sentence about the bridge that is asked for; else says that it does not know."""
    prompt = body["messages"][-1]["content"]
    town = re.findall(r"bridge of (\w+) opened\?", prompt)[-1]
    found = re.search(rf"bridge of {town} was opened in (\d+)", prompt)
    return json.dumps({"choices": [{"message": {"content": found[1] if found else "I do not know."}}]})


def results_of(folder: Path):
    return json.loads((folder / "results.json").read_text())


def without_seconds(results):
    """What two equal runs must agree in."""
    results = {name: value for name, value in results.items() if name != "timings"}
    for row in results["rows"]:
        row["metrics"] = {name: value for name, value in row["metrics"].items() if not name.endswith("_seconds")}
    return results


@pytest.fixture
def endpoint(serve):
    return serve(lambda number, body: (200, {}, answer(body)))


def openai(endpoint, **more):
    return {"kind": "openai", "model": "tiny", "base_url": endpoint.base_url, "batch_size": 1, **more}


def test_a_run_measures_every_arm_on_every_question(towns, endpoint, tmp_path):
    results = run(checked(towns, generator=openai(endpoint)), tmp_path / "run", cache=tmp_path / "cache")
    rows = {row["arm"]: row for row in results["rows"]}
    tested = "bm25-sentences budget=30"
    baselines = ("lead", "random", "bm25-sentences", "rerank-truncate")
    assert set(rows) == {"full", "none", "gold", tested, *(f"{name} tokens_of={tested}" for name in baselines)}
    assert {row["n"] for row in rows.values()} == {6}
    mean = {arm: {name: row["metrics"][name]["mean"] for name in METRICS} for arm, row in rows.items()}
    assert mean["full"]["match"] == mean["gold"]["match"] == 1.0
    assert mean["none"]["match"] == 0.0 and mean["none"]["tokens_after"] == 0
    assert mean["full"]["refusal"] == 1.0
    assert mean[tested]["boost"] == mean[tested]["match"] and mean[tested]["resilience"] is None
    assert mean[tested]["answer_in_context"] == 1.0
    assert mean[tested]["tokens_after"] <= 30 and mean[tested]["over_budget"] == 0.0
    assert rows[tested]["vs_full"]["match"]["difference"] == 0.0
    assert set(rows[tested]["vs_rerank"]) >= {"match", "answer_in_context"}
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "env.json", "results.json", "samples.jsonl", "leaderboard.md", "report.html"} <= names


def test_gold_documents_are_a_reference_that_is_asked_for(towns, endpoint, tmp_path):
    config = checked(towns, generator=openai(endpoint), baselines=["gold", "gold-documents"])
    rows = {row["arm"]: row for row in run(config, tmp_path / "run", cache=tmp_path / "cache")["rows"]}
    assert list(rows) == ["full", "gold", "gold-documents", "bm25-sentences budget=30"]
    assert rows["gold"]["tokens_after"] < rows["gold-documents"]["tokens_after"] < rows["full"]["tokens_after"]
    assert rows["gold-documents"]["metrics"]["match"]["mean"] == 1.0
    assert rows["gold-documents"]["vs_rerank"] == rows["gold-documents"]["vs_baselines"] == {}
    board = (tmp_path / "run" / "leaderboard.md").read_text().splitlines()
    marks = {line.split("`")[1]: line.rstrip("| ")[-3:] for line in board if line.startswith(("| `gold", "| `bm25"))}
    assert "yes" not in (marks["gold"], marks["gold-documents"])  # they know the answers, so they beat nobody


def completion(number, body):
    """A base model's: the year in the line above the question, and then more than was asked for."""
    found = re.search(r"opened in (\d+)", body["prompt"])
    return (200, {}, json.dumps({"choices": [{"text": f" {found[1] if found else 'nobody knows'}"}]}))


def test_a_base_model_is_shown_examples_and_told_where_to_stop(towns, serve, tmp_path):
    endpoint = serve(completion)
    shot = "Text: A pond lies in Wex.\nQuestion: What lies in Wex?\nAnswer: a pond\n\n"
    base = openai(endpoint, chat=False, stop=["\n"])
    templates = {
        "template": shot + "Text: {context}\nQuestion: {question}\nAnswer:",
        "closed_book_template": "Question: Who?\nAnswer: me\n\nQuestion: {question}\nAnswer:",
    }
    results = run(checked(towns, generator=base, **templates), tmp_path / "run", cache=tmp_path / "cache")
    rows = {row["arm"]: row for row in results["rows"]}
    assert rows["gold"]["metrics"]["match"]["mean"] == 1.0 and rows["none"]["metrics"]["match"]["mean"] == 0.0
    assert {path for path, _, _ in endpoint.seen} == {"/v1/completions"}
    assert all(body["stop"] == ["\n"] and body["prompt"].endswith("\nAnswer:") for _, _, body in endpoint.seen)
    asked = len(endpoint.seen)
    run(checked(towns, generator=base | {"stop": ["\n", "."]}, **templates), tmp_path / "b", cache=tmp_path / "cache")
    assert len(endpoint.seen) == 2 * asked  # with other stops the answers are others


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_prompts_with_one_beginning_follow_each_other_and_answers_are_the_same(towns, serve, tmp_path, in_flight):
    answers = {}
    for order in ("length", "beginning"):
        endpoint = serve(lambda number, body: (200, {}, answer(body)))
        config = checked(towns, generator=openai(endpoint, order=order, batch_size=in_flight))
        found = run(config, tmp_path / order, cache=tmp_path / f"{order}.cache")
        answers[order] = [(row["arm"], row["metrics"]["match"]) for row in found["rows"]]
        asked = [body["messages"][-1]["content"] for _, _, body in endpoint.seen]
        assert len(set(asked)) == len(asked) and endpoint.most_in_flight <= in_flight
        if order == "beginning":
            assert all(row["metrics"]["generate_seconds"]["mean"] is None for row in found["rows"])
            if in_flight == 1:
                assert asked == sorted(asked)
    assert answers["length"] == answers["beginning"]


@pytest.mark.parametrize(("more", "seconds"), [({}, 60.0), ({"timeout": 900}, 900.0)])
def test_an_endpoint_on_a_slow_machine_may_take_longer(more, seconds):
    settings = {"kind": "openai", "model": "m", "base_url": "http://x/v1", **more}
    with configured(GeneratorConfig(**settings)) as generator:
        assert generator._transport._timeout == seconds


def test_asking_by_beginnings_goes_on_where_it_stopped(towns, serve, tmp_path):
    endpoint = serve(lambda number, body: (400, {}, "down") if number == 20 else (200, {}, answer(body)))
    config = checked(towns, generator=openai(endpoint, order="beginning"))
    with pytest.raises(GeneratorError):
        run(config, tmp_path / "run", cache=tmp_path / "cache")
    run(config, tmp_path / "run", cache=tmp_path / "cache")
    asked = Counter(body["messages"][-1]["content"] for _, _, body in endpoint.seen)
    assert sum(asked.values()) - len(asked) <= 4  # of the eight since the last write: those before the failure, and it


def test_a_run_without_the_full_context_never_asks_with_it(towns, endpoint, tmp_path, capsys):
    config = checked(towns, generator=openai(endpoint), full_context=False)
    results = run(config, tmp_path / "run", cache=tmp_path / "cache")
    rows = {row["arm"]: row for row in results["rows"]}
    assert "full" not in rows and len(rows) == 7
    assert all(row["vs_full"] == {} for row in rows.values())
    assert "match" in rows["bm25-sentences budget=30"]["vs_rerank"]
    whole = [document["text"] for document in json.loads(towns.read_text().splitlines()[0])["documents"]]
    prompts = [body["messages"][-1]["content"] for _, _, body in endpoint.seen]
    assert not any(all(text in prompt for text in whole) for prompt in prompts)
    assert main(["eval", "report", str(tmp_path / "run")]) == 0
    assert "| full" not in capsys.readouterr().out


def test_baselines_get_no_more_tokens_than_the_tested_arm_question_by_question(towns, tmp_path):
    run(checked(towns), tmp_path / "run", cache=tmp_path / "cache")
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    tokens = {(line["arm"], line["id"]): line["tokens_after"] for line in lines}
    matched = [line for line in lines if "tokens_of" in line["settings"]]
    assert len(matched) == 4 * 6
    assert all(line["tokens_after"] <= tokens[line["settings"]["tokens_of"], line["id"]] for line in matched)
    for line in lines:
        for document in line["documents"]:
            assert all(0 <= span["start"] < span["end"] for span in document["kept_spans"] + document["removed_spans"])


@pytest.mark.parametrize("frugal", [False, True])
def test_a_rate_is_a_share_of_the_tokens_of_each_question(towns, tmp_path, monkeypatch, frugal):
    class Frugal(BM25Sentences):
        """Chooses by a rule of its own: it keeps to half of what it may use."""

        def compress(self, contexts, *, budget=None, threshold=None):
            return super().compress(contexts, budget=budget // 2, threshold=threshold)

    if frugal:
        monkeypatch.setattr("ctxprune.compressors.sentences.BM25Sentences", Frugal)
    tested = {"compressors": [{"name": "bm25-sentences", "rates": [0.5, 0.25], "baselines": []}]}
    run(checked(towns, **tested), tmp_path / "run", cache=tmp_path / "cache")
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    mine = [line for line in lines if "rate" in line["settings"]]
    assert len(mine) == 12
    for line in mine:
        allowed = int(line["settings"]["rate"] * line["tokens_before"])
        assert 0 < line["tokens_after"] <= (allowed // 2 if frugal else allowed) and line["budget"] == allowed


def test_equal_settings_give_equal_results_with_and_without_the_cache(towns, endpoint, tmp_path):
    config = checked(towns, generator=openai(endpoint))
    caches = ("one", "one", "two")
    folders = [tmp_path / f"run{place}" for place in range(3)]
    for folder, cache in zip(folders, caches, strict=True):
        run(config, folder, cache=tmp_path / cache)
    first, *others = [without_seconds(results_of(folder)) for folder in folders]
    assert all(other == first for other in others)


def test_an_endpoint_that_goes_down_costs_no_answer_twice(towns, serve, tmp_path):
    endpoint = serve(lambda number, body: (400, {}, "down") if number == 9 else (200, {}, answer(body)))
    config = checked(towns, generator=openai(endpoint))
    folder = tmp_path / "run"
    with pytest.raises(GeneratorError):
        run(config, folder, cache=tmp_path / "cache")
    assert not (folder / "results.json").exists() and not (folder / "samples.jsonl").exists()
    run(config, folder, cache=tmp_path / "cache")
    asked = Counter(body["messages"][-1]["content"] for _, _, body in endpoint.seen)
    assert sorted(asked.values())[-2:] == [1, 2]  # only the prompt that failed was asked again


@pytest.mark.parametrize("models", [["tiny-1"], ["tiny-1", "tiny-2"]])
def test_an_endpoint_that_changes_its_model_midway_is_named(towns, serve, tmp_path, models):
    def answering(number, body):
        return 200, {}, json.dumps(json.loads(answer(body)) | {"model": models[number > 5 and len(models) > 1]})

    config = checked(towns, generator=openai(serve(answering)))
    for folder in ("first", "cached"):
        results = run(config, tmp_path / folder, cache=tmp_path / "cache")
        assert results["answered_by"] == models
        warned = [
            "Answers came from 2 models: tiny-1, tiny-2" in (tmp_path / folder / name).read_text().replace("\\", "")
            for name in ("leaderboard.md", "report.html")
        ]
        assert warned == [len(models) > 1] * 2


def test_a_changed_setting_asks_only_what_is_new(towns, endpoint, tmp_path):
    run(checked(towns, generator=openai(endpoint)), tmp_path / "a", cache=tmp_path / "cache")
    before = {body["messages"][-1]["content"] for _, _, body in endpoint.seen}
    wider = {"compressors": [{"name": "bm25-sentences", "budgets": [30, 60]}]}
    run(checked(towns, generator=openai(endpoint), **wider), tmp_path / "b", cache=tmp_path / "cache")
    asked = [body["messages"][-1]["content"] for _, _, body in endpoint.seen]
    assert len(set(asked)) == len(asked) > len(before)


def test_a_price_tells_when_compression_saves_money(towns, endpoint, tmp_path):
    price = {"per_million_tokens": 2.5, "per_compute_hour": 0.1}
    run(checked(towns, price=price), tmp_path / "run", cache=tmp_path / "cache")
    assert "break-even tokens by price" in (tmp_path / "run" / "report.html").read_text()


def test_the_bill_counts_answers_and_says_when_nothing_is_saved(towns, endpoint, tmp_path):
    price = {"per_million_tokens": 2.0, "per_million_output_tokens": 8.0, "per_compute_hour": 0.0}
    results = run(checked(towns, generator=openai(endpoint), price=price), tmp_path / "run", cache=tmp_path / "cache")
    rows = {row["arm"]: row for row in results["rows"]}
    full, ours = rows["full"], rows["bm25-sentences budget=30"]
    before, after = (row["metrics"]["answer_tokens"]["mean"] for row in (full, ours))
    assert before > 0 and after > 0
    bill = [(2 * row["tokens_after"] + 8 * tokens) / 1000 for row, tokens in ((full, before), (ours, after))]
    text = (tmp_path / "run" / "leaderboard.md").read_text().partition("What 1,000 questions cost:")[2]
    lines = {line.split("|")[1].strip(" `"): line.split("|")[2:-1] for line in text.splitlines() if "|" in line}
    assert [float(lines[arm][3]) for arm in ("full", "bm25-sentences budget=30")] == pytest.approx(bill, rel=1e-3)
    assert float(lines["bm25-sentences budget=30"][4]) == pytest.approx(100 * (1 - bill[1] / bill[0]), abs=0.06)
    even = (2 * full["tokens_after"] + 8 * before - 2 * ours["tokens_after"]) / 8
    assert float(lines["bm25-sentences budget=30"][6]) == pytest.approx(even, abs=0.51)
    assert "What do 1,000 questions cost?" in (tmp_path / "run" / "report.html").read_text()


def test_samples_are_written_as_ragas_reads_them(towns, endpoint, tmp_path, capsys):
    run(checked(towns, generator=openai(endpoint)), tmp_path / "run", cache=tmp_path / "cache")
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    out = tmp_path / "ragas.jsonl"
    assert main(["eval", "report", str(tmp_path / "run"), "--ragas", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert f"wrote {len(rows)} samples" in capsys.readouterr().err and len(rows) == len(samples)
    for row, sample in zip(rows, samples, strict=True):
        assert (row["user_input"], row.get("reference")) == (sample["query"], next(iter(sample["answers"]), None))
        assert row.get("response") == sample["prediction"]
        assert all(text for text in row["retrieved_contexts"])
    none, full = (next(row for row in rows if row["arm"] == arm) for arm in ("none", "full"))
    assert none["retrieved_contexts"] == [] and full["retrieved_contexts"]
    assert any("reference" in row for row in rows) and any("response" in row for row in rows)
    assert main(["eval", "report", str(tmp_path / "run"), "--ragas", str(tmp_path / "run")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_judge_that_mumbles_counts_as_wrong_and_is_reported(towns, serve, endpoint, tmp_path):
    mumbling = serve(lambda number, body: (200, {}, json.dumps({"choices": [{"message": {"content": "hm"}}]})))
    config = checked(towns, generator=openai(endpoint), judge=openai(mumbling))
    (row, *_) = run(config, tmp_path / "run", cache=tmp_path / "cache")["rows"]
    assert row["metrics"]["judge"]["mean"] == 0.0 and row["metrics"]["judge_unparseable"]["mean"] == 1.0


def test_chains_variants_and_outside_contexts_are_arms_too(towns, tmp_path):
    outside = tmp_path / "theirs.jsonl"
    rows = [json.loads(line) for line in towns.read_text().splitlines()]
    kept = [{"id": row["id"], "compressed": row["documents"][0]["text"][:20]} for row in rows]
    outside.write_text("".join(json.dumps(row) + "\n" for row in kept))
    steps = [{"name": "lead", "options": {"budget": 90}}, {"name": "bm25-sentences"}]
    config = config_from(
        {
            "data": [{"path": str(towns), "name": "towns", "needles": [0, 1]}],
            "compressors": [{"name": "chain", "chain": steps, "budgets": [30], "baselines": []}],
            "compressed": [str(outside)],
            "baselines": ["full", "lead"],
            "statistics": {"resamples": 20},
        },
        source="test",
    )
    results = run(config, tmp_path / "run", cache=tmp_path / "cache")
    assert set(results["data_hashes"]) == {"towns", "towns needle=0", "towns needle=1"}
    assert len(set(results["data_hashes"].values())) == 3
    arms = [row["arm"] for row in results["rows"] if row["dataset"] == "towns needle=1"]
    assert arms == ["full", "chain budget=30", "theirs.jsonl", "lead tokens_of=theirs.jsonl"]
    sizes = {row["dataset"]: row["n"] for row in results["rows"]}
    assert sizes == {"towns": 6, "towns needle=0": 5, "towns needle=1": 5}


def test_one_run_at_a_time_in_a_folder(towns, tmp_path):
    config = checked(towns)
    with (
        claimed(tmp_path / "run", config.hash),
        pytest.raises(InputError, match=r"another process is writing to .*another folder"),
    ):
        run(config, tmp_path / "run", cache=tmp_path / "cache")


def test_what_a_killed_run_left_is_removed_by_the_next(towns, tmp_path):
    config = checked(towns)
    out = tmp_path / "run"
    with claimed(out, config.hash):
        for name in (".columns-a1", ".report-b2"):
            (out / name).mkdir()
            (out / name / "1-0").write_bytes(b"x")
    (out / ".mine").write_text("notes")
    with claimed(out, config.hash):
        assert not list(out.glob(".columns-*")) + list(out.glob(".report-*"))
    assert {path.name for path in out.iterdir()} == {"config.hash", ".mine"}
    with pytest.raises(InputError, match="other settings"), claimed(out, "another"):
        pytest.fail("claimed")


def test_a_folder_keeps_to_its_settings(towns, tmp_path):
    run(checked(towns), tmp_path / "run", cache=tmp_path / "cache")
    with pytest.raises(InputError, match="holds a run with other settings"):
        run(checked(towns, baselines=["full"]), tmp_path / "run", cache=tmp_path / "cache")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not empty and holds no run"):
        run(checked(towns), tmp_path / "mine", cache=tmp_path / "cache")
