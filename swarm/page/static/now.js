// What this node does, why, and what came of its last work.

import { byId, count, duration, el, fill, lines, loss, pairs, score, several, size, tokens, write } from "./dom.js";
import { post } from "./api.js";

let paused = false;

export const start = (announce) => {
  const button = byId("pause");
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await post(paused ? "/api/resume" : "/api/pause", { part: "train" });
      paused = !paused;
      label();
      announce(paused ? "Training is paused." : "Training goes on.");
    } catch (error) {
      write("pause-note", error.message);
    }
    button.disabled = false;
  });
};

const label = () => write("pause", paused ? "Resume training" : "Pause training");

const finality = ({ p50 }) => (p50 === null ? null : `final in ${p50 < 1000 ? `${Math.round(p50)} ms` : `${(p50 / 1000).toFixed(1)} s`}`);

const last = (told) => {
  if (!told) {
    return [el("h3", {}, "Last contribution"),
      el("p", { class: "small" }, "None yet: what this node hands in stands here once its round is settled.")];
  }
  const fate = told.accepted === null ? "was not scored" : told.accepted ? "was accepted" : "was not accepted";
  return [
    el("h3", {}, "Last contribution"),
    el("p", {}, `The update for round ${count(told.round)} of ${told.task} `,
      el("strong", { class: told.accepted ? "good" : "bad" }, fate),
      told.accepted === false && told.reason ? `: ${told.reason}.` : "."),
    el("p", { class: "small" },
      [told.score === null ? null : `Score ${score(told.score)} of the loss`, `paid ${tokens(told.paid)} tokens`,
        told.loss === null ? null : `loss ${loss(told.base_loss)} → ${loss(told.loss)}`, `settled in block ${count(told.height)}`]
        .filter(Boolean).join(" · ")),
  ];
};

const notice = (told, one, many) => (told.length
  ? [el("div", { class: "notice" }, el("h3", {}, several(told.length, one, many)), el("ul", {}, told.slice(0, 8).map((text) => el("li", {}, text))))]
  : []);

// What costs tokens next, and in how long.
const warnings = (told) => told.map(({ why, seconds }) => why + (seconds === null ? "" : ` (in ${duration(seconds)})`));

// What else than training is held back, and why.
const held = (told) => told.filter(({ part }) => part !== "train").map(({ part, why }) => `${part}: ${why}`);

let shown = "";

export const render = ({ state, status, last: contribution, trains, block_seconds: seconds }) => {
  write("network-name", status.network);
  write("state-word", state.word);
  write("state-why", state.why);
  const task = status.task;
  write("state-task", task
    ? `${task.name}: round ${count(task.round)} of ${count(task.rounds)}, ${task.phase.replace("_", " ")}, `
      + `${several(task.blocks_left, "block")} left (about ${duration(task.blocks_left * seconds)})`
      + (task.training_loss === null || task.training_loss === undefined ? "" : `; training loss ${loss(task.training_loss)}`)
    : "");
  paused = status.paused.some((one) => one.part === "train");
  byId("pause").hidden = !trains;
  label();
  const storage = status.storage;
  pairs(byId("figures"), [
    ["Tokens", tokens(status.balance), `${tokens(status.earned)} earned, ${tokens(status.stake)} staked`],
    ["Pledged", size(storage.lent), `${size(storage.used)} used, ${size(storage.free)} free`],
    ["Peers", count(status.peers), `${several(status.validators, "validator")} in this epoch`],
    ["Block", count(status.height), [`epoch ${count(status.epoch)}`, finality(status.finality_ms)].filter(Boolean).join(", ")],
    ["Works as", status.roles.join(", ") || "reader", status.device],
    ["Up for", duration(status.uptime_s), `${size(status.bytes_in)} in, ${size(status.bytes_out)} out`],
  ]);
  const soon = warnings(status.warnings ?? []);
  const back = held(status.held ?? []);
  const now = JSON.stringify([status.problems, soon, back, contribution, status.addresses]);
  if (now !== shown) {
    shown = now;
    fill(byId("problems"), [
      ...notice(status.problems, "problem"), ...notice(soon, "warning"), ...notice(back, "part held back", "parts held back"),
    ]);
    fill(byId("last"), last(contribution));
    lines(byId("identity"), [
      ["Account and peer", el("span", { class: "mono" }, status.account)],
      ["Network", `${status.network}, chain id ${status.chain_id}`],
      ...status.addresses.map((one, at) => [at ? "" : "Addresses", el("span", { class: "mono" }, one)]).map(([name, value]) => [name || "\u00a0", value]),
      ["Version", `${status.version}, process ${status.pid}`],
    ]);
  }
};
