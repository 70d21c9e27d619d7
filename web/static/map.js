// Map: a sample of the songs as the model sees them, the list and the suggestions marked.

import { ask } from "./api.js";
import { empty, h, present, s, table } from "./dom.js";
import { count, counted, sentence } from "./format.js";
import { diamond, figure, scale, words } from "./plots.js";
import { factsOf, ids, inParts, lookUp, state, titleOf } from "./songs.js";

const MOST = 500; // songs of the list that are placed, the newest ones
const REACH = 24; // pixels to the nearest song that is named

let map = null; // as it was asked for last, for its model

export function show(place) {
  present(place, load, draw);
}

async function load() {
  if (!map || map.missing) map = await ask("v1/map");
  else {
    const { model } = await ask("v1/overview");
    if (model.model_id !== map.model_id) map = await ask("v1/map");
  }
  const mine = ids(state.list).slice(-MOST);
  const theirs = ids(state.answer?.songs ?? []);
  const wanted = [...new Set([...mine, ...theirs])];
  if (map.missing || !wanted.length) return { mine: [], theirs: [] };
  let places = await placesOf(wanted);
  if (places === null) { // another model answers by now, which places all songs elsewhere
    map = await ask("v1/map");
    places = (await placesOf(wanted)) ?? [];
  }
  await lookUp(wanted);
  const placed = new Map(places.map((one) => [one.song_id, one]));
  const of = (songIds) => songIds.filter((songId) => placed.has(songId)).map((songId) => ({ ...factsOf(songId), ...placed.get(songId) }));
  return { mine: of(mine), theirs: of(theirs) };
}

/** Where songs lie on the map at hand; null where that is not the map of the model that was asked. */
async function placesOf(songIds) {
  const found = [];
  for (const some of inParts(songIds)) {
    const { places, model_id: modelId } = await ask("v1/map/places", { body: { song_ids: some } });
    if (modelId !== map.model_id) return null;
    found.push(...places);
  }
  return found;
}

function draw({ mine, theirs }) {
  if (map.missing) return empty("There is no map of this model", sentence(map.missing));
  const named = h("p", { class: "said", "aria-hidden": "true" }, "Point at a dot, or tap it, to read which song it is.");
  const marks = [...mine.map((song, n) => ({ song, n: n + 1, part: "your list" })), ...theirs.map((song, n) => ({ song, n: n + 1, part: "suggestion" }))];
  const place = figure({
    title: "Songs as the model places them",
    text: textOf(mine, theirs),
    legend: [
      ["dots", "dot", "a song of the sample"],
      ["mine", "dot", "your list"],
      ["theirs", "diamond", "suggestions, with their rank"],
    ],
    draw: (width) => drawn(width, mine, theirs),
    numbers: marks.length
      ? table(
          "Songs that are marked",
          [
            { title: "Song", head: true, of: ({ song }) => titleOf(song) },
            { title: "Artist", of: ({ song }) => song.artist ?? "–" },
            { title: "Part", of: ({ part, n }) => (part === "suggestion" ? `suggestion ${n}` : part) },
            { title: "Nearest of your list", of: ({ song, part }) => (part === "suggestion" ? nearestOf(song, mine) : "") },
            { title: "Place", of: ({ song }) => (song.exact ? "its own" : "beside its nearest songs") },
          ],
          marks,
        )
      : null,
  });
  const svg = place.querySelector(".plot svg");
  svg.addEventListener("pointermove", (event) => name(event, svg, [...map.songs, ...mine, ...theirs], named));
  svg.addEventListener("pointerdown", (event) => name(event, svg, [...map.songs, ...mine, ...theirs], named));
  place.querySelector(".plot").after(named);
  return [
    place,
    h("p", { class: "quiet" }, `${map.method}. ${sampleOf(map)}, laid out when the model was published. What lies close together is alike to the model; the axes have no meaning.`),
    marks.length ? null : empty("Nothing is marked yet", "Songs of your list and their suggestions are marked here.", h("a", { href: "#try" }, "Build a list")),
  ].filter(Boolean);
}

function sampleOf({ songs, n_songs: all }) {
  return all > songs.length ? `A sample of ${count(songs.length)} of ${count(all)} songs` : `All ${counted(songs.length, "song")}`;
}

function textOf(mine, theirs) {
  if (!mine.length && !theirs.length) return "None of them is marked yet.";
  const estimated = [...mine, ...theirs].filter((song) => !song.exact).length;
  const beside = estimated ? ` ${count(estimated)} of these marks stand beside the nearest songs of the sample, being none of it.` : "";
  return `Marked: ${counted(mine.length, "song")} of your list and ${counted(theirs.length, "suggestion")}.${beside}`;
}

function nearestOf(song, mine) {
  const byDistance = mine.map((one) => [Math.hypot(one.x - song.x, one.y - song.y), one]).sort((a, b) => a[0] - b[0]);
  return byDistance.length ? titleOf(byDistance[0][1]) : "–";
}

function heightOf(width) {
  return Math.round(Math.min(width * 0.75, 520));
}

function scales(width) {
  return { x: scale([0, 1], [10, width - 10]), y: scale([0, 1], [heightOf(width) - 10, 10]) };
}

function drawn(width, mine, theirs) {
  const { x, y } = scales(width);
  // One path for all dots of the sample: a line of no length with round ends is a dot, and thousands of them are one element.
  const dots = map.songs.map((song) => `M${x(song.x).toFixed(1)} ${y(song.y).toFixed(1)}h0`).join("");
  return {
    height: heightOf(width),
    parts: [
      s("path", { class: "dots", d: dots }),
      mine.map((song) => s("circle", { class: "mine ringed", cx: x(song.x), cy: y(song.y), r: 5 })),
      theirs.map((song, n) => [
        diamond(x(song.x), y(song.y), "theirs ringed", 7),
        words(x(song.x) + 9, y(song.y) + 4, String(n + 1), { class: "number mark" }),
      ]),
    ],
  };
}

/** Name the song nearest to where the pointer is. */
function name(event, svg, songs, place) {
  const box = svg.getBoundingClientRect();
  const { x, y } = scales(Math.floor(svg.parentElement.clientWidth));
  let [best, least] = [null, REACH];
  for (const song of songs) {
    const distance = Math.hypot(x(song.x) - (event.clientX - box.left), y(song.y) - (event.clientY - box.top));
    if (distance <= least) [best, least] = [song, distance];
  }
  if (best) place.textContent = [titleOf(best), best.artist].filter(Boolean).join(", ");
}
