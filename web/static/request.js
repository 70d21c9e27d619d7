// The request of this page as others would send it: curl, and SQL.

/** A text as one word of a shell. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A text as a literal of SQL. */
function literal(text) {
  return `'${String(text).replaceAll("'", "''")}'`;
}

/** The call for a body, with the service's address as this browser knows it. */
export function asCurl(body) {
  const address = new URL("v1/recommend", document.baseURI).href;
  return [
    `curl -s ${quoted(address)} \\`,
    ` -H "Authorization: Bearer $KEY" \\`,
    ` -H 'Content-Type: application/json' \\`,
    ` -d ${quoted(JSON.stringify(body))}`,
  ].join("\n ");
}

/** The same from inside the database, which continues playlists that it has: `playlist` is one of them, or null. */
export function asSQL(body, playlist) {
  const { songs, ...options } = body;
  const id = playlist === null ? literal("ID OF THE PLAYLIST") : typeof playlist.playlist_id === "number" ? playlist.playlist_id : literal(playlist.playlist_id);
  const lines = [
    `SELECT recommender.request(${id}, ${literal(JSON.stringify(options))}) AS request_id \\gset`,
    "SELECT recommender.wait(:request_id, '10 s');",
    "SELECT rank, song_id, score, reasons FROM recommender.recommendation",
    " WHERE request_id = :request_id ORDER BY rank;",
  ];
  if (playlist !== null) return lines.join("\n");
  return [
    "-- SQL continues playlists that stand in the database, and this list is none of them:",
    `-- bring it there first ("Take the list away" as SQL), then name it here.  The songs are`,
    ...wrapped(songs.map(String), 86).map((line) => `-- ${line}`),
    ...lines,
  ].join("\n");
}

/** Words in lines of at most `width` signs. */
function wrapped(words, width) {
  const lines = [];
  for (const word of words.map((one) => one.replaceAll(/\s+/g, " "))) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length + 2 <= width) lines[lines.length - 1] = `${last}, ${word}`;
    else lines.push(word);
  }
  return lines;
}
