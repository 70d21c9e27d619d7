"""Routes that the page asks and that are not built yet, by their contract.  Goes when they are there."""

import math
import random

from flask import Response, jsonify, request

from api.service import service_of
from errors import DatabaseError, ServiceUnavailable
from serving.reasons import plain_id
from storage.connections import connect


def add_standins(app):
    there = {rule.rule for rule in app.url_map.iter_rules()}
    service = service_of(app)

    def route(rule, **options):
        def add(view):
            if rule not in there:
                app.add_url_rule(rule, endpoint=f"standin{len(there)}{rule}", view_func=view, **options)
            return view

        return add

    def songs(ids):
        recommender = service.recommender()
        numbers = recommender._songs.encode(ids)
        return [
            {"song_id": song_id, **recommender.catalogue.describe(int(n))}
            for song_id, n in zip(ids, numbers, strict=True)
            if n > 2
        ]

    @route("/v1/songs/lookup", methods=["POST"])
    def lookup():
        return jsonify(songs=songs(request.get_json()["song_ids"]))

    @route("/v1/playlists")
    def playlists():
        with service.connection() as connection:
            rows = connection.execute(
                "SELECT playlist_id, name, (SELECT count(*) FROM music.playlist_song s WHERE s.playlist_id = p.playlist_id) "
                "FROM music.playlist p WHERE name ILIKE %s OR %s = '' ORDER BY playlist_id LIMIT %s",
                [f"%{request.args['q']}%", request.args["q"], int(request.args["count"])],
            ).fetchall()
        return jsonify(playlists=[{"playlist_id": i, "name": n, "n_songs": c} for i, n, c in rows], missing=None)

    @route("/v1/playlists/<text:playlist_id>")
    def playlist(playlist_id):
        with service.connection() as connection:
            ids = [
                row[0]
                for row in connection.execute(
                    "SELECT song_id FROM music.playlist_song WHERE playlist_id = %s ORDER BY position", [playlist_id]
                )
            ]
        found = {song["song_id"]: song for song in songs(ids)}
        return jsonify(playlist_id=playlist_id, name=None, songs=[found.get(i, {"song_id": i}) for i in ids])

    @route("/v1/models/<text:model_id>/card")
    def card(model_id):
        curve = [
            {"epoch": n, "seconds": 6.5, "train_loss": 17 - 3 * math.log(1 + n), "ndcg10": 0.28 + 0.02 * math.log(1 + n), "hr10": 0.41 + 0.03 * math.log(1 + n)}
            for n in range(1, 9)
        ]
        rows = [("BERT4Rec", 0.436, 0.331), ("co-occurrence", 0.401, 0.29), ("Markov", 0.383, 0.27), ("popularity", 0.05, 0.021), ("random", 0.001, 0.0005)]
        return jsonify(
            model_id=model_id, trained_at="2026-11-25T18:20:00+00:00", seconds=58.0, epochs=8, device="cpu", machine="2 cores, x86-64",
            seed=0, objective="cloze", data={"songs": 11541, "artists": 1800, "albums": 4000, "sequences": 600, "rows": 11000},
            settings={"seq_len": 50, "d_songs": 64}, curve=curve,
            table={"n": 150, "targets": 489, "rows": [{"recommender": r, "metrics": {"hr10": a, "ndcg10": b, "mrr10": b * 0.8}} for r, a, b in rows]},
            features="Used tempo, energy and 9 other features of each song.", notes=["validation part: 150 lists"],
        )

    @route("/v1/figures/popularity")
    def popularity():
        labels = ["never played", "1 to 3 times", "4 to 9 times", "10 to 30 times", "over 30 times"]
        artists = [{"artist": f"Artist {n}", "catalogue": 0.01, "history": 0.08 - 0.006 * n, "recommended": 0.03 + 0.005 * n} for n in range(10)]
        return jsonify(
            bins=[{"label": label, "low": 0, "high": 0} for label in labels], catalogue=[0.5, 0.25, 0.15, 0.07, 0.03], history=[0, 0.1, 0.2, 0.3, 0.4],
            recommended=[0.02, 0.08, 0.2, 0.4, 0.3], n_recommended=1200, since="2026-11-25T18:20:00+00:00", artists=artists,
            measures={"median_popularity_ratio": 1.4, "artists_at_10": 6.2, "coverage": 0.12}, note="Plays are places in training lists.",
        )

    def place(song_id):
        rng = random.Random(str(song_id))
        centre = rng.randrange(9)
        return 0.5 + 0.35 * math.cos(centre) + rng.gauss(0, 0.05), 0.5 + 0.35 * math.sin(centre * 1.7) + rng.gauss(0, 0.05)

    @route("/v1/map")
    def the_map():
        ids = [plain_id(i) for i in service.recommender().example_songs(2000)]
        found = [{"song_id": s["song_id"], "title": s["title"], "artist": s["artist"], "x": place(s["song_id"])[0], "y": place(s["song_id"])[1]} for s in songs(ids)]
        return jsonify(model_id=service.live.state().get("model_id"), method="t-SNE of the song embeddings (perplexity 30)", n_songs=11541, songs=found, missing=None)

    @route("/v1/map/places", methods=["POST"])
    def places():
        return jsonify(places=[{"song_id": i, "x": place(i)[0], "y": place(i)[1], "exact": True} for i in request.get_json()["song_ids"]])

    @route("/v1/overview")
    def overview():
        is_there = service.desk is not None and service.desk.is_reachable()
        state = "not configured" if service.desk is None else "reachable" if is_there else "unreachable"
        info = None if service.live.recommender is None else service.live.recommender.info
        return jsonify(
            database={"state": state, "server": "PostgreSQL 18.4" if is_there else None, "role": "recommender_service" if is_there else None,
                      "rights": [{"what": "read the songs query", "ok": True, "detail": "11,541 rows", "way_out": None},
                                 {"what": "create nothing", "ok": False, "detail": "may create tables in public", "way_out": "REVOKE CREATE ON SCHEMA public"}] if is_there else []},
            rows={"songs": 11541, "sequences": 600, "new_songs": 0, "requests_open": 0} if is_there else None,
            unknown={"sent": 120, "unknown": 3, "share": 0.025}, queue={"queued": 0, "running": 0, "oldest_seconds": None} if is_there else None,
            latency={"n": 60, "p50_ms": 8.1, "p95_ms": 20.5, "p99_ms": 31.2, "recent_ms": [8 + 5 * abs(math.sin(n)) + (20 if n % 17 == 0 else 0) for n in range(60)]},
            fallback={"answers": 60, "fallbacks": 2, "share": 2 / 60, "by_kind": {"popular": 2}},
            model={"model_id": None if info is None else info.model_id, "age_seconds": 4000, "refused": None},
            errors=[{"at": "2026-11-25T18:20:00+00:00", "status": 422, "route": "/v1/recommend", "detail": "the sequence is empty: send at least one song", "way_out": "correct the request"}],
            worker=service.worker_state(), follower=service.follower_state(),
        )

    def file(name, mimetype, text):
        return Response(text, mimetype=mimetype, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    for ending in ("jspf", "m3u8", "csv", "json", "sql"):
        @route(f"/v1/recommend.{ending}", methods=["POST"])
        def suggestions(ending=ending):
            return file(f"suggestions.{ending}", "text/plain", "{}")

        @route(f"/v1/playlist.{ending}", methods=["POST"])
        def the_list(ending=ending):
            return file(f"list.{ending}", "text/plain", "{}")
