"""Commands that ask a model: prompt, recommend, explain, rank, score, likes, demo, doctor.

Heavy imports stand inside, as in all of the command line.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import (
    SEARCHING,
    AsJson,
    Chosen,
    Data,
    Device,
    Dtype,
    EvidenceMode,
    Explain,
    Html,
    Items,
    K,
    Model,
    PriorName,
    RunFolder,
    Style,
    Threads,
    Typed,
    User,
    load_request,
    mapping,
    read_ids,
    use_float32,
    with_settings,
)
from genrec.errors import SettingsError


@with_settings(*SEARCHING, "quantize")
def prompt(
    data: Data,
    user: User = None,
    history: Typed = None,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Show exactly what the model will read, with a token count."""
    from genrec.reports import console, terminal

    recommender, given = load_request(settings, data, user, history, model, run, quiet=json)
    read, understood = recommender.understand(given)
    encoded = recommender.prompt(read)
    if json:
        console.print_json(
            {
                "schema_version": 1,
                "user_id": user,
                "model": model,
                "template": recommender.template.name,
                "template_hash": recommender.template.hash,
                "text": encoded.text,
                "tokens": len(encoded.ids),
                "events": encoded.prompt.events,
                "dropped": encoded.prompt.dropped,
                "token_ids": list(encoded.ids),
                "understood": [asdict(u) for u in understood],
            }
        )
        return
    terminal.print_understood(understood)
    terminal.print_prompt(encoded, f"template {recommender.template.name}, model {model}")


@with_settings()
def recommend(
    data: Data,
    user: User = None,
    history: Typed = None,
    k: K = 10,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    explain: Explain = False,
    evidence: EvidenceMode = "full",
    style: Style = "reason",
    html: Html = None,
    where: Annotated[
        str | None,
        typer.Option(help='Condition on the catalog\'s columns: "price < 20 and in_stock".'),
    ] = None,
    allow: Annotated[
        Path | None, typer.Option(help="File with one item_id a line: only these may come back.")
    ] = None,
    deny: Annotated[
        Path | None, typer.Option(help="File with one item_id a line: these may not come back.")
    ] = None,
    min_probability: Annotated[float, typer.Option(help="Leave out items below.")] = 0.0,
    per_title: Annotated[int | None, typer.Option(help="Most items with one title.")] = None,
    cap: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=N: most items with one value of a column. May be repeated."),
    ] = None,
    diversity: Annotated[
        float, typer.Option(help="0 ranks by score alone, 1 by unlikeness of titles alone.")
    ] = 0.0,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Recommend the next items for a user or a typed history."""
    from genrec.reports import console, explanation_page, terminal

    caps = {
        n: _whole(m, f"--cap {n}") for n, m in mapping(cap, "COLUMN=N, such as brand=2").items()
    }
    allowed, denied = read_ids(allow), read_ids(deny) or []
    if html is not None:
        explanation_page.check(html)
    if explain or html is not None:
        settings = use_float32(settings)
    elif (style, evidence) != ("reason", "full"):
        msg = "--style or --evidence given, but nothing is explained. Expected --explain or --html, too."
        raise SettingsError(msg)
    recommender, given = load_request(settings, data, user, history, model, run, quiet=json)
    with console.working("Searching ...", quiet=json):
        answer = recommender.recommend(
            given,
            k,
            explain=explain or html is not None,
            evidence=evidence,
            style=style,
            allow=allowed,
            deny=denied,
            where=where,
            min_probability=min_probability,
            per_title=per_title,
            caps=caps,
            diversity=diversity,
        )
    if html is not None:
        explanation_page.write(
            html, explanation_page.of_list(answer, *recommender.events_in_prompt(given))
        )
    if json:
        console.print_json(answer.to_dict())
    else:
        terminal.print_recommendations(answer)


def _whole(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        msg = f"{name}={text!r}. Expected a whole number, 1 or more."
        raise SettingsError(msg)
    return int(text)


@with_settings("decoder", "n_samples", "temperature", "search", "max_nodes", "beam_size")
def explain(
    data: Data,
    item: Annotated[
        str, typer.Option(help="An item_id of the catalog or a title, recommended or not.")
    ],
    user: User = None,
    history: Typed = None,
    k: K = 10,
    evidence: EvidenceMode = "full",
    style: Style = "reason",
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    html: Html = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Log why an item is recommended or not: rank, evidence, what is against it, what would raise it.

    The evidence is what the model rests on, not the cause of a person's behaviour.
    """
    from genrec.reports import console, explanation_page, terminal

    if html is not None:
        explanation_page.check(html)
    recommender, given = load_request(
        use_float32(settings), data, user, history, model, run, quiet=json
    )
    with console.working("Explaining ...", quiet=json):
        read, understood = recommender.understand(given)
        found = recommender.explain(read, item, k, evidence=evidence, style=style)
    if html is not None:
        explanation_page.write(
            html, explanation_page.of_item(found, *recommender.events_in_prompt(read))
        )
    if json:
        console.print_json({**found.to_dict(), "understood": [asdict(u) for u in understood]})
    else:
        terminal.print_understood(understood)
        terminal.print_item(found)


@with_settings(*SEARCHING[:3], *SEARCHING[-2:], "decoder")
def rank(
    data: Data,
    user: User = None,
    history: Typed = None,
    items: Items = None,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Rank given items, such as another system's candidates, by their exact probability.

    Items of the history are left out where that is the data's habit; `score` keeps them.
    """
    _ranked(settings, data, user, history, model, run, items, keep=False, json=json)


@with_settings(*SEARCHING[:3], *SEARCHING[-2:], "decoder", "exclude_seen")
def score(
    data: Data,
    user: User = None,
    history: Typed = None,
    items: Items = None,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """As `rank`, but every item keeps its place, those of the history too."""
    _ranked(settings, data, user, history, model, run, items, keep=True, json=json)


def _ranked(
    settings: Chosen,
    data: Path,
    user: str | None,
    history: str | None,
    model: str,
    run: Path | None,
    items: Path | None,
    *,
    keep: bool,
    json: bool,
) -> None:
    """Prints items by their exact probability; whether those of the history keep their place."""
    from genrec.reports import console, terminal

    candidates = read_ids(items)
    recommender, given = load_request(settings, data, user, history, model, run, quiet=json)
    with console.working("Scoring ...", quiet=json):
        answer = (recommender.score if keep else recommender.rank)(given, candidates)
    if json:
        console.print_json(answer.to_dict())
    else:
        terminal.print_recommendations(answer)


@with_settings(*SEARCHING, "decoder", "normalization", "few_shot", "exclude_seen")
def likes(
    data: Data,
    items: Annotated[Path, typer.Option(help="File with one item_id a line.")],
    user: User = None,
    history: Typed = None,
    model: Model = "smollm2-135m",
    run: RunFolder = None,
    settings: Chosen = None,
    json: AsJson = False,
) -> None:
    """Ask of each item alone whether they will want it: the probability of yes against no.

    Best with a run of `train --objective pointwise`; each item takes a title and a question.
    """
    from genrec.reports import console, terminal

    candidates = read_ids(items)
    assert candidates is not None
    recommender, given = load_request(settings, data, user, history, model, run, quiet=json)
    with console.working("Asking ...", quiet=json):
        read, understood = recommender.understand(given)
        found = zip(candidates, recommender.would_like(read, candidates), strict=True)
    answer = {
        "schema_version": 1,
        "user_id": read.user_id,
        "model": recommender.model.name,
        "behavior": recommender.behavior,
        "items": [
            {
                "item_id": i,
                "title": recommender.catalog[recommender.catalog.row(i)].title,
                "probability": p,
            }
            for i, p in sorted(found, key=lambda pair: -pair[1])
        ],
        "understood": [asdict(u) for u in understood],
    }
    if json:
        console.print_json(answer)
    else:
        terminal.print_likes(answer, understood)


def demo(
    model: Model = "smollm2-135m",
    language: Annotated[str, typer.Option(help="en, or zh: the same on made Chinese data.")] = "en",
    users: Annotated[int, typer.Option(help="Users in the small evaluation.")] = 30,
    run: Annotated[
        str,
        typer.Option(
            help="Run folder to show beside the untrained model; auto is the one in the package, "
            "where it fits model and language, none none."
        ),
    ] = "auto",
    prior: PriorName = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Threads = None,
    json: AsJson = False,
) -> None:
    """Show it all on embedded data: data, prompt, recommendations, a hit rate. A few minutes."""
    from genrec.cli import demo as walk

    walk.run(
        model,
        users,
        run=run,
        language=language,
        device=device,
        dtype=dtype,
        threads=threads,
        prior=prior,
        json=json,
    )


def doctor(
    model: Annotated[
        str | None, typer.Option(help="Load this model too and say how it would be run.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Log what is installed and found here: versions, devices, threads, models, disk."""
    from genrec.cli.doctor import examine
    from genrec.reports import console

    with console.working("Looking around ...", quiet=json):
        report = examine(model)
    if json:
        console.print_json({"schema_version": 1, **report})
        return
    rows = [
        [part, name, str(value)]
        for part, values in report.items()
        for name, value in values.items()
    ]
    console.print_table(["part", "what", "found"], rows)
