// Try it: build a list, see what continues it, take it away.

import { ask, save } from "./api.js";
import { combobox } from "./combobox.js";
import { announce, byId, copy, empty, focusedIn, h, problemBox, refocus } from "./dom.js";
import { camelot, code, count, counted, fixed, keyName, sentence } from "./format.js";
import { asCurl, asSQL } from "./request.js";
import { changed, changes, factsOf, ids, keptList, learn, lookUp, setList, state, titleOf } from "./songs.js";

const FOUND = 8; // songs and playlists that a search shows
const FORMATS = { jspf: "JSPF", m3u8: "M3U8", csv: "CSV", json: "JSON", sql: "SQL" };
const PAUSE_MS = 150; // of moving a control, before it is asked
const PLAYLISTS_PAUSE_MS = 300; // of typing: they are found by a query of the database, which goes on when nobody waits
const LISTENER = "listener";
const LONGEST_NAME = 255; // of a list, in letters, as the service takes it
const LONGEST_BEGINNING = 100; // of the name of a file with suggestions
const NAMED = 1; // songs that one reason names; Why has them all
const MORE = 3; // playlists that an empty list offers

const excluded = new Set(); // songs that could not be stored as "never again"
let asking = null;
let picking = null; // the playlist that is being read
let timer = 0;
let defaults = new Map(); // the fields of the controls as they stood at first: what the service does when nothing is said

// --- the request -------------------------------------------------------------------------------------------------------------

const number = (field) => (field.value === "" ? null : Number(field.value));
const READ = {
  discovery: number,
  temperature: number,
  seed: number,
  count: number,
  max_per_artist: number,
  artist_spacing: number,
  exclude_played_days: number,
  order: (field) => field.value,
  allow_explicit: (field) => field.checked,
  listener: (field) => field.value.trim() || null,
};

/** What a field held before anybody, or the browser going back to this page, put something else there. */
function standing(field) {
  if (field.options) return { value: ([...field.options].find((option) => option.defaultSelected) ?? field.options[0]).value };
  return { value: field.defaultValue, checked: field.defaultChecked };
}

/** The controls that were changed, as fields of a request. */
function controls() {
  const form = byId("controls");
  const given = {};
  for (const [name, read] of Object.entries(READ)) {
    const value = read(form.elements[name]);
    if (value !== null && value !== defaults.get(name)) given[name] = value;
  }
  const ranges = {};
  for (const feature of ["tempo", "energy"]) {
    const bounds = {};
    for (const side of ["min", "max"]) {
      const value = number(byId(`${feature}-${side}`));
      if (value !== null) bounds[side] = value;
    }
    if (Object.keys(bounds).length) ranges[feature] = bounds;
  }
  if (Object.keys(ranges).length) given.ranges = ranges;
  if (excluded.size) given.exclude = [...excluded];
  return given;
}

function request() {
  return { songs: ids(state.list), ...controls(), explain: true };
}

function listener() {
  return byId("listener").value.trim();
}

/** Ask for suggestions soon; a newer question takes the place of one that is under way. */
function suggestSoon() {
  clearTimeout(timer);
  timer = setTimeout(suggest, PAUSE_MS);
}

async function suggest() {
  clearTimeout(timer);
  asking?.abort();
  const place = byId("suggestions");
  if (!state.list.length) return showStart();
  const mine = (asking = new AbortController());
  const body = request();
  const focused = focusIn(place);
  place.setAttribute("aria-busy", "true");
  if (!state.answer) place.replaceChildren(h("p", { class: "quiet" }, "Asking the model…"));
  try {
    const answer = await ask("v1/recommend", { body, signal: mine.signal });
    await lookUp(ids(answer.songs), mine.signal);
    show(answer, body, focused);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.name !== "Problem") throw error;
    setAnswer(null, body);
    const now = focusIn(place) ?? focused;
    place.replaceChildren(problemBox(error, suggest));
    focusAgain(place, now);
  } finally {
    if (asking === mine) place.removeAttribute("aria-busy");
  }
}

function setAnswer(answer, body) {
  state.answer = answer;
  state.asked = body;
  if (!answer?.songs.some((song) => song.song_id === state.chosen)) state.chosen = answer?.songs[0]?.song_id ?? null;
  showRequest(body);
  changed("answer");
}

// --- what came back ----------------------------------------------------------------------------------------------------------

/** `before`: what had the focus when it was asked. */
function show(answer, body, before) {
  setAnswer(answer, body);
  const place = byId("suggestions");
  const focused = focusIn(place) ?? before;
  place.replaceChildren(
    ...[
      notesOf(answer),
      answer.songs.length ? h("ol", { class: "songs" }, answer.songs.map(row)) : nothingLeft(),
      answer.songs.length ? exports("suggestions", "Take the suggestions away", exportSuggestions) : null,
    ].filter(Boolean),
  );
  focusAgain(place, focused);
  const first = answer.songs[0];
  announce(first ? `${counted(answer.songs.length, "suggestion")}, first ${titleOf(factsOf(first.song_id))}` : "No suggestions");
}

/** Which button of which row has the focus, and whether it is shown, as it is where the keyboard is used; null for none.  Outside the rows: its words. */
function focusIn(place) {
  const element = document.activeElement;
  const item = element?.closest("li.song");
  if (!item || !place.contains(item)) return focusedIn(place);
  const button = [...item.querySelectorAll("button")].indexOf(element);
  return { row: [...item.parentElement.children].indexOf(item), button, isSeen: element.matches(":focus-visible") };
}

/** The focus where it was, in rows that are new; nothing moves under a finger or a mouse. */
function focusAgain(place, focused) {
  if (focused === null || document.activeElement !== document.body) return;
  const { row, button, isSeen } = focused;
  if (row === undefined) return refocus(place, focused);
  const rows = place.querySelectorAll("li.song");
  const buttons = rows[Math.min(row, rows.length - 1)]?.querySelectorAll("button");
  (buttons?.[Math.max(button, 0)] ?? byId("find-song")).focus({ preventScroll: !isSeen });
}

function nothingLeft() {
  return empty("No song is left", "The controls leave nothing: widen the ranges, or set them back.", resetButton());
}

function resetButton() {
  return h("button", { type: "button", onclick: () => byId("controls").reset() }, "Back to the defaults");
}

const FALLBACKS = {
  content: "No song of this list was in training: these are found by artist, album and features.",
  cooccurrence: "There is no model yet: these are found by counting what stands together in lists.",
  popular: "Nothing is known of the songs of this list: these are simply popular.",
};
const RULES = {
  artist_spacing: "space between songs of an artist",
  max_per_artist: "songs per artist",
  skipped: "songs that were skipped",
  exclude_played_days: "songs played lately",
  ranges: "tempo and energy (songs without that feature were let in)",
};

/** What is to be said of the answer as a whole; null where it is the usual one. */
function notesOf(answer) {
  const { relaxed, unavailable } = answer.rules;
  const notes = [
    FALLBACKS[answer.fallback],
    answer.unknown.length && `Not known to the model, and passed over: ${answer.unknown.map((id) => titleOf(factsOf(id))).join(", ")}.`,
    relaxed.length && `To find enough songs these gave way: ${relaxed.map((name) => RULES[name] ?? name).join("; ")}.`,
    unavailable?.includes("listener") && "The database is away: what this listener blocked counts as it was last read.",
    unavailable?.includes("exclude_played_days") && "What this listener played is not known at the moment.",
    unavailable?.includes("allow_explicit") && "Songs of this catalogue are not marked explicit, so none can be left out.",
    answer.seed !== null && answer.seed !== undefined && `Drawn with seed ${answer.seed}: enter it to draw the same songs again.`,
  ].filter(Boolean);
  return notes.length ? h("ul", { class: "notes" }, notes.map((note) => h("li", null, note))) : null;
}

function row(suggested) {
  const song = factsOf(suggested.song_id);
  const title = titleOf(song);
  return h(
    "li",
    { class: "song" },
    h("span", { class: "rank", "aria-hidden": "true" }, String(suggested.rank)),
    h("div", { class: "what" }, named(song), h("ul", { class: "reasons", "aria-label": "Reasons" }, reasonsOf(suggested))),
    sound(song),
    h(
      "div",
      { class: "acts" },
      h("button", { type: "button", class: "add", "aria-label": `Add ${title} to the list`, onclick: (event) => addOnce(event, song) }, "+ add"),
      h("button", { type: "button", class: "plain", "aria-label": `Why ${title}?`, onclick: () => why(song) }, "why"),
      h("button", { type: "button", class: "plain", "aria-label": `Never again ${title}`, onclick: () => never(song) }, "never"),
    ),
  );
}

function named(song) {
  const by = [song.artist, song.album].filter(Boolean).join(" · ");
  return [h("p", { class: "title" }, titleOf(song)), h("p", { class: "by" }, by || `id ${song.song_id}`)];
}

function sound(song) {
  const place = camelot(song.features);
  const { tempo } = song.features ?? {};
  return h(
    "p",
    { class: "sound" },
    tempo === undefined ? h("span", null, "no tempo") : h("span", null, fixed(tempo, 0), h("span", { class: "quiet" }, " BPM")),
    place ? h("span", null, keyName(song.features), h("span", { class: "quiet" }, ` ${code(place)}`)) : h("span", null, "no key"),
  );
}

/** The reasons in words, with titles; songs that it is because of stand in one. */
function reasonsOf(suggested) {
  const words = (songId) => `“${titleOf(factsOf(songId))}”`;
  const because = suggested.reasons.filter((reason) => reason.kind === "because_of");
  const texts = suggested.reasons
    .filter((reason) => reason.kind !== "because_of")
    .map((reason) => {
      if (reason.kind === "same_album") return `same album as ${words(reason.song_id)}`;
      if (reason.kind === "same_artist") return `same artist as ${words(reason.song_id)}`;
      if (reason.kind === "close_features") return `${reason.features.join(" and ")} close to ${words(reason.song_id)}`;
      return reason.text;
    });
  if (because.length) texts.push(`because of ${because.slice(0, NAMED).map((reason) => words(reason.song_id)).join(" and ")}`);
  return texts.map((text) => h("li", null, text));
}

// --- what can be done with a suggestion --------------------------------------------------------------------------------------

/** Add a suggestion, unless it is there already: the second click of two comes before its row is gone, or hits the row that took its place. */
function addOnce(event, song) {
  if (event.detail <= 1 && !ids(state.list).includes(song.song_id)) add(song);
}

function add(song) {
  sayOfAnswer("");
  setList([...state.list, song]);
  say(`Added ${titleOf(song)}.`);
}

function why(song) {
  state.chosen = song.song_id;
  changed("chosen");
  location.hash = "why";
}

async function never(song) {
  const who = listener();
  if (!who) {
    byId("controls-box").open = true;
    byId("listener").focus();
    byId("listener-said").textContent = "“Never” is remembered for somebody: name a listener here, then press it again.";
    return;
  }
  try {
    await remember(who, song);
    sayOfAnswer(`${titleOf(song)} will not be suggested to ${who} again.`);
  } catch (error) {
    if (error.name !== "Problem") throw error;
    excluded.add(song.song_id);
    sayOfAnswer(`Not remembered (${error.message}). Until this page is closed, ${titleOf(song)} is left out.`);
  }
  await suggest();
}

/** Store it, in the figures of the model that suggested the song as far as the database knows that model. */
async function remember(who, song) {
  const event = { event: "never_again", song_id: song.song_id, recommended: true };
  const store = (one) => ask("v1/feedback", { body: { listener: who, events: [one] } });
  const model = state.answer?.model;
  try {
    await store(model ? { ...event, model_id: model.model_id } : event);
  } catch (error) {
    if (!model || error.status !== 404) throw error; // 404: the model was never entered
    await store(event);
  }
}

// --- the list ----------------------------------------------------------------------------------------------------------------

/** Say what was done, with a way back where there is one. */
function say(text, undo = null) {
  byId("list-note").replaceChildren(
    text,
    " ",
    undo ? h("button", { type: "button", class: "plain", onclick: undo }, "Undo") : "",
  );
}

function sayOfAnswer(text) {
  byId("answer-said").textContent = text;
}

function showList() {
  const place = byId("list");
  const { list, playlist } = state;
  if (!list.length) {
    place.replaceChildren(h("p", { class: "quiet" }, "No songs yet. The first one that you add brings suggestions."));
    return;
  }
  place.replaceChildren(
    h(
      "div",
      { class: "line between" },
      h("p", { class: "strong" }, playlist ? (playlist.name ?? `Playlist ${playlist.playlist_id}`) : counted(list.length, "song")),
      h("button", { type: "button", class: "plain", onclick: clear }, "Clear the list"),
    ),
    h("ol", { class: "songs mine", tabindex: "0", role: "list", "aria-label": "Songs of your list" }, list.map(listed)),
    exports("list", "Take the list away", exportList),
  );
}

function listed(song, place) {
  const title = titleOf(song);
  return h(
    "li",
    { class: "song" },
    h("span", { class: "rank", "aria-hidden": "true" }, String(place + 1)),
    h("div", { class: "what" }, named(song)),
    sound(song),
    h(
      "div",
      { class: "acts" },
      h("button", { type: "button", class: "plain", "aria-label": `Remove ${title}`, onclick: () => remove(place) }, "remove"),
    ),
  );
}

function remove(place) {
  const [list, playlist] = [state.list, state.playlist];
  setList(list.filter((_, n) => n !== place));
  say(`Removed ${titleOf(list[place])}.`, () => back(list, playlist));
  const buttons = byId("list").querySelectorAll("li button");
  (buttons[Math.min(place, buttons.length - 1)] ?? byId("find-song")).focus();
}

function clear() {
  const [list, playlist] = [state.list, state.playlist];
  setList([]);
  say(`Removed ${counted(list.length, "song")}.`, () => back(list, playlist));
  byId("find-song").focus();
}

function back(list, playlist) {
  setList(list, playlist);
  say("As it was before.");
  byId("find-song").focus();
}

async function takePlaylist({ playlist_id, name }) {
  picking?.abort();
  const mine = (picking = new AbortController());
  const [before, beforeList] = [state.playlist, state.list];
  const called = name ?? `playlist ${playlist_id}`;
  say(`Reading ${called}…`);
  try {
    const found = await ask(`v1/playlists/${encodeURIComponent(playlist_id)}`, { signal: mine.signal });
    if (state.list !== beforeList) return leave(called);
    learn(found.songs.filter((song) => song.title !== undefined));
    setList(found.songs.map((song) => ({ ...factsOf(song.song_id), ...song })), { playlist_id: found.playlist_id, name: found.name ?? name });
    say(`${counted(found.songs.length, "song")} from ${called}.`, beforeList.length ? () => back(beforeList, before) : null);
    // What was pressed may be gone by now.
    if (document.activeElement === document.body) byId("list").querySelector("ol")?.focus({ preventScroll: true });
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.name !== "Problem") throw error;
    say(`${error.title}: ${error.message}`);
  }
}

/** Say that a playlist came too late, beside what was said of the change before it, which may have a way back. */
function leave(called) {
  byId("list-note").append(` The list was changed meanwhile, so ${called} was not taken.`);
}

// --- exports -----------------------------------------------------------------------------------------------------------------

function exports(what, title, run) {
  const note = h("p", { class: "said", role: "status" });
  return h(
    "div",
    { class: "exports", role: "group", "aria-label": title },
    h("span", { class: "quiet" }, title),
    Object.entries(FORMATS).map(([ending, name]) =>
      h(
        "button",
        { type: "button", "data-export": `${what}.${ending}`, "aria-label": `${title} as ${name}`, onclick: () => exported(note, () => run(ending)) },
        name,
      ),
    ),
    note,
  );
}

async function exported(note, run) {
  note.textContent = "Writing the file…";
  try {
    const { name, text } = await run();
    const leftOut = /^# (\d+ of \d+ songs? .*left out.*?)(:|$)/m.exec(text); // as a playlist of files says it in a comment
    note.textContent = leftOut ? `Saved ${name}. ${leftOut[1]}.` : `Saved ${name}.`;
  } catch (error) {
    if (error.name !== "Problem") throw error;
    note.textContent = `${error.title}: ${error.message}`;
  }
}

/** The songs as they are shown: asked for again they could be others, and would count as suggested twice. */
function exportSuggestions(ending) {
  const name = cut(`${cut(listName(), LONGEST_BEGINNING)}, continued`, LONGEST_NAME);
  const { songs, model } = state.answer;
  const suggested = songs.map((song) => ({
    song_id: song.song_id,
    score: song.score,
    reasons: song.reasons.map((reason) => cut(reason.text, LONGEST_NAME)),
  }));
  return save(`v1/playlist.${ending}`, { name, songs: ids(songs), suggested, model_id: model?.model_id ?? null });
}

function listName() {
  return cut(state.playlist?.name ?? "", LONGEST_NAME).trim() || "My list";
}

/** The first letters of a text; those of two code units stay whole. */
function cut(text, most) {
  return [...text].slice(0, most).join("");
}

function exportList(ending) {
  return save(`v1/playlist.${ending}`, { name: listName(), songs: ids(state.list) });
}

// --- the same request elsewhere ----------------------------------------------------------------------------------------------

function showRequest(body) {
  byId("request-box").hidden = body === null;
  if (body === null) return;
  byId("request").replaceChildren(...shown("curl", asCurl(body)), ...shown("SQL", asSQL(body, state.playlist)));
}

function shown(name, text) {
  const done = h("span", { class: "quiet", role: "status" });
  const button = h(
    "button",
    {
      type: "button",
      "aria-label": `Copy the ${name}`,
      onclick: async () => (done.textContent = (await copy(text)) ? "Copied." : "Select it and copy it by hand."),
    },
    "Copy",
  );
  return [h("div", { class: "line between" }, h("h4", null, name), h("span", { class: "line" }, done, button)), h("pre", null, h("code", null, text))];
}

// --- before there is a list --------------------------------------------------------------------------------------------------

async function showStart() {
  setAnswer(null, null);
  const place = byId("suggestions");
  place.removeAttribute("aria-busy");
  const ways = h("div", { class: "line" });
  place.replaceChildren(empty("Nothing to continue yet", "Add a song that you like, and what goes with it appears here.", ways));
  let found;
  try {
    const { database } = await state.overview;
    if (database.state !== "reachable") return;
    found = await ask(`v1/playlists?q=&count=${MORE}`);
  } catch (error) {
    if (error.name !== "Problem") throw error;
    return; // the field for playlists says it where it is used
  }
  if (!state.list.length && found.playlists.length) {
    ways.replaceChildren(
      h("span", { class: "quiet" }, "Or begin with"),
      ...found.playlists.map((one) =>
        h("button", { type: "button", onclick: () => takePlaylist(one) }, one.name ?? `Playlist ${one.playlist_id}`),
      ),
    );
  }
}

// --- all of it ---------------------------------------------------------------------------------------------------------------

async function findSongs(text, signal) {
  const { songs } = await ask(`v1/songs?${new URLSearchParams({ q: text, count: FOUND })}`, { signal });
  learn(songs);
  return {
    options: songs.map((song) => ({
      label: titleOf(song),
      detail: [song.artist, song.album].filter(Boolean).join(" · "),
      value: song,
    })),
    note: songs.length ? "" : `No song has all of these words: try fewer of them, or the artist's name.`,
  };
}

async function findPlaylists(text, signal) {
  const { playlists, missing } = await ask(`v1/playlists?${new URLSearchParams({ q: text, count: FOUND })}`, { signal });
  const none = text ? "No playlist has these words in its name." : "There are no playlists in the database yet: import some, or add songs one by one.";
  return {
    options: playlists.map((one) => ({
      label: one.name ?? `Playlist ${one.playlist_id}`,
      detail: counted(one.n_songs, "song"),
      value: one,
    })),
    note: missing ? sentence(missing) : playlists.length ? "" : none,
  };
}

function showControls() {
  const form = byId("controls");
  for (const output of form.querySelectorAll("output")) {
    const field = byId(output.htmlFor.value);
    const text = Number(field.value) === defaults.get(field.name) ? `${field.value} (default)` : field.value;
    if (output.textContent !== text) output.textContent = text;
  }
  const n = Object.keys(controls()).length;
  byId("changed").textContent = n ? `${count(n)} changed` : "";
}

function readControls() {
  const form = byId("controls");
  defaults = new Map(Object.entries(READ).map(([name, read]) => [name, read(standing(form.elements[name]))]));
  form.elements.listener.value = sessionStorage.getItem(LISTENER) ?? "";
  showControls();
  const onChange = () => {
    if (listener()) byId("listener-said").textContent = "";
    sessionStorage.setItem(LISTENER, listener());
    showControls();
    if (form.checkValidity()) suggestSoon();
    else form.reportValidity();
  };
  form.addEventListener("input", (event) => {
    if (event.target.type === "range") onChange();
  });
  form.addEventListener("change", onChange);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    suggest();
  });
  form.addEventListener("reset", () => setTimeout(onChange)); // after the fields have gone back
}

/** Everything of this panel, and the list that this tab had before. */
export async function begin() {
  readControls();
  combobox(byId("find-song"), { find: findSongs, pick: add });
  combobox(byId("find-playlist"), { find: findPlaylists, pick: takePlaylist, isOpenWhenEmpty: true, pauseMs: PLAYLISTS_PAUSE_MS });
  changes.addEventListener("list", () => {
    showList();
    suggest();
  });
  changes.addEventListener("model", suggest);
  changes.addEventListener("stale", suggest);
  await restore();
}

/** The list as it was before the page was loaded anew; also after a key was given. */
export async function restore() {
  const kept = state.list.length ? null : keptList();
  // At once, with what is known of them: a song that is added while they are looked up joins them.
  if (kept) [state.list, state.playlist] = [kept.songs.map(factsOf), kept.playlist];
  await nameSongs();
}

/** Look up what is known of the list's songs; until that is known they are shown by their ids. */
async function nameSongs() {
  const place = byId("list-problem");
  const focused = focusedIn(place);
  try {
    await lookUp(ids(state.list));
    place.replaceChildren();
  } catch (error) {
    if (error.name !== "Problem") throw error;
    place.replaceChildren(problemBox(error, nameSongs));
  }
  setList(state.list.map((song) => factsOf(song.song_id)), state.playlist);
  refocus(place, focused);
}
