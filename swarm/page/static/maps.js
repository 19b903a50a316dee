// Two drawings: peers around this node by latency, and the seats of each piece that is kept.

import { short, svg } from "./dom.js";

const RINGS = [[1, 0.4], [10, 0.6], [100, 0.8], [1000, 1]];
const NEAREST = 0.32;

/** How far out a latency lies: rings are powers of ten, below a millisecond is nearest. */
const away = (ms) => {
  if (ms === null) return 1;
  const power = Math.log10(Math.max(0.3, ms));
  return Math.min(1, Math.max(NEAREST, 0.4 + power * 0.2));
};

const shape = (peer, x, y) => {
  const is = (role) => peer.roles.includes(role);
  const body = is("validator") ? svg("circle", { class: "validator", cx: x, cy: y, r: 7 })
    : is("worker") ? svg("circle", { class: "worker", cx: x, cy: y, r: 6.5 })
    : svg("circle", { class: "reader", cx: x, cy: y, r: 4 });
  const frame = is("keeper") ? svg("rect", { class: "keeper", x: x - 11, y: y - 11, width: 22, height: 22, rx: 4 }) : null;
  return [frame, body];
};

export const network = (holder, told, describe) => {
  const wide = Math.max(280, holder.clientWidth), high = wide < 560 ? wide * 0.95 : 400;
  const cx = wide / 2, cy = high / 2, rx = wide / 2 - 60, ry = high / 2 - 34;
  const peers = told.peers.map((peer, at) => {
    const angle = (at / told.peers.length) * 2 * Math.PI - 0.6;
    const share = away(peer.latency_ms);
    return { peer, x: cx + Math.cos(angle) * rx * share, y: cy + Math.sin(angle) * ry * share };
  });
  const labelled = peers.length <= 16;
  holder.replaceChildren(svg("svg", { viewBox: `0 0 ${wide} ${high}`, height: high, role: "img", "aria-label": describe },
    RINGS.map(([ms, share]) => [
      svg("ellipse", { class: "ring", cx, cy, rx: rx * share, ry: ry * share }),
      svg("text", { x: cx, y: cy + ry * share + 4, "text-anchor": "middle", class: "scale" }, ms < 1000 ? `${ms} ms` : "1 s"),
    ]),
    peers.map(({ x, y }) => svg("line", { class: "spoke", x1: cx, y1: cy, x2: x, y2: y })),
    svg("circle", { class: "me", cx, cy, r: 9 }),
    svg("text", { class: "strong", x: cx - 18, y: cy + 4, "text-anchor": "end" }, "this node"),
    peers.map(({ peer, x, y }) => svg("g", {},
      svg("title", {}, `${peer.peer}\n${peer.roles.join(", ") || "reader"}${peer.latency_ms === null ? "" : `, ${peer.latency_ms} ms`}`),
      shape(peer, x, y),
      labelled ? svg("text", { x, y: y + 26, "text-anchor": "middle" }, short(peer.peer)) : null))));
};

const BOX = 14, GAP = 6;

/** Pieces across, seats of each downwards. */
export const replicas = (deal, describe) => {
  const high = deal.replicas * (BOX + GAP), wide = deal.pieces.length * (BOX + GAP);
  const seats = deal.pieces.flatMap((piece, at) => Array.from({ length: deal.replicas }, (_, down) => {
    const seat = piece.seats[down];
    const kind = !seat ? "free" : `${seat.shown ? "shown" : "taken"}${seat.me ? " mine" : ""}`;
    return svg("g", {},
      svg("title", {}, seat ? `${seat.keeper}: ${seat.shown ? "proven" : "taken, not proven yet"}` : "nobody yet"),
      svg("rect", { class: `seat ${kind}`, x: at * (BOX + GAP) + 1.5, y: down * (BOX + GAP) + 1.5, width: BOX, height: BOX, rx: 3 }));
  }));
  return svg("svg", { viewBox: `0 0 ${wide} ${high}`, width: wide, height: high, role: "img", "aria-label": describe }, seats);
};
