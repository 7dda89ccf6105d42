"""What a model must be able to do: write text, or score continuations token by token.

``TextModel`` is enough for the decoder ``match``, for few-shot prompting and for the sentences of
explanations. ``ScoringModel`` is needed for everything that rests on probabilities: the decoder
``trie``, ranking, certificates and evidence. ``LanguageModel`` is both. A model behind an API is a
``TextModel``: one class with the three methods below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    from genrec.models.cached_tree import Prefix
    from genrec.models.token_tree import TokenTree


class TextPrompt(Protocol):
    """A prompt as text, with its token ids where the caller has them for this model's tokenizer."""

    @property
    def text(self) -> str:
        """The whole prompt as one string."""

    @property
    def ids(self) -> Sequence[int]:
        """The token ids of the prompt; empty where they are not known."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A text that a model wrote.

    Attributes:
        text: the text, without what ended it.
        logprob: natural log of its probability over the whole vocabulary, its end included; NaN
            where the model does not say.
        finished: whether the model ended it, rather than the limit on tokens.
    """

    text: str
    logprob: float
    finished: bool


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How texts are written after a prompt.

    Attributes:
        n: the number of texts.
        max_tokens: the most tokens of each.
        stop: a text ends where this string begins; the string is not part of the text.
        temperature: above 0, texts are sampled at this temperature; 0 asks for the most probable
            texts.
        seed: seed of the samples.
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
        name: the name that answers state.
    """

    name: str

    @property
    def context(self) -> int:
        """The most tokens of a prompt and its continuation together."""

    def count_tokens(self, text: str) -> int:
        """Count, or estimate from above, the tokens of a text."""

    def generate(self, prompt: TextPrompt, options: GenerationOptions) -> list[Generated]:
        """Write texts after a prompt.

        Args:
            prompt: the prompt.
            options: how many texts, how long, and how they are sampled.

        Returns:
            ``options.n`` texts, in any order; fewer where the model has no more.
        """

    def describe(self) -> str:
        """Describe the model in a few words, for people."""


@runtime_checkable
class ScoringModel(Protocol):
    """A model that gives the logits of every continuation.

    Attributes:
        name: the name that answers state.
        tokenizer: a transformers tokenizer.
    """

    name: str
    tokenizer: Any

    @property
    def context(self) -> int:
        """The most tokens that the model reads at once."""

    def prefill(self, ids: Sequence[int]) -> TokenTree:
        """Read a prompt once; its continuations can then be scored on the tree."""

    def prefill_many(
        self, prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> TokenTree:
        """Read several prompts in one pass, after a prefix that they share."""

    def prefix(self, ids: Sequence[int]) -> Prefix | None:
        """Read the beginning of several prompts; None where the model cannot keep one."""

    def fingerprint(self) -> str:
        """Identify the weights by a SHA-256 in hexadecimal digits."""


def can_score(model: object) -> TypeGuard[ScoringModel]:
    """Check whether a model gives logits, and not only text."""
    return isinstance(model, ScoringModel)
