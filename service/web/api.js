// Everything the page asks of the server. Each call either answers with JSON or throws a Problem.

export class Problem extends Error {
  // status: HTTP status, 0 when the server could not be reached
  constructor(status, title, detail) {
    super(detail || title);
    this.status = status;
    this.title = title;
  }
}

let key = ""; // held by this page alone: gone when it is closed or loaded again

export const useKey = (given) => (key = given);

async function ask(path, init = {}) {
  let response;
  try {
    response = await fetch(path, key ? { ...init, headers: { ...init.headers, Authorization: `Bearer ${key}` } } : init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server cannot be reached", "Is it running? The page will try again when you do.");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, body.title || response.statusText, body.detail);
  return body;
}

export const listModels = () => ask("v1/models");

export async function isReady() {
  try {
    return (await fetch("readyz")).ok;
  } catch {
    return null; // nobody there
  }
}

export function makeQuery({ model, tta, wantsMap, topK = 5 }) {
  const query = new URLSearchParams();
  if (model) query.set("model", model);
  if (tta) query.set("tta", tta);
  if (wantsMap) query.set("map", "true");
  if (topK !== 5) query.set("top_k", topK);
  const text = query.toString();
  return text ? `?${text}` : "";
}

export function classify(file, options, signal) {
  return ask(`v1/classify${makeQuery(options)}`, { method: "POST", body: file, signal });
}

export function writeCurl(name, options) {
  const url = new URL(`v1/classify${makeQuery(options)}`, document.baseURI);
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const header = key ? "-H 'Authorization: Bearer KEY' " : "";
  return `curl ${header}-F img=@${/^[\w.-]+$/.test(name) ? name : quoted(name)} ${quoted(url.href)}`;
}
