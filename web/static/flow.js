// Flow: tempo, energy and key from song to song, the list first and the suggestions after it.

import { empty, h, s, table } from "./dom.js";
import { camelot, code, counted, fixed, goTogether, keyName } from "./format.js";
import { diamond, figure, lines, words } from "./plots.js";
import { factsOf, state, titleOf } from "./songs.js";

const MOST = 60; // songs of the list that are drawn, the newest ones
const CODE = 30; // pixels that the code of a key takes
const ROW = 16; // pixels from one row of codes to the next
const MOST_ROWS = 3;

export function show(place) {
  const { list, answer } = state;
  if (!list.length) {
    place.replaceChildren(
      empty("No list yet", "Tempo and energy are drawn along your list and its suggestions.", h("a", { href: "#try" }, "Build a list")),
    );
    return;
  }
  const mine = list.slice(-MOST);
  const songs = [...mine, ...(answer?.songs ?? []).map((song) => factsOf(song.song_id))];
  const steps = songs.map((song, n) => stepOf(song, n, mine.length, songs));
  if (!steps.some((step) => step.tempo !== null || step.energy !== null || step.place)) {
    place.replaceChildren(
      empty(
        "Nothing is known of how these songs sound",
        "Tempo, energy and key are optional. They can come from a CSV with audio features, or be computed from your own audio files (cli.py import --help).",
      ),
    );
    return;
  }
  place.replaceChildren(
    ...[
      mine.length < list.length ? h("p", { class: "quiet" }, `The newest ${MOST} of ${counted(list.length, "song")} are drawn.`) : null,
      drawing(steps, mine.length),
    ].filter(Boolean),
  );
}

function stepOf(song, n, nMine, songs) {
  const value = (name) => (typeof song.features?.[name] === "number" ? song.features[name] : null);
  const place = camelot(song.features);
  const before = n ? camelot(songs[n - 1].features) : null;
  const changes = place && before && code(place) !== code(before);
  return {
    n: n + 1,
    title: titleOf(song),
    isMine: n < nMine,
    tempo: value("tempo"),
    energy: value("energy"),
    place,
    keyName: keyName(song.features),
    change: changes ? (goTogether(before, place) ? "goes together" : "jumps") : null,
  };
}

function summary(steps) {
  const parts = [];
  for (const [name, digits, unit] of [["tempo", 0, " beats a minute"], ["energy", 2, ""]]) {
    const values = steps.map((step) => step[name]).filter((value) => value !== null);
    if (values.length) parts.push(`${name} from ${fixed(Math.min(...values), digits)} to ${fixed(Math.max(...values), digits)}${unit}`);
  }
  const changes = steps.filter((step) => step.change);
  const jumps = changes.filter((step) => step.change === "jumps").length;
  parts.push(changes.length ? `${counted(changes.length, "change")} of key, ${jumps} of them between keys that do not go together` : "no change of key");
  const text = parts.join("; ");
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

function drawing(steps, nMine) {
  const numbers = table(
    "Tempo, energy and key, song by song",
    [
      { title: "#", number: true, of: (step) => String(step.n) },
      { title: "Song", head: true, of: (step) => step.title },
      { title: "Part", of: (step) => (step.isMine ? "your list" : "suggestion") },
      { title: "Tempo", number: true, of: (step) => fixed(step.tempo, 0) },
      { title: "Energy", number: true, of: (step) => fixed(step.energy, 2) },
      { title: "Key", of: (step) => (step.place ? `${step.keyName} (${code(step.place)})` : "–") },
      { title: "Change of key", of: (step) => step.change ?? "" },
    ],
    steps,
  );
  const named = h("p", { class: "said", "aria-hidden": "true" }, "Point at a song, or tap it, to read which it is.");
  const place = figure({
    title: "Tempo, energy and key",
    text: summary(steps),
    legend: [
      ["mine", "line", "your list"],
      ["theirs", "line", "suggestions"],
      ["goes", "diamond", "key changes, and goes together"],
      ["jumps", "diamond", "key jumps"],
    ],
    draw: (width) => draw(steps, nMine, width),
    numbers,
  });
  const plot = place.querySelector(".plot");
  plot.after(named);
  for (const kind of ["pointermove", "pointerdown"]) plot.addEventListener(kind, (event) => name(event, plot, steps, named));
  return place;
}

/** Name the song that the pointer is over. */
function name(event, plot, steps, place) {
  const box = plot.getBoundingClientRect();
  const x = acrossOf(steps, Math.floor(plot.clientWidth));
  const distances = steps.map((step) => Math.abs(x(step.n) - (event.clientX - box.left)));
  const step = steps[distances.indexOf(Math.min(...distances))];
  const sound = [step.tempo !== null && `${fixed(step.tempo, 0)} BPM`, step.energy !== null && `energy ${fixed(step.energy, 2)}`, step.keyName];
  place.textContent = `${step.n}. ${[step.title, ...sound].filter(Boolean).join(", ")}`;
}

/** Where each song stands from left to right. */
function acrossOf(steps, width) {
  return lines({ width, height: 0, series: [], xs: steps.map((step) => step.n), format: String, bottom: 0 }).x;
}

function draw(steps, nMine, width) {
  const xs = steps.map((step) => step.n);
  const parts = [];
  let top = 22;
  const x = acrossOf(steps, width);
  for (const [name, title, format] of [
    ["tempo", "Tempo, beats a minute", (value) => fixed(value, 0)],
    ["energy", "Energy, 0 to 1", (value) => String(value)],
  ]) {
    if (!steps.some((step) => step[name] !== null)) continue;
    const points = steps.map((step) => [step.n, step[name]]);
    const series = [
      { kind: "theirs", points: points.slice(Math.max(0, nMine - 1)) }, // from the last song of the list on
      { kind: "mine", points: points.slice(0, nMine) },
    ];
    const drawn = lines({ width, height: 120, top, series, xs, format, bottom: 0 });
    parts.push(words(0, top - 8, title, { class: "title" }), drawn.parts);
    top += 120 + 34;
  }
  parts.push(words(0, top - 8, "Key on the Camelot wheel", { class: "title" }));
  const apart = xs.length > 1 ? x(2) - x(1) : width;
  const needed = Math.ceil(CODE / apart);
  const rows = needed > MOST_ROWS ? 0 : needed; // so that no two codes touch; where that takes too many, the table has them
  for (const step of steps) {
    const y = top + 14 + ((step.n - 1) % (rows || 1)) * ROW;
    if (rows) parts.push(words(x(step.n), y, code(step.place), { "text-anchor": "middle", class: step.isMine ? "number" : "number theirs" }));
    if (step.change) parts.push(diamond(x(step.n), top + rows * ROW + 16, step.change === "jumps" ? "jumps" : "goes", Math.min(5, apart / 2)));
  }
  const bottom = top + rows * ROW + 28;
  if (nMine < steps.length) {
    const border = (x(nMine) + x(nMine + 1)) / 2;
    parts.unshift(s("line", { class: "border", x1: border, x2: border, y1: 8, y2: bottom }));
  }
  return { height: bottom + 4, parts };
}
