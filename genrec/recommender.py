"""Recommender: the one class a user needs. Histories in, ranked items of the catalog out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from genrec.catalog import Catalog
from genrec.config import Settings
from genrec.dataset import Dataset
from genrec.encoding import EncodedPrompt, Encoder
from genrec.errors import RequestError, SettingsError
from genrec.interactions import History, Interaction
from genrec.matching import Match, TextMatcher
from genrec.prompts import Template, TitleForm, spoken_verbs
from genrec.reader import HistoryReader, Understood
from genrec.reading import main_script, of_transformers
from genrec.trie import TitleTrie
from genrec.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from genrec.decoding import Ranking
    from genrec.explaining import Explainer, Explanation
    from genrec.generation import Generated
    from genrec.model import LanguageModel

SCHEMA_VERSION = 1
HistoryLike = History | str | Iterable[str | int | Interaction]
_DEMONSTRATION_EVENTS = 8


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended item.

    Attributes:
        rank: from 1.
        item_id: the user's string.
        title: as given in the catalog.
        logprob: natural log of the item's probability; None with the decoder ``match``.
        score: higher is better; comparable within one list. The logprob, or with ``match`` the
            share of the drawn texts (the probability of the beams) that named the item.
        texts: with ``match``: what the model wrote, as it wrote it.
        match: with ``match``: how the first of the texts was matched.
        similarity: of that text to the title, 0 to 1.
        explanation: one sentence, where it was asked for.
    """

    rank: int
    item_id: str
    title: str
    logprob: float | None
    score: float
    texts: tuple[str, ...] = ()
    match: str | None = None
    similarity: float | None = None
    explanation: Explanation | None = None

    @property
    def probability(self) -> float:
        """The probability that the model gives this item, exp(logprob); NaN without a logprob."""
        return float("nan") if self.logprob is None else float(np.exp(self.logprob))

    def to_dict(self) -> dict[str, Any]:
        """The recommendation as plain values for JSON."""
        values = asdict(self)
        if self.match is None:
            del values["texts"], values["match"], values["similarity"]
        if self.explanation is None:
            del values["explanation"]
        return values


@dataclass(frozen=True, slots=True)
class RecommendationList(Sequence[Recommendation]):
    """A ranked list and how it came about."""

    user_id: str | None
    decoder: str
    model: str
    seen: str  # "included" or "excluded"
    recommendations: tuple[Recommendation, ...]
    understood: tuple[Understood, ...] = ()
    prompt_tokens: int = 0
    events: int = 0
    behavior: str = ""
    asked: int = 0
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @overload
    def __getitem__(self, index: int) -> Recommendation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Recommendation]: ...
    def __getitem__(self, index: int | slice) -> Recommendation | Sequence[Recommendation]:
        return self.recommendations[index]

    def __len__(self) -> int:
        return len(self.recommendations)

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.recommendations)

    def to_dict(self) -> dict[str, Any]:
        """The list as plain values for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "user_id": self.user_id,
            "decoder": self.decoder,
            "model": self.model,
            "seen": self.seen,
            "recommendations": [r.to_dict() for r in self.recommendations],
            "understood": [asdict(u) for u in self.understood],
            "behavior": self.behavior,
            "asked": self.asked,
            "notes": list(self.notes),
            "prompt": {"tokens": self.prompt_tokens, "events": self.events},
            **self.details,
        }


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
        self._say = say
        self.encoder = Encoder(self.model.tokenizer, self._form())
        if len(self.catalog) > 5_000:
            say(f"Building the trie of {len(self.catalog):,} titles ...")
        self.trie = TitleTrie(self.encoder.titles(self.catalog))

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
    def _scale(self) -> float:
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
            say=self._say,
        )

    @cached_property
    def _explainer(self) -> Explainer:
        from genrec.explaining import Explainer

        template = Template.load("explain", self.settings.language, own=self.settings.prompts)
        form = self.encoder.form
        return Explainer(
            self.model,
            template,
            self.catalog,
            case=form.case,
            max_title_tokens=form.max_title_tokens,
        )

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
        """
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
            scale=self._scale if self.settings.values else None,
        )

    def recommend(
        self, history: HistoryLike = "", k: int = 10, *, explain: bool = False
    ) -> RecommendationList:
        """The k best next items.

        Args:
            history: see ``understand``; empty for a new user.
            k: how many; fewer come back only where fewer are allowed, or with the decoder
                ``match``, and then ``notes`` says why.
            explain: give each item one sentence on why.

        Raises:
            RequestError: k < 1, or every item is excluded.
        """
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            msg = f"k={k!r}. Expected a whole number, 1 or more."
            raise RequestError(msg)
        read, understood = self.understand(history)
        allowed = self._allowed(read) if self.exclude_seen else None
        if self.settings.decoder == "match":
            answer = self._matched(read, understood, int(k), allowed)
        else:
            width = self.settings.beam_size or max(2 * k, 20)
            answer = self._answer(read, understood, int(k), allowed, max(width, k))
        return self._explained(answer, read) if explain else answer

    def _explained(self, answer: RecommendationList, history: History) -> RecommendationList:
        rows = self.catalog.rows([r.item_id for r in answer])
        sentences = self._explainer.explain(
            history,
            rows,
            self.behavior,
            max_prompt_tokens=self.settings.max_prompt_tokens,
            max_events=self.settings.max_events,
        )
        pairs = zip(answer.recommendations, sentences, strict=True)
        return replace(answer, recommendations=tuple(replace(r, explanation=e) for r, e in pairs))

    def recommend_many(
        self, histories: Sequence[HistoryLike], k: int = 10, *, explain: bool = False
    ) -> list[RecommendationList]:
        """``recommend`` for several histories, in order.

        Raises:
            RequestError: histories is a text or a single history, or as ``recommend``.
        """
        if isinstance(histories, str | History):
            msg = f"histories is one {type(histories).__name__}. Expected a list of histories."
            raise RequestError(msg)
        return [self.recommend(h, k, explain=explain) for h in histories]

    def score(
        self, history: HistoryLike = "", candidates: Sequence[str] | None = None
    ) -> RecommendationList:
        """Ranks given items (all where None), seen ones too, by their exact probability.

        The probabilities are those over the whole catalog, so they do not depend on the
        candidates.

        Args:
            history: see ``understand``.
            candidates: item ids, each counted once.

        Raises:
            RequestError: a candidate is not in the catalog, or there are none.
        """
        read, understood = self.understand(history)
        allowed = np.ones(len(self.catalog), dtype=bool)
        if isinstance(candidates, str):
            msg = f"candidates={candidates!r} is one text. Expected a list of item ids."
            raise RequestError(msg)
        if candidates is not None:
            allowed[:] = False
            allowed[self.catalog.rows(candidates)] = True
        return self._answer(read, understood, int(allowed.sum()), allowed, None)

    def _allowed(self, history: History) -> npt.NDArray[np.bool_]:
        allowed = np.ones(len(self.catalog), dtype=bool)
        allowed[self.catalog.rows(history.item_ids)] = False
        return allowed

    def _count(self, allowed: npt.NDArray[np.bool_] | None) -> int:
        n = len(self.catalog) if allowed is None else int(allowed.sum())
        if n == 0:
            msg = (
                "No item may be returned: every item is excluded or there are no candidates. "
                "Expected at least one; include seen items or give candidates."
            )
            raise RequestError(msg)
        return n

    def _answer(
        self,
        history: History,
        understood: tuple[Understood, ...],
        k: int,
        allowed: npt.NDArray[np.bool_] | None,
        beam_size: int | None,
    ) -> RecommendationList:
        from genrec.decoding import search

        n = self._count(allowed)
        prompt = self.prompt(history)
        ranking = search(
            self.trie,
            self.model.prefill(prompt.ids),
            k=min(k, n),
            beam_size=beam_size,
            allowed=allowed,
            normalization=self.settings.normalization,
        )
        excluded = self.exclude_seen and beam_size is not None
        return self._list(
            history,
            understood,
            prompt,
            self._recommendations(ranking),
            "excluded" if excluded else "included",
            k,
            self.matcher.notes if understood else (),
        )

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

    def _matched(
        self,
        history: History,
        understood: tuple[Understood, ...],
        k: int,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> RecommendationList:
        """The items that freely written texts name, by how much was written of each."""
        n = self._count(allowed)
        prompt = self.prompt(history)
        written = self.generate(prompt)
        drawn = bool(self.settings.n_samples)
        found: dict[int, tuple[float, list[str], Match]] = {}
        nothing = already = 0
        for text in sorted(written, key=lambda g: (-g.logprob, g.text)):
            match = self.matcher.match(text.text)
            rows = [r for r in match.rows if allowed is None or allowed[r]]
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
        if len(best) < min(k, n):
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
        return self._list(history, understood, prompt, items, excluded, k, notes)

    def _list(
        self,
        history: History,
        understood: tuple[Understood, ...],
        prompt: EncodedPrompt,
        items: tuple[Recommendation, ...],
        seen: str,
        asked: int,
        notes: Sequence[str],
    ) -> RecommendationList:
        details = {"threads": self.model.threads} if self.model.device.type == "cpu" else {}
        return RecommendationList(
            user_id=history.user_id,
            decoder=self.settings.decoder,
            model=self.model.name,
            seen=seen,
            recommendations=items,
            understood=understood,
            prompt_tokens=len(prompt.ids),
            events=prompt.prompt.events,
            behavior=self.behavior,
            asked=asked,
            notes=(*self._unread, *notes),
            details={"device": str(self.model.device), **details},
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

    def _recommendations(self, ranking: Ranking) -> tuple[Recommendation, ...]:
        pairs = zip(ranking.rows.tolist(), ranking.logprobs.tolist(), strict=True)
        return tuple(
            Recommendation(rank, self.catalog[row].item_id, self.catalog[row].title, value, value)
            for rank, (row, value) in enumerate(pairs, start=1)
        )

    def with_settings(self, **changes: Any) -> Recommender:
        """A recommender with other settings that shares the loaded model."""
        values = {**asdict(self.settings), **changes}
        return Recommender(self.dataset or self.catalog, self.model, **values)


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
