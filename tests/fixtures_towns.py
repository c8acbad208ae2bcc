"""Questions about the bridges of six towns, and the settings of a small run on them."""

import json
from pathlib import Path

import pytest

TOWNS = ("Arbon", "Belm", "Corvo", "Durn", "Esker", "Fjall")


def write_questions(path: Path, count: int = 6) -> Path:
    """`count` questions about `count` towns, all towns' passages with each; the last one cannot be answered."""
    passages = [
        f"{town} lies on a hill. The bridge of {town} was opened in {1900 + place}. Geese nest there in spring."
        for place, town in enumerate(TOWNS)
    ]
    rows = []
    for place, town in enumerate(TOWNS[:count]):
        year, answerable = str(1900 + place), place < count - 1
        documents = []
        for number, text in enumerate(passages):
            gold = answerable and number == place
            start = text.index(year) if gold else 0
            sentence = [text.index("The bridge"), text.index(" Geese")]
            documents.append(
                {
                    "id": f"d{number}",
                    "title": TOWNS[number],
                    "text": text,
                    "is_gold": gold,
                    "answer_spans": [[start, start + 4]] if gold else [],
                    "relevant_sentences": [sentence] if gold else [],
                }
            )
        question = f"When was the bridge of {town if answerable else 'Zorn'} opened?"
        rows.append(
            {
                "id": f"q{place}",
                "question": question,
                "answers": [year] if answerable else [],
                "answerable": answerable,
                "documents": documents,
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def settings(data: Path, **more):
    return {
        "data": [{"path": str(data), "name": "towns"}],
        "compressors": [{"name": "bm25-sentences", "budgets": [30]}],
        "statistics": {"resamples": 50},
        **more,
    }


def checked(data: Path, **more):
    from ctxprune.eval.config import (
        config_from,
    )  # not above: every test loads this file, those of the sources' tree too

    return config_from(settings(data, **more), source="test")


@pytest.fixture
def towns(tmp_path):
    return write_questions(tmp_path / "towns.jsonl")
