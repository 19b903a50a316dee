// The peers: who they are, and how far away.

import { account, byId, count, el, fill, several, table } from "./dom.js";
import { network } from "./maps.js";

let told = null;

export const start = () => new ResizeObserver(() => told && draw()).observe(byId("peers-map"));

export const render = (news) => {
  told = news;
  const { validator, worker, keeper, reader } = told.counts;
  fill(byId("peers-line"), told.all
    ? [el("strong", {}, `${several(told.all, "peer")}`), ` connected: ${several(validator, "validator")}, ${several(worker, "worker")}, ${several(keeper, "keeper")}${reader ? `, ${several(reader, "reader")}` : ""}. One peer may be several.`]
    : "No peer is connected.");
  table(byId("peers-table"),
    [{ text: "Peer" }, { text: "Roles" }, { text: "Latency", kind: "number" }, { text: "Block", kind: "number" }, { text: "Connected", kind: "number" }, { text: "Dialled by" }, { text: "Software" }],
    told.peers.map((one) => [
      { text: account(one.peer), head: true }, one.roles.join(", ") || "reader",
      one.latency_ms === null ? "–" : `${one.latency_ms} ms`, count(one.head), several(one.minutes, "minute"),
      one.dialled ? "this node" : "the peer", one.version || "–",
    ]));
  draw();
};

const draw = () => {
  const known = told.peers.map((one) => one.latency_ms).filter((one) => one !== null);
  const range = known.length ? `, ${Math.min(...known)} to ${Math.max(...known)} ms away` : "";
  network(byId("peers-map"), told, `${several(told.all, "peer")} around this node${range}; the table below names them`);
};
