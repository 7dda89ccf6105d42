"""Recommend catalog items for user histories, with the one class that most users need: Recommender.

A recommender handles each request in three steps. First, the history and the options become a
``Request`` (``pipeline.request``). Then the catalog is searched for the best items
(``pipeline.trie_search``), or texts are generated and matched to items (``pipeline.free_text``).
Finally, the response is built (``pipeline.response``) and its explanations are added
(``pipeline.explanations``). Edits to the catalog wait until all running requests have finished.

The module is longer than 500 lines because each public method documents its arguments and errors.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike, fspath
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import numpy as np

from genrec import runs
from genrec.config import EXPLAIN, PROTOCOL, QueryOptions, Settings
from genrec.conversation.query import MOST_SHOWN, Query
from genrec.conversation.questions import Asker
from genrec.data.catalog import Catalog, Item
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.decoding.block_reading import ByEvent
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.trie import TitleTrie
from genrec.errors import DataError, RequestError, SettingsError
from genrec.files import check_output
from genrec.matching.history_parser import Understood
from genrec.matching.matcher import TextMatcher
from genrec.models.base import Generated, TextModel, can_score, need_logits, no_logits
from genrec.models.line_files import LineOptions
from genrec.models.packaged import DEFAULT_MODEL
from genrec.pipeline.catalog_index import CatalogIndex, Edit, check_ids, note_skipped
from genrec.pipeline.chat import ChatAnswer, TurnLike, read_turns, write_sentence
from genrec.pipeline.explanations import Explanations, TextExplanations
from genrec.pipeline.free_text import FreeText
from genrec.pipeline.locks import ReadWriteLock
from genrec.pipeline.queries import QueryReader, Wish
from genrec.pipeline.remembered import RememberedPrompts
from genrec.pipeline.request import HistoryLike, PromptLimits, Refusal, Request, RequestBuilder
from genrec.pipeline.rerank import title_vectors
from genrec.pipeline.resolve import attributes_of, behavior_of, form_of, template_of
from genrec.pipeline.response import ResponseBuilder
from genrec.pipeline.run_use import check_use, describe_run
from genrec.pipeline.similar import SimilarItems, SimilarList
from genrec.pipeline.trie_search import TrieSearch
from genrec.pipeline.types import RecommendationList
from genrec.pipeline.warming import LINES, WARMED, Warmed, warm
from genrec.priors.fitted import Parts
from genrec.priors.fusion import Fusion, PriorSource
from genrec.priors.weights import ItemPrior
from genrec.prompts.encoder import EncodedPrompt, Encoder, TextEncoder
from genrec.prompts.template import Template
from genrec.runs import Run
from genrec.taste.edits import ProfileEdits
from genrec.types import FloatArray, IntArray, Log

if TYPE_CHECKING:
    from genrec.explain.counterfactuals import ItemExplanation
    from genrec.models.language_model import LanguageModel
    from genrec.models.token_tree import TokenTree
    from genrec.pipeline.next_behavior import NextBehavior
    from genrec.pipeline.yes_no import YesNo
    from genrec.priors.collaborative import CollaborativePrior
    from genrec.taste.opinions import Classifier
    from genrec.taste.profile import Profile


class Recommender:
    """Recommends catalog items with a language model, which may be fine-tuned.

    Attributes:
        settings: the settings of this recommender.
        model: the language model, or a model that only generates text.
        dataset: the dataset, or None if only a catalog was given.
        run: the training run that produced the model, or None.
        run_folder: the folder of that run, or None.
        log: a function that is called with a line of text before each slow step.
        tuning_key: a function that returns the key under which fitted weights and temperatures are
            stored. The key depends on the model, the prompt, the behavior and the prior's parts.
    """

    tuning_key: Callable[[], str]

    def __init__(
        self,
        data: Dataset | Catalog,
        model: str | PathLike[str] | LanguageModel | TextModel = DEFAULT_MODEL,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        quantize: str = "none",
        log: Log = lambda message: None,
        **settings: Any,
    ) -> None:
        """Load the model and set up the recommender.

        Args:
            data: a dataset or a catalog. With only a catalog, there are no users and no few-shot
                demonstrations.
            model: ``smollm2-135m``, a local folder, a Hub ID or a loaded ``LanguageModel``. With
                ``decoder="match"``, any ``genrec.models.base.TextModel`` also works.
            device: see ``LanguageModel.load``.
            dtype: see ``LanguageModel.load``.
            threads: see ``LanguageModel.load``.
            quantize: see ``LanguageModel.load``.
            log: a function that is called with a line of text before each slow step.
            **settings: fields of ``genrec.config.Settings``.

        Raises:
            SettingsError: a setting is unknown or invalid.
            ModelError: the model could not be downloaded or loaded.
        """
        _check_data(data)
        checked = Settings.of(settings)
        given: object = model  # checked for callers without a type checker
        if not (isinstance(given, str | PathLike | TextModel) or can_score(given)):
            msg = (
                f"model is of type {type(model).__name__}. Expected the name or folder of a model, a "
                "LanguageModel, or an object with the methods of genrec.models.base.TextModel."
            )
            raise SettingsError(msg)
        load: Callable[[], LanguageModel | TextModel]
        if isinstance(model, str | PathLike):
            options = {"device": device, "dtype": dtype, "threads": threads, "quantize": quantize}
            load = functools.partial(_load, fspath(model), log=log, **options)
        else:
            load = functools.partial(cast, "LanguageModel | TextModel", model)
        self._assemble(data, load, checked, log)

    @classmethod
    def load(
        cls,
        run: str | PathLike[str],
        data: Dataset | Catalog | None = None,
        *,
        model: str | PathLike[str] | TextModel | None = None,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        quantize: str = "none",
        log: Log = lambda message: None,
        **settings: Any,
    ) -> Recommender:
        """Load a recommender from the run folder that ``genrec train`` wrote.

        Args:
            run: the run folder, or the name of a bundled dataset that includes a run.
            data: a dataset or a catalog, which may contain items that were added after training. If
                None, the catalog that the run was trained on is used. Without a dataset, there are
                no users, and the prior is loaded from the run folder if ``genrec tune --run`` saved
                one there.
            model: the name or folder of the base model, if it is no longer where it was during
                training. Its weights must be the same. This can also be the model of the run, as
                loaded by ``LanguageModel.of_run``.
            device: see ``LanguageModel.load``.
            dtype: see ``LanguageModel.load``.
            threads: see ``LanguageModel.load``.
            quantize: see ``LanguageModel.load``.
            log: a function that is called with a line of text before each slow step.
            **settings: settings, such as ``search``, that override the settings of the run.

        Raises:
            ModelError: the folder does not contain a run, or the prompt template, the tokenizer or
                the base model has changed since training.
        """
        folder = runs.find_run(run)
        trained = Run.read(folder)
        checked = Settings.of(trained.serving_settings(settings))
        items = Catalog.read(folder / runs.CATALOG) if data is None else data
        _check_data(items)
        options = {"device": device, "dtype": dtype, "threads": threads, "quantize": quantize}
        load: Callable[[], LanguageModel | TextModel]
        if model is None or isinstance(model, str | PathLike):
            base = None if model is None else fspath(model)
            load = functools.partial(_load_run, folder, base, log=log, **options)
        else:
            load = functools.partial(cast, "TextModel", model)
        new = cls.__new__(cls)
        new._assemble(items, load, checked, log, trained=trained, folder=folder)
        new._check_trained(trained)
        if new.dataset is None:
            new._priors.saved = _saved_prior(folder, new.catalog, log)
        return new

    def _assemble(
        self,
        data: Dataset | Catalog,
        load: Callable[[], LanguageModel | TextModel],
        settings: Settings,
        log: Log,
        *,
        trained: Run | None = None,
        folder: Path | None = None,
        tuning: bool = False,
    ) -> None:
        """Create and connect the parts of the recommender.

        The model is loaded only after the settings have been checked.
        """
        if isinstance(data, Dataset):
            data = data.with_context(settings.context_names).with_knowledge(
                settings.knowledge_names
            )
        self.settings, self.log, self.run = settings, log, trained
        self.run_folder, self._tuning = folder, tuning
        self.dataset = data if isinstance(data, Dataset) else None
        catalog = data if isinstance(data, Catalog) else data.catalog
        template = template_of(settings, self.dataset, catalog)
        behavior = behavior_of(settings, self.dataset, template)
        model = load()
        self.model = cast(
            "LanguageModel", model
        )  # a TextModel is possible too, but it is never used for a trie search
        form = form_of(settings, self.dataset, catalog, template)

        @functools.cache
        def ids_encoder() -> Encoder:
            if not can_score(model):
                raise no_logits(model)
            return Encoder(model.tokenizer, form)

        @functools.cache
        def prompt_encoder() -> Encoder | TextEncoder:
            return ids_encoder() if can_score(model) else TextEncoder(model.count_tokens, form)

        cache = None if self.dataset is None else self.dataset.cache
        index = CatalogIndex(catalog, prompt_encoder, log, cache)
        writes = settings.decoder == "match"
        if not (writes or can_score(model) or settings.model_role == EXPLAIN):
            raise no_logits(model)

        def room() -> int:
            """Return the maximum prompt length in tokens, which leaves room for a title after it."""
            longest = settings.max_title_tokens + 1
            if can_score(model) and (not writes or 2 * longest > model.context):
                longest = index.trie.max_depth
            return model.context - min(longest, model.context // 2 if writes else longest)

        def key(used: Parts) -> str:
            """Return the key under which weights are stored that were fitted for parts of the prior."""
            identity = "run" if trained is not None else self_fingerprint()
            parts = [
                identity,
                template.hash,
                prompt_encoder().hash,
                behavior,
                str(settings.few_shot),
            ]
            if settings.few_shot and settings.demonstrations != "random":
                parts.append(settings.demonstrations)
            if settings.recent is not None:
                parts.append(f"by event, {settings.recent} in full")
            if settings.recent is not None and settings.line_numbers != "float32":
                parts.append(f"lines in {settings.line_numbers}")
            if self._requests.context.columns:
                parts.append(f"context of {', '.join(self._requests.context.columns)}")
            if self.dataset is not None and self.dataset.info.knowledge:
                parts.append(f"knowledge of {', '.join(self.dataset.info.knowledge)}")
            return hashlib.sha256("\0".join([*parts, *used.named()]).encode()).hexdigest()

        self_fingerprint = getattr(model, "fingerprint", lambda: model.name)
        self.tuning_key = lambda: key(self._priors.parts)
        self._index, self._form, self._ids_encoder = index, form, ids_encoder
        self._requests = RequestBuilder(
            settings,
            self.dataset,
            index,
            template,
            behavior,
            prompt_encoder,
            PromptLimits(room, settings.max_events),
            log,
        )
        requests = self._requests
        self._priors = PriorSource(
            settings, self.dataset, behavior, key, log, folder,
            lambda: getattr(model, "threads", 1), tuning=tuning,
        )  # fmt: skip
        scores = can_score(model) and not writes
        self._queries = QueryReader(
            settings, index, self._priors, behavior, lambda: requests.keywords, scores=scores
        )
        requests.remarks = lambda: self._priors.notes
        if trained is not None and folder is not None:
            describe = functools.partial(
                describe_run, trained, folder, catalog, self._priors, asdict(settings)
            )
            requests.remarks = functools.cache(lambda: (*describe(), *self._priors.notes))
            requests.check_use = functools.partial(check_use, trained, folder, asking=False)
        self._search = TrieSearch(
            self.model,
            settings,
            index,
            self._priors,
            lambda rows: title_vectors(index.catalog, requests.matcher, rows),
            lambda message: self.log(message),
            self._reads_by_event(),
            RememberedPrompts(self.model, settings.remembered_bytes, self._tenant),
        )
        banned = tuple(ids_encoder().control_ids) if can_score(model) else ()
        self._writing = FreeText(model, settings, index, banned)
        self._responses = ResponseBuilder(self.model, settings, index, self._priors)
        shown = None if template.attributes is None else template.attributes.knowledge
        self._explanations = Explanations(self.model, settings, index, self._search, form, shown)
        self._lock = ReadWriteLock()

    def _reads_by_event(self) -> ByEvent | None:
        """Return how the older events are read by themselves; None with full attention."""
        settings = self.settings
        if settings.recent is None:
            return None
        return ByEvent(
            settings.recent,
            LineOptions(
                settings.line_numbers,
                settings.line_bytes,
                self.lines_folder,
                settings.line_disk << 20,
            ),
        )

    @property
    def _tenant(self) -> str:
        """A text that identifies the data whose users' prompts are kept."""
        return "" if self.dataset is None else str(self.dataset.folder or self.dataset.info.name)

    def forget_user(self, user_id: str, *, for_good: bool = True) -> None:
        """Drop what the model keeps of a user's prompts; see the setting ``prompt_memory``.

        Args:
            user_id: the user.
            for_good: True to keep no more of the user's prompts from now on.
        """
        self._search.remembered.forget(user_id, for_good=for_good)

    @property
    def lines_folder(self) -> Path | None:
        """The folder for lines of ``attention="by_event"``; None if there is no place for it.

        It is in the cache of the dataset, or in the folder of the run if there is no dataset.
        """
        if self.dataset is not None:
            place = self.dataset.cache.folder
        else:
            place = None if self.run_folder is None else self.run_folder / "cache"
        return None if place is None else place / LINES

    def _check_trained(self, trained: Run) -> None:
        """Check that the prompt and the tokenizer are the same as in the run.

        If the settings name a template with a yes-or-no question, a run that was trained to predict
        the next item can also answer it. In that case, the prompt template need not be the same.

        Raises:
            ModelError: the prompt or the tokenizer differs.
        """
        template, encoder = self.template, self.encoder
        if template.answers is not None and not trained.asks:
            template = template_of(Settings.of(trained.settings), self.dataset, self.catalog)
            form = template.form(encoder.form.case, encoder.form.max_title_tokens)
            encoder = Encoder(self.model.tokenizer, form)
        trained.check(template=template.hash, encoder=encoder.hash)

    @property
    def catalog(self) -> Catalog:
        """The catalog with all edits applied.

        It still contains removed items, because histories show them.
        """
        return self._index.catalog

    @property
    def trie(self) -> TitleTrie | LiveTrie:
        """The trie (prefix tree) of all titles that can be recommended.

        Raises:
            ModelError: the model only generates text.
        """
        need_logits(self.model)
        return self._index.trie

    @property
    def encoder(self) -> Encoder:
        """The encoder that turns prompts and titles into token ids.

        Raises:
            ModelError: the model only generates text.
        """
        return self._ids_encoder()

    @property
    def template(self) -> Template:
        """The prompt template."""
        return self._requests.template

    @property
    def behavior(self) -> str:
        """The target behavior, such as ``buy``."""
        return self._requests.behavior

    @property
    def scale(self) -> float:
        """The highest event value in the dataset, or 5 if no event has a value."""
        return self._requests.scale

    @property
    def exclude_seen(self) -> bool:
        """True if items from the user's history are not recommended.

        This is the setting ``exclude_seen``, or the dataset's default if the setting is None.
        """
        return self._requests.shop.exclude_seen

    @property
    def lead_in_behaviors(self) -> frozenset[str]:
        """The behaviors that do not mark an item as seen, such as views before purchases."""
        return self._requests.shop.lead_in_behaviors

    @property
    def matcher(self) -> TextMatcher:
        """The matcher that finds items in typed text and in generated text."""
        return self._requests.matcher

    @property
    def prior(self) -> ItemPrior | None:
        """The prior whose item weights are combined with the model's probabilities, or None.

        It can be replaced by any object that has the method ``weights(history)``.
        """
        return self._priors.prior

    @prior.setter
    def prior(self, prior: ItemPrior | None) -> None:
        self._priors.prior = prior

    @property
    def fusing(self) -> Fusion:
        """The weight, method and temperatures used to combine the prior and the model.

        Values from the settings take precedence over values fitted by ``genrec tune``.
        """
        return self._priors.fusing

    @property
    def prior_parts(self) -> Parts:
        """The parts of the collaborative prior: its sources, its learned ranking and its network."""
        return self._priors.parts

    @property
    def ranker(self) -> str:
        """The name of the learned ranking of the prior's best items, or ``none``."""
        return self._priors.ranker

    def understand(self, history: HistoryLike) -> tuple[History, tuple[Understood, ...]]:
        """Read a history in any supported form, and report which item each typed name was matched to.

        Args:
            history: a ``History``; a list of ``Interaction`` objects, item ids or titles; or text such
                as ``"bought: RED RETROSPOT MUG; viewed: JUMBO BAG PINK POLKADOT"``. An empty string
                stands for a new user.

        Returns:
            The history, and one entry for each piece of typed text. There are no entries for a
            ``History`` or a list of ``Interaction`` objects.

        Raises:
            RequestError: the history does not have one of these forms.
        """
        return self._requests.understand(history)

    def in_context(
        self,
        history: HistoryLike,
        context: Mapping[str, str | float | bool] | None = None,
        note: str | None = None,
        *,
        at: str | float = "any",
        query: str | None = None,
    ) -> History:
        """Return a history together with the circumstances of the next event.

        ``recommend``, ``rank``, ``score`` and ``explain`` take ``context`` and ``note`` as options. All
        other methods, such as ``prompt`` and ``would_like``, take them from the history.

        Args:
            history: see ``understand``.
            context: values by column, such as ``{"season": "winter"}``. The columns are ``season``,
                ``weekday``, ``time_of_day`` and those that the dataset or the setting
                ``context_columns`` declares. They replace the values that the history has.
            note: what is known about the next event in free words; None keeps that of the history.
            at: the time of the next event, from which declared columns such as ``season`` are
                derived; ``any`` for an unknown time.
            query: what the user asks for, as the model reads it; None keeps that of the history. Its
                conditions filter nothing here.

        Raises:
            RequestError: a column is unknown, or a value, the note or the time is not valid.
        """
        read, _ = self.understand(history)
        return self._requests.context.add(
            read, QueryOptions(context=cast("Any", context or {}), note=note, at=at, query=query)
        )

    def history(self, user_id: str, *, before: str | None = None) -> History:
        """Return a user's history from the dataset, or only the part before the split ``before``.

        Raises:
            RequestError: there is no dataset, or the user is not in it.
        """
        if self.dataset is None:
            msg = (
                f"User {user_id!r} cannot be looked up: there is no dataset, only a catalog. Expected "
                "a Dataset, or a history instead of a user id."
            )
            raise RequestError(msg)
        return self.dataset.interactions.history(user_id, before=before)

    def demonstrations(
        self, user_id: str | None = None, history: HistoryLike = ""
    ) -> tuple[History, ...]:
        """Choose the few-shot demonstrations, which are histories of other users.

        The setting ``few_shot`` gives the number of users. Each demonstration consists of the
        latest train events of one user. With ``demonstrations="random"``, the users are drawn with the
        setting ``seed``, so they are the same in every request, except that a user's own prompt
        never contains their own history. With ``demonstrations="near"``, they are the users whose items
        have the highest cosine with those of the history, weighted by inverse document frequency.

        Args:
            user_id: a user who is not shown.
            history: the history to be near to; if it is empty, that of the user.
        """
        read, _ = self.understand(history)
        if user_id is not None and not read.interactions:
            read = self.history(user_id) if self.settings.demonstrations == "near" else read
        return self._requests.demonstrations.choose(History(read.interactions, user_id))

    def prompt(self, history: HistoryLike) -> EncodedPrompt:
        """Build the prompt for a history and encode it as token ids.

        Raises:
            PromptError: even the prompt without events exceeds the token budget.
            SettingsError: the template asks a yes-or-no question instead of asking for the next
                item.
        """
        read, _ = self.understand(history)
        return self._requests.prompt(read)

    def recommend(
        self,
        history: HistoryLike = "",
        k: int | EllipsisType = ...,
        *,
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> RecommendationList:
        """Recommend the k best next items.

        The probabilities of all catalog items sum to 1. They do not change when an option excludes
        items. Items whose latest event is a return and items of the user's latest basket are left
        out, unless ``allow_returned`` or ``allow_last_basket`` is True. Other items with the title of
        such an item, or of a seen item in a list of new items, are left out unless
        ``allow_same_title`` is True.

        Args:
            history: see ``understand``; empty for a new user.
            k: the number of items; defaults to ``options.k``, or 10 if that is not set. Fewer items
                are returned only if fewer are allowed or the ``match`` decoder is used; in that
                case ``notes`` gives the reason.
            options: a complete set of options; k and the keywords override its fields.
            **keywords: fields of ``genrec.config.QueryOptions``: ``explain``, ``evidence``,
                ``style``, ``allow``, ``deny``, ``where``, ``show``, ``allow_returned``,
                ``allow_last_basket``, ``allow_same_title``, ``min_probability``, ``per_title``,
                ``per_group``, ``caps``, ``boosts``, ``pin``, ``at``, ``stock``, ``half_life``, ``age_column``, ``diversity``,
                ``context``, ``note``, ``query`` and ``query_weights``.

        Raises:
            RequestError: k is below 1, every item is excluded, or an option is invalid.
            DataError: the stock file cannot be used, and no earlier content of it is known.
        """
        wanted = _merge_options(options, k, keywords)
        with self._lock.request():
            wanted, wish = self._wish(wanted)
            requests = self._requests.build([history], wanted, by_rows=self._by_rows(wish))
            return self._answer(_wishing(requests, wish), wanted, 1)[0]

    def recommend_many(
        self,
        histories: Sequence[HistoryLike],
        k: int | EllipsisType = ...,
        *,
        batch_size: int = 8,
        options: QueryOptions | None = None,
        seeds: Sequence[int] | None = None,
        **keywords: Any,
    ) -> list[RecommendationList]:
        """Recommend items for several histories, whose prompts are processed in batches.

        Args:
            histories: a list of histories, each in a form that ``understand`` accepts.
            k: the number of items for each history; defaults to ``options.k``, or 10 if that is not
                set.
            batch_size: the number of prompts per batch.
            options: a complete set of options; k and the keywords override its fields.
            seeds: with ``search="sample"``, a random seed from 0 to 2^63 - 1 for the draw of each
                history; None to derive them from the prompts and the setting ``seed``, so that the
                same history always gets the same list.
            **keywords: options as in ``recommend``, which apply to all histories.

        Returns:
            One list per history, in the same order. A list is empty if the user's own history
            excludes every item that may be returned, or if it contains an item that is not in the
            catalog; the list's ``notes`` give the reason.

        Raises:
            RequestError: histories is a string or a single history, a history does not have a
                supported form, the filters exclude all items, or an option is invalid.
        """
        if isinstance(histories, str | History) or not isinstance(histories, Iterable):
            msg = f"histories is a single {type(histories).__name__}. Expected a list of histories."
            raise RequestError(msg)
        if not isinstance(batch_size, int) or batch_size < 1:
            msg = f"batch_size={batch_size!r} is not valid. Expected a whole number of at least 1."
            raise RequestError(msg)
        wanted = _merge_options(options, k, keywords)
        with self._lock.request():
            wanted, wish = self._wish(wanted)
            built = self._requests.build_each(list(histories), wanted, by_rows=self._by_rows(wish))
            built = _wishing(built, wish)
            if seeds is not None:
                built = [_seeded(one, seed) for one, seed in zip(built, seeds, strict=True)]
            return self._answer_each(built, wanted, batch_size)

    def recommend_rails(
        self,
        history: HistoryLike = "",
        k: int | EllipsisType = ...,
        *,
        shows: Sequence[str] = ("new", "again"),
        options: QueryOptions | None = None,
        seed: int | None = None,
        **keywords: Any,
    ) -> dict[str, RecommendationList]:
        """Recommend items that are new to the user and items to get again, as two lists.

        The model reads the prompt only once for all lists.

        Args:
            history: see ``understand``.
            k: the number of items in each list; defaults to ``options.k``, or 10 if that is not set.
            shows: the lists, as values of the option ``show``: ``new``, ``again`` and ``all``.
            options: a complete set of options; k and the keywords override its fields. The field
                ``show`` is not used.
            seed: with ``search="sample"``, the random seed of the draws; see ``recommend_many``.
            **keywords: options as in ``recommend``, which apply to all lists.

        Returns:
            The lists, keyed by their names in ``shows``. A list is empty if the user's own history
            leaves no item for it; its ``notes`` give the reason.

        Raises:
            RequestError: the setting ``exclude_seen`` contradicts one of the lists, the filters
                exclude all items, or an option is invalid.
        """
        wanted = _merge_options(options, k, keywords)
        with self._lock.request():
            wanted, wish = self._wish(wanted)
            built = self._requests.build_rails(history, wanted, shows, by_rows=self._by_rows(wish))
            built = _wishing(built, wish)
            built = [_seeded(one, seed) for one in built]
            return dict(zip(shows, self._answer_each(built, wanted, len(built)), strict=True))

    def propensities(
        self,
        history: HistoryLike,
        item_ids: Sequence[str],
        *,
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> tuple[float, ...]:
        """Compute the probability with which a draw would show given items at the first places.

        This is the ``propensity`` of the items in a list of ``search="sample"``: at each place, the
        probability of the item given the items before it, under all filters. It does not depend on
        this recommender's setting ``search``.

        Args:
            history: see ``understand``.
            item_ids: distinct items in the order of the list.
            options: a complete set of options; the keywords override its fields.
            **keywords: options as in ``recommend``, of which ``diversity`` and ``boosts`` cannot be
                used.

        Returns:
            The probabilities. They are 0 from the first item on that its place cannot show.

        Raises:
            RequestError: an item is unknown or was removed, or an option is invalid.
        """
        given = _merge_options(options, ..., keywords)
        wanted = replace(given, k=max(len(item_ids), 1), pin=())
        if wanted.diversity or wanted.boosts or wanted.half_life is not None:
            msg = "diversity, boosts and half_life cannot be used for propensities. Leave them out."
            raise RequestError(msg)
        with self._lock.request():
            rows = np.array([self._present(i) for i in item_ids], dtype=np.int64)
            wanted, wish = self._wish(wanted)
            requests = _wishing(self._requests.build([history], wanted), wish)
            reading = self._search.read(requests)
            return tuple(self._search.propensities(reading, requests, 0, rows).tolist())

    def understand_query(
        self, text: str, *, shown: Sequence[str] = (), focus: str | None = None
    ) -> Query:
        """Understand what somebody asks for, without making a list; see ``parse_query``.

        Args:
            text: the words, in English or Chinese.
            shown: the ids of the items in the list shown before, to which "the second one" refers.
            focus: the id of the item that was spoken of last, to which "that one" refers.

        Raises:
            RequestError: the text is empty or too long.
        """
        return self._queries.parse(text, self.matcher, shown, focus)

    def chat(
        self,
        turns: Sequence[TurnLike],
        history: HistoryLike = "",
        k: int | EllipsisType = ...,
        *,
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> ChatAnswer:
        """Answer the last turn of a conversation with a list, a sentence, and questions if needed.

        All turns are read again, so nothing is kept between calls. To go on, add ``answer.turn`` and the
        user's next turn.

        Args:
            turns: what was said, oldest first; see ``read_turns``. The last turn is the user's.
            history: the events of the user before the conversation; see ``understand``.
            k: the number of items; if it is not given, what the user says, or 10.
            options: a complete set of options; k and the keywords override its fields.
            **keywords: options as in ``recommend``, except ``query``.

        Raises:
            RequestError: the turns cannot be read, or an option is invalid.
        """
        said = read_turns(turns)
        wanted = _merge_options(options, k, keywords)
        if wanted.query is not None:
            msg = "chat reads what is wanted from the turns, so query does not apply. Leave it out."
            raise RequestError(msg)
        dialogue, last = self._queries.replay(said, self.matcher)
        asker = Asker(chinese=dialogue.language == "zh")
        questions = () if last is None else last.questions
        query = dialogue.query(questions)
        if not (query.wanted or query.unwanted or query.conditions or query.references):
            asked = questions or (asker.empty(),)
            return ChatAnswer("", asked, None, last, query, dialogue.mentioned)
        with self._lock.request():
            if not self._queries.may_find(query):
                asked = (*questions, asker.nothing([c.text for c in query.conditions]))
                return ChatAnswer("", asked, None, last, query, dialogue.mentioned)
            wanted = replace(wanted, query=query.text[-MOST_SHOWN:].strip())
            wanted, wish = self._wish(wanted, query)
            built = self._requests.build_each([history], wanted, by_rows=self._by_rows(wish))
            (answer,) = self._answer_each(_wishing(built, wish), wanted, 1)
        if not len(answer):
            asked = (*questions, asker.nothing([c.text for c in query.conditions]))
            return ChatAnswer("", asked, answer, last, query, dialogue.mentioned)
        sentence = write_sentence(dialogue, answer)
        return ChatAnswer(sentence, questions, answer, last, query, dialogue.mentioned)

    def understand_dialogue(self, turns: Sequence[TurnLike]) -> Query:
        """Return all that is known after the turns of a conversation, without making a list; see ``chat``.

        Raises:
            RequestError: the turns cannot be read.
        """
        state, last = self._queries.replay(read_turns(turns), self.matcher)
        return state.query(() if last is None else last.questions)

    def _wish(
        self, options: QueryOptions, query: Query | None = None
    ) -> tuple[QueryOptions, Wish | None]:
        """Understand the query of a request, and add its filters to the options.

        Args:
            options: the options of the request.
            query: the query, if it was understood already.
        """
        if options.query is None:
            return options, None
        if query is None:
            query = self.understand_query(options.query)
        wanted = self._queries.apply(query, options)
        return wanted, self._queries.wish(query, wanted, self.matcher)

    def _answer_each(
        self, built: Sequence[Request | Refusal], options: QueryOptions, batch_size: int
    ) -> list[RecommendationList]:
        """Answer requests that differ only in their history or in ``show``, and report refusals."""
        requests = [r for r in built if isinstance(r, Request)]
        answers = iter(self._answer(requests, options, batch_size))
        return [
            next(answers) if isinstance(r, Request) else self._responses.from_refusal(r)
            for r in built
        ]

    @property
    def _writes(self) -> bool:
        """True if the model writes texts that are then matched to items."""
        return self.settings.decoder == "match"

    def _by_rows(self, wish: Wish | None) -> bool:
        """Return True if requests are answered with texts, without a trie."""
        return self._writes and (wish is None or wish.prior is None)

    def _answer(
        self, requests: Sequence[Request], options: QueryOptions, batch_size: int
    ) -> list[RecommendationList]:
        """Answer requests that all have the same options."""
        if requests and self._by_rows(requests[0].wish):
            named = [self._writing.name_items(r, self.matcher) for r in requests]
            answers = list(map(self._responses.from_texts, requests, named))
        else:
            ranked = self._search.rank(requests, batch_size)
            build = functools.partial(self._responses.from_ranking, decoder="trie")
            answers = list(map(build, requests, ranked))
        if options.explain:
            answers = list(map(self._explain_list, answers, requests))
        return answers

    def _explain_list(self, answer: RecommendationList, request: Request) -> RecommendationList:
        """Add an explanation to each item of a list."""
        if can_score(self.model):
            return self._explanations.add(answer, self._on_trie(request))
        writer = TextExplanations(self.model, self.settings, self._index, self._form)
        return writer.add(answer, request)

    def _on_trie(self, request: Request) -> Request:
        """Return the same request, with its filter converted to trie positions.

        Evidence is measured on the trie, but in free generation, the filter refers to catalog rows.
        """
        if request.order is self._index.trie:
            return request
        (same,) = self._requests.build([request.history], request.options)
        return same

    def explain(
        self,
        history: HistoryLike,
        item_id: str,
        k: int | EllipsisType = ...,
        *,
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> ItemExplanation:
        """Explain why an item is or is not recommended, and find changes that would raise its rank.

        Args:
            history: see ``understand``.
            item_id: the id of any item in the catalog, or a title that only one item has.
            k: the length of the list to compare the item with; defaults to ``options.k``, or 10 if
                that is not set.
            options: a complete set of options; k and the keywords override its fields.
            **keywords: options as in ``recommend``. ``evidence`` and ``style`` control the
                explanation; ``allow``, ``deny``, ``where``, ``show``, ``allow_returned``,
                ``allow_last_basket`` and ``allow_same_title`` restrict the list, and ``boosts`` change its order.

        Raises:
            RequestError: the item is not in the catalog or was removed, or an option is invalid.
        """
        wanted = _merge_options(options, k, keywords)
        if wanted.pin:
            msg = "explain determines the rank of an item by its score, so pin does not apply. Leave it out."
            raise RequestError(msg)
        need_logits(self.model)
        with self._lock.request():
            row = self._present(item_id)
            wanted, wish = self._wish(wanted)
            (request,) = _wishing(self._requests.build([history], wanted, keep_own=True), wish)
            rules = self._requests.shop.filters(request.history, wanted, request.order)
            return self._explanations.examine(request, row, rules)

    def _present(self, item_id: str) -> int:
        """Return the catalog row of an item, after checking that the item was not removed."""
        row = self._index.row(item_id)
        if row in self._index.removed:
            msg = f"Item {item_id!r} was removed. Expected an item that can be recommended; add it again first."
            raise RequestError(msg)
        return row

    def _whole_request(self, history: HistoryLike) -> Request:
        """Build a request that has default options and excludes no item."""
        (request,) = self._requests.build([history], PROTOCOL, keep_own=True)
        return request

    def falls(
        self, history: HistoryLike, item_id: str, left_out: Sequence[Sequence[int]]
    ) -> list[float]:
        """Measure the drop in an item's score when events are removed from the history.

        Args:
            history: see ``understand``.
            item_id: the id of any item in the catalog, or a title that only one item has.
            left_out: sets of event indices, each of which is removed separately. Index 0 is the
                oldest event that the prompt shows.

        Returns:
            The drop in nats for each set. It is negative if the score rises.

        Raises:
            RequestError: the item is not in the catalog or was removed, or an index is out of
                range.
        """
        need_logits(self.model)
        with self._lock.request():
            row = self._present(item_id)
            return self._explanations.falls(self._whole_request(history), row, left_out)

    def profile(
        self,
        history: HistoryLike,
        *,
        edits: ProfileEdits | Mapping[str, Sequence[str]] | None = None,
        classifier: Classifier | None = None,
        measure: bool = True,
        most: int = 8,
    ) -> Profile:
        """Describe what a history says about a user's taste, with the events that say so.

        The nats of each interest are measured by the same search as explanations: with the prior if it
        ranks items alone, otherwise with the model and the prior, over the 20 most likely items that
        hold the keyword. Nothing is measured with a model that only generates text.

        Args:
            history: see ``understand``.
            edits: the user's corrections; see ``genrec.taste.edits.ProfileEdits``.
            classifier: a ``genrec.sentiment.Sentiment`` that reads reviews without a known polarity.
            measure: False to leave out the model, and to measure with the prior alone.
            most: the maximum number of interests.

        Raises:
            RequestError: the history or the edits are not valid.
        """
        from genrec.pipeline.profiles import Profiler

        with self._lock.request():
            read, _ = self.understand(history)
            given = ProfileEdits.of(edits or {})
            reads = measure and can_score(self.model) and not self._writes
            counted = self.prior is not None and (self.fusing.role == EXPLAIN or not reads)
            profiler = Profiler(
                self._index, self.settings, self.dataset, self.prior, self.template.verbs
            )
            measured = "model" if self.prior is None else "model and prior"
            return profiler.make(
                read,
                given,
                measure=None if counted or not reads else self._set_falls,
                measured="prior" if counted else measured,
                classifier=classifier,
                most=most,
            )

    def next_behavior(
        self, history: HistoryLike = "", k: int = 0, *, model_weight: float = 0.0
    ) -> tuple[NextBehavior, ...]:
        """Estimate what the user does next, and with which items.

        P(behavior) is counted: the user's own behaviors, where recent ones weigh more, shrunk towards what follows the
        latest one among all users; see ``genrec.taste.behaviors``. P(item | behavior) is the list that is
        recommended for this behavior.

        Args:
            history: see ``understand``.
            k: the number of items for each behavior; 0 for none. Only behaviors of at least 1% get items.
            model_weight: the exponent with which the model's likelihood of the verbs is multiplied to the
                counted probabilities; 0 to leave the model out.

        Returns:
            All behaviors of the dataset, most likely first.

        Raises:
            SettingsError: there is no dataset.
        """
        from genrec.pipeline.next_behavior import estimate
        from genrec.taste.behaviors import BehaviorCounts

        if self.dataset is None:
            msg = (
                "There are no behaviors to count without a dataset. Expected a recommender over a "
                "Dataset instead of a catalog."
            )
            raise SettingsError(msg)
        read, _ = self.understand(history)
        before, events = self.settings.prior_before, self.dataset.interactions
        counts = self._index.made("behavior counts", lambda: BehaviorCounts.count(events, before))

        def rank(behavior: str) -> RecommendationList:
            return self.with_settings(target_behavior=behavior).recommend(read, k)

        return estimate(
            counts, read, rank if k else None, model_weight,
            lambda behaviors: self.verb_logprobs(read, behaviors),
        )  # fmt: skip

    def verb_logprobs(self, history: HistoryLike, behaviors: Sequence[str]) -> FloatArray:
        """Compute the model's log-likelihood of the verbs of B behaviors after a history.

        The template must end with the verb of the next event, as ``next_item`` does.

        Returns:
            (B,) natural logarithms; they do not sum to 1, since the model may write other words.
        """
        from genrec.pipeline.next_behavior import verb_logprobs

        read, _ = self.understand(history)
        window = read.latest(self.prompt(read).prompt.events)
        rendered = (
            self.template.render(self.catalog, window, b, form=self.encoder.form) for b in behaviors
        )
        return verb_logprobs(self.model, [self.encoder.prompt(r).ids for r in rendered])

    def _set_falls(
        self, history: History, sets: Sequence[IntArray], left_out: Sequence[Sequence[int]]
    ) -> list[tuple[float, float]]:
        """Measure the drops of sets of items; see ``Explanations.set_falls``."""
        return self._explanations.set_falls(self._whole_request(history), sets, left_out)

    def events_in_prompt(self, history: HistoryLike) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Build the prompt as a string, and locate each event in it.

        Returns:
            The prompt, and the character positions (start, end) of each event in the prompt.
        """
        with self._lock.request():
            return self._explanations.spans(self._whole_request(history))

    def rank(
        self,
        history: HistoryLike = "",
        candidates: Sequence[str] | None = None,
        *,
        options: QueryOptions | None = None,
        strict: bool = False,
        **keywords: Any,
    ) -> RecommendationList:
        """Rank the given items, for example candidates from another system, by their exact scores.

        The user's own items are left out by the same rules as in ``recommend``, and so are items that
        are not available; ``score`` keeps them. The probabilities of all catalog items sum to 1, so they
        do not depend on the candidates.

        Args:
            history: see ``understand``.
            candidates: the ids of the items to rank; duplicates count once. None ranks all items.
                Ids that are not in the catalog are skipped; the list's ``unknown`` and ``notes``
                name them.
            options: a complete set of options; candidates and the keywords override its fields.
            strict: True to raise an error if a candidate is not in the catalog.
            **keywords: the options ``k``, ``deny``, ``where``, ``show``, ``allow_returned``,
                ``allow_last_basket``, ``allow_same_title``, ``boosts``, ``explain``, ``evidence`` and
                ``style`` of ``recommend``. Every candidate is returned unless ``k`` is given.

        Raises:
            RequestError: no candidate is in the catalog, no candidate is left, or an option does
                not apply. With ``strict``, this is also raised if any candidate is missing from the
                catalog.
        """
        return self._rank_all(history, candidates, options, keywords, strict=strict, keep_own=False)

    def score(
        self,
        history: HistoryLike = "",
        candidates: Sequence[str] | None = None,
        *,
        options: QueryOptions | None = None,
        strict: bool = False,
        **keywords: Any,
    ) -> RecommendationList:
        """Rank the given items as ``rank`` does, but keep unavailable items and those that the user has had."""
        return self._rank_all(history, candidates, options, keywords, strict=strict, keep_own=True)

    def _rank_all(
        self,
        history: HistoryLike,
        candidates: Sequence[str] | None,
        options: QueryOptions | None,
        keywords: dict[str, Any],
        *,
        strict: bool,
        keep_own: bool,
    ) -> RecommendationList:
        with self._lock.request():
            known: list[str] = []
            unknown: tuple[str, ...] = ()
            if candidates is not None:
                known, unknown = self._index.divide(candidates, "candidates", strict=strict)
                keywords = {**keywords, "allow": known}
            wanted = QueryOptions.of(options, **keywords)
            if keep_own:  # every item has a score, even if it cannot be bought now
                wanted = replace(wanted, at="any", stock=None)
            if wanted.chooses or wanted.groups or wanted.min_probability or wanted.pin:
                msg = (
                    "rank and score give the exact scores of the candidates, so min_probability, "
                    "per_title, per_group, caps, diversity and pin do not apply. Leave them out, or use "
                    "recommend(..., allow=candidates)."
                )
                raise RequestError(msg)
            wanted, wish = self._wish(wanted)
            built = self._requests.build([history], wanted, keep_own=keep_own)
            (request,) = _wishing(built, wish)
            k = min(wanted.k, request.size) if wanted.limited else request.size
            ranked = self._search.rank_all(request, k)
            answer = self._responses.from_ranking(request, ranked, asked=k, decoder="trie")
            if unknown:
                note = note_skipped(unknown, len(known), removed=bool(self._index.removed))
                answer = replace(answer, unknown=unknown, notes=(*answer.notes, note))
            return self._explain_list(answer, request) if wanted.explain else answer

    @overload  # a str is a sequence of str, too
    def would_like(self, history: HistoryLike, items: str) -> float: ...  # type: ignore[overload-overlap]

    @overload
    def would_like(self, history: HistoryLike, items: Sequence[str]) -> list[float]: ...

    def would_like(self, history: HistoryLike, items: str | Sequence[str]) -> float | list[float]:
        """Estimate the probability that the user wants an item by asking the model a yes-or-no question.

        The question is worded by the recommender's template if that template defines two answers,
        as it does after training with ``objective="pointwise"``. Otherwise, it is worded by the
        shipped template ``would_like``. A model without fine-tuning also answers, but its
        probabilities are not calibrated. A run that was trained to predict the next item answers
        only if the template was chosen explicitly, as in
        ``Recommender.load(run, data, template="would_like")``.

        Args:
            history: see ``understand``; empty for a new user.
            items: an item id or a list of item ids. For a list, the model reads the history only
                once.

        Returns:
            A number from 0 to 1, or a list of numbers for a list of items.

        Raises:
            RequestError: an item is not in the catalog.
            SettingsError: the run was trained to predict the next item.
            PromptError: the template does not define a question with two answers.
        """
        ids = [items] if isinstance(items, str) else items
        check_ids(ids, "items")
        with self._lock.request():
            rows = self.catalog.rows(ids)
            read, _ = self.understand(history)
            chances = self.question.chances(self.model, read, rows)
        return chances[0] if isinstance(items, str) else chances

    @property
    def question(self) -> YesNo:
        """The yes-or-no question that ``would_like`` asks the model about an item."""
        return self._index.made("question", self._make_question)

    def _make_question(self) -> YesNo:
        from genrec.pipeline.yes_no import YesNo

        template, encoder, settings = self.template, self.encoder, self.settings
        if template.answers is None:
            if self.run is not None and self.run_folder is not None:
                check_use(self.run, self.run_folder, asking=True)
            template = Template.load("would_like", settings.language, own=settings.prompts)
            template = template.with_attributes(attributes_of(settings, self.dataset, self.catalog))
            form = template.form(encoder.form.case, encoder.form.max_title_tokens)
            encoder = Encoder(self.model.tokenizer, form)
        return YesNo(
            template,
            encoder,
            self.catalog,
            self.behavior,
            max_tokens=min(settings.max_prompt_tokens, self.model.context),
            max_events=settings.max_events,
            scale=self._requests.shown_scale,
        )

    def similar(
        self,
        items: str | Sequence[str],
        k: int | None = None,
        *,
        by: str = "both",
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> SimilarList:
        """Find the items that go with given items; see ``SimilarItems.find``.

        Edits to the catalog and events that were added to the prior count. The model is not used.
        """
        with self._lock.request():
            finder = self._index.made("similar", self._make_similar)
            return finder.find(items, k, by=by, options=options, **keywords)

    def _make_similar(self) -> SimilarItems:
        from genrec.priors.collaborative import CollaborativePrior as Prior

        prior = self.prior if isinstance(self.prior, Prior) else None
        matcher = None if self.settings.encoder == "none" else self.matcher
        return SimilarItems.over(
            self._index, self.settings, self.dataset, prior, matcher, lambda text: self.log(text)
        )

    def title_vectors(self, rows: IntArray) -> FloatArray:
        """Compute a unit vector for the title of each given catalog row.

        The vectors come from the matcher's encoder. If there is none, or if it cannot read the
        titles, they are based on character n-grams.

        Args:
            rows: n catalog rows.

        Returns:
            An array of shape (n, D), where D is the size of a vector.
        """
        return title_vectors(self.catalog, self.matcher, rows)

    def with_nats(
        self, history: HistoryLike, k: int, target: str
    ) -> tuple[RecommendationList, float, float]:
        """Recommend k items and also score a target item, while reading the prompt only once.

        As in the evaluation protocols, the list may contain any number of variants of one product,
        returned items and items of the latest basket.

        The recommender must use the decoder ``trie`` and the normalization ``catalog``.

        Returns:
            The list; the target's negative log-probability in nats, where the probabilities of all
            catalog items sum to 1; and the time in seconds that it took to compute the list.
        """
        with self._lock.request():
            started = time.perf_counter()
            (built,) = self._requests.build_each([history], replace(PROTOCOL, k=k))
            request = built if isinstance(built, Request) else self._whole_request(history)
            reading = self._search.read([request])
            if isinstance(built, Request):
                (ranking,) = self._search.best(reading, [request])
                answer = self._responses.from_ranking(request, reading.ranked(0, ranking))
            else:
                answer = self._responses.from_refusal(built)
            seconds = time.perf_counter() - started
            allowed = self._index.allowed(QueryOptions(1, allow=[target]), request.order)
            one = self._search.every(reading, replace(request, allowed=allowed))
            return answer, -float(one.logprobs[0]), seconds

    def token_tree(self, prompt: EncodedPrompt) -> TokenTree:
        """Run the model on a prompt, and return a tree that scores continuations of the prompt.

        The prompt is read as for a list, also with ``attention="by_event"``.
        """
        return self._search.tree(prompt)

    def warm(self, disk: int = WARMED) -> Warmed:
        """Read the lines of all items in advance, and store them in files for later processes.

        The most frequent items come first. This needs ``attention="by_event"`` and a dataset that has a
        folder.

        Args:
            disk: maximum size of all files in MiB, unless the setting ``line_disk`` is larger.

        Raises:
            SettingsError: the events are not read by themselves, there is no folder for the lines, or
                the model or the template does not support it.
        """
        by_event = self._reads_by_event()
        if by_event is None or by_event.lines is None:
            msg = "Only attention='by_event' stores lines. Set it, or leave out warm."
            raise SettingsError(msg)
        if self.dataset is None or by_event.lines.folder is None:
            msg = (
                "There is no folder for the lines. Expected a dataset that was loaded from a folder, "
                "with genrec.Dataset.load(folder)."
            )
            raise SettingsError(msg)
        check_output(by_event.lines.folder, kind="folder")
        lines = replace(by_event.lines, disk=max(by_event.lines.disk, disk << 20))
        (request,) = self._requests.build(
            [History()], replace(PROTOCOL, at="any"), keep_own=True, by_rows=True
        )
        return warm(
            self.model, replace(by_event, lines=lines), self.dataset, request.render,
            self.prompt, self.log,
        )  # fmt: skip

    def generate(self, history: HistoryLike | EncodedPrompt = "") -> list[Generated]:
        """Generate texts that continue the prompt, without restricting them to catalog titles.

        This is the first step of ``decoder="match"``. The settings ``n_samples``, ``temperature``
        and ``seed`` control the sampling. If ``n_samples`` is 0, a beam search with ``beam_size``
        beams (20 if that is None) is used instead, and the best text comes first.

        Args:
            history: see ``understand``; or a finished prompt.
        """
        prompt = history if isinstance(history, EncodedPrompt) else self.prompt(history)
        return self._writing.write(prompt)

    def add_items(self, items: Iterable[Item]) -> None:
        """Add items to the catalog. The next request can recommend them without any training.

        Adding a removed item restores it with its new data. Running requests finish first.

        Raises:
            DataError: the list contains something other than items, an id already exists, or an
                item is invalid (see ``Catalog``).
        """
        self._edit(self._index.additions(items))

    def remove_items(self, item_ids: Sequence[str]) -> None:
        """Remove items from the recommendations.

        The probabilities of the remaining items sum to 1 again. Histories still show removed items.
        Running requests finish first.

        Raises:
            RequestError: an id is not in the catalog, or no item would be left.
        """
        self._edit(Edit(remove=item_ids))

    def retitle_items(self, titles: Mapping[str, str]) -> None:
        """Change the titles of items. Running requests finish first.

        Args:
            titles: a mapping from item_id to the new title.

        Raises:
            RequestError: an id is not in the catalog or was removed.
            DataError: a title is empty.
        """
        self._edit(self._index.retitled(titles))

    def put_items(self, items: Iterable[Item] = (), remove: Sequence[str] = ()) -> None:
        """Add or replace items and remove others in one step, so that no request sees only a part.

        Running requests finish first.

        Args:
            items: items with new ids are added. The others replace the items with the same ids, and
                restore removed ones.
            remove: the ids of items to remove, which may be among those of ``items``.

        Raises:
            DataError: an item is invalid (see ``Catalog``). Nothing is changed.
            RequestError: an id to remove is unknown, or no item would be left. Nothing is changed.
        """
        given = list(items)
        with self._lock.edit():
            self._index.edit_all(given, remove)
            self._priors.follow(self.catalog)

    def _edit(self, *edits: Edit) -> None:
        with self._lock.edit():
            for edit in edits:
                self._index.edit(edit)
            self._priors.follow(self.catalog)

    def with_settings(self, *, data: Dataset | None = None, **changes: Any) -> Recommender:
        """Return a new recommender that differs from this one in some settings.

        The new recommender uses the same loaded model, and takes over the edits to the catalog and
        any prior that the caller has set.

        Args:
            data: the same dataset with a different split; None keeps the current dataset.
            **changes: the settings to change.
        """
        return self._copy(data, changes, tuning=self._tuning)

    def for_tuning(self) -> Recommender:
        """Return the same recommender with the parts of the prior that ``genrec fit`` chose.

        Otherwise, a run whose weights were fitted before ``genrec fit`` is used without these parts.
        """
        return self._copy(None, {}, tuning=True)

    def _copy(
        self, data: Dataset | None, changes: Mapping[str, Any], *, tuning: bool
    ) -> Recommender:
        settings = Settings.of({**asdict(self.settings), **changes})
        new = Recommender.__new__(Recommender)
        items = data or self.dataset or self.catalog
        run, folder = self.run, self._priors.run
        new._assemble(
            items, lambda: self.model, settings, self.log,
            trained=run, folder=folder, tuning=tuning,
        )  # fmt: skip
        if self.catalog is not new.catalog or self._index.removed:
            new._edit(*self._index.since(new.catalog))
        new._priors.share(self._priors, same_data=data is None or data is self.dataset)
        return new


def _seeded(request: Request | Refusal, seed: int | None) -> Request | Refusal:
    """Return a request with a random seed for its draw. A refusal needs none."""
    return replace(request, seed=seed) if isinstance(request, Request) else request


def _merge_options(
    options: QueryOptions | None, k: int | EllipsisType, keywords: Mapping[str, Any]
) -> QueryOptions:
    """Return a copy of the options whose fields are overridden by the keywords, and by k if given."""
    if k is not ...:
        keywords = {**keywords, "k": k}
    return QueryOptions.of(options, **keywords)


Built = TypeVar("Built", Request, Request | Refusal)


def _wishing(built: Sequence[Built], wish: Wish | None) -> list[Built]:
    """Return requests that take a query into account."""
    if wish is None:
        return list(built)
    return [replace(one, wish=wish) if isinstance(one, Request) else one for one in built]


def _check_data(data: object) -> None:
    """Check the type of the data, for callers without a type checker."""
    if not isinstance(data, Dataset | Catalog):
        msg = (
            f"data is of type {type(data).__name__}. Expected a Dataset or a Catalog: load a folder "
            "written by `genrec prepare` with genrec.Dataset.load(folder)."
        )
        raise SettingsError(msg)


def _saved_prior(folder: Path, catalog: Catalog, log: Log) -> CollaborativePrior | None:
    """Load the prior that ``genrec tune`` saved in a run folder.

    Returns:
        The prior. None if the folder does not contain one, or if the catalog does not begin with
        the prior's items.
    """
    from genrec.priors.collaborative import CollaborativePrior as Prior

    if not (folder / runs.PRIOR).is_file():
        return None
    try:
        prior = Prior.load(folder / runs.PRIOR, Catalog.read(folder / runs.CATALOG))
        prior.update({}, catalog)
    except (DataError, RequestError) as error:
        log(f"The run's prior is not used: {error}")
        return None
    return prior


def _load(name: str, **options: Any) -> LanguageModel:
    from genrec.models.language_model import LanguageModel

    return LanguageModel.load(name, **options)


def _load_run(folder: Path, base: str | None, **options: Any) -> LanguageModel:
    from genrec.models.language_model import LanguageModel

    return LanguageModel.of_run(folder, base, **options)
