"""sentence-transformers' CrossEncoder with random weights in the shape of MiniLM-L6: its speed and no more."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from serve import Compress, random_bert, serve


def load(task: dict[str, Any]) -> Compress:
    from sentence_transformers import CrossEncoder

    folder = random_bert(task, Path(mkdtemp()) / "model", head="BertForSequenceClassification", labels=1)
    model = CrossEncoder(str(folder), device="cpu", max_length=512)

    def compress(question: str, texts: list[str], budget: int) -> str:
        scores = model.predict([(question, text) for text in texts], show_progress_bar=False)
        order = sorted(range(len(texts)), key=lambda place: -float(scores[place]))
        return "\n\n".join(texts[place] for place in order)

    return compress


if __name__ == "__main__":
    serve(load)
