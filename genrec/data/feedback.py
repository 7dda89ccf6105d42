"""Turn the feedback that a service received into new events of a dataset, for continued training."""

from __future__ import annotations

import math
from dataclasses import replace

import pyarrow as pa

from genrec.data.dataset import Dataset
from genrec.data.deletions import Deletions
from genrec.data.exports import Export, KeptEvent
from genrec.data.ingest import EventOptions, ingest
from genrec.data.interactions import Interactions
from genrec.data.refusals import REFUSALS
from genrec.data.updates import apply_updates
from genrec.errors import DataError
from genrec.types import BoolArray

WEIGHT = "genrec_weight"  # the column of an event's weight as a target of training
_FIELDS = ("item_id", "behavior", "timestamp", "value", "unit", "text")


def add_feedback(
    data: Dataset, export: Export, *, weights: str = "none"
) -> tuple[Dataset, BoolArray]:
    """Return a dataset with the events and the items of a service; all new events belong to train.

    Sessions count as users of their own. Refusals and deleted events are left out.

    Users see few of the lower places of a list, so what they took from there was harder to find. With
    ``weights="position"``, an event about an item at rank r of a shown list weighs log2(r + 1) as a target of
    training: the inverse of 1 / log2(r + 1), the discount of NDCG, which is taken as the probability that
    a user looks at rank r (Joachims, Swaminathan and Schnabel 2017, Unbiased learning-to-rank with
    biased feedback, https://arxiv.org/abs/1608.04468). This is an assumption, not an estimate for this shop.
    Events that name no list weigh 1.

    Args:
        data: the dataset that the service was started with.
        export: what the service kept.
        weights: one of ``config.FEEDBACK_WEIGHTS``.

    Returns:
        The dataset, and an (E,) mask of its new events.

    Raises:
        DataError: the export has no usable events.
    """
    refusals = set(REFUSALS) - set(data.interactions.behaviors)
    events = [e for e in export.events if e.interaction.behavior not in refusals]
    if not events:
        msg = "The export has no events. Expected feedback; send some to the service first."
        raise DataError(msg)
    data = _without(data, export.deleted)
    columns: dict[str, list[object]] = {
        "user_id": [_owner(e) for e in events],
        **{name: [getattr(e.interaction, name) for e in events] for name in _FIELDS},
    }
    kept = {name: values for name, values in columns.items() if any(v is not None for v in values)}
    if weights == "position":
        ranks = {
            (one.list_id, item): rank
            for one in export.lists
            for rank, item in enumerate(one.item_ids, start=1)
        }
        found = [ranks.get((str(e.list_id), str(e.interaction.item_id)), 1) for e in events]
        kept[WEIGHT] = [math.log2(rank + 1) for rank in found]
    unit = "position" if data.info.time_unit == "position" else "s"
    return apply_updates(data, pa.table(kept), export.items, options=EventOptions(time_unit=unit))


def _without(data: Dataset, deleted: Deletions) -> Dataset:
    """Return a dataset without the events that were deleted."""
    old = data.interactions
    kept = ~deleted.mask(old)
    if kept.all():
        return data
    options = EventOptions(time_unit="position", unit="none" if old.unit_ids is None else "unit")
    events = ingest(old.to_table().filter(pa.array(kept)), data.catalog, options).events
    kept_events = Interactions(data.catalog, events)
    return replace(data, interactions=kept_events).with_context(data.info.context)


def _owner(event: KeptEvent) -> str:
    return f"session {event.owner}" if event.is_session else event.owner
