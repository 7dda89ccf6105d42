"""genrec's own Llama gives what transformers and PEFT give, or leaves the model to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.tiny import tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from genrec.errors import ModelError
from genrec.models.language_model import LanguageModel
from genrec.models.llama import Llama, load_llama, merge_adapter
from genrec.models.packaged import fingerprint
from genrec.models.quiet import quiet_transformers
from genrec.models.token_tree import ROOT, below

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
SHAPES = {
    "groups": {},
    "tied": {"tie_word_embeddings": True},
    "no groups": {"num_key_value_heads": 4},
    "one group": {"num_key_value_heads": 1},
    "wide heads": {"head_dim": 24},
    "rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "eps": {"rms_norm_eps": 1e-2},
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save(folder: Path, **changes: Any) -> Path:
    """Write a random model, as transformers does, and its tokenizer."""
    words = tokenizer("llama")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(**{**SIZES, "vocab_size": len(words), **changes}), dtype=torch.float32
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    about = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**about, **changes}), encoding="utf-8")


def both(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[LanguageModel, LanguageModel]:
    """The model as genrec and as transformers run it."""
    ours = load_llama(folder, dtype)
    assert ours is not None
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    words = tokenizer("llama")
    return LanguageModel(ours, words), LanguageModel(theirs.eval(), words)


def logits(model: LanguageModel) -> list[torch.Tensor]:
    """Logits of all kinds of passes: prompts of several lengths, branches, prefixes, one token."""
    prompts = [[3, 5, 7, 9, 11, 13], [3, 5, 7, 2], [3, 5, 7, 9]]
    found = [model.prefill([4]).logits, model.prefill(prompts[0]).logits]
    for prefix in (None, model.prefix([3, 5, 7]), model.prefix([3])):
        tree = model.prefill_many(prompts, prefix)
        found.append(tree.root.logits())
        parents = [ROOT, ROOT, below(0), ROOT, ROOT]
        runs = [[20, 21], [22], [23, 24, 25], [26], [27, 28]]
        handles, outputs = tree.grow([0, 0, 0, 1, 2], parents, runs, every=True)
        found.append(outputs.logits())
        found.append(tree.grow([0], [int(handles[2])], [[29]])[1].logits())
    single = model.prefill(prompts[0])
    found.append(single.extend([ROOT], [[30]])[1])
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_logits_are_those_of_transformers(
    tmp_path: Path, changes: dict[str, Any], dtype: torch.dtype
) -> None:
    ours, theirs = both(save(tmp_path, **changes), dtype)
    assert isinstance(ours.model, Llama)
    assert not ours.obstacle
    assert not theirs.obstacle
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for mine, reference in zip(logits(ours), logits(theirs), strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=tolerance)
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.kept_fingerprint() == theirs.kept_fingerprint()
    assert ours.context == theirs.context


def test_the_tree_agrees_with_full_passes(tmp_path: Path) -> None:
    model = load_llama(save(tmp_path), torch.float32)
    fast = LanguageModel(model, tokenizer("llama"))
    slow = LanguageModel(model, tokenizer("llama"), plain=True)
    for mine, reference in zip(logits(fast), logits(slow), strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-4)


def test_older_configurations_name_the_rope_differently(tmp_path: Path) -> None:
    folder = save(tmp_path, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    expected = logits(both(folder)[0])
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del about["rope_parameters"]
    text = json.dumps({**about, "rope_theta": 500.0, "rope_scaling": None})
    (folder / "config.json").write_text(text, encoding="utf-8")
    ours, theirs = both(folder)
    for mine, reference, before in zip(logits(ours), logits(theirs), expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0, atol=1e-5)
        torch.testing.assert_close(mine, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["MistralForCausalLM"]},
        {"architectures": None},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"sliding_window": 16},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0}},
        {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5.0,
                "partial_rotary_factor": 0.5,
            }
        },
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 1},
        {"intermediate_size": 63},
        {"vocab_size": 12},
    ],
    ids=str,
)
def test_other_models_are_left_to_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = save(tmp_path)
    assert load_llama(folder, torch.float32) is not None
    edit(folder / "config.json", **changes)
    assert load_llama(folder, torch.float32) is None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff" * 100])
def test_damaged_files_are_left_to_transformers(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = save(tmp_path) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert load_llama(tmp_path, torch.float32) is None


def adapter(base: Path, folder: Path, **changes: Any) -> Any:
    """Write a random adapter; return the merged model as PEFT computes it."""
    settings: dict[str, Any] = {"r": 3, "lora_alpha": 8.0, "target_modules": LINEAR, **changes}
    torch.manual_seed(1)
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        tuned = get_peft_model(model, LoraConfig(**settings))
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if "lora_" in name:
                    parameter.copy_(torch.randn_like(parameter))
        tuned.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload()


@pytest.mark.parametrize("targets", [LINEAR, ["q_proj", "v_proj"]], ids=str)
def test_adapters_are_merged_as_by_peft(tmp_path: Path, targets: list[str]) -> None:
    base = save(tmp_path / "base", tie_word_embeddings=True)
    theirs = adapter(base, tmp_path / "adapter", target_modules=targets)
    ours = load_llama(base, torch.float32)
    assert ours is not None
    before = fingerprint(ours.state_dict())
    assert merge_adapter(ours, tmp_path / "adapter")
    assert before != fingerprint(ours.state_dict()) == fingerprint(theirs.state_dict())
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=0, atol=1e-6)
    again = load_llama(base, torch.float32)
    assert again is not None
    assert fingerprint(again.state_dict()) == before  # the file is not changed


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 2.0}},
    ],
    ids=str,
)
def test_other_adapters_are_left_to_peft(tmp_path: Path, changes: dict[str, Any]) -> None:
    base = save(tmp_path / "base")
    adapter(base, tmp_path / "adapter", **changes)
    ours = load_llama(base, torch.float32)
    assert ours is not None
    before = fingerprint(ours.state_dict())
    assert not merge_adapter(ours, tmp_path / "adapter")
    assert fingerprint(ours.state_dict()) == before


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    adapter(save(tmp_path / "base"), tmp_path / "adapter")
    other = load_llama(save(tmp_path / "other", hidden_size=64), torch.float32)
    assert other is not None
    with pytest.raises(ModelError, match=r"does not fit the model: it changes model\.layers"):
        merge_adapter(other, tmp_path / "adapter")
