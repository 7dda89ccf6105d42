"""Measure which scripts (writing systems) a model can read, by looking at its tokenizer.

The tokenizer of an English model may map words in other scripts to unknown tokens, so that
different words look the same, or it may split them into single letters or bytes, which the model
does not understand. Both cases can be recognized by counting tokens, so this module needs only a
function that returns the number of tokens in a text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from genrec.text import script, scripts

Count = Callable[[str], tuple[int, int]]  # text -> (number of tokens, number of unknown tokens)

# Each script has one plain sentence: "Last week the customer bought a red mug and a small wooden
# chair for the kitchen". The Han sentence also mentions a computer and some books.
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
_DENSE = ("han", "kana", "hangul")  # scripts in which a letter is a syllable or a word
# Maximum number of tokens per letter in a script that a tokenizer reads. English models need 0.25
# for English and 0.9 for Russian.
MOST_TOKENS = 0.7
# The same for dense scripts. Multilingual models need 0.6 to 1.0, and single bytes 1.7 or more.
MOST_TOKENS_DENSE = 1.1
MOST_UNKNOWN = 0.05  # maximum fraction of unknown tokens
LEAST_READ = 0.9  # minimum fraction of a text's letters that must be in scripts that are read


@dataclass(frozen=True, slots=True)
class ScriptCoverage:
    """The scripts that a model can read, because its tokenizer has tokens for their words.

    Attributes:
        read: names of the scripts that the model can read.
        spelled: names of the other scripts in ``SAMPLES``, whose words the tokenizer does not know
            or splits into letters or bytes.
        count: function that returns the number of tokens in a text, and the number of unknown
            tokens among them.
    """

    read: tuple[str, ...]
    spelled: tuple[str, ...]
    count: Count

    @classmethod
    def measure(cls, count: Count) -> ScriptCoverage:
        """Find the scripts that a tokenizer covers by tokenizing one sentence in each script.

        Args:
            count: function that returns the number of tokens in a text, and the number of unknown
                tokens among them.
        """
        covered = []
        for name, sample in SAMPLES.items():
            tokens, unknown = count(sample)
            letters = sum(scripts(sample).values())
            most = MOST_TOKENS_DENSE if name in _DENSE else MOST_TOKENS
            words = len(sample.split())  # with fewer tokens than words, words must have been lost
            if words <= tokens <= most * letters and unknown <= MOST_UNKNOWN * tokens:
                covered.append(name)
        return cls(tuple(covered), tuple(n for n in SAMPLES if n not in covered), count)

    def reads(self, text: str) -> bool:
        """Check whether the model can read a text.

        At least 90% of the text's letters must belong to scripts that the model can read, and no
        word may contain an unknown token. A text without letters or digits fails the check,
        because many tokenizers map all emoji to the same token.
        """
        letters_by_script = scripts(text)
        letters = sum(letters_by_script.values())
        if sum(letters_by_script[s] for s in self.read) < LEAST_READ * letters:
            return False
        words = "".join(c if script(c) or c.isdigit() else " " for c in text).split()
        return bool(words) and self.count(" ".join(words))[1] == 0


def measure_coverage(tokenizer: object) -> ScriptCoverage:
    """Measure which scripts a tokenizer of the transformers library covers."""
    unknown = getattr(tokenizer, "unk_token_id", None)

    def count(text: str) -> tuple[int, int]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
        return len(ids), sum(i == unknown for i in ids)

    return ScriptCoverage.measure(count)
