"""Count words in any script: runs between white space, and each Han, kana, Thai, Lao or Khmer character as one."""

from __future__ import annotations

import re
from collections.abc import Sequence

# without these a Chinese paragraph would be one word, and every share of words removed 0 or 1
_UNSPACED = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


class ScriptWords:
    """White-space separated words, as `ctxprune.tokens.WordCounter`, but for scripts that put no space between them."""

    name = "words"
    exact = True

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len((text if text.isascii() else _UNSPACED.sub(r" \g<0> ", text)).split()) for text in texts]
