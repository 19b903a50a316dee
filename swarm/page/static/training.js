// Tasks: the loss curve, the rounds, who earned what, and samples of the versions.

import { account, byId, count, el, fill, loss, score, several, table, tokens, write } from "./dom.js";
import { get, image, post } from "./api.js";
import { curve } from "./plot.js";

let tasks = [], chosen = null, seen = "", report = null, drawing = null;
let samples = [];
const images = new Map();
const NOTE = byId("samples-note").textContent;

export const start = (announce) => {
  byId("task").addEventListener("change", (event) => {
    chosen = event.target.value;
    seen = "";
    refresh();
  });
  byId("draw-form").addEventListener("submit", (event) => {
    event.preventDefault();
    draw(announce);
  });
  new ResizeObserver(() => report && plot()).observe(byId("curve"));
};

export const render = (told) => {
  tasks = told;
  byId("training-empty").hidden = tasks.length > 0;
  byId("training-body").hidden = !tasks.length;
  byId("task-pick").hidden = tasks.length < 2;
  byId("samples").hidden = !tasks.length;
  if (!tasks.length) return;
  if (!tasks.some((one) => one.task === chosen)) chosen = tasks[0].task;
  const options = tasks.map((one) => one.task).join();
  if (byId("task").dataset.options !== options) {
    byId("task").dataset.options = options;
    fill(byId("task"), tasks.map((one) => el("option", { value: one.task }, `${one.name}${one.open ? "" : " (ended)"}`)));
  }
  byId("task").value = chosen;
  const task = tasks.find((one) => one.task === chosen);
  line(task);
  // The rest changes with the round and its phase only: it is asked for then.
  const now = [task.task, task.round, task.phase, task.version, task.open, task.loss].join();
  if (now !== seen) {
    seen = now;
    refresh();
  }
};

const line = (task) => {
  const fell = task.first_loss !== null && task.loss !== null
    ? `, loss ${loss(task.first_loss)} → ${loss(task.loss)}` : "";
  fill(byId("task-line"), el("strong", {}, task.name), task.open
    ? ` is in round ${count(task.round)} of ${count(task.rounds)}: ${task.phase.replace("_", " ")}, ${several(task.blocks_left, "block")} left; version ${count(task.version)}${fell}.`
    : ` ended after ${several(task.round, "round")}; version ${count(task.version)}${fell}.`);
  const done = task.open ? (task.round - 1) / task.rounds : 1;
  const bar = byId("task-progress");
  if (!bar.firstChild) bar.append(el("span"));
  bar.firstChild.style.width = `${Math.round(100 * Math.min(1, done))}%`;
};

const refresh = async () => {
  const asked = chosen;
  try {
    const [told, kept] = await Promise.all([get(`/api/tasks/${encodeURIComponent(asked)}`), get("/api/samples")]);
    if (asked !== chosen) return;
    report = told;
    samples = kept;
  } catch {
    seen = ""; // asked again with the next news
    return;
  }
  plot();
  earned();
  rounds();
  cards();
};

const plot = () => {
  const points = report.curve;
  const unit = report.task.kind.startsWith("gan") ? "Fréchet distance" : "Validation loss";
  write("curve-caption", `${unit} by round${points.length ? ", lower is better" : ""}`);
  const describe = points.length
    ? `${unit} fell from ${loss(points[0][1])} to ${loss(points.at(-1)[1])} in ${several(points.at(-1)[0], "round")}; the table below has every value`
    : `${unit}: no round has ended yet`;
  curve(byId("curve"), points, describe, (x, y) => `${x ? `round ${count(x)}` : "start"}: ${loss(y)}`);
  table(byId("curve-table"), [{ text: "After round" }, { text: "Loss", kind: "number" }],
    points.map(([round, value]) => [{ text: count(round), head: true }, loss(value)]));
};

const earned = () => {
  write("earned-note", report.counted ? `Tokens over ${report.counted === 1 ? "one round" : `the last ${several(report.counted, "round")}`}.` : "Nobody yet.");
  table(byId("earned"),
    [{ text: "Account" }, { text: "Training", kind: "number" }, { text: "Validating", kind: "number" }, { text: "Accepted", kind: "number" }],
    report.earned.map((one) => ({
      kind: one.me ? "me" : null,
      cells: [{ text: account(one.account, one.me), head: true }, tokens(one.work), tokens(one.validating), `${count(one.accepted)} of ${count(one.submitted)}`],
    })));
};

const verdict = (entry) => {
  if (entry.accepted === null) return "not scored yet";
  if (entry.accepted) return el("span", { class: "good" }, "accepted");
  return entry.reason ? `refused: ${entry.reason}` : "refused";
};

const rounds = () => {
  const own = new Set(report.earned.filter((one) => one.me).map((one) => one.account));
  const rows = report.rounds.flatMap((one) => {
    const change = one.loss === null && one.base_loss === null ? "–" : `${loss(one.base_loss)} → ${loss(one.loss)}`;
    const entries = one.submissions.length ? one.submissions : [null];
    return entries.map((entry, at) => {
      const left = at ? [] : [{ text: count(one.round), head: true, span: entries.length }, { text: change, span: entries.length }];
      const right = entry
        ? [{ text: account(entry.worker, own.has(entry.worker)) }, { text: score(entry.score), kind: "number" }, { text: tokens(entry.paid), kind: "number" }, { text: verdict(entry), kind: "wide" }]
        : [{ text: "nobody yet" }, "", "", ""];
      return [...left, ...right].map((cell) => (typeof cell === "string" ? { text: cell } : cell));
    });
  });
  table(byId("rounds"), [{ text: "Round" }, { text: "Loss" }, { text: "Worker" }, { text: "Score", kind: "number" }, { text: "Paid", kind: "number" }, { text: "Verdict" }],
    rows.map((cells) => ({ cells: cells.map((cell) => ({ kind: "", ...cell })) })));
};

const cards = () => {
  const select = byId("draw-version"), missing = report.versions.filter((one) => !samples.some((each) => each.cid === one.cid));
  const options = missing.map((one) => one.version).join();
  if (select.dataset.options !== options) {
    const before = select.value;
    select.dataset.options = options;
    fill(select, missing.map((one) => el("option", { value: one.version }, `${one.version}${one.loss === null ? "" : `, loss ${loss(one.loss)}`}`)));
    if (missing.some((one) => String(one.version) === before)) select.value = before;
  }
  byId("draw-form").hidden = !missing.length && drawing === null;
  byId("draw").setAttribute("aria-disabled", drawing !== null);
  write("draw", drawing === null ? "Draw a sample" : `Drawing version ${count(drawing)}…`);
  const made = report.versions.map((one) => [one, samples.find((each) => each.cid === one.cid)]).filter(([, sample]) => sample);
  const cids = made.map(([one]) => one.cid).join();
  if (byId("samples-body").dataset.cids === cids) return;
  byId("samples-body").dataset.cids = cids;
  fill(byId("samples-body"), made.map(([one, sample]) =>
    el("article", { class: "card", "aria-label": `Version ${one.version}` },
      el("h3", {}, `Version ${count(one.version)}`, el("span", {}, one.loss === null ? "the start" : `loss ${loss(one.loss)}`)), shown(sample))));
};

const shown = (sample) => {
  if (sample.text !== null) return el("pre", { tabindex: "0", "aria-label": `Text of version ${sample.version}` }, sample.text);
  const picture = el("img", { alt: `A grid of pictures that version ${sample.version} painted` });
  if (!images.has(sample.cid)) images.set(sample.cid, image(sample.cid));
  images.get(sample.cid).then((address) => { picture.src = address; }, () => images.delete(sample.cid));
  return picture;
};

const draw = async (announce) => {
  if (drawing !== null || !byId("draw-version").value) return;
  const { name } = report.task;
  drawing = Number(byId("draw-version").value);
  cards();
  announce(`Drawing a sample of version ${drawing}.`);
  try {
    samples = [...samples, await post("/api/samples", { name, version: drawing })];
    announce(`The sample of version ${drawing} is there.`);
    write("samples-note", NOTE);
  } catch (error) {
    announce(error.message);
    write("samples-note", `Version ${drawing}: ${error.message}.`);
  }
  drawing = null;
  cards();
};
