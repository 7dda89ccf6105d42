// Items by the words of their titles, in the order in which the history would want them.
import { html } from "./html.js";
import { address, ask } from "./api.js";
import { Card, moveFocus } from "./cards.js";
import { itemAddress } from "./format.js";
import { Completing, Failure, Working } from "./parts.js";
import { historyOf, useAnswer, useShared } from "./state.js";

const LONGEST = 200; // characters that the service looks for

/** The field in the header. */
export function SearchField() {
  const { t } = useShared();
  const find = async (query, signal) => query.trim()
    ? (await ask(address("/v1/items", { query, limit: 8 }), undefined, { signal })).items : [];
  return html`<div role="search"><${Completing} label=${t("search")} hint=${t("search hint")} find=${find}
    show=${(item) => ({ text: item.title, more: item.item_id })}
    choose=${(item) => { location.hash = itemAddress(item.item_id); }}
    enter=${(text) => { location.hash = `#/search/${encodeURIComponent(text)}`; }} /></div>`;
}

/** The items that were found. */
export function Found({ query, subject, run }) {
  const { t } = useShared();
  const history = subject.kind === "typed" || subject.id ? historyOf(subject) : { history: "" };
  const asked = { ...history, query: query.slice(0, LONGEST), k: 24, attributes: true, ...(run ? { run } : {}) };
  const state = useAnswer((signal) => ask("/v1/search", asked, { signal }), [JSON.stringify(asked)]);
  const items = state.data?.recommendations ?? [];
  return html`<div class="one wide">
    <a href="#/">← ${t("back")}</a>
    <h1>${t("search of", { query })}</h1>
    <p class="quiet">${t("search order")}</p>
    <${Working} since=${state.since} text=${t("loading")} />
    ${state.error && html`<${Failure} error=${state.error} />`}
    ${state.data && items.length === 0 && html`<p>${t("nothing found")}</p>`}
    <ol class="cards" onKeyDown=${moveFocus}>
      ${items.map((item) => html`<${Card} key=${item.item_id} item=${item} level="h2" />`)}
    </ol>
  </div>`;
}
