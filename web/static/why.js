// Why: what speaks for the song that is looked at, song by song of the list.

import { ask } from "./api.js";
import { empty, facts, h, present, s, table } from "./dom.js";
import { camelot, code, counted, fixed, keyName } from "./format.js";
import { bar, diamond, key, scale } from "./plots.js";
import { changed, factsOf, ids, state, titleOf } from "./songs.js";

// Features by name: what one unit of them looks like, and the whole range where there is one.
const FEATURES = {
  tempo: { digits: 0, unit: "BPM" },
  energy: { digits: 2, range: [0, 1] },
  danceability: { digits: 2, range: [0, 1] },
  valence: { digits: 2, range: [0, 1] },
  acousticness: { digits: 2, range: [0, 1] },
  instrumentalness: { digits: 2, range: [0, 1] },
  speechiness: { digits: 2, range: [0, 1] },
  liveness: { digits: 2, range: [0, 1] },
  loudness: { digits: 1, unit: "dB" },
  duration_ms: { digits: 0, unit: "s", name: "duration", per: 1000 },
};
const NOTHING = 0.005; // score points that are rounded to none
let again = null; // the model because of which suggestions were asked for again
const SHARED = { same_album: "same album", same_artist: "same artist" };

export function show(place) {
  const { answer, asked, chosen, list } = state;
  if (!answer?.songs.length) {
    place.replaceChildren(
      empty("No suggestion to explain", "Build a list first: each of its suggestions can be looked at here.", h("a", { href: "#try" }, "Build a list")),
    );
    return;
  }
  const suggested = answer.songs.find((song) => song.song_id === chosen) ?? answer.songs[0];
  const song = factsOf(suggested.song_id);
  const body = h("div", { class: "stack" });
  place.replaceChildren(chooser(answer.songs, suggested.song_id), about(song, suggested), body);
  present(
    body,
    () => ask("v1/why", { body: { songs: ids(list), song_id: suggested.song_id, listener: asked.listener } }),
    (why) => (isOfAnother(why, answer) ? askAgain(why) : [contributions(why, song, list), strip(song, list)]),
  );
}

/** Whether another model explains than the one that suggested: it was switched meanwhile, perhaps in another tab. */
function isOfAnother(why, answer) {
  const [explains, suggested] = [why.model_id, answer.model?.model_id];
  // Once for each: of several processes one may be a moment behind.
  return Boolean(explains && suggested) && explains !== suggested && explains !== again;
}

function askAgain(why) {
  again = why.model_id;
  changed("stale");
  return h("p", { class: "quiet" }, "Another model answers by now: asking it…");
}

function chooser(songs, chosen) {
  const select = h(
    "select",
    {
      id: "chosen",
      onchange: () => {
        state.chosen = songs[select.selectedIndex].song_id;
        changed("chosen");
        document.getElementById("chosen").focus();
      },
    },
    songs.map(({ song_id: songId, rank }) =>
      h("option", { selected: songId === chosen }, `${rank}. ${titleOf(factsOf(songId))}`),
    ),
  );
  return h("div", { class: "line" }, h("label", { for: "chosen" }, "Suggestion"), select);
}

function about(song, suggested) {
  return facts([
    ["Artist", song.artist],
    ["Album", song.album],
    ["Key", keyName(song.features) && `${keyName(song.features)} (${code(camelot(song.features))})`],
    ["Score", fixed(suggested.score, 2)],
  ]);
}

// --- a bar per song ----------------------------------------------------------------------------------------------------------

function contributions(why, song, list) {
  if (why.missing) return h("section", null, h("h3", null, "What speaks for it"), h("p", null, why.missing));
  const weights = why.weights.map(({ weight }) => weight);
  const most = Math.max(...weights.map((weight) => Math.abs(weight ?? 0)), 1e-9);
  const rows = list.map((one, n) => ({ song: one, weight: weights[n] ?? null, marks: marksOf(song, one) })).reverse();
  return h(
    "section",
    null,
    h("h3", null, "What speaks for it"),
    key([
      ["mine", "bar", "speaks for it"],
      ["against", "bar", "speaks against it"],
    ]),
    table(
      "Change of the score without each song of the list, newest song first",
      [
        { title: "Song of the list", head: true, of: (row) => [titleOf(row.song), " ", row.marks.map((mark) => h("span", { class: "chip" }, mark))] },
        { title: "Score points", number: true, of: (row) => (row.weight === null ? "not read" : signed(row.weight)) },
        {
          title: h("span", { class: "unseen" }, "As a bar"),
          of: (row) => (row.weight === null || Math.abs(row.weight) < NOTHING ? "" : bar(row.weight < 0 ? "against" : "mine", row.weight / most, { isSigned: true })),
        },
      ],
      rows,
    ),
    h("p", { class: "quiet" }, readNote(weights)),
  );
}

function readNote(weights) {
  const unread = weights.filter((weight) => weight === null).length;
  const points = "By so many points the suggestion's lead over other songs falls when that song is left out. Points compare within one suggestion only.";
  return unread ? `${points} ${counted(unread, "song")} not read: too far back, or not known to the model.` : points;
}

function signed(weight) {
  if (Math.abs(weight) < NOTHING) return "0.00";
  return `${weight < 0 ? "−" : "+"}${Math.abs(weight).toFixed(2)}`;
}

function marksOf(song, other) {
  const isArtist = song.artist && song.artist === other.artist;
  if (isArtist && song.album && song.album === other.album) return [SHARED.same_album];
  return isArtist ? [SHARED.same_artist] : [];
}

// --- features ----------------------------------------------------------------------------------------------------------------

function strip(song, list) {
  const rows = Object.entries(FEATURES)
    .map(([name, how]) => {
      const per = how.per ?? 1;
      const valueOf = (one) => (typeof one.features?.[name] === "number" ? one.features[name] / per : null);
      const values = list.map(valueOf).filter((value) => value !== null);
      return { name: how.name ?? name, how, value: valueOf(song), values };
    })
    .filter((row) => row.value !== null && row.values.length);
  if (!rows.length) {
    return h(
      "section",
      null,
      h("h3", null, "How it sounds beside your list"),
      h("p", null, "Nothing is known of how these songs sound (tempo, energy and the like), and nothing has to be: features are optional. A CSV with them, or your own audio files, can be imported."),
    );
  }
  return h(
    "section",
    null,
    h("h3", null, "How it sounds beside your list"),
    key([
      ["mine", "line", "from the lowest to the highest of your list"],
      ["theirs", "diamond", "the suggestion"],
    ]),
    table(
      "Features of the suggestion beside those of the list",
      [
        { title: "Feature", head: true, of: (row) => [row.name, row.how.unit ? h("span", { class: "quiet" }, ` ${row.how.unit}`) : ""] },
        { title: "Suggestion", number: true, of: (row) => fixed(row.value, row.how.digits) },
        { title: "Your list", number: true, of: (row) => `${fixed(Math.min(...row.values), row.how.digits)} to ${fixed(Math.max(...row.values), row.how.digits)}` },
        { title: h("span", { class: "unseen" }, "As a strip"), of: drawn },
      ],
      rows,
      { isCaptionSeen: false },
    ),
  );
}

const WIDE = 240; // of the strip's own units

function drawn({ how, value, values }) {
  const all = [...values, value];
  const [low, high] = how.range ?? [Math.min(...all), Math.max(...all)];
  const x = scale([low, high], [8, WIDE - 8]);
  return s(
    "svg",
    { class: "strip", viewBox: `0 0 ${WIDE} 16`, "aria-hidden": "true" },
    s("line", { class: "grid", x1: 8, x2: WIDE - 8, y1: 8, y2: 8 }),
    s("line", { class: "mine stroke", x1: x(Math.min(...values)), x2: x(Math.max(...values)), y1: 8, y2: 8 }),
    values.map((one) => s("circle", { class: "mine", cx: x(one), cy: 8, r: 3 })),
    diamond(x(value), 8, "theirs", 6),
  );
}
