// The lists of all loaded models and of counting, side by side.
import { html, useEffect, useState } from "./html.js";
import { ask } from "./api.js";
import { Price } from "./cards.js";
import { itemAddress } from "./format.js";
import { Failure, Working } from "./parts.js";
import { historyOf, useAnswer, useShared } from "./state.js";

/** The columns. Each of them asks for its own list. */
export function Compare({ subject, options, models }) {
  const { t } = useShared();
  const [lists, setLists] = useState({});
  const counted = models.find((model) => model.default && model.fallback) ??
    models.find((model) => model.fallback);
  const columns = models.map((model) => ({
    name: model.name, run: model.name, about: roleOf(model, t), counting: false,
  }));
  if (counted) {
    columns.push({ name: t("counting"), run: counted.name, about: t("counting about"), counting: true });
  }
  const places = (item, own) => Object.entries(lists)
    .map(([name, ids]) => ({ name, rank: ids.indexOf(item.item_id) + 1 }))
    .filter(({ name, rank }) => name !== own && rank > 0);
  return html`<div class="one wide">
    <h1>${t("compare")}</h1>
    <p class="quiet">${t("compare about")}</p>
    ${models.length === 1 && html`<p class="quiet">${t("one model")}</p>`}
    ${!counted && html`<p class="quiet">${t("no counting")}</p>`}
    <div class="columns">
      ${columns.map((column) => html`<${Column} key=${column.name} column=${column} subject=${subject}
        options=${options} places=${places}
        found=${(ids) => setLists((old) => ({ ...old, [column.name]: ids }))} />`)}
    </div>
  </div>`;
}

function roleOf(model, t) {
  const role = model.prior === "none" ? "alone" : model.role;
  return t(`role ${role}`, { model: model.model });
}

function Column({ column, subject, options, places, found }) {
  const { t, shop } = useShared();
  const asked = {
    ...historyOf(subject), ...options, run: column.run, counting: column.counting,
    show: shop.shows[0], attributes: true, impression: false,
  };
  const state = useAnswer((signal) => ask("/v1/recommend", asked, { signal }),
    [JSON.stringify([asked, subject.version])]);
  const items = state.data?.recommendations ?? [];
  useEffect(() => found(items.map((item) => item.item_id)), [state.data]);
  return html`<section aria-label=${column.name}>
    <h2>${column.name}</h2>
    <p class="quiet">${column.about}</p>
    <${Working} since=${state.since} text=${t("computing")} />
    ${state.error && html`<${Failure} error=${state.error} />`}
    <ol class="ranked">
      ${items.map((item) => {
        const also = places(item, column.name);
        return html`<li key=${item.item_id} class=${also.length ? "" : "alone"}>
          <a href=${itemAddress(item.item_id)}>${item.title}</a>
          <${Price} item=${item} />
          <span class="quiet">${also.length === 0 ? t("only here")
            : also.map((place) => t("also", place)).join(" · ")}</span>
        </li>`;
      })}
    </ol>
  </section>`;
}
