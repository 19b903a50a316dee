// The page: lets the browser in, keeps the stream of news open while it is looked at, and hands each part to its view.

import { Refused, enter, leave, listen } from "./api.js";
import { byId, write } from "./dom.js";
import * as log from "./log.js";
import * as network from "./network.js";
import * as now from "./now.js";
import * as storage from "./storage.js";
import * as training from "./training.js";

const FIRST_PAUSE = 1000, LONGEST_PAUSE = 30000;
const THEME = "swarm-theme";
const views = { node: now, tasks: training, peers: network, storage, log };

const announce = (text) => write("announcer", text);

const connection = (kind, text) => {
  byId("dot").className = `dot ${kind}`;
  write("connection", text);
};

const sleep = (ms) => new Promise((resolve) => {
  const timer = setTimeout(done, ms);
  function done() { clearTimeout(timer); document.removeEventListener("visibilitychange", done); resolve(); }
  document.addEventListener("visibilitychange", done);
});

const theme = () => {
  const media = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement, button = byId("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : media.matches);
  const label = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", dark() ? "Light colours" : "Dark colours");
  };
  const kept = localStorage.getItem(THEME);
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    localStorage.setItem(THEME, root.dataset.theme);
    label();
  });
  media.addEventListener("change", label);
  label();
};

const sections = () => {
  const links = [...document.querySelectorAll("nav a")];
  const mark = (id) => links.forEach((one) => {
    if (one.hash === `#${id}`) one.setAttribute("aria-current", "true");
    else one.removeAttribute("aria-current");
  });
  const observer = new IntersectionObserver((entries) => {
    const entry = entries.find((one) => one.isIntersecting);
    if (entry) mark(entry.target.id);
  }, { rootMargin: "-25% 0px -65% 0px" });
  document.querySelectorAll("#views > section").forEach((one) => observer.observe(one));
  mark("now");
};

const closed = (why) => {
  byId("views").hidden = true;
  byId("sections").hidden = true;
  byId("forget").hidden = true;
  byId("door").hidden = false;
  if (why) write("door-why", why);
  connection("lost", "not let in");
};

const open = () => {
  byId("door").hidden = true;
  byId("views").hidden = false;
  byId("sections").hidden = false;
  byId("forget").hidden = false;
};

let word = "";

const news = (name, value) => {
  views[name]?.render(value);
  if (name === "node") {
    document.title = `${value.state.word}: swarm`;
    write("foot", `swarm ${value.status.version}. Nothing on this page can spend a token.`);
    if (value.state.word !== word) announce(`This node is ${value.state.word}. ${value.state.why}`);
    word = value.state.word;
  }
};

/** Keep listening while the page is seen; a hidden one lets its connection go. */
const stay = async () => {
  let pause = FIRST_PAUSE;
  for (;;) {
    while (document.hidden) await sleep(LONGEST_PAUSE);
    const going = new AbortController();
    const hide = () => document.hidden && going.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      await listen(news, () => { open(); connection("live", "live"); pause = FIRST_PAUSE; }, going.signal);
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return closed();
      if (error instanceof Refused) write("connection", error.message);
    }
    document.removeEventListener("visibilitychange", hide);
    if (!document.hidden) {
      connection("lost", "no answer; trying again");
      if (pause === FIRST_PAUSE) announce("The node does not answer. Trying again.");
      await sleep(pause);
      pause = Math.min(LONGEST_PAUSE, pause * 2);
    }
  }
};

const run = async () => {
  theme();
  now.start(announce);
  training.start(announce);
  network.start();
  log.start();
  sections();
  byId("forget").addEventListener("click", async () => { await leave(); closed("This browser is forgotten."); location.reload(); });
  try {
    await enter();
  } catch (error) {
    if (error instanceof Refused) return closed(`${error.message}.`);
  }
  addEventListener("hashchange", async () => {
    if (/^#[\w-]{22}$/.test(location.hash)) location.reload();
  });
  await stay();
};

run();
