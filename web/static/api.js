// The way to the service: JSON there and back, errors as `Problem`, the API key kept in this tab only.

const KEY = "api key";
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

async function fetched(path, body, signal) {
  const headers = { Accept: "application/json, */*;q=0.5" };
  if (key !== null) headers.Authorization = `Bearer ${key}`;
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (key !== null && /[^\x20-\x7e]/.test(key)) throw new Problem(401, "a key has none of these letters: copy it whole");
    throw new Problem(0, "It was stopped, is starting, or the network is gone. Start it, or wait a moment, then try again.");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const problem = new Problem(response.status, told.detail ?? response.statusText);
  if (response.status === 401) access.dispatchEvent(new CustomEvent("key", { detail: problem.message }));
  throw problem;
}

/** The JSON answer to a GET, or to a POST where there is a body.  Throws Problem, and AbortError where `signal` says so. */
export async function ask(path, { body, signal } = {}) {
  return (await fetched(path, body, signal)).json();
}

/** Have the browser save what a POST answers with, under the name that the service gives it: {name, text} of the file. */
export async function save(path, body) {
  const response = await fetched(path, body);
  const disposition = response.headers.get("Content-Disposition") ?? "";
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(disposition);
  const plain = /filename="?([^";]+)"?/i.exec(disposition);
  const name = encoded ? decodeURIComponent(encoded[1]) : plain ? plain[1] : "playlist.txt";
  const link = document.createElement("a");
  const blob = await response.blob();
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return { name, text: await blob.text() };
}
