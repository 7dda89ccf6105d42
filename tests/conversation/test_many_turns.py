"""Whatever is said, an answer names only items of the catalog. 10,000 turns with ``--full``, 500 with a real model."""

from __future__ import annotations

import os

import pytest
from support import tiny
from support.amount import FULL
from support.served import made_shop
from support.talk import conversations, outside

from genrec import Recommender
from genrec.data.datasets import load
from genrec.models.language_model import LanguageModel

TURNS = 10_000 if FULL else 60
REAL = int(os.environ.get("GENREC_CHAT_TURNS", "500" if FULL else "0"))


def talk(recommender: Recommender, turns: int, **options: object) -> int:
    """Say so many turns, check every answer, and return the number of lists."""
    lists = 0
    for said in conversations(recommender.catalog, turns):
        told: list[object] = []
        for text in said:
            told.append(text)
            answer = recommender.chat(told, k=4, **options)  # type: ignore[arg-type]
            assert outside(answer, recommender.catalog) == [], told
            assert answer.list is not None or answer.questions
            lists += answer.list is not None
            told.append(answer.turn)
    return lists


def test_no_answer_names_an_item_outside_the_catalog() -> None:
    recommender = Recommender(made_shop(), tiny.language_model(), encoder="ngrams")
    assert talk(recommender, TURNS, query_weights={"model": 0.3}) > TURNS / 3


@pytest.mark.model
@pytest.mark.skipif(not REAL, reason="only with --full, or with GENREC_CHAT_TURNS")
def test_no_answer_of_a_real_model_does() -> None:
    recommender = Recommender(load("online_retail_demo"), LanguageModel.load(threads=1))
    lists = talk(recommender, REAL, query_weights={"model": 0.3}, explain=False)
    assert lists > REAL / 3
