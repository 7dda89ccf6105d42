"""The light tokenizer gives the ids and texts of transformers, or leaves the folder to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import KINDS, tokenizer
from transformers import AutoTokenizer

from genrec.data.titles import TitleForm
from genrec.models.light_tokenizer import LightTokenizer, load_tokenizer
from genrec.models.packaged import PACKAGED
from genrec.prompts.encoder import Encoder

TEXTS = [
    "", " ", "a", "RED RETROSPOT MUG", "  two  spaces ", "line\nbreak\ttab\r", "红色杯子 ☕",
    "<|im_start|>user", "<|endoftext|>", "a<s>b</s>", "<unk>", "<tool_call>{}</tool_call>",
    "set of 12 t-lights, 50's", "é\u0301", "\ud7ff\U0001f600", "\x00\x1f\x7f",
]  # fmt: skip


def check(ours: LightTokenizer, theirs: Any, texts: list[str]) -> None:
    for special in (True, False):
        for split in (True, False):
            options = {"add_special_tokens": special, "split_special_tokens": split}
            batch = ours(texts, **options)["input_ids"]
            assert batch == (theirs(texts, **options)["input_ids"] if texts else [])
            for text, ids in zip(texts, batch, strict=True):
                assert ours(text, **options)["input_ids"] == ids
                for skip in (True, False):
                    decoded = theirs.decode(ids, skip_special_tokens=skip)
                    assert ours.decode(ids, skip_special_tokens=skip) == decoded


@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_texts_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    tokenizer(kind).save_pretrained(tmp_path)
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert ours is not None
    check(ours, theirs, TEXTS)
    assert len(ours) == len(theirs)
    assert ours.get_vocab() == theirs.get_vocab()
    assert {i: t.content for i, t in ours.added_tokens_decoder.items()} == {
        i: t.content for i, t in theirs.added_tokens_decoder.items()
    }
    for name in ("bos", "eos", "pad", "unk"):
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    form = TitleForm("lower")
    assert Encoder(ours, form).hash == Encoder(theirs, form).hash


@pytest.mark.model
def test_the_default_model_has_the_same_ids(tmp_path: Path) -> None:
    folder = PACKAGED["smollm2-135m"].path
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert ours is not None

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
    def same(texts: list[str]) -> None:
        check(ours, theirs, texts)

    same()
    check(ours, theirs, TEXTS)
    messages = [{"role": "user", "content": "hello"}]
    expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.chat_template == theirs.chat_template
    assert (
        ours.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == expected
    )


def test_what_is_missing_comes_from_transformers(tmp_path: Path) -> None:
    tokenizer("llama").save_pretrained(tmp_path / "one")
    ours = load_tokenizer(tmp_path / "one")
    assert ours is not None
    ours.save_pretrained(tmp_path / "two")
    check(ours, AutoTokenizer.from_pretrained(tmp_path / "two"), TEXTS)
    with pytest.raises(AttributeError):
        ours.no_such_thing  # noqa: B018


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer_class": "LlamaTokenizer"},
        {"tokenizer_class": None},
        {"add_bos_token": True},
        {"clean_up_tokenization_spaces": True},
        {"added_tokens_decoder": {"0": {"content": "<new>"}}},
        {"extra_special_tokens": ["<new>"]},
        {"eos_token": "<new>"},
        {"some_future_option": 1},
    ],
    ids=str,
)
def test_other_tokenizers_are_left_to_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    tokenizer("sentencepiece").save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path) is not None
    path = tmp_path / "tokenizer_config.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**about, **changes}), encoding="utf-8")
    assert load_tokenizer(tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"post_processor": None},
        {"truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}},
        {"padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
                     "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"}},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_the_file_that_transformers_changes(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    tokenizer("sentencepiece").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stored, **changes}), encoding="utf-8")
    assert load_tokenizer(tmp_path) is None


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [None, "", "{", "[]", "null"])
def test_damaged_files_are_left_to_transformers(
    tmp_path: Path, name: str, content: str | None
) -> None:
    tokenizer("llama").save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert load_tokenizer(tmp_path) is None
