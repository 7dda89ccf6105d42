"""Recommender: the one class a user needs. Histories in, ranked items of the catalog out.

It holds the parts together and lets edits wait for requests; what is done is done by ``asking``,
``searching``, ``answering`` and ``stock``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from genrec import runs
from genrec.config import QueryOptions, Settings
from genrec.data.catalog import Catalog, Item
from genrec.data.dataset import Dataset
from genrec.data.events import History
from genrec.decoding.live_trie import LiveTrie
from genrec.decoding.trie import TitleTrie
from genrec.errors import DataError, RequestError, SettingsError
from genrec.matching.history_parser import Understood
from genrec.matching.matcher import TextMatcher
from genrec.models.packaged import DEFAULT_MODEL
from genrec.pipeline.catalog_index import CatalogIndex, Edit, check_ids
from genrec.pipeline.locks import ReadWriteLock
from genrec.pipeline.request import HistoryLike, RequestBuilder
from genrec.pipeline.resolve import behavior_of, form_of, template_of
from genrec.pipeline.response import ResponseBuilder
from genrec.pipeline.trie_search import TrieSearch
from genrec.pipeline.types import RecommendationList
from genrec.priors.fusion import Fusion, PriorSource
from genrec.priors.weights import ItemPrior
from genrec.prompts.encoder import EncodedPrompt, Encoder
from genrec.prompts.template import Template
from genrec.runs import Run
from genrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from genrec.explain.counterfactuals import ItemExplanation
    from genrec.models.generation import Generated
    from genrec.models.language_model import LanguageModel
    from genrec.pipeline.yes_no import YesNo
    from genrec.priors.collaborative import CollaborativePrior


class Recommender:
    """Recommends items of a catalog with a language model, trained or not."""

    def __init__(
        self,
        data: Dataset | Catalog,
        model: str | PathLike[str] | LanguageModel = DEFAULT_MODEL,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        quantize: str = "none",
        log: Callable[[str], None] = lambda message: None,
        **settings: Any,
    ) -> None:
        """Loads the model and reads the catalog.

        Args:
            data: a dataset, or only a catalog (then there are no users and no demonstrations).
            model: ``smollm2-135m``, a local folder, a hub id, or a loaded ``LanguageModel``.
            device: see ``LanguageModel.load``.
            dtype: see ``LanguageModel.load``.
            threads: see ``LanguageModel.load``.
            quantize: see ``LanguageModel.load``.
            log: called with a line of text before each slow step.
            **settings: fields of ``genrec.config.Settings``.

        Raises:
            SettingsError: a setting is unknown or cannot be used.
            ModelError: the model cannot be had.
        """
        kind: object = data  # checked for callers without a type checker
        if not isinstance(kind, Dataset | Catalog):
            msg = (
                f"data is {type(data).__name__}. Expected a Dataset or a Catalog: load a folder "
                "that prepare wrote with genrec.Dataset.load(folder)."
            )
            raise SettingsError(msg)
        self.settings = Settings.of(settings)
        self.run: Run | None = None
        self.dataset = data if isinstance(data, Dataset) else None
        self.log = log
        catalog = data if isinstance(data, Catalog) else data.catalog
        template = template_of(self.settings, self.dataset)
        behavior = behavior_of(self.settings, self.dataset, template)
        self.model = (
            _load(
                fspath(model),
                device=device,
                dtype=dtype,
                threads=threads,
                quantize=quantize,
                log=log,
            )
            if isinstance(model, str | PathLike)
            else model
        )
        form = form_of(self.settings, self.dataset, catalog, template)
        encoder = Encoder(self.model.tokenizer, form)
        if len(catalog) > 5_000:
            log(f"Building the trie of {len(catalog):,} titles ...")
        self._stock = CatalogIndex(catalog, encoder)
        self._asker = RequestBuilder(
            self.settings, self.dataset, self._stock, template, behavior, self.model, log
        )
        self._source = PriorSource(self.settings, self.dataset, behavior, self.tuning_key, log)
        self._searcher = TrieSearch(self.model, self._asker, self._source)
        self._answerer = ResponseBuilder(self.model, self._asker, self._searcher, self._source)
        self._gate = ReadWriteLock()

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
        log: Callable[[str], None] = lambda message: None,
        **settings: Any,
    ) -> Recommender:
        """Loads what ``genrec train`` wrote.

        Args:
            run: its folder.
            data: a dataset or catalog; None is the catalog that was trained on (then there are no
                users). Items that were not trained on can be recommended too. Without a dataset the
                prior is the one that ``genrec tune --run`` kept in the folder, if there is one.
            device: see ``LanguageModel.load``.
            dtype: see ``LanguageModel.load``.
            threads: see ``LanguageModel.load``.
            quantize: see ``LanguageModel.load``.
            log: called with a line of text before each slow step.
            **settings: in place of those that the run was trained with; of decoding, such as
                ``search``.

        Raises:
            ModelError: the folder is no run, or prompt, tokenizer or base model have changed since.
        """
        folder = runs.find_run(run)
        found = Run.read(folder)
        from genrec.models.language_model import LanguageModel

        model = LanguageModel.of_run(
            folder, device=device, dtype=dtype, threads=threads, quantize=quantize, log=log
        )
        items = Catalog.read(folder / runs.CATALOG) if data is None else data
        new = cls(items, model, log=log, **{**found.settings, **settings})
        found.check(template=new.template.hash, encoder=new.encoder.hash)
        new.run, new._source.run = found, folder
        if new.dataset is None:
            new._source.saved = _saved_prior(folder, new)
        return new

    @property
    def catalog(self) -> Catalog:
        """The items as edited; those that were removed are in it too, for histories."""
        return self._stock.catalog

    @property
    def trie(self) -> TitleTrie | LiveTrie:
        """The titles of the items that can be recommended."""
        return self._stock.trie

    @property
    def encoder(self) -> Encoder:
        """What makes token ids of prompts and titles."""
        return self._asker.encoder

    @property
    def template(self) -> Template:
        """What renders prompts."""
        return self._asker.template

    @template.setter
    def template(self, template: Template) -> None:
        self._asker.template = template

    @property
    def behavior(self) -> str:
        """What is asked for, such as ``buy``."""
        return self._asker.behavior

    @property
    def scale(self) -> float:
        """The highest value in the data; 5 where there is none."""
        return self._asker.scale

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the history are left out: as set, else the dataset's own habit."""
        return self._asker.exclude_seen

    @property
    def lead_in_behaviors(self) -> frozenset[str]:
        """Behaviors of which an item does not count as seen, such as views before purchases."""
        return self._asker.lead_in_behaviors

    @property
    def matcher(self) -> TextMatcher:
        """Matches texts to titles, typed ones and those that the model wrote."""
        return self._asker.matcher

    @property
    def prior(self) -> ItemPrior | None:
        """What is fused with the model: as set, or anything with ``weights(history)``; or None."""
        return self._source.prior

    @prior.setter
    def prior(self, prior: ItemPrior | None) -> None:
        self._source.prior = prior

    @property
    def fusing(self) -> Fusion:
        """How the prior counts: as set, else as fitted."""
        return self._source.fusing

    def tuning_key(self) -> str:
        """What the fitted weight and temperature depend on: model, prompt and behavior.

        A run keeps its own in its folder, so that the model need not be in it, whose fingerprint
        depends on the device.
        """
        a = self._asker
        what = self.model.fingerprint() if self.run is None else "run"
        parts = [what, a.template.hash, a.encoder.hash, a.behavior, str(a.settings.few_shot)]
        parts += a.settings.sources
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def understand(self, history: HistoryLike) -> tuple[History, tuple[Understood, ...]]:
        """A history in any of its forms, and for typed ones what became of each piece.

        Args:
            history: a ``History``; a list of ``Interaction``s, item ids or titles; or text such
                as ``"bought: RED RETROSPOT MUG; viewed: JUMBO BAG PINK POLKADOT"``. Empty is a
                new user.

        Raises:
            RequestError: it is none of these.
        """
        return self._asker.understand(history)

    def history(self, user_id: str, *, before: str | None = None) -> History:
        """A user's history from the dataset; ``before`` a split, or all of it.

        Raises:
            RequestError: there is no dataset, or the user is not in it.
        """
        if self.dataset is None:
            msg = f"User {user_id!r} was asked for, but there is no dataset, only a catalog."
            raise RequestError(msg)
        return self.dataset.interactions.history(user_id, before=before)

    def demonstrations(self, user_id: str | None = None) -> tuple[History, ...]:
        """The few-shot demonstrations: ``few_shot`` other users' latest train events, seeded.

        The same for every request, but that a user never sees their own.
        """
        return self._asker.demonstrations(user_id)

    def prompt(self, history: HistoryLike) -> EncodedPrompt:
        """The prompt that the model reads for a history, with its token ids.

        Raises:
            PromptError: not even the prompt without events fits the budget.
            SettingsError: the template asks about one item.
        """
        return self._asker.prompt(history)

    def recommend(
        self,
        history: HistoryLike = "",
        k: int = 10,
        *,
        explain: bool = False,
        evidence: str = "full",
        style: str = "reason",
        allow: Sequence[str] | None = None,
        deny: Sequence[str] = (),
        where: str | None = None,
        min_probability: float = 0.0,
        per_title: int | None = None,
        caps: Mapping[str, int] | None = None,
        diversity: float = 0.0,
    ) -> RecommendationList:
        """The k best next items.

        What is left out by ``allow``, ``deny`` and ``where`` does not change the probabilities,
        which are over the whole catalog.

        Args:
            history: see ``understand``; empty for a new user.
            k: how many; fewer come back only where fewer are allowed, or with the decoder
                ``match``, and then ``notes`` says why.
            explain: give each item its evidence and one sentence on why.
            evidence: ``full``: each event of the history is left out by itself; ``fast``: in
                groups first.
            style: of the sentences: ``reason``, ``short``, ``pitch``, or your own ``explain_NAME``
                template.
            allow: ids of the only items that may come back.
            deny: ids of items that may not.
            where: a condition on the catalog's columns, such as ``price < 20 and in_stock``; see
                ``genrec.predicates``.
            min_probability: items below it are left out.
            per_title: the most items with one title.
            caps: the most items with one value of a column, such as ``{"brand": 2}``.
            diversity: 0 ranks by score alone, 1 by unlikeness of titles alone (maximal marginal
                relevance over title vectors).

        Raises:
            RequestError: k < 1, every item is excluded, or a wish cannot be understood.
        """
        wishes = QueryOptions(
            k, allow, deny, where, min_probability, per_title, caps or {}, diversity
        )
        return self._recommend([history], wishes, (evidence, style) if explain else None)[0]

    def recommend_many(
        self,
        histories: Sequence[HistoryLike],
        k: int = 10,
        *,
        explain: bool = False,
        evidence: str = "full",
        style: str = "reason",
        batch_size: int = 8,
        **wishes: Any,
    ) -> list[RecommendationList]:
        """``recommend`` for several histories, in order; several prompts are read in one pass.

        Args:
            histories: see ``understand``.
            k: how many for each.
            explain: give each item its evidence and one sentence on why.
            evidence: as of ``recommend``.
            style: as of ``recommend``.
            batch_size: prompts in one pass.
            **wishes: as of ``recommend``, the same for all.

        Raises:
            RequestError: histories is a text or a single history, or as ``recommend``.
        """
        if isinstance(histories, str | History) or not isinstance(histories, Iterable):
            msg = f"histories is one {type(histories).__name__}. Expected a list of histories."
            raise RequestError(msg)
        if not isinstance(batch_size, int) or batch_size < 1:
            msg = f"batch_size={batch_size!r}. Expected a whole number, 1 or more."
            raise RequestError(msg)
        known = [f.name for f in fields(QueryOptions)]
        if unknown := sorted(set(wishes) - set(known)):
            msg = f"{unknown[0]!r} is no wish. Expected some of: {', '.join(known)}."
            raise RequestError(msg)
        wishes["caps"] = wishes.get("caps") or {}
        how = (evidence, style) if explain else None
        return self._recommend(list(histories), QueryOptions(k, **wishes), how, batch_size)

    def _recommend(
        self,
        histories: Sequence[HistoryLike],
        wishes: QueryOptions,
        explain: tuple[str, str] | None = None,
        batch_size: int = 1,
    ) -> list[RecommendationList]:
        with self._gate.request():
            common = self._stock.allowed(wishes)
            asked = [self._asker.asked(h, common) for h in histories]
            answers = self._answerer.lists(asked, wishes, batch_size)
            if explain is not None:
                pairs = zip(answers, asked, strict=True)
                answers = [self._answerer.explained(*pair, wishes, explain) for pair in pairs]
            return answers

    def explain(
        self,
        history: HistoryLike,
        item_id: str,
        k: int = 10,
        *,
        evidence: str = "full",
        style: str = "reason",
    ) -> ItemExplanation:
        """Why an item is recommended or is not, what speaks against it, and what would raise it.

        Args:
            history: see ``understand``.
            item_id: any item of the catalog, or a title that only one item has.
            k: how many are recommended.
            evidence: as of ``recommend``.
            style: as of ``recommend``.

        Raises:
            RequestError: the item is not in the catalog or was removed, or as ``recommend``.
        """
        wishes = QueryOptions(k)
        with self._gate.request():
            row = self._present(item_id)
            return self._answerer.examined(history, row, wishes, (evidence, style))

    def _present(self, item_id: str) -> int:
        """The row of an item that can be recommended."""
        row = self._stock.row(item_id)
        if row in self._stock.removed:
            msg = f"Item {item_id!r} was removed. Expected one that is there; add it again."
            raise RequestError(msg)
        return row

    def falls(
        self, history: HistoryLike, item_id: str, left_out: Sequence[Sequence[int]]
    ) -> list[float]:
        """How far an item's score falls, in nats, when several events are left out together.

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
        with self._gate.request():
            return self._answerer.falls(history, self._present(item_id), left_out)

    def events_in_prompt(self, history: HistoryLike) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The prompt as one string, and where in it each event of the history begins and ends."""
        with self._gate.request():
            return self._answerer.spans(history)

    def rank(
        self, history: HistoryLike = "", candidates: Sequence[str] | None = None
    ) -> RecommendationList:
        """Ranks given items (all where None) by their exact score, for another system's candidates.

        Items of the history are left out where ``exclude_seen`` says so; ``score`` keeps them. The
        probabilities are those over the whole catalog, so they do not depend on the candidates.

        Args:
            history: see ``understand``.
            candidates: item ids, each counted once.

        Raises:
            RequestError: a candidate is not in the catalog, or none is left.
        """
        return self._ranked(history, candidates, seen=self.exclude_seen)

    def score(
        self, history: HistoryLike = "", candidates: Sequence[str] | None = None
    ) -> RecommendationList:
        """``rank`` that keeps every item, those of the history too."""
        return self._ranked(history, candidates, seen=False)

    @overload  # a str is a sequence of str, too
    def would_like(self, history: HistoryLike, items: str) -> float: ...  # type: ignore[overload-overlap]

    @overload
    def would_like(self, history: HistoryLike, items: Sequence[str]) -> list[float]: ...

    def would_like(self, history: HistoryLike, items: str | Sequence[str]) -> float | list[float]:
        """The probability that somebody will want an item: yes against no, as the model answers.

        Asked with this recommender's template where that names two answers, as after training with
        ``objective="pointwise"``, else with the shipped ``would_like``. Untrained models answer,
        too, but their probabilities are not calibrated.

        Args:
            history: see ``understand``; empty for a new user.
            items: an item id, or a list of them, whose history is read once.

        Returns:
            A number from 0 to 1; a list of them for a list.

        Raises:
            RequestError: an item is not in the catalog.
            PromptError: the template cannot ask this.
        """
        ids = [items] if isinstance(items, str) else items
        check_ids(ids, "items")
        with self._gate.request():
            rows = self.catalog.rows(ids)
            read, _ = self.understand(history)
            found = self.question.chances(self.model, read, rows)
        return found[0] if isinstance(items, str) else found

    @property
    def question(self) -> YesNo:
        """How ``would_like`` asks."""
        return self._asker.question

    def _ranked(
        self, history: HistoryLike, candidates: Sequence[str] | None, *, seen: bool
    ) -> RecommendationList:
        if candidates is not None:
            check_ids(candidates, "candidates")
        with self._gate.request():
            allowed = self._stock.allowed(QueryOptions(1, allow=candidates))
            asked = self._asker.asked(history, allowed, seen=seen)
            return self._answerer.scored(asked, seen=seen)

    def title_vectors(self, rows: IntArray) -> FloatArray:
        """(n, D) unit vectors of the titles of some rows: the matcher's, or of character n-grams."""
        return self._searcher.title_vectors(rows)

    def with_nats(
        self, history: HistoryLike, k: int, target: str
    ) -> tuple[RecommendationList, float, float]:
        """``recommend``, -ln P of one item over all items, and the seconds that the list took.

        The prompt is read once for both. For the decoder ``trie`` and normalization ``catalog``.
        """
        with self._gate.request():
            return self._answerer.with_nats(history, k, target)

    def generate(self, history: HistoryLike | EncodedPrompt = "") -> list[Generated]:
        """What the model writes freely after the prompt, as the decoder ``match`` uses it.

        ``n_samples`` texts drawn with ``temperature`` and ``seed``, or where it is 0 the best texts
        of a beam search (``beam_size``, 20 where None), the best first. A prompt that was made
        already may stand for the history.
        """
        prompt = history if isinstance(history, EncodedPrompt) else self.prompt(history)
        return self._answerer.written(prompt.ids)

    def add_items(self, items: Iterable[Item]) -> None:
        """Adds items to the catalog, which the next request can recommend; nothing is retrained.

        An item that was removed comes back as it is given. Requests that run go on first.

        Raises:
            DataError: these are no items, an id is there already, or an item is not as in
                ``Catalog``.
        """
        self._edit(self._stock.additions(items))

    def remove_items(self, item_ids: Sequence[str]) -> None:
        """Takes items out: they are no longer recommended and no longer take a share of P.

        Histories still show them. Requests that run go on first.

        Raises:
            RequestError: an id is not in the catalog, or no item would be left.
        """
        self._edit(Edit(remove=item_ids))

    def retitle_items(self, titles: Mapping[str, str]) -> None:
        """Gives items other titles, item_id -> title. Requests that run go on first.

        Raises:
            RequestError: an id is not in the catalog or was removed.
            DataError: a title is empty.
        """
        self._edit(self._stock.retitled(titles))

    def _edit(self, *edits: Edit) -> None:
        with self._gate.edit():
            for edit in edits:
                self._stock.edit(edit)
                self._asker.forget()
                self._answerer.forget()

    def with_settings(self, *, data: Dataset | None = None, **changes: Any) -> Recommender:
        """A recommender with other settings that shares the loaded model, edits and own prior.

        Args:
            data: the dataset with another split; None for the same.
            **changes: the settings.
        """
        values = {**asdict(self.settings), **changes}
        new = Recommender(data or self.dataset or self.catalog, self.model, **values)
        if self.catalog is not new.catalog or self._stock.removed:
            new._edit(*self._stock.since(new.catalog))
        new.run, new._source.run = self.run, self._source.run
        new._source.take(self._source, same_data=data is None or data is self.dataset)
        return new


def _saved_prior(folder: Path, recommender: Recommender) -> CollaborativePrior | None:
    """The prior in a run's folder, if it is of this catalog or of its first items."""
    from genrec.priors.collaborative import CollaborativePrior as Prior

    if not (folder / runs.PRIOR).is_file():
        return None
    try:
        prior = Prior.load(folder / runs.PRIOR, Catalog.read(folder / runs.CATALOG))
        prior.update({}, recommender.catalog)
    except (DataError, RequestError) as error:
        recommender.log(f"The run's prior is not used: {error}")
        return None
    return prior


def _load(name: str, **options: Any) -> LanguageModel:
    from genrec.models.language_model import LanguageModel

    return LanguageModel.load(name, **options)
