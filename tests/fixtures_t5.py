"""A tiny random T5 and llama with a word-level tokenizer, and LoRA adapters for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

VOCABULARY = "<pad> </s> <unk> Question: Document: Summary: the cat sat on mat and river rock sea sun moon star vote"
WORDS = VOCABULARY.split()
SOURCES = ["the cat", "river and rock and the sea", "sun", "vote", "the cat sat on the mat and the moon", "sea sea"]


def save_t5(folder: Path, *, ends_at_once: bool = False) -> Path:
    """One random layer each way; with beams in its generation config, which must not be used.

    ends_at_once: it writes nothing, whatever it reads.
    """
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    _tokenizer().save_pretrained(folder)
    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0,
        initializer_factor=8.0, dropout_rate=0.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = T5ForConditionalGeneration(config)
    if ends_at_once:
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if name.endswith(("o.weight", "wo.weight")):
                    weights.zero_()  # so that the layers add nothing to the start token's vector
            model.shared.weight.zero_()
            model.shared.weight[0], model.shared.weight[1] = 1.0, 2.0
    model.generation_config.num_beams = 3
    model.save_pretrained(folder)
    return folder


def save_llama(folder: Path) -> Path:
    """One random layer, without a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    _tokenizer().save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=512, initializer_range=0.5, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_lora(model: Any, folder: Path, *, modules: Sequence[str]) -> Path:
    """An adapter of rank 2 for the model, whose both matrices are random, so that it changes the outputs."""
    import torch
    from peft import LoraConfig, get_peft_model

    task = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = LoraConfig(r=2, lora_alpha=64, target_modules=list(modules), init_lora_weights=False, task_type=task)
        get_peft_model(model, config).save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
