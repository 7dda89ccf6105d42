"""Check the contents of a dataset, such as its users, titles and repeated items."""

from __future__ import annotations

from collections import Counter

import numpy as np

from genrec.baselines import registry
from genrec.data import protocols
from genrec.data.rebuys import measure_rebuys
from genrec.evaluation import metrics
from genrec.evaluation.audit_types import AuditedData, Finding
from genrec.text import normalized

LEAST_USERS = 500


def check_users(data: AuditedData) -> Finding:
    """Check that there are enough users for an evaluation."""
    n = len(data.cases)
    width = 1.96 * np.sqrt(0.1 * 0.9 / n)
    said = (
        f"{n:,} users have a target. The 95% interval of a hit rate of 0.10 is about ±{width:.3f}."
    )
    few = n < LEAST_USERS
    advice = "Report the results, but do not claim that one system beats another." if few else ""
    return Finding("users", "note" if few else "ok", {"users": n}, said, advice)


def check_rejected_rows(data: AuditedData) -> Finding:
    """Report the number of rows that ``genrec prepare`` rejected, and the reasons."""
    reasons = data.dataset.info.rejected
    n, kept = sum(reasons.values()), data.dataset.info.events
    figures = {"rows": n, "events_kept": kept}
    if not n:
        return Finding("rejected rows", "ok", figures, "No row was rejected by prepare.")
    listed = "; ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    said = f"{n:,} rows were rejected by prepare ({listed}), and {kept:,} events remain."
    advice = (
        "All figures, including each user's last event, are based on the remaining rows. To compare "
        "with published results, fix the rows in rejected.csv. For an item without a title, you can "
        "use its ID as the title."
    )
    level = "warning" if n > 0.01 * (n + kept) else "note"
    return Finding("rejected rows", level, figures, said, advice)


def check_target_in_history(data: AuditedData) -> Finding:
    """Count the targets that already occur in the history, comparing items by id and by title."""
    titles = data.dataset.catalog.titles
    events, lead_in = data.dataset.interactions, data.dataset.info.lead_in_behaviors
    rows, behavior = events.columns.row, events.columns.behavior
    marks_seen = np.array([b not in lead_in for b in events.behaviors])
    by_id = by_title = excluded = 0
    for case in data.cases:
        shown = set(rows[case.shown].tolist()) - {-1}
        same = int(rows[case.at]) in shown
        by_id += same
        excluded += int(rows[case.at]) in rows[case.shown][marks_seen[behavior[case.shown]]]
        by_title += same or titles[rows[case.at]] in {titles[r] for r in shown}
    n = len(data.cases)
    figures = {"by_id": by_id / n, "by_title": by_title / n}
    said = (
        f"{by_id / n:.1%} of the targets are already in the history. If titles are compared "
        f"instead of IDs, the share is {by_title / n:.1%}."
    )
    if data.dataset.info.exclude_seen and excluded:
        advice = (
            f"Seen items are excluded, so {excluded:,} targets can never be hit. Include seen items "
            "with --include-seen, or leave these users out and report it."
        )
        return Finding("target in history", "warning", figures, said, advice)
    if by_id / n > 0.5:
        advice = (
            "Copying the history scores well. Compare with a baseline that repeats items, and report "
            "results for new items separately."
        )
        return Finding("target in history", "warning", figures, said, advice)
    if by_id:
        advice = (
            "Whenever you report results, state that seen items may be recommended, and compare with "
            "a baseline that repeats items."
        )
        return Finding("target in history", "note", figures, said, advice)
    if by_title > 0.01 * n:
        advice = "Users have seen other items with the same title. Score by item ID, not by text."
        return Finding("target in history", "note", figures, said, advice)
    return Finding("target in history", "ok", figures, said)


def check_repeats(data: AuditedData) -> Finding:
    """Report how often users choose seen items again, and whether these are excluded by default.

    If seen items may be recommended, the finding also reports how often users choose returned items
    and the items of their latest basket again.
    """
    info = data.dataset.info
    rule, exception = "excluded" if info.exclude_seen else "included", ""
    lead_in = sorted(info.lead_in_behaviors & info.led_by.keys())
    if info.exclude_seen and lead_in:
        exception = f", unless the user has only {', '.join(lead_in)} events with them"
    said = (
        f"{info.repeat_share:.1%} of the baskets or events in train and validation begin with an "
        f"item that the user has already interacted with. By default, seen items are {rule}{exception}."
    )
    figures = {"repeat_share": info.repeat_share}
    if not info.exclude_seen:
        rebuys = measure_rebuys(data.dataset.interactions, info.target_behavior)
        figures |= {f"{kind}_again": share for kind, share in rebuys.shares.items()}
        said += "".join(f" {note[0].upper()}{note[1:]}." for note in rebuys.notes())
    return Finding("repeats", "ok", figures, said)


def check_shared_titles(data: AuditedData) -> Finding:
    """Count items that share a title, and compare results by item id with results by title."""
    titles = data.dataset.catalog.titles
    exact = Counter(titles)
    plain = Counter(normalized(t) for t in titles)
    rows = data.dataset.interactions.columns.row
    shared = sum(n for n in exact.values() if n > 1)
    nearly = sum(n for n in plain.values() if n > 1)
    n = len(data.cases)
    targets = int(sum(exact[titles[rows[case.at]]] > 1 for case in data.cases))
    by_id, by_text = _popular_hit_rates(data)
    figures = {
        "items": shared,
        "items_normalized": nearly,
        "targets": targets / n,
        "popular_hit_rate@10_by_id": by_id,
        "popular_hit_rate@10_by_text": by_text,
    }
    said = (
        f"{shared:,} of {len(titles):,} items share their title with another item, or {nearly:,} if "
        f"case and punctuation are ignored. {targets:,} targets ({targets / n:.2%}) have such a "
        f"title. The popularity baseline has HR@10 {by_id:.4f} by ID and {by_text:.4f} by text."
    )
    if not shared:
        return Finding("shared titles", "ok", figures, said)
    advice = (
        "Score by item ID. Papers that score by text count any item with the same title as a hit, so "
        "their results are too high by up to the share of such targets."
    )
    return Finding("shared titles", "note", figures, said, advice)


def _popular_hit_rates(data: AuditedData) -> tuple[float, float]:
    """Return the popularity baseline's hit rate at 10, once by item id and once by title."""
    catalog, titles = data.dataset.catalog, data.dataset.catalog.titles
    cases = data.sampled_cases
    by_id = by_text = 0
    for case, ranked in zip(cases, data.top_ten("popular"), strict=True):
        top, target = catalog.rows(ranked), catalog.row(case.target)
        by_id += target in top
        by_text += titles[target] in {titles[row] for row in top}
    return by_id / len(cases), by_text / len(cases)


def check_cold_targets(data: AuditedData) -> Finding:
    """Count the targets whose item has no event in the train part."""
    counts = protocols.count_events(data.dataset, "validation")
    rows = data.dataset.interactions.columns.row[data.target_places]
    share = float((counts[rows] == 0).mean())
    said = f"{share:.1%} of the targets have no event in train."
    advice = (
        "Baselines that count events cannot predict these targets. Report results for warm and cold "
        "items separately."
        if share > 0.01
        else ""
    )
    return Finding("cold targets", "note" if advice else "ok", {"share": share}, said, advice)


def check_counting(data: AuditedData) -> Finding:
    """Measure the accuracy of baselines that only count events."""
    cases = data.sampled_cases
    repeating = () if data.dataset.info.exclude_seen else ("recent", "frequent")
    names = [n for n in ("popular", *repeating, "markov") if n in registry.NAMES]
    figures: dict[str, float] = {"users": len(cases)}
    results = []
    for name in names:
        data.log(f"Counting with {name} ...")
        pairs = zip(cases, data.top_ten(name), strict=True)
        ranks = [metrics.rank_of(case.target, ranked) for case, ranked in pairs]
        figures[f"{name}_hit_rate@10"] = float(metrics.hit_rate(ranks, 10).mean())
        figures[f"{name}_ndcg@10"] = float(metrics.ndcg(ranks, 10).mean())
        results.append(
            f"{name} HR@10 {figures[f'{name}_hit_rate@10']:.4f}, "
            f"NDCG@10 {figures[f'{name}_ndcg@10']:.4f}"
        )
    said = (
        f"For {len(cases):,} users, counting baselines fitted on train have these results: "
        f"{'; '.join(results)}."
    )
    if "markov" not in names:
        said += " The markov baseline is not available, so transitions were not counted."
    advice = (
        "A model that does not beat these baselines has learned nothing beyond counting. Report "
        "them with your results."
    )
    return Finding("counting", "note", figures, said, advice)
