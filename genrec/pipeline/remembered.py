"""Read the prompts of users whose earlier prompts are kept; see ``genrec.models.prompt_memory``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrec.pipeline.request import Request

if TYPE_CHECKING:
    from genrec.models.language_model import LanguageModel
    from genrec.models.token_tree import TokenTree


class RememberedPrompts:
    """Reads prompts with a model that keeps the prompts of users."""

    def __init__(self, model: LanguageModel, budget: int, tenant: str) -> None:
        """Store the parts.

        Args:
            model: the model, which may be loaded when it is first used.
            budget: maximum size of all prompts in bytes; 0 to keep none.
            tenant: text that identifies the data, so that users of other data are other users.
        """
        self._model, self._budget, self._tenant = model, budget, tenant
        self._used = False
        self._forgotten: set[str] = set()

    def applies_to(self, requests: Sequence[Request]) -> bool:
        """Check whether any of the requests is that of a user whose prompts are kept."""
        if not self._budget or all(r.history.user_id is None for r in requests):
            return False
        return bool(getattr(self._model, "remembers", False))  # False for a user's own class

    def read(
        self, requests: Sequence[Request]
    ) -> tuple[TokenTree, int, Sequence[Mapping[str, Any]]]:
        """Read what the model has not read of the prompts.

        Returns:
            The token tree, the number of tokens that were read, and for each prompt a description
            for the answer.
        """
        self._used = True  # before the owners, so that a user who is forgotten meanwhile is noticed
        self._model.memory.budget = self._budget
        prompts = [r.prompt.ids for r in requests]
        tree, known = self._model.prefill_remembered(prompts, [self._owner(r) for r in requests])
        read = [len(ids) - n for ids, n in zip(prompts, known, strict=True)]
        memory = self._model.memory.use().to_dict()
        told = [
            {"attention": "full", "remembered": n, "read": m, "memory": memory}
            for n, m in zip(known, read, strict=True)
        ]
        return tree, sum(read), told

    def forget(self, user_id: str, *, for_good: bool = True) -> None:
        """Drop what is kept of a user's prompts and, if it is for good, keep no more of them."""
        name = self._name(user_id)
        if for_good:
            self._forgotten.add(name)
        if self._used:  # otherwise, the model may not be loaded yet
            self._model.memory.forget(name, for_good=for_good)

    def _owner(self, request: Request) -> str | None:
        user_id = request.history.user_id
        name = None if user_id is None else self._name(user_id)
        return None if name in self._forgotten else name

    def _name(self, user_id: str) -> str:
        return f"{self._tenant}/{user_id}"
