// Templates that become elements. All texts become text nodes; no file of this page writes HTML.
import htm from "./vendor/htm.js";
import { h } from "./vendor/preact.js";

export { createContext, render } from "./vendor/preact.js";
export * from "./vendor/hooks.js";
export const html = htm.bind(h);
