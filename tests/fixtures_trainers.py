"""What trainers start from in tests: a tiny random BERT, and questions that it can learn to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fixtures_checkpoints import bert_tokenizer
from transformers import BertConfig, BertModel

SENTENCES = ("the moon orbits mars.", "a planet is red.", "it is of cheese.", "two moons and fear.")


def save_bert(folder: Path) -> Path:
    tokenizer = bert_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = BertConfig(vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=128, **sizes)
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def labelled_question(number: int, order: Sequence[int]) -> dict[str, Any]:
    """It asks for one word; the sentence that holds it is relevant."""
    answer, sentence = ("mars", "red", "cheese", "fear")[number % 4], SENTENCES[number % 4]
    text = " ".join(SENTENCES[place] for place in order)
    start, place = text.index(sentence), text.index(answer)
    gold = {
        "text": f"{text} number {number}.",
        "is_gold": True,
        "answer_spans": [[place, place + len(answer)]],
        "relevant_sentences": [[start, start + len(sentence)]],
    }
    other = {"text": "named after a planet and two moons.", "is_gold": False, "relevant_sentences": []}
    return {"id": str(number), "question": f"what is {answer}", "answers": [answer], "documents": [gold, other]}
