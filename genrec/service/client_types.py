"""Define what ``genrec.Client`` returns where the library has no type of its own.

Fields that a later version of the service adds are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from genrec.conversation.dialogue import Turn
from genrec.data.events import History
from genrec.pipeline.types import RecommendationList


@dataclass(frozen=True, slots=True)
class _Answer:
    """The base of all types here."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build it from an answer of the service."""
        names = {f.name for f in fields(cls)}
        return cls(**{n: v for n, v in values.items() if n in names})


@dataclass(frozen=True, slots=True)
class ChatReply(_Answer):
    """The answer to the last turn of a conversation; see ``genrec.pipeline.chat.ChatAnswer``.

    Attributes:
        sentence: what the list is; empty if there is no list.
        questions: what is asked back, as in the answer of the service.
        list: the items; None if nothing is known that a list could be made of.
        query: all that is known after the turn.
        mentioned: the ids of the items that the user has pointed at.
        run: the name of the model.
        notes: remarks.
    """

    sentence: str
    questions: Sequence[Mapping[str, Any]]
    list: RecommendationList | None
    query: Mapping[str, Any]
    mentioned: Sequence[str]
    run: str
    notes: Sequence[str]

    @property
    def turn(self) -> Turn:
        """The answer as a turn, to be added to the conversation."""
        items = () if self.list is None else tuple(r.item_id for r in self.list)
        said = " ".join([self.sentence, *(q["question"] for q in self.questions)]).strip()
        return Turn(said, items, mine=False)


@dataclass(frozen=True, slots=True)
class PerUser(_Answer):
    """The mean over users of their share of accepted lists, with its 95% interval; None without users."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class BehaviorResult(_Answer):
    """The feedback of one behavior: the lists that had it, their users or items, and the mean per user."""

    lists: int
    users: int | None = None
    items: int | None = None
    per_user: PerUser | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> BehaviorResult:
        """Build it from an answer of the service."""
        found = values.get("per_user")
        shares = None if found is None else PerUser.of(found)
        return cls(values["lists"], values.get("users"), values.get("items"), shares)


@dataclass(frozen=True, slots=True)
class ExperimentArm(_Answer):
    """One way of making lists in an experiment; see the guide "Experiments".

    Attributes:
        name: the name of the arm.
        run: the model; None for the default one when the experiment starts.
        weight: the share of the users, relative to the other arms.
        scenario: the scenario whose options are used in place of the request's.
        options: options that replace those of the request.
        model_role: ``explain`` if counting alone ranks; None for the usual role.
        search: ``sample`` if items are drawn at random; None for the best ones.
    """

    name: str
    run: str | None = None
    weight: float = 1.0
    scenario: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    model_role: str | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class ArmResult(_Answer):
    """All lists of an arm: how many users saw them, and what came of them.

    Attributes:
        arm: the name of the arm.
        users: the number of users with lists.
        lists: the number of lists.
        fallbacks: lists that counting alone made because the model was late or failed.
        lists_accepted: lists that were followed by feedback that counts.
        per_user: the mean over users of their share of accepted lists.
        behaviors: the same for each behavior apart.
    """

    arm: str
    users: int
    lists: int
    fallbacks: int
    lists_accepted: int
    per_user: PerUser
    behaviors: Mapping[str, BehaviorResult]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ArmResult:
        """Build it from an answer of the service."""
        apart = {name: BehaviorResult.of(v) for name, v in values["behaviors"].items()}
        shares = PerUser.of(values["per_user"])
        return super(ArmResult, cls).of({**values, "per_user": shares, "behaviors": apart})


@dataclass(frozen=True, slots=True)
class ArmComparison(_Answer):
    """The comparison of an arm with the first one. It may be looked at as often as you like.

    Attributes:
        arm: the arm.
        against: the first arm.
        users: the users of both arms whose window has passed, keyed by the arm.
        difference: the mean per user in this arm minus that in the first one; None without users.
        low: the lower end of the interval; None before there are enough users.
        high: the upper end of the interval.
        level: the level of the interval.
        decided: True if the interval has ever excluded 0.
        decided_after: the number of users after which it first did.
        better: the name of the better arm; None if nothing is decided.
    """

    arm: str
    against: str
    users: Mapping[str, int]
    difference: float | None
    low: float | None
    high: float | None
    level: float
    decided: bool
    decided_after: int | None
    better: str | None


@dataclass(frozen=True, slots=True)
class ExperimentResults(_Answer):
    """The results of an experiment so far.

    Attributes:
        arms: the lists of each arm.
        comparisons: each other arm compared with the first one.
        complete_users: the number of users whose window has passed.
    """

    arms: tuple[ArmResult, ...]
    comparisons: tuple[ArmComparison, ...]
    complete_users: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ExperimentResults:
        """Build it from an answer of the service."""
        return cls(
            tuple(ArmResult.of(arm) for arm in values["arms"]),
            tuple(ArmComparison.of(one) for one in values["comparisons"]),
            values["complete_users"],
        )


@dataclass(frozen=True, slots=True)
class RunningExperiment(_Answer):
    """An experiment of the service; see ``Client.put_experiment`` for its settings.

    Attributes:
        name: its name.
        running: True if requests are split between the arms.
        arms: the arms.
        scenario: only requests with this scenario take part; None for those without an experiment
            of their own.
        salt: the text that is hashed with the id of a user.
        behaviors: the behaviors that count as accepting a list.
        window_hours: how long lists and feedback count after a user's first list.
        planned_users: the number of users at which the intervals are tightest.
        started: the time in seconds since 1970.
        stopped: the time when it was stopped; None while it is running.
        missing_runs: models of its arms that are not loaded.
        results: the results; None in a list of experiments.
    """

    name: str
    running: bool
    arms: tuple[ExperimentArm, ...]
    scenario: str | None
    salt: str
    behaviors: tuple[str, ...]
    window_hours: float
    planned_users: int
    started: float
    stopped: float | None
    missing_runs: tuple[str, ...]
    results: ExperimentResults | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RunningExperiment:
        """Build it from an answer of the service."""
        found = values.get("results")
        made = {
            **values,
            "arms": tuple(ExperimentArm.of(arm) for arm in values["arms"]),
            "behaviors": tuple(values["behaviors"]),
            "missing_runs": tuple(values["missing_runs"]),
            "results": None if found is None else ExperimentResults.of(found),
        }
        return super(RunningExperiment, cls).of(made)


@dataclass(frozen=True, slots=True)
class Acceptance(_Answer):
    """What was shown and accepted in a group of lists.

    Attributes:
        value: the scenario, the model, the arm or the rank; None for lists without one.
        lists: the number of lists.
        items: the number of items shown.
        lists_accepted: lists with an item that was accepted.
        items_accepted: items that were followed by feedback.
        users: the number of users.
        per_user: the mean over users of their share of accepted lists; for a rank, of items.
        behaviors: lists and items with feedback of each behavior.
    """

    value: str | int | None
    lists: int
    items: int
    lists_accepted: int
    items_accepted: int
    users: int
    per_user: PerUser
    behaviors: Mapping[str, BehaviorResult]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Acceptance:
        """Build it from an answer of the service."""
        apart = {name: BehaviorResult.of(v) for name, v in values["behaviors"].items()}
        shares = PerUser.of(values["per_user"])
        return super(Acceptance, cls).of({**values, "per_user": shares, "behaviors": apart})


@dataclass(frozen=True, slots=True)
class ServedModel(_Answer):
    """A model that the service has loaded.

    Attributes:
        name: the name under which requests ask for it.
        default: True if it answers requests that name none.
        model: the name of the language model.
        role: what the model does: ``fuse``, ``feature`` or ``explain``.
        prior: the name of the prior; None without one.
        behavior: the behavior for which it recommends.
        fallback: True if counting alone can answer in its place.
    """

    name: str
    default: bool
    model: str
    role: str
    prior: str | None
    behavior: str
    fallback: bool


@dataclass(frozen=True, slots=True)
class ServedModels(_Answer):
    """The models of a service: those that are loaded, and the runs that can be loaded."""

    models: tuple[ServedModel, ...]
    loadable: tuple[str, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ServedModels:
        """Build it from an answer of the service."""
        models = tuple(ServedModel.of(one) for one in values["models"])
        return cls(models, tuple(values["loadable"]))

    @property
    def default(self) -> str:
        """The name of the model that answers requests that name none."""
        return next(one.name for one in self.models if one.default)


@dataclass(frozen=True, slots=True)
class Shop(_Answer):
    """What the service says about its shop; see ``GET /v1/shop``.

    Attributes:
        name: the name of the dataset.
        items: the number of items that can be recommended.
        behavior: the target behavior.
        behaviors: all behaviors of the dataset, the target first.
        refusals: behaviors that mean that a user does not want an item.
        shows: the lists that ``recommend_rails`` may ask for.
        counts: True if counting alone can make lists.
        columns: for each column of the items, its ``name`` and ``kind`` and, if known, its values.
        words: the past tense of behaviors, keyed by language.
        image_hosts: the hosts that pages may load pictures from.
    """

    name: str
    items: int
    behavior: str
    behaviors: Sequence[str]
    refusals: Sequence[str]
    shows: Sequence[str]
    counts: bool
    columns: Sequence[Mapping[str, Any]]
    words: Mapping[str, Mapping[str, str]]
    image_hosts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Blocks(_Answer):
    """What no answer may offer.

    Attributes:
        item_ids: ids of items.
        conditions: conditions as in the option ``where``.
        phrases: words in a row in a title.
        blocked: the number of items that are blocked by them; None if it was not counted.
    """

    item_ids: Sequence[str] = ()
    conditions: Sequence[str] = ()
    phrases: Sequence[str] = ()
    blocked: int | None = None


@dataclass(frozen=True, slots=True)
class User(_Answer):
    """What the service knows about a user.

    Attributes:
        user_id: the id.
        labels: what the shop says about the user; see ``Client.put_labels``.
        events: the number of all events.
        history: the latest events.
        sequences: for each event of the history, its number in the store, with which it can be
            deleted; None for an event of the dataset.
    """

    user_id: str
    labels: Mapping[str, Any]
    events: int
    history: History
    sequences: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class UserNeighbor(_Answer):
    """A user whose items resemble those of another user.

    Attributes:
        user_id: the id.
        similarity: the cosine of both sets of items, above 0 and at most 1.
        items: the ids of the items that both have; None if they were not asked for.
    """

    user_id: str
    similarity: float
    items: Sequence[str] | None = None
