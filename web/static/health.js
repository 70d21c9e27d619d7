// Health: rights, rows, unknown ids, queue, latency, fallbacks, and the last errors with the way out.

import { ask } from "./api.js";
import { facts, h, present, table } from "./dom.js";
import { count, counted, fixed, percent, span, when } from "./format.js";
import { figure, lines } from "./plots.js";
import { changed, state } from "./songs.js";

const REFRESH_MS = 5000;
const DATABASE = {
  reachable: ["good", "reachable"],
  unreachable: ["bad", "away"],
  "not configured": ["", "not configured"],
};
const ROWS = {
  songs: "Songs",
  new_songs: "Songs newer than the model",
  sequences: "Lists that the model learned from",
  sequence_rows: "Places in them",
  requests_open: "Open requests",
  models: "Models",
};

let timer = 0;

export function show(place) {
  hide();
  present(place, load, draw).finally(() => again(place));
}

/** The overview, which the top of the page shows as well. */
function load() {
  state.overview = ask("v1/overview");
  changed("overview");
  return state.overview;
}

export function hide() {
  clearTimeout(timer);
}

/** Look again after a while, unless somebody is reading a table in it. */
function again(place) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const isRead = place.contains(document.activeElement) || place.querySelector("details[open]");
    if (place.closest("[hidden]")) return;
    if (document.hidden || isRead) again(place);
    else show(place);
  }, REFRESH_MS);
}

function draw(overview) {
  return [
    h(
      "div",
      { class: "cards" },
      databaseOf(overview.database),
      modelOf(overview),
      queueOf(overview),
      answersOf(overview),
      rowsOf(overview.rows),
    ),
    latencyOf(overview.latency),
    rightsOf(overview.database),
    errorsOf(overview.errors),
  ];
}

function card(title, state, ...children) {
  return h("section", { class: "card" }, h("div", { class: "line between" }, h("h3", null, title), state ? h("span", { class: `chip ${state[0]}` }, state[1]) : null), children);
}

function databaseOf(database) {
  const ways = {
    unreachable: "Lists of songs are still answered, with what was last read. Playlists, feedback, keys and switching wait for it: start it, or look whether the address is right; the service connects again by itself.",
    "not configured": "Lists of songs are answered. For playlists, feedback and switching, start the service with DATABASE_URL.",
  };
  return card(
    "Database",
    DATABASE[database.state] ?? ["", database.state],
    facts([
      ["Server", database.server],
      ["Role", database.role],
    ]),
    ways[database.state] ? h("p", null, ways[database.state]) : null,
    database.detail ? h("p", { class: "bad" }, database.detail) : null,
    database.way_out ? h("p", null, `Way out: ${database.way_out}`) : null,
  );
}

function modelOf({ model, worker, follower }) {
  return card(
    "Model",
    model.model_id ? ["good", "loaded"] : ["bad", "none"],
    facts([
      ["Answers", model.model_id && h("span", { class: "id" }, model.model_id)],
      ["Age", span(model.age_seconds)],
      ["Worker", worker],
      ["Follows models and songs", follower],
    ]),
    model.model_id ? null : h("p", null, "Train one (python train.py); the service loads it by itself."),
    model.refused ? h("p", { class: "bad" }, `Refused: ${model.refused}`) : null,
  );
}

function queueOf({ queue }) {
  if (typeof queue?.queued !== "number") return card("Requests for playlists", null, h("p", null, "The queue stands in the database, which cannot be asked at the moment."));
  const isLate = queue.oldest_seconds > 60;
  return card(
    "Requests for playlists",
    isLate ? ["bad", "late"] : ["good", "in time"],
    facts([
      ["Waiting", count(queue.queued ?? 0)],
      ["Running", count(queue.running ?? 0)],
      ["Oldest waits for", queue.oldest_seconds ? span(queue.oldest_seconds) : null],
    ]),
    isLate ? h("p", null, "Start another worker (cli.py worker), or look whether the one beside the service runs.") : null,
  );
}

function answersOf({ fallback, unknown }) {
  const kinds = Object.entries(fallback?.by_kind ?? {}).filter(([, n]) => n);
  return card(
    "Answers since the start",
    null,
    facts([
      ["Answers", count(fallback?.answers ?? 0)],
      ["Not by the model", fallback?.answers ? `${percent(fallback.share, 1)}` : null],
      ...kinds.map(([kind, n]) => [`… ${kind}`, count(n)]),
      ["Unknown ids sent", unknown?.sent ? `${percent(unknown.share, 1)} of ${count(unknown.sent)}` : null],
    ]),
    fallback?.answers ? null : h("p", null, "Nothing was asked yet. ", h("a", { href: "#try" }, "Build a list"), "."),
    unknown?.share > 0.2 ? h("p", null, "Many songs that are sent are not in the catalogue: compare the ids that callers send with those of the database.") : null,
  );
}

function rowsOf(rows) {
  const known = Object.entries(rows ?? {}).filter(([, value]) => typeof value === "number");
  return card(
    "Rows",
    null,
    known.length
      ? facts(known.map(([name, value]) => [ROWS[name] ?? name.replaceAll("_", " "), count(value)]))
      : h("p", null, "Rows are counted in the database, which cannot be asked at the moment."),
  );
}

function latencyOf(latency) {
  const recent = latency?.recent_ms ?? [];
  if (!recent.length) return h("section", null, h("h3", null, "Time until an answer"), h("p", null, "Nothing was asked yet."));
  return figure({
    title: "Time until an answer",
    text: `Half of ${counted(latency.n ?? recent.length, "answer")} within ${fixed(latency.p50_ms, 1)} ms, 95 of 100 within ${fixed(latency.p95_ms, 1)} ms, 99 of 100 within ${fixed(latency.p99_ms, 1)} ms. Drawn: the last ${recent.length}, in milliseconds.`,
    draw: (width) => {
      const points = recent.map((value, n) => [n + 1, value]);
      const drawn = lines({
        width,
        height: 90,
        xs: points.map(([n]) => n),
        series: [{ kind: "mine", points, dots: points.length < 3 }],
        format: (value) => fixed(value, value < 10 && value % 1 ? 1 : 0),
        bottom: 6,
        isFromZero: true,
        xFormat: () => "",
      });
      return { height: drawn.height, parts: drawn.parts };
    },
  });
}

function rightsOf({ rights, state }) {
  if (!rights?.length) {
    return h("section", null, h("h3", null, "Rights of the service's role"), h("p", null, state === "reachable" ? "They could not be read." : "They are read from the database, which cannot be asked at the moment."));
  }
  return h(
    "section",
    null,
    h("h3", null, "Rights of the service's role"),
    table(
      "Rights",
      [
        { title: "It may", head: true, of: (right) => right.what },
        { title: "State", of: (right) => h("span", { class: `chip ${right.ok ? "good" : "bad"}` }, right.ok ? "as it should be" : "not as it should be") },
        { title: "Detail", words: true, of: (right) => right.detail ?? "" },
        { title: "Way out", words: true, of: (right) => right.way_out ?? "" },
      ],
      rights,
      { isCaptionSeen: false },
    ),
  );
}

function errorsOf(errors) {
  return h(
    "section",
    null,
    h("h3", null, "Last errors"),
    errors?.length
      ? table(
          "Last errors, the newest first",
          [
            { title: "When", head: true, of: (error) => when(error.at) },
            { title: "Status", number: true, of: (error) => String(error.status) },
            { title: "Route", of: (error) => h("span", { class: "id" }, error.route) },
            { title: "Times", number: true, of: (error) => count(error.times ?? 1) },
          { title: "What was said", words: true, of: (error) => error.detail ?? "" },
            { title: "Way out", words: true, of: (error) => error.way_out ?? "" },
          ],
          errors,
          { isCaptionSeen: false },
        )
      : h("p", null, "None since the start of the service."),
  );
}
