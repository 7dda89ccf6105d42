"""Define a profile: what a history says about a user's taste, with the events that say so."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from genrec.data.catalog import Catalog
from genrec.data.events import History
from genrec.taste.edits import ProfileEdits
from genrec.taste.interests import Interest, Shift
from genrec.taste.opinions import Opinions

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Topic:
    """A keyword or a category that the next item may have.

    Attributes:
        name: the keyword, or the value of the category.
        column: the column of the catalog; None for a keyword.
        probability: the probability that the next item has it, by the prior.
        usual: the same for a user without any events.
    """

    name: str
    column: str | None
    probability: float
    usual: float


@dataclass(frozen=True, slots=True)
class Intent:
    """What the user is likely to do next.

    Attributes:
        behaviors: the behaviors with their probabilities, most likely first.
        topics: the keywords of the profile and the categories of the catalog that the next item may
            have, most likely first; empty without a prior. Their probabilities do not sum to 1, since
            an item may have several.
    """

    behaviors: tuple[tuple[str, float], ...] = ()
    topics: tuple[Topic, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """What a history says about a user's taste.

    Attributes:
        history: the events that were read, oldest first, without those that hold a banned keyword.
        interests: the keywords for which the events speak, strongest first, and those that the user
            added.
        shifts: the keywords that are more or less frequent in the recent half of the events.
        intent: what the user is likely to do next.
        opinions: the opinions that events express.
        edits: the user's corrections.
        measured: what the nats of the interests were measured with: ``prior``, ``model``, ``model and
            prior``, or None if they were not measured.
        section: the line that a prompt shows instead of events that are too old; empty if the prompt
            shows all events or the template has no place for it.
        text: the profile as a paragraph, by language.
        notes: remarks for the user.
    """

    history: History
    interests: tuple[Interest, ...] = ()
    shifts: tuple[Shift, ...] = ()
    intent: Intent = field(default_factory=Intent)
    opinions: Opinions = field(default_factory=Opinions)
    edits: ProfileEdits = field(default_factory=ProfileEdits)
    measured: str | None = None
    section: str = ""
    text: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self, catalog: Catalog) -> dict[str, Any]:
        """Return the profile as a dictionary that can be written as JSON.

        Args:
            catalog: the items, whose titles are named.
        """
        interests = [
            {**asdict(one), "events": [self._event(n, catalog) for n in one.events]}
            for one in self.interests
        ]
        shifts = [{**asdict(one), "rises": one.rises} for one in self.shifts]
        said = self.opinions
        opinions = {
            "read": said.read,
            "mean": said.mean,
            "positive": [self._event(n, catalog) for n in said.positive],
            "negative": [self._event(n, catalog) for n in said.negative],
        }
        following = {
            "behaviors": [{"behavior": b, "probability": p} for b, p in self.intent.behaviors],
            "topics": [asdict(topic) for topic in self.intent.topics],
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "user_id": self.history.user_id,
            "events": len(self.history),
            "interests": interests,
            "measured": self.measured,
            "shifts": shifts,
            "next": following,
            "opinions": opinions,
            "edits": self.edits.to_dict(),
            "text": dict(self.text),
            "section": self.section,
            "notes": list(self.notes),
        }

    def _event(self, place: int, catalog: Catalog) -> dict[str, Any]:
        event = self.history.interactions[place]
        known = event.item_id is not None and event.item_id in catalog
        title = catalog[catalog.row(str(event.item_id))].title if known else event.text
        named = {"item_id": event.item_id, "title": title, "behavior": event.behavior}
        return {"event": place, **named}
