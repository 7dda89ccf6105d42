// The page: who is signed in, whose lists are shown, and which view is open.
import {
  html, render, useCallback, useEffect, useErrorBoundary, useMemo, useRef, useState,
} from "./html.js";
import { address, ask, Problem, signedIn } from "./api.js";
import { Chat } from "./chat.js";
import { Compare } from "./compare.js";
import { optionsOf, START } from "./controls.js";
import { Experiments } from "./experiments.js";
import { ItemView } from "./item.js";
import { Lists } from "./lists.js";
import { Failure, Icon, Select } from "./parts.js";
import { ProfileView } from "./profile.js";
import { Found, SearchField } from "./search.js";
import { Shared, useKept, useShared } from "./state.js";
import { LANGUAGES, preferred, tellerOf, wordsOf } from "./words.js";

const THEMES = ["auto", "light", "dark"];
const SHOWN = 6000; // milliseconds for which a message is shown

/** Return the view that the address names, and its subject. */
function viewOf(hash) {
  const [, view = "", rest = ""] = hash.match(/^#\/(\w*)\/?(.*)$/s) ?? [];
  try {
    return { view, rest: decodeURIComponent(rest) };
  } catch {
    return { view: "", rest: "" };
  }
}

function useView() {
  const [view, set] = useState(() => viewOf(location.hash));
  useEffect(() => {
    const follow = () => set(viewOf(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return view;
}

function App() {
  const [language, setLanguage] = useKept("language", preferred(), localStorage);
  const [theme, setTheme] = useKept("theme", "auto", localStorage);
  const [session, setSession] = useState(null);
  const [error, setError] = useState(null);
  const t = useMemo(() => wordsOf(language), [language]);
  useEffect(() => {
    document.documentElement.lang = language;
    document.documentElement.dataset.theme = theme;
  }, [language, theme]);
  const start = useCallback(async () => {
    try {
      accept(await ask("/session"));
    } catch (problem) {
      setError(problem);
    }
  }, []);
  const accept = (given) => {
    signedIn(given.token, () => setSession({ ...given, name: null, scopes: [], token: null }));
    setSession(given);
    setError(null);
  };
  useEffect(() => {
    start();
  }, []);
  const signOut = async () => {
    accept(await ask("/signout", undefined, { method: "POST" }));
  };
  const can = (scope) => session?.scopes.includes(scope);
  const shared = { t, language, can };
  const bar = { t, language, setLanguage, theme, setTheme, session, signOut };
  if (error) {
    return html`<${Shared.Provider} value=${shared}><main class="alone"><${Failure} error=${error} />
      <button type="button" onClick=${start}>${t("try again")}</button></main></${Shared.Provider}>`;
  }
  if (!session) return null;
  return html`<${Shared.Provider} value=${shared}>
    ${can("read") ? html`<${Shop} shared=${shared} bar=${bar} />`
      : html`<${Bar} ...${bar} /><${SignIn} accept=${accept} />`}
  </${Shared.Provider}>`;
}

function Bar({ t, language, setLanguage, theme, setTheme, session, signOut, view, name }) {
  const links = [["", "lists"], ["chat", "chat"], ["taste", "taste"], ["compare", "compare"], ["experiments", "experiments"]];
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<header class="bar">
    ${view !== undefined && html`<a class="skip" href="#main"
      onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>${t("skip")}</a>`}
    <strong class="brand">genrec${name ? html` <span>${name}</span>` : null}</strong>
    ${view !== undefined && html`<nav aria-label=${t("views")}>
      ${links.map(([place, text]) => html`<a key=${place} href=${`#/${place}`}
        aria-current=${view === place ? "page" : undefined}>${t(text)}</a>`)}
    </nav>
    <${SearchField} />`}
    <div class="settings">
      <${Select} quiet label=${t("language")} value=${language} options=${LANGUAGES} choose=${setLanguage} />
      <button type="button" title=${`${t("theme")}: ${t(`theme ${theme}`)}`}
        aria-label=${`${t("theme")}: ${t(`theme ${theme}`)}`} onClick=${() => setTheme(next)}>
        <${Icon} name="theme" /></button>
      ${session?.name && html`<button type="button" title=${t("signed in as", { name: session.name })}
        onClick=${signOut}>${t("sign out")}</button>`}
    </div>
  </header>`;
}

function SignIn({ accept }) {
  const { t } = useShared();
  const [error, setError] = useState(null);
  const field = useRef(null);
  useEffect(() => {
    field.current.focus();
  }, []);
  const send = async (event) => {
    event.preventDefault();
    try {
      const given = await ask("/signin", { key: field.current.value });
      accept(given);
      if (!given.scopes.includes("read")) throw new Problem(403, t("needs read"));
    } catch (problem) {
      setError(problem);
      field.current.select();
    }
  };
  return html`<main class="alone"><form class="panel" onSubmit=${send}>
    <h1>${t("sign in")}</h1>
    <p class="quiet">${t("sign in with")}</p>
    <input type="text" name="username" value="genrec" autocomplete="username" hidden readonly />
    <label for="key">${t("key")}</label>
    <input id="key" ref=${field} type="password" autocomplete="current-password" required maxlength="200" />
    ${error && html`<${Failure} error=${error} />`}
    <button type="submit" class="main">${t("sign in")}</button>
  </form></main>`;
}

/** Everything that needs a key of the scope `read`. */
function Shop({ shared, bar }) {
  const { t, language, can } = shared;
  const [about, setAbout] = useState(null);
  const [error, setError] = useState(null);
  const [subject, choose] = useKept("subject", { kind: "customer", id: "" }, sessionStorage);
  const [controls, change] = useKept("controls", START, sessionStorage);
  const [kept, keep] = useKept("shop", "", sessionStorage);
  const [message, setMessage] = useState("");
  const timer = useRef(0);
  const { view, rest } = useView();
  const [broken, mend] = useErrorBoundary((problem) => console.error(problem));
  useEffect(mend, [view, rest]);
  const load = async () => {
    setError(null);
    try {
      const [shop, models, scenarios] = await Promise.all(
        ["/v1/shop", "/v1/models", "/v1/scenarios"].map((path) => ask(path)));
      const other = kept !== "" && kept !== shop.name; // this tab has shown another shop before
      keep(shop.name);
      if (other) change(START);
      if (other || (subject.kind === "customer" && !subject.id)) {
        const { users } = await ask(address("/v1/users", { limit: 1 }));
        choose(users.length ? { kind: "customer", id: users[0] }
          : { kind: "typed", events: [], session: null });
      }
      setAbout({ shop, models: models.models, scenarios: Object.keys(scenarios.scenarios) });
    } catch (problem) {
      setError(problem);
    }
  };
  useEffect(() => {
    load();
  }, []);
  useEffect(() => {
    const names = { chat: t("chat"), taste: t("taste"), compare: t("compare"), experiments: t("experiments"), search: t("search") };
    document.title = [names[view], about?.shop.name, "genrec"].filter(Boolean).join(" · ");
  }, [view, about, language]);
  const first = useRef(true);
  useEffect(() => {
    if (about && !first.current) document.getElementById("main").focus({ preventScroll: true });
    if (about && !first.current) scrollTo(0, 0);
    if (about) first.current = false;
  }, [view, rest, about]);
  const say = useCallback((text) => {
    clearTimeout(timer.current);
    setMessage(text);
    timer.current = setTimeout(() => setMessage(""), SHOWN);
  }, []);
  if (error || broken) {
    return html`<main class="alone"><${Failure} error=${error ?? new Problem(500, String(broken))} />
      <button type="button" onClick=${error ? load : mend}>${t("try again")}</button></main>`;
  }
  if (!about) return null;
  const { shop, models, scenarios } = about;
  const tell = tellerOf(language, shop.words);
  const options = optionsOf(controls);
  const views = {
    chat: () => html`<${Chat} subject=${subject} run=${controls.run} />`,
    taste: () => html`<${ProfileView} subject=${subject} choose=${choose} />`,
    compare: () => html`<${Compare} subject=${subject} options=${options} models=${models} />`,
    experiments: () => html`<${Experiments} />`,
    search: () => html`<${Found} key=${rest} query=${rest} subject=${subject} run=${controls.run} />`,
    item: () => html`<${ItemView} key=${rest} itemId=${rest} subject=${subject} choose=${choose} options=${options} />`,
  };
  const lists = () => html`<${Lists} subject=${subject} choose=${choose} controls=${controls}
    change=${change} models=${models} scenarios=${scenarios} />`;
  return html`<${Shared.Provider} value=${{ ...shared, shop, tell, say }}>
    <${Bar} ...${bar} view=${view} name=${shop.name} />
    <main id="main" tabindex="-1">
      ${!can("feedback") && html`<p class="banner">${t("reads only")}</p>`}
      ${(rest || !["item", "search"].includes(view) ? views[view] ?? lists : lists)()}
    </main>
    <div class="message" role="status" aria-live="polite">${message && html`<p>${message}</p>`}</div>
  </${Shared.Provider}>`;
}

render(html`<${App} />`, document.getElementById("app"));
