"""Parse the values of command-line options that take several names, pairs or files of item ids.

Such an option can be repeated, and each value can be a comma-separated list. This module does not
depend on the commands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from genrec.errors import DataError, SettingsError

_SUFFIXES = {".txt", ".csv", ".tsv", ".json", ".jsonl", ".ids"}
_COMMA_BEFORE_PAIR = re.compile(r",(?=[^,=]+=)")  # so that a value may contain a comma


def read_list(
    given: Iterable[str] | None, *, whole: Callable[[str], bool] = lambda value: False
) -> list[str]:
    """Split the values of an option at commas and collect all parts in one list.

    Args:
        given: the raw values, one for each time the option was given; None if it was not given.
        whole: a function that returns True if a value must not be split at its commas.

    >>> read_list(["popular,markov", "ease"])
    ['popular', 'markov', 'ease']
    """
    values: list[str] = []
    for one in given or ():
        values += [one] if whole(one) else [part.strip() for part in one.split(",")]
    return [v for v in values if v]


def read_pairs(given: Iterable[str] | None, form: str) -> dict[str, str]:
    """Parse pairs such as ``brand=2`` into a dictionary.

    Args:
        given: the raw values, one for each time the option was given; None if it was not given.
        form: the form of a pair as shown in the error message, such as ``COLUMN=N``.

    Raises:
        SettingsError: a value is not a pair, or two pairs have the same key.

    >>> read_pairs(["brand=2,color=1", "title=name,en"], "COLUMN=N")
    {'brand': '2', 'color': '1', 'title': 'name,en'}
    """
    pairs: dict[str, str] = {}
    for one in given or ():
        for pair in _COMMA_BEFORE_PAIR.split(one):
            key, equals, value = (part.strip() for part in pair.partition("="))
            if not (key and equals and value):
                msg = f"{pair!r} is not a pair. Expected {form}."
                raise SettingsError(msg)
            if key in pairs:
                msg = f"{key}={pairs[key]} and {key}={value} were both given. Expected only one of them."
                raise SettingsError(msg)
            pairs[key] = value
    return pairs


def read_factors(given: Iterable[str] | None, form: str) -> dict[str, str]:
    """Parse pairs such as ``price < 5: 1.2`` into a dictionary.

    Args:
        given: the raw values, one for each time the option was given; None if it was not given.
            Each of them is a single pair, which is split at its last colon.
        form: the form of a pair as shown in the error message, such as ``CONDITION: FACTOR``.

    Raises:
        SettingsError: a value is not a pair, or two pairs have the same condition.

    >>> read_factors(['title == "a: b": 2', "price < 5: 0.5"], "CONDITION: FACTOR")
    {'title == "a: b"': '2', 'price < 5': '0.5'}
    """
    pairs: dict[str, str] = {}
    for one in given or ():
        condition, colon, factor = (part.strip() for part in one.rpartition(":"))
        if not (condition and colon and factor):
            msg = f"{one!r} is not a condition with a factor. Expected {form}."
            raise SettingsError(msg)
        if condition in pairs:
            msg = (
                f"The condition {condition!r} was given with the factors {pairs[condition]} and {factor}. "
                "Expected only one of them."
            )
            raise SettingsError(msg)
        pairs[condition] = factor
    return pairs


def read_whole_number(text: str, name: str) -> int:
    """Parse a whole number from text.

    Args:
        text: the text to parse.
        name: the name of the number in the error message.

    Raises:
        SettingsError: the text contains anything other than digits.
    """
    if not text.isascii() or not text.isdigit():
        msg = f"{name}={text!r} is not valid. Expected a whole number of at least 1."
        raise SettingsError(msg)
    return int(text)


def read_number(text: str, name: str) -> float:
    """Parse a number from text.

    Args:
        text: the text to parse.
        name: the name of the number in the error message.

    Raises:
        SettingsError: the text is not a number.
    """
    try:
        return float(text)
    except ValueError:
        msg = f"{name}={text!r} is not valid. Expected a number."
        raise SettingsError(msg) from None


def read_items(given: Iterable[str]) -> list[str]:
    """Read item ids that are given directly or in files, and drop duplicates.

    Args:
        given: item ids, or names of files with one id per line. A value may contain several of
            them separated by commas, unless the whole value is the name of an existing file.

    Raises:
        DataError: a file cannot be read or contains no ids, or a value that looks like a file name,
            such as ``sold_out.txt``, is not the name of a file.
    """
    ids: dict[str, None] = {}
    for name in read_list(given, whole=_exists):
        file = _exists(name) or Path(name).suffix in _SUFFIXES or os.sep in name
        ids |= dict.fromkeys(read_ids([name]) if file else [name])
    return list(ids)


def _exists(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def read_ids(given: Iterable[str]) -> list[str]:
    """Read item ids from files with one id per line, and drop duplicates.

    Args:
        given: file names. A value may contain several names separated by commas, unless the whole
            value is the name of an existing file.

    Raises:
        DataError: a file cannot be read or contains no ids.
    """
    ids: dict[str, None] = {}
    for name in read_list(given, whole=_exists):
        try:
            text = Path(name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            msg = (
                f"{name} cannot be read ({error}). Expected a UTF-8 file with one item_id per line."
            )
            raise DataError(msg) from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            msg = f"{name} is empty. Expected one item_id per line."
            raise DataError(msg)
        ids |= dict.fromkeys(lines)
    return list(ids)
