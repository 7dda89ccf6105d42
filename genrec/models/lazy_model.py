"""Load a language model's tokenizer and weights separately, each when it is first needed.

The command line uses this module, so that a prompt can be shown without loading the weights. Models
that genrec can run itself are loaded without transformers (see ``llama`` and ``light_tokenizer``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec import runs
from genrec.errors import ModelError
from genrec.models.base import Generated, GenerationOptions, TextPrompt
from genrec.models.light_tokenizer import LightTokenizer, load_tokenizer
from genrec.models.quiet import quiet_transformers
from genrec.models.sources import ModelSource, describe_failure, locate_model, not_loaded
from genrec.runs import Run
from genrec.types import Log

if TYPE_CHECKING:
    from genrec.models.language_model import LanguageModel
    from genrec.models.prefix import Prefix
    from genrec.models.token_tree import TokenTree


class LazyModel:
    """A language model that loads its weights when they are first needed.

    Attributes:
        name: the name shown in results.
    """

    def __init__(
        self,
        name: str,
        source: ModelSource,
        revision: str | None,
        load: Callable[[LightTokenizer | None], LanguageModel],
        threads: int | None = None,
    ) -> None:
        """Store the arguments without loading anything; see ``lazy_model`` and ``lazy_run``.

        Args:
            name: the name shown in results.
            source: the folder or hub id of the tokenizer and the configuration.
            revision: the branch, tag or commit on the hub; None for the default branch.
            load: function that loads the model. Its argument is the tokenizer, or None if it could
                not be read without transformers.
            threads: the number of CPU threads that the model will use; None if PyTorch chooses.
        """
        self.name, self._threads = name, threads
        self._source, self._revision, self._loader = source, revision, load

    def load(self) -> LanguageModel:
        """Return the model with its weights, which are loaded on the first call."""
        return self._loaded

    @cached_property
    def _loaded(self) -> LanguageModel:
        light = self.tokenizer if isinstance(self.tokenizer, LightTokenizer) else None
        return self._loader(light)

    @property
    def threads(self) -> int:
        """The number of CPU threads, without loading the weights.

        If PyTorch is to choose it and is not imported yet, it is 1.
        """
        torch = sys.modules.get("torch")
        if "_loaded" not in self.__dict__ and self._threads is not None:
            return self._threads
        return 1 if torch is None else int(torch.get_num_threads())

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer, which is loaded without the weights."""
        light = load_tokenizer(self._source.name) if self._source.local else None
        if light is not None:
            return light
        return self._read("AutoTokenizer")

    @cached_property
    def context(self) -> int:
        """The maximum number of tokens that the model can process at once."""
        size = None
        if self._source.local:
            try:
                text = (Path(self._source.name) / "config.json").read_text(encoding="utf-8")
                size = json.loads(text).get("max_position_embeddings")
            except (OSError, ValueError, AttributeError):
                pass
        if not isinstance(size, int):
            config = self._read("AutoConfig").get_text_config()
            size = getattr(config, "max_position_embeddings", None)
        return int(size or 1 << 20)

    def _read(self, kind: str) -> Any:
        """Load the tokenizer or the configuration with a class from the transformers library."""
        with quiet_transformers():
            import transformers

            try:
                return getattr(transformers, kind).from_pretrained(
                    self._source.name,
                    revision=self._revision,
                    local_files_only=self._source.local,
                    trust_remote_code=False,
                )
            except Exception as error:  # an unsuitable folder may cause any kind of exception
                raise not_loaded(self._source.name, describe_failure(error)) from error

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text; see ``LanguageModel.count_tokens``."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def describe(self) -> str:
        """Return a short description of the model to show to users."""
        return self.load().describe()

    def generate(self, prompt: TextPrompt, options: GenerationOptions) -> list[Generated]:
        """Generate texts that continue a prompt; see ``LanguageModel.generate``."""
        return self.load().generate(prompt, options)

    def prefill(self, ids: Sequence[int]) -> TokenTree:
        """Process a prompt; see ``LanguageModel.prefill``."""
        return self.load().prefill(ids)

    def prefill_many(
        self, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> TokenTree:
        """Process several prompts in one pass; see ``LanguageModel.prefill_many``."""
        return self.load().prefill_many(prompts, prefix)

    def prefix(self, ids: Sequence[int]) -> Prefix | None:
        """Process the tokens that several prompts share; see ``LanguageModel.prefix``."""
        return self.load().prefix(ids)

    def fingerprint(self) -> str:
        """Return a SHA-256 hash (hex) that identifies the weights."""
        return self.load().fingerprint()

    def __getattr__(self, name: str) -> Any:
        """Return any other public attribute of the loaded model, such as ``device``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.load(), name)


def lazy_model(name: str, *, log: Log, **options: Any) -> LazyModel:
    """Find a model, and download it if necessary, without loading it.

    Args:
        name: see ``LanguageModel.load``.
        log: function that is called with a line of text before each slow step.
        **options: other arguments of ``LanguageModel.load``.

    Raises:
        ModelError: there is no such model, or it could not be downloaded.
    """
    source = locate_model(name, None, log)

    def load(light: LightTokenizer | None) -> LanguageModel:
        from genrec.models.language_model import LanguageModel

        return LanguageModel.load(name, log=log, light=light, **options)

    return LazyModel(name, source, None, load, options.get("threads"))


def lazy_run(folder: str | Path, base: str | None, *, log: Log, **options: Any) -> LazyModel:
    """Find the model of a run, and download its base model if necessary, without loading it.

    Args:
        folder: see ``LanguageModel.of_run``.
        base: see ``LanguageModel.of_run``.
        log: function that is called with a line of text before each slow step.
        **options: other arguments of ``LanguageModel.of_run``.

    Raises:
        ModelError: the folder is not a run folder, or the base model could not be downloaded.
    """
    folder = runs.find_run(folder)
    run = Run.read(folder)

    def load(light: LightTokenizer | None) -> LanguageModel:
        from genrec.models.language_model import LanguageModel

        return LanguageModel.of_run(folder, base, log=log, light=light, **options)

    revision = run.base_revision if base is None else None
    if (folder / runs.WHOLE).is_dir():
        source = ModelSource(str(folder / runs.WHOLE), local=True)
    else:
        try:
            source = locate_model(base or run.base_model, revision, log)
        except ModelError:
            load(None)  # raises the error with advice on runs
            raise
    name = f"{run.base_model} tuned as {runs.run_name(folder)}"
    return LazyModel(name, source, revision, load, options.get("threads"))
