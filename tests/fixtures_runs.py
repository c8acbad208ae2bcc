"""A small finished benchmark run, written by hand in the shapes of results.json and samples.jsonl."""

import json
from pathlib import Path

FULL_TEXTS = ("The tower is in Paris. It was built in 1889. Many people visit it.", "A river runs by. It is long.")
KEPT = {"provence threshold=0.1": (23, 44), "lead": (0, 22)}
ARMS = (
    ("full", {}, 24, 40.0),
    ("none", {}, 0, 10.0),
    ("gold", {}, 6, 70.0),
    ("provence", {"threshold": 0.1}, 8, 50.0),
    ("lead", {"tokens_of": "provence threshold=0.1"}, 8, 20.0),
    ("rerank-truncate", {"tokens_of": "provence threshold=0.1"}, 8, 45.0),
    ("provence", {"threshold": 0.5}, 4, 30.0),
    ("rerank-truncate", {"tokens_of": "provence threshold=0.5"}, 4, 35.0),
)


def arm_id(compressor: str, settings: dict) -> str:
    return " ".join([compressor, *(f"{name}={value}" for name, value in settings.items())])


def figure(mean, spread=0.05, n=10):
    return {"mean": mean, "low": None if mean is None else mean - spread, "high": mean and mean + spread, "n": n}


def difference(value, spread=0.05, *, p_holm=0.5, non_inferior=False):
    ends = {"low": value - spread, "high": value + spread, "p": p_holm / 2, "p_holm": p_holm}
    return {"difference": value, **ends, "non_inferior": non_inferior}


def row(dataset, compressor, settings, tokens, percent, *, generator=True):
    score = percent / 100
    metrics = {"answer_in_context": figure(min(1.0, score + 0.2)), "sentence_recall": figure(None)}
    if generator:
        answers = {"match": figure(score), "f1": figure(score / 2), "generate_seconds": figure(0.01 * tokens, 0.0)}
        metrics = answers | metrics
    if compressor != "full":
        metrics["compress_seconds"] = figure(0.02, 0.0)
    full = 0.4
    vs_full = {} if compressor == "full" else {"match": difference(score - full, p_holm=0.01), "f1": difference(0.0)}
    tested = compressor not in ("full", "none", "gold") and "tokens_of" not in settings
    return {
        "dataset": dataset,
        "compressor": compressor,
        "settings": settings,
        "arm": arm_id(compressor, settings),
        "n": 10,
        "tokens_before": 24,
        "tokens_after": tokens,
        "metrics": metrics,
        "vs_full": vs_full if generator else {},
        "vs_rerank": {"match": difference(0.01, non_inferior=True)} if tested and generator else {},
        "vs_baselines": {"lead": {"match": difference(0.3)}, "rerank-truncate": {"match": difference(0.01)}}
        if tested and generator
        else {},
    }


def results(*datasets, generator=True):
    names = datasets or ("towers",)
    return {
        "rows": [row(name, *arm, generator=generator) for name in names for arm in ARMS],
        "config_hash": "c0ffee",
        "data_hashes": {name: f"hash-{name}" for name in names},
        "versions": {"ctxprune": "0.1.0"},
        "statistics": {"resamples": 200, "confidence": 0.95, "margin": 0.01, "seed": 0},
        "timings": {"compress": 1.5},
    }


def spans(text, kept):
    """Contiguous kept and removed stretches of a text of which `kept` (start, end) stays; None: nothing stays."""
    start, end = kept or (0, 0)
    removed = [(0, start), (end, len(text))]
    return {
        "kept_spans": [{"start": start, "end": end, "score": 0.9}] if kept else [],
        "removed_spans": [{"start": a, "end": b, "score": 0.1} for a, b in removed if a < b],
    }


def documents(arm, texts=FULL_TEXTS):
    kept = [(0, len(text)) for text in texts] if arm == "full" else [None, None] if arm == "none" else [(23, 44), None]
    return [
        {"index": place, "id": f"d{place}", "title": f"Title {place}", "score": 0.5, "dropped": part is None}
        | {"text": text[slice(*part)] if part else ""}
        | spans(text, part)
        for place, (text, part) in enumerate(zip(texts, kept, strict=True))
    ]


def sample(dataset, arm, tokens, number, match, *, query=None, prediction="1889", texts=FULL_TEXTS, **changes):
    metrics = {"match": match, "f1": match, "answer_in_context": 1.0, "sentence_recall": None}
    times = {"generate_seconds": 0.01 * tokens + 0.001 * number, "compress_seconds": 0.02}
    return {
        "id": f"q{number}",
        "query": query or f"When was tower {number} built?",
        "compressor": arm.split()[0],
        "status": "compressed",
        "documents": documents(arm, texts),
        "text": "It was built in 1889.",
        "tokens_before": 24,
        "tokens_after": tokens,
        "dataset": dataset,
        "arm": arm,
        "settings": {},
        "answers": ["1889"],
        "answerable": True,
        "prediction": prediction,
        "metrics": metrics | times,
    } | changes


def samples(dataset="towers", n=10, **changes):
    """Full is right on all but the last; provence 0.1 loses questions 2 and 5, provence 0.5 also 7."""
    lost = {"provence threshold=0.1": {2, 5}, "provence threshold=0.5": {2, 5, 7}, "none": set(range(n))}
    for number in range(n):
        for compressor, settings, tokens, _ in ARMS:
            arm = arm_id(compressor, settings)
            wrong = number in lost.get(arm, ()) or number == n - 1
            yield sample(dataset, arm, tokens, number, float(not wrong), **changes)


def write_run(folder: Path, found=None, lines=None, config="generator:\n  kind: none\n", environment=None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    (folder / "env.json").write_text(json.dumps(environment or {"processor": "small"}), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(found or results()), encoding="utf-8")
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in (samples() if lines is None else lines))
    return folder
