"""Recognize what people say about themselves, such as "I bake a lot and have two cats".

Such a sentence asks for nothing. It says what somebody is like, so it tells which items they may
have chosen before rather than which one they want now. This module deals with texts only.
"""

from __future__ import annotations

import re

from genrec.conversation.catalog_words import is_han

_SENTENCES = re.compile(r"[.!;。！；]+")
_SELF = re.compile(
    r"^\W*(?:(?:hi|hello|hey|well|so|and|also|but)\b\W*)*"
    r"(?:i|i'm|i've|my|we|we're|we've|our|me)\b(?!\s*(?:'d|'ll|would|will|want|need|wish|should|must|can|could))",
    re.IGNORECASE,
)
_ASKS = re.compile(
    r"\?|\b(?:want|need|wish|(?:i|we) would|i'd|we'd|looking for|searching for|shopping for|hunting for|please|"
    r"(?:show|give|find|get|recommend|suggest|bring) (?:me|us)|(?:recommend|suggest)|(?:gifts?|presents?) for|"
    r"(?:some|any)(?:thing|one)? (?:for|with|like|similar|else|cheap\w*|under|good|new))\b",
    re.IGNORECASE,
)
_ZH_SELF = re.compile(r"^\W*(?:你好|您好|大家好)?\W*(?:我|我们|我家|本人|咱)")
_ZH_ASKS = re.compile(
    r"[?？]|想要|想买|想找|想看|想吃|要买|要一|需要|推荐|给我|帮我|找|来一|来个|有没有|送给|礼物|便宜|以下|以内|不到"
)
_QUOTES = str.maketrans({"’": "'", "‘": "'"})


def is_about_oneself(text: str) -> bool:
    """Return True if every sentence of a text says something about the speaker and none asks for anything.

    >>> [is_about_oneself(t) for t in ("I bake a lot and have two cats", "I'd like a mug", "a red mug")]
    [True, False, False]
    >>> [is_about_oneself(t) for t in ("我喜欢烘焙，家里有两只猫", "我想要一个杯子")]
    [True, False]
    """
    text = text.translate(_QUOTES)
    chinese = is_han(text)
    starts, asks = (_ZH_SELF, _ZH_ASKS) if chinese else (_SELF, _ASKS)
    if asks.search(text):
        return False
    sentences = [s for s in _SENTENCES.split(text) if s.strip()]
    return bool(sentences) and all(starts.search(s) for s in sentences)
