"""Recommender: the one class a user needs. Histories in, ranked items of the catalog out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from genrec import checkpoint, diversity, fusing
from genrec.answers import Recommendation, RecommendationList, Wishes
from genrec.catalog import Catalog, Item
from genrec.checkpoint import Run
from genrec.config import Settings
from genrec.dataset import Dataset
from genrec.embedding import CharNgrams
from genrec.encoding import EncodedPrompt, Encoder, shared_start
from genrec.errors import DataError, RequestError, SettingsError
from genrec.filters import Filter, Filters
from genrec.fusing import Fusing
from genrec.gate import Gate
from genrec.interactions import History, Interaction
from genrec.matching import Match, TextMatcher
from genrec.overlay import LiveTrie
from genrec.predicates import Predicate
from genrec.priors import Bases, Fused, ItemPrior
from genrec.prompts import Template, TitleForm, spoken_verbs
from genrec.reader import HistoryReader, Understood
from genrec.reading import main_script, of_transformers
from genrec.trie import TitleTrie
from genrec.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from genrec.decoding import Options, Ranking
    from genrec.evidence import Question
    from genrec.explaining import Explainer
    from genrec.generation import Generated
    from genrec.liking import YesNo
    from genrec.model import LanguageModel
    from genrec.token_tree import Prefix, TokenTree
    from genrec.whynot import ItemExplanation

HistoryLike = History | str | Iterable[str | int | Interaction]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
_DEMONSTRATION_EVENTS = 8
_PREFIX = 32  # tokens that prompts must share for these to be read once
_PREFIXES = 4  # read beginnings that are kept
_CONDITIONS = 32  # conditions whose rows are kept
_COARSE = 0.05  # scores that are nearer are not told apart in half precision
_BUDGET = 256  # tokens that a search may take at least
_EVERY = 1 << 40
_TITLES = "title as the model sees it"


@dataclass(frozen=True, slots=True)
class _Asked:
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
        say: Callable[[str], None] = lambda message: None,
        **settings: Any,
    ) -> None:
        """Loads the model and reads the catalog.

        Args:
            data: a dataset, or only a catalog (then there are no users and no demonstrations).
            model: ``smollm2-135m``, a local folder, a hub id, or a loaded ``LanguageModel``.
            device: see ``LanguageModel.load``.
            dtype: see ``LanguageModel.load``.
            threads: see ``LanguageModel.load``.
            say: called with a line of text before each slow step.
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
        self.catalog = data if isinstance(data, Catalog) else data.catalog
        self.dataset = data if isinstance(data, Dataset) else None
        shots = self.settings.few_shot
        name = self.settings.template or ("few_shot" if shots else "next_item")
        self.template = Template.load(name, self.settings.language, own=self.settings.prompts)
        if "opening" in self.template.header:
            msg = (
                f"template={name!r} writes explanations. Expected one for the next item; ask for "
                "explanations with recommend(..., explain=True) or --explain."
            )
            raise SettingsError(msg)
        self._check_few_shot(name, shots)
        self.behavior = self._behavior()
        self.model = (
            _load(fspath(model), device, dtype, threads, say)
            if isinstance(model, str | PathLike)
            else model
        )
        self.say = say
        self.encoder = Encoder(self.model.tokenizer, self._form())
        if len(self.catalog) > 5_000:
            say(f"Building the trie of {len(self.catalog):,} titles ...")
        self.trie: TitleTrie | LiveTrie = TitleTrie(self.encoder.titles(self.catalog))
        self._prior_name = fusing.name(self.settings, self.dataset, self.behavior)
        self._priors: list[ItemPrior | None] = []  # one, once it was counted or given
        self._own_prior = False
        self._bases = Bases()
        self._gate = Gate()
        self._removed: set[int] = set()
        self._prefixes: dict[tuple[int, ...], Prefix | None] = {}
        self._conditions: dict[str, npt.NDArray[np.bool_]] = {}
        self._columns: dict[str, npt.NDArray[np.object_]] = {}
        self._explainers: dict[str, Explainer] = {}

    @classmethod
    def load(
        cls,
        run: str | PathLike[str],
        data: Dataset | Catalog | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        say: Callable[[str], None] = lambda message: None,
        **settings: Any,
    ) -> Recommender:
        """Loads what ``genrec train`` wrote.

        Args:
            run: its folder.
            data: a dataset or catalog; None is the catalog that was trained on (then there are no
                users). Items that were not trained on can be recommended too.
            device: see ``LanguageModel.load``.
            dtype: see ``LanguageModel.load``.
            threads: see ``LanguageModel.load``.
            say: called with a line of text before each slow step.
            **settings: in place of those that the run was trained with; of decoding, such as
                ``search``.

        Raises:
            ModelError: the folder is no run, or prompt, tokenizer or base model have changed since.
        """
        folder = Path(run)
        found = Run.read(folder)
        from genrec.model import LanguageModel

        model = LanguageModel.of_run(folder, device=device, dtype=dtype, threads=threads, say=say)
        items = Catalog.read(folder / checkpoint.CATALOG) if data is None else data
        new = cls(items, model, say=say, **{**found.settings, **settings})
        found.check(template=new.template.hash, encoder=new.encoder.hash)
        new.run = found
        return new

    @property
    def prior(self) -> ItemPrior | None:
        """What is fused with the model: as set, or anything with ``weights(history)``; or None."""
        if not self._priors:
            made, name = None, self._fusing.prior
            if name != "none":
                assert self.dataset is not None
                if name == "collaborative" and len(self.dataset.interactions) > 100_000:
                    self.say("Counting what people take together ...")
                made = fusing.make(self.settings, self.dataset, name, self.behavior)
            self._priors.append(made)  # also for recommenders that share it
        return self._priors[0]

    @prior.setter
    def prior(self, prior: ItemPrior | None) -> None:
        self._priors, self._own_prior = [prior], True

    @property
    def fusing(self) -> Fusing:
        """How the prior counts: as set, else as fitted."""
        if self._own_prior:
            return fusing.chosen(self.settings, "none" if self.prior is None else "own")
        return self._fusing

    @cached_property
    def _fusing(self) -> Fusing:
        name, tuned, events = self._prior_name, None, 0
        if name == "collaborative" and self.dataset is not None:
            tuned = fusing.found(self.settings.tuned, self.dataset, self.tuning_key)
            events = fusing.countable(self.dataset, self.behavior, self.settings)
        if self.run is not None and tuned is None and self.settings.prior == "auto":
            name = "none"  # what was fitted for an untrained model is not for this one
        return fusing.chosen(self.settings, name, tuned, events)

    def tuning_key(self) -> str:
        """What the fitted weight and temperature depend on: model, prompt and behavior."""
        parts = [self.model.fingerprint(), self.template.hash, self.encoder.hash, self.behavior]
        return hashlib.sha256("\0".join([*parts, str(self.settings.few_shot)]).encode()).hexdigest()

    def _check_few_shot(self, template: str, shots: int) -> None:
        if shots and not self.template.takes_demonstrations:
            msg = (
                f"few_shot={shots} with template {template!r}, which shows no demonstrations. "
                "Expected a template that uses them, such as few_shot; drop one of the two."
            )
            raise SettingsError(msg)
        if shots and self.dataset is None:
            msg = (
                f"few_shot={shots} without a dataset. Demonstrations are other users' histories: "
                "give a Dataset in place of the catalog, or few_shot=0."
            )
            raise SettingsError(msg)

    def _behavior(self) -> str:
        asked = self.settings.target_behavior
        if self.dataset is None:
            return asked or "buy"
        known = self.dataset.interactions.behaviors
        if asked is not None and asked not in known and asked not in self.template.verbs:
            msg = f"target_behavior={asked!r} is not known. Expected one of: {', '.join(known)}."
            raise SettingsError(msg)
        return asked or self.dataset.info.target_behavior

    def _form(self) -> TitleForm:
        case = self.settings.case
        if case is None and self.dataset is not None:
            case = self.dataset.info.case
        case = case or TitleForm.of(self.catalog).case
        return self.template.form(case, self.settings.max_title_tokens)

    @cached_property
    def scale(self) -> float:
        """The highest value in the data; 5 where there is none."""
        if self.dataset is None:
            return 5.0
        values = self.dataset.interactions.columns.value
        finite = values[np.isfinite(values)]
        return float(finite.max()) if len(finite) else 5.0

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the history are left out: as set, else the dataset's own habit."""
        if self.settings.exclude_seen is not None:
            return self.settings.exclude_seen
        return self.dataset.info.exclude_seen if self.dataset is not None else True

    @cached_property
    def _reader(self) -> HistoryReader:
        known = self.dataset.interactions.behaviors if self.dataset is not None else ()
        verbs: dict[str, tuple[str, ...]] = {b: (b,) for b in known}
        verbs |= spoken_verbs()
        for behavior, verb in self.template.verbs.items():
            verbs[behavior] = (*verbs.get(behavior, ()), *verb.forms)
        return HistoryReader(self.catalog, verbs, self.behavior, self.matcher)

    @cached_property
    def matcher(self) -> TextMatcher:
        """Matches texts to titles, typed ones and those that the model wrote."""
        encoder = self.settings.encoder
        return TextMatcher(
            self.catalog,
            encoder=None if encoder == "none" else encoder,
            semantic_threshold=self.settings.match_threshold,
            folder=self.dataset.folder if self.dataset is not None else None,
            say=self.say,
        )

    def _explainer(self, style: str) -> Explainer:
        """What writes sentences of a style; see ``explain_template``."""
        from genrec.explaining import Explainer, explain_template

        if style not in self._explainers:
            template = explain_template(style, self.settings.language, self.settings.prompts)
            form = self.encoder.form
            self._explainers[style] = Explainer(
                self.model,
                template,
                self.catalog,
                case=form.case,
                max_title_tokens=form.max_title_tokens,
            )
        return self._explainers[style]

    def understand(self, history: HistoryLike) -> tuple[History, tuple[Understood, ...]]:
        """A history in any of its forms, and for typed ones what became of each piece.

        Args:
            history: a ``History``; a list of ``Interaction``s, item ids or titles; or text such
                as ``"bought: RED RETROSPOT MUG; viewed: JUMBO BAG PINK POLKADOT"``. Empty is a
                new user.

        Raises:
            RequestError: it is none of these.
        """
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
        """The prompt that the model reads for a history, with its token ids.

        Raises:
            PromptError: not even the prompt without events fits the budget.
            SettingsError: the template asks about one item.
        """
        if self.template.answers is not None:
            msg = (
                f"template={self.template.name!r} asks whether somebody will want one item. Expected "
                "would_like() or `genrec likes` with it; for lists give another template or run."
            )
            raise SettingsError(msg)
        read, _ = self.understand(history)
        return self.encoder.fit(
            self.template,
            self.catalog,
            read,
            self.behavior,
            max_tokens=min(
                self.settings.max_prompt_tokens, self.model.context - self.trie.max_depth
            ),
            max_events=self.settings.max_events,
            demonstrations=self.demonstrations(read.user_id),
            scale=self.scale if self.settings.values else None,
        )

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
        wishes = Wishes(k, allow, deny, where, min_probability, per_title, caps or {}, diversity)
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
        known = [f.name for f in fields(Wishes)]
        if unknown := sorted(set(wishes) - set(known)):
            msg = f"{unknown[0]!r} is no wish. Expected some of: {', '.join(known)}."
            raise RequestError(msg)
        wishes["caps"] = wishes.get("caps") or {}
        how = (evidence, style) if explain else None
        return self._recommend(list(histories), Wishes(k, **wishes), how, batch_size)

    def _recommend(
        self,
        histories: Sequence[HistoryLike],
        wishes: Wishes,
        explain: tuple[str, str] | None = None,
        batch_size: int = 1,
    ) -> list[RecommendationList]:
        with self._gate.request():
            common = self._common(wishes)
            asked = [self._asked(h, common) for h in histories]
            if self.settings.decoder == "match":
                answers = [self._matched(a, wishes) for a in asked]
            else:
                answers = self._answers(asked, wishes, batch_size)
            if explain is not None:
                pairs = zip(answers, asked, strict=True)
                answers = [self._explained(answer, a, wishes, explain) for answer, a in pairs]
            return answers

    def _common(self, wishes: Wishes) -> Filter:
        """What the wishes allow whoever asks."""
        trie, n = self.trie, self.trie.n_positions
        found = Filter.all(n)
        if wishes.allow is not None:
            found &= Filter.allow(trie.positions_of(self._rows(wishes.allow, "allow")), n)
        if wishes.deny:
            found &= Filter.deny(trie.positions_of(self._rows(wishes.deny, "deny")), n)
        if wishes.where is not None:
            mask = self._where(wishes.where)
            found &= Filter.allow(trie.positions_of(np.flatnonzero(mask)), n)
        return found

    def _rows(self, item_ids: Sequence[str], name: str) -> IntArray:
        _check_ids(item_ids, name)
        return np.array(sorted(set(self.catalog.rows(item_ids))), dtype=np.int64)

    def _where(self, condition: str) -> npt.NDArray[np.bool_]:
        """(N,) which rows meet a condition; kept for the next request."""
        mask = self._conditions.get(condition)
        if mask is None:
            if len(self._conditions) > _CONDITIONS:
                self._conditions.clear()
            mask = Predicate.parse(condition).mask(self.catalog)
            self._conditions[condition] = mask
        return mask

    def _asked(self, history: HistoryLike, common: Filter, *, seen: bool = True) -> _Asked:
        """A history as understood, with its prompt and what may be returned.

        Raises:
            RequestError: nothing may be returned.
        """
        read, understood = self.understand(history)
        allowed = common
        if seen and self.exclude_seen:
            allowed = common & self._unseen(read)
        size = self._size(allowed)
        if size < 1:
            msg = (
                "No item may be returned: every item is excluded or there are no candidates. "
                "Expected at least one; include seen items or give candidates."
            )
            raise RequestError(msg)
        return _Asked(read, understood, self.prompt(read), allowed, size)

    def _unseen(self, history: History) -> Filter:
        """All but the items of a history."""
        rows = np.array(self.catalog.rows(history.item_ids), dtype=np.int64)
        return Filter.deny(self.trie.positions_of(rows), self.trie.n_positions)

    def _size(self, allowed: Filter) -> int:
        """How many items a filter allows; one that denies counts the places of removed ones."""
        return len(allowed) - (self.trie.n_positions - self.trie.n_items) * allowed.denies

    def _question(self, asked: _Asked, wishes: Wishes) -> Question:
        """A request as its explanation needs it."""
        from genrec.evidence import Question

        shots = self.demonstrations(asked.history.user_id)

        def search(changed: Sequence[tuple[History, EncodedPrompt]]) -> list[Ranking]:
            batch = [replace(asked, history=h, prompt=p) for h, p in changed]
            return self._chosen(*self._read(batch), batch, wishes)

        return Question(
            model=self.model,
            trie=self.trie,
            history=asked.history,
            events=asked.prompt.prompt.events,
            render=partial(self._rendered, shots),
            bare=partial(self._rendered, ()) if shots else None,
            search=search,
            repeats=self.settings.decoder == "trie" and self.settings.search != "sample",
            options=self._exactly(asked),
            prior=self.prior,
            prefix=self._prefix([asked.prompt.ids]),
        )

    def _rendered(self, demonstrations: Sequence[History], window: History) -> EncodedPrompt:
        """The prompt for exactly these events."""
        prompt = self.template.render(
            self.catalog,
            window,
            self.behavior,
            form=self.encoder.form,
            demonstrations=demonstrations,
            scale=self.scale if self.settings.values else None,
        )
        return self.encoder.prompt(prompt)

    def _explained(
        self, answer: RecommendationList, asked: _Asked, wishes: Wishes, how: tuple[str, str]
    ) -> RecommendationList:
        """A list with an explanation of each item, by kind of evidence and style."""
        from genrec.explaining import explanations

        rows = self.catalog.rows([r.item_id for r in answer])
        question = self._question(asked, wishes)
        found = explanations(self._explainer(how[1]), question, rows, self.behavior, how[0])
        pairs = zip(answer.recommendations, found, strict=True)
        return replace(answer, recommendations=tuple(replace(r, explanation=e) for r, e in pairs))

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
        from genrec import whynot
        from genrec.explaining import explanations

        row = self._row(item_id)
        wishes = Wishes(k)
        with self._gate.request():
            if row in self._removed:
                msg = f"Item {item_id!r} was removed. Expected one that is there; add it again."
                raise RequestError(msg)
            asked = self._asked(history, self._common(wishes), seen=False)
            allowed = self._unseen(asked.history) if self.exclude_seen else asked.allowed
            listed = allowed
            if self._size(allowed) < 1:
                listed = allowed.also(self.trie.positions_of(np.array([row])))
            asked = replace(asked, allowed=listed, size=self._size(listed))
            question = self._question(asked, wishes)
            explainer = self._explainer(style)
            (found,) = explanations(explainer, question, [row], self.behavior, evidence)
            decode = self.model.tokenizer.decode
            return whynot.examined(
                question, self.catalog, row, found, allowed, k, self.behavior, decode
            )

    def _row(self, item: str) -> int:
        """The row of an item by its id, or by a title that only it has."""
        titled: list[int] = []
        if isinstance(item, str) and item not in self.catalog:
            titled, _ = self.catalog.rows_of_title(item)
        return titled[0] if len(titled) == 1 else self.catalog.row(item)

    def events_in_prompt(self, history: HistoryLike) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The prompt as one string, and where in it each event of the history begins and ends."""
        from genrec.evidence import spans

        with self._gate.request():
            asked = self._asked(history, self._common(Wishes()), seen=False)
            return spans(self._question(asked, Wishes()))

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
        _check_ids(ids, "items")
        with self._gate.request():
            rows = self.catalog.rows(ids)
            read, _ = self.understand(history)
            found = self.question.chances(self.model, read, rows)
        return found[0] if isinstance(items, str) else found

    @cached_property
    def question(self) -> YesNo:
        """How ``would_like`` asks."""
        from genrec.liking import YesNo

        template, encoder = self.template, self.encoder
        if template.answers is None:
            name, own = "would_like", self.settings.prompts
            template = Template.load(name, self.settings.language, own=own)
            form = template.form(encoder.form.case, encoder.form.max_title_tokens)
            encoder = Encoder(self.model.tokenizer, form)
        return YesNo(
            template,
            encoder,
            self.catalog,
            self.behavior,
            max_tokens=min(self.settings.max_prompt_tokens, self.model.context),
            max_events=self.settings.max_events,
            scale=self.scale if self.settings.values else None,
        )

    def _ranked(
        self, history: HistoryLike, candidates: Sequence[str] | None, *, seen: bool
    ) -> RecommendationList:
        if candidates is not None:
            _check_ids(candidates, "candidates")
        with self._gate.request():
            asked = self._asked(history, self._common(Wishes(1, allow=candidates)), seen=seen)
            tree, prior = self._read([asked])
            (ranking,) = self._search(tree, prior, [asked], [asked.size], self._exactly(asked))
            answer = self._answer(
                asked, ranking, asked.size, "excluded" if seen else "included", _spoke(prior)
            )
            return replace(answer, decoder="trie")

    def _answers(
        self, asked: Sequence[_Asked], wishes: Wishes, batch_size: int
    ) -> list[RecommendationList]:
        """A list for each request, requests with prompts of like length in one batch."""
        order = sorted(range(len(asked)), key=lambda i: len(asked[i].prompt.ids))
        answers: dict[int, RecommendationList] = {}
        for first in range(0, len(order), batch_size):
            some = order[first : first + batch_size]
            batch = [asked[i] for i in some]
            tree, prior = self._read(batch)
            rankings = self._chosen(tree, prior, batch, wishes)
            for place, (i, ranking) in enumerate(zip(some, rankings, strict=True)):
                seen = "excluded" if self.exclude_seen else "included"
                spoke = _spoke(prior, place)
                answers[i] = self._answer(asked[i], ranking, int(wishes.k), seen, spoke)
        return [answers[i] for i in range(len(asked))]

    def _chosen(
        self, tree: TokenTree, prior: Fused | None, batch: Sequence[_Asked], wishes: Wishes
    ) -> list[Ranking]:
        """The k best of each; with caps or diversity the k chosen from more."""
        k = int(wishes.k)
        options = self._options(
            max(batch, key=lambda a: len(a.prompt.ids)), k, wishes.min_probability
        )
        if not wishes.chooses:
            sizes = [min(k, a.size) for a in batch]
            return self._search(tree, prior, batch, sizes, options)
        pool, pending = max(4 * k, 50), list(range(len(batch)))
        found: dict[int, Ranking] = {}
        while pending:
            some = [batch[i] for i in pending]
            if found:  # the tree may have forgotten them
                tree, prior = self._read(some)
            sizes = [min(pool, a.size) for a in some]
            wide = replace(options, beam_size=max(options.beam_size, pool))
            rankings = dict(zip(pending, self._search(tree, prior, some, sizes, wide), strict=True))
            for i, ranking in rankings.items():
                found[i] = self._diverse(ranking, wishes)
            # Caps may have used up the candidates: then more are looked at, at last all.
            pending = [
                i for i, ranking in rankings.items()
                if len(found[i].rows) < min(k, batch[i].size) and len(ranking.rows) == pool
            ]  # fmt: skip
            pool *= 8
        return [found[i] for i in range(len(batch))]

    def _diverse(self, ranking: Ranking, wishes: Wishes) -> Ranking:
        """The k items of a longer ranking that caps and diversity choose, in that order."""
        columns: dict[str, Sequence[Any]] = {
            name: self._column(name)[ranking.rows].tolist() for name in wishes.caps
        }
        caps = dict(wishes.caps)
        if wishes.per_title is not None:
            form = self.encoder.form
            columns[_TITLES] = [form.render(self.catalog[r].title) for r in ranking.rows.tolist()]
            caps[_TITLES] = wishes.per_title
        if wishes.diversity:
            vectors = self.title_vectors(ranking.rows)
            trade_off = 1.0 - wishes.diversity
            which = diversity.choose(
                ranking.scores,
                int(wishes.k),
                vectors=vectors,
                trade_off=trade_off,
                columns=columns,
                caps=caps,
            )
        else:
            which = diversity.capped(columns, int(wishes.k), caps)
        return replace(ranking.only(which), chosen_from=len(ranking.rows))

    def _column(self, name: str) -> npt.NDArray[np.object_]:
        """(N,) an attribute by row, None where it is missing."""
        if name not in self._columns:
            if name not in self.catalog.columns:
                known = ", ".join(self.catalog.columns)
                msg = f"The catalog has no column {name!r}. Expected one of: {known}."
                raise RequestError(msg)
            values = np.empty(len(self.catalog), dtype=object)
            values[:] = self.catalog.column(name).to_pylist()
            self._columns[name] = values
        return self._columns[name]

    def title_vectors(self, rows: IntArray) -> FloatArray:
        """(n, D) unit vectors of the titles of some rows: the matcher's, or of character n-grams."""
        titles = [self.catalog[r].title for r in rows.tolist()]
        meaning = self.matcher.meaning
        embedder = meaning.embedder if meaning is not None else None
        if embedder is not None and all(embedder.reading.reads(t) for t in titles):
            return np.asarray(embedder.embed(titles), dtype=np.float64)
        return np.asarray(CharNgrams(titles).vectors.toarray(), dtype=np.float64)

    def _options(self, asked: _Asked, k: int, min_probability: float) -> Options:
        from genrec.decoding import TOLERANCE, Options

        settings, trie, fused = self.settings, self.trie, self.fusing
        n = len(asked.prompt.ids)
        fine = self.model.precise
        whole = settings.normalization == "catalog" and trie.inner_tokens < 2 * n
        return Options(
            search="exact" if settings.search == "sample" else settings.search,
            beam_size=max(settings.beam_size or max(2 * k, 20), k),
            normalization=settings.normalization,
            temperature=fused.temperature,
            max_nodes=settings.max_nodes,
            budget=max(2 * n if whole else n, _BUDGET),
            fusion=fused.fusion,
            beta=fused.weight,
            alone=fused.alone,
            min_probability=min_probability,
            draw=settings.seed if settings.search == "sample" else None,
            tolerance=(TOLERANCE if fine else _COARSE) / min(fused.temperature, 1.0),
        )

    def _exactly(self, asked: _Asked) -> Options:
        """Options to score everything that is allowed."""
        options = self._options(asked, 1, 0.0)
        return replace(options, search="exact", draw=None, width=_EVERY, max_nodes=_EVERY)

    def _read(self, batch: Sequence[_Asked]) -> tuple[TokenTree, Fused | None]:
        """The prompts of a batch as a token tree, and the prior for their histories."""
        prompts = [a.prompt.ids for a in batch]
        tree = self.model.prefill_many(prompts, self._prefix(prompts))
        source = self.prior
        weights = None if source is None else [source.weights(a.history) for a in batch]
        return tree, None if weights is None else Fused(weights, self.trie, self._bases)

    def _prefix(self, prompts: Sequence[Sequence[int]]) -> Prefix | None:
        """What these prompts begin with, or what a prompt without events begins with too."""
        if len(prompts) == 1 and not self.settings.few_shot:
            return None
        others = list(prompts)
        if len(prompts) == 1:
            others.append(self.prompt("").ids)
        shared = min(shared_start(others), min(map(len, prompts)) - 1)
        if shared < _PREFIX:
            return None
        key = tuple(prompts[0][:shared])
        if not self.settings.few_shot:  # what these happen to share; no later batch begins so
            return self.model.prefix(key)
        prefix = self._prefixes.get(key)
        if prefix is None:
            if len(self._prefixes) >= _PREFIXES:
                self._prefixes.clear()
            prefix = self.model.prefix(key)
            self._prefixes[key] = prefix
        return prefix

    def _search(
        self,
        tree: TokenTree,
        prior: Fused | None,
        batch: Sequence[_Asked],
        sizes: Sequence[int],
        options: Options,
    ) -> list[Ranking]:
        from genrec.decoding import search

        if isinstance(options.draw, int):  # the same draws for the same prompt in any batch
            seeds = tuple(_seed(options.draw, a.prompt.ids) for a in batch)
            options = replace(options, draw=seeds)
        filters = Filters([a.allowed for a in batch])
        return search(self.trie, tree, sizes, allowed=filters, prior=prior, options=options)

    def _answer(
        self, asked: _Asked, ranking: Ranking, k: int, seen: str, spoke: Sequence[str]
    ) -> RecommendationList:
        notes = self.matcher.notes if asked.understood else ()
        answer = self._list(asked, self._recommendations(ranking), seen, k, notes)
        details = {**answer.details, "certificate": asdict(ranking.certificate)}
        if ranking.prior is not None:
            details |= {
                "parts": ["model", "prior"],
                "prior": {**asdict(self.fusing), "counted": list(spoke)},
            }
        if ranking.chosen_from is not None:
            details["chosen_from"] = ranking.chosen_from
        return replace(answer, details=details)

    def with_nats(
        self, history: HistoryLike, k: int, target: str
    ) -> tuple[RecommendationList, float, float]:
        """``recommend``, -ln P of one item over all items, and the seconds that the list took.

        The prompt is read once for both. For the decoder ``trie`` and normalization ``catalog``.
        """
        with self._gate.request():
            started = time.perf_counter()
            wishes = Wishes(k)
            asked = self._asked(history, self._common(wishes))
            tree, prior = self._read([asked])
            seen = "excluded" if self.exclude_seen else "included"
            (found,) = self._chosen(tree, prior, [asked], wishes)
            answer = self._answer(asked, found, k, seen, _spoke(prior))
            seconds = time.perf_counter() - started
            only = replace(asked, allowed=self._common(Wishes(1, allow=[target])), size=1)
            (ranking,) = self._search(tree, prior, [only], [1], self._exactly(asked))
            return answer, -float(ranking.logprobs[0]), seconds

    def generate(self, history: HistoryLike | EncodedPrompt = "") -> list[Generated]:
        """What the model writes freely after the prompt, as the decoder ``match`` uses it.

        ``n_samples`` texts drawn with ``temperature`` and ``seed``, or where it is 0 the best texts
        of a beam search (``beam_size``, 20 where None), the best first. A prompt that was made
        already may stand for the history.
        """
        from genrec.generation import Ending, beams, sample

        prompt = (history if isinstance(history, EncodedPrompt) else self.prompt(history)).ids
        tokenizer = self.model.tokenizer
        settings = self.settings
        ending = Ending(
            decode=lambda ids: str(tokenizer.decode(list(ids))),
            terminator=self.encoder.form.terminator,
            eos=self.model.ends,
            banned=tuple(self.encoder.control_ids),
            max_tokens=min(settings.max_title_tokens, self.model.context - len(prompt)),
        )
        tree = self.model.prefill(prompt)
        if settings.n_samples:
            n, temperature = settings.n_samples, settings.temperature
            return sample(tree, ending, n=n, temperature=temperature, seed=settings.seed)
        return beams(tree, ending, n=settings.beam_size or 20)

    def _matched(self, asked: _Asked, wishes: Wishes) -> RecommendationList:
        """The items that freely written texts name, by how much was written of each."""
        if wishes.min_probability or wishes.chooses:
            msg = (
                "min_probability, per_title, caps and diversity with decoder='match', which states "
                "no probabilities. Expected the decoder trie for these."
            )
            raise RequestError(msg)
        prompt, k = asked.prompt, int(wishes.k)
        place = self.trie.places(np.arange(len(self.catalog)))
        allowed = place >= 0
        allowed[allowed] = asked.allowed.keeps(place[allowed])
        written = self.generate(prompt)
        drawn = bool(self.settings.n_samples)
        found: dict[int, tuple[float, list[str], Match]] = {}
        nothing = already = 0
        for text in sorted(written, key=lambda g: (-g.logprob, g.text)):
            match = self.matcher.match(text.text)
            rows = [r for r in match.rows if allowed[r]]
            nothing += not match.rows
            already += bool(match.rows) and not rows
            weight = 1 / len(written) if drawn else float(np.exp(text.logprob))
            for row in rows:
                score, texts, first = found.get(row, (0.0, [], match))
                said = text.text.strip()
                texts = texts if said in texts else [*texts, said]
                found[row] = (score + weight / len(match.rows), texts, first)
        best = sorted(found.items(), key=lambda pair: (-pair[1][0], pair[0]))[:k]
        notes = list(self.matcher.notes)
        if len(best) < min(k, asked.size):
            more = "n_samples" if drawn else "beam_size"
            notes.append(
                f"{len(best)} of {k} items: of {len(written)} texts that the model wrote, "
                f"{nothing} matched no item and {already} an item of the history. Expected fewer "
                f"than k with the decoder match; raise {more}, or use the decoder trie."
            )
        items = tuple(
            Recommendation(
                rank,
                self.catalog[row].item_id,
                self.catalog[row].title,
                None,
                score,
                tuple(texts),
                match.how,
                round(match.similarity, 4),
            )
            for rank, (row, (score, texts, match)) in enumerate(best, start=1)
        )
        excluded = "excluded" if self.exclude_seen else "included"
        return self._list(asked, items, excluded, k, notes)

    def _list(
        self,
        asked: _Asked,
        items: tuple[Recommendation, ...],
        seen: str,
        k: int,
        notes: Sequence[str],
    ) -> RecommendationList:
        details = {"threads": self.model.threads} if self.model.device.type == "cpu" else {}
        return RecommendationList(
            user_id=asked.history.user_id,
            decoder=self.settings.decoder,
            model=self.model.name,
            seen=seen,
            recommendations=items,
            understood=asked.understood,
            prompt_tokens=len(asked.prompt.ids),
            events=asked.prompt.prompt.events,
            behavior=self.behavior,
            asked=k,
            notes=(*self._unread, *notes),
            details={"device": str(self.model.device), **details, "parts": ["model"]},
        )

    @cached_property
    def _unread(self) -> tuple[str, ...]:
        """Says where the model is asked about a script that it does not read."""
        script = main_script(self.catalog.titles)
        if script in of_transformers(self.model.tokenizer).spelled:
            return (
                f"{self.model.name} does not read the script of these titles ({script}): it spells "
                "it in fragments, and its order says little. Use a multilingual model, such as "
                "gemma3-270m or a hub id.",
            )
        return ()

    def add_items(self, items: Iterable[Item]) -> None:
        """Adds items to the catalog, which the next request can recommend; nothing is retrained.

        An item that was removed comes back as it is given. Requests that run go on first.

        Raises:
            DataError: these are no items, an id is there already, or an item is not as in
                ``Catalog``.
        """
        given = _listed(items, "items")
        back = {
            i.item_id
            for i in given
            if isinstance(i, Item)
            and i.item_id in self.catalog
            and self.catalog.row(i.item_id) in self._removed
        }
        new = [i for i in given if getattr(i, "item_id", None) not in back]
        self._edit(add=new, change=[i for i in given if getattr(i, "item_id", None) in back])

    def remove_items(self, item_ids: Sequence[str]) -> None:
        """Takes items out: they are no longer recommended and no longer take a share of P.

        Histories still show them. Requests that run go on first.

        Raises:
            RequestError: an id is not in the catalog, or no item would be left.
        """
        self._edit(remove=item_ids)

    def retitle_items(self, titles: Mapping[str, str]) -> None:
        """Gives items other titles, item_id -> title. Requests that run go on first.

        Raises:
            RequestError: an id is not in the catalog or was removed.
            DataError: a title is empty.
        """
        kind: object = titles  # checked for callers without a type checker
        if not isinstance(kind, Mapping):
            msg = f"titles is {type(titles).__name__}. Expected a mapping, item_id -> title."
            raise RequestError(msg)
        changed = []
        for item_id, title in titles.items():
            row = self.catalog.row(item_id)
            if row in self._removed:
                msg = f"Item {item_id!r} was removed. Expected one that is there; add it again."
                raise RequestError(msg)
            changed.append(replace(self.catalog[row], title=title))
        self._edit(change=changed)

    def _edit(
        self,
        add: Sequence[Item] = (),
        remove: Sequence[str] = (),
        change: Sequence[Item] = (),
    ) -> None:
        with self._gate.edit():
            gone = set(self._rows(remove, "item_ids").tolist()) - self._removed
            catalog = self.catalog.edited(add, change)
            changed = catalog.rows([i.item_id for i in change])
            rows = [*changed, *range(len(self.catalog), len(catalog))]
            form = self.encoder.form
            titles = {r: self.encoder.title(form.render(catalog[r].title)) for r in rows}
            removed = (self._removed | gone) - set(changed)
            if len(removed) == len(catalog):
                msg = "No item would be left. Expected at least one; add others first."
                raise RequestError(msg)
            live = self.trie if isinstance(self.trie, LiveTrie) else LiveTrie(self.trie)
            old = gone | (set(changed) - self._removed)
            trie = live.edited(titles, old)
            if trie.due() and trie.n_edits > 2 * len(removed):
                trie = LiveTrie(TitleTrie(self.encoder.titles(catalog))).edited({}, removed)
            self.catalog, self.trie, self._removed = catalog, trie, removed
            self._conditions.clear()
            self._columns.clear()
            self._explainers.clear()
            for name in ("_reader", "matcher", "_unread", "question"):
                self.__dict__.pop(name, None)

    def _recommendations(self, ranking: Ranking) -> tuple[Recommendation, ...]:
        arrays = ranking.rows, ranking.logprobs, ranking.scores, ranking.alone
        columns = [a.tolist() for a in arrays]
        columns.append(
            [None] * len(columns[0]) if ranking.prior is None else ranking.prior.tolist()
        )
        return tuple(
            Recommendation(
                rank,
                self.catalog[row].item_id,
                self.catalog[row].title,
                value,
                score,
                logprob_model=model,
                logprob_prior=prior,
            )
            for rank, (row, value, score, model, prior) in enumerate(
                zip(*columns, strict=True), start=1
            )
        )

    def with_settings(self, *, data: Dataset | None = None, **changes: Any) -> Recommender:
        """A recommender with other settings that shares the loaded model, edits and own prior.

        Args:
            data: the dataset with another split; None for the same.
            **changes: the settings.
        """
        values = {**asdict(self.settings), **changes}
        new = Recommender(data or self.dataset or self.catalog, self.model, **values)
        if self.catalog is not new.catalog or self._removed:
            known, now = new.catalog, self.catalog
            new._edit(
                add=[now[r] for r in range(len(known), len(now))],
                change=[now[r] for r, i in enumerate(known) if now[r] != i],
            )
            new._edit(remove=[now[r].item_id for r in self._removed])
        new.run = self.run
        if self._own_prior:
            new.prior = self.prior
        elif new._counts() == self._counts() and (data is None or data is self.dataset):
            new._priors = self._priors
        return new

    def _counts(self) -> tuple[object, ...]:
        """What the prior that is counted depends on, beside the dataset."""
        settings = self.settings
        return self._fusing.prior, settings.prior_events, settings.seed, self.behavior


def _check_ids(given: object, name: str) -> None:
    if isinstance(given, str):
        msg = f"{name}={given!r} is one text. Expected a list of item ids."
        raise RequestError(msg)
    if not isinstance(given, Iterable):
        msg = f"{name}={given!r:.80} is {type(given).__name__}. Expected a list of item ids."
        raise RequestError(msg)


def _spoke(prior: Fused | None, place: int = 0) -> Sequence[str]:
    """What the prior of a batch's request was counted from."""
    return () if prior is None else prior.spoke[place]


def _seed(seed: int, ids: Sequence[int]) -> int:
    """A seed for a prompt."""
    data = np.array([seed, *ids], dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _listed(items: Iterable[Item], name: str) -> list[Item]:
    try:
        return list(items)
    except TypeError:
        msg = f"{name} is {type(items).__name__}. Expected a list of Items."
        raise DataError(msg) from None


def _no_history(given: object) -> RequestError:
    return RequestError(
        f"{given!r:.80} ({type(given).__name__}) is no history. Expected text such as "
        '"bought: TITLE; viewed: TITLE", a list of item ids or titles, a list of Interaction, or a '
        "History."
    )


def _load(
    name: str, device: str, dtype: str, threads: int | None, say: Callable[[str], None]
) -> LanguageModel:
    from genrec.model import LanguageModel

    return LanguageModel.load(name, device=device, dtype=dtype, threads=threads, say=say)
