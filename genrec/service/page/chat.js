// A conversation: what is wanted, in words, turn by turn. The browser keeps the turns, the service nothing.
import { html, useEffect, useId, useRef, useState } from "./html.js";
import { ask } from "./api.js";
import { Card, moveFocus } from "./cards.js";
import { Failure, Working } from "./parts.js";
import { historyOf, useKept, useShared } from "./state.js";

const LONGEST = 2000; // characters of a turn
const KEPT = 198; // turns that are sent
const SHOWN = 12; // items of a list

/** What was understood: the conditions of the catalog's columns and what is not wanted. */
function Understood({ query }) {
  const { t } = useShared();
  const parts = [
    ...query.conditions.map((one) => `${one.text} (${one.where})`),
    ...query.unwanted.map((one) => t("chat without", { what: one })),
  ];
  if (!parts.length) return null;
  return html`<p class="understood"><span class="quiet">${t("chat understood")}</span>
    ${parts.map((part) => html` <span class="chip" key=${part}>${part}</span>`)}</p>`;
}

export function Chat({ subject, run }) {
  const { t, shop } = useShared();
  const id = useId();
  const [kept, keep] = useKept("chat", { shop: shop.name, turns: [], answer: null }, sessionStorage);
  const talk = kept.shop === shop.name ? kept : { shop: shop.name, turns: [], answer: null };
  const [text, setText] = useState("");
  const [since, setSince] = useState(null);
  const [error, setError] = useState(null);
  const log = useRef(null);
  const field = useRef(null);
  const stop = useRef(null);
  useEffect(() => {
    log.current?.lastElementChild?.scrollIntoView({ block: "nearest" });
  }, [talk.turns.length]);
  useEffect(() => () => stop.current?.abort(), []);
  const say = async (words) => {
    if (!words.trim() || since !== null) return;
    const turns = [...talk.turns, { text: words.trim(), mine: true }].slice(-KEPT);
    const history = subject.kind === "typed" || subject.id ? historyOf(subject) : { history: "" };
    setError(null);
    setSince(performance.now());
    stop.current = new AbortController();
    try {
      const asked = { ...history, turns, attributes: true, ...(run ? { run } : {}) };
      const answer = await ask("/v1/chat", asked, { signal: stop.current.signal });
      const items = (answer.list?.recommendations ?? []).map((item) => item.item_id).slice(0, 100);
      const told = [answer.sentence, ...answer.questions.map((one) => one.question)].join(" ").trim();
      keep({ shop: shop.name, turns: [...turns, { text: told.slice(0, LONGEST), items, mine: false }], answer });
      setText("");
    } catch (problem) {
      if (!stop.current.signal.aborted) setError(problem);
    }
    setSince(null);
    field.current?.focus();
  };
  const restart = () => {
    keep({ shop: shop.name, turns: [], answer: null });
    setError(null);
    field.current?.focus();
  };
  const { answer } = talk;
  const items = (answer?.list?.recommendations ?? []).slice(0, SHOWN);
  const choices = answer?.questions.flatMap((one) => one.choices) ?? [];
  return html`<div class="one wide chat">
    <h1>${t("chat")}</h1>
    <p class="quiet">${t("chat about")}</p>
    <div class="log" role="log" aria-label=${t("chat turns")} tabindex="0"><ol class="turns" ref=${log}>
      ${talk.turns.map((turn, n) => html`<li key=${n} class=${turn.mine ? "mine" : "theirs"}>
        <span class="hidden">${t(turn.mine ? "chat you" : "chat shop")}</span>${turn.text}</li>`)}
    </ol></div>
    ${choices.length > 0 && html`<p class="row">${choices.map((choice) => html`<button type="button" key=${choice}
      disabled=${since !== null} onClick=${() => say(choice)}>${choice}</button>`)}</p>`}
    <form class="row" onSubmit=${(event) => { event.preventDefault(); say(text); }}>
      <label class="hidden" for=${id}>${t("chat field")}</label>
      <input id=${id} ref=${field} type="text" maxlength=${LONGEST} autocomplete="off" placeholder=${t("chat hint")}
        value=${text} onInput=${(event) => setText(event.currentTarget.value)} />
      <button type="submit" class="main" disabled=${since !== null}>${t("chat send")}</button>
      <button type="button" disabled=${!talk.turns.length} onClick=${restart}>${t("chat restart")}</button>
    </form>
    <${Working} since=${since} text=${t("loading")} />
    ${error && html`<${Failure} error=${error} />`}
    ${answer && html`<${Understood} query=${answer.query} />`}
    <ol class="cards" onKeyDown=${moveFocus}>
      ${items.map((item) => html`<${Card} key=${item.item_id} item=${item} level="h2" />`)}
    </ol>
  </div>`;
}
