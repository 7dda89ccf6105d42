"""Turn a history and options into a request, which contains the prompt and the allowed items.

This module works with texts, events and the catalog. It needs the model only to encode prompts and
to limit their length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from genrec.config import QueryOptions, Settings
from genrec.data.behaviors import spoken_verbs
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.decoding.filters import Filter
from genrec.errors import RequestError, SettingsError
from genrec.matching.history_notes import describe_gaps, describe_users
from genrec.matching.history_parser import HistoryParser, Understood, check_length
from genrec.matching.matcher import TextMatcher
from genrec.pipeline.catalog_index import CatalogIndex, Order
from genrec.pipeline.demonstrations import Demonstrations
from genrec.pipeline.keywords import edits_of, keyword_index, write_section
from genrec.pipeline.queries import Wish
from genrec.pipeline.read_history import HistoryLike as HistoryLike
from genrec.pipeline.read_history import Read, read_history
from genrec.pipeline.request_context import RequestContext, redactor_for
from genrec.pipeline.rules import Rules, apply_rules
from genrec.pipeline.shop_rules import ShopRules, apply_filters, describe_nothing_left
from genrec.prompts.encoder import EncodedPrompt, PromptBudget, PromptEncoder
from genrec.prompts.template import Template
from genrec.taste.edits import ProfileEdits
from genrec.taste.keywords import KeywordIndex
from genrec.text import quantity
from genrec.types import FloatArray, Log

_SHOWN = 5  # maximum number of unknown item ids that a message names


@dataclass(frozen=True, slots=True)
class Request:
    """A request, with everything that is needed to rank items and to build the response.

    Attributes:
        history: the user's events, oldest first.
        options: the options of the request.
        behavior: the target behavior, such as ``buy``.
        understood: the interpretation of each piece of a typed history.
        prompt: the prompt for the history.
        order: the order of items that the filter ``allowed`` refers to.
        allowed: a filter that allows the items that may be returned.
        boosts: (N,) natural logarithm of the factor applied to the score of each of the N catalog
            rows; None if there are no boosts.
        pins: the catalog rows of the pinned items with which the list begins.
        seen: a description of how seen items are treated, such as ``excluded``.
        show: which items the request is about: ``all``, ``new`` or ``again``.
        left_out: the number of items that each rule about the user's own items removed.
        render: a function that renders the prompt for a different window of events. All other text
            stays the same.
        bare: a function like ``render`` without the few-shot demonstrations; None if there are none.
        notes: remarks about the history for the user.
        seed: with ``search="sample"``, the seed of the draw; None to derive it from prompt and settings.
        wish: what a query asks for; None without a query.
    """

    history: History
    options: QueryOptions
    behavior: str
    understood: tuple[Understood, ...]
    prompt: EncodedPrompt
    order: Order
    allowed: Filter
    seen: str
    show: str
    left_out: Mapping[str, int]
    render: Callable[[History], EncodedPrompt]
    bare: Callable[[History], EncodedPrompt] | None = None
    boosts: FloatArray | None = None
    pins: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    seed: int | None = None
    wish: Wish | None = None

    @property
    def size(self) -> int:
        """The number of items that may be returned."""
        return self.allowed.count_items(self.order.n_items)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A history for which no request can be built; the notes give the reason.

    Attributes:
        history: the user's events, oldest first.
        options: the options of the request.
        behavior: the target behavior, such as ``buy``.
        understood: the interpretation of each piece of a typed history.
        seen: a description of how seen items are treated, such as ``excluded``.
        show: which items the request is about: ``all``, ``new`` or ``again``.
        notes: remarks for the user. The last one says why there is no answer.
    """

    history: History
    options: QueryOptions
    behavior: str
    understood: tuple[Understood, ...]
    seen: str
    show: str
    notes: tuple[str, ...]


class _UnanswerableError(RequestError):
    """An error that affects only one history, not the other histories in the same batch."""


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """The maximum length of prompts.

    Attributes:
        tokens: a function that returns the maximum number of tokens. It is called only when a
            prompt is built, because the result may depend on the trie.
        events: the maximum number of events.
    """

    tokens: Callable[[], int]
    events: int


class RequestBuilder:
    """An object that builds requests from histories and options.

    Attributes:
        settings: the settings of the recommender.
        dataset: the dataset, or None if only a catalog was given.
        index: the catalog index.
        template: the prompt template.
        behavior: the target behavior, such as ``buy``.
        shop: the rules about the user's own items.
        context: adds the context of a request to its history.
        demonstrations: chooses the few-shot demonstrations.
        remarks: a function that returns the notes to add to every answer.
        check_use: a function that raises an error if the model was not trained to rank items.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset | None,
        index: CatalogIndex,
        template: Template,
        behavior: str,
        encoder: Callable[[], PromptEncoder],
        limits: PromptLimits,
        log: Log = lambda message: None,
    ) -> None:
        """Store the data that all requests share.

        Args:
            settings: the settings of the recommender.
            dataset: the dataset, or None if only a catalog was given.
            index: the catalog index.
            template: the prompt template.
            behavior: the target behavior.
            encoder: a function that returns the encoder of rendered prompts.
            limits: the maximum length of prompts.
            log: a function that is called with a line of text before each slow step.
        """
        self.settings, self.dataset, self.index = settings, dataset, index
        self.template, self.behavior = template, behavior
        self.shop = ShopRules(settings, dataset, index, behavior)
        self.redactor = redactor_for(settings, dataset)
        self.context = RequestContext(settings, dataset, self.redactor)
        self.demonstrations = Demonstrations(settings, dataset, behavior)
        self._encoder, self._limits, self._log = encoder, limits, log
        self.remarks: Callable[[], tuple[str, ...]] = tuple
        self.check_use: Callable[[], None] = lambda: None

    @cached_property
    def scale(self) -> float:
        """The highest event value in the dataset, or 5 if no event has a value."""
        if self.dataset is None:
            return 5.0
        values = self.dataset.interactions.columns.value
        finite = values[np.isfinite(values)]
        return float(finite.max()) if len(finite) else 5.0

    @property
    def shown_scale(self) -> float | None:
        """The value of ``scale`` if prompts show the values of events, otherwise None."""
        return self.scale if self.settings.values else None

    @property
    def matcher(self) -> TextMatcher:
        """The matcher that finds items in typed text and in generated text."""
        encoder, data = self.settings.encoder, self.dataset
        return self.index.made(
            "matcher",
            lambda: TextMatcher(
                self.index.catalog,
                encoder=None if encoder == "none" else encoder,
                semantic_threshold=self.settings.match_threshold,
                folder=data.folder or data.cache_folder if data is not None else None,
                log=self._log,
            ),
        )

    @property
    def _parser(self) -> HistoryParser:
        return self.index.made("history parser", self._make_parser)

    def _make_parser(self) -> HistoryParser:
        known = self.dataset.interactions.behaviors if self.dataset is not None else ()
        verbs: dict[str, tuple[str, ...]] = {b: (b,) for b in known}
        verbs |= spoken_verbs()
        for behavior, verb in self.template.verbs.items():
            verbs[behavior] = (*verbs.get(behavior, ()), *verb.forms)
        return HistoryParser(self.index.catalog, verbs, self.behavior, self.matcher)

    def understand(self, history: HistoryLike) -> Read:
        """Read a history in any supported form; see ``Recommender.understand``.

        Personal data in the texts of events is replaced. The history of a named user counts as
        stored, and is taken as it is.
        """
        return read_history(history, lambda pieces: self._parser.read(pieces), self.redactor)

    def _read(self, history: HistoryLike, options: QueryOptions) -> Read:
        read, understood = self.understand(history)
        if options.profile_edits is not None:
            read = edits_of(options).apply(read, self.keywords)
        return self.context.add(read, options), understood

    @property
    def keywords(self) -> KeywordIndex:
        """The keywords of the catalog's items."""
        return keyword_index(self.index, self.settings, self.dataset)

    def prompt(
        self,
        history: History,
        demonstrations: Sequence[History] | None = None,
        edits: ProfileEdits | None = None,
    ) -> EncodedPrompt:
        """Build a prompt that shows as many recent events as fit; see ``Recommender.prompt``.

        Args:
            history: the events, oldest first.
            demonstrations: the few-shot demonstrations; if None, they are chosen here.
            edits: the user's corrections of the line that stands for events that do not fit.

        Raises:
            SettingsError: the template asks a yes-or-no question, or its events cannot be
                separated as ``attention="by_event"`` requires.
        """
        self.check_use()
        if self.template.answers is not None:
            msg = (
                f"The template {self.template.name!r} asks a yes-or-no question about one item at a time. "
                "Use it with would_like() or `genrec likes`. To get lists, use a different template "
                "or a different run."
            )
            raise SettingsError(msg)

        def describe(older: History) -> str:
            return write_section(older, self.keywords, self.settings, edits or ProfileEdits())

        prompt = self._encoder().fit(
            self.template,
            self.index.catalog,
            history,
            self.behavior,
            PromptBudget(
                min(self.settings.max_prompt_tokens, self._limits.tokens()),
                self._limits.events,
                describe if self.template.shows_profile else None,
            ),
            demonstrations=self.demonstrations.choose(history)
            if demonstrations is None
            else demonstrations,
            scale=self.shown_scale,
        )
        if self.settings.recent is not None:
            prompt.by_event(self.settings.recent)  # fails before the model is loaded
        return prompt

    def _renderer(
        self, demonstrations: Sequence[History], earlier: str
    ) -> Callable[[History], EncodedPrompt]:
        """Return a function that renders and encodes a prompt with exactly the given events."""

        def render(window: History) -> EncodedPrompt:
            encoder = self._encoder()
            prompt = self.template.render(
                self.index.catalog,
                replace(window, earlier=earlier),
                self.behavior,
                form=encoder.form,
                demonstrations=demonstrations,
                scale=self.shown_scale,
            )
            return encoder.prompt(prompt)

        return render

    def build(
        self,
        histories: Sequence[HistoryLike],
        options: QueryOptions,
        *,
        keep_own: bool = False,
        by_rows: bool = False,
    ) -> list[Request]:
        """Build a request for each history, all with the same options.

        Args:
            histories: the histories, each in a form that ``Recommender.understand`` accepts.
            options: the options of all requests.
            keep_own: True to keep all of the user's own items, regardless of the options and the
                settings.
            by_rows: True if filters should refer to catalog rows instead of trie positions, for
                requests that are answered without a trie.

        Raises:
            RequestError: no item may be returned, or an option or a history is invalid.
        """
        order = self.index.order(by_rows=by_rows)
        rules = apply_rules(options, self.settings, self.index, order, self.dataset)
        return [
            self._request(*self._read(h, options), options, order, rules, keep_own)
            for h in histories
        ]

    def build_each(
        self, histories: Sequence[HistoryLike], options: QueryOptions, *, by_rows: bool = False
    ) -> list[Request | Refusal]:
        """For each history, build a request, or a refusal if it cannot be answered.

        Returns:
            For each history, its request, or a refusal if the rules about the user's own items
            leave no item or the history contains an item that is not in the catalog.

        Raises:
            RequestError: the filters leave no item, an option is invalid, or a history does not
                have a supported form.
        """
        order = self.index.order(by_rows=by_rows)
        rules = apply_rules(options, self.settings, self.index, order, self.dataset)
        return [self._attempt(*self._read(h, options), options, order, rules) for h in histories]

    def build_rails(
        self,
        history: HistoryLike,
        options: QueryOptions,
        shows: Sequence[str],
        *,
        by_rows: bool = False,
    ) -> list[Request | Refusal]:
        """Build a request for each kind of list, all for one history; see ``build_each``.

        Args:
            history: the history.
            options: the options of all requests, except for ``show``.
            shows: the value of ``show`` for each request.
            by_rows: see ``build``.
        """
        order = self.index.order(by_rows=by_rows)
        rules = apply_rules(options, self.settings, self.index, order, self.dataset)
        read, understood = self._read(history, options)
        return [
            self._attempt(read, understood, replace(options, show=show), order, rules)
            for show in shows
        ]

    def _attempt(
        self,
        read: History,
        understood: tuple[Understood, ...],
        options: QueryOptions,
        order: Order,
        rules: Rules,
    ) -> Request | Refusal:
        """Build a request, or a refusal if the history cannot be answered; see ``build_each``."""
        show = self.shop.show(options)
        try:
            return self._request(read, understood, options, order, rules, False)
        except _UnanswerableError as error:
            notes = (*self._notes(understood), str(error))
            seen = self.shop.describe_seen(show)
            return Refusal(read, options, self.behavior, understood, seen, show, notes)

    def check(self, history: HistoryLike, options: QueryOptions, *, keep_own: bool) -> None:
        """Raise any error of ``build`` that can be detected without a model.

        A typed history is not parsed, because this may require an encoder. Only its length is
        checked.
        """
        order = self.index.order(by_rows=True)
        rules = apply_rules(options, self.settings, self.index, order, self.dataset)
        self.shop.show(options)
        self.context.add(History(), options)
        if isinstance(history, History):
            self._allowed(history, options, order, rules.allowed, keep_own)
            self.demonstrations.choose(history)
        else:
            check_length(history)
            self.demonstrations.choose(History())

    def _notes(self, understood: Sequence[Understood]) -> tuple[str, ...]:
        """Return remarks for the user, for example about typed text that was not understood."""
        typed = (*self.matcher.notes, *describe_gaps(understood)) if understood else ()
        users = () if self.dataset is None else self.dataset.interactions.user_ids
        return (*self.remarks(), *typed, *describe_users(understood, users))

    def _request(
        self,
        read: History,
        understood: tuple[Understood, ...],
        options: QueryOptions,
        order: Order,
        rules: Rules,
        keep_own: bool,
    ) -> Request:
        allowed, left_out = self._allowed(read, options, order, rules.allowed, keep_own)
        show = "all" if keep_own else self.shop.show(options)
        pins, unplaced = rules.place_pins(allowed, order, self.index.catalog, int(options.k))
        shots = self.demonstrations.choose(read)
        prompt = self.prompt(read, shots, edits_of(options))
        return Request(
            history=read,
            options=options,
            behavior=self.behavior,
            understood=understood,
            prompt=prompt,
            order=order,
            allowed=allowed,
            seen=self.shop.describe_seen(show),
            show=show,
            left_out=left_out,
            render=self._renderer(shots, prompt.prompt.profile),
            bare=self._renderer((), prompt.prompt.profile) if shots else None,
            boosts=rules.boosts,
            pins=pins,
            notes=(*self._notes(understood), *rules.notes, *unplaced),
        )

    def _allowed(
        self, read: History, options: QueryOptions, order: Order, common: Filter, keep_own: bool
    ) -> tuple[Filter, dict[str, int]]:
        """Create the filter of the items that may be returned for a history.

        Returns:
            The filter, and the number of items that each rule about the user's own items removes.

        Raises:
            _UnanswerableError: no item is left, or the history contains an unknown item.
        """
        unknown = [i for i in read.item_ids if i not in self.index.catalog]
        if unknown:
            some = ", ".join(map(repr, unknown[:_SHOWN]))
            msg = (
                f"The history has {quantity(len(unknown), 'item')} that the catalog of "
                f"{len(self.index.catalog):,} items does not have: {some}. Expected item ids from the "
                "catalog; add these items, or leave them out of the history."
            )
            raise _UnanswerableError(msg)
        if keep_own:
            return common, {}
        filters = self.shop.filters(read, options, order)
        allowed, left_out = apply_filters(common, filters, order)
        if allowed.count_items(order.n_items) < 1:
            raise _UnanswerableError(
                describe_nothing_left(options, self.shop.show(options), left_out)
            )
        return allowed, left_out
