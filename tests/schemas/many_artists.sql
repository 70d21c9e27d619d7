-- Made by an object mapper: names in mixed case, a reserved word for the place, several artists per track, a schema of its own.
CREATE SCHEMA "App";
CREATE TABLE "App"."Artist" ("id" integer PRIMARY KEY, "name" text NOT NULL);
CREATE TABLE "App"."Album" ("id" integer PRIMARY KEY, "title" text NOT NULL);
CREATE TABLE "App"."Track" (
    "id" integer PRIMARY KEY, "title" text NOT NULL, "albumId" integer REFERENCES "App"."Album" ("id"), "durationMs" integer, "isExplicit" boolean
);
CREATE TABLE "App"."TrackArtist" (
    "trackId" integer REFERENCES "App"."Track" ("id"), "artistId" integer REFERENCES "App"."Artist" ("id"), "isPrimary" boolean NOT NULL,
    PRIMARY KEY ("trackId", "artistId")
);
CREATE TABLE "App"."Playlist" ("id" integer PRIMARY KEY, "name" text, "createdAt" timestamp NOT NULL);
CREATE TABLE "App"."PlaylistTrack" (
    "playlistId" integer REFERENCES "App"."Playlist" ("id"), "trackId" integer REFERENCES "App"."Track" ("id"), "order" integer NOT NULL,
    PRIMARY KEY ("playlistId", "order")
);

INSERT INTO "App"."Artist" SELECT n, 'Artist ' || n FROM generate_series(1, 6) AS n;
INSERT INTO "App"."Album" SELECT n, 'Album ' || n FROM generate_series(1, 4) AS n;
INSERT INTO "App"."Track" SELECT n, 'Track ' || n, 1 + n % 4, 200000 + n, false FROM generate_series(1, 24) AS n;
-- The guest has the lower number, so that only isPrimary tells.
INSERT INTO "App"."TrackArtist" SELECT n, 1, false FROM generate_series(1, 24) AS n UNION ALL SELECT n, 2 + n % 5, true FROM generate_series(1, 24) AS n;
INSERT INTO "App"."Playlist" SELECT n, 'List ' || n, '2026-01-01 12:00'::timestamp + n * INTERVAL '1 day' FROM generate_series(1, 60) AS n;
INSERT INTO "App"."PlaylistTrack"
SELECT n, 12 * (n % 2) + (7 * n + place) % 12 + 1, place FROM generate_series(1, 60) AS n, generate_series(0, 7) AS place ORDER BY n, place DESC;
