"""A tiny causal reward model with a chat template, as reward models are saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# The folders of the tests are all that is loaded.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

WORDS = ["say", "hello", "please", "go", "away", "now", "very", "kind", "words"]
N_DIMENSIONS = 16
N_POSITIONS = 64
CHAT = (
    "{{ bos_token }}{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}{% endfor %}"
)


def fast_tokenizer(chat_template: str | None = CHAT, words: Sequence[str] = WORDS, **settings):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "<s>", "</s>", "<user>", "<assistant>"]
    tokenizer.train_from_iterator([words], trainers.WordLevelTrainer(special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", **settings
    )
    fast.chat_template = chat_template
    return fast


def save_llama(
    folder: Path, head: str = "LlamaForSequenceClassification", words: Sequence[str] = WORDS, **tokenizer
) -> Path:
    """A two-layer Llama with a score head, and no pad token, as reward models are saved."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=max(20, len(set(words)) + 5),
        hidden_size=N_DIMENSIONS,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=N_POSITIONS,
        num_labels=1,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    getattr(transformers, head)(config).save_pretrained(folder)
    fast_tokenizer(words=words, **tokenizer).save_pretrained(folder)
    return folder
