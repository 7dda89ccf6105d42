// Experiments with their arms, and how often shown items were accepted.
import { html, useState } from "./html.js";
import { address, ask } from "./api.js";
import { Curve } from "./curve.js";
import { date, percent } from "./format.js";
import { Failure, Select, Working } from "./parts.js";
import { useAnswer, useShared } from "./state.js";

const GROUPS = ["scenario", "run", "arm", "rank"];

/** All experiments, and the acceptance of all lists. */
export function Experiments() {
  const { t, can } = useShared();
  const [round, setRound] = useState(0);
  if (!can("admin")) {
    return html`<div class="one"><h1>${t("experiments")}</h1><p>${t("needs admin")}</p></div>`;
  }
  return html`<div class="one wide">
    <header class="title"><h1>${t("experiments")}</h1>
      <button type="button" onClick=${() => setRound(round + 1)}>${t("refresh")}</button></header>
    <${Arms} round=${round} />
    <${Acceptance} round=${round} />
  </div>`;
}

function Arms({ round }) {
  const { t } = useShared();
  const state = useAnswer(async (signal) => {
    const { experiments } = await ask("/v1/experiments", undefined, { signal });
    return Promise.all(experiments.toReversed().map(({ name }) =>
      ask(`/v1/experiments/${encodeURIComponent(name)}`, undefined, { signal })));
  }, [round]);
  return html`
    <${Working} since=${state.data ? null : state.since} text=${t("loading")} />
    ${state.error && html`<${Failure} error=${state.error} />`}
    ${state.data?.length === 0 && html`<p class="quiet">${t("no experiments")} <code>PUT /v1/experiments/NAME</code></p>`}
    ${state.data?.map((one) => html`<${Experiment} key=${one.name} experiment=${one} />`)}`;
}

function Experiment({ experiment }) {
  const { t, language, tell } = useShared();
  const { name, running, started, stopped, results, missing_runs: missing } = experiment;
  const compared = new Map(results.comparisons.map((one) => [one.arm, one]));
  const most = Math.max(...results.arms.map((arm) => arm.per_user.high ?? 0));
  const widest = Math.max(0.01, ...results.comparisons.flatMap(({ low, high }) => [-(low ?? 0), high ?? 0]));
  const about = new Map(experiment.arms.map((arm) => [arm.name, describe(arm, t)]));
  const told = experiment.behaviors.map(tell).join(", ");
  return html`<section class="panel" aria-labelledby=${`experiment-${name}`}>
    <h2 id=${`experiment-${name}`}>${name} <span class="chip">${running ? t("running") : t("stopped")}</span></h2>
    <p class="quiet">${t("since", { day: date(started, language) })}${stopped ? ` ${t("until", { day: date(stopped, language) })}` : ""} ·
      ${" "}${t("accepted means", { told })} · ${t("complete users", { n: results.complete_users })}</p>
    ${missing.length > 0 && html`<p class="chip warn">${t("missing runs", { names: missing.join(", ") })}</p>`}
    <div class="table" role="group" tabindex="0" aria-label=${name}><table>
      <thead><tr><th scope="col">${t("by arm")}</th><th scope="col" class="n">${t("n users")}</th>
        <th scope="col" class="n">${t("n lists")}</th><th scope="col" class="n">${t("lists accepted")}</th>
        <th scope="col">${t("per user")}</th><th scope="col">${t("difference")}</th></tr></thead>
      <tbody>${results.arms.map((arm) => html`<tr key=${arm.arm}>
        <th scope="row">${arm.arm}<br /><span class="quiet">${about.get(arm.arm)}</span></th><td class="n">${arm.users}</td><td class="n">${arm.lists}</td>
        <td class="n">${arm.lists_accepted}</td>
        <td><${Share} value=${arm.per_user} most=${most} /></td>
        <td>${compared.has(arm.arm) ? html`<${Difference} found=${compared.get(arm.arm)} widest=${widest} />` : "–"}</td>
      </tr>`)}</tbody>
    </table></div>
    ${results.comparisons.map((one) => html`<p key=${one.arm} class=${one.decided ? "verdict decided" : "verdict"}>
      ${verdict(one, t)}</p>`)}
    <p class="quiet">${t("look often")}</p>
  </section>`;
}

/** Say what an arm is. */
function describe({ run, model_role: role, scenario, options }, t) {
  const more = Object.entries(options).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return [role === "explain" ? t("arm counts") : run, scenario, ...more].filter(Boolean).join(" · ");
}

/** Say what a comparison shows. */
function verdict(found, t) {
  if (found.decided) {
    const other = found.better === found.arm ? found.against : found.arm;
    return t("decided", { better: found.better, other, n: found.decided_after });
  }
  if (found.low === null) return t("too few", { arm: found.arm, against: found.against });
  return t("undecided", { arm: found.arm, against: found.against });
}

function Share({ value: { mean, low, high }, most }) {
  const { language } = useShared();
  if (mean === null) return "–";
  return html`<${Interval} low=${low} value=${mean} high=${high} from=${0} to=${most} />
    <span class="n">${percent(mean, language)} <span class="quiet">(${percent(low, language)} – ${percent(high, language)})</span></span>`;
}

function Difference({ found: { difference, low, high }, widest }) {
  const { language } = useShared();
  const points = (number) => `${number > 0 ? "+" : ""}${percent(number, language)}`;
  if (difference === null) return "–";
  if (low === null) return html`<span class="n">${points(difference)}</span>`;
  return html`<${Interval} low=${low} value=${difference} high=${high} from=${-widest} to=${widest} zero />
    <span class="n">${points(difference)} <span class="quiet">(${points(low)} – ${points(high)})</span></span>`;
}

/** A number with its interval on a line. */
function Interval({ low, value, high, from, to, zero = false }) {
  const place = (number) => 2 + 96 * (to > from ? Math.min(1, Math.max(0, (number - from) / (to - from))) : 0);
  return html`<svg class="interval" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
    <line class="axis" x1="2" x2="98" y1="5" y2="5" />
    ${zero && html`<line class="axis" x1=${place(0)} x2=${place(0)} y1="0" y2="10" />`}
    <line class="whisker" x1=${place(low)} x2=${place(high)} y1="5" y2="5" />
    <line class="point" x1=${place(value)} x2=${place(value)} y1="1" y2="9" />
  </svg>`;
}

function Acceptance({ round }) {
  const { t, shop, tell } = useShared();
  const [by, setBy] = useState("run");
  const [behaviors, setBehaviors] = useState("");
  const state = useAnswer(
    (signal) => ask(address("/v1/acceptance", { by, behaviors }), undefined, { signal }),
    [by, behaviors, round],
  );
  const groups = state.data?.groups ?? [];
  const counted = [...new Set([...shop.behaviors, "like", "dislike", "not_interested"])];
  return html`<section class="panel" aria-labelledby="acceptance">
    <h2 id="acceptance">${t("acceptance")}</h2>
    <p class="quiet">${t("acceptance about")}</p>
    <div class="fields row">
      <${Select} label=${t("by")} value=${by} choose=${setBy} options=${GROUPS.map((one) => [one, t(`by ${one}`)])} />
      <${Select} label=${t("behaviors that count")} value=${behaviors} choose=${setBehaviors}
        options=${[["", t("all behaviors")], ...counted.map((name) => [name, tell(name)])]} />
    </div>
    <${Working} since=${state.data ? null : state.since} text=${t("loading")} />
    ${state.error && html`<${Failure} error=${state.error} />`}
    ${state.data && groups.length === 0 && html`<p>${t("nothing shown")}</p>`}
    ${state.data?.by === "rank" && groups.length > 1 && html`<${Curve} label=${t("curve")} x=${t("by rank")}
      y=${t("share")} points=${groups.map((group) => [Number(group.value), group.per_user])} />`}
    ${groups.length > 0 && html`<${Groups} by=${state.data.by} groups=${groups} />`}
  </section>`;
}

function Groups({ by, groups }) {
  const { t } = useShared();
  const most = Math.max(...groups.map((group) => group.per_user.high ?? 0));
  return html`<div class="table" role="group" tabindex="0" aria-label=${t("acceptance")}><table>
    <thead><tr><th scope="col">${t(`by ${by}`)}</th><th scope="col" class="n">${t("n users")}</th>
      <th scope="col" class="n">${t("n lists")}</th><th scope="col" class="n">${t("n items")}</th>
      <th scope="col" class="n">${t("n accepted")}</th><th scope="col">${t("per user")}</th></tr></thead>
    <tbody>${groups.map((group) => html`<tr key=${String(group.value)}>
      <th scope="row">${group.value === null ? t("without group") : String(group.value)}</th>
      <td class="n">${group.users}</td><td class="n">${group.lists}</td><td class="n">${group.items}</td>
      <td class="n">${group.items_accepted}</td><td><${Share} value=${group.per_user} most=${most} /></td>
    </tr>`)}</tbody>
  </table></div>`;
}
