// Choose a customer or type a history, and show the events.
import { html, useEffect, useRef, useState } from "./html.js";
import { address, ask } from "./api.js";
import { Completing, Failure, Select } from "./parts.js";
import { date, itemAddress, nats } from "./format.js";
import { useShared } from "./state.js";

export const VISIBLE = 0.005; // nats; weaker evidence does not light an event up
const FEW = 30;

/** Choose whose lists are shown. */
export function Subject({ subject, choose }) {
  const { t } = useShared();
  const other = (kind) => () => kind !== subject.kind &&
    choose(kind === "typed" ? { kind, events: [], session: null } : { kind, id: "" });
  return html`<section class="panel" aria-labelledby="whose">
    <h2 id="whose">${t("whose")}</h2>
    <div class="switch" role="group" aria-labelledby="whose">
      ${["customer", "typed"].map((kind) => html`<button type="button" key=${kind}
        aria-pressed=${subject.kind === kind ? "true" : "false"} onClick=${other(kind)}>${t(kind)}</button>`)}
    </div>
    ${subject.kind === "customer"
      ? html`<${Customer} key="customer" subject=${subject} choose=${choose} />`
      : html`<${Typed} key="typed" subject=${subject} choose=${choose} />`}
  </section>`;
}

function Customer({ subject, choose }) {
  const { t } = useShared();
  const find = async (prefix, signal) =>
    (await ask(address("/v1/users", { prefix, limit: 12 }), undefined, { signal })).users;
  const take = (id) => choose({ kind: "customer", id });
  return html`<${Completing} key=${subject.id} label=${t("customer id")} hint=${t("customer hint")}
    start=${subject.id} clears=${false} find=${find} choose=${take}
    enter=${(text) => take(text)} show=${(id) => ({ text: id })} />`;
}

function Typed({ subject, choose }) {
  const { t, tell, shop, language } = useShared();
  const [behavior, setBehavior] = useState(shop.behavior);
  const [notes, setNotes] = useState([]);
  const [error, setError] = useState(null);
  const add = (...more) => {
    const events = [...subject.events, ...more].slice(-200);
    choose({ kind: "typed", events, session: null });
  };
  const find = async (query, signal) => query.trim()
    ? (await ask(address("/v1/items", { query, limit: 10 }), undefined, { signal })).items : [];
  const event = (item) => ({ item_id: item.item_id, title: item.title, behavior });
  // Text that is not a title may be a whole history, which the service takes apart.
  const enter = async (text, found) => {
    setNotes([]);
    setError(null);
    const same = found.find((item) => item.title.toLowerCase() === text.toLowerCase());
    if (same) {
      add(event(same));
      return;
    }
    try {
      const asked = { history: text, k: 1, impression: false, counting: shop.counts };
      const { understood } = await ask("/v1/recommend", asked);
      const known = understood.filter((piece) => piece.item_id);
      setNotes(understood.filter((piece) => !piece.item_id));
      if (known.length) {
        add(...known.map((piece) => ({
          item_id: piece.item_id, title: piece.title, behavior: piece.behavior ?? behavior,
        })));
      }
    } catch (problem) {
      setError(problem);
    }
  };
  const verbs = shop.behaviors.map((name) => [name, tell(name)]);
  return html`<div class="typed">
    <${Select} label=${t("did")} value=${behavior} options=${verbs} choose=${setBehavior} />
    <${Completing} label=${t("item")} hint=${t("item hint")} find=${find} enter=${enter}
      choose=${(item) => add(event(item))} show=${(item) => ({ text: item.title, more: item.item_id })} />
    ${error && html`<${Failure} error=${error} />`}
    ${notes.map((piece) => html`<p class="note" role="status">
      ${t("not understood", { text: piece.text })}
      ${piece.suggestions?.length
        ? html` ${t("perhaps", { titles: piece.suggestions.map(titleOf).join(language === "zh" ? "；" : "; ") })}`
        : null}
    </p>`)}
    ${subject.events.length ? null : html`<p class="quiet">${t("typed empty")}</p>`}
  </div>`;
}

const titleOf = (suggestion) =>
  typeof suggestion === "string" ? suggestion : String(suggestion.title ?? "");

/**
 * Match the evidence for an item to the events of a history.
 * The events in the prompt are the latest of those that are not refusals.
 */
export function match(events, refusals, reason) {
  const shares = new Map();
  if (!reason) return shares;
  const read = events.filter((event) => !refusals.includes(event.behavior));
  const start = read.length - reason.events;
  for (const one of reason.explanation.evidence) {
    const at = read[start + one.event];
    const same = (event) => event && (event.item_id ?? null) === one.item_id;
    const found = same(at) ? at : read.findLast(same);
    if (found) shares.set(found, one.nats);
  }
  return shares;
}

/** Show the events of a history, latest first. While a card is active, its evidence lights them up. */
export function History({ events, shares, active, remove }) {
  const { t, language } = useShared();
  const [all, setAll] = useState(false);
  const list = useRef(null);
  const latest = events.toReversed();
  const shown = all ? latest : latest.slice(0, FEW);
  const strongest = Math.max(VISIBLE, ...shares.values());
  const known = active && shares.size > 0;
  useEffect(() => {
    if (known) reveal(list.current.querySelector(".strongest"), list.current.closest(".side"));
  }, [shares, known]);
  const title = events.length === 1 ? t("history of one") : t("history of", { n: events.length });
  return html`<section class="panel history" aria-labelledby="history">
    <h2 id="history">${title}</h2>
    ${events.length > 1 && html`<p class="quiet">${t("history order")}</p>`}
    <ol class=${known ? "events known" : "events"} ref=${list}>
      ${shown.map((event, index) => {
        const day = date(event.timestamp, language);
        const before = index > 0 ? date(shown[index - 1].timestamp, language) : "";
        return html`<${Event} key=${latest.length - index} event=${event} day=${day === before ? "" : day}
          known=${known} drop=${shares.get(event)} strongest=${strongest} remove=${remove} />`;
      })}
    </ol>
    ${events.length === 0 && html`<p class="quiet">${t("no events")}</p>`}
    ${latest.length > shown.length && html`<button type="button" onClick=${() => setAll(true)}>
      ${t("all events", { n: latest.length })}</button>`}
  </section>`;
}

function Event({ event, day, known, drop, strongest, remove }) {
  const { t, tell, shop } = useShared();
  const lit = known && drop !== undefined && Math.abs(drop) >= VISIBLE;
  const side = lit ? (drop > 0 ? "for" : "against") : "";
  const share = lit ? Math.abs(drop) / strongest : 0;
  const kind = [
    "event", side, known && side !== "for" ? "dim" : "", shop.refusals.includes(event.behavior) ? "refused" : "", side === "for" && share === 1 ? "strongest" : "",
  ].join(" ");
  return html`<li>
    ${day && html`<p class="when">${day}</p>`}
    <div class=${kind} style=${{ "--share": `${Math.round(share * 100)}%` }}>
      <span><span class="did">${tell(event.behavior)}</span> ${event.item_id
        ? html`<a href=${itemAddress(event.item_id)}>${event.title}</a>` : html`<q>${event.text}</q>`}</span>
      ${lit && html`<span class="nats">${nats(drop)}<span class="hidden"> ${t(side)}</span></span>`}
      ${remove && html`<button type="button" class="small" onClick=${() => remove(event)}
        aria-label=${t("remove event", { title: event.title ?? event.text })}>×</button>`}
    </div>
  </li>`;
}

/** Scroll a column so that an element in it can be seen, without moving the rest of the page. */
function reveal(element, column) {
  if (!element || column.scrollHeight <= column.clientHeight) return;
  const inner = element.getBoundingClientRect();
  const outer = column.getBoundingClientRect();
  const missing = Math.max(0, inner.bottom - outer.bottom + 12) || Math.min(0, inner.top - outer.top - 12);
  if (missing) column.scrollBy({ top: missing });
}
