// Why items are in the lists: by counting at once, and by the model when it has answered.
import { ask } from "./api.js";
import { historyOf } from "./state.js";

const GRACE = 250; // milliseconds for which a request goes on that nobody waits for
const FEW = 3; // cards whose reasons are asked for in advance
const IDLE = 800; // milliseconds after which the page counts as idle

/** The reasons for the items of an answer. The model is asked for one at a time. */
export class Reasons {
  constructor() {
    this.known = new Map();
    this.counted = new Map();
    this.running = null;
  }

  /** Return the reason by counting alone, which takes milliseconds. */
  async count(card, subject, signal) {
    return this.keep(this.counted, card, () =>
      asked(card, subject, { counting: true, style: "plain" }, signal));
  }

  /** Return the reason by the model and counting, with the sentence. Another one gives way to it. */
  async ask(card, subject, signal) {
    return this.keep(this.known, card, () => this.wait(card, subject, signal));
  }

  async keep(known, card, make) {
    const { item_id, title } = card.item;
    if (!known.has(item_id)) {
      const found = await make();
      if (!found) return null;
      known.set(item_id, { of: this, item_id, title, ...found });
    }
    return known.get(item_id);
  }

  wait(card, subject, signal) {
    if (this.running?.item_id !== card.item.item_id || this.running.stop.signal.aborted) {
      this.running?.stop.abort();
      const stop = new AbortController();
      const running = { item_id: card.item.item_id, stop, waiting: 0 };
      running.answer = asked(card, subject, {}, stop.signal).finally(() => {
        if (this.running === running) this.running = null;
      });
      this.running = running;
    }
    const { running } = this;
    running.waiting += 1;
    signal.addEventListener("abort", () => {
      running.waiting -= 1;
      setTimeout(() => running.waiting === 0 && running.stop.abort(), GRACE);
    });
    return running.answer;
  }

  /** Ask for the reasons of the first cards while nobody needs the model, until the signal. */
  async prepare(cards, subject, signal) {
    try {
      for (const card of cards.slice(0, FEW)) {
        if (this.known.has(card.item.item_id)) continue;
        await idle(signal);
        const { waiting, running_seconds } = await ask("/healthz", undefined, { signal });
        if (document.hidden || waiting > 0 || running_seconds > 0) return;
        await this.ask(card, subject, signal);
      }
    } catch (error) {
      // Nobody asked for this. Who points at the card sees what is wrong.
    }
  }
}

async function asked({ show, item, run }, subject, how, signal) {
  const answer = await ask("/v1/recommend", {
    ...historyOf(subject), run, show, k: 1, allow: [item.item_id],
    explain: true, evidence: "fast", impression: false, ...how,
  }, { signal });
  const [found] = answer.recommendations;
  return found?.explanation
    ? { explanation: found.explanation, events: answer.prompt.events, counted: Boolean(how.counting) }
    : null;
}

function idle(signal) {
  return new Promise((done, stopped) => {
    const timer = setTimeout(done, IDLE);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      stopped(signal.reason);
    });
  });
}
