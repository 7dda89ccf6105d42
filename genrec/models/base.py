"""Declare the interfaces of models: those that write text, and those that score continuations.

``TextModel`` is enough for the decoder ``match``, for few-shot prompts and for the sentences of
explanations. ``ScoringModel`` is needed for everything based on probabilities: the decoder
``trie``, ranking, certificates and evidence. ``LanguageModel`` is both. A model behind an API
implements ``TextModel``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    from genrec.models.cached_tree import Prefix
    from genrec.models.token_tree import TokenTree


class TextPrompt(Protocol):
    """A prompt as text, with token ids if the caller has them from this model's tokenizer."""

    @property
    def text(self) -> str:
        """Return the whole prompt as one string."""

    @property
    def ids(self) -> Sequence[int]:
        """Return the token ids of the prompt; empty if they are unknown."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A text that a model wrote.

    Attributes:
        text: the text without its terminator or end token.
        logprob: natural log of the text's probability over the whole vocabulary, end included;
            NaN if the model does not report it.
        finished: whether the text ended by itself, before the token limit.
    """

    text: str
    logprob: float
    finished: bool


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Options for the texts that a model writes after a prompt.

    Attributes:
        n: number of texts.
        max_tokens: maximum number of tokens in each text.
        stop: string that ends a text and is not part of it.
        temperature: sampling temperature; 0 requests the most probable texts instead of samples.
        seed: seed of the random samples.
        banned: token ids that are never written, for models that know the caller's ids.
    """

    n: int
    max_tokens: int
    stop: str
    temperature: float = 0.0
    seed: int = 0
    banned: tuple[int, ...] = ()


@runtime_checkable
class TextModel(Protocol):
    """A model that writes text.

    Attributes:
        name: the name shown in results.
    """

    name: str

    @property
    def context(self) -> int:
        """Return the maximum number of tokens of a prompt together with its continuation."""

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text, or overestimate them."""

    def generate(self, prompt: TextPrompt, options: GenerationOptions) -> list[Generated]:
        """Write texts after a prompt.

        Args:
            prompt: the prompt.
            options: number and length of the texts, and how they are sampled.

        Returns:
            ``options.n`` texts in any order, or fewer if the model has no more.
        """

    def describe(self) -> str:
        """Describe the model in a few words, for people."""


@runtime_checkable
class ScoringModel(Protocol):
    """A model that returns the logits of any continuation.

    Attributes:
        name: the name shown in results.
        tokenizer: a transformers tokenizer.
    """

    name: str
    tokenizer: Any

    @property
    def context(self) -> int:
        """Return the maximum number of tokens that the model reads at once."""

    def prefill(self, ids: Sequence[int]) -> TokenTree:
        """Read a prompt once, so that its continuations can be scored on the returned tree."""

    def prefill_many(
        self, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> TokenTree:
        """Read several prompts in one pass, after a prefix that they share."""

    def prefix(self, ids: Sequence[int]) -> Prefix | None:
        """Read the tokens that several prompts begin with; None if the model cannot keep them."""

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) that identifies the weights."""


def can_score(model: object) -> TypeGuard[ScoringModel]:
    """Check whether a model returns logits and not only text."""
    return isinstance(model, ScoringModel)
