"""Run folders of other versions load, or say what to do."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from genrec.errors import ModelError
from genrec.runs import Run

RUN = Run(
    base_model="small",
    base_fingerprint="1",
    base_kept="2",
    base_revision=None,
    template="next_item",
    template_hash="3",
    encoder_hash="4",
    catalog_hash="5",
    data="shop",
    data_fingerprint="6",
    settings={},
    training={},
    versions={},
    targets=7,
    finished=True,
)


def test_fields_of_other_versions_are_ignored_or_get_their_defaults(tmp_path: Path) -> None:
    RUN.write(tmp_path)
    assert Run.read(tmp_path) == RUN
    values = asdict(RUN)
    del values["metrics"]
    (tmp_path / "run.json").write_text(json.dumps({**values, "of_a_later_version": 1}))
    assert Run.read(tmp_path) == RUN
    del values["encoder_hash"], values["targets"]
    (tmp_path / "run.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"lacks the fields encoder_hash, targets\. Train again"):
        Run.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format_version": 2}', "format_version 2. Expected 1. Train again"),
        ("{}", "format_version None. Expected 1. Train again"),
        ("[]", "is damaged"),
        ("{", "is damaged"),
    ],
)
def test_a_run_of_another_format_says_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        Run.read(tmp_path)
    assert message in str(caught.value)


def test_everything_that_differs_from_training_is_named() -> None:
    RUN.check(template="3", encoder="4", base="1", kept="2")
    with pytest.raises(ModelError) as caught:
        RUN.check(template="0", encoder="4", base="0", kept="0")
    assert "a different prompt template 'next_item' and a different base model 'small', so" in str(
        caught.value
    )


def test_what_a_prior_counts_is_not_taken_from_a_run() -> None:
    run = replace(RUN, settings={"prior_events": "train", "few_shot": 2})
    assert run.serving_settings({}) == {"few_shot": 2}
    given = {"prior_events": "train+validation", "few_shot": 1}
    assert run.serving_settings(given) == given
