// Popularity: what is recommended beside what was played and beside what there is.

import { ask } from "./api.js";
import { empty, facts, h, present, table } from "./dom.js";
import { count, fixed, percent, sentence, when } from "./format.js";
import { bar, key } from "./plots.js";

const PARTS = [
  ["catalogue", "others", "Catalogue", "the songs that there are"],
  ["history", "mine", "History", "the places of the lists that the model learned from"],
  ["recommended", "theirs", "Suggested", "what this service suggested"],
];

export function show(place) {
  present(place, () => ask("v1/figures/popularity"), draw);
}

function draw(figures) {
  if (!figures.bins?.length) {
    return empty("No history to compare with", "Shares are known once a model is in service that was trained on lists or plays: train one, and look again.");
  }
  const parts = PARTS.filter(([name]) => figures[name]);
  return [
    figures.note ? h("p", null, sentence(figures.note)) : null,
    figures.recommended
      ? h("p", { class: "quiet" }, `${count(figures.n_recommended)} suggested songs are counted${figures.since ? `, since ${when(figures.since)}` : ""}.`)
      : empty("Nothing was suggested yet", "The third bar appears once lists were continued, here or elsewhere.", h("a", { href: "#try" }, "Build a list")),
    h(
      "section",
      null,
      h("h3", null, "By how many lists hold a song"),
      key(parts.map(([, kind, title, words]) => [kind, "bar", `${title}: ${words}`])),
      shares(figures, parts),
    ),
    artists(figures.artists, parts),
    measures(figures.measures),
  ];
}

function shares(figures, parts) {
  const most = Math.max(...parts.flatMap(([name]) => figures[name]), 1e-9);
  return table(
    "Share of songs, by how many of the lists that the model learned from hold them",
    [
      { title: "Songs", head: true, of: (bin) => bin.label },
      {
        title: h("span", { class: "unseen" }, "As bars"),
        of: (bin) => h("div", { class: "bars" }, parts.map(([name, kind]) => bar(kind, figures[name][bin.place] / most))),
      },
      ...parts.map(([name, , title]) => ({ title, number: true, of: (bin) => percent(figures[name][bin.place], 1) })),
    ],
    figures.bins.map((bin, place) => ({ ...bin, place })),
    { isCaptionSeen: false },
  );
}

function artists(rows, parts) {
  if (!rows?.length) return h("section", null, h("h3", null, "By artist"), h("p", null, "No artist of these songs is known."));
  const known = parts.filter(([name]) => rows.some((row) => typeof row[name] === "number"));
  const most = Math.max(...known.flatMap(([name]) => rows.map((row) => row[name] ?? 0)), 1e-9);
  return h(
    "section",
    null,
    h("h3", null, "By artist"),
    table(
      "Shares of artists: those with the largest part of the history and of the suggestions",
      [
        { title: "Artist", head: true, of: (row) => row.artist ?? "not named" },
        { title: h("span", { class: "unseen" }, "As bars"), of: (row) => h("div", { class: "bars" }, known.map(([name, kind]) => bar(kind, (row[name] ?? 0) / most))) },
        ...known.map(([name, , title]) => ({ title, number: true, of: (row) => percent(row[name] ?? 0, 1) })),
      ],
      rows,
    ),
  );
}

function measures(known) {
  if (!known) return null;
  return h(
    "section",
    null,
    h("h3", null, "In one number each"),
    facts([
      ["Popularity of a suggested song, against one of the history", ratio(known.median_popularity_ratio)],
      ["Different artists among ten suggestions", typeof known.artists_at_10 === "number" ? fixed(known.artists_at_10, 1) : null],
      ["Share of the catalogue that was suggested so far", typeof known.coverage === "number" ? percent(known.coverage, 1) : null],
    ]),
  );
}

function ratio(value) {
  return typeof value === "number" ? `${fixed(value, 2)} times` : null;
}
