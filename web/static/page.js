// The page: panels behind tabs, the theme, the key, and who answers.  Each panel's module is loaded when it is first looked at.

import { GONE, Problem, access, ask, forgetKey, hasKey, useKey } from "./api.js";
import { byId, focusedIn, problemBox, refocus } from "./dom.js";
import { span } from "./format.js";
import { changes, state } from "./songs.js";
import { begin, restore } from "./try.js";

const PANELS = ["why", "flow", "model", "popularity", "map", "health"]; // each a module of that name
const loaded = new Map(); // panel: its module
let failures = 0;

// --- panels ------------------------------------------------------------------------------------------------------------------

const tabs = [...document.querySelectorAll("[role=tab]")];
let current = "try";

function nameOf(tab) {
  return tab.id.slice("tab-".length);
}

async function open(name, { focus = false } = {}) {
  if (current !== name) loaded.get(current)?.hide?.();
  current = name;
  for (const tab of tabs) {
    const isIt = nameOf(tab) === name;
    tab.setAttribute("aria-selected", String(isIt));
    tab.tabIndex = isIt ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !isIt;
    if (isIt && focus) tab.focus();
  }
  await refresh();
}

/** Draw the panel that is looked at anew. */
async function refresh() {
  const name = current;
  if (!PANELS.includes(name)) return;
  const place = byId(`panel-${name}`).querySelector(".content");
  if (!loaded.has(name) && !(await load(name, place))) return;
  if (current !== name) return;
  const focused = focusedIn(place);
  loaded.get(name).show(place);
  refocus(place, focused);
}

/** Load the module of a panel; whether it is there now.  Where it is not, the panel says so. */
async function load(name, place) {
  try {
    // Browsers remember an address that failed: it is asked for under another one then.
    loaded.set(name, await import(`./${name}.js${failures ? `?${failures}` : ""}`));
    return true;
  } catch {
    failures += 1;
    place.replaceChildren(problemBox(new Problem(0, GONE), refresh));
    return false;
  }
}

function fromHash() {
  const name = location.hash.slice(1);
  return tabs.some((tab) => nameOf(tab) === name) ? name : "try";
}

for (const tab of tabs) {
  tab.addEventListener("click", () => (location.hash = nameOf(tab)));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.indexOf(tab), End: tabs.length - 1 - tabs.indexOf(tab) }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    location.hash = nameOf(next);
    open(nameOf(next), { focus: true });
  });
}
window.addEventListener("hashchange", () => {
  const name = fromHash();
  if (name === current) return;
  open(name);
  scrollTo(0, 0);
});
for (const what of ["answer", "chosen", "model"]) changes.addEventListener(what, refresh);

// --- theme -------------------------------------------------------------------------------------------------------------------

const THEMES = { auto: "automatic", light: "light", dark: "dark" };

function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

function showTheme() {
  byId("theme").textContent = `Theme: ${THEMES[theme()]}`;
}

byId("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(theme()) + 1) % names.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (next === "auto") localStorage.removeItem("theme");
    else localStorage.setItem("theme", next);
  } catch {
    // It lasts as long as the page then.
  }
  showTheme();
});

// --- the key -----------------------------------------------------------------------------------------------------------------

access.addEventListener("key", (event) => {
  const form = byId("key-form");
  const wasHidden = form.hidden;
  form.hidden = false;
  if (hasKey()) {
    byId("key-note").textContent = `The key was not taken: ${event.detail}.`;
    byId("key").setAttribute("aria-invalid", "true");
    forgetKey();
  }
  if (wasHidden) byId("key").focus();
});

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey(byId("key").value);
  if (!(await whoAnswers())) return;
  byId("key").value = "";
  byId("key").removeAttribute("aria-invalid");
  byId("key-form").hidden = true;
  byId("find-song").focus();
  await restore();
  await refresh();
});

// --- who answers -------------------------------------------------------------------------------------------------------------

/** Ask which model is in service, and show it; whether that could be asked. */
async function whoAnswers() {
  state.overview = ask("v1/overview");
  return showWho();
}

/** Show what the overview says that was asked for last. */
async function showWho() {
  let overview;
  try {
    overview = await state.overview;
  } catch (error) {
    if (error.name !== "Problem") throw error;
    byId("in-service").textContent = error.status === 401 ? "An API key is needed" : error.title;
    return error.status !== 401;
  }
  const { model_id: model, age_seconds: age } = overview.model;
  const words = model ? `Model ${model.slice(model.lastIndexOf("/") + 1)}, trained ${span(age)} ago` : "No model is loaded";
  byId("in-service").textContent = overview.database.state === "unreachable" ? `${words}. The database is away.` : words;
  return true;
}

changes.addEventListener("model", whoAnswers);
changes.addEventListener("stale", whoAnswers);
changes.addEventListener("overview", showWho); // another panel has asked

showTheme();
open(fromHash());
await Promise.all([whoAnswers(), begin()]);
document.documentElement.dataset.ready = "true";
