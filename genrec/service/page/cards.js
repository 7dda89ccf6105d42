// Cards of items, with a picture, the price, the attributes and the buttons for feedback.
import { html, useState } from "./html.js";
import { columnName, HIDDEN, itemAddress, picture, price, priceColumn, value } from "./format.js";
import { Icon } from "./parts.js";
import { useShared } from "./state.js";

const MOST = 4; // attributes on a card
const BUTTONS = [["up", "like"], ["down", "dislike"], ["cross", "not_interested"]];

/** Return the attributes of an item to show: pairs of a column and its value as text. */
export function details(item, columns, language) {
  const priced = priceColumn(columns);
  return Object.entries(item.attributes ?? {})
    .filter(([name, given]) => !HIDDEN.has(name) && name !== priced?.name && given !== null && given !== "")
    .map(([name, given]) => [columnName(name), value(given, language)]);
}

/** The price of an item, if the catalog has prices. */
export function Price({ item }) {
  const { shop, language } = useShared();
  const column = priceColumn(shop.columns);
  const amount = column ? item.attributes?.[column.name] : undefined;
  if (amount === undefined || amount === null) return null;
  const currency = column.currency ?? item.attributes.currency;
  return html`<p class="price">${price(amount, currency, language)}</p>`;
}

/** The picture of an item, which the browser loads from an allowed host. */
export function Picture({ item }) {
  const { t, shop } = useShared();
  const [broken, setBroken] = useState(null);
  if (!shop.columns.some((column) => column.name === "image_url")) return null;
  const source = picture(item.attributes?.image_url, shop.image_hosts);
  if (source === null || broken === source) {
    return html`<div class="picture empty">${t("no picture")}</div>`;
  }
  return html`<img class="picture" src=${source} alt="" loading="lazy" decoding="async"
    referrerpolicy="no-referrer" onError=${() => setBroken(source)} />`;
}

/** A card. `told` is called with a behavior when a button is used. */
export function Card({ item, level = "h3", active, point, told, busy, note }) {
  const { t, shop, language, can } = useShared();
  const more = details(item, shop.columns, language).slice(0, MOST);
  return html`<li class=${active ? "card active" : "card"} onPointerEnter=${point} onFocusIn=${point}>
    <${Picture} item=${item} />
    <div class="text">
      <${level}><a href=${itemAddress(item.item_id)}>${item.title}</a></${level}>
      <${Price} item=${item} />
      ${more.length > 0 && html`<dl>${more.map(([name, text]) => html`<div key=${name}>
        <dt>${name}</dt><dd>${text}</dd></div>`)}</dl>`}
      ${note && html`<p class="quiet">${note}</p>`}
    </div>
    ${can("feedback") && told && html`<div class="tools">
      ${BUTTONS.map(([name, behavior]) => html`<button type="button" key=${name} disabled=${busy}
        title=${t(name)} aria-label=${t("of item", { what: t(name), title: item.title })}
        onClick=${() => told(behavior)}><${Icon} name=${name} /></button>`)}
    </div>`}
  </li>`;
}

/** Move the focus between cards with the arrow keys. */
export function moveFocus(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || event.target.closest("input, select, textarea")) return;
  const cards = [...document.querySelectorAll("main .card")];
  const at = cards.indexOf(event.target.closest(".card"));
  const next = cards[at + step];
  if (at < 0 || !next) return;
  event.preventDefault();
  next.querySelector("a").focus();
}
