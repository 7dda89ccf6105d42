// Requests to the service that this page came from.

/** A request that failed. `status` is 0 if there was no answer. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let token = null;
let whenSignedOut = () => {};

/** Use the token of a sign-in for later requests, and call a function if the sign-in has ended. */
export function signedIn(newToken, signedOut) {
  token = newToken;
  whenSignedOut = signedOut;
}

async function send(path, { body, method, signal, accept } = {}) {
  const headers = { accept: accept ?? "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token) headers["x-csrf-token"] = token;
  let answer;
  try {
    answer = await fetch(path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      body: body === undefined ? undefined : JSON.stringify(body),
      headers,
      signal,
      credentials: "same-origin",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401 && path !== "/signin") whenSignedOut();
  throw new Problem(answer.status, String(problem.detail ?? answer.statusText));
}

/** Send a request, and return its answer. With a body, it is a POST unless a method is given. */
export async function ask(path, body, { method, signal } = {}) {
  const answer = await send(path, { body, method, signal });
  const value = await answer.json();
  performance.mark(`answer ${path}`);
  return value;
}

/** Build an address with a query. */
export function address(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/**
 * Send a request that is answered by a stream, and return the message called `name`.
 * `hear` is called with the name and the value of each message before it.
 */
export async function follow(path, body, name, hear, signal) {
  const answer = await send(path, { body, signal, accept: "text/event-stream" });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Problem(0, "");
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    for (const message of messages) {
      const [, kind, data] = message.match(/^event: (\w+)\ndata: (.*)$/s) ?? [];
      if (kind === "problem") {
        const problem = JSON.parse(data);
        throw new Problem(problem.status, problem.detail);
      }
      if (kind === name) return JSON.parse(data);
      if (kind) hear(kind, JSON.parse(data));
    }
  }
}
