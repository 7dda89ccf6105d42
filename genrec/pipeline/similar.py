"""Find items that go with given items, based on event counts, titles or both.

No language model is needed. Events are counted as in the collaborative prior. Titles are compared
with the encoder that also matches typed text, or by character n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, NoReturn

import numpy as np

from genrec.config import SIMILAR_BY, SIMILAR_OPTIONS, QueryOptions, Settings
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.errors import ModelError, RequestError, SettingsError
from genrec.matching.matcher import SemanticMatcher, TextMatcher
from genrec.matching.ngrams import NEAR
from genrec.pipeline import rerank
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.rules import apply_rules
from genrec.pipeline.similar_scores import Counted, describe_lack, mean_of_known, score_items
from genrec.priors.collaborative import CollaborativePrior
from genrec.priors.fusion import build_prior, count_events
from genrec.text import normalized, title_key
from genrec.types import FloatArray, IntArray, Log

SCHEMA_VERSION = 1
_LARGEST = 700.0  # the largest logarithm of a boosted score that is shown; exp(710) is infinite
_TITLES, _GROUPS = "\0titles", "\0groups"  # no column has such a name


@dataclass(frozen=True, slots=True)
class SimilarItem:
    """An item that goes with the given items.

    Attributes:
        rank: the position in the list, starting at 1.
        item_id: the item's id in the catalog.
        title: the title as given in the catalog.
        score: the number by which the list is sorted; see ``SimilarList.score_is``.
        prior: the score, before any boost, that the item would have with ``by="prior"``; None if
            nothing was counted.
        cosine: the cosine between the vectors of the titles, on average over the given items; None
            if titles were not compared.
        users: the number of users who have the item and at least one of the given items; None if
            nothing was counted.
    """

    rank: int
    item_id: str
    title: str
    score: float
    prior: float | None
    cosine: float | None
    users: int | None


@dataclass(frozen=True, slots=True)
class SimilarList:
    """The items that go with given items, best first.

    Attributes:
        given: the ids and titles of the given items.
        by: the requested basis of the score: ``prior``, ``titles`` or ``both``.
        used: the actual basis of the score. It differs from ``by`` if no user has the given items.
        behavior: the behavior whose events were counted; None if nothing was counted.
        titles: how titles were compared: the name of an encoder, or ``ngrams``. None if they were
            not compared.
        score_is: a sentence that says what the score means.
        similar: the items.
        asked: the number of requested items.
        notes: remarks for the user.
    """

    given: tuple[tuple[str, str], ...]
    by: str
    used: str
    behavior: str | None
    titles: str | None
    score_is: str
    similar: tuple[SimilarItem, ...]
    asked: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the list as a dictionary that can be written as JSON."""
        values = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        values["given"] = [{"item_id": i, "title": title} for i, title in self.given]
        values["similar"] = [asdict(item) for item in self.similar]
        return {**values, "notes": list(self.notes)}


class SimilarItems:
    """Finds the items of a dataset that go with given items.

    Counts and encoders are loaded when they are first needed, and kept for later requests.
    """

    def __init__(
        self, data: Dataset | Catalog, *, log: Log = lambda message: None, **settings: Any
    ) -> None:
        """Store the data.

        Args:
            data: a dataset; or a catalog, whose items can be compared only by their titles.
            log: a function that is called with a line of text before each slow step.
            **settings: the fields ``encoder``, ``prior_sources``, ``prior_events``,
                ``target_behavior`` and ``seed`` of ``genrec.config.Settings``.

        Raises:
            SettingsError: a setting is unknown or invalid.
        """
        kind: object = data  # checked for callers without a type checker
        if not isinstance(kind, Dataset | Catalog):
            msg = f"data is of type {type(data).__name__}. Expected a Dataset or a Catalog."
            raise SettingsError(msg)
        self.settings = Settings.of(settings)
        self._dataset = data if isinstance(data, Dataset) else None
        catalog = data if isinstance(data, Catalog) else data.catalog
        cache = None if self._dataset is None else self._dataset.cache
        self._index = CatalogIndex(catalog, _no_model, log, cache)
        self._log = log

    @classmethod
    def over(
        cls,
        index: CatalogIndex,
        settings: Settings,
        dataset: Dataset | None,
        prior: CollaborativePrior | None,
        matcher: TextMatcher | None,
        log: Log = lambda message: None,
    ) -> SimilarItems:
        """Share the catalog with its edits, the counts and the titles of a recommender.

        Args:
            index: the catalog index. After an edit, a new object is needed.
            settings: the settings of the recommender.
            dataset: its dataset; None if there is only a catalog.
            prior: its prior; None to count the events of the dataset here.
            matcher: its matcher of titles; None to compare titles by character n-grams.
            log: see ``SimilarItems``.
        """
        new = cls.__new__(cls)
        new.settings, new._dataset, new._index, new._log = settings, dataset, index, log
        if prior is not None:
            new._prior = prior
        if matcher is not None:
            new._matcher = matcher
        return new

    @property
    def _catalog(self) -> Catalog:
        return self._index.catalog

    def find(
        self,
        items: str | Sequence[str],
        k: int | None = None,
        *,
        by: str = "both",
        options: QueryOptions | None = None,
        **keywords: Any,
    ) -> SimilarList:
        """Find the k items that go best with the given items.

        The given items themselves are not returned. If there are several, an item's score is the
        mean of its scores for each of them.

        Args:
            items: an item or a list of items, each given by its id or by a title that only one item
                has.
            k: the number of items; None for ``options.k``, or 10 if that is not set.
            by: ``prior`` for items that the same users have, together with the given items or right
                after them; ``titles`` for items with similar titles; or ``both``.
            options: a complete set of options; k and the keywords override its fields.
            **keywords: the fields of ``genrec.config.QueryOptions`` that are listed in
                ``genrec.config.SIMILAR_OPTIONS``, such as ``allow``, ``deny``, ``where`` and
                ``caps``. A boost multiplies the score.

        Raises:
            RequestError: an item is not in the catalog, ``by`` is unknown, an option is invalid or
                does not apply, or the filters exclude all items.
            DataError: the stock file cannot be used.
            SettingsError: the target behavior is not in the data.
            ModelError: the encoder named in the settings could not be loaded.
        """
        if by not in SIMILAR_BY:
            msg = f"by={by!r} is not known. Expected one of: {', '.join(SIMILAR_BY)}."
            raise RequestError(msg)
        given: object = items
        ids = [items] if isinstance(items, str) else items
        if not isinstance(given, str | Sequence) or not ids:
            msg = f"items={items!r:.80} is not valid. Expected an item or a list of items."
            raise RequestError(msg)
        wanted = _check_options(
            QueryOptions.of(options, **keywords | ({} if k is None else {"k": k}))
        )
        rows = list(dict.fromkeys(self._index.row(item) for item in ids))
        order = self._index.order(by_rows=True)
        rules = apply_rules(wanted, self.settings, self._index, order)
        allowed = self._index.mask(rules.allowed, order)
        allowed[rows] = False
        counted = self._count(rows) if by != "titles" else None
        used, notes = self._choose_kind(by, rows, counted)
        counted = None if used == "titles" else counted
        cosines = None if used == "prior" else self._compare_titles(rows)
        scores = score_items(used, counted, cosines)
        candidates = np.flatnonzero(allowed & (scores > 0))
        if rules.boosts is None:
            order_by = scores[candidates]
        else:  # the order must not depend on factors that a float cannot represent
            order_by = np.log(scores[candidates]) + rules.boosts[candidates]
            scores[candidates] = np.exp(np.clip(order_by, -_LARGEST, _LARGEST))
        candidates = candidates[np.argsort(-order_by, kind="stable")]
        chosen = self._choose(candidates, scores, wanted)
        if len(chosen) < wanted.k:
            notes.append(describe_lack(len(chosen), used))
        if cosines is not None:
            notes += self._meaning.notes
        notes += rules.notes
        return SimilarList(
            given=tuple((self._catalog[row].item_id, self._catalog[row].title) for row in rows),
            by=by,
            used=used,
            behavior=None if counted is None else self._behavior,
            titles=None if cosines is None else self._titles_name,
            score_is=self._describe_score(used, len(rows)),
            similar=self._items(chosen, scores, counted, cosines),
            asked=int(wanted.k),
            notes=tuple(notes),
        )

    @property
    def _behavior(self) -> str:
        """The behavior whose events are counted."""
        assert self._dataset is not None
        return self.settings.target_behavior or self._dataset.info.target_behavior

    @cached_property
    def _prior(self) -> CollaborativePrior | None:
        """The collaborative prior with its counts; None if there are no events to count."""
        if self._dataset is None:
            return None
        events = self._dataset.interactions
        if self._behavior not in events.behaviors:
            raise SettingsError(str(events.unknown_behavior(self._behavior)))
        if not count_events(self._dataset, self.settings.prior_before, self._behavior):
            return None
        prior = build_prior(
            self.settings, self._dataset, "collaborative", self._behavior, self._log
        )
        assert isinstance(prior, CollaborativePrior)
        return prior

    @cached_property
    def _matcher(self) -> TextMatcher:
        data, encoder = self._dataset, self.settings.encoder
        return TextMatcher(
            self._catalog,
            encoder="ngrams" if encoder == "none" else encoder,
            folder=None if data is None else data.folder or data.cache_folder,
            log=self._log,
        )

    @property
    def _meaning(self) -> SemanticMatcher:
        meaning = self._matcher.meaning
        assert meaning is not None
        return meaning

    @property
    def _titles_name(self) -> str:
        embedder = self._meaning.embedder
        return "ngrams" if embedder is None else embedder.name

    @cached_property
    def _code(self) -> IntArray:
        """An (N,) array of the index of each title in the matcher; -1 for a title without words."""
        place = {title: n for n, title in enumerate(self._meaning.titles)}
        codes = (place.get(normalized(title), -1) for title in self._catalog.titles)
        return np.fromiter(codes, dtype=np.int64, count=len(self._catalog))

    def _count(self, rows: Sequence[int]) -> Counted | None:
        """Return the event counts for the given items, or None if there are no events to count."""
        if self._prior is None:
            return None
        counts = self._prior.counts
        size, n = len(counts.catalog), len(self._catalog)  # items may have been added since
        known = [place for place, row in enumerate(rows) if row < size]
        shares, users = np.zeros((len(rows), n)), np.zeros(n, dtype=np.int64)
        if known:
            ids = [self._catalog[rows[place]].item_id for place in known]
            shares[known, :size] = self._prior.related(ids, self._behavior)
            old = counts.items[:, [rows[place] for place in known]]
            having = np.asarray(old.sum(axis=1)).ravel() > 0
            users[:size] = np.asarray(counts.items[having].sum(axis=0)).ravel()
        return Counted(shares, users)

    def _choose_kind(
        self, by: str, rows: Sequence[int], counted: Counted | None
    ) -> tuple[str, list[str]]:
        """Determine the basis of the score, with a note if it differs from the requested basis."""
        if by == "titles":
            return by, []
        if counted is None:
            what = "a catalog without events" if self._dataset is None else "no events to count"
            return "titles", [f"There is {what}, so the items were chosen by their titles."]
        known = counted.known
        lacking = [
            repr(self._catalog[row].title)
            for row, has in zip(rows, known.tolist(), strict=True)
            if not has
        ]
        if not lacking:
            return by, []
        named = ", ".join(lacking)
        verb = "has" if len(lacking) == 1 else "have"
        said = f"{named} {verb} no {self._behavior!r} events together with other items"
        if not known.any():
            return "titles", [f"{said}, so the items were chosen by their titles."]
        how = "counts only by title" if by == "both" else "does not count"
        plural = how.replace("counts", "count").replace("does", "do")
        return by, [f"{said}, so {f'it {how}' if len(lacking) == 1 else f'they {plural}'}."]

    def _compare_titles(self, rows: Sequence[int]) -> FloatArray:
        """Return the (R, N) cosines between the titles of R given items and of all items.

        Negative cosines, and the cosine of an item with itself, are replaced with 0.
        """
        meaning = self._meaning
        cosines = np.zeros((len(rows), len(self._catalog)))
        has_words = self._code >= 0
        for number, row in enumerate(rows):
            if not has_words[row]:
                continue
            text = meaning.titles[int(self._code[row])]
            found = np.zeros(len(meaning.titles))
            embedder = meaning.embedder
            if embedder is not None and embedder.coverage.reads(text) and meaning.readable:
                vectors = meaning.index.vectors
                found[meaning.readable] = vectors @ embedder.embed([text])[0]
            else:
                places, values = meaning.ngrams.nearest(text, len(found))
                found[places] = values
            cosines[number, has_words] = np.clip(found, 0.0, 1.0)[self._code[has_words]]
            cosines[number, row] = 0.0
        return cosines

    def _choose(self, candidates: IntArray, scores: FloatArray, options: QueryOptions) -> IntArray:
        """Choose k of the sorted candidates according to the options for caps and diversity."""
        k = int(options.k)
        if not (options.chooses or options.per_group):
            return candidates[:k]
        pool = max(4 * k, 50) if options.diversity else len(candidates)
        while True:
            some = candidates[:pool]
            chosen = some[self._places(some, scores[some], options)]
            if len(chosen) >= k or pool >= len(candidates):
                return chosen
            pool *= 8

    def _places(self, rows: IntArray, scores: FloatArray, options: QueryOptions) -> IntArray:
        """Return the indices of the chosen rows; see ``_choose``."""
        columns: dict[str, Sequence[Any]] = {
            name: self._index.column(name)[rows].tolist() for name in options.caps
        }
        caps = dict(options.caps)
        if options.per_title is not None:
            titles = [self._catalog[row].title for row in rows.tolist()]
            columns[_TITLES] = [title_key(title) for title in titles]
            caps[_TITLES] = options.per_title
        if options.per_group:
            columns[_GROUPS] = self._index.groups.values(rows)
            caps[_GROUPS] = options.per_group
        if not options.diversity:
            return rerank.capped(columns, int(options.k), caps)
        return rerank.choose(
            scores,
            int(options.k),
            vectors=rerank.title_vectors(self._catalog, self._matcher, rows),
            trade_off=1.0 - options.diversity,
            columns=columns,
            caps=caps,
        )

    def _items(
        self,
        rows: IntArray,
        scores: FloatArray,
        counted: Counted | None,
        cosines: FloatArray | None,
    ) -> tuple[SimilarItem, ...]:
        found = []
        share = None if counted is None else mean_of_known(counted)
        for rank, row in enumerate(rows.tolist(), start=1):
            item = self._catalog[row]
            found.append(
                SimilarItem(
                    rank,
                    item.item_id,
                    item.title,
                    float(scores[row]),
                    None if share is None else float(share[row]),
                    None if cosines is None else float(cosines[:, row].mean()),
                    None if counted is None else int(counted.users[row]),
                )
            )
        return tuple(found)

    def _describe_score(self, used: str, given: int) -> str:
        """Explain in one sentence what the score means."""
        mean = ", on average over the given items" if given > 1 else ""
        if used == "titles":
            how = self._titles_name
            means = "character n-grams" if how == "ngrams" else f"the encoder {how}"
            return f"The score is the cosine between the titles as vectors of {means}{mean}."
        share = (
            f"an item's share of everything that the same users have or have next, by counts of "
            f"{self._behavior!r} events"
        )
        if used == "prior":
            return f"The score is {share}{mean}. The shares of all items sum to 1."
        return (
            f"The score is the mean of two shares{mean}. One is {share}. The other is its share of "
            f"similarity among the {NEAR} most similar titles. Each of them sums to 1 over all items."
        )


def _check_options(options: QueryOptions) -> QueryOptions:
    """Check that all options apply to a search for similar items.

    Raises:
        RequestError: an option applies only to requests with a user or with probabilities.
    """
    usual = QueryOptions()
    for each in fields(QueryOptions):
        if each.name not in SIMILAR_OPTIONS and getattr(options, each.name) != getattr(
            usual, each.name
        ):
            msg = (
                f"{each.name} does not apply to similar items. Expected only options among "
                f"{', '.join(SIMILAR_OPTIONS)}."
            )
            raise RequestError(msg)
    return options


def _no_model() -> NoReturn:
    msg = "Similar items are found without a language model, so there are no token ids."
    raise ModelError(msg)
