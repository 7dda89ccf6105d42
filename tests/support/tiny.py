"""Tiny random models and tokenizers of several kinds, made from configurations in a moment."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from genrec.matching.encoders import Embedder
from genrec.models.coverage import ScriptCoverage
from genrec.models.language_model import LanguageModel
from genrec.models.llama import load_llama
from genrec.types import Float32Array

CORPUS = [
    "A customer's history, oldest first:",
    "bought: red retrospot mug",
    "viewed: jumbo bag pink polkadot",
    "Another customer's history",
    "set of 12 t-lights, doll house, paper chain kit 50's christmas",
    "红色杯子 书籍 电脑",
] * 4

KINDS = ("llama", "qwen2", "qwen3", "gpt2", "sentencepiece")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(specials: list[str], plain: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE as of GPT-2, Qwen and SmolLM2, with special and plain added tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=384, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        ),
    )
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in plain])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=specials[0], pad_token=specials[-1]
    )


def sentencepiece() -> PreTrainedTokenizerFast:
    """A BPE with word marks, byte fallback and a begin token, as of Llama 2 and Gemma."""
    specials = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    tokenizer.train_from_iterator(
        [line.replace(" ", "▁") for line in CORPUS],
        trainers.BpeTrainer(
            vocab_size=500, special_tokens=[*specials, *bytes_], show_progress=False
        ),
    )
    import json

    from tokenizers import processors

    # The trainer marks the bytes as special; in a real tokenizer they are plain vocabulary.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in specials]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@functools.cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a kind."""
    if kind == "sentencepiece":
        return sentencepiece()
    if kind == "gpt2":
        return byte_level(["<|endoftext|>"], [])
    return byte_level(SPECIAL, ["<tool_call>", "</tool_call>"] if "qwen" in kind else [])


def config(kind: str, vocabulary: int) -> Any:
    """A configuration with two small layers."""
    if kind == "gpt2":
        return GPT2Config(vocab_size=vocabulary, n_positions=1024, n_embd=32, n_layer=2, n_head=4)
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    }
    if kind == "neox":  # only a quarter of each key is turned
        few = {k: v for k, v in sizes.items() if k != "num_key_value_heads"}
        return GPTNeoXConfig(**few, rotary_pct=0.25)
    if kind == "gemma":
        return GemmaConfig(**sizes, head_dim=8)
    if kind == "qwen3":
        return Qwen3Config(**sizes, head_dim=8)
    if kind == "mistral":
        return MistralConfig(**sizes, sliding_window=16)
    if kind == "gemma3":
        return Gemma3TextConfig(
            **sizes,
            head_dim=8,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        )
    return {"qwen2": Qwen2Config}.get(kind, LlamaConfig)(**sizes)


@functools.cache
def language_model(kind: str = "llama", seed: int = 0, plain: bool = False) -> LanguageModel:
    """A random model of a kind; weights are scaled up so that its distributions are not flat."""
    words = tokenizer("llama" if kind in {"mistral", "gemma3", "gemma", "neox"} else kind)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        config(kind, len(words)), dtype=torch.float32, attn_implementation="sdpa"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return LanguageModel(model.eval(), words, name=f"tiny-{kind}", plain=plain)


def own_model(kind: str, folder: Path) -> LanguageModel:
    """A tiny model that shares no store; ``own`` is the same as ``llama``, run by genrec's own code."""
    if kind != "own":
        model = language_model(kind)
        return LanguageModel(model.model, model.tokenizer, name=model.name)
    language_model("llama").model.save_pretrained(folder)
    return LanguageModel(load_llama(folder, torch.float32), tokenizer("llama"), name="tiny-own")


class LatinEmbedder(Embedder):
    """Vectors of letter counts; says that it reads Latin only, and remembers what it was asked."""

    def __init__(self, name: str = "latin") -> None:
        self.name = name
        self.coverage = ScriptCoverage(("latin",), ("han",), lambda text: (len(text), 0))
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Float32Array:
        """See ``Embedder.embed``."""
        self.asked += texts
        counts = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in enumerate(texts):
            for character in text:
                counts[row, ord(character) % 64] += 1
        counts += 1e-3
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.float32)
