// The end of the log, asked for while it is in sight.

import { byId, el, table } from "./dom.js";
import { get } from "./api.js";

let visible = false, stale = true;

export const start = () => {
  new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
    refresh();
  }).observe(byId("log"));
  for (const id of ["log-level", "log-lines"]) byId(id).addEventListener("change", () => { stale = true; refresh(); });
};

export const render = () => {
  stale = true;
  refresh();
};

const refresh = async () => {
  if (!visible || !stale) return;
  stale = false;
  try {
    show(await get(`/api/logs?level=${byId("log-level").value}&lines=${byId("log-lines").value}`));
  } catch {
    stale = true;
  }
};

const show = (lines) => {
  const holder = byId("log-table").parentElement;
  const atEnd = holder.scrollHeight - holder.scrollTop - holder.clientHeight < 40;
  table(byId("log-table"), [{ text: "Time" }, { text: "Level" }, { text: "What", kind: "wide" }], lines.length
    ? lines.map((one) => [
      { text: el("time", { datetime: one.time, class: "mono small" }, new Date(one.time).toLocaleTimeString("en-GB")) },
      { text: el("span", { class: one.level === "info" || one.level === "debug" ? "small" : "bad" }, one.level) },
      { text: el("span", {}, el("span", { class: "event" }, one.event), " ", el("span", { class: "mono small" }, one.values)), kind: "wide" }])
    : [["", "", { text: "Nothing of this level, or no log is kept." }]]);
  if (atEnd) holder.scrollTop = holder.scrollHeight;
};
