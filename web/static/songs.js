// What the panels share: the list that is being built, the answer to it, and the song that is looked at.

import { ask } from "./api.js";

const KEPT = "list";

/** "list", "answer", "chosen", "model", "overview": what changed; "stale": another model answers than the one that suggested. */
export const changes = new EventTarget();

export const state = {
  list: [], // songs: {song_id, title, artist, album, features}
  playlist: null, // {playlist_id, name} while the list is that playlist
  answer: null, // as POST /v1/recommend gives it, each of its songs with what is known of it
  asked: null, // the body that it answers
  chosen: null, // the song_id of the suggestion that is looked at
  overview: null, // the promise of what GET /v1/overview says, as it was asked last
};

export function changed(what) {
  changes.dispatchEvent(new Event(what));
}

const known = new Map();

/** Keep what is known of songs. */
export function learn(songs) {
  for (const song of songs) known.set(song.song_id, song);
}

/** What is known of a song; its id alone where nothing is. */
export function factsOf(songId) {
  return known.get(songId) ?? { song_id: songId, title: null, artist: null, album: null, features: {} };
}

/** The words for a song: its title, else its id. */
export function titleOf(song) {
  return song.title ?? `Song ${song.song_id}`;
}

/** Ask for what is known of songs, as far as that was not asked before. */
export async function lookUp(songIds, signal) {
  const missing = [...new Set(songIds)].filter((songId) => !known.has(songId));
  for (const some of inParts(missing)) learn((await ask("v1/songs/lookup", { body: { song_ids: some }, signal })).songs);
  return songIds.map(factsOf);
}

/** Songs in parts, none larger than what the service takes at once (max_songs). */
export function inParts(songs) {
  const most = Number(document.body.dataset.maxSongs);
  return Array.from({ length: Math.ceil(songs.length / most) }, (_, n) => songs.slice(n * most, (n + 1) * most));
}

export function ids(songs) {
  return songs.map((song) => song.song_id);
}

/** Replace the list; a playlist of the database goes with it where it is one. */
export function setList(list, playlist = null) {
  state.list = list;
  state.playlist = playlist;
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ songs: ids(list), playlist }));
  } catch {
    // Nothing is kept then; the list is still there.
  }
  changed("list");
}

/** The list that this tab had before it was loaded anew. */
export function keptList() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT));
    return Array.isArray(kept?.songs) && kept.songs.length ? kept : null;
  } catch {
    return null;
  }
}
