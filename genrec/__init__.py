"""Recommend catalog items with a language model that reads the user's history as a prompt.

The model writes the title of the next item, and decoding allows only titles from the catalog.
Public names such as ``genrec.Recommender`` are imported when they are first used.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from genrec.version import __version__

if TYPE_CHECKING:
    from genrec.config import Settings as Settings
    from genrec.data import datasets as datasets
    from genrec.data.catalog import Catalog as Catalog
    from genrec.data.catalog import Item as Item
    from genrec.data.dataset import Dataset as Dataset
    from genrec.data.events import History as History
    from genrec.data.events import Interaction as Interaction
    from genrec.data.interactions import Interactions as Interactions
    from genrec.errors import GenrecError as GenrecError
    from genrec.evaluation.evaluator import compare as compare
    from genrec.evaluation.evaluator import evaluate as evaluate
    from genrec.fitting.recipe import fit as fit
    from genrec.models.language_model import LanguageModel as LanguageModel
    from genrec.pipeline.similar import SimilarItems as SimilarItems
    from genrec.pipeline.types import Recommendation as Recommendation
    from genrec.pipeline.types import RecommendationList as RecommendationList
    from genrec.recommender import Recommender as Recommender
    from genrec.service.client import Client as Client


_HOME = {
    "Catalog": "data.catalog",
    "Client": "service.client",
    "Dataset": "data.dataset",
    "GenrecError": "errors",
    "History": "data.interactions",
    "Interaction": "data.interactions",
    "Interactions": "data.interactions",
    "Item": "data.catalog",
    "LanguageModel": "models.language_model",
    "Recommendation": "pipeline.types",
    "RecommendationList": "pipeline.types",
    "Recommender": "recommender",
    "Settings": "config",
    "SimilarItems": "pipeline.similar",
    "compare": "evaluation.evaluator",
    "evaluate": "evaluation.evaluator",
    "fit": "fitting.recipe",
}
_MODULES = {"baselines": "baselines", "datasets": "data.datasets", "training": "training"}

# On a CPU with bf16 instructions, bitsandbytes logs a hint to install an optional package whenever
# peft or the Trainer is imported, even if no model is quantized. This filter hides the hint.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "install kernels" not in str(record.msg)
)

__all__ = [
    "Catalog",
    "Client",
    "Dataset",
    "GenrecError",
    "History",
    "Interaction",
    "Interactions",
    "Item",
    "LanguageModel",
    "Recommendation",
    "RecommendationList",
    "Recommender",
    "Settings",
    "SimilarItems",
    "__version__",
    "compare",
    "datasets",
    "evaluate",
    "fit",
]


def __getattr__(name: str) -> Any:
    """Import a public name or module of genrec when it is first used."""
    if name in _HOME:
        return getattr(importlib.import_module(f"genrec.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"genrec.{_MODULES[name]}")
    msg = f"module 'genrec' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
