"""A tiny random llama in a folder, with a word-level tokenizer, so that a test can read what it writes."""

from __future__ import annotations

from pathlib import Path

VOCABULARY = "<pad> <s> </s> user the cat sat on a mat and river rock sea cell vote sun moon star"
WORDS = VOCABULARY.split()


def save_llama(folder: Path, *, chat_template: str | None = None) -> Path:
    """A random two-layer llama with a word-level tokenizer and sampling defaults that must not be used."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, initializer_range=0.5, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=True, temperature=5.0, eos_token_id=2, bos_token_id=1)
    model.save_pretrained(folder)
    return folder
