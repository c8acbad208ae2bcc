"""examples/langchain_rag.py answers over a folder with a real, tiny generator, in fewer tokens when it prunes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from fixtures_llama import save_llama

EXAMPLE = Path(__file__).parents[1] / "examples" / "langchain_rag.py"


def test_it_answers_with_and_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "notes"
    corpus.mkdir()
    bridge = "The bridge is of granite. It was opened in 1911. Bread is baked in the morning. Cats sleep all day."
    (corpus / "Harrow Bridge.txt").write_text(bridge, encoding="utf-8")
    (corpus / "Ferries.txt").write_text("Bicycles travel free.", encoding="utf-8")
    main = runpy.run_path(str(EXAMPLE))["main"]
    generator = str(_talkative(save_llama(tmp_path / "llama")))
    capsys.readouterr()
    question = "When was the Harrow Bridge opened?"
    options = ["--generator", generator, "--corpus", str(corpus), "--threshold", "0.6", "--max-new-tokens", "4"]
    main([*options, "-q", question])
    printed = capsys.readouterr().out
    whole, pruned = (int(tokens) for tokens in re.findall(r"(\d+) tokens:", printed))
    assert printed.startswith(question) and 0 < pruned < whole


def _talkative(folder: Path) -> Path:
    """The model with no weight on its special tokens, so that what it writes is words: nothing would be no answer."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[:3] = 0
    model.save_pretrained(folder)
    return folder


def test_a_corpus_of_ones_own_needs_a_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLE))["main"]
    with pytest.raises(SystemExit):
        main(["--generator", "none", "--corpus", str(tmp_path)])
    assert "needs a question" in capsys.readouterr().err
