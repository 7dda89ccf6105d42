// How often shown items were accepted, by scenario, model, arm or rank.
import { html, useState } from "./html.js";
import { address, ask } from "./api.js";
import { percent } from "./format.js";
import { Failure, Select, Working } from "./parts.js";
import { useAnswer, useShared } from "./state.js";

const GROUPS = ["arm", "run", "scenario", "rank"];

/** The acceptance of each group, with an interval. */
export function Experiments() {
  const { t, can, shop, tell } = useShared();
  const [by, setBy] = useState("arm");
  const [behaviors, setBehaviors] = useState("");
  const [round, setRound] = useState(0);
  const allowed = can("admin");
  const state = useAnswer(
    (signal) => allowed ? ask(address("/v1/acceptance", { by, behaviors }), undefined, { signal }) : null,
    [by, behaviors, round, allowed],
  );
  if (!allowed) {
    return html`<div class="one"><h1>${t("experiments")}</h1><p>${t("needs admin")}</p></div>`;
  }
  const groups = state.data?.groups ?? [];
  const counted = ["like", ...shop.behaviors].map((name) => [name, tell(name)]);
  return html`<div class="one wide">
    <h1>${t("acceptance")}</h1>
    <p class="quiet">${t("acceptance about")}</p>
    <div class="fields row">
      <${Select} label=${t("by")} value=${by} choose=${setBy} options=${GROUPS.map((one) => [one, t(`by ${one}`)])} />
      <${Select} label=${t("behaviors that count")} value=${behaviors} choose=${setBehaviors}
        options=${[["", t("all behaviors")], ...counted]} />
      <button type="button" onClick=${() => setRound(round + 1)}>${t("refresh")}</button>
    </div>
    <${Working} since=${state.since} text=${t("loading")} />
    ${state.error && html`<${Failure} error=${state.error} />`}
    ${state.data && groups.length === 0 && html`<p>${t("nothing shown")}</p>`}
    ${groups.length > 0 && html`<${Table} by=${by} groups=${groups} />`}
  </div>`;
}

/** Return the 95% Wilson interval of a share. */
function wilson(accepted, shown) {
  const z = 1.959964;
  const share = accepted / shown;
  const middle = (share + z * z / (2 * shown)) / (1 + z * z / shown);
  const half = z / (1 + z * z / shown) * Math.sqrt(share * (1 - share) / shown + z * z / (4 * shown * shown));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function Table({ by, groups }) {
  const { t, language } = useShared();
  const rows = groups.map((group) => {
    const [low, high] = wilson(group.items_accepted, group.items);
    return { ...group, share: group.items_accepted / group.items, low, high };
  });
  const most = Math.max(...rows.map((row) => row.high));
  return html`<div class="table"><table>
    <thead><tr><th scope="col">${t(`by ${by}`)}</th><th scope="col" class="n">${t("n lists")}</th>
      <th scope="col" class="n">${t("n items")}</th><th scope="col" class="n">${t("n accepted")}</th>
      <th scope="col" class="n">${t("share")}</th><th scope="col">${t("interval")}</th></tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${String(row.value)}>
      <th scope="row">${row.value === null ? t("without group") : String(row.value)}</th>
      <td class="n">${row.lists}</td><td class="n">${row.items}</td><td class="n">${row.items_accepted}</td>
      <td class="n">${percent(row.share, language)}</td>
      <td><${Interval} low=${row.low} share=${row.share} high=${row.high} most=${most} />
        <span class="n">${percent(row.low, language)} – ${percent(row.high, language)}</span></td>
    </tr>`)}</tbody>
  </table></div>`;
}

/** A share with its interval on a line from 0 to `most`. */
export function Interval({ low, share, high, most }) {
  const place = (value) => 2 + 96 * (most > 0 ? value / most : 0);
  return html`<svg class="interval" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
    <line class="axis" x1="2" x2="98" y1="5" y2="5" />
    <line class="whisker" x1=${place(low)} x2=${place(high)} y1="5" y2="5" />
    <line class="point" x1=${place(share)} x2=${place(share)} y1="1" y2="9" />
  </svg>`;
}
