"""Test the checker of explanations with planted false claims and true ones. No model.

    python -m benchmarks.explanations.claims --data online_retail_demo
    python -m benchmarks.explanations.claims --data zh_mini

For seeded users and items it makes 500 sentences that say something wrong (a title that is neither in the
history nor the item's, a word of another item, another price or number, an event that did not happen) and
500 that are true (names in other case, words of the title in another order or number, prices, listed
events). Both are made from catalog and history by the templates below, in words that the checker knows;
what a model may think of besides is measured by reading. It prints the share rejected by kind and every
wrong judgement; ``--out`` writes all sentences with the checker's reasons.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import commit
from genrec.data.datasets import load
from genrec.explain.claims import LETTERS, Facts, find_problems
from genrec.explain.sentences import collect_facts
from genrec.prompts.template import Template
from genrec.text import one_line

N = 500
ENGLISH = {
    "like": 'Because of "{h}", we suggest "{x}", which has to do with {w}.',
    "event": 'Because they {v} "{h}".',
    "events": 'Because they {v} "{h}" and "{g}".',
    "number": 'Because of "{h}", we suggest "{x}", which has to do with the {n}.',
}
CHINESE = {
    "like": "因为“{h}”，推荐“{x}”，关键词是{w}。",
    "event": "因为您{v}“{h}”。",
    "events": "因为您{v}“{h}”和“{g}”。",
    "number": "因为“{h}”，推荐“{x}”，关键词是{n}。",
}
PLAIN = {
    "en": ("they",),
    "zh": ("您",),
}  # words of the plain sentence, which the checker never sees


class Maker:
    """Makes sentences about random users and items."""

    def __init__(self, name: str) -> None:
        self.data = load(name)
        self.language = "zh" if name.startswith("zh") else "en"
        self.template = Template.load("explain", self.language)
        self.rng = np.random.default_rng(0)
        self.forms = CHINESE if self.language == "zh" else ENGLISH
        titles = {one_line(t) for t in self.data.catalog.titles}
        self.titles = sorted(titles)

    def pick(self, values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def case(self) -> tuple[Facts, dict[str, Any]]:
        """Draw a user's last events, an item, and the facts for true sentences."""
        while True:
            user = self.pick(self.data.interactions.user_ids)
            history = self.data.interactions.history(user).latest(25)
            events = [
                (e.behavior, one_line(self.data.catalog[self.data.catalog.row(e.item_id)].title))
                for e in history.interactions
                if e.item_id is not None
            ]
            item = self.data.catalog[int(self.rng.integers(len(self.data.catalog)))]
            words = self.words(item.title)
            if len({t for _, t in events}) > 1 and len(words) > 1:
                break
        facts = collect_facts(
            self.template,
            self.data.catalog,
            history.interactions,
            self.data.catalog.row(item.item_id),
        )
        facts = replace(facts, plain=(*facts.plain, *PLAIN[self.language]))
        behavior, title = self.pick(events)
        same = [t for b, t in events if b == behavior]
        values = {
            "h": title,
            "g": self.pick(same),
            "x": one_line(item.title),
            "v": self.template.verb(behavior).past,
            "w": self.said(words),
            "n": self.number(item, item),
        }
        return facts, values

    def words(self, title: str) -> list[str]:
        return [w for w in LETTERS.findall(one_line(title).lower()) if len(w) > 1]

    def said(self, words: list[str]) -> str:
        """Draw some words in random order, one of them in singular or plural."""
        if self.language == "zh":
            word = self.pick(words)
            size = min(len(word), 4)
            start = int(self.rng.integers(len(word) - size + 1))
            return str(word[start : start + size])
        some = [str(w) for w in self.rng.permutation(words)[:2]]
        if self.rng.random() < 0.3:
            some[-1] = some[-1].removesuffix("s") if some[-1].endswith("s") else f"{some[-1]}s"
        return " ".join(some)

    def number(self, of: Any, item: Any) -> str:
        """State an attribute of one item about another."""
        names = [n for n, v in of.attributes.items() if v is not None]
        name = self.pick(names)
        said = name.replace("_", " ")
        return (
            f"{of.attributes[name]}" if self.language == "zh" else f"{said} {of.attributes[name]}"
        )

    def foreign(self, facts: Facts) -> str:
        return str(
            next(t for t in iter(lambda: self.pick(self.titles), None) if t not in facts.names)
        )

    def true(self) -> tuple[str, str, Facts]:
        facts, values = self.case()
        kind = self.pick(list(self.forms))
        if self.rng.random() < 0.3:
            values["h"] = values["h"].lower()
        return f"true {kind}", self.forms[kind].format(**values), facts

    def false(self) -> tuple[str, str, Facts]:
        kind = self.pick(["foreign title", "wrong word", "wrong number", "invented event"])
        make: dict[str, Callable[[Facts, dict[str, Any]], str | None]] = {
            "foreign title": self.foreign_title,
            "wrong word": self.wrong_word,
            "wrong number": self.wrong_number,
            "invented event": self.invented,
        }
        while True:
            facts, values = self.case()
            text = make[kind](facts, values)
            if text is not None:
                return kind, text, facts

    def foreign_title(self, facts: Facts, values: dict[str, Any]) -> str | None:
        values[self.pick(["h", "x"])] = self.foreign(facts)
        return self.forms["like"].format(**values)

    def wrong_word(self, facts: Facts, values: dict[str, Any]) -> str | None:
        own = " ".join((*facts.said, *facts.plain)).lower()
        others = [w for w in self.words(self.foreign(facts)) if w.removesuffix("s") not in own]
        if not others:
            return None
        values["w"] = f"{values['w']}{' ' * (self.language == 'en')}{self.pick(others)}"
        return self.forms["like"].format(**values)

    def wrong_number(self, facts: Facts, values: dict[str, Any]) -> str | None:
        other = self.data.catalog[int(self.rng.integers(len(self.data.catalog)))]
        values["n"] = self.number(other, facts.item)
        if any(
            values["n"] == f"{v}" or values["n"].endswith(f" {v}")
            for v in facts.item.attributes.values()
        ):
            return None
        return self.forms["number"].format(**values)

    def invented(self, facts: Facts, values: dict[str, Any]) -> str | None:
        behavior = self.pick(list(self.template.verbs))
        if (behavior, values["h"]) in facts.events:
            values["h"] = self.foreign(facts)
        values["v"] = self.template.verb(behavior).past
        same = [b for b, t in facts.events if t == values["h"]]
        if any(values["v"] in self.template.verb(b).forms for b in same):
            return None
        return self.forms["event"].format(**values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="online_retail_demo")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    maker = Maker(arguments.data)
    lines = ["kind\tsentence\titem\twhat the checker says"]
    counts: dict[str, list[int]] = {}
    for make in [maker.false] * N + [maker.true] * N:
        kind, text, facts = make()
        found = find_problems(text, facts)
        counts.setdefault(kind, []).append(bool(found))
        lines.append("\t".join([kind, text, facts.item.item_id, "; ".join(found)]))
        if bool(found) == kind.startswith("true"):
            print(f"wrong: {kind}: {text} ({'; '.join(found)})")
    print(f"{arguments.data}, commit {commit()}")
    for name, some in (
        ("false", [k for k in counts if not k.startswith("true")]),
        ("true", [k for k in counts if k.startswith("true")]),
    ):
        judged = [x for k in some for x in counts[k]]
        by_kind = ", ".join(f"{k} {sum(counts[k])} of {len(counts[k])}" for k in sorted(some))
        print(f"{name}: rejected {sum(judged)} of {len(judged)} ({by_kind})")
    if arguments.out is not None:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
