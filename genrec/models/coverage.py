"""Which scripts a tokenizer reads, so that nothing is asked of a model that sees only fragments.

An English model maps other scripts to unknown tokens (then different words are the same to it), or
spells them in letters or bytes. Both show in how many tokens a letter takes. Knows tokenizers only
as a function from a text to counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from genrec.text import script, scripts

Count = Callable[[str], tuple[int, int]]  # of a text: tokens, and unknown ones among them

# One sentence in the plain language of each script: "Last week the customer bought a red cup and a
# small wooden chair for the kitchen". Han adds a computer and some books.
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
_DENSE = ("han", "kana", "hangul")  # a letter is a syllable or a word
MOST_TOKENS = 0.7  # tokens a letter; English models take 0.25 of English, 0.9 of Russian
MOST_TOKENS_DENSE = 1.1  # multilingual models take 0.6 to 1.0, byte spelling 1.7 and more
MOST_UNKNOWN = 0.05
LEAST_READ = 0.9  # of a text's letters


@dataclass(frozen=True, slots=True)
class Reading:
    """What a tokenizer reads.

    Attributes:
        read: the scripts that it reads.
        spelled: the scripts of ``SAMPLES`` that it does not.
        count: of a text, its tokens and the unknown ones among them.
    """

    read: tuple[str, ...]
    spelled: tuple[str, ...]
    count: Count

    @classmethod
    def of(cls, count: Count) -> Reading:
        """Tries the tokenizer on a sentence in each script."""
        good = []
        for name, sample in SAMPLES.items():
            tokens, unknown = count(sample)
            letters = sum(scripts(sample).values())
            most = MOST_TOKENS_DENSE if name in _DENSE else MOST_TOKENS
            words = len(sample.split())  # fewer tokens than words: words became unknown tokens
            if words <= tokens <= most * letters and unknown <= MOST_UNKNOWN * tokens:
                good.append(name)
        return cls(tuple(good), tuple(n for n in SAMPLES if n not in good), count)

    def reads(self, text: str) -> bool:
        """Whether nine in ten of a text's letters are of scripts that it reads, and no word unknown.

        A text without letters and digits is not read: to many models all emoji are one token.
        """
        found = scripts(text)
        letters = sum(found.values())
        if sum(found[s] for s in self.read) < LEAST_READ * letters:
            return False
        words = "".join(c if script(c) or c.isdigit() else " " for c in text).split()
        return bool(words) and self.count(" ".join(words))[1] == 0


def of_transformers(tokenizer: object) -> Reading:
    """What a transformers tokenizer reads."""
    unknown = getattr(tokenizer, "unk_token_id", None)

    def count(text: str) -> tuple[int, int]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
        return len(ids), sum(i == unknown for i in ids)

    return Reading.of(count)
