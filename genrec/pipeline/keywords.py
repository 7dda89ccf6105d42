"""Find the keywords of a catalog's items once, and apply the profile of a request."""

from __future__ import annotations

import math

import numpy as np

from genrec.config import QueryOptions, Settings
from genrec.data.dataset import Dataset
from genrec.data.events import History, count_splits
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.prompts.profile import ProfileWords, stop_words
from genrec.taste.edits import FACTOR, ProfileEdits
from genrec.taste.interests import find_interests
from genrec.taste.keywords import KeywordIndex
from genrec.types import FloatArray


def keyword_index(index: CatalogIndex, settings: Settings, dataset: Dataset | None) -> KeywordIndex:
    """Return the keywords of the catalog's items, which are kept until the catalog is edited."""

    def make() -> KeywordIndex:
        events = None
        if dataset is not None:
            c = dataset.interactions.columns
            counted = (c.split < count_splits(settings.prior_before)) & (c.row >= 0)
            events = np.bincount(c.row[counted], minlength=len(index.catalog))
        return KeywordIndex(index.catalog, events, empty=stop_words())

    return index.made("keywords", make)


def edits_of(options: QueryOptions) -> ProfileEdits:
    """Return the corrections of the profile that a request gives.

    Raises:
        RequestError: they are not valid.
        DataError: their file cannot be read.
    """
    given = options.profile_edits
    if given is None:
        return ProfileEdits()
    return ProfileEdits.read(given) if isinstance(given, str) else ProfileEdits.of(given)


def write_section(
    history: History, keywords: KeywordIndex, settings: Settings, edits: ProfileEdits
) -> str:
    """Write the line that a prompt shows instead of the events of a history, in its language."""
    found = find_interests(keywords, history.interactions, most=12, without=edits.unnamed)
    named = [*edits.added, *(i.keyword for i in found)]
    return ProfileWords.load(settings.language, settings.prompts).section(named)


def added_boosts(edits: ProfileEdits, keywords: KeywordIndex) -> FloatArray:
    """Return (N,) the logarithm of each item's factor by the keywords that the user added."""
    logs = np.zeros(len(keywords.catalog))
    for keyword in edits.added:
        logs[keywords.rows(keyword)] += math.log(FACTOR)
    return logs
