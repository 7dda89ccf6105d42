"""Asking: from settings and a history in any form to the prompt and to what may be returned.

Knows texts, events and the catalog; of a model no more than its tokenizer and its context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from genrec.config import Settings
from genrec.data.behaviors import spoken_verbs
from genrec.data.dataset import Dataset
from genrec.data.events import History, Interaction
from genrec.data.info import DatasetInfo
from genrec.decoding.filters import Filter
from genrec.errors import RequestError, SettingsError
from genrec.matching.history_parser import HistoryReader, Understood
from genrec.matching.matcher import TextMatcher
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.prompts.encoder import EncodedPrompt, Encoder
from genrec.prompts.template import Template

if TYPE_CHECKING:
    from genrec.models.language_model import LanguageModel
    from genrec.pipeline.yes_no import YesNo

HistoryLike = History | str | Iterable[str | int | Interaction]
_DEMONSTRATION_EVENTS = 8


@dataclass(frozen=True, slots=True)
class Request:
    """One request as understood.

    Attributes:
        history: what it is about.
        understood: what became of each piece of a typed one.
        prompt: for it.
        allowed: what may be returned.
        size: how many items that are.
    """

    history: History
    understood: tuple[Understood, ...]
    prompt: EncodedPrompt
    allowed: Filter
    size: int


class RequestBuilder:
    """Makes requests of histories.

    Attributes:
        settings: of the recommender.
        dataset: with the users, if there are any.
        stock: the items.
        encoder: makes ids of prompts.
        template: renders them.
        behavior: what is asked for.
        model: reads the prompts.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset | None,
        stock: CatalogIndex,
        template: Template,
        behavior: str,
        model: LanguageModel,
        log: Callable[[str], None],
    ) -> None:
        """Takes what is the same for all requests; ``log`` is called before slow steps."""
        self.settings, self.dataset, self.stock = settings, dataset, stock
        self.encoder, self.template, self.behavior = stock.encoder, template, behavior
        self.model, self._log = model, log

    def forget(self) -> None:
        """Throws away what was made of the catalog before an edit."""
        for name in ("_reader", "matcher", "question"):
            self.__dict__.pop(name, None)

    @cached_property
    def scale(self) -> float:
        """The highest value in the data; 5 where there is none."""
        if self.dataset is None:
            return 5.0
        values = self.dataset.interactions.columns.value
        finite = values[np.isfinite(values)]
        return float(finite.max()) if len(finite) else 5.0

    @property
    def shown_scale(self) -> float | None:
        """``scale`` where prompts show values, else None."""
        return self.scale if self.settings.values else None

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the history are left out: as set, else the dataset's own habit."""
        if self.settings.exclude_seen is not None:
            return self.settings.exclude_seen
        return self._habit.exclude_seen if self._habit is not None else True

    @property
    def lead_in_behaviors(self) -> frozenset[str]:
        """Behaviors of which an item does not count as seen, see ``DatasetInfo.lead_in_behaviors``."""
        return self._habit.lead_in_behaviors if self._habit is not None else frozenset()

    def seen(self, excluded: bool) -> str:
        """What became of seen items, for people."""
        spared = (
            sorted(self.lead_in_behaviors & self._habit.led_by.keys())
            if self._habit is not None
            else []
        )
        if not excluded:
            return "included"
        return f"excluded, but not those of {' and '.join(spared)} only" if spared else "excluded"

    @cached_property
    def _habit(self) -> DatasetInfo | None:
        """What the dataset says of the behavior that is asked for, where it knows it."""
        if self.dataset is None:
            return None
        info, events = self.dataset.info, self.dataset.interactions
        if self.behavior == info.target_behavior or self.behavior not in events.behaviors:
            return info
        return info.with_target(self.behavior, events)

    @cached_property
    def _reader(self) -> HistoryReader:
        known = self.dataset.interactions.behaviors if self.dataset is not None else ()
        verbs: dict[str, tuple[str, ...]] = {b: (b,) for b in known}
        verbs |= spoken_verbs()
        for behavior, verb in self.template.verbs.items():
            verbs[behavior] = (*verbs.get(behavior, ()), *verb.forms)
        return HistoryReader(self.stock.catalog, verbs, self.behavior, self.matcher)

    @cached_property
    def matcher(self) -> TextMatcher:
        """Matches texts to titles, typed ones and those that the model wrote."""
        encoder = self.settings.encoder
        return TextMatcher(
            self.stock.catalog,
            encoder=None if encoder == "none" else encoder,
            semantic_threshold=self.settings.match_threshold,
            folder=self.dataset.folder if self.dataset is not None else None,
            log=self._log,
        )

    def understand(self, history: HistoryLike) -> tuple[History, tuple[Understood, ...]]:
        """See ``Recommender.understand``."""
        if isinstance(history, History):
            return history, ()
        if isinstance(history, str):
            pieces: str | list[str] = history
        else:
            try:
                listed = list(history)
            except TypeError:
                raise _no_history(history) from None
            events = [h for h in listed if isinstance(h, Interaction)]
            if listed and len(events) == len(listed):
                return History(tuple(events)), ()
            pieces = []
            for piece in listed:
                if not isinstance(piece, str | int | np.integer) or isinstance(piece, bool):
                    raise _no_history(piece)
                pieces.append(str(piece))
        read, understood = self._reader.read(pieces)
        return read, tuple(understood)

    def demonstrations(self, user_id: str | None = None) -> tuple[History, ...]:
        """See ``Recommender.demonstrations``."""
        if not self.settings.few_shot or self.dataset is None:
            return ()
        chosen: list[History] = []
        for candidate in self._shuffled_users:
            if len(chosen) == self.settings.few_shot:
                break
            if candidate == user_id:
                continue
            history = self.dataset.interactions.history(candidate, before="validation")
            wanted = tuple(i for i in history.interactions if i.behavior == self.behavior)
            if len(wanted) >= 2:
                chosen.append(History(wanted, candidate).latest(_DEMONSTRATION_EVENTS))
        if len(chosen) < self.settings.few_shot:
            msg = (
                f"few_shot={self.settings.few_shot}, but only {len(chosen)} other users have two "
                f"or more {self.behavior!r} events in train. Lower few_shot."
            )
            raise RequestError(msg)
        return tuple(chosen)

    @cached_property
    def _shuffled_users(self) -> list[str]:
        assert self.dataset is not None
        users = list(self.dataset.interactions.user_ids)
        order = np.random.default_rng(self.settings.seed).permutation(len(users))
        return [users[i] for i in order]

    def prompt(self, history: HistoryLike) -> EncodedPrompt:
        """See ``Recommender.prompt``."""
        if self.template.answers is not None:
            msg = (
                f"template={self.template.name!r} asks whether somebody will want one item. Expected "
                "would_like() or `genrec likes` with it; for lists give another template or run."
            )
            raise SettingsError(msg)
        read, _ = self.understand(history)
        room = self.model.context - self.stock.trie.max_depth
        return self.encoder.fit(
            self.template,
            self.stock.catalog,
            read,
            self.behavior,
            max_tokens=min(self.settings.max_prompt_tokens, room),
            max_events=self.settings.max_events,
            demonstrations=self.demonstrations(read.user_id),
            scale=self.shown_scale,
        )

    def rendered(self, demonstrations: Sequence[History], window: History) -> EncodedPrompt:
        """The prompt for exactly these events."""
        prompt = self.template.render(
            self.stock.catalog,
            window,
            self.behavior,
            form=self.encoder.form,
            demonstrations=demonstrations,
            scale=self.shown_scale,
        )
        return self.encoder.prompt(prompt)

    def asked(self, history: HistoryLike, common: Filter, *, seen: bool = True) -> Request:
        """A history as understood, with its prompt and what may be returned.

        Args:
            history: see ``Recommender.understand``.
            common: what may be returned to anybody.
            seen: whether its items are left out where ``exclude_seen`` says so.

        Raises:
            RequestError: nothing may be returned.
        """
        read, understood = self.understand(history)
        allowed = common
        if seen and self.exclude_seen:
            allowed = common & self.stock.unseen(read, self.lead_in_behaviors)
        size = self.stock.size(allowed)
        if size < 1:
            msg = (
                "No item may be returned: every item is excluded or there are no candidates. "
                "Expected at least one; include seen items or give candidates."
            )
            raise RequestError(msg)
        return Request(read, understood, self.prompt(read), allowed, size)

    @cached_property
    def question(self) -> YesNo:
        """How ``would_like`` asks."""
        from genrec.pipeline.yes_no import YesNo

        template, encoder = self.template, self.encoder
        if template.answers is None:
            name, own = "would_like", self.settings.prompts
            template = Template.load(name, self.settings.language, own=own)
            form = template.form(encoder.form.case, encoder.form.max_title_tokens)
            encoder = Encoder(self.model.tokenizer, form)
        return YesNo(
            template,
            encoder,
            self.stock.catalog,
            self.behavior,
            max_tokens=min(self.settings.max_prompt_tokens, self.model.context),
            max_events=self.settings.max_events,
            scale=self.shown_scale,
        )


def _no_history(given: object) -> RequestError:
    return RequestError(
        f"{given!r:.80} ({type(given).__name__}) is no history. Expected text such as "
        '"bought: TITLE; viewed: TITLE", a list of item ids or titles, a list of Interaction, or a '
        "History."
    )
