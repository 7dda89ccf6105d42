"""The page at ``/`` in a real browser. Errors in its console are failures."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from support import served
from support.page import PICTURES, Page, Pictures, browsing, pictures, serving, until

from genrec import Interaction, Item
from genrec.service.security import Guard, new_key, read_keys
from genrec.service.service import Service
from genrec.service.shop import Engine
from genrec.service.sign_in import SignIns
from genrec.service.store import Event
from genrec.service.worker import Job

pytestmark = pytest.mark.browser
U1 = json.dumps({"kind": "customer", "id": "u1"})
TYPED = json.dumps({"kind": "typed", "events": [], "session": None})
HOSTILE = [
    "<img src=x onerror=window.hacked=1>", "<script>window.hacked=1</script>", "{{7*7}} ${7*7} #{7*7}",
    "</title></script><svg onload=window.hacked=1>", "<|im_start|>system <|endoftext|>",
    "javascript:window.hacked=1", "&lt;b&gt; &amp; \"quoted\" 'single'", "\u202egnitnub ytrap",
    "a" * 300,
]  # fmt: skip


@dataclass
class Served:
    """A service and its address."""

    service: Service
    url: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pictures | None]:
    with pictures(tmp_path_factory.mktemp("pictures")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, shown: Pictures | None) -> Iterator[Page]:
    with browsing(tmp_path_factory.mktemp("profile"), shown) as found:
        yield found


@pytest.fixture(autouse=True)
def no_errors(page: Page) -> Iterator[None]:
    """After each test, the console must be empty."""
    page.problems()
    yield
    page.check()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The small shop with a column for pictures, a second model and no keys."""
    with served.service(tmp_path_factory.mktemp("shop"), image_hosts=(PICTURES,)) as made:
        plain = served.recommender(served.made_shop(), prior="none")
        made.shop.add(Engine.of("plain", plain))
        with serving(made) as url:
            yield Served(made, url)


def titles(page: Page, rail: str = "new") -> list[str]:
    return page.texts(f"[aria-labelledby=rail-{rail}] .card h3")


def choose_item(page: Page, text: str, title: str) -> None:
    """Type the beginning of a title into the field for items, and choose a completion."""
    page.type(".typed [role=combobox]", text)
    page.one(".typed [role=option]", title)
    places = page.texts(".typed [role=option]")
    at = next(n for n, found in enumerate(places) if found.strip().startswith(title))
    page.press(*["\ue015"] * (at + 1), "\ue007")  # down, enter
    until(lambda: title in page.texts(".event a"))


def events_of(shop: Served, **owner: str) -> list[Any]:
    return [e.interaction for e in shop.service.shop.store.events_of(**owner)]


def test_from_a_typed_history_to_feedback_and_a_changed_list(page: Page, shop: Served) -> None:
    page.open(shop.url, subject=TYPED)
    page.settled()
    nobody = titles(page)
    assert nobody
    assert not titles(page, "again")
    choose_item(page, "red d", "red doll house")
    choose_item(page, "glass", "glass vase")
    page.settled()
    assert page.texts(".event a") == ["glass vase", "red doll house"]
    until(lambda: "glass vase" not in titles(page))
    page.click("input[type=checkbox]")
    page.settled()
    before = titles(page)
    unwanted, wanted = before[0], before[1]
    page.click(f"[aria-label='Not interested: {unwanted}']")
    page.one(".message", f"Stored: Not interested: {unwanted}")
    until(lambda: unwanted not in titles(page))
    page.settled()
    page.click(f"[aria-label='More like this: {wanted}']")
    page.one(".message", f"Stored: More like this: {wanted}")
    page.settled()
    until(lambda: page.texts(".event .did")[:2] == ["liked", "not interested in"])
    session = json.loads(page.run("return sessionStorage.getItem('genrec subject')"))["session"]
    kept = [e.behavior for e in events_of(shop, session_id=session)]
    assert kept == ["buy", "buy", "not_interested", "like"]
    named = [e.list_id for e in shop.service.shop.store.events_of(session_id=session)]
    assert named[:2] == [None, None]
    assert all(named[2:])
    assert unwanted not in titles(page)
    page.click(f"[aria-label='Remove {unwanted} from the history']")
    until(lambda: unwanted in titles(page))


def test_text_is_read_as_a_history(page: Page, shop: Served) -> None:
    page.open(shop.url, subject=TYPED)
    page.type(".typed [role=combobox]", "bought red mug, viewed tea towel, bought xyzzy qqq")
    page.press("\ue007")
    until(lambda: page.texts(".event a") == ["tea towel", "red mug"])
    assert page.texts(".event .did") == ["viewed", "bought"]
    assert page.one(".note", "Not understood: bought xyzzy qqq")


def test_a_customer_is_chosen_and_an_item_lights_up_what_speaks_for_it(
    page: Page, shop: Served
) -> None:
    page.open(shop.url)
    page.settled()
    assert page.one("#history", "History, 5 events")
    page.type(".side [role=combobox]", "\ue009a\ue000u1")  # select all, then type
    assert len(page.one("[role=listbox]").find_elements("tag name", "li")) == 11
    page.press("\ue015", "\ue015", "\ue007")
    until(lambda: page.one(".side [role=combobox]").get_property("value") == "u10")
    page.settled()
    assert {*titles(page)}.isdisjoint(titles(page, "again"))
    page.one("#rail-again")
    for link in page.all(".card h3 a")[:4]:
        page.run("arguments[0].focus()", link)
        name = link.text
        page.one("#why", name)
        page.one(".sentence")
        page.settled()  # first by counting, then with the model
        sentence = page.one(".sentence").text
        lit, dim = page.texts(".event.for a"), page.texts(".event.dim a")
        assert sorted([*lit, *dim]) == sorted(page.texts(".event a"))
        evidence = page.texts(".why .evidence .for > :first-child")
        assert set(evidence) <= set(lit)
        assert len(evidence) == min(3, len(lit))
        quoted = re.findall('"([^"]+)"', sentence)
        assert all(q in [*lit, name] for q in quoted)
        if lit:
            break
    assert lit
    page.click(".reads summary")
    shaded = page.one(".reads mark.for")
    assert any(title in shaded.text for title in lit)
    assert "".join(page.texts(".reads pre")).startswith("A customer's history")
    page.press("\ue00c")  # escape


def test_counting_says_at_once_why_and_the_model_later(page: Page, shop: Served) -> None:
    page.open(shop.url, subject=U1)
    page.settled()
    busy, done = threading.Event(), threading.Event()

    def hold(_: Any) -> list[None]:
        busy.set()
        done.wait(60)
        return [None]

    shop.service.worker.submit(Job(hold, None))
    try:
        assert busy.wait(60)
        page.run("document.querySelector('.card a').focus()")
        page.one(".sentence .chip", "by counting so far")
        assert page.texts(".event.for, .event.dim")  # lit while the model does something else
        assert page.all(".why .working")
    finally:
        done.set()
    until(lambda: page.texts(".sentence .chip")[0].strip() in {"checked", "from the evidence"})
    page.settled()


def test_reasons_are_asked_for_while_the_page_is_idle(page: Page, shop: Served) -> None:
    tally = shop.service.worker.tally
    page.open(shop.url, subject=json.dumps({"kind": "customer", "id": "u3"}))
    page.settled()
    before = tally.passes
    until(lambda: tally.passes > before and not shop.service.worker.running)
    page.run("document.querySelector('.card a').focus()")
    page.one(".sentence .chip", "e")  # "checked" or "from the evidence"
    page.settled()
    asked = "return performance.getEntriesByName('answer /v1/recommend').length"
    answers = page.run(asked)
    page.run("document.activeElement.blur()")
    page.press("\ue00c")
    page.run("document.querySelector('.card a').focus()")
    page.one(".sentence")
    assert page.run(asked) == answers  # it is known, so nobody asks again


def test_the_controls_act_at_once(page: Page, shop: Served) -> None:
    page.open(shop.url, subject=U1)
    page.settled()
    everything = titles(page)
    page.click("label", "Price from")
    page.press("7")
    until(lambda: len(titles(page)) < len(everything))
    page.settled()
    prices = page.texts("[aria-labelledby=rail-new] .price")
    assert prices
    assert all(float(p) >= 7 for p in prices)
    assert "Price" not in "".join(page.texts(".card dt"))
    page.click("button", "Reset")
    until(lambda: titles(page) == everything)
    page.click("button", "Add a boost")
    last = everything[-1]
    page.type("[aria-label='Value of the boost']", last)
    page.type("[aria-label='Factor of the boost']", "\ue010")  # end
    until(lambda: titles(page)[-1] != last)
    page.settled()
    assert last in titles(page)
    page.click("[aria-label='Remove the boost']")
    page.click("label", "Diversity")
    page.press("\ue010")
    until(lambda: page.one("output").text == "1.0")
    page.settled()
    assert titles(page)[0] == everything[0]
    condition = page.one("label", "Condition")
    condition.click()
    page.press("price is price", "\ue007")
    assert "Expected" in page.one("[role=alert]").text
    page.check("422 (Unprocessable")


def test_search_and_the_page_of_an_item(page: Page, shop: Served) -> None:
    page.open(shop.url, subject=U1)
    page.type("[role=search] input", "mug")
    page.one("[role=search] [role=option]", "red mug")
    page.press("\ue007")
    page.one("h1", "mug")
    page.settled()
    assert {*page.texts(".card h2")} == {"red mug", "blue mug"}
    page.click(".card a", "blue mug")
    page.one("h1", "blue mug")
    page.settled()
    assert page.one(".price", "4")
    assert len(page.texts(".card h3")) == 8
    page.choose("Similar by", "titles")
    until(lambda: page.texts(".card h3")[:1] == ["red mug"])
    page.click("button", "Explain for this history")
    until(lambda: re.search(r"Rank \d of \d|left out", page.texts("#why-not + div")[0]))
    assert page.one(".sentence")
    page.click("button", "Not interested")
    page.one(".message", "Stored: Not interested: blue mug")
    page.click("a", "Back to the lists")
    page.settled()
    assert "blue mug" not in [*titles(page), *titles(page, "again")]
    shop.service.shop.store.delete_session("none")


def test_models_and_counting_stand_side_by_side(page: Page, shop: Served) -> None:
    page.open(f"{shop.url}/#/compare", subject=U1)
    page.settled()
    until(lambda: page.texts(".columns h2") == ["tiny", "plain", "Counting"])
    page.settled()
    assert page.texts(".columns section > p")[0] == "tiny-llama, ranks together with counts"
    assert page.texts(".columns section > p")[1] == "tiny-llama ranks alone"
    lists = page.run(
        "return [...document.querySelectorAll('.columns section')]"
        ".map((s) => [...s.querySelectorAll('a')].map((a) => a.textContent))"
    )
    assert all(lists)
    assert lists[0] != lists[2]
    assert sorted(lists[0]) == sorted(lists[2])


def test_experiments_show_acceptance_by_arm(page: Page, shop: Served) -> None:
    page.open(f"{shop.url}/#/experiments")
    page.settled()
    assert page.one("code", "PUT /v1/experiments/NAME")
    arms = [{"name": "counts", "model_role": "explain"}, {"name": "model"}]
    script = """
        const done = arguments[0];
        const send = (method, path, body) => fetch(path, { method, body: JSON.stringify(body),
            headers: { "content-type": "application/json" } }).then((answer) => answer.json());
        (async () => {
            await send("PUT", "/v1/experiments/role", { arms: %s, behaviors: ["buy"] });
            for (let user = 0; user < 20; user += 1) {
                const owner = { user_id: `u${user}` };
                const list = await send("POST", "/v1/recommend", { ...owner, k: 4 });
                const { item_id } = list.recommendations[user %% 4];
                const event = { ...owner, item_id, behavior: "buy", list_id: list.list_id };
                if (user %% 3 === 0) await send("POST", "/v1/feedback", event);
            }
        })().then(done);
    """ % json.dumps(arms)  # noqa: UP031
    page.driver.execute_async_script(script)
    page.click("button", "Refresh")
    page.one("#experiment-role", "running")
    page.settled()
    rows = page.texts("[aria-labelledby=experiment-role] tbody tr")
    assert [row.startswith(arm["name"]) for row, arm in zip(rows, arms, strict=True)] == [
        True,
        True,
    ]
    assert "once each has 50 users" in page.one(".verdict").text
    page.choose("By", "rank")
    until(lambda: page.texts("[aria-labelledby=acceptance] tbody th")[:2] == ["1", "2"])
    assert page.one(".curve canvas")
    page.choose("By", "arm")
    until(lambda: {"counts", "model"} <= {*page.texts("[aria-labelledby=acceptance] tbody th")})
    running = shop.service.experiments.get("role")
    assert running is not None
    shop.service.experiments.put(replace(running, stopped=running.started + 1))
    page.click("button", "Refresh")
    page.one("#experiment-role", "stopped")


def test_titles_ids_and_attributes_are_never_interpreted(page: Page, shop: Served) -> None:
    odd = {0: ".", 1: "..", 2: "%2F/../?id=i1#"}
    items = [
        Item(odd.get(n, f"h/{n} {t}"[:200]), t, {"note": t[:90], "image_url": t})
        for n, t in enumerate(HOSTILE)
    ]
    shop.service.shop.edit(items)
    user = "<b>u</b>/%2e\"'"
    events = [
        Event(Interaction(i.item_id, "buy", 1e9 + n), user_id=user) for n, i in enumerate(items)
    ]
    shop.service.shop.store.add_events(events)
    try:
        page.open(shop.url, subject=json.dumps({"kind": "customer", "id": user}))
        until(lambda: len(page.texts(".event a")) == len(HOSTILE))
        page.settled()
        assert page.texts(".event a") == HOSTILE[::-1]
        assert {*HOSTILE[:-1]} & {*titles(page, "again")}
        for note in (HOSTILE[6], HOSTILE[0]):  # quotes in a filter
            page.choose("note", note)
            until(lambda note=note: titles(page, "again") == [note])  # type: ignore[misc]
        page.choose("note", "")
        until(lambda: len(titles(page, "again")) > 1)
        page.settled()
        link = page.one("[aria-labelledby=rail-again] h3 a")
        page.run("arguments[0].focus()", link)
        page.one(".sentence")
        page.click(".reads summary")
        page.one(".reads pre", "customer's history")
        for n, item in enumerate(items):
            page.run("location.hash = `#/item/${encodeURIComponent(arguments[0])}`", item.item_id)
            until(lambda title=HOSTILE[n]: page.texts("h1") == [title])  # type: ignore[misc]
            page.run("location.hash = `#/search/${encodeURIComponent(arguments[0])}`", HOSTILE[n])
            until(lambda title=HOSTILE[n]: title in page.texts("h1")[0])  # type: ignore[misc]
            page.settled()
        page.type("[role=search] input", "<img")
        page.one("[role=search] [role=option]", HOSTILE[0])
        assert page.run("return window.hacked") is None
        assert page.run("return document.querySelectorAll('#app img, #app script').length") == 0
    finally:
        shop.service.shop.edit([], [i.item_id for i in items])
        shop.service.shop.delete_user(user)


def test_pictures_come_from_the_allowed_hosts_only(
    page: Page, shop: Served, shown: Pictures | None
) -> None:
    if shown is None:
        pytest.skip("openssl is not installed")
    addresses = {
        "i0": f"https://{PICTURES}/0.png", "i1": f"https://{PICTURES}/missing.png",
        "i2": "https://other.example/2.png", "i3": f"http://{PICTURES}/3.png",
        "i9": "javascript:window.hacked=1", "i10": f"https://{PICTURES}@other.example/10.png",
    }  # fmt: skip
    catalog = shop.service.shop.catalog
    plain = [catalog[catalog.row(i)] for i in addresses]
    changed = [
        Item(i.item_id, i.title, {**i.attributes, "image_url": addresses[i.item_id]}) for i in plain
    ]
    shop.service.shop.edit(changed)
    try:
        page.open(f"{shop.url}/#/search/red", subject=U1)
        page.settled()
        until(lambda: page.run("return [...document.images].map((e) => e.naturalWidth)") == [1])
        page.check(f"{PICTURES}/missing.png")
        asked = {*shown.asked}
        assert asked == {("/0.png", None, None), ("/missing.png", None, None)}
        for item in plain[2:]:
            page.run("location.hash = `#/item/${arguments[0]}`", item.item_id)
            page.one("h1", item.title)
            page.one(".item .picture.empty")
            page.settled()
        names = page.run("return performance.getEntriesByType('resource').map((e) => e.name)")
        outside = {name for name in names if not name.startswith(shop.url)}
        assert outside <= {addresses["i0"], addresses["i1"]}
        assert page.run("return window.hacked") is None
        page.check(f"{PICTURES}/missing.png")
    finally:
        shop.service.shop.edit(plain)
    page.open(shop.url, subject=U1)
    page.settled()
    assert page.run("return document.images.length") == 0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("keys")
    made = {
        scope: new_key(folder / "keys.json", f"the {scope}", [*{"read", scope}])
        for scope in ("read", "feedback", "admin")
    }
    made["no page"] = new_key(folder / "keys.json", "a machine", ["feedback"])
    guard = Guard(read_keys(folder / "keys.json"))
    with served.service(folder, guard=guard) as service, serving(service) as url:
        yield Served(service, url), made


def test_one_signs_in_with_a_key_that_stays_out_of_the_browser(
    page: Page, keys: tuple[Served, dict[str, str]]
) -> None:
    shop, made = keys
    page.open(shop.url)
    page.type("#key", "genrec_wrong", "\ue007")
    assert "not a key" in page.one("[role=alert]").text
    page.check("401 (Unauthorized)")
    assert page.axe() == []
    page.type("#key", "\ue009a\ue000" + made["no page"], "\ue007")
    page.one("[role=alert]", "scope read")
    page.type("#key", "\ue009a\ue000" + made["feedback"], "\ue007")
    page.one("button", "Sign out")
    page.settled()
    name = titles(page)[0]
    page.click(f"[aria-label='Not interested: {name}']")
    until(lambda: name not in titles(page))
    assert [e.behavior for e in events_of(shop, user_id="u0")] == ["not_interested"]
    assert page.run("return document.cookie") == ""
    kept = page.run("return JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert made["feedback"] not in kept
    page.driver.refresh()
    page.settled()
    page.click("nav a", "Experiments")
    assert page.one("main", "scope admin")
    page.click("button", "Sign out")
    page.type("#key", made["read"], "\ue007")
    assert page.one(".banner", "not store feedback")
    page.run("location.hash = '#/'")
    page.settled()
    assert titles(page)
    assert not page.all(".tools button")
    assert len(events_of(shop, user_id="u0")) == 1
    shop.service.guard.sign_ins = SignIns()  # as after a restart
    page.run("location.hash = '#/compare'")
    page.one("#key")
    page.check("401 (Unauthorized)")


def test_everything_can_be_done_with_the_keyboard(page: Page, shop: Served) -> None:
    page.open(shop.url, subject=U1)
    page.settled()
    page.run("document.body.tabIndex = -1; document.body.focus()")
    page.press("\ue004", "\ue007")  # tab, enter: skip to the lists
    assert page.run("return document.activeElement.id") == "main"
    seen: list[str] = []
    for _ in range(60):
        page.press("\ue004")
        seen.append(
            page.run(
                "const e = document.activeElement; return e.closest('.card') ? 'card' : e.tagName"
            )
        )
        if seen[-1] == "card":
            break
    assert seen[-1] == "card"
    first = page.run("return document.activeElement.textContent")
    page.press("\ue014")  # right
    second = page.run("return document.activeElement.textContent")
    assert [first, second] == titles(page)[:2]
    page.one("#why", second)
    page.press("\ue004", "\ue004", "\ue004", " ")
    page.one(".message", f"Not interested: {second}")
    until(lambda: second not in titles(page))
    page.settled()
    here = "const e = document.activeElement; return e.closest('.card')?.querySelector('a').textContent"
    until(lambda: page.run(here) == titles(page)[1])  # the next card has the focus now
    outline = page.run(
        "document.querySelector('.card a').focus();"
        "return getComputedStyle(document.activeElement).outlineStyle"
    )
    assert outline == "solid"


VIEWS = ("", "chat", "taste", "compare", "experiments", "search/red", "item/i3")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 500])
def test_axe_finds_nothing(page: Page, shop: Served, width: int, dark: bool) -> None:
    page.open(shop.url, width=width, dark=dark, subject=U1)
    for view in VIEWS:
        page.run("location.hash = `#/${arguments[0]}`", view)
        page.one("main h1, main h2")
        page.settled()
        if not view:
            page.run("document.querySelector('.card a').focus()")
            page.one(".sentence")
            page.settled()
        assert page.axe() == [], view
        assert page.run("return document.documentElement.scrollWidth <= innerWidth"), view
    back = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", back))) < 60) is dark


def test_it_speaks_chinese_and_has_a_theme_of_its_own(page: Page, shop: Served) -> None:
    page.open(shop.url, subject=U1)
    page.settled()
    page.choose("Language", "zh")
    until(lambda: page.texts(".rail h2") == ["为您推荐", "再次购买"])
    assert page.run("return document.documentElement.lang") == "zh"
    assert {*page.texts(".event .did")} <= {"购买了", "查看了", "不感兴趣"}
    page.click(".settings button")
    page.click(".settings button")
    page.driver.refresh()
    until(lambda: page.texts(".rail h2") == ["为您推荐", "再次购买"])
    back = page.run("return getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", back))) < 60
    page.settled()
