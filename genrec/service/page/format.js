// Numbers, prices, dates and addresses of pictures, as people read them.

const CURRENCIES = /(?:^|[_ ])(gbp|usd|eur|cny|rmb|jpy|krw|inr|chf|cad|aud|sek|nok|dkk|pln|brl)$/i;
const PRICE = /(^|[_ ])(price|preis|prix|precio|prezzo)([_ ]|$)|价格|售价|单价|價格|価格/i;

/** Columns that are not shown as attributes, because the picture and the price are made of them. */
export const HIDDEN = new Set(["image_url", "currency"]);

/** Return the column that holds prices, and their currency if its name tells. */
export function priceColumn(columns) {
  const numbers = columns.filter((column) => column.kind === "number");
  const found = numbers.find((column) => column.name === "price") ??
    numbers.find((column) => PRICE.test(column.name));
  if (!found) return null;
  const [, code] = found.name.match(CURRENCIES) ?? [];
  return { name: found.name, currency: code?.toUpperCase().replace("RMB", "CNY") ?? null };
}

/** Write a price; the item's attribute `currency` counts if the column's name does not tell. */
export function price(value, currency, language) {
  if (typeof value !== "number") return String(value);
  if (currency && /^[A-Z]{3}$/.test(currency)) {
    return new Intl.NumberFormat(language, { style: "currency", currency }).format(value);
  }
  return new Intl.NumberFormat(language, { maximumFractionDigits: 2 }).format(value);
}

/** Write the value of an attribute on one line. */
export function value(given, language) {
  if (typeof given === "number") return new Intl.NumberFormat(language).format(given);
  if (Array.isArray(given)) return given.map((one) => value(one, language)).join(", ");
  return typeof given === "object" ? JSON.stringify(given) : String(given);
}

/** Write the name of a column in words. */
export const columnName = (name) => name.replace(/_/g, " ");

/** Write a share such as 0.0734 as 7.3%. */
export const percent = (share, language, digits = 1) =>
  new Intl.NumberFormat(language, {
    style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits,
  }).format(share);

/** Write a date; positions in a sequence, which are small numbers, have none. */
export function date(seconds, language) {
  if (!(seconds > 1e8 && seconds < 1e11)) return "";
  return new Intl.DateTimeFormat(language, { dateStyle: "medium" }).format(new Date(seconds * 1000));
}

/** Write evidence in nats with its sign. */
export const nats = (number) =>
  `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(2)}`;

/** Return the address of a picture if the browser may load it, and otherwise null. */
export function picture(address, hosts) {
  if (typeof address !== "string") return null;
  let parsed;
  try {
    parsed = new URL(address);
  } catch {
    return null;
  }
  if (parsed.protocol !== "https:" || parsed.username || parsed.password) return null;
  const allowed = hosts.some((host) =>
    host.startsWith("*.") ? parsed.host.endsWith(host.slice(1)) : parsed.host === host);
  return allowed ? parsed.href : null;
}

/** Return the address of an item's page. */
export const itemAddress = (itemId) => `#/item/${encodeURIComponent(itemId)}`;
