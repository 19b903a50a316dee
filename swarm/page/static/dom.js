// Elements, and how numbers and names are written. Text only ever becomes text: nothing is parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";

const grow = (made, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {}))
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  made.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined));
  return made;
};

export const el = (name, attributes, ...children) => grow(document.createElement(name), attributes, children);
export const svg = (name, attributes, ...children) => grow(document.createElementNS(SVG, name), attributes, children);
export const byId = (id) => document.getElementById(id);

/** Put children in place of what is there; who had the focus by its `data-key` keeps it. */
export const fill = (holder, ...children) => {
  const key = holder.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  holder.replaceChildren(...children.flat(Infinity).filter((one) => one !== null && one !== undefined));
  if (key) holder.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
};

/** Write a text where it is another one: unchanged nodes are not told to a screen reader again. */
export const write = (id, text) => {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
};

/** A table of rows; a cell is a text, a node, or `{ text, kind, head }`. */
export const table = (holder, titles, rows) => {
  const cell = (one, at) => {
    const given = one !== null && typeof one === "object" && !(one instanceof Node) ? one : { text: one };
    const kind = given.kind ?? titles[at]?.kind;
    return el(given.head ? "th" : "td", { class: kind, scope: given.head ? "row" : null, rowspan: given.span }, given.text ?? "–");
  };
  const head = el("thead", {}, el("tr", {}, titles.map((one) => el("th", { scope: "col", class: one.kind }, one.text))));
  const body = el("tbody", {}, rows.map((row) => el("tr", { class: row.kind }, (row.cells ?? row).map(cell))));
  holder.replaceChildren(head, body);
};

/** Names and values, `[name, value, note]` each. */
export const pairs = (holder, lines) => {
  const said = lines.filter(([, value]) => value !== null && value !== undefined && value !== "");
  holder.replaceChildren(...said.map(([name, value, note]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value, note ? el("span", { class: "small" }, note) : null))));
};

/** The same, where both stand in a grid. */
export const lines = (holder, said) =>
  holder.replaceChildren(...said.filter(([, value]) => value !== null && value !== "").flatMap(([name, value]) =>
    [el("dt", {}, name), el("dd", {}, value)]));

const number = (most, least = 0) => new Intl.NumberFormat("en", { maximumFractionDigits: most, minimumFractionDigits: least });
const WHOLE = number(0), TWO = number(2), FOUR = number(4, 4);

export const count = (value) => WHOLE.format(value);
export const several = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
export const loss = (value) => (value === null || value === undefined ? "–" : FOUR.format(value));
export const score = (value) => (value === null || value === undefined ? "–" : `${value < 0 ? "−" : "+"}${number(2, 2).format(Math.abs(value) * 100)} %`);

export const tokens = (units) => {
  const value = units / 1e9;
  return value !== 0 && Math.abs(value) < 0.01 ? number(6).format(value) : TWO.format(value);
};

export const size = (bytes) => {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0, value = bytes;
  while (value >= 999.95 && at < units.length - 1) { value /= 1000; at += 1; }
  return `${at ? number(1, 1).format(value) : count(value)} ${units[at]}`;
};

export const duration = (seconds) => {
  if (seconds < 60) return several(Math.floor(seconds), "second");
  if (seconds < 7200) return several(Math.floor(seconds / 60), "minute");
  if (seconds < 172800) return several(Math.floor(seconds / 3600), "hour");
  return several(Math.floor(seconds / 86400), "day");
};

/** The end of an account or CID: its beginning is the same for all. */
export const short = (text) => (text.length > 14 ? `…${text.slice(-8)}` : text);
export const account = (id, mine) =>
  el("span", { class: "mono", title: id }, short(id), mine ? el("span", { class: "tag" }, "this node") : null);
