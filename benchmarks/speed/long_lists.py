"""Time long lists: the k best of a large made-up catalog, with and without removing tokens.

    python -m benchmarks.speed.long_lists --titles 100000 -k 10 1000 2000 5000 20000 100000
    python -m benchmarks.speed.long_lists --titles 100000 -k 20000 --keep-all
    python -m benchmarks.speed.long_lists --titles 100000 -k 2000 20000 --model smollm2-135m

Titles are random words of a gift shop, such as "red paper heart mug set of 7", so that many share a
beginning. Without --model, a random model of two narrow layers with the default model's vocabulary takes its
place: it shows what everything but the model costs. ``--keep-all`` keeps every token in the token tree, as
searches did before they removed tokens that are no longer needed.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from benchmarks.common import commit
from genrec import Catalog, Item, LanguageModel, Recommender
from genrec.models import packaged
from genrec.pipeline.trie_search import TrieSearch

WORDS = [
    *("red", "blue", "green", "pink", "white", "black", "small", "large", "vintage", "modern"),
    *("heart", "star", "paper", "glass", "wooden", "metal", "ceramic", "retro", "floral", "spotty"),
]
THINGS = [
    *("mug", "bag", "box", "tin", "lamp", "clock", "candle", "holder"),
    *("sign", "plate", "bowl", "jar", "cup", "card", "frame", "tray"),
]


def made(n: int) -> Catalog:
    """Make a catalog of n different titles."""
    rng = np.random.default_rng(0)
    titles: dict[str, None] = {}
    while len(titles) < n:
        words = [*rng.choice(WORDS, 3), rng.choice(THINGS), f"set of {rng.integers(1, 25)}"]
        titles[" ".join(words)] = None
    return Catalog(Item(f"i{place}", title) for place, title in enumerate(titles))


def narrow() -> LanguageModel:
    """Make a random model with the default model's tokenizer, whose distributions are not flat."""
    tokenizer = AutoTokenizer.from_pretrained(packaged.ensure(packaged.DEFAULT_MODEL))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="sdpa"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return LanguageModel(model.eval(), tokenizer, name="narrow")


def keep_all() -> None:
    """Keep all tokens in the token tree."""
    search = TrieSearch._search

    def patched(self: TrieSearch, reading: Any, requests: Any, sizes: Any, options: Any) -> Any:
        return search(self, reading, requests, sizes, replace(options, kept_tokens=1 << 40))

    TrieSearch._search = patched  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--titles", type=int, default=100_000)
    parser.add_argument("-k", type=int, nargs="+", default=[10, 1000, 20_000])
    parser.add_argument("--search", default="auto")
    parser.add_argument("--model", default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep-all", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.keep_all:
        keep_all()
    model = narrow() if arguments.model is None else LanguageModel.load(arguments.model)
    recommender = Recommender(
        made(arguments.titles), model, encoder="none", search=arguments.search, log=print
    )
    print(f"{commit()}, {model.describe()}: {recommender.trie.inner_tokens:,} tokens in the trie")
    for k in arguments.k:
        started = time.perf_counter()
        answer = recommender.recommend("i5; i77", k)
        seconds = time.perf_counter() - started
        print(json.dumps({"k": k, "seconds": round(seconds, 1), **answer.details["certificate"]}))


if __name__ == "__main__":
    main()
