"""Recommender: the one class that most users need. Histories in, ranked items of the catalog out.

It puts the parts together and lets edits wait for requests. A request flows one way: history and
options become a ``Request`` (``pipeline.request``), that a ranking or texts (``pipeline.trie_search``,
``pipeline.free_text``), and these a response (``pipeline.response``, ``pipeline.explanations``).
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from genrec import runs
from genrec.config import QueryOptions, Settings
from genrec.data.catalog import Catalog, Item
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.trie import TitleTrie
from genrec.errors import DataError, ModelError, RequestError, SettingsError
from genrec.matching.history_parser import Understood
from genrec.matching.matcher import TextMatcher
from genrec.models.base import Generated, TextModel, can_score
from genrec.models.packaged import DEFAULT_MODEL
from genrec.pipeline.catalog_index import CatalogIndex, Edit, check_ids
from genrec.pipeline.explanations import Explanations, TextExplanations
from genrec.pipeline.free_text import FreeText
from genrec.pipeline.locks import ReadWriteLock
from genrec.pipeline.request import HistoryLike, PromptLimits, Request, RequestBuilder
from genrec.pipeline.rerank import title_vectors
from genrec.pipeline.resolve import behavior_of, form_of, template_of
from genrec.pipeline.response import ResponseBuilder
from genrec.pipeline.trie_search import Ranked, TrieSearch
from genrec.pipeline.types import RecommendationList
from genrec.priors.fusion import Fusion, PriorSource
from genrec.priors.weights import ItemPrior
from genrec.prompts.encoder import EncodedPrompt, Encoder, PromptEncoder, TextEncoder
from genrec.prompts.template import Template
from genrec.runs import Run
from genrec.types import FloatArray, IntArray, Log

if TYPE_CHECKING:
    from genrec.explain.counterfactuals import ItemExplanation
    from genrec.models.language_model import LanguageModel
    from genrec.pipeline.yes_no import YesNo
    from genrec.priors.collaborative import CollaborativePrior


class Recommender:
    """Recommends items of a catalog with a language model, trained or not.

    Attributes:
        settings: how it recommends.
        model: the model, with logits or only writing text.
        dataset: the dataset, or None where only a catalog was given.
        run: the run that the model was trained in, or None.
        log: called with a line of text before each slow step.
        tuning_key: makes the key of fitted weights and temperatures, which depend on model, prompt
            and behavior.
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
        """Load the model and read the catalog.

        Args:
            data: a dataset, or only a catalog (then there are no users and no demonstrations).
            model: ``smollm2-135m``, a local folder, a hub id, a loaded ``LanguageModel``, or with
                ``decoder="match"`` any ``genrec.models.base.TextModel``.
            device: see ``LanguageModel.load``.
            dtype: see ``LanguageModel.load``.
            threads: see ``LanguageModel.load``.
            quantize: see ``LanguageModel.load``.
            log: called with a line of text before each slow step.
            **settings: fields of ``genrec.config.Settings``.

        Raises:
            SettingsError: a setting is unknown or cannot be used.
            ModelError: the model could not be downloaded or loaded.
        """
        kind: object = data  # checked for callers without a type checker
        if not isinstance(kind, Dataset | Catalog):
            msg = (
                f"data is {type(data).__name__}. Expected a Dataset or a Catalog: load a folder "
                "that prepare wrote with genrec.Dataset.load(folder)."
            )
            raise SettingsError(msg)
        checked = Settings.of(settings)
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
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        quantize: str = "none",
        log: Log = lambda message: None,
        **settings: Any,
    ) -> Recommender:
        """Load what ``genrec train`` wrote.

        Args:
            run: the run folder, or the name of an embedded dataset that ships with a run.
            data: a dataset or catalog; None for the catalog that the run was trained on (then there
                are no users). Items that were not trained on can be recommended too. Without a dataset
                the prior is the one that ``genrec tune --run`` kept in the folder, if there is one.
            device: see ``LanguageModel.load``.
            dtype: see ``LanguageModel.load``.
            threads: see ``LanguageModel.load``.
            quantize: see ``LanguageModel.load``.
            log: called with a line of text before each slow step.
            **settings: override those that the run was trained with, or set those of decoding, such
                as ``search``.

        Raises:
            ModelError: the folder is no run, or prompt, tokenizer or base model have changed since.
        """
        folder = runs.find_run(run)
        trained = Run.read(folder)
        from genrec.models.language_model import LanguageModel

        model = LanguageModel.of_run(
            folder, device=device, dtype=dtype, threads=threads, quantize=quantize, log=log
        )
        items = Catalog.read(folder / runs.CATALOG) if data is None else data
        kind: object = items
        if not isinstance(kind, Dataset | Catalog):
            return cls(items, model, log=log)  # raises
        new = cls.__new__(cls)
        checked = Settings.of({**trained.settings, **settings})
        new._assemble(items, lambda: model, checked, log, trained=trained, folder=folder)
        trained.check(template=new.template.hash, encoder=new.encoder.hash)
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
    ) -> None:
        """Put the parts together; the model is loaded once the settings were found to fit."""
        self.settings, self.log, self.run = settings, log, trained
        self.dataset = data if isinstance(data, Dataset) else None
        catalog = data if isinstance(data, Catalog) else data.catalog
        template = template_of(settings, self.dataset)
        behavior = behavior_of(settings, self.dataset, template)
        model = load()
        self.model = cast(
            "LanguageModel", model
        )  # a TextModel lacks what the decoder trie asks of it
        form = form_of(settings, self.dataset, catalog, template)

        @functools.cache
        def ids_encoder() -> Encoder:
            if not can_score(model):
                raise _no_logits(model)
            return Encoder(model.tokenizer, form)

        @functools.cache
        def prompt_encoder() -> PromptEncoder:
            return ids_encoder() if can_score(model) else TextEncoder(model.count_tokens, form)

        index = CatalogIndex(catalog, ids_encoder, log)
        writes = settings.decoder == "match"
        if not writes and not can_score(model):
            raise _no_logits(model)

        def room() -> int:
            """Return the most tokens that a prompt may have before a title."""
            longest = settings.max_title_tokens + 1
            if can_score(model) and (not writes or 2 * longest > model.context):
                longest = index.trie.max_depth
            return model.context - min(longest, model.context // 2 if writes else longest)

        @functools.cache
        def key() -> str:
            """Make the key of fitted weights; a run's do not depend on its weights' fingerprint."""
            identity = "run" if trained is not None else self_fingerprint()
            parts = [identity, template.hash, ids_encoder().hash, behavior, str(settings.few_shot)]
            return hashlib.sha256("\0".join([*parts, *settings.sources]).encode()).hexdigest()

        self_fingerprint = getattr(model, "fingerprint", lambda: model.name)
        self.tuning_key = key
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
        self._priors = PriorSource(settings, self.dataset, behavior, key, log, folder)
        self._search = TrieSearch(
            self.model,
            settings,
            index,
            self._priors,
            lambda rows: title_vectors(index.catalog, requests.matcher, rows),
        )
        banned = tuple(ids_encoder().control_ids) if can_score(model) else ()
        self._writing = FreeText(model, settings, index, banned)
        self._responses = ResponseBuilder(self.model, settings, index, self._priors)
        self._explanations = Explanations(self.model, settings, index, self._search, form)
        self._lock = ReadWriteLock()

    @property
    def catalog(self) -> Catalog:
        """The items as edited; removed items are in it too, for histories."""
        return self._index.catalog

    @property
    def trie(self) -> TitleTrie | LiveTrie:
        """The titles of the items that can be recommended, as token ids.

        Raises:
            ModelError: the model only writes text.
        """
        return self._index.trie

    @property
    def encoder(self) -> Encoder:
        """Makes token ids of prompts and titles.

        Raises:
            ModelError: the model only writes text.
        """
        return self._ids_encoder()

    @property
    def template(self) -> Template:
        """Renders prompts."""
        return self._requests.template

    @property
    def behavior(self) -> str:
        """The behavior that is recommended for, such as ``buy``."""
        return self._requests.behavior

    @property
    def scale(self) -> float:
        """The highest value in the data; 5 where no event has a value."""
        return self._requests.scale

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the history are left out: as set, else as the dataset's habit is."""
        return self._requests.exclude_seen

    @property
    def lead_in_behaviors(self) -> frozenset[str]:
        """Behaviors that do not mark an item as seen, such as views before purchases."""
        return self._requests.lead_in_behaviors

    @property
    def matcher(self) -> TextMatcher:
        """Matches texts to titles, typed ones and those that the model wrote."""
        return self._requests.matcher

    @property
    def prior(self) -> ItemPrior | None:
        """The prior that is fused with the model, or None; any object with ``weights(history)``."""
        return self._priors.prior

    @prior.setter
    def prior(self, prior: ItemPrior | None) -> None:
        self._priors.prior = prior

    @property
    def fusing(self) -> Fusion:
        """How the prior is fused with the model: as set, else as fitted."""
        return self._priors.fusing

    def understand(self, history: HistoryLike) -> tuple[History, tuple[Understood, ...]]:
        """Read a history in any of its forms, and say what became of each typed piece.

        Args:
            history: a ``History``; a list of ``Interaction``s, item ids or titles; or text such
                as ``"bought: RED RETROSPOT MUG; viewed: JUMBO BAG PINK POLKADOT"``. Empty is a
                new user.

        Raises:
            RequestError: it is none of these.
        """
        return self._requests.understand(history)

    def history(self, user_id: str, *, before: str | None = None) -> History:
        """Return a user's history from the dataset: all of it, or what lies before a split.

        Raises:
            RequestError: there is no dataset, or the user is not in it.
        """
        if self.dataset is None:
            msg = f"User {user_id!r} was asked for, but there is no dataset, only a catalog."
            raise RequestError(msg)
        return self.dataset.interactions.history(user_id, before=before)

    def demonstrations(self, user_id: str | None = None) -> tuple[History, ...]:
        """Choose the few-shot demonstrations: ``few_shot`` other users' latest train events.

        The choice is seeded and the same for every request, except that users never see their own.
        """
        return self._requests.demonstrations(user_id)

    def prompt(self, history: HistoryLike) -> EncodedPrompt:
        """Make the prompt that the model reads for a history, with its token ids.

        Raises:
            PromptError: not even the prompt without events fits the budget.
            SettingsError: the template asks about one item.
        """
        read, _ = self.understand(history)
        return self._requests.prompt(read)

    def recommend(
        self,
        history: HistoryLike = "",
        k: int = 10,
        *,
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> RecommendationList:
        """Recommend the k best next items.

        Items that ``allow``, ``deny`` and ``where`` leave out do not change the probabilities, which
        are over the whole catalog.

        Args:
            history: see ``understand``; empty for a new user.
            k: the number of items; fewer come back only where fewer are allowed, or with the decoder
                ``match``, and then ``notes`` says why.
            options: options given whole; k and keywords are set on top.
            **keywords: fields of ``genrec.config.QueryOptions``: ``explain``, ``evidence``, ``style``,
                ``allow``, ``deny``, ``where``, ``min_probability``, ``per_title``, ``caps``,
                ``diversity``.

        Raises:
            RequestError: k < 1, every item is excluded, or an option cannot be understood.
        """
        return self._recommend([history], QueryOptions.of(options, k=k, **keywords))[0]

    def recommend_many(
        self,
        histories: Sequence[HistoryLike],
        k: int = 10,
        *,
        batch_size: int = 8,
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> list[RecommendationList]:
        """Recommend for several histories, in order; several prompts are read in one pass.

        Args:
            histories: see ``understand``.
            k: the number of items for each.
            batch_size: the number of prompts in one pass.
            options: options given whole; k and keywords are set on top.
            **keywords: as for ``recommend``, the same for all.

        Raises:
            RequestError: histories is a text or a single history, or as ``recommend``.
        """
        if isinstance(histories, str | History) or not isinstance(histories, Iterable):
            msg = f"histories is one {type(histories).__name__}. Expected a list of histories."
            raise RequestError(msg)
        if not isinstance(batch_size, int) or batch_size < 1:
            msg = f"batch_size={batch_size!r}. Expected a whole number, 1 or more."
            raise RequestError(msg)
        wanted = QueryOptions.of(options, k=k, **keywords)
        return self._recommend(list(histories), wanted, batch_size)

    def _recommend(
        self, histories: Sequence[HistoryLike], options: QueryOptions, batch_size: int = 1
    ) -> list[RecommendationList]:
        writes = self.settings.decoder == "match"
        with self._lock.request():
            requests = self._requests.build(histories, options, by_rows=writes)
            if writes:
                named = [self._writing.name_items(r, self.matcher) for r in requests]
                answers = list(map(self._responses.from_texts, requests, named))
            else:
                ranked = self._search.rank(requests, batch_size)
                answers = list(map(self._responses.from_ranking, requests, ranked))
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
        """Return a request with its filter over the trie, whose evidence is measured there."""
        if request.order is self._index.trie:
            return request
        (same,) = self._requests.build([request.history], request.options)
        return same

    def explain(
        self,
        history: HistoryLike,
        item_id: str,
        k: int = 10,
        *,
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> ItemExplanation:
        """Explain why an item is recommended or is not, what speaks against it, what would raise it.

        Args:
            history: see ``understand``.
            item_id: any item of the catalog, or a title that only one item has.
            k: the number of items that are recommended.
            options: options given whole; k and keywords are set on top.
            **keywords: as for ``recommend``: ``evidence`` and ``style``, and ``allow``, ``deny`` and
                ``where`` for what a list may hold.

        Raises:
            RequestError: the item is not in the catalog or was removed, or as ``recommend``.
        """
        wanted = QueryOptions.of(options, k=k, **keywords)
        with self._lock.request():
            row = self._present(item_id)
            (request,) = self._requests.build([history], wanted, exclude_seen=False)
            allowed = request.allowed
            if self.exclude_seen:
                lead_in = self.lead_in_behaviors
                allowed &= self._index.unseen(request.history, lead_in, request.order)
            return self._explanations.examine(request, row, allowed)

    def _present(self, item_id: str) -> int:
        """Return the row of an item that can be recommended."""
        row = self._index.row(item_id)
        if row in self._index.removed:
            msg = f"Item {item_id!r} was removed. Expected one that is there; add it again."
            raise RequestError(msg)
        return row

    def _whole_request(self, history: HistoryLike) -> Request:
        """Make a request with default options in which no item is left out."""
        (request,) = self._requests.build([history], QueryOptions(), exclude_seen=False)
        return request

    def falls(
        self, history: HistoryLike, item_id: str, left_out: Sequence[Sequence[int]]
    ) -> list[float]:
        """Measure how far an item's score falls, in nats, when sets of events are left out.

        Args:
            history: see ``understand``.
            item_id: any item of the catalog, or a title that only one item has.
            left_out: sets of places among the events that the prompt shows, from 0 for the oldest.

        Returns:
            One number for each set; below 0 where the score rises.

        Raises:
            RequestError: the item is not in the catalog or was removed, or the prompt shows no
                such event.
        """
        with self._lock.request():
            row = self._present(item_id)
            return self._explanations.falls(self._whole_request(history), row, left_out)

    def events_in_prompt(self, history: HistoryLike) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Return the prompt as one string, and where each event of the history begins and ends."""
        with self._lock.request():
            return self._explanations.spans(self._whole_request(history))

    def rank(
        self,
        history: HistoryLike = "",
        candidates: Sequence[str] | None = None,
        *,
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> RecommendationList:
        """Rank given items by their exact score, as for another system's candidates.

        Items of the history are left out where ``exclude_seen`` says so; ``score`` keeps them. The
        probabilities are those over the whole catalog, so they do not depend on the candidates.

        Args:
            history: see ``understand``.
            candidates: item ids, each counted once; None for all items.
            options: options given whole; candidates and keywords are set on top.
            **keywords: as for ``recommend``: ``deny`` and ``where``, ``explain`` with ``evidence`` and
                ``style``. Every candidate is ranked, so k and what shortens a list are refused.

        Raises:
            RequestError: a candidate is not in the catalog, none is left, or an option does not apply.
        """
        return self._rank_all(history, candidates, options, keywords, exclude=self.exclude_seen)

    def score(
        self,
        history: HistoryLike = "",
        candidates: Sequence[str] | None = None,
        *,
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> RecommendationList:
        """Rank given items as ``rank`` does, but keep every item, those of the history too."""
        return self._rank_all(history, candidates, options, keywords, exclude=False)

    def _rank_all(
        self,
        history: HistoryLike,
        candidates: Sequence[str] | None,
        options: QueryOptions | None,
        keywords: dict[str, Any],
        *,
        exclude: bool,
    ) -> RecommendationList:
        if candidates is not None:
            check_ids(candidates, "candidates")
            keywords = {**keywords, "allow": candidates}
        wanted = QueryOptions.of(options, **keywords)
        if "k" in keywords or wanted.chooses or wanted.min_probability:
            msg = (
                "rank and score return every candidate. Expected no k, min_probability, per_title, "
                "caps or diversity; use recommend(..., allow=candidates) for a shorter list."
            )
            raise RequestError(msg)
        with self._lock.request():
            (request,) = self._requests.build([history], wanted, exclude_seen=exclude)
            ranked = self._search.rank_all(request)
            answer = self._responses.from_ranking(
                request, ranked, asked=request.size, decoder="trie"
            )
            return self._explain_list(answer, request) if wanted.explain else answer

    @overload  # a str is a sequence of str, too
    def would_like(self, history: HistoryLike, items: str) -> float: ...  # type: ignore[overload-overlap]

    @overload
    def would_like(self, history: HistoryLike, items: Sequence[str]) -> list[float]: ...

    def would_like(self, history: HistoryLike, items: str | Sequence[str]) -> float | list[float]:
        """Estimate the probability that somebody will want an item: yes against no.

        The question is this recommender's template where that names two answers, as after training
        with ``objective="pointwise"``, else the shipped ``would_like``. Untrained models answer,
        too, but their probabilities are not calibrated.

        Args:
            history: see ``understand``; empty for a new user.
            items: an item id, or a list of them, for which the history is read once.

        Returns:
            A number from 0 to 1; a list of them for a list.

        Raises:
            RequestError: an item is not in the catalog.
            PromptError: the template cannot ask this.
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
        """The question that ``would_like`` asks."""
        return self._index.made("question", self._make_question)

    def _make_question(self) -> YesNo:
        from genrec.pipeline.yes_no import YesNo

        template, encoder, settings = self.template, self.encoder, self.settings
        if template.answers is None:
            template = Template.load("would_like", settings.language, own=settings.prompts)
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

    def title_vectors(self, rows: IntArray) -> FloatArray:
        """Return (n, D) unit vectors of titles: the matcher's, or those of character n-grams."""
        return title_vectors(self.catalog, self.matcher, rows)

    def with_nats(
        self, history: HistoryLike, k: int, target: str
    ) -> tuple[RecommendationList, float, float]:
        """Recommend, and score one more item on the same reading of the prompt.

        For the decoder ``trie`` and normalization ``catalog``.

        Returns:
            The list, -ln P of the target over all items, and the seconds that the list took.
        """
        with self._lock.request():
            started = time.perf_counter()
            (request,) = self._requests.build([history], QueryOptions(k))
            reading = self._search.read([request])
            (ranking,) = self._search.best(reading, [request])
            answer = self._responses.from_ranking(request, Ranked(ranking, reading.sources(0)))
            seconds = time.perf_counter() - started
            allowed = self._index.allowed(QueryOptions(1, allow=[target]), request.order)
            one = self._search.every(reading, replace(request, allowed=allowed))
            return answer, -float(one.logprobs[0]), seconds

    def generate(self, history: HistoryLike | EncodedPrompt = "") -> list[Generated]:
        """Write freely after the prompt, as the decoder ``match`` does.

        ``n_samples`` texts are drawn with ``temperature`` and ``seed``; where it is 0, the best texts
        of a beam search (``beam_size``, 20 where None) come back, best first. A prompt that was
        made before may stand for the history.
        """
        prompt = history if isinstance(history, EncodedPrompt) else self.prompt(history)
        return self._writing.write(prompt)

    def add_items(self, items: Iterable[Item]) -> None:
        """Add items to the catalog, which the next request can recommend; nothing is retrained.

        An item that was removed comes back as it is given. Running requests are finished first.

        Raises:
            DataError: these are no items, an id is there already, or an item is not as in
                ``Catalog``.
        """
        self._edit(self._index.additions(items))

    def remove_items(self, item_ids: Sequence[str]) -> None:
        """Remove items: they are no longer recommended and no longer take a share of P.

        Histories still show them. Running requests are finished first.

        Raises:
            RequestError: an id is not in the catalog, or no item would be left.
        """
        self._edit(Edit(remove=item_ids))

    def retitle_items(self, titles: Mapping[str, str]) -> None:
        """Give items other titles, item_id -> title. Running requests are finished first.

        Raises:
            RequestError: an id is not in the catalog or was removed.
            DataError: a title is empty.
        """
        self._edit(self._index.retitled(titles))

    def _edit(self, *edits: Edit) -> None:
        with self._lock.edit():
            for edit in edits:
                self._index.edit(edit)

    def with_settings(self, *, data: Dataset | None = None, **changes: Any) -> Recommender:
        """Make a recommender with other settings that shares the loaded model, edits and own prior.

        Args:
            data: the dataset with another split; None for the same.
            **changes: the settings.
        """
        settings = Settings.of({**asdict(self.settings), **changes})
        new = Recommender.__new__(Recommender)
        items = data or self.dataset or self.catalog
        run, folder = self.run, self._priors.run
        new._assemble(items, lambda: self.model, settings, self.log, trained=run, folder=folder)
        if self.catalog is not new.catalog or self._index.removed:
            new._edit(*self._index.since(new.catalog))
        new._priors.share(self._priors, same_data=data is None or data is self.dataset)
        return new


def _no_logits(model: object) -> ModelError:
    """Make the error for a model that only writes text where probabilities are needed."""
    name = getattr(model, "name", type(model).__name__)
    return ModelError(
        f"{name} writes text but gives no probabilities of tokens, which this needs. Expected "
        "decoder='match' and recommend() with such a model, or a LanguageModel."
    )


def _saved_prior(folder: Path, catalog: Catalog, log: Log) -> CollaborativePrior | None:
    """Load the prior in a run's folder, if it is of this catalog or of its first items."""
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
