// The page of an item: what goes with it, and why it is or is not in the list.
import { html, useState } from "./html.js";
import { address, ask, follow } from "./api.js";
import { Card, details, moveFocus, Picture, Price } from "./cards.js";
import { nats, percent } from "./format.js";
import { Failure, Icon, Select, Working } from "./parts.js";
import { give, historyOf, useAnswer, useShared } from "./state.js";

const WAYS = ["both", "prior", "titles"];
const TOLD = [["up", "like"], ["down", "dislike"], ["cross", "not_interested"]];

/** Everything about one item. */
export function ItemView({ itemId, subject, choose, options }) {
  const { t, shop, language, can, say } = useShared();
  const state = useAnswer(
    (signal) => ask(address("/v1/item", { id: itemId }), undefined, { signal }), [itemId]);
  const [by, setBy] = useState("both");
  const similar = useAnswer(
    (signal) => ask("/v1/similar", { items: [itemId], by, k: 8, attributes: true }, { signal }),
    [itemId, by]);
  const item = state.data;
  if (state.error) return html`<div class="one"><${Failure} error=${state.error} /></div>`;
  if (!item || item.item_id !== itemId) {
    return html`<div class="one"><${Working} since=${state.since} text=${t("loading")} /></div>`;
  }
  const told = async (behavior, what) => {
    try {
      const next = await give(subject, item, behavior, null);
      say(t("stored", { what: t("of item", { what: t(what), title: item.title }) }));
      choose(next);
    } catch (error) {
      say(error.status === 0 ? t("no answer") : error.message);
    }
  };
  const known = details(item, shop.columns, language);
  const named = subject.kind === "typed" || subject.id !== "";
  return html`<div class="one">
    <a href="#/">← ${t("back")}</a>
    <article class="item" aria-labelledby="title">
      <${Picture} item=${item} />
      <div>
        <h1 id="title">${item.title}</h1>
        ${item.state !== "available" && html`<p class="chip warn">${t(`state ${item.state}`)}</p>`}
        <${Price} item=${item} />
        <dl><div><dt>id</dt><dd>${item.item_id}</dd></div>
          ${known.map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>
        ${can("feedback") && named && html`<div class="tools">
          ${TOLD.map(([name, behavior]) => html`<button type="button" key=${name}
            onClick=${() => told(behavior, name)}><${Icon} name=${name} /> ${t(name)}</button>`)}
        </div>`}
      </div>
    </article>
    ${item.state === "available" && named && html`<${WhyNot} key=${itemId} item=${item}
      subject=${subject} options=${options} />`}
    <section aria-labelledby="similar">
      <header><h2 id="similar">${t("similar")}</h2>
        <${Select} quiet label=${t("similar about")} value=${by} choose=${setBy}
          options=${WAYS.map((way) => [way, t(`similar by ${way}`)])} /></header>
      <${Working} since=${similar.since} text=${t("loading")} />
      ${similar.error && html`<${Failure} error=${similar.error} />`}
      ${similar.data && html`<ol class="cards" onKeyDown=${moveFocus}>
        ${similar.data.similar.map((one) => html`<${Card} key=${one.item_id} item=${one} />`)}</ol>
        ${similar.data.similar.length === 0 && html`<p class="quiet">${t("no similar")}</p>`}`}
    </section>
  </div>`;
}

/** Why the item is or is not in the list for this history, measured on demand. */
function WhyNot({ item, subject, options }) {
  const { t, shop } = useShared();
  const [wanted, setWanted] = useState(null);
  const [progress, setProgress] = useState(null);
  const [draft, setDraft] = useState(null); // the sentence so far, and whether it was checked
  const hear = (kind, value) => kind === "progress" ? setProgress(value) : setDraft(value);
  const { k, run, where, boosts, scenario } = options;
  const state = useAnswer(
    (signal) => wanted === null ? null : follow("/v1/explain", {
      ...historyOf(subject), item_id: item.item_id, k, show: shop.shows[0], evidence: "fast",
      ...(run ? { run } : {}), ...(where ? { where } : {}), ...(boosts ? { boosts } : {}),
      ...(scenario ? { scenario } : {}),
    }, "explanation", hear, signal),
    [wanted, item.item_id],
  );
  const now = JSON.stringify([historyOf(subject), subject.version, options]);
  const told = wanted === now ? state.data : null;
  const running = wanted !== null && state.since !== null;
  const title = told?.listed ? t("why listed") : t("why not");
  return html`<section class="panel" aria-labelledby="why-not">
    <h2 id="why-not">${title}</h2>
    <div aria-live="polite" aria-busy=${running && draft && !draft.checked ? "true" : "false"}>
      ${!told && !running && html`<button type="button" onClick=${() => { setDraft(null); setWanted(now); }}>${t("why not start")}</button>`}
      ${running && html`<${Working} since=${state.since}
        text=${t(progress?.state === "waiting" ? "waiting" : "explaining")} />`}
      ${running && draft && html`<${Draft} draft=${draft} />`}
      ${state.error && html`<${Failure} error=${state.error} />`}
      ${told && html`<${Told} told=${told} />`}
    </div>
  </section>`;
}

/** A sentence while it is written. Until it has been checked, it is marked as a draft. */
export function Draft({ draft }) {
  const { t } = useShared();
  return html`<p class=${draft.checked ? "sentence" : "sentence draft"}>
    ${draft.text}${" "}<span class="chip" title=${t(draft.checked ? "checked about" : "draft about")}>
      ${t(draft.checked ? "checked" : "draft")}</span></p>`;
}

function Told({ told }) {
  const { t, language } = useShared();
  const share = percent(told.probability, language, 2);
  const { explanation, removal, addition, choices, against } = told;
  const strong = explanation.evidence.filter((one) => one.nats >= 0.005)
    .sort((a, b) => b.nats - a.nats).slice(0, 3);
  const choice = choices[0];
  const line = (one) => html`<li key=${`${one.event} ${one.title}`} class=${one.nats > 0 ? "for" : "against"}>
    <span>${one.title}</span> <span class="nats">${nats(one.nats)}</span></li>`;
  return html`
    <p>${told.rank ? t("ranks", { rank: told.rank, among: told.among, share })
      : t("ranks below", { n: told.lower_than, among: told.among, share })}
      ${" "}${told.excluded_by ? t("excluded", { why: t(`by ${told.excluded_by}`) })
        : t(told.listed ? "is listed" : "not listed", { k: told.k })}</p>
    <p class="sentence">${explanation.text}</p>
    ${strong.length > 0 && html`<h3>${t("speaks for")}</h3><ul class="evidence">${strong.map(line)}</ul>`}
    ${against.length > 0 && html`<h3>${t("speaks against")}</h3><ul class="evidence">${against.slice(0, 3).map(line)}</ul>`}
    <ul class="facts">
      ${choice && html`<li>${t(choice.written ? "prefers" : "prefers first", {
        written: choice.written, wanted: choice.wanted, rather: choice.rather,
        share: percent(choice.share, language), more: percent(choice.rather_share, language),
      })}</li>`}
      ${removal?.rank && html`<li>${t("without event", removal)}</li>`}
      ${addition?.rank && html`<li>${t("with event", addition)}</li>`}
    </ul>
    ${!told.listed && told.instead.length > 0 && html`<h3>${t("instead")}</h3>
      <ol>${told.instead.slice(0, 5).map((one) => html`<li key=${one.item_id}>
        <a href=${`#/item/${encodeURIComponent(one.item_id)}`}>${one.title}</a></li>`)}</ol>`}`;
}
