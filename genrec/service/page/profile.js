// The taste of a customer: interests with their events, what changed, what comes next, and corrections.
import { html, useId, useRef, useState } from "./html.js";
import { address, ask } from "./api.js";
import { Card, moveFocus } from "./cards.js";
import { columnName, itemAddress, nats, percent } from "./format.js";
import { Failure, Working } from "./parts.js";
import { useAnswer, useLatest, useShared } from "./state.js";
import { Subject } from "./subject.js";

const KINDS = ["added", "removed", "banned"];
const FEW = 3; // events that are named for an interest
const NEXT = 6; // items of the list below
const LONGEST = 100; // characters of a keyword

const addressOf = (subject) => address("/v1/user/profile", { id: subject.id });

/** The view: whose profile, the profile, and the list that follows from it. */
export function ProfileView({ subject, choose }) {
  const { t, say, shop } = useShared();
  const known = subject.kind === "customer" && subject.id !== "";
  const [changed, setChanged] = useState(0);
  const [busy, setBusy] = useState(false);
  const head = useRef(null);
  const inputs = [subject.kind, subject.id, subject.version, changed];
  const profile = useAnswer(
    (signal) => known ? ask(addressOf(subject), undefined, { signal }) : null, inputs);
  const list = useAnswer((signal) => known ? ask("/v1/recommend", {
    user_id: subject.id, k: NEXT, attributes: true, impression: false, counting: shop.counts,
  }, { signal }) : null, inputs);
  const shown = useLatest(profile.data);
  const items = useLatest(list.data)?.recommendations ?? [];
  const edits = shown?.edits ?? { added: [], removed: [], banned: [] };
  // A keyword is in one of the lists at most; without a kind, it is taken out of all of them.
  const move = async (keyword, kind) => {
    const word = keyword.trim();
    if (!word || busy) return;
    const same = (one) => one.toLowerCase() === word.toLowerCase();
    const next = Object.fromEntries(KINDS.map((name) => [
      name, [...edits[name].filter((one) => !same(one)), ...(name === kind ? [word] : [])]]));
    setBusy(true);
    try {
      await ask(addressOf(subject), next, { method: "PATCH" });
      setChanged(changed + 1);
      say(t(kind ? `taste ${kind} said` : "taste undone", { keyword: word }));
      head.current?.focus();
    } catch (error) {
      say(error.status === 0 ? t("no answer") : error.message);
    }
    setBusy(false);
  };
  return html`<div class="taste">
    <h1 tabindex="-1" ref=${head}>${t("taste")}</h1>
    <p class="quiet">${t("taste about")}</p>
    <div class="columns">
      <div class="stack">
        <${Subject} subject=${subject} choose=${choose} />
        ${known && shown && html`<${Edits} edits=${edits} move=${move} busy=${busy} />`}
      </div>
      <div class="stack">
        ${!known && html`<p class="note">${t("taste customers")}</p>`}
        ${known && html`<${Working} since=${profile.since} text=${t("loading")} />`}
        ${known && profile.error && html`<${Failure} error=${profile.error} />`}
        ${known && shown && !profile.error && html`<${Profile} profile=${shown} move=${move} busy=${busy} />`}
      </div>
    </div>
    ${known && html`<section class="rail" aria-labelledby="taste-next" aria-busy=${list.since !== null ? "true" : "false"}>
      <h2 id="taste-next">${t("taste list")}</h2>
      ${list.error && html`<${Failure} error=${list.error} />`}
      <ol class="cards" onKeyDown=${moveFocus}>
        ${items.map((item) => html`<${Card} key=${item.item_id} item=${item} />`)}
      </ol>
    </section>`}
  </div>`;
}

function Profile({ profile, move, busy }) {
  const { t, language } = useShared();
  return html`<section class="panel" aria-labelledby="taste-interests">
    <h2 id="taste-interests">${t("taste interests")}</h2>
    ${profile.text[language] && html`<p>${profile.text[language]}</p>`}
    ${profile.interests.length === 0 && html`<p class="quiet">${t("taste none")}</p>`}
    <ul class="interests">${profile.interests.map((one) => html`<${Interest} key=${one.keyword}
      interest=${one} of=${profile.events} move=${move} busy=${busy} />`)}</ul>
    ${profile.notes.map((note) => html`<p key=${note} class="quiet">${note}</p>`)}
  </section>
  <${Shifts} shifts=${profile.shifts} />
  <${Next} next=${profile.next} />`;
}

/** A keyword, and the events that speak for it, latest first. */
function Interest({ interest, of, move, busy }) {
  const { t, tell, can } = useShared();
  const { keyword, events, source } = interest;
  const latest = events.toReversed().slice(0, FEW);
  return html`<li>
    <div class="row"><strong>${keyword}</strong>
      <span class="quiet">${source === "added" ? t("taste yours") : t("taste events", { n: events.length, of })}</span>
      ${interest.nats !== null && html`<span class="nats">${nats(interest.nats)}</span>`}
      ${can("admin") && html`<span class="tools">
        <button type="button" class="small" disabled=${busy} onClick=${() => move(keyword, "removed")}
          aria-label=${t("of item", { what: t("taste remove"), title: keyword })}>${t("taste remove")}</button>
        <button type="button" class="small" disabled=${busy} onClick=${() => move(keyword, "banned")}
          aria-label=${t("of item", { what: t("taste ban"), title: keyword })}>${t("taste ban")}</button>
      </span>`}
    </div>
    ${latest.length > 0 && html`<ul class="evidence">${latest.map((event) => html`<li key=${event.event}>
      <span><span class="did">${tell(event.behavior)}</span> ${event.item_id
        ? html`<a href=${itemAddress(event.item_id)}>${event.title}</a>` : event.title}</span></li>`)}</ul>`}
  </li>`;
}

function Shifts({ shifts }) {
  const { t } = useShared();
  if (!shifts.length) return null;
  return html`<section class="panel" aria-labelledby="taste-shifts">
    <h2 id="taste-shifts">${t("taste shifts")}</h2>
    <ul>${shifts.map((one) => html`<li key=${one.keyword}>
      ${t(one.rises ? "taste rises" : "taste falls", {
        keyword: one.keyword, recent: one.recent, of_recent: one.of_recent,
        earlier: one.earlier, of_earlier: one.of_earlier,
      })}</li>`)}</ul>
  </section>`;
}

function Next({ next }) {
  const { t, tell, language } = useShared();
  if (!next.behaviors.length && !next.topics.length) return null;
  return html`<section class="panel" aria-labelledby="taste-intent">
    <h2 id="taste-intent">${t("taste intent")}</h2>
    <ul>
      ${next.behaviors.map((one) => html`<li key=${`did ${one.behavior}`}>
        ${t("taste behavior", { behavior: tell(one.behavior), share: percent(one.probability, language, 0) })}</li>`)}
      ${next.topics.map((one) => html`<li key=${`${one.column} ${one.name}`}>
        ${one.column ? `${columnName(one.column)}: ` : ""}${t("taste topic", {
          name: one.name, share: percent(one.probability, language, 0), usual: percent(one.usual, language, 0),
        })}</li>`)}
    </ul>
  </section>`;
}

/** The keywords that the customer has added, removed and banned. */
function Edits({ edits, move, busy }) {
  const { t, can } = useShared();
  const id = useId();
  const [text, setText] = useState("");
  const give = (kind) => {
    if (!text.trim()) return;
    move(text, kind);
    setText("");
  };
  return html`<section class="panel" aria-labelledby="taste-edits">
    <h2 id="taste-edits">${t("taste edits")}</h2>
    ${KINDS.every((kind) => !edits[kind].length) && html`<p class="quiet">${t("taste unedited")}</p>`}
    ${KINDS.map((kind) => edits[kind].length > 0 && html`<div key=${kind}>
      <h3>${t(`taste ${kind}`)}</h3>
      <ul class="keywords">${edits[kind].map((keyword) => html`<li key=${keyword} class="chip">${keyword}
        ${can("admin") && html` <button type="button" class="small" disabled=${busy}
          aria-label=${t("of item", { what: t("taste undo"), title: keyword })}
          onClick=${() => move(keyword, null)}>×</button>`}</li>`)}</ul>
    </div>`)}
    ${can("admin") && html`<form onSubmit=${(event) => { event.preventDefault(); give("added"); }}>
      <label for=${id}>${t("taste keyword")}</label>
      <input id=${id} type="text" maxlength=${LONGEST} autocomplete="off" value=${text}
        onInput=${(event) => setText(event.currentTarget.value)} />
      <div class="row"><button type="submit" class="main" disabled=${busy}>${t("taste add")}</button>
        <button type="button" disabled=${busy} onClick=${() => give("banned")}>${t("taste ban")}</button></div>
    </form>`}
  </section>`;
}
