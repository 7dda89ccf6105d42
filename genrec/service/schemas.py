"""Define what clients send. Fields have the names of ``QueryOptions`` and of ``Interaction``.

A field that is not given keeps the value of the scenario, and otherwise genrec's default. Unknown
fields are refused. All sizes are limited, because a request may come from anyone. The option
``stock`` names a file on the server, so only the operator sets it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from genrec.config import (
    EVIDENCE,
    EXPLAIN,
    MOST_WEIGHT,
    SHOWS,
    SIMILAR_BY,
    SIMILAR_OPTIONS,
    QueryOptions,
)
from genrec.conversation.query import MOST_QUERY
from genrec.data.catalog import LONGEST_ID, Item
from genrec.data.context import MOST_NOTE, MOST_VALUE
from genrec.data.events import Interaction

MOST_ITEMS = 1000  # items in a list, and in each list of ids of an option
MOST_EVENTS = 1000  # events in a history or in a request with feedback
MOST_CANDIDATES = 10_000  # items to rank or score
MOST_ARMS = 10  # of an experiment
MOST_REQUESTS = 100  # requests in a batch
MOST_EDITS = 10_000  # items in a bulk edit
MOST_TEXT = 20_000  # characters of a typed history
SERVER_ONLY = ("stock",)  # options that name something on the server

_NOT_KEPT = (*SERVER_ONLY, "query", "profile_edits")  # options that are not stored with a list

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HELP = {f.name: str(f.metadata["help"]) for f in fields(QueryOptions)}


def check_printable(text: str) -> str:
    """Return a text, or raise a ValueError if it contains control characters."""
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


def check_id(text: str) -> str:
    """Return an id from an address, or raise a ValueError if no dataset can contain it."""
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _about(name: str, **limits: Any) -> Any:
    """Describe the field for an option of ``QueryOptions``, which is unset unless given."""
    return Field(default=None, description=_HELP[name], **limits)


Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]  # whatever a dataset may contain
Label = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(check_printable)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Condition = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(check_printable)]
Ids = Annotated[list[Id], Field(max_length=MOST_ITEMS)]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=MOST_ITEMS)]
ContextText = Annotated[str, Field(min_length=1, max_length=MOST_VALUE)]
Keyword = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(check_printable)]
Keywords = Annotated[list[Keyword], Field(max_length=100)]
Column = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_printable)]


class Model(BaseModel):
    """The base of all messages: unknown fields are refused, and types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Circumstances(Model):
    """What is said about the request itself, under the names of ``QueryOptions``."""

    context: (
        Annotated[dict[Column, ContextText | bool | int | Number], Field(max_length=20)] | None
    ) = _about("context")
    note: Annotated[str, Field(max_length=MOST_NOTE)] | None = _about("note")


class Options(Circumstances):
    """The options of a request, under the names of ``QueryOptions``."""

    k: Count | None = _about("k")
    query: Annotated[str, Field(min_length=1, max_length=MOST_QUERY)] | None = _about("query")
    query_weights: (
        Annotated[dict[Column, Annotated[float, Field(ge=0, le=MOST_WEIGHT)]], Field(max_length=4)]
        | None
    ) = _about("query_weights")
    allow: Annotated[list[Id], Field(max_length=MOST_CANDIDATES)] | None = _about("allow")
    deny: Annotated[list[Id], Field(max_length=MOST_CANDIDATES)] | None = _about("deny")
    pin: Ids | None = _about("pin")
    where: Condition | None = _about("where")
    profile_edits: (
        Annotated[dict[Literal["added", "removed", "banned"], Keywords], Field(max_length=3)] | None
    ) = _about("profile_edits")
    at: Annotated[str, Field(max_length=40), AfterValidator(check_printable)] | Number | None = (
        _about("at")
    )
    show: Literal[SHOWS] | None = _about("show")  # type: ignore[valid-type]
    allow_returned: bool | None = _about("allow_returned")
    allow_last_basket: bool | None = _about("allow_last_basket")
    allow_same_title: bool | None = _about("allow_same_title")
    min_probability: Share | None = _about("min_probability")
    per_title: Count | None = _about("per_title")
    per_group: Annotated[int, Field(ge=0, le=MOST_ITEMS)] | None = _about("per_group")
    caps: Annotated[dict[Column, Count], Field(max_length=20)] | None = _about("caps")
    boosts: (
        Annotated[dict[Condition, Annotated[float, Field(gt=0, le=1e9)]], Field(max_length=50)]
        | None
    ) = _about("boosts")
    half_life: Annotated[float, Field(gt=0, le=1e9)] | None = _about("half_life")
    age_column: Column | None = _about("age_column")
    diversity: Share | None = _about("diversity")
    explain: bool | None = _about("explain")
    evidence: Literal[EVIDENCE] | None = _about("evidence")  # type: ignore[valid-type]
    style: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")] | None = _about("style")

    def given(self) -> dict[str, Any]:
        """Return the options that the client gave, without those that are null."""
        names = self.model_fields_set & OPTION_NAMES
        return {n: getattr(self, n) for n in names if getattr(self, n) is not None}


OPTION_NAMES = frozenset(Options.model_fields)


_SAMPLE = Field(
    None,
    description="sample: draw distinct items at random by their probabilities, and state the propensity "
    "of each. The answer is another one each time.",
)


class EventIn(Model):
    """An event of a history, under the names of ``Interaction``."""

    item_id: Id | None = Field(None, description="Item of the event; leave out for a text.")
    behavior: Label = Field(description="What the user did, such as buy or view.")
    timestamp: Number | None = Field(
        None, description="Time in seconds since 1970; now if it is left out."
    )
    value: Number | None = Field(None, description="A number such as a rating or a quantity.")
    unit: Label | None = Field(None, description="Basket or session of the event.")
    text: Annotated[str, Field(min_length=1, max_length=2000)] | None = Field(
        None, description="A search query or a comment."
    )

    @model_validator(mode="after")
    def _has_content(self) -> EventIn:
        if self.item_id is None and self.text is None:
            raise ValueError("an event needs an item_id or a text")
        return self

    def interaction(self, now: float) -> Interaction:
        """Return the event as an ``Interaction``, which happened now if it has no time."""
        when = now if self.timestamp is None else self.timestamp
        return Interaction(self.item_id, self.behavior, when, self.value, self.unit, self.text)


class FeedbackEvent(EventIn):
    """An event to keep, of a user or of a session."""

    user_id: Id | None = Field(None, description="The user; or give a session_id.")
    session_id: Id | None = Field(None, description="An anonymous session; or give a user_id.")
    list_id: Label | None = Field(
        None, description="The list that showed the item, as its answer named it."
    )

    @model_validator(mode="after")
    def _has_one_owner(self) -> FeedbackEvent:
        if (self.user_id is None) == (self.session_id is None):
            raise ValueError("an event needs a user_id or a session_id, but not both")
        return self


class Feedback(Model):
    """Several events, which are all kept or all refused."""

    events: Annotated[list[FeedbackEvent], Field(min_length=1, max_length=MOST_EVENTS)]


class ForHistory(Model):
    """The history that a request is about: a user's, a session's, or one that is given."""

    user_id: Id | None = Field(None, description="A user; without events, a new user.")
    session_id: Id | None = Field(None, description="A session that was kept.")
    history: (
        Annotated[str, Field(max_length=MOST_TEXT)]
        | Annotated[list[EventIn], Field(max_length=MOST_EVENTS)]
        | Annotated[list[Text], Field(max_length=MOST_EVENTS)]
        | None
    ) = Field(
        None,
        description="Events, oldest first; ids or titles of items; or text such as bought: TITLE; "
        "viewed: TITLE. With a user_id or a session_id, the events are added to theirs for this "
        "request only.",
    )
    run: Name | None = Field(None, description="Name of the model; see GET /v1/models.")
    deadline_ms: Annotated[int, Field(ge=1, le=600_000)] | None = Field(
        None, description="Milliseconds after which the answer is no longer needed."
    )

    @model_validator(mode="after")
    def _has_one_subject(self) -> ForHistory:
        if self.user_id is not None and self.session_id is not None:
            raise ValueError("give a user_id or a session_id, but not both")
        owned = self.user_id is not None or self.session_id is not None
        if owned and self.typed is not None:
            raise ValueError("text cannot be added to a user_id or a session_id; give events")
        return self

    @property
    def typed(self) -> str | list[str] | None:
        """The history if it is text; None if it consists of events."""
        given = self.history
        if isinstance(given, str):
            return given
        texts = [one for one in given or () if isinstance(one, str)]
        return texts or None

    @property
    def events(self) -> list[EventIn]:
        """The events of the history, if it consists of events."""
        given = () if isinstance(self.history, str) else self.history or ()
        return [one for one in given if isinstance(one, EventIn)]


class Shown(Model):
    """A request for items that are to be shown."""

    attributes: bool = Field(
        False, description="Whether to give the attributes of each item, such as its price."
    )


class Recommend(ForHistory, Options, Shown):
    """A request for a list."""

    scenario: Name | None = Field(None, description="Named options; see GET /v1/scenarios.")
    shows: Annotated[list[Literal[SHOWS]], Field(min_length=1, max_length=3)] | None = Field(  # type: ignore[valid-type]
        None, description="Several lists at once, such as new and again; see recommend_rails."
    )
    search: Literal["sample"] | None = _SAMPLE
    fallback: bool = Field(
        True,
        description="Whether a list made by counting alone may be returned if the model does not "
        "answer in time. It is marked.",
    )
    counting: bool = Field(
        False,
        description="Whether counting alone makes the list, without the model, to compare the two.",
    )
    impression: bool = Field(True, description="Whether to record what the list showed.")


class RecommendBatch(Model):
    """Several requests, which are answered one by one."""

    requests: Annotated[list[Recommend], Field(min_length=1, max_length=MOST_REQUESTS)]


class Session(Recommend):
    """Events of an anonymous visitor. Nothing is kept unless ``keep`` is true."""

    keep: bool = Field(
        False, description="Whether to keep the events; the answer names the session."
    )


class Rank(ForHistory, Options):
    """A request for the exact scores of given items."""

    candidates: Annotated[list[Id], Field(max_length=MOST_CANDIDATES)] | None = Field(
        None, description="Items to rank; all items if it is left out."
    )
    strict: bool = Field(False, description="Whether an unknown candidate is an error.")
    scenario: Name | None = Field(None, description="Named options; see GET /v1/scenarios.")


class Explain(ForHistory, Options):
    """A request for the reasons why an item is or is not recommended."""

    item_id: Id = Field(description="Item to explain, by its id or its title.")
    scenario: Name | None = Field(None, description="Named options; see GET /v1/scenarios.")


class PromptFor(ForHistory, Circumstances):
    """A request for the text that the model reads."""


class Search(ForHistory, Options, Shown):
    """A request for items whose titles match words, in the order in which the user would want them."""

    query: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_printable)]
    understand: bool = Field(
        False,
        description="Whether to read the query as `POST /v1/recommend` does: its conditions become filters, and its "
        "words are compared with the titles by meaning.",
    )
    scenario: Name | None = Field(None, description="Named options; see GET /v1/scenarios.")

    def given(self) -> dict[str, Any]:
        """Return the options that the client gave. The query counts as one if it is to be understood."""
        found = super().given()
        return found if self.understand else {n: v for n, v in found.items() if n != "query"}

    @model_validator(mode="after")
    def _does_not_explain(self) -> Search:
        if self.explain:
            raise ValueError("explain does not apply to a search; use POST /v1/explain")
        return self


class Similar(Options, Shown):
    """A request for items that go with given items. Options that need a user do not apply."""

    items: Annotated[list[Id], Field(min_length=1, max_length=100)]
    by: Literal[SIMILAR_BY] = Field(  # type: ignore[valid-type]
        "both", description="What makes items similar: the same users, the titles, or both."
    )
    run: Name | None = Field(None, description="Name of the model; see GET /v1/models.")
    deadline_ms: Annotated[int, Field(ge=1, le=600_000)] | None = Field(
        None, description="Milliseconds after which the answer is no longer needed."
    )

    @model_validator(mode="after")
    def _options_apply(self) -> Similar:
        if wrong := sorted(self.given().keys() - set(SIMILAR_OPTIONS)):
            raise ValueError(f"{', '.join(wrong)} cannot be used for similar items")
        return self


Title = Annotated[str, Field(min_length=1, max_length=2000)]
Attributes = Annotated[dict[Column, Any], Field(max_length=200)]


class Labels(Model):
    """What a shop says about a user, such as a country or a tier."""

    labels: Attributes = Field(
        description="Values by name. In a change, a label that is null is removed."
    )


class NeighborsOf(Model):
    """A request for users whose items resemble those of a user."""

    user_id: Id
    k: Count = Field(10, description="The highest number of users.")
    items: bool = Field(
        False,
        description="Whether to name the items that both users have. This tells what others did, so "
        "it needs the scope admin.",
    )


class ItemIn(Model):
    """The title and the attributes of an item."""

    title: Title
    attributes: Attributes = Field(default_factory=dict, description="Values by column.")

    def item(self, item_id: str) -> Item:
        """Return the item with an id."""
        return Item(item_id, self.title, self.attributes)


class ItemWithId(ItemIn):
    """An item with its id."""

    item_id: Id


class ItemPatch(Model):
    """Changes to an item. An attribute that is null is removed; those not named stay."""

    title: Title | None = None
    attributes: Attributes | None = None

    def applied(self, old: Item) -> Item:
        """Return the changed item."""
        values = {**old.attributes, **(self.attributes or {})}
        kept = {
            n: v for n, v in values.items() if v is not None or n not in (self.attributes or {})
        }
        return Item(old.item_id, old.title if self.title is None else self.title, kept)


class ItemEdits(Model):
    """Items to add, replace and remove in one step."""

    put: Annotated[list[ItemWithId], Field(max_length=MOST_EDITS)] = Field(default_factory=list)
    remove: Annotated[list[Id], Field(max_length=MOST_EDITS)] = Field(default_factory=list)


class Blocks(Model):
    """What no answer may offer."""

    item_ids: Annotated[list[Id], Field(max_length=MOST_EDITS)] = Field(default_factory=list)
    conditions: Annotated[list[Condition], Field(max_length=100)] = Field(
        default_factory=list, description="Conditions as in the option where."
    )
    phrases: Annotated[list[Condition], Field(max_length=1000)] = Field(
        default_factory=list, description="Words in a row in a title, in any case and spelling."
    )


class ArmIn(Model):
    """One way of making lists in an experiment."""

    name: Name
    run: Name | None = Field(
        None, description="Name of the model; the default one at the start if it is left out."
    )
    weight: Annotated[float, Field(gt=0, le=1e6)] = Field(
        1.0, description="Share of the users, relative to the other arms."
    )
    scenario: Name | None = Field(
        None, description="Scenario whose options are used instead of those of the request's."
    )
    options: Options = Field(
        default_factory=Options, description="Options that replace those of the request."
    )
    model_role: Literal[EXPLAIN] | None = Field(  # type: ignore[valid-type]
        None, description="explain: counting alone ranks the items, as a baseline."
    )
    search: Literal["sample"] | None = _SAMPLE


class ExperimentIn(Model):
    """An experiment that gives each user one of several arms."""

    arms: Annotated[list[ArmIn], Field(min_length=2, max_length=MOST_ARMS)] = Field(
        description="The arms. The others are compared with the first one."
    )
    scenario: Name | None = Field(
        None,
        description="Only requests that name this scenario take part; if it is left out, those whose "
        "scenario has no experiment of its own.",
    )
    salt: Annotated[str, Field(max_length=200), AfterValidator(check_printable)] | None = Field(
        None,
        description="Text that is hashed with the id of a user; the name if it is left out. "
        "Experiments with the same salt and weights give a user the arm at the same place.",
    )
    behaviors: Annotated[list[Label], Field(min_length=1, max_length=20)] | None = Field(
        None, description="Feedback that counts; the target behavior if it is left out."
    )
    window_hours: Annotated[float, Field(gt=0, le=24 * 90)] = Field(
        24.0, description="Hours after a user's first list for which its lists and feedback count."
    )
    planned_users: Annotated[int, Field(ge=10, le=10**9)] = Field(
        2000, description="Users at which the intervals of the comparison are tightest."
    )

    @model_validator(mode="after")
    def _has_different_arms(self) -> ExperimentIn:
        if len({arm.name for arm in self.arms}) < len(self.arms):
            raise ValueError("the names of the arms must differ")
        return self


class DefaultModel(Model):
    """The model to use if a request names none."""

    name: Name


def merge(
    scenario: Mapping[str, Any], given: Mapping[str, Any], fixed: Mapping[str, Any]
) -> QueryOptions:
    """Build the options of a request from those of the operator, the scenario and the client.

    Raises:
        RequestError: an option is invalid.
    """
    return QueryOptions.of(**{**fixed, **scenario, **given})


def changed(options: QueryOptions) -> dict[str, Any]:
    """Return the options that differ from their defaults, without those that name something here and what was said."""
    usual = QueryOptions()
    values = {f.name: getattr(options, f.name) for f in fields(options)}
    return {n: v for n, v in values.items() if v != getattr(usual, n) and n not in _NOT_KEPT}
