// A curve with its axes, drawn to the width it is given; a pointer on it reads a value off.

import { svg } from "./dom.js";

const HIGH = 280, LEFT = 52, RIGHT = 20, TOP = 18, BOTTOM = 34;

/** Round steps that part a span into about so many. */
const ticks = (low, high, about) => {
  const raw = (high - low || Math.abs(high) || 1) / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(at);
  return { step, found };
};

const digits = (step) => Math.max(0, Math.min(6, Math.ceil(-Math.log10(step) - 1e-9)));

/** Draw points, `[x, y]` each and in order, into a holder; `say(x, y)` words one of them. */
export const curve = (holder, points, describe, say) => {
  const wide = Math.max(280, holder.clientWidth);
  if (!points.length) {
    holder.replaceChildren(svg("svg", { viewBox: `0 0 ${wide} 80`, role: "img", "aria-label": describe },
      svg("text", { x: 0, y: 44 }, "No round has ended yet: the curve begins with the first.")));
    return;
  }
  const xs = points.map((one) => one[0]), ys = points.map((one) => one[1]);
  const left = xs[0], right = xs.at(-1) > left ? xs.at(-1) : left + 1;
  const spread = Math.max(...ys) - Math.min(...ys) || Math.abs(ys[0]) * 0.1 || 1;
  const low = Math.min(...ys) - spread * 0.08, high = Math.max(...ys) + spread * 0.08;
  const x = (at) => LEFT + ((at - left) / (right - left)) * (wide - LEFT - RIGHT);
  const y = (at) => TOP + ((high - at) / (high - low)) * (HIGH - TOP - BOTTOM);
  const up = ticks(low, high, 4), along = ticks(left, right, Math.min(8, wide / 90));
  const path = points.map(([a, b], at) => `${at ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  const floor = HIGH - BOTTOM;
  const [lastX, lastY] = points.at(-1);
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: floor, visibility: "hidden" });
  const mark = svg("circle", { class: "point", r: 5, cx: x(lastX), cy: y(lastY) });
  const note = svg("text", { class: "strong" });

  const read = ([px, py]) => {
    mark.setAttribute("cx", x(px));
    mark.setAttribute("cy", y(py));
    const late = x(px) > wide * 0.6;
    note.setAttribute("x", x(px) + (late ? -10 : 10));
    note.setAttribute("y", Math.max(TOP + 4, y(py) - 16));
    note.setAttribute("text-anchor", late ? "end" : "start");
    note.textContent = say(px, py);
  };
  read(points.at(-1));

  const drawn = svg("svg", { viewBox: `0 0 ${wide} ${HIGH}`, height: HIGH, role: "img", "aria-label": describe },
    up.found.map((at) => [
      svg("line", { class: "axis", x1: LEFT, x2: wide - RIGHT, y1: y(at), y2: y(at) }),
      svg("text", { x: LEFT - 10, y: y(at) + 4, "text-anchor": "end" }, at.toFixed(digits(up.step))),
    ]),
    along.found.filter((at) => Number.isInteger(at)).map((at) =>
      svg("text", { x: x(at), y: floor + 22, "text-anchor": "middle" }, String(at))),
    points.length > 1 ? svg("path", { class: "below", d: `${path}L${x(right)} ${floor}L${x(left)} ${floor}Z` }) : null,
    svg("path", { class: "curve", d: path }), cursor, mark, note);

  drawn.addEventListener("pointermove", (event) => {
    const box = drawn.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * wide;
    const nearest = points.reduce((best, one) => (Math.abs(x(one[0]) - at) < Math.abs(x(best[0]) - at) ? one : best));
    cursor.setAttribute("x1", x(nearest[0]));
    cursor.setAttribute("x2", x(nearest[0]));
    cursor.setAttribute("visibility", "visible");
    read(nearest);
  });
  drawn.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    read(points.at(-1));
  });
  holder.replaceChildren(drawn);
};
