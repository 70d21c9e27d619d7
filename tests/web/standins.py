"""Routes that the page asks and that are not built yet, by their contract.  Goes when they are there."""

from flask import jsonify

from api.service import service_of


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

    @route("/v1/figures/popularity")
    def popularity():
        labels = ["never played", "1 to 3 times", "4 to 9 times", "10 to 30 times", "over 30 times"]
        artists = [
            {"artist": f"Artist {n}", "catalogue": 0.01, "history": 0.08 - 0.006 * n, "recommended": 0.03 + 0.005 * n}
            for n in range(10)
        ]
        return jsonify(
            bins=[{"label": label, "low": 0, "high": 0} for label in labels],
            catalogue=[0.5, 0.25, 0.15, 0.07, 0.03],
            history=[0, 0.1, 0.2, 0.3, 0.4],
            recommended=[0.02, 0.08, 0.2, 0.4, 0.3],
            n_recommended=1200,
            since="2026-11-25T18:20:00+00:00",
            artists=artists,
            measures={"median_popularity_ratio": 1.4, "artists_at_10": 6.2, "coverage": 0.12},
            note="Plays are places in training lists.",
        )
