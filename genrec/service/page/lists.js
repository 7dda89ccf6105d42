// The main view: two rails of cards, and why an item is in them.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { address, ask } from "./api.js";
import { Card, moveFocus } from "./cards.js";
import { Controls, optionsOf } from "./controls.js";
import { nats } from "./format.js";
import { Failure, Working } from "./parts.js";
import { Reasons } from "./reasons.js";
import { give, historyOf, useAnswer, useLatest, useShared } from "./state.js";
import { History, match, Subject, VISIBLE } from "./subject.js";

const MOST_EVENTS = 200;
const PATIENCE = 150; // milliseconds before a request follows the pointer or a control
const FRESH = 60_000; // milliseconds for which one comes back to the same lists
const SOON = 40; // milliseconds before counting is asked, which costs little
const reasons = new WeakMap(); // for each answer, the reasons that were asked for
let latest = { key: "", time: 0, answer: null };

async function listsFor(key, body, signal) {
  if (latest.key === key && performance.now() - latest.time < FRESH) return latest.answer;
  const answer = await ask("/v1/recommend", body, { signal });
  latest = { key, time: performance.now(), answer };
  reasons.set(answer, new Reasons());
  return answer;
}

/** The lists, whom they are for, and the controls. */
export function Lists({ subject, choose, controls, change, models, scenarios }) {
  const { t, shop, say, can } = useShared();
  const whole = subject.kind === "typed" || subject.id !== "";
  const counted = controls.counted && can("feedback");
  const asked = { ...optionsOf(controls), shows: shop.shows, attributes: true, impression: counted };
  const key = JSON.stringify([asked, historyOf(subject), subject.version, subject.events]);
  const lists = useAnswer(
    (signal) => whole ? listsFor(key, { ...historyOf(subject), ...asked }, signal) : null,
    [key], latest.key === key ? 0 : PATIENCE,
  );
  const history = useAnswer((signal) => eventsOf(subject, signal),
    [JSON.stringify([subject.id, subject.version, subject.kind])]);
  const events = subject.kind === "typed" ? subject.events : history.data ?? [];
  const answer = useLatest(lists.data);
  const [pointed, setPointed] = useState(null); // the rail and the item that the pointer is on
  const [busy, setBusy] = useState(null);
  const told = useRef(null); // the place of the card whose button was used last
  useEffect(() => {
    setPointed(null);
    if (told.current) focusAgain(told.current);
    told.current = null;
  }, [answer]);
  const which = [pointed?.item.item_id, pointed?.show, answer];
  const counts = useAnswer(
    (signal) => pointed && shop.counts ? reasons.get(answer).count(pointed, subject, signal) : null,
    which, SOON,
  );
  const reason = useAnswer(
    (signal) => pointed ? reasons.get(answer).ask(pointed, subject, signal) : null, which, PATIENCE);
  const current = [reason.data, counts.data].find((one) =>
    one && one.of === reasons.get(answer) && one.item_id === pointed?.item.item_id) ?? null;
  useEffect(() => {
    if (!answer || pointed) return undefined;
    const stop = new AbortController();
    const cards = Object.entries(answer.rails).flatMap(([show, list]) =>
      list.recommendations.map((item) => ({ show, item, run: list.run })));
    reasons.get(answer).prepare(cards, subject, stop.signal);
    return () => stop.abort();
  }, [answer, pointed]);
  useLayoutEffect(() => {
    if (current) performance.mark(`reason ${current.counted ? "counted" : "whole"}`);
  }, [current]);
  const shares = useMemo(() => match(events, shop.refusals, current), [events, current]);
  useLayoutEffect(() => {
    if (lists.data) performance.mark("lists shown");
  }, [lists.data]);
  const tellAbout = async (show, item, behavior, listId) => {
    told.current = { show, at: answer.rails[show].recommendations.indexOf(item) };
    setBusy(item.item_id);
    setPointed(null); // its reasons would be those of the history before
    try {
      const next = await give(subject, item, behavior, listId);
      say(t("stored", { what: t("of item", { what: t(WORDS[behavior]), title: item.title }) }));
      choose(next);
    } catch (error) {
      say(error.status === 0 ? t("no answer") : error.message);
    }
    setBusy(null);
  };
  const remove = subject.kind === "typed" ? (event) => choose({
    kind: "typed", events: subject.events.filter((one) => one !== event), session: null,
  }) : null;
  return html`<div class=${subject.kind === "typed" ? "lists typing" : "lists"} onKeyDown=${(event) => event.key === "Escape" && setPointed(null)}>
    <h1 class="hidden">${t("lists")}</h1>
    <div class="side">
      <${Subject} subject=${subject} choose=${choose} />
      ${history.error && history.error.status !== 404 && html`<${Failure} error=${history.error} />`}
      <${History} events=${events} shares=${shares} active=${Boolean(pointed)} remove=${remove} />
      <${Reads} subject=${subject} whole=${whole} run=${controls.run} reason=${current} />
    </div>
    <div class="rails" aria-busy=${lists.since !== null ? "true" : "false"} onKeyDown=${moveFocus}>
      <${Controls} controls=${controls} change=${change} models=${models} scenarios=${scenarios} />
      <div class="state" role="status">
        ${whole && html`<${Working} since=${lists.since} text=${t("computing")} />`}
      </div>
      ${lists.error && html`<${Failure} error=${lists.error} />`}
      ${answer && !lists.error && Object.entries(answer.rails).map(([show, list]) =>
        html`<${Rail} key=${show} show=${show} list=${list} pointed=${pointed} busy=${busy}
          point=${(item) => setPointed({ show, item, run: list.run })}
          told=${(item, behavior) => tellAbout(show, item, behavior, counted ? list.list_id : null)} />`)}
      <${Why} pointed=${pointed} reason=${current} state=${reason} close=${() => setPointed(null)} />
    </div>
  </div>`;
}

/** Focus the card that is now where a card was whose button had the focus. */
function focusAgain({ show, at }) {
  if (document.activeElement !== document.body) return;
  const cards = document.querySelectorAll(`[aria-labelledby="rail-${show}"] .card a`);
  cards[Math.min(at, cards.length - 1)]?.focus();
}

const WORDS = { like: "up", dislike: "down", not_interested: "cross" };

async function eventsOf(subject, signal) {
  if (subject.kind !== "customer" || subject.id === "") return [];
  const path = address("/v1/user", { id: subject.id, limit: MOST_EVENTS });
  return (await ask(path, undefined, { signal })).history;
}

function Rail({ show, list, pointed, point, told, busy }) {
  const { t } = useShared();
  const items = list.recommendations;
  const exact = list.certificate?.exact;
  return html`<section class="rail" aria-labelledby=${`rail-${show}`}>
    <header>
      <h2 id=${`rail-${show}`}>${t(show === "all" ? "lists" : show)}</h2>
      ${items.length > 0 && list.certificate && html`<span class="chip"
        title=${t(exact ? "exact about" : "uncertain about")}>
        ${t(exact ? "exact" : "uncertain", { n: items.length })}</span>`}
      ${list.fallback && html`<span class="chip warn">${t("by counting", { why: t(list.fallback) })}</span>`}
    </header>
    ${items.length === 0 && html`<p class="quiet">${t(show === "again" ? "empty again" : "empty new")}</p>`}
    <ol class="cards">
      ${items.map((item) => html`<${Card} key=${item.item_id} item=${item}
        active=${pointed?.item.item_id === item.item_id} point=${() => point(item)}
        told=${(behavior) => told(item, behavior)} busy=${busy !== null} />`)}
    </ol>
    ${list.notes.length > 0 && items.length > 0 && html`<details class="remarks">
      <summary>${t("remarks")}</summary>${list.notes.map((note) => html`<p key=${note}>${note}</p>`)}
    </details>`}
  </section>`;
}

/** Why an item is in the list: the checked sentence, and the strongest events. */
function Why({ pointed, reason, state, close }) {
  const { t } = useShared();
  const evidence = reason?.explanation.evidence ?? [];
  const strong = evidence.filter((one) => one.nats >= VISIBLE).sort((a, b) => b.nats - a.nats).slice(0, 3);
  const against = evidence.filter((one) => one.nats <= -VISIBLE).sort((a, b) => a.nats - b.nats).slice(0, 1);
  const written = reason?.explanation.source === "generated";
  const source = reason?.counted ? "only counts" : written ? "checked" : "template";
  return html`<section class=${pointed ? "panel why open" : "panel why"} aria-labelledby="why">
    ${pointed && html`<button type="button" class="small" aria-label=${t("close")} onClick=${close}>×</button>`}
    <div class="said" aria-live="polite">
      <h2 id="why">${t("why")}${pointed && html` <span class="quiet">${pointed.item.title}</span>`}</h2>
      ${!pointed && html`<p class="quiet">${t("why hint")}</p>`}
      ${pointed && (!reason || reason.counted) && !state.error && html`<${Working} since=${state.since} text=${t("measuring")} />`}
      ${pointed && state.error && html`<${Failure} error=${state.error} />`}
      ${reason && html`<p class="sentence">${reason.explanation.text} <span class="chip"
        title=${t(`${source} about`)}>${t(source)}</span></p>`}
    </div>
    ${reason && html`<div class="sides">
      ${strong.length === 0 && html`<p class="quiet">${t("nothing speaks")}</p>`}
      ${[["for", strong], ["against", against]].map(([side, events]) => events.length > 0 && html`<div key=${side}>
        <h3 title=${t("evidence about")}>${t(`speaks ${side}`)}</h3>
        <ul class="evidence">${events.map((one) => html`<li key=${one.event} class=${side}>
          <span>${one.title}</span> <span class="nats">${nats(one.nats)}</span></li>`)}</ul>
      </div>`)}
    </div>`}
  </section>`;
}

/** The text that the model reads, in which each event is shaded by its evidence. */
function Reads({ subject, whole, run, reason }) {
  const { t } = useShared();
  const [open, setOpen] = useState(false);
  const state = useAnswer(
    (signal) => open && whole
      ? ask("/v1/prompt", { ...historyOf(subject), ...(run ? { run } : {}) }, { signal }) : null,
    [open, run, JSON.stringify([historyOf(subject), subject.version])],
  );
  const drops = new Map((reason?.explanation.evidence ?? []).map((one) => [one.event, one.nats]));
  const strongest = Math.max(VISIBLE, ...[...drops.values()].map(Math.abs));
  return html`<details class="panel reads" onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary><h2>${t("reads")}</h2></summary>
    ${open && html`<${Working} since=${state.since} text=${t("waiting")} />`}
    ${state.error && html`<${Failure} error=${state.error} />`}
    ${state.data && html`<p class="quiet">${t("reads about", state.data)}
      ${" "}${reason ? t("reads shade", { title: reason.title }) : t("reads none")}</p>
    <pre tabindex="0" aria-label=${t("reads")}>${state.data.pieces.map(({ text, event }, index) => {
      if (event === null) return html`<span key=${index}>${text}</span>`;
      const drop = drops.get(event) ?? 0;
      const side = Math.abs(drop) < VISIBLE ? "" : drop > 0 ? "for" : "against";
      return html`<mark key=${index} class=${side} title=${side ? nats(drop) : undefined}
        style=${{ "--share": `${Math.round((Math.abs(drop) / strongest) * 100)}%` }}>${text}</mark>`;
    })}</pre>`}
  </details>`;
}
