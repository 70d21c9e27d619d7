"""The demo data: what the files hold, that the generator makes them, and that playlists follow the law behind the oracle."""

import csv
import gzip
import importlib.util
import shutil
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "demo data"
FILES = ["sequence.csv", "sequences.csv.gz", "songs.csv.gz", "playlists.csv.gz"]
FEATURES = [
    "danceability", "energy", "key", "loudness", "mode", "speechiness", "acousticness", "instrumentalness", "liveness", "valence",
    "tempo", "time_signature",
]  # fmt: skip


def load_generator():
    spec: Any = importlib.util.spec_from_file_location("demo_data_generate", FOLDER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generate = load_generator()


def content(path):
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw


def rows(name):
    return list(csv.DictReader(content(FOLDER / name).decode().splitlines()))


@pytest.fixture(scope="module")
def songs():
    return rows("songs.csv.gz")


@pytest.fixture(scope="module")
def playlists():
    return rows("playlists.csv.gz")


@pytest.fixture(scope="module")
def sequences():
    found: dict[str, list[str]] = {}
    for row in rows("sequences.csv.gz"):
        assert int(row["pos"]) == len(found.setdefault(row["playlist_id"], []))
        found[row["playlist_id"]].append(row["song_id"])
    return found


@pytest.fixture(scope="module")
def law():
    return generate.load_law(FOLDER)


def tiny_catalogue(**changes):
    """Five songs: a two-track album, another artist of the same sub-genre, and one song in each of the two neighbours."""
    parts = {
        "artist": np.array([0, 0, 1, 2, 3]),
        "album": np.array([0, 0, 1, 2, 3]),
        "place": np.array([0, 1, 0, 0, 0]),
        "subgenre": np.array([0, 0, 0, 1, 2]),
        "popularity": np.array([0.4, 0.2, 0.2, 0.1, 0.1]),
        "sound": {name: np.zeros(5) for name in ("tempo", "energy", "valence")},
        "original": np.full(5, -1),
        "successor": np.full(5, -1),
        "artist_subgenre": np.array([0, 0, 1, 2]),
        "album_artist": np.array([0, 1, 2, 3]),
    }
    return generate.Catalogue(**(parts | changes))


# ------------------------------------------------------------------ files


@pytest.mark.slow
def test_the_generator_writes_the_committed_files(tmp_path):
    assert generate.main(["--folder", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    # Compared as text: the same zlib level gives other bytes in other builds of zlib.
    assert [content(tmp_path / name) == content(FOLDER / name) for name in FILES] == [True] * len(FILES)


def test_a_file_is_written_with_the_same_bytes_each_time(tmp_path):
    for name in ("first.csv.gz", "second.csv.gz"):
        generate._write_csv(tmp_path / name, ("song_id",), [("s00001",)])
    assert (tmp_path / "first.csv.gz").read_bytes() == (tmp_path / "second.csv.gz").read_bytes()
    assert content(tmp_path / "first.csv.gz") == b"song_id\ns00001\n"


def test_the_catalogue_has_the_promised_sizes(songs):
    assert [row["song_id"] for row in songs] == [f"s{number:05d}" for number in range(1, 11_541)]
    assert len({row["artist_id"] for row in songs}) == 2_343
    assert len({row["album_id"] for row in songs}) == 3_916
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 4_000_000


def test_the_playlists_have_the_promised_lengths(sequences):
    lengths = sorted(len(sequence) for sequence in sequences.values())
    assert list(sequences) == [f"p{number:04d}" for number in range(1, 3_001)]
    assert (lengths[0], lengths[1_500], lengths[-1]) == (5, 15, 168)
    assert sum(lengths) == 58_079


def test_no_song_comes_twice_in_a_playlist(sequences):
    assert [name for name, sequence in sequences.items() if len(set(sequence)) < len(sequence)] == []


def test_playlists_are_ordered_by_time_over_three_years(playlists, sequences):
    times = [datetime.fromisoformat(row["snapshot_time"]) for row in playlists]
    assert [row["playlist_id"] for row in playlists] == list(sequences)
    assert times == sorted(times)
    assert (times[0].year, times[-1].year) == (2022, 2024)
    assert all(time.utcoffset() is not None for time in times)


def test_versions_keep_the_beginning_of_their_list_and_are_not_among_the_latest(playlists, sequences):
    first: dict[str, dict[str, str]] = {}
    versions = []
    for place, row in enumerate(playlists):
        if first.setdefault(row["base_id"], row) is not row:
            versions.append((place, sequences[first[row["base_id"]]["playlist_id"]], sequences[row["playlist_id"]]))
    assert len(versions) == 150
    assert max(place for place, _, _ in versions) < 0.8 * len(playlists)
    for _, base, version in versions:
        kept = min(len(base), len(version)) // 2
        assert version[:kept] == base[:kept]
        assert version[kept:] != base[kept:]


def test_every_column_that_may_have_gaps_has_some_and_not_too_many(songs):
    columns = [*FEATURES, "explicit", "isrc", "release_date", "duration_ms", "disc_number", "track_number"]
    missing = {column: sum(not row[column] for row in songs) / len(songs) for column in columns}
    assert {column: share for column, share in missing.items() if not 0.005 < share < 0.2} == {}
    assert sum(not any(row[feature] for feature in FEATURES) for row in songs) > 400  # no sound at all
    assert 200 < sum(row["key"] == "-1" for row in songs) < 500


def test_names_and_ids_are_never_missing(songs):
    for column in ("song_id", "song_name", "artist_id", "artist_name", "album_id", "album_name", "all_artist_ids"):
        assert [row["song_id"] for row in songs if not row[column].strip()] == []


def test_features_stay_within_their_ranges(songs):
    bounds = {
        "energy": (0, 1),
        "valence": (0, 1),
        "tempo": (40, 260),
        "loudness": (-40, 0),
        "key": (-1, 11),
        "mode": (0, 1),
        "time_signature": (1, 5),
    }
    for name, (low, high) in bounds.items():
        values = [float(row[name]) for row in songs if row[name]]
        assert low <= min(values) < max(values) <= high
    assert {row["explicit"] for row in songs} == {"true", "false", ""}


def test_duplicate_recordings_stand_on_another_album_with_nearly_the_same_length(songs):
    versions: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in songs:
        versions.setdefault((row["song_name"], row["artist_id"]), []).append(row)
    duplicates = [group for group in versions.values() if len(group) > 1]
    assert sum(len(group) - 1 for group in duplicates) == 420
    assert all(len({row["album_id"] for row in group}) == len(group) for group in duplicates)
    same_isrc = sum(group[0]["isrc"] == group[1]["isrc"] != "" for group in duplicates)
    assert 0.3 < same_isrc / len(duplicates) < 0.6
    lengths = [[int(row["duration_ms"]) for row in group if row["duration_ms"]] for group in duplicates]
    assert max(max(each) / min(each) for each in lengths) < 1.12


def test_some_songs_have_guests_and_the_main_artist_comes_first(songs):
    guests = [row for row in songs if ";" in row["all_artist_ids"]]
    assert 400 < len(guests) < 1_000
    assert [row["song_id"] for row in songs if row["all_artist_ids"].split(";")[0] != row["artist_id"]] == []


def test_names_are_varied(songs):
    titles = Counter(row["song_name"] for row in songs)
    assert len(titles) > 0.9 * len(songs)
    assert titles.most_common(1)[0][1] < 10
    assert len({row["artist_name"] for row in songs}) == 2_343
    assert [name for name in titles if "{" in name or "}" in name or name != name.strip()] == []


def test_track_numbers_run_through_an_album(songs):
    numbers: dict[str, list[Any]] = {}
    for row in songs:
        place = (int(row["disc_number"]), int(row["track_number"])) if row["track_number"] else None
        numbers.setdefault(row["album_id"], []).append(place)
    complete = [sorted(places) for places in numbers.values() if None not in places]
    for places in complete:
        assert places == [(number // 14 + 1, number % 14 + 1) for number in range(len(places))]
    assert any(disc == 2 for places in complete for disc, _ in places)


def test_the_sequence_to_continue_is_in_no_playlist(songs, sequences):
    known = {row["song_id"]: (row["song_name"], row["artist_name"]) for row in songs}
    wanted = rows("sequence.csv")
    ids = [row["song_id"] for row in wanted]
    assert [(row["song_name"], row["artist_name"]) for row in wanted] == [known[song] for song in ids]
    assert len(set(ids)) == 8
    assert max(len(set(ids) & set(sequence)) for sequence in sequences.values()) < 8


# ------------------------------------------------------------------ law


def test_after_one_song_the_parts_add_up_as_by_hand():
    after = generate.Law(tiny_catalogue()).next_song_probabilities(np.array([0]))
    # anywhere 0.06 over (2, 2, 1, 1) / 6; next track 0.18, artist 0.42 to song 1; sub-genre 0.26 in halves; neighbours 0.055 each
    by_hand = np.array([0, 0.02 + 0.18 + 0.42 + 0.13, 0.02 + 0.13, 0.01 + 0.055, 0.01 + 0.055])
    assert after == pytest.approx(by_hand / 1.03)


def test_a_run_in_track_order_makes_the_next_track_far_likelier():
    album = {"album": np.array([0, 0, 0, 1, 2]), "artist": np.array([0, 0, 0, 1, 2]), "place": np.array([0, 1, 2, 0, 0])}
    after = generate.Law(tiny_catalogue(**album)).next_song_probabilities(np.array([0, 1]))
    # anywhere 0.06 over (2, 1, 1) / 4; run 1.10, artist 0.42 and sub-genre 0.26 all to song 2; neighbours 0.055 each
    by_hand = np.array([0, 0, 0.03 + 1.10 + 0.42 + 0.26, 0.015 + 0.055, 0.015 + 0.055])
    assert after == pytest.approx(by_hand / 1.95)


def test_a_fixed_successor_comes_nearly_always_but_not_twice():
    law = generate.Law(tiny_catalogue(successor=np.array([4, -1, -1, -1, -1])))
    after = law.next_song_probabilities(np.array([0]))
    assert after[4] == pytest.approx((0.01 + 0.055 + 6.0) / 7.03)
    assert law.next_song_probabilities(np.array([4, 0]))[4] == 0


def test_a_drift_goes_on_in_its_direction():
    law = generate.Law(tiny_catalogue())
    after = law.next_song_probabilities(np.array([2, 3]))  # one step forward: from sub-genre 0 to 1
    # anywhere 0.06 over (4, 2, 1) / 7; neighbours 0.11: onward to sub-genre 2 (song 4) 0.85, back to 0 (songs 0, 1) 0.15
    back, onward = 0.11 * 0.15, 0.11 * 0.85
    by_hand = np.array([0.24 / 7 + back * 2 / 3, 0.12 / 7 + back / 3, 0, 0, 0.06 / 7 + onward])
    assert after == pytest.approx(by_hand / 0.17)


def test_closeness_falls_with_the_distance_in_sound():
    sound = {"tempo": np.array([100.0, 100, 116, 100, 100]), "energy": np.zeros(5), "valence": np.zeros(5)}
    apart = {"artist": np.arange(5), "album": np.arange(5), "place": np.zeros(5, int)}
    after = generate.Law(tiny_catalogue(sound=sound, **apart)).next_song_probabilities(np.array([0]))
    # Songs 1 and 2 are equally popular; the second is 16 bpm away, one width of the kernel.
    near, far = 1 / (1 + np.exp(-0.5)), np.exp(-0.5) / (1 + np.exp(-0.5))
    assert after == pytest.approx(np.array([0, 0.02 + 0.26 * near, 0.02 + 0.26 * far, 0.065, 0.065]) / 0.43)


def test_the_first_song_is_drawn_by_popularity():
    assert generate.Law(tiny_catalogue()).next_song_probabilities(np.array([], int)) == pytest.approx([0.4, 0.2, 0.2, 0.1, 0.1])


def test_nothing_follows_the_whole_catalogue():
    with pytest.raises(ValueError, match="all 5 songs are used"):
        generate.Law(tiny_catalogue()).next_song_probabilities(np.arange(5))


def test_sampling_follows_the_probabilities():
    law = generate.Law(tiny_catalogue())
    rng = np.random.default_rng(0)
    drawn = np.bincount([law.sample(rng, 2, [0])[1] for _ in range(4_000)], minlength=5) / 4_000
    assert drawn == pytest.approx(law.next_song_probabilities(np.array([0])), abs=0.02)


def test_probabilities_sum_to_one_over_the_unused_songs(law, sequences):
    prefixes = [sequence[:-1] for sequence in list(sequences.values())[::100]]
    scores = law.score(prefixes)
    assert scores.shape == (30, 11_540)
    assert scores.sum(axis=1) == pytest.approx(np.ones(30))
    assert all((scores[row, law.numbers(prefix)] == 0).all() for row, prefix in enumerate(prefixes))
    assert (scores > 0).sum(axis=1).tolist() == [11_540 - len(prefix) for prefix in prefixes]


def test_the_committed_playlists_follow_the_law(law, sequences):
    chosen = list(sequences.values())[::3]
    scores = law.score([sequence[:-1] for sequence in chosen])
    first = scores.argmax(axis=1)
    hits = np.mean(first == [law.numbers(sequence[-1:])[0] for sequence in chosen])
    # What the law promises for its first choice, and what came: 1,000 draws, so one standard error is 0.014.
    assert hits == pytest.approx(scores.max(axis=1).mean(), abs=0.045)


def test_ids_and_numbers_score_alike(law):
    assert law.song_ids[:2] == ["s00001", "s00002"]
    assert (law.score([["s00003", "s00011"]]) == law.score([np.array([2, 10])])).all()


def test_an_unknown_song_is_named(law):
    with pytest.raises(ValueError, match="song 'x7' is not in the demo catalogue"):
        law.score([["s00003", "x7"]])


def test_the_law_refuses_another_catalogue(tmp_path):
    shutil.copy(FOLDER / "songs.csv.gz", tmp_path)
    lines = content(tmp_path / "songs.csv.gz").splitlines(keepends=True)
    (tmp_path / "songs.csv.gz").write_bytes(gzip.compress(b"".join(lines[:-1])))
    with pytest.raises(ValueError, match="is not the catalogue of this generator's law"):
        generate.load_law(tmp_path)
