// Filters, boosts and diversity, which act at once.
import { html, useId } from "./html.js";
import { columnName, HIDDEN, priceColumn } from "./format.js";
import { Select } from "./parts.js";
import { useShared } from "./state.js";

export const START = {
  k: 8, run: "", scenario: "", where: {}, condition: "", diversity: 0, boosts: [], counted: false,
};
const WIDE = matchMedia("(min-width: 52rem)"); // on a phone, the lists come first
const MOST_FILTERS = 6;
const BOOST = { name: "title", is: "contains", value: "", factor: 2 };
const LENGTHS = [4, 8, 12, 24];

const column = (name) => (name === "title" ? "title" : `col(${JSON.stringify(name)})`);

/** Return the options of a request that the controls stand for. */
export function optionsOf(controls) {
  const parts = [];
  for (const [name, { from, to, is }] of Object.entries(controls.where)) {
    if (Number.isFinite(from)) parts.push(`${column(name)} >= ${from}`);
    if (Number.isFinite(to)) parts.push(`${column(name)} <= ${to}`);
    if (is === true || is === false) parts.push(is ? column(name) : `not ${column(name)}`);
    else if (is) parts.push(`${column(name)} == ${JSON.stringify(is)}`);
  }
  if (controls.condition.trim()) parts.push(`(${controls.condition.trim()})`);
  const boosts = {};
  for (const boost of controls.boosts) {
    const condition = conditionOf(boost);
    if (condition && boost.factor !== 1) boosts[condition] = boost.factor;
  }
  return {
    k: controls.k,
    ...(controls.run ? { run: controls.run } : {}),
    ...(controls.scenario ? { scenario: controls.scenario } : {}),
    ...(parts.length ? { where: parts.join(" and ") } : {}),
    ...(controls.diversity ? { diversity: controls.diversity } : {}),
    ...(Object.keys(boosts).length ? { boosts } : {}),
  };
}

function conditionOf({ name, is, value }) {
  if (value === "" || value === undefined) return "";
  if (is === "contains") return `${JSON.stringify(value)} in ${column(name)}`;
  if (is === "is") return `${column(name)} == ${JSON.stringify(value)}`;
  const number = Number(value);
  return Number.isFinite(number) ? `${column(name)} ${is} ${number}` : "";
}

/** All controls. `change` gets the new values. */
export function Controls({ controls, change, models, scenarios }) {
  const { t, shop, can } = useShared();
  const set = (more) => change({ ...controls, ...more });
  const filter = (name, more) =>
    set({ where: { ...controls.where, [name]: { ...controls.where[name], ...more } } });
  const id = useId();
  const offered = shop.columns.filter(({ name, kind, least, most, values }) => !HIDDEN.has(name) &&
    ((kind === "number" && least !== null && least < most) || kind === "flag" ||
    (kind === "text" && values.length > 1))).slice(0, MOST_FILTERS);
  const changed = JSON.stringify(controls) !== JSON.stringify(START);
  return html`<details class="panel controls" open=${WIDE.matches}>
    <summary><h2>${t("controls")}</h2></summary>
    <div class="fields">
      ${models.length > 1 && html`<${Select} label=${t("model name")} value=${controls.run}
        options=${models.map(({ name, default: usual }) => [usual ? "" : name, name])}
        choose=${(run) => set({ run })} />`}
      ${scenarios.length > 0 && html`<${Select} label=${t("scenario")} value=${controls.scenario}
        options=${[["", t("none")], ...scenarios.map((name) => [name, name])]}
        choose=${(scenario) => set({ scenario })} />`}
      <${Select} label=${t("length")} value=${String(controls.k)}
        options=${LENGTHS.map((n) => [String(n), String(n)])} choose=${(k) => set({ k: Number(k) })} />
      <div class="field">
        <label for=${`${id}-diversity`}>${t("diversity")}
          <output for=${`${id}-diversity`}>${controls.diversity.toFixed(1)}</output></label>
        <input id=${`${id}-diversity`} type="range" min="0" max="1" step="0.1" value=${controls.diversity}
          onInput=${(event) => set({ diversity: Number(event.currentTarget.value) })} />
      </div>
      ${offered.map((one) => html`<${Filter} key=${one.name} column=${one}
        value=${controls.where[one.name] ?? {}} change=${(more) => filter(one.name, more)} />`)}
      <div class="field wide">
        <label for=${`${id}-condition`}>${t("condition")}</label>
        <input id=${`${id}-condition`} type="text" spellcheck="false" maxlength="900"
          placeholder=${t("condition hint")} value=${controls.condition}
          onChange=${(event) => set({ condition: event.currentTarget.value })} />
      </div>
    </div>
    <${Boosts} boosts=${controls.boosts} change=${(boosts) => set({ boosts })} />
    <div class="row">
      <button type="button" onClick=${() => set({ boosts: [...controls.boosts, BOOST] })}>${t("add boost")}</button>
      ${changed && html`<button type="button" onClick=${() => change(START)}>${t("reset")}</button>`}
      ${can("feedback") && html`<label class="check"><input type="checkbox" checked=${controls.counted}
        onChange=${(event) => set({ counted: event.currentTarget.checked })} /> ${t("counted")}</label>`}
    </div>
  </details>`;
}

function Filter({ column: { name, kind, least, most, values }, value, change }) {
  const { t, shop } = useShared();
  const id = useId();
  const label = name === priceColumn(shop.columns)?.name ? t("price") : columnName(name);
  if (kind === "number") {
    const read = (event) => (event.currentTarget.value === "" ? undefined : Number(event.currentTarget.value));
    return html`<div class="field range">
      ${["from", "to"].map((end) => html`<div key=${end}>
        <label for=${`${id}-${end}`}>${t(end, { column: label })}</label>
        <input id=${`${id}-${end}`} type="number" step="any" inputmode="decimal"
          placeholder=${end === "from" ? least : most} value=${value[end] ?? ""}
          onInput=${(event) => change({ [end]: read(event) })} />
      </div>`)}
    </div>`;
  }
  if (kind === "flag") {
    const chosen = value.is === undefined ? "" : value.is ? "yes" : "no";
    return html`<${Select} label=${label} value=${chosen}
      options=${[["", t("any")], ["yes", t("yes")], ["no", t("no")]]}
      choose=${(is) => change({ is: is === "" ? undefined : is === "yes" })} />`;
  }
  return html`<${Select} label=${label} value=${value.is ?? ""}
    options=${[["", t("any")], ...values.map((one) => [one, one])]}
    choose=${(is) => change({ is: is === "" ? undefined : is })} />`;
}

function Boosts({ boosts, change }) {
  const { t, shop } = useShared();
  const columns = [
    { name: "title", kind: "title" },
    ...shop.columns.filter(({ name, kind }) => (kind === "number" || kind === "text") && !HIDDEN.has(name)),
  ];
  const ways = (kind) =>
    kind === "number" ? ["<=", ">="] : kind === "title" ? ["contains"] : ["is", "contains"];
  const kindOf = (name) => columns.find((one) => one.name === name)?.kind ?? "title";
  const set = (at, more) => change(boosts.map((one, index) => (index === at ? { ...one, ...more } : one)));
  const word = (name) => (name === "title" ? t("title") : columnName(name));
  const sign = { "<=": "≤", ">=": "≥", is: t("is"), contains: t("contains") };
  if (boosts.length === 0) return null;
  return html`<fieldset class="boosts">
    <legend>${t("boosts")}</legend>
    ${boosts.map(({ name, is, value, factor }, at) => html`<div class="boost" key=${at}>
      <${Select} quiet label=${t("boost column")} value=${name}
        options=${columns.map((one) => [one.name, word(one.name)])}
        choose=${(next) => set(at, { name: next, is: ways(kindOf(next))[0], value: "" })} />
      <${Select} quiet label=${t("boost is")} value=${is}
        options=${ways(kindOf(name)).map((way) => [way, sign[way]])} choose=${(next) => set(at, { is: next })} />
      <input type=${kindOf(name) === "number" ? "number" : "text"} step="any" aria-label=${t("boost value")}
        maxlength="200" value=${value} onInput=${(event) => set(at, { value: event.currentTarget.value })} />
      <input type="range" min="-2" max="2" step="0.25" aria-label=${t("boost factor")}
        aria-valuetext=${`× ${factor.toFixed(2)}`} value=${Math.log2(factor)}
        onInput=${(event) => set(at, { factor: 2 ** Number(event.currentTarget.value) })} />
      <output>× ${factor.toFixed(2)}</output>
      <button type="button" class="small" aria-label=${t("remove boost")}
        onClick=${() => change(boosts.filter((_, index) => index !== at))}>×</button>
    </div>`)}
  </fieldset>`;
}
