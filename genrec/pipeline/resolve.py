"""Determine the template, the behavior and the form of titles from the settings and the dataset."""

from __future__ import annotations

from genrec.config import Settings
from genrec.data.catalog import Catalog
from genrec.data.dataset import Dataset
from genrec.data.knowledge import Knowledge, check_names
from genrec.data.titles import TitleForm
from genrec.errors import SettingsError
from genrec.prompts.template import Template


def template_of(
    settings: Settings, dataset: Dataset | None, catalog: Catalog | None = None
) -> Template:
    """Load the prompt template that the settings name, with the attributes that it is to show.

    Args:
        settings: the settings.
        dataset: the dataset; None if there is only a catalog.
        catalog: the catalog; None for that of the dataset.

    Raises:
        SettingsError: an attribute is unknown; the template is for explanations; or the settings ask for demonstrations, but
            the template does not show any, or there is no dataset to take them from.
        PromptError: no template has that name, or the template is invalid.
    """
    shots = settings.few_shot
    columns = settings.context_names
    if columns is None:
        columns = () if dataset is None else tuple(dataset.info.context)
    usual = "next_item_context" if columns else "next_item"
    name = settings.template or ("few_shot" if shots else usual)
    template = Template.load(name, settings.language, own=settings.prompts)
    if "opening" in template.header:
        msg = (
            f"template={name!r} is for explanations. Expected a template for the next item. To get "
            "explanations, use recommend(..., explain=True) or --explain."
        )
        raise SettingsError(msg)
    if shots and not template.takes_demonstrations:
        msg = (
            f"few_shot={shots} cannot be used with template {name!r}, which shows no demonstrations. "
            "Expected a template that shows them, such as few_shot, or few_shot=0."
        )
        raise SettingsError(msg)
    if shots and dataset is None:
        msg = (
            f"few_shot={shots} needs a dataset, since demonstrations are other users' histories. "
            "Expected a Dataset instead of a catalog, or few_shot=0."
        )
        raise SettingsError(msg)
    return template.with_attributes(attributes_of(settings, dataset, catalog))


def attributes_of(
    settings: Settings, dataset: Dataset | None, catalog: Catalog | None = None
) -> Knowledge:
    """Return the attributes of items that prompts show; see ``template_of`` for the arguments."""
    triples = None if dataset is None else dataset.triples
    items = catalog if dataset is None else dataset.catalog
    names = settings.attribute_names
    if names and items is not None:
        names = tuple(check_names(names, items, triples))
    return Knowledge(names, triples)


def behavior_of(settings: Settings, dataset: Dataset | None, template: Template) -> str:
    """Return the target behavior.

    It is taken from the settings or, if it is not set there, from the dataset. If there is no
    dataset either, it is ``buy``.

    Raises:
        SettingsError: the behavior in the settings occurs neither in the dataset nor in the
            template.
    """
    asked = settings.target_behavior
    if dataset is None:
        return asked or "buy"
    known = dataset.interactions.behaviors
    if asked is not None and asked not in known and asked not in template.verbs:
        msg = f"target_behavior={asked!r} is not known. Expected one of: {', '.join(known)}."
        raise SettingsError(msg)
    return asked or dataset.info.target_behavior


def form_of(
    settings: Settings, dataset: Dataset | None, catalog: Catalog, template: Template
) -> TitleForm:
    """Return the form in which prompts show titles.

    The letter case is taken from the settings or, if it is not set there, from the dataset. If
    there is no dataset either, it is chosen to suit the titles in the catalog.
    """
    case = settings.case
    if case is None and dataset is not None:
        case = dataset.info.case
    return template.form(case or TitleForm.of(catalog).case, settings.max_title_tokens)
