"""Run Llama models with PyTorch alone, to avoid the slow import of transformers.

The command line uses this module for the models it supports, such as the default model. Weights,
parameter names and the order of operations are the same as in transformers, and a test checks that
the logits are equal. Everything else about a model (training, saving, generation) needs
transformers. This module deals with token ids and hidden states, not with text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from genrec.errors import ModelError

WEIGHTS = "model.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_HEAD = "lm_head.weight"
# Values in a model's config.json that change its computations and that this module does not support.
# A key that is missing or null has the value given here.
_PLAIN: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "is_causal": True,
    "rope_scaling": None,
    "quantization_config": None,
    "sliding_window": None,
    "layer_types": None,
    "partial_rotary_factor": None,
}
# The same for an adapter's adapter_config.json.
_PLAIN_ADAPTER: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "lora_bias": False,
    "use_dora": False,
    "use_rslora": False,
    "use_qalora": False,
    "use_bdlora": None,
    "modules_to_save": None,
    "target_parameters": None,
    "trainable_token_indices": None,
    "layer_replication": None,
    "alpha_pattern": {},
    "rank_pattern": {},
}


class Layer(Protocol):
    """The attention keys and values of one layer, which grow with each pass."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (B, heads, T, D) keys and values, and return all of them."""

    def get_seq_length(self) -> int:
        """Return the number of tokens whose keys and values are stored."""


class Attending(Protocol):
    """Attention for tokens that are not one after the other; see ``genrec.models.packing``."""

    def attend(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Store keys and values, and return what the (1, heads, N, D) queries attend to."""


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The configuration of a Llama model, with the names used in ``config.json``."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool

    @classmethod
    def read(cls, folder: Path) -> LlamaConfig | None:
        """Read the ``config.json`` of a model folder; return None if the model is not supported."""
        given = _read_json(folder / "config.json")
        rope = given.get("rope_parameters") or {}
        if (
            given.get("architectures") != ["LlamaForCausalLM"]
            or not _is_plain(given, _PLAIN)
            or rope.get("rope_type", "default") != "default"
            or not rope.keys() <= {"rope_type", "rope_theta"}
        ):
            return None
        try:
            heads = given["num_attention_heads"]
            return cls(
                vocab_size=given["vocab_size"],
                hidden_size=given["hidden_size"],
                intermediate_size=given["intermediate_size"],
                num_hidden_layers=given["num_hidden_layers"],
                num_attention_heads=heads,
                num_key_value_heads=given["num_key_value_heads"],
                head_dim=given.get("head_dim") or given["hidden_size"] // heads,
                max_position_embeddings=given["max_position_embeddings"],
                rms_norm_eps=given["rms_norm_eps"],
                rope_theta=rope.get("rope_theta") or given["rope_theta"],
                tie_word_embeddings=given["tie_word_embeddings"],
            )
        except KeyError:
            return None

    def get_text_config(self) -> LlamaConfig:
        """Return this configuration itself, as transformers does for text-only models."""
        return self


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """The ids of the tokens that end a text, under the name that transformers uses."""

    eos_token_id: int | list[int] | None = None


@dataclass(frozen=True, slots=True)
class Hidden:
    """The output of the layers: hidden states of shape (B, T, hidden size)."""

    last_hidden_state: torch.Tensor


class _Linear(nn.Linear):
    """A linear layer without bias that is not initialized, because its weights are loaded later."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height, bias=False)

    def reset_parameters(self) -> None:
        """Skip the initialization, which takes about a second even on the meta device."""


class _Embedding(nn.Embedding):
    """Embeddings that are not initialized, because they are loaded later."""

    def reset_parameters(self) -> None:
        """Skip the initialization; see ``_Linear``."""


class _Norm(nn.Module):
    """A layer that divides hidden states by their root mean square, computed in float32."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.hidden_size))
        self.eps = config.rms_norm_eps

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        wide = states.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(states.dtype)


class _Attention(nn.Module):
    """Attention in which each group of query heads shares one key head and one value head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.groups = config.num_attention_heads // config.num_key_value_heads
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = _Linear(config.hidden_size, queries)
        self.k_proj = _Linear(config.hidden_size, keys)
        self.v_proj = _Linear(config.hidden_size, keys)
        self.o_proj = _Linear(queries, config.hidden_size)

    def forward(
        self,
        states: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        layer: Layer | None,
        packing: Attending | None = None,
    ) -> torch.Tensor:
        n, width, _ = states.shape
        shape = (n, width, -1, self.head_dim)
        query = self.q_proj(states).view(shape).transpose(1, 2)
        key = self.k_proj(states).view(shape).transpose(1, 2)
        value = self.v_proj(states).view(shape).transpose(1, 2)
        query, key = rotate(query, *turn), rotate(key, *turn)
        if packing is not None:
            found = packing.attend(layer, query, key, value, self.head_dim**-0.5)
            found = found.transpose(1, 2).reshape(n, width, -1)
            attended: torch.Tensor = self.o_proj(found)
            return attended
        if layer is not None:
            key, value = layer.update(key, value)
        # The branches are those of transformers, since the kernels round differently.
        shared = mask is None and self.groups > 1
        if self.groups > 1 and not shared:
            if width == 1:
                query = query.reshape(n, -1, self.groups, self.head_dim)
            else:
                key, value = self._repeat(key), self._repeat(value)
        found = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            scale=self.head_dim**-0.5,
            is_causal=mask is None and width > 1,
            enable_gqa=shared,
        )
        found = found.reshape(n, -1, width, self.head_dim).transpose(1, 2)
        projected: torch.Tensor = self.o_proj(found.reshape(n, width, -1))
        return projected

    def _repeat(self, states: torch.Tensor) -> torch.Tensor:
        """Repeat each of the (B, heads, T, D) keys or values for the query heads of its group."""
        n, heads, width, size = states.shape
        wide = states[:, :, None].expand(n, heads, self.groups, width, size)
        return wide.reshape(n, heads * self.groups, width, size)


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary position embeddings to (B, heads, T, D) queries or keys."""
    half = states.shape[-1] // 2
    turned = torch.cat((-states[..., half:], states[..., :half]), dim=-1)
    return states * cos + turned * sin


class _Mlp(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = _Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = _Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = _Linear(config.intermediate_size, config.hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        gate = functional.silu(self.gate_proj(states))
        projected: torch.Tensor = self.down_proj(gate * self.up_proj(states))
        return projected


class _Block(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = _Mlp(config)
        self.input_layernorm = _Norm(config)
        self.post_attention_layernorm = _Norm(config)

    def forward(
        self,
        states: torch.Tensor,
        turn: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor | None,
        layer: Layer | None,
        packing: Attending | None = None,
    ) -> torch.Tensor:
        states = states + self.self_attn(self.input_layernorm(states), turn, mask, layer, packing)
        summed: torch.Tensor = states + self.mlp(self.post_attention_layernorm(states))
        return summed


class _Layers(nn.Module):
    """The part of the model that turns token ids into hidden states."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = _Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([_Block(config) for _ in range(config.num_hidden_layers)])
        self.norm = _Norm(config)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Sequence[Layer] | None = None,
        use_cache: bool = False,
        packing: Attending | None = None,
    ) -> Hidden:
        """Compute the hidden states of new tokens.

        Args:
            input_ids: (B, T) int64 token ids.
            attention_mask: (B, 1, T, tokens so far) mask, which is added to the attention scores;
                None for causal attention.
            position_ids: (B, T) int64 positions; None to continue after the tokens so far.
            past_key_values: the keys and values of each layer, which are updated; None to use no
                cache.
            use_cache: ignored; a cache is used if ``past_key_values`` is given.
            packing: the attention of tokens of several prompts, which are then in one row; None for
                ordinary attention. It replaces the mask.
        """
        states = self.embed_tokens(input_ids)
        device, width = input_ids.device, input_ids.shape[1]
        past = past_key_values[0].get_seq_length() if past_key_values else 0
        if position_ids is None:
            position_ids = torch.arange(past, past + width, device=device)[None]
        if attention_mask is None and past and width > 1 and packing is None:
            slots = torch.arange(past + width, device=device)
            attention_mask = (slots <= slots[past:, None])[None, None]
        turn = self._turn(position_ids, states.dtype)
        layers: Sequence[Layer | None] = past_key_values or [None] * len(self.layers)
        for block, layer in zip(self.layers, layers, strict=True):
            states = block(states, turn, attention_mask, layer, packing)
        return Hidden(self.norm(states))

    def _turn(
        self, positions: torch.Tensor, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the (B, 1, T, D) cosines and sines of the rotary position embeddings."""
        angles = positions[..., None].float() * self.speeds(positions.device)
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def speeds(self, device: torch.device) -> torch.Tensor:
        """Return the (D / 2,) float32 angles in radians per position of the rotary embeddings."""
        size = self.config.head_dim
        even = torch.arange(0, size, 2, dtype=torch.float32, device=device)
        return torch.as_tensor(1.0 / (self.config.rope_theta ** (even / size)))


class Llama(nn.Module):
    """A Llama model for inference.

    Attributes:
        config: the configuration of the model.
        generation_config: the ids of the tokens that end a text.
        model: the part that turns token ids into hidden states.
        lm_head: the linear layer that turns hidden states into logits.
    """

    base_model_prefix = "model"

    def __init__(self, config: LlamaConfig) -> None:
        """Build the model with uninitialized weights; ``load_llama`` loads the weights."""
        super().__init__()
        self.config = config
        self.generation_config = GenerationConfig()
        self.model = _Layers(config)
        self.lm_head = _Linear(config.hidden_size, config.vocab_size)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embeddings of the tokens."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Linear:
        """Return the linear layer that turns hidden states into logits."""
        return self.lm_head


def load_llama(folder: str | Path, dtype: torch.dtype) -> Llama | None:
    """Load a model from a folder, mapping its weights into memory instead of reading them.

    Args:
        folder: a folder with ``config.json`` and ``model.safetensors``.
        dtype: the precision of the weights.

    Returns:
        The model in eval mode, or None if the folder does not hold a complete model that this
        module supports.
    """
    folder = Path(folder)
    config = LlamaConfig.read(folder)
    weights = _read_weights(folder / WEIGHTS)
    if config is None or weights is None:
        return None
    if config.tie_word_embeddings:
        weights[_HEAD] = weights.get("model.embed_tokens.weight", torch.empty(0))
    with torch.device("meta"):
        model = Llama(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if expected != {name: tensor.shape for name, tensor in weights.items()}:
        return None
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    model.load_state_dict(weights, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    generation = _read_json(folder / "generation_config.json")
    about = generation or _read_json(folder / "config.json")
    model.generation_config = GenerationConfig(about.get("eos_token_id"))
    return model.requires_grad_(False).eval()


def merge_adapter(model: Llama, folder: Path) -> bool:
    """Merge a LoRA adapter into the weights, as ``merge_and_unload`` in PEFT does.

    Args:
        model: the base model of the adapter.
        folder: the folder that PEFT wrote.

    Returns:
        True if the adapter was merged; False if this kind of adapter is not supported or a file is
        damaged, in which case the model is unchanged.

    Raises:
        ModelError: the adapter does not fit the model.
    """
    about, adapter = (
        _read_json(folder / "adapter_config.json"),
        _read_weights(folder / ADAPTER_WEIGHTS),
    )
    rank, alpha = about.get("r"), about.get("lora_alpha")
    if not adapter or not rank or alpha is None or not _is_plain(about, _PLAIN_ADAPTER):
        return False
    start, down, up = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
    names = {n.removeprefix(start).removesuffix(down) for n in adapter if n.endswith(down)}
    if adapter.keys() != {f"{start}{name}{part}" for name in names for part in (down, up)}:
        return False
    layers = dict(model.named_modules())
    merged = {}
    for name in names:
        layer = layers.get(name)
        product = adapter[f"{start}{name}{up}"].float() @ adapter[f"{start}{name}{down}"].float()
        if not isinstance(layer, nn.Linear) or layer.weight.shape != product.shape:
            msg = (
                f"The adapter in {folder} does not fit the model: it changes {name}. Expected the "
                "adapter of the same base model; copy the run folder again."
            )
            raise ModelError(msg)
        product *= alpha / rank  # in place, since new memory takes longer than the sums
        product = product.to(layer.weight.device)
        product += layer.weight
        merged[name] = product.to(layer.weight.dtype)
    for name, weight in merged.items():
        layers[name].weight = nn.Parameter(weight, requires_grad=False)
    return True


def _is_plain(given: Mapping[str, Any], plain: Mapping[str, Any]) -> bool:
    """Check that no key in a configuration has an unsupported value."""
    return all(given.get(key) in (None, value) for key, value in plain.items())


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; return an empty dictionary if the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_weights(path: Path) -> dict[str, torch.Tensor] | None:
    """Map a safetensors file into memory; return None if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
