"""headroom-ai's `compress` on the documents as a user message; offline, without its Kompress model, it falls back.

The fallback is what its own pipeline does without a model (crushers of JSON, logs and text); the row names it.
"""

from __future__ import annotations

import os
from typing import Any

from serve import Compress, serve


def load(task: dict[str, Any]) -> Compress:
    os.environ |= {"HF_HUB_OFFLINE": "1", "HEADROOM_TELEMETRY": "off", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    import headroom

    def compress(question: str, texts: list[str], budget: int) -> str:
        ratio = min(1.0, budget / max(1, sum(len(text.split()) for text in texts)))
        messages = [
            {"role": "user", "content": "\n\n".join(texts)},
            {"role": "user", "content": question},
        ]
        done = headroom.compress(
            messages, model="gpt-4o", compress_user_messages=True, target_ratio=ratio, protect_recent=1
        )
        return str(done.messages[0]["content"])

    return compress


if __name__ == "__main__":
    serve(load)
