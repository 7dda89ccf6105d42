// What all parts of the page share, and the history that the lists are for.
import { createContext, useContext, useEffect, useRef, useState } from "./html.js";
import { ask } from "./api.js";

export const Shared = createContext(null);
/** Words, language, shop, scopes and messages; see `App`. */
export const useShared = () => useContext(Shared);

/**
 * Run a request when its inputs change, and give up the one before.
 * Returns the latest data, an error, and since when a request has been running.
 */
export function useAnswer(run, inputs, wait = 0) {
  const [state, set] = useState({ data: null, error: null, since: performance.now() });
  useEffect(() => {
    const stop = new AbortController();
    set((old) => ({ ...old, error: null, since: performance.now() }));
    const timer = setTimeout(async () => {
      try {
        const data = await run(stop.signal);
        if (!stop.signal.aborted) set({ data, error: null, since: null });
      } catch (error) {
        if (!stop.signal.aborted) set({ data: null, error, since: null });
      }
    }, wait);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, inputs);
  return state;
}

/** Return the seconds since a moment, and update them; 0 if the moment is null. */
export function useSeconds(since) {
  const [seconds, set] = useState(0);
  useEffect(() => {
    set(0);
    if (since === null) return undefined;
    const timer = setInterval(() => set((performance.now() - since) / 1000), 500);
    return () => clearInterval(timer);
  }, [since]);
  return seconds;
}

/** Keep a value in the browser. Without storage, as in a private window, it is kept until reload. */
export function useKept(name, start, storage) {
  const [value, set] = useState(() => {
    try {
      const kept = storage.getItem(`genrec ${name}`);
      return kept === null ? start : JSON.parse(kept);
    } catch {
      return start;
    }
  });
  const keep = (next) => {
    set(next);
    try {
      storage.setItem(`genrec ${name}`, JSON.stringify(next));
    } catch {
      // The value is still used until the page is loaded again.
    }
  };
  return [value, keep];
}

/** Return the part of a request that names a history. */
export function historyOf(subject) {
  if (subject.kind === "customer") return { user_id: subject.id };
  if (subject.session) return { session_id: subject.session };
  return { history: subject.events.map(eventOf) };
}

const eventOf = ({ item_id, behavior, text }) =>
  item_id ? { item_id, behavior } : { text, behavior };

/** Store what the user says about an item, and return the subject with the new event. */
export async function give(subject, item, behavior, listId) {
  const event = { item_id: item.item_id, behavior, ...(listId ? { list_id: listId } : {}) };
  if (subject.kind === "customer") {
    await ask("/v1/feedback", { ...event, user_id: subject.id });
    return { ...subject, version: (subject.version ?? 0) + 1 };
  }
  let { session } = subject;
  if (!session) {
    const kept = { history: subject.events.map(eventOf), keep: true, k: 1, impression: false };
    session = (await ask("/v1/sessions", kept)).session_id;
  }
  await ask("/v1/feedback", { ...event, session_id: session });
  const told = { item_id: item.item_id, title: item.title, behavior, timestamp: Date.now() / 1000 };
  return { ...subject, session, events: [...subject.events, told] };
}

/** Remember the last value that was not null. */
export function useLatest(value) {
  const kept = useRef(value);
  if (value !== null) kept.current = value;
  return kept.current;
}
