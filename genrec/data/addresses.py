"""Find street addresses in free text by their form in several languages.

An address is a street with a number, and the city with its code if it follows. This module works with
texts only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_CAPITAL = r"[A-Z\u00c0-\u00d6\u00d8-\u00de]"
_LETTER = r"[A-Za-z\u00c0-\u024f]"
_WORD = rf"{_LETTER}[A-Za-z\u00c0-\u024f'\u2019\-]{{0,30}}"
_NAME = rf"{_CAPITAL}[A-Za-z\u00c0-\u024f'\u2019\-]{{0,30}}"
_NUMBER = r"\d{1,4}(?:\s?[a-zA-Z](?!\w))?(?:\s?[-/]\s?\d{1,4}[a-zA-Z]?)?"
_STREETS = (
    r"(?:street|st|road|rd|avenue|ave|lane|ln|drive|dr|boulevard|blvd|terrace|close|court|ct|way|place|"
    r"square|crescent|gardens|grove|parkway|mews)(?![A-Za-z-])\.?"
)
_AFTER_ENGLISH = (
    r"(?:\s(?:NW|NE|SW|SE|N|S|E|W)(?!\w))?"
    r"(?:,?\s(?i:apt|flat|unit|suite)\.?\s?#?\w{1,5})?"
    rf"(?:,\s{_NAME}(?:\s{_NAME}){{0,2}},?\s(?:[A-Z]{{1,2}}\d[A-Z\d]?\s\d[A-Z]{{2}}|[A-Z]{{2}}\s\d{{5}}))?"
    rf"(?!\s{_CAPITAL})"  # as in "12 Red Rose Peg Place Settings"
)
_CITY = rf"(?:,?\s\d{{4,5}}\s{_NAME}(?:\s{_NAME})?)?"
_GERMAN = (
    r"(?:stra\u00dfe|strasse|str\.|allee|weg|gasse|platz|(?<![aeiou])ring|damm|ufer|chaussee|markt|steig|"
    r"stieg|pfad|graben|promenade)"
)
_HAN = r"[\u4e00-\u9fff]"
_HAN_NAME = r"(?:(?![\u5728\u5230\u81f3\u5740\u662f\u5bc4\u9001\u5f80\u4f4f\u653e\u8def\u8857])[\u4e00-\u9fff])"
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        # Flat 4, 17 Queen's Road; 45 Oak St., Apt 3B; 350 Fifth Avenue
        rf"(?:(?i:flat|apt|unit)\.?\s\w{{1,4}},?\s)?(?<![\w.,:/-])\d{{1,5}}[A-Za-z]?\s(?:[NSEW]\.?\s)?"
        rf"(?:(?!(?i:oz|pieces?|packs?|count|inch|set)\s){_NAME}\s|\d{{1,3}}(?:st|nd|rd|th)\s){{1,3}}(?i:{_STREETS}){_AFTER_ENGLISH}",
        # The same in lower case, after a word such as "at"
        rf"(?i:(?<=\bto\s)|(?<=\bat\s)|(?<=address\s)|(?<=address:\s)|(?<=address\sis\s))"
        rf"\d{{1,5}}[A-Za-z]?\s(?:{_WORD}\s){{1,3}}(?i:{_STREETS}){_AFTER_ENGLISH}",
        r"(?i:p\.?\s?o\.?\s?box|postfach)\s\d{2,6}",
        # Musterstra\u00dfe 12, 10115 Berlin; Berliner Stra\u00dfe 110-112; Friedrich-Ebert-Str. 61
        rf"(?:(?:Am|Im|An\sder|Auf\sder|Zum|Zur)\s)?(?:{_NAME}\s)?(?<!\w)(?!(?i:spring|string)\s){_LETTER}[A-Za-z\u00c0-\u024f.\-]{{0,40}}?"
        rf"(?i:{_GERMAN})\s{_NUMBER}(?!\w|[.,]\d){_CITY}",
        rf"(?<!\w){_CAPITAL}[a-z\u00c0-\u024f]{{1,30}}\s(?i:stra\u00dfe|strasse|str\.|allee|weg|platz|ring|damm)"
        rf"\s{_NUMBER}(?!\w|[.,]\d){_CITY}",
        # An der Alten M\u00fchle 2
        rf"(?<!\w)(?:An|Auf|In|Hinter|Vor|Zu)\s(?:der|den|dem)\s(?:{_NAME}\s)?"
        rf"(?:{_CAPITAL}[a-z\u00c0-\u024f]{{0,30}})?(?:m\u00fchle|M\u00fchle|kirche|Kirche|br\u00fccke|Br\u00fccke|wiese|Wiese|heide|Heide|"
        r"mauer|Mauer|burg|Burg|h\u00f6he|H\u00f6he|weide|Weide|aue|Aue|linde|Linde|eiche|Eiche)"
        r"\s\d{1,3}\s?[a-z]?(?!\w|[.,]\d)",
        # 15 rue de la Paix, 75002 Paris
        rf"(?<![\w.,/-])\d{{1,4}}(?:\s?(?:bis|ter))?,?\s(?i:rue|avenue|av\.|boulevard|bd|place|chemin|all\u00e9e|"
        rf"impasse|quai|route)\s(?:(?:de|du|des|la|le|les|l'|d'|d\u2019|l\u2019)\s?){{0,3}}{_NAME}(?:\s{_NAME}){{0,2}}"
        rf"{_CITY}",
        # Calle Mayor 25; Via Roma 10, 00184 Roma; Avenida de Am\u00e9rica 40
        rf"(?<!\w)(?i:calle|avenida|avda\.?|plaza|paseo|carrer|via|viale|piazza|corso|rua|ulica|ul\.)\s"
        rf"(?:(?:de|del|della|la|las|los|dei|di|da|do)\s){{0,2}}{_NAME}(?:\s{_NAME}){{0,2}},?\s"
        rf"(?:n[.\u00ba\u00b0]?\s?)?\d{{1,4}}(?!\w|[.,]\d){_CITY}",
        # Keizersgracht 123
        rf"(?<!\w){_CAPITAL}[a-z\u00c0-\u024f-]{{1,30}}(?:straat|gracht|laan|plein|kade|dijk|singel)\s{_NUMBER}(?!\w|[.,]\d)"
        rf"(?:,?\s\d{{4}}\s?[A-Z]{{2}}\s{_NAME})?",
        # \u5317\u4eac\u5e02\u671d\u9633\u533a\u5efa\u56fd\u8def88\u53f7
        rf"(?:{_HAN_NAME}{{2,7}}?(?:\u7701|\u5e02|\u533a|\u53bf|\u9547|\u4e61|\u6751)){{0,4}}{_HAN_NAME}{{1,8}}"
        r"(?:\u8def|\u8857|\u5927\u9053|\u9053|\u5df7|\u5f04|\u80e1\u540c)\d{1,5}(?:\u53f7(?!\u7ebf)|\u5f04)"
        r"(?:\d{1,4}(?:\u680b|\u5e62|\u53f7\u697c|\u697c|\u5355\u5143|\u5ba4|\u5c42)){0,4}",
    )
)


def find_addresses(text: str) -> Iterator[tuple[int, int, str]]:
    """Find the streets with numbers in a text, with the cities after them.

    Returns:
        The start and the end of each, and the word ``address``. They may overlap, but none comes twice.

    >>> list(find_addresses("ship to 12 Station Road, please"))
    [(8, 23, 'address')]
    """
    found = {match.span() for pattern in _PATTERNS for match in pattern.finditer(text)}
    for start, end in sorted(found):
        yield start, end, "address"
