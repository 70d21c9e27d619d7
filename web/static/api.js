// The way to the service: JSON there and back, errors as `Problem`, the API key kept in this tab only.

const KEY = "api key";
const PATIENCE_MS = 60_000; // for an answer to its last sign
export const GONE = "It was stopped, is starting, or the network is gone. Start it, or wait a moment, then try again.";
const TITLES = {
  0: "No answer from the service",
  401: "An API key is needed",
  403: "This key may not do that",
  404: "There is no such thing",
  421: "Asked under another name",
  422: "This cannot be answered",
  429: "Too many requests",
  503: "Not available at the moment",
};

/** What the service (or the way to it) said no with; its message names the way out. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.name = "Problem";
    this.status = status;
    this.title = TITLES[status] ?? `The service answered with status ${status}`;
    this.mayPass = status === 0 || status === 429 || status >= 500;
  }
}

/** "key": a key is needed, or the one that was sent is not known; detail says which. */
export const access = new EventTarget();

let key = sessionStorage.getItem(KEY);

export function useKey(text) {
  key = text.trim();
  sessionStorage.setItem(KEY, key);
}

export function forgetKey() {
  key = null;
  sessionStorage.removeItem(KEY);
}

export function hasKey() {
  return key !== null;
}

/** What `read` makes of the response.  Throws Problem, also where the answer stays away or is cut off, and AbortError where `signal` says so. */
async function answered(path, body, signal, read) {
  const limit = new AbortController();
  const stop = () => limit.abort();
  const timer = setTimeout(stop, PATIENCE_MS);
  signal?.addEventListener("abort", stop);
  if (signal?.aborted) stop();
  try {
    return await read(await fetched(path, body, limit.signal));
  } catch (error) {
    if (error.name === "Problem") throw error;
    if (signal?.aborted) throw new DOMException("a newer question has taken its place", "AbortError");
    throw new Problem(0, GONE);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

async function fetched(path, body, signal) {
  const sent = key;
  if (sent !== null && /[^\x20-\x7e]/.test(sent)) throw refused(sent, 401, "a key has none of these letters: copy it whole");
  const headers = { Accept: "application/json, */*;q=0.5" };
  if (sent !== null) headers.Authorization = `Bearer ${sent}`;
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw refused(sent, response.status, told.detail ?? response.statusText);
}

/** The problem that a status stands for; a key that is not known is told of, unless another one was given meanwhile. */
function refused(sent, status, detail) {
  const problem = new Problem(status, detail);
  if (status === 401 && key === sent) access.dispatchEvent(new CustomEvent("key", { detail: problem.message }));
  return problem;
}

/** The JSON answer to a GET, or to a POST where there is a body.  Throws Problem, and AbortError where `signal` says so. */
export async function ask(path, { body, signal } = {}) {
  return answered(path, body, signal, (response) => response.json());
}

/** Have the browser save what a POST answers with, under the name that the service gives it: {name, text} of the file. */
export async function save(path, body) {
  const [response, blob] = await answered(path, body, null, async (whole) => [whole, await whole.blob()]);
  const disposition = response.headers.get("Content-Disposition") ?? "";
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(disposition);
  const plain = /filename="?([^";]+)"?/i.exec(disposition);
  const name = encoded ? decodeURIComponent(encoded[1]) : plain ? plain[1] : "playlist.txt";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return { name, text: await blob.text() };
}
