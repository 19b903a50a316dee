// Asking the node: a session of two halves, JSON answers, and the stream of news.

const KEY = "swarm-key";

export class Refused extends Error {
  constructor(status, error) {
    super(error?.hint ? `${error.message}; ${error.hint}` : error?.message ?? `the node answered ${status}`);
    this.status = status;
  }
}

const headers = () => {
  const key = localStorage.getItem(KEY);
  return key ? { "x-swarm-key": key } : {};
};

const answer = async (response) => {
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, told.error);
  return told.value;
};

export const get = async (path) => answer(await fetch(path, { headers: headers(), cache: "no-store" }));

const send = async (method, path, body) =>
  answer(await fetch(path, {
    method,
    headers: { ...headers(), "content-type": "application/json" },
    body: body && JSON.stringify(body),
  }));

export const post = (path, body) => send("POST", path, body);

export const image = async (cid) => {
  const response = await fetch(`/api/samples/${cid}/image`, { headers: headers() });
  if (!response.ok) throw new Refused(response.status);
  return URL.createObjectURL(await response.blob());
};

/** Take the code of a link out of the address, and a session for it. */
export const enter = async () => {
  const code = /^#([\w-]{22})$/.exec(location.hash)?.[1];
  if (!code) return;
  history.replaceState(null, "", location.pathname);
  localStorage.setItem(KEY, (await post("/api/session", { code })).key);
};

export const leave = async () => {
  localStorage.removeItem(KEY);
  await send("DELETE", "/api/session");
};

/** Read the news until the node ends them; `on(name, value)` for each. */
export const listen = async (on, opened, signal) => {
  const response = await fetch("/api/events", { headers: headers(), signal });
  if (!response.ok) throw new Refused(response.status, (await response.json().catch(() => ({}))).error);
  opened();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const name = /^event: (\w+)$/m.exec(block)?.[1];
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (name && data) on(name, JSON.parse(data));
    }
  }
};
