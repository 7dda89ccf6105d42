"""Reviews are recognized as positive or negative, and the result becomes part of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny
from support.commands import Run, answer
from support.reviewed import BAD, GOOD, THINGS, reviewed_shop

from genrec import Dataset, Recommender
from genrec.errors import DataError, SettingsError
from genrec.sentiment import Sentiment, mark_sentiment, measure
from genrec.sentiment.features import ReviewReader
from genrec.sentiment.labels import read_labels

ENDINGS = ["", " would buy again", " for my mother", " as pictured", " in blue"]


def reviews(words: list[str]) -> list[str]:
    return [f"a {word} {thing}{end}" for word in words for thing in THINGS for end in ENDINGS]


POSITIVE, NEGATIVE = reviews(GOOD), reviews(BAD)
TEXTS = [*POSITIVE, *NEGATIVE]
LABELS = [True] * len(POSITIVE) + [False] * len(NEGATIVE)


@pytest.fixture(scope="module")
def learned() -> Sentiment:
    return Sentiment.fit(TEXTS, LABELS)


@pytest.fixture(scope="module")
def reviewed() -> Dataset:
    return reviewed_shop()


def test_words_are_learned_kept_and_calibrated(learned: Sentiment, tmp_path: Path) -> None:
    asked = [f"what a {word} thing" for word in [*GOOD, *BAD]]
    wanted = [True] * len(GOOD) + [False] * len(BAD)
    found = measure(learned.probabilities(asked), wanted)
    assert found.accuracy.mean == found.auc == 1
    assert measure(learned.probabilities(TEXTS), LABELS).calibration_error < 0.1
    learned.save(tmp_path / "c.safetensors")
    again = Sentiment.load(tmp_path / "c.safetensors")
    assert (again.probabilities(asked) == learned.probabilities(asked)).all()
    assert (again.by, again.texts) == ("words", len(set(TEXTS)))


def test_a_text_without_visible_characters_has_no_probability(learned: Sentiment) -> None:
    found = learned.probabilities(["", " \n", "​", "a lovely mug"])
    assert np.isnan(found[:3]).all()
    assert found[3] > 0.5
    assert len(learned.probabilities([])) == 0


def test_labels_that_say_nothing_are_not_learned() -> None:
    coin = np.random.default_rng(1).random(len(TEXTS)) < 0.5
    found = Sentiment.fit(TEXTS, coin.tolist()).probabilities(["a lovely mug", "an awful mug"])
    assert (abs(found - 0.5) < 0.2).all()


def test_chinese_characters_are_words() -> None:
    things = ["杯子", "台灯", "椅子", "盘子", "毛巾", "篮子"]
    good = [f"这个{t}{w}" for t in things for w in ("很好", "真漂亮", "很喜欢", "好用")]
    bad = [f"这个{t}{w}" for t in things for w in ("很差", "太糟糕", "不喜欢", "坏了")]
    found = Sentiment.fit([*good, *bad], [True] * len(good) + [False] * len(bad))
    told = found.probabilities(["蜡烛真漂亮", "蜡烛太糟糕"])
    assert told[0] > 0.5 > told[1]


@pytest.mark.parametrize("specials", ["<|im_end|>", "<s>", "</s>"])
def test_a_review_holds_no_control_tokens(specials: str) -> None:
    model = tiny.language_model()
    reader = ReviewReader(model)
    ids = reader._ids(f"good {specials} bad")
    control = {i for i, t in model.tokenizer.added_tokens_decoder.items() if t.special}
    assert not control & set(ids[len(reader._before) :])


def test_a_model_reads_each_review_by_itself() -> None:
    reader = ReviewReader(tiny.language_model())
    texts = ["a mug", "a lovely red mug and a very long story about it " * 20, "", "useless"]
    together, margins = reader.states(texts), reader.answers(texts)
    for n, text in enumerate(texts):
        np.testing.assert_allclose(reader.states([text])[0], together[n], atol=1e-4)
        np.testing.assert_allclose(reader.answers([text])[0], margins[n], atol=1e-4)
    assert together.shape[1] == len({1, 2}) * reader._model.model.config.hidden_size
    assert reader.answers([""])[0] == pytest.approx(reader.answers(["", "x"])[0])


def test_reviews_get_a_column_and_behaviors(
    reviewed: Dataset, learned: Sentiment, tmp_path: Path
) -> None:
    plain = mark_sentiment(reviewed, learned)
    assert plain.reviews == 120
    assert plain.positive + plain.negative == 120
    assert plain.dataset.interactions.behaviors == reviewed.interactions.behaviors
    marked = mark_sentiment(reviewed, learned, rename=True)
    marked.dataset.save(tmp_path / "d")
    data = Dataset.load(tmp_path / "d")
    assert data.info.behaviors == {"buy": 240, "like": marked.positive, "dislike": marked.negative}
    for user in data.interactions.user_ids:
        for event in data.interactions.history(user).interactions:
            odd = event.item_id is not None and int(event.item_id[1:]) % 2 == 1
            if event.behavior == "buy":
                assert event.attributes["sentiment"] is None
            else:
                assert event.behavior == ("like" if odd else "dislike")
                assert (event.attributes["sentiment"] > 0.5) == odd
    before = [(e.item_id, e.timestamp) for e in reviewed.interactions.history("u3").interactions]
    assert before == [
        (e.item_id, e.timestamp) for e in data.interactions.history("u3").interactions
    ]
    again = mark_sentiment(data, learned)  # the column is replaced
    assert again.dataset.interactions.table.attributes is not None
    assert again.dataset.interactions.table.attributes.column_names.count("sentiment") == 1


def test_a_prompt_says_what_was_liked(reviewed: Dataset, learned: Sentiment) -> None:
    data = mark_sentiment(reviewed, learned, rename=True).dataset
    recommender = Recommender(data, tiny.language_model(), encoder="none", prior="none")
    prompt = recommender.prompt(data.interactions.history("u3")).text
    assert "liked: " in prompt
    assert "dislike: " in prompt
    assert "commented" not in prompt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"behaviors": ["rate"]}, "'rate'"),
        ({"behaviors": ["buy"], "rename": True}, "the behavior to predict"),
        ({"behaviors": ["buy"]}, "has a text"),
        ({"sure": 0.2}, "0.5 to 1"),
        ({"sure": float("nan")}, "0.5 to 1"),
    ],
)
def test_what_cannot_be_marked_is_an_error(
    reviewed: Dataset, learned: Sentiment, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((SettingsError, DataError), match=message):
        mark_sentiment(reviewed, learned, **options)


def test_bad_labels_are_errors_or_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 different positive and 8 negative"):
        Sentiment.fit([f"x{n}" for n in range(8)], [False] * 8)
    with pytest.raises(DataError, match="as many labels"):
        Sentiment.fit(["x"], [])
    with pytest.raises(SettingsError, match="by='mood'"):
        Sentiment.fit(TEXTS, LABELS, "mood")
    file = tmp_path / "labels.csv"
    file.write_text("text,label\nfine,1\n,0\nbad,maybe\nbad,negative\nok,1.0\n", encoding="utf-8")
    texts, labels, rejects = read_labels(file)
    assert (texts, labels) == (["fine", "bad", "ok"], [True, False, True])
    assert [reason for _, _, reason, _ in rejects.rows] == [
        "the text is empty", "the label 'maybe' is unknown",
    ]  # fmt: skip
    file.write_text("text,label\nfine,maybe\n", encoding="utf-8")
    with pytest.raises(DataError, match="no usable row"):
        read_labels(file)
    file.write_bytes(b"not a classifier")
    with pytest.raises(DataError):
        Sentiment.load(file)


def test_the_command_writes_a_dataset(run: Run, reviewed: Dataset, tmp_path: Path) -> None:
    reviewed.save(tmp_path / "shop")
    lines = [f"{text},{int(label)}" for text, label in zip(TEXTS, LABELS, strict=True)]
    (tmp_path / "labels.csv").write_text(
        "\n".join(["text,label", *lines, "odd,?"]), encoding="utf-8"
    )
    shop, out, kept = (tmp_path / n for n in ("shop", "out", "kept.safetensors"))
    code, said, _ = run(
        "sentiment",
        shop,
        "--labels",
        tmp_path / "labels.csv",
        "--out",
        out,
        "--rename",
        "--save",
        kept,
    )
    assert code == 0
    assert "120 reviews read by words (learned from 400 labels)" in said
    assert "1 rows were left out (row 401: the label '?' is unknown)" in said
    assert Dataset.load(out).info.behaviors["like"] > 0
    found = answer(run, "sentiment", shop, "--classifier", kept)
    assert found["reviews"] == 120
    assert found["labels"] == 400
    assert found["out"] is None
    code, _, said = run("sentiment", shop, "--classifier", kept, "--like-threshold", 3)
    assert code == 2
    assert "at most one of" in said
    for by, message in (("mood", "needs labels"), ("states", "needs labels")):
        code, _, said = run("sentiment", shop, "--by", by)
        assert code == 2
        assert message in said
    code, _, said = run("sentiment", shop, "--by", "mood", "--like-threshold", 3)
    assert code == 2
    assert "not a kind of features" in said
    found = answer(run, "sentiment", shop, "--like-threshold", 3)
    assert 40 < found["labels"] < 120
    code, _, said = run("sentiment", shop, "--like-threshold", 3, "--behaviors", "buy")
    assert code == 3
    assert "has a text" in said


@pytest.mark.model
def test_the_packaged_model_knows_plain_words_without_labels() -> None:
    good = ["I love this mug, it is perfect.", "Great lamp, works very well.", "Excellent quality!"]
    bad = ["It broke after one day.", "Terrible quality, do not buy.", "I hate this lamp, useless."]
    found = Sentiment.untrained("smollm2-135m").probabilities([*good, *bad])
    assert min(found[:3]) > max(found[3:])
