"""Measure which scripts a tokenizer covers, so that models are used only for text they can read.

An English model maps other scripts to unknown tokens, which makes different words look the same,
or it spells them in letters or bytes. Both effects are visible in the number of tokens per letter.
Here, a tokenizer is only a function from text to token counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from genrec.text import script, scripts

Count = Callable[[str], tuple[int, int]]  # text -> (tokens, unknown tokens among them)

# One plain sentence in each script: "Last week the customer bought a red mug and a small wooden
# chair for the kitchen". The Han sentence adds a computer and some books.
SAMPLES = {
    "latin": "The customer bought a red mug and a small wooden chair for the kitchen last week",
    "cyrillic": "Покупатель на прошлой неделе купил красную кружку и маленький деревянный стул",
    "greek": "Ο πελάτης αγόρασε την περασμένη εβδομάδα μια κόκκινη κούπα και μια καρέκλα",
    "arabic": "اشترى الزبون الأسبوع الماضي كوبا أحمر وكرسيا خشبيا صغيرا للمطبخ",
    "hebrew": "הלקוח קנה בשבוע שעבר ספל אדום וכיסא עץ קטן למטבח",
    "devanagari": "ग्राहक ने पिछले सप्ताह रसोई के लिए एक लाल मग और एक छोटी लकड़ी की कुर्सी खरीदी",
    "thai": "ลูกค้าซื้อแก้วสีแดงและเก้าอี้ไม้ตัวเล็กสำหรับห้องครัวเมื่อสัปดาห์ที่แล้ว",
    "han": "顾客上周为厨房买了一个红色的杯子和一把小木椅，还有电脑和几本书籍",
    "kana": "おきゃくさまはだいどころのためにあかいマグカップとちいさないすをかいました",
    "hangul": "고객은 지난주에 부엌에 놓을 빨간 머그잔과 작은 나무 의자를 샀다",
}
_DENSE = ("han", "kana", "hangul")  # scripts whose letters are syllables or words
MOST_TOKENS = 0.7  # tokens per letter; English models need 0.25 for English and 0.9 for Russian
MOST_TOKENS_DENSE = 1.1  # multilingual models need 0.6 to 1.0; spelling in bytes takes 1.7 or more
MOST_UNKNOWN = 0.05  # maximum fraction of unknown tokens
LEAST_READ = 0.9  # minimum fraction of a text's letters


@dataclass(frozen=True, slots=True)
class ScriptCoverage:
    """The scripts that a tokenizer reads as words, and the scripts that it only spells out.

    Attributes:
        read: names of the scripts that the tokenizer reads.
        spelled: names of the other scripts in ``SAMPLES``.
        count: function that returns the number of tokens in a text and how many of them are
            unknown.
    """

    read: tuple[str, ...]
    spelled: tuple[str, ...]
    count: Count

    @classmethod
    def measure(cls, count: Count) -> ScriptCoverage:
        """Test a tokenizer on one sentence in each script.

        Args:
            count: function that returns the number of tokens in a text and how many of them are
                unknown.
        """
        covered = []
        for name, sample in SAMPLES.items():
            tokens, unknown = count(sample)
            letters = sum(scripts(sample).values())
            most = MOST_TOKENS_DENSE if name in _DENSE else MOST_TOKENS
            words = len(sample.split())  # with fewer tokens than words, some words are unknown
            if words <= tokens <= most * letters and unknown <= MOST_UNKNOWN * tokens:
                covered.append(name)
        return cls(tuple(covered), tuple(n for n in SAMPLES if n not in covered), count)

    def reads(self, text: str) -> bool:
        """Check that the tokenizer reads at least 90% of a text's letters and knows every word.

        Text without letters or digits does not pass, because many models map all emoji to the same
        token.
        """
        letters_by_script = scripts(text)
        letters = sum(letters_by_script.values())
        if sum(letters_by_script[s] for s in self.read) < LEAST_READ * letters:
            return False
        words = "".join(c if script(c) or c.isdigit() else " " for c in text).split()
        return bool(words) and self.count(" ".join(words))[1] == 0


def measure_coverage(tokenizer: object) -> ScriptCoverage:
    """Measure which scripts a transformers tokenizer reads."""
    unknown = getattr(tokenizer, "unk_token_id", None)

    def count(text: str) -> tuple[int, int]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
        return len(ids), sum(i == unknown for i in ids)

    return ScriptCoverage.measure(count)
