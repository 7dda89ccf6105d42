"""Check every sentence of many profiles, and test the checker with planted false claims.

    python -m benchmarks.explanations.profiles --data online_retail_demo --count 500
    python -m benchmarks.explanations.profiles --data zh_mini --out benchmarks/explanations/profiles/zh_mini.tsv

For seeded users of an embedded dataset, profiles are made by counting alone, in English and Chinese, from
the whole history and from its latest 5 and 20 events. Every sentence is checked as it is written, before any
is left out, and the command fails if one has an unsupported claim. Then a number, a keyword or the
direction of a shift in each sentence is falsified, and the share that the checker rejects is printed.
``--out`` writes the first 100 profiles, one a line, for reading.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import commit
from genrec.data.behaviors import Verb, shipped_verbs
from genrec.data.datasets import load
from genrec.data.events import History
from genrec.pipeline.profiles import LANGUAGES, Profiler, profile_dataset
from genrec.prompts.profile import ProfileWords
from genrec.taste.profile import Profile
from genrec.taste.sentences import ProfileWriter, Sentence, find_unsupported

WRITTEN = 100
LENGTHS = (None, 20, 5)  # latest events that are read; None for all


def falsified(sentence: Sentence, other: str) -> list[tuple[str, Sentence]]:
    """Return false versions of a sentence: another number, and another keyword."""
    made = []
    for n, part in enumerate(sentence.parts):
        numbers = list(
            re.finditer(r"\d+(?:\.\d+)?", part.text.replace(part.keyword, " " * len(part.keyword)))
        )
        if numbers:
            at = numbers[-1]
            text = f"{part.text[: at.start()]}{float(at[0]) + 1:g}{part.text[at.end() :]}"
            made.append(("number", _with(sentence, n, replace(part, text=text))))
        if part.keyword and part.keyword in part.text and part.kind in {"interest", "shift"}:
            text = part.text.replace(part.keyword, other, 1)
            made.append(("keyword", _with(sentence, n, replace(part, text=text, keyword=other))))
            made.append(("word", _with(sentence, n, replace(part, text=text))))
    if sentence.kind in {"rises", "falls"}:
        turned = "falls" if sentence.kind == "rises" else "rises"
        made.append(("direction", replace(sentence, kind=turned)))
    return made


def _with(sentence: Sentence, n: int, part: object) -> Sentence:
    parts = [*sentence.parts]
    old, parts[n] = parts[n], part  # type: ignore[call-overload]
    text = sentence.text.replace(old.text, parts[n].text, 1)
    return replace(sentence, text=text, parts=tuple(parts))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="online_retail_demo")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, metavar="FILE")
    arguments = parser.parse_args()
    data = load(arguments.data)
    users = np.random.default_rng(arguments.seed).permutation(data.interactions.user_ids).tolist()
    cases = [(user, length) for length in LENGTHS for user in users][: arguments.count]
    _, profiler = profile_dataset(data, History())
    spoken = {
        language: (ProfileWords.load(language), shipped_verbs(language)) for language in LANGUAGES
    }
    rng = np.random.default_rng(arguments.seed)
    started, bad, sentences = time.process_time(), 0, 0
    planted: dict[str, list[bool]] = {}
    lines: list[str] = []
    for user, length in cases:
        history = data.interactions.history(user)
        profile = profiler.make(history if length is None else history.latest(length))
        title = data.catalog.titles[int(rng.integers(len(data.catalog)))]
        other = max(
            profiler.keywords.of(data.catalog.titles.index(title)).values(), key=len, default="zz"
        )
        for language, (words, verbs) in spoken.items():
            found = ProfileWriter(words, verbs).sentences(profile)
            sentences += len(found)
            problems = find_unsupported(found, profile, data.catalog, words, verbs)
            bad += bool(problems)
            for problem in problems:
                print(f"{user} {language}: {problem}")
            _plant(found, other, profile, profiler, words, verbs, planted)
        if len(lines) < WRITTEN:
            shown = "all" if length is None else str(length)
            lines.append("\t".join([user, shown, *(profile.text[x] for x in LANGUAGES)]))
    seconds = time.process_time() - started
    print(
        f"{arguments.data}, commit {commit()}: {len(cases)} profiles in {len(spoken)} languages, "
        f"{sentences:,} sentences, {bad} texts with an unsupported claim; {seconds:.0f} s with planting."
    )
    for kind, caught in planted.items():
        print(f"planted {kind}: {sum(caught):,} of {len(caught):,} rejected")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        head = "\t".join(["user", "events", *LANGUAGES])
        arguments.out.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    sys.exit(1 if bad else 0)


def _plant(
    found: list[Sentence],
    other: str,
    profile: Profile,
    profiler: Profiler,
    words: ProfileWords,
    verbs: Mapping[str, Verb],
    planted: dict[str, list[bool]],
) -> None:
    """Falsify sentences, and note whether the checker rejects each of them."""
    catalog = profiler.keywords.catalog
    rows = {catalog.row(i) for i in profile.history.item_ids}
    if set(profiler.keywords.rows(other).tolist()) & rows:
        return
    for sentence in found:
        for kind, wrong in falsified(sentence, other):
            problems = find_unsupported([wrong], profile, catalog, words, verbs)
            planted.setdefault(kind, []).append(bool(problems))


if __name__ == "__main__":
    main()
