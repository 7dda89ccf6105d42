"""Check a request against a dataset before a model is loaded, since loading takes much longer.

A request that passes these checks may still fail later for reasons that depend on the model, such
as a prompt that is too long. This module imports no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from genrec.config import QueryOptions, Settings
from genrec.data.dataset import Dataset
from genrec.errors import ModelError, PromptError, SettingsError
from genrec.explain.styles import load_explain_template
from genrec.pipeline.catalog_index import CatalogIndex
from genrec.pipeline.request import HistoryLike, PromptLimits, RequestBuilder
from genrec.pipeline.resolve import behavior_of, template_of
from genrec.priors.fusion import choose_prior


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for, apart from the history.

    Attributes:
        options: the options of the request.
        candidates: the ids of the items to rank, or None.
        strict: True if every candidate must be in the catalog; False if a single known candidate is
            enough.
        item: the id or title of the item to explain, or None.
        keep_own: True if all of the user's own items are kept.
        asking: True if the model is asked a yes-or-no question about each candidate.
    """

    options: QueryOptions = field(default_factory=QueryOptions)
    candidates: Sequence[str] | None = None
    strict: bool = False
    item: str | None = None
    keep_own: bool = False
    asking: bool = False


def check_request(
    dataset: Dataset, settings: Settings, history: HistoryLike, wanted: Wanted
) -> None:
    """Check a request for all errors that can be detected without a model.

    Args:
        dataset: the dataset.
        settings: the recommender's settings.
        history: the history; typed text is not parsed.
        wanted: what the request asks for.

    Raises:
        SettingsError: a setting does not suit the dataset.
        PromptError: there is no such template, or the request needs a yes-or-no question but the
            template in the settings does not ask one.
        RequestError: an item is not in the catalog, a condition is invalid, or no item may be
            returned.
    """
    dataset = dataset.with_context(settings.context_names).with_knowledge(settings.knowledge_names)
    template = template_of(settings, dataset)
    if wanted.asking and settings.template is not None and template.answers is None:
        msg = (
            f"template={settings.template!r} does not ask a yes-or-no question: its header has no "
            "answers. Expected a template such as would_like, which is used if --template is left out."
        )
        raise PromptError(msg)
    behavior = behavior_of(settings, dataset, template)
    choose_prior(settings, dataset, behavior)
    if settings.tuned is not None and not Path(settings.tuned).is_file():
        msg = f"tuned={settings.tuned!r} does not exist. Expected a file written by `genrec tune --out`."
        raise SettingsError(msg)
    index = CatalogIndex(dataset.catalog, _no_model)
    options = wanted.options
    if wanted.candidates is not None:
        known, _ = index.divide(wanted.candidates, "candidates", strict=wanted.strict)
        options = replace(options, allow=known)
    for column in options.caps:
        index.column(column)
    if wanted.item is not None:
        index.row(wanted.item)
    if wanted.item is not None or options.explain:
        load_explain_template(options.style, settings.language, settings.prompts)
    limits = PromptLimits(lambda: 0, settings.max_events)
    builder = RequestBuilder(settings, dataset, index, template, behavior, _no_model, limits)
    builder.check(history, options, keep_own=wanted.keep_own)


def _no_model() -> NoReturn:
    msg = "No model is loaded yet, so there are no token ids."
    raise ModelError(msg)
