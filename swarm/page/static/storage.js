// The disk: what it is lent for, what is proven, and where replicas stand.

import { byId, count, duration, el, fill, lines, several, size, short, table, tokens, write } from "./dom.js";
import { replicas } from "./maps.js";

export const render = (told) => {
  const sealed = told.sealed ?? 0, kept = told.duties.bytes;
  const own = Math.max(0, told.used - kept);
  const parts = [
    ["Sealed, ready to be filled", sealed, ""],
    ["Kept for others", kept, "two"],
    ["Own content and checkpoints", own, "three"],
    ["Free", Math.max(0, told.lent - sealed - kept - own), "free"],
  ];
  fill(byId("storage-line"), el("strong", {}, size(told.lent)), ` lent, ${size(told.used)} used, ${size(told.free)} free`
    + `${told.reclaimable ? `; swarm gc gives up to ${size(told.reclaimable)} back` : ""}.`);
  const bar = byId("storage-bar");
  while (bar.children.length < parts.length) bar.append(el("span"));
  parts.forEach(([, bytes, kind], at) => {
    bar.children[at].className = kind;
    bar.children[at].style.flex = `${bytes} 0 0`;
    bar.children[at].hidden = !bytes;
  });
  table(byId("storage-table"), [{ text: "What" }, { text: "Size", kind: "number" }],
    parts.map(([name, bytes, kind]) => [
      { text: el("span", {}, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), name), head: true }, size(bytes)]));
  proofs(told);
  deals(told.deals);
};

const proofs = (told) => {
  const { slots } = told, blocks = told.next_audit - told.height;
  lines(byId("proofs"), [
    ["Sealed", slots.goal ? `${count(slots.sealed)} of ${several(slots.goal, "slot")}; the ledger counts ${count(slots.counted)}, ${count(slots.proven)} proven` : "nothing is sealed"],
    ["Kept for others", `${several(told.duties.here, "piece")} of ${count(told.duties.pieces)}, ${size(told.duties.bytes)}`],
    ["Last audit", told.audit ? `number ${count(told.audit)}: ${told.verdict}` : told.verdict],
    ["Next audit", `in ${several(Math.max(0, blocks), "block")}, about ${duration(Math.max(0, blocks) * told.block_seconds)}`],
    ["Strikes", told.suspended ? `${count(told.strikes)}: suspended` : count(told.strikes)],
    ["Earned by lending", `${tokens(told.earned)} tokens, ${tokens(told.collateral)} put up`],
  ]);
};

let shown = "";

const deals = (told) => {
  const now = JSON.stringify(told);
  if (now === shown) return;
  shown = now;
  write("replicas-note", told.length
    ? "Each column is a piece, each box a replica: full is proven, pale is taken, dashed is still free. A thick edge is this node."
    : "No deal is open on this network: nobody has others keep anything.");
  fill(byId("replicas"), told.map((deal) => {
    const seats = deal.pieces.flatMap((one) => one.seats);
    const words = `${seats.filter((one) => one.shown).length} of ${deal.pieces.length * deal.replicas} replicas proven, ${seats.length} taken`;
    const rows = deal.pieces.map((one) => [
      { text: el("span", { class: "mono", title: one.root }, short(one.root)), head: true },
      { text: one.seats.map((seat) => `${short(seat.keeper)}${seat.me ? " (this node)" : ""}: ${seat.shown ? "proven" : "taken"}`).join(", ") || "nobody yet", kind: "wide" }]);
    const grid = el("table", {});
    table(grid, [{ text: "Piece" }, { text: "Keepers" }], rows);
    return el("article", { class: "card deal", "aria-label": `Deal ${deal.deal.slice(0, 12)}` },
      el("p", {}, el("strong", { class: "mono" }, deal.deal.slice(0, 12)), ` ${size(deal.bytes)}${deal.coded ? ", coded" : ""}${deal.mine ? ", this account's" : ""}: ${words}.`),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Replica map" }, replicas(deal, words)),
      el("details", {}, el("summary", { "data-key": deal.deal }, "Pieces as a table"), el("div", { class: "scroll" }, grid)));
  }));
};
