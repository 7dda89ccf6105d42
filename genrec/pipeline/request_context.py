"""Add the context of the next event to a history: what a request says, and what its time says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from genrec.config import QueryOptions, Settings
from genrec.conversation.query import shown_query
from genrec.data.context import DERIVED, check_context, check_note, context_of
from genrec.data.dataset import Dataset
from genrec.data.events import History, Interaction
from genrec.data.redaction import Redactor
from genrec.pipeline.rules import request_time


def redactor_for(settings: Settings, dataset: Dataset | None) -> Redactor | None:
    """Return what replaces personal data in the texts of requests; None to leave them as they are."""
    redact = settings.redact
    if redact is None:
        redact = dataset is None or dataset.info.redact
    return Redactor() if redact else None


class RequestContext:
    """Knows the columns of the context, and adds their values to histories.

    Attributes:
        columns: the declared columns of the context.
    """

    def __init__(
        self, settings: Settings, dataset: Dataset | None, redactor: Redactor | None = None
    ) -> None:
        """Find the columns of the context.

        Args:
            settings: the settings of the recommender.
            dataset: the dataset; None if there is only a catalog. Then the settings declare columns.
            redactor: replaces personal data in notes and queries; None to leave them as they are.
        """
        self._redactor = redactor
        attributes = None if dataset is None else dataset.interactions.attributes
        names = () if attributes is None else attributes.column_names
        self.columns = tuple(
            settings.context_names or () if dataset is None else dataset.info.context
        )
        self._own = frozenset(DERIVED) & frozenset(names)

    def add(self, history: History, options: QueryOptions) -> History:
        """Return a history in the context of a request.

        Declared columns that are derived from the time get the values of the time of the request,
        unless the history or the options have others. Options take precedence. Without declared
        columns and options, the history is returned as it is.

        Args:
            history: the history.
            options: the options of the request.

        Raises:
            RequestError: a column or a value is not valid; see ``check_context``.
        """
        given = check_context(options.context, self.columns, self._own)
        note = history.note
        if options.note is not None:
            note = self._redacted(check_note(options.note))
        query = history.query
        if options.query is not None:
            query = self._redacted(shown_query(options.query))
        derived: dict[str, str] = {}
        if self.columns:
            history = history.with_events([self._with_context(e) for e in history.interactions])
            names = [name for name in self.columns if name not in self._own]
            derived = context_of({}, request_time(options), names)
        found = {**derived, **history.context, **given}
        if found == history.context and (note, query) == (history.note, history.query):
            return history
        return replace(history, context=self._in_order(found), note=note, query=query)

    def _redacted(self, text: str) -> str:
        return text if self._redactor is None else self._redactor.redact(text)

    def _with_context(self, event: Interaction) -> Interaction:
        """Return an event with its context, which only the events of the dataset have already."""
        if event.context:
            return event
        return replace(event, context=context_of(event.attributes, event.timestamp, self.columns))

    def _in_order(self, context: dict[str, str]) -> dict[str, str]:
        """Sort a context as events are: the declared columns first, in their order."""
        order: Sequence[str] = [*self.columns, *context]
        return {name: context[name] for name in dict.fromkeys(order) if name in context}
