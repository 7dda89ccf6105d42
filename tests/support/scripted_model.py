"""A model that only writes text, by a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from genrec.models.base import (
    Generated,
    GenerationOptions,
    TextPrompt,
)


class Scripted:
    """Writes what a script says of each prompt; counts a word as a token."""

    name = "scripted"
    context = 4096

    def __init__(self, script: Callable[[str], Sequence[str]]) -> None:
        self.script = script
        self.prompts: list[str] = []
        self.options: list[GenerationOptions] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def generate(self, prompt: TextPrompt, options: GenerationOptions) -> list[Generated]:
        self.prompts.append(prompt.text)
        self.options.append(options)
        return [Generated(t, float("nan"), True) for t in self.script(prompt.text)][: options.n]

    def describe(self) -> str:
        return "a script"
