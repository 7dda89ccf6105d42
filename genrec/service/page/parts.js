// Small parts that several views use.
import { html, useEffect, useId, useRef, useState } from "./html.js";
import { useSeconds, useShared } from "./state.js";

/** A text field that completes what is typed. `find(text, signal)` returns the options. */
export function Completing({ label, find, choose, enter, hint, show, clears = true, start = "" }) {
  const id = useId();
  const [text, setText] = useState(start);
  const [found, setFound] = useState([]);
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const typed = useRef(false);
  useEffect(() => {
    if (!typed.current) return undefined;
    const stop = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const options = await find(text, stop.signal);
        setFound(options);
        setAt(-1);
        setOpen(options.length > 0);
      } catch {
        setOpen(false); // The same problem is shown where the answer would be.
      }
    }, 60);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [text]);
  useEffect(() => {
    if (at >= 0) document.getElementById(`${id}-${at}`)?.scrollIntoView({ block: "nearest" });
  }, [at]);
  const take = (option) => {
    typed.current = false;
    setText(clears ? "" : show(option).text);
    setOpen(false);
    choose(option);
  };
  const key = (event) => {
    if (event.isComposing) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) {
        setOpen(found.length > 0);
        return;
      }
      const step = event.key === "ArrowDown" ? 1 : -1;
      setAt((at + step + found.length + (at < 0 && step < 0 ? 1 : 0)) % found.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (open && at >= 0) take(found[at]);
      else if (enter && text.trim()) {
        typed.current = false;
        setOpen(false);
        enter(text.trim(), found);
        if (clears) setText("");
      }
    } else if (event.key === "Escape" && open) {
      event.stopPropagation();
      setOpen(false);
    }
  };
  return html`<div class="completing">
    <label for=${id}>${label}</label>
    <input id=${id} type="text" role="combobox" autocomplete="off" spellcheck="false"
      aria-expanded=${open ? "true" : "false"} aria-controls=${`${id}-list`} aria-autocomplete="list"
      aria-activedescendant=${open && at >= 0 ? `${id}-${at}` : undefined}
      placeholder=${hint} value=${text} onKeyDown=${key}
      onInput=${(event) => {
        typed.current = true;
        setText(event.currentTarget.value);
      }}
      onFocus=${() => {
        typed.current = true;
        if (found.length) setOpen(true);
      }}
      onBlur=${() => setOpen(false)} />
    <ul id=${`${id}-list`} role="listbox" aria-label=${label} hidden=${!open}>
      ${found.map((option, index) => {
        const { text: main, more } = show(option);
        return html`<li id=${`${id}-${index}`} key=${index} role="option"
          aria-selected=${index === at ? "true" : "false"}
          onPointerDown=${(event) => event.preventDefault()} onClick=${() => take(option)}>
          <span>${main}</span>${more ? html` <small>${more}</small>` : null}
        </li>`;
      })}
    </ul>
  </div>`;
}

/** Say what went wrong. */
export function Failure({ error }) {
  const { t } = useShared();
  const text = error.status === 0 ? t("no answer") : error.message;
  return html`<p class="failure" role="alert">${text}</p>`;
}

/** Say that an answer is being computed, and for how long. */
export function Working({ since, text }) {
  const { t } = useShared();
  const seconds = useSeconds(since);
  if (since === null) return null;
  const passed = seconds >= 1 ? ` ${t("seconds", { n: Math.floor(seconds) })}` : "";
  return html`<p class="working"><span class="spin" aria-hidden="true"></span>${text}${passed}</p>`;
}

/** A drop-down list with a label. Options are pairs of a value and its text. */
export function Select({ label, value, options, choose, quiet = false }) {
  const id = useId();
  return html`<div class="field">
    <label for=${id} class=${quiet ? "hidden" : ""}>${label}</label>
    <select id=${id} value=${value} onChange=${(event) => choose(event.currentTarget.value)}>
      ${options.map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}
    </select>
  </div>`;
}

const ICONS = {
  up: "M7 10v11H3V10zm0 0 4-8c2 0 3 1 3 3l-1 4h6c1.5 0 2.4 1.3 2 2.7l-2 7c-.3 1.3-1 2.300-2 2.300H7",
  down: "M17 14V3h4v11zm0 0-4 8c-2 0-3-1-3-3l1-4H5c-1.5 0-2.4-1.3-2-2.7l2-7C5.3 4 6 3 7 3h10",
  cross: "M5 5l14 14M19 5 5 19",
  theme: "M12 3a9 9 0 1 0 0 18zm0 0a9 9 0 0 1 0 18",
};

/** A drawing of one line. */
export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"
  fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round"><path d=${ICONS[name]} /></svg>`;
