"""The load client and its figures against hand-worked values, and the naive handler against brute force."""

import dataclasses
import io
import itertools
import json
import os
import random
import socket
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from benchmarks import outage
from benchmarks.serve.client import (
    HAS_RETRY_AFTER,
    IS_RIGHT,
    RECORD,
    Load,
    LoadPlan,
    Request,
    answer_end,
    due_times,
    flags_of,
    header,
    is_closing,
    songs_in,
    status_of,
)
from benchmarks.serve.naive import Naive, create_app
from benchmarks.serve.processes import Loaded, cpu_seconds, parent_of, usage
from benchmarks.serve.records import Records, quantile, slope_per_hour
from benchmarks.serve.sameness import same_share
from benchmarks.serve.swap import verdict as verdict_of_swaps
from benchmarks.serve.world import plain_requests, sequences, with_every_rule
from benchmarks.soak import MIX, mixed_requests
from benchmarks.untrained import random_songs, song_rows, untrained_run
from config import FIRST_NUMBER, ServiceConfig
from dataset import inference_batch
from serving.controls import Controls
from serving.recommender import Recommender
from tests.serving.small import SONGS, small_encoders, small_model

TWO_SONGS = b'{"songs": [{"song_id": 1, "rank": 1}, {"song_id": 2, "rank":2}], "unknown": []}'


def answer(content=TWO_SONGS, status=b"200 OK", *lines):
    head = [b"HTTP/1.1 " + status, b"Content-Type: application/json", b"Content-Length: %d" % len(content), *lines]
    return bytearray(b"\r\n".join(head) + b"\r\n\r\n" + content)


# --- reading answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_ends_where_its_content_length_says_and_not_before_all_of_it_has_come():
    whole = answer()
    assert [answer_end(whole[:size]) for size in range(len(whole))] == [None] * len(whole)
    assert answer_end(whole) == len(whole)
    assert answer_end(whole + answer()) == len(whole)


def test_a_header_is_found_in_any_spelling_and_not_within_another_one_or_in_the_content():
    head = b"HTTP/1.1 200 OK\r\nX-Content-Length: 7\r\ncontent-LENGTH:  12 \r\n"
    assert header(head, b"content-length") == b"12"
    assert header(b"HTTP/1.1 200 OK\r\n", b"content-length") is None
    assert is_closing(answer(TWO_SONGS, b"200 OK", b"Connection: Close"))
    assert not is_closing(answer(b"\r\nConnection: close\r\n"))


def test_an_answer_whose_end_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match="without Content-Length"):
        answer_end(bytearray(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))


def test_songs_are_counted_by_their_ranks_in_either_spelling_of_json():
    assert songs_in(answer()) == 2
    assert status_of(answer(b"{}", b"429 Too Many Requests")) == 429


@pytest.mark.parametrize(
    ("request_", "answered", "flags"),
    [
        (Request(path="/"), answer(), IS_RIGHT),
        (Request(path="/", songs=2), answer(), IS_RIGHT),
        (Request(path="/", songs=3), answer(), 0),
        (Request(path="/", statuses=(200, 202), songs=3), answer(b"{}", b"202 Accepted"), IS_RIGHT),
        (Request(path="/"), answer(b"{}", b"500 Internal Server Error"), 0),
        (Request(path="/"), answer(b"{}", b"503 Service Unavailable", b"Retry-After: 5"), HAS_RETRY_AFTER),
    ],
)
def test_an_answer_is_right_with_a_wanted_status_and_the_wanted_number_of_songs(request_, answered, flags):
    assert flags_of(answered, request_) == flags


def test_a_request_is_plain_http_with_its_body_as_json():
    wire = Request(path="/recommend", body={"songs": [1]}, headers={"X-Key": "k"}).as_bytes("localhost:1")
    expected = (
        b"POST /recommend HTTP/1.1\r\nHost: localhost:1\r\nX-Key: k\r\nContent-Type: application/json\r\n"
        b'Content-Length: 14\r\n\r\n{"songs": [1]}'
    )
    assert wire == expected


def test_a_plan_survives_its_way_to_the_client():
    plan = LoadPlan(port=1, requests=[Request(path="/a", body={"songs": ["x"]}, statuses=[200, 202])], seconds=2, rate=3.5)
    assert LoadPlan.read(plan.as_json()) == plan


def test_requests_of_an_open_loop_are_due_at_random_times_which_the_seed_decides():
    dues = list(due_times(100, 50, seed=1))
    assert dues == sorted(dues) == list(due_times(100, 50, seed=1))
    assert 0 < dues[0] < dues[-1] < 50
    assert abs(len(dues) - 5000) < 5 * 5000**0.5  # five standard deviations
    gaps = np.diff(dues)
    assert abs(gaps.std() / gaps.mean() - 1) < 0.1  # exponential: as wide as it is long


# --- a load on a stub --------------------------------------------------------------------------------------------------------


@contextmanager
def stub(*answers):
    """A server that gives its answers in turn to whoever asks, on any number of connections; b"" hangs up instead."""
    listening = socket.create_server(("127.0.0.1", 0))
    turns, threads = itertools.cycle(answers), []

    def talk(connection):
        with connection:
            while connection.recv(65_536):
                turn = next(turns)
                if not turn:
                    return
                connection.sendall(turn)

    def accept():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=talk, args=[connection]))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for thread in (acceptor, *threads):
            thread.join()


def loaded(port, **settings):
    """The records of a load of a fifth of a second, and what the client says of itself; its connections are closed."""
    request = Request(kind=7, path="/", body={}, songs=2)
    plan = LoadPlan(**{"port": port, "requests": [request], "connections": 2, "seconds": 0.2, "patience_seconds": 5.0} | settings)
    file = io.BytesIO()
    load = Load(plan, file)
    cost = load.run()
    load.close()
    return Records.of(file.getvalue()), cost


def test_a_closed_loop_asks_again_on_each_connection_once_it_was_answered():
    with stub(bytes(answer())) as port:
        records, cost = loaded(port)
    assert records.failed == 0
    assert len(records) >= 4
    assert set(records.rows["kind"]) == {7}
    assert cost["samples"] == []


def test_an_open_loop_asks_as_often_as_requests_are_due_also_when_a_server_hangs_up_or_answers_wrongly():
    with stub(bytes(answer()), b"", bytes(answer(b"{}", b"503 Service Unavailable", b"Retry-After: 1"))) as port:
        records, cost = loaded(port, rate=200, connections=1)
    n = len(list(due_times(200, 0.2, 0)))
    assert len(records) == n
    assert sorted(records.rows["status"]) == sorted(itertools.islice(itertools.cycle([200, 0, 503]), n))
    assert records.failed == sum(status != 200 for status in records.rows["status"])
    assert records.has_retry_after.sum() == (records.rows["status"] == 503).sum()
    assert "/: 503 {}" in cost["samples"]


def test_requests_that_found_no_free_connection_until_the_end_have_failed():
    with stub(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n") as port:  # nine bytes that never come
        records, _ = loaded(port, rate=100, connections=1, patience_seconds=0.1)
    assert len(records) == len(list(due_times(100, 0.2, 0)))
    assert records.failed == len(records)


def test_a_server_that_is_not_there_fails_every_request():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    records, cost = loaded(port, rate=100)
    assert len(records) == records.failed == len(list(due_times(100, 0.2, 0)))
    assert "not sent" in cost["samples"][0]


# --- figures -----------------------------------------------------------------------------------------------------------------


def test_a_quantile_is_a_value_that_was_observed():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 201.0))
    assert [quantile(values, share) for share in (0.5, 0.99, 0.995, 1.0)] == [100, 198, 199, 200]
    assert quantile(np.array([4.0, 1.0, 9.0]), 0.99) == 9
    assert np.isnan(quantile(np.array([]), 0.99))


def test_the_slope_is_that_of_the_least_squares_line():
    hours = 3600 * np.array([0.0, 1.0, 2.0])
    # Around the means 1 h and 3: (-1 * -2 + 0 * -1 + 1 * 3) / (1 + 0 + 1)
    assert slope_per_hour(hours, np.array([1.0, 2.0, 6.0])) == pytest.approx(5 / 2)
    assert slope_per_hour(hours, np.array([7.0, 7.0, 7.0])) == 0
    assert np.isnan(slope_per_hour(hours[:1], np.array([1.0])))


def records_of(*rows):
    """Records from (due, took, status, kind, flags)."""
    return Records.of(b"".join(RECORD.pack(*row) for row in rows))


def test_records_are_read_as_they_were_written_without_a_last_one_that_is_not_whole(tmp_path):
    file = tmp_path / "records.bin"
    file.write_bytes(RECORD.pack(1.0, 0.5, 200, 3, IS_RIGHT) + RECORD.pack(2.0, 0.25, 503, 4, HAS_RETRY_AFTER)[:-1])
    assert Records.read(file).rows.tolist() == [(1.0, 0.5, 200, 3, IS_RIGHT)]


def test_requests_a_second_are_right_answers_that_came_within_the_window():
    records = records_of((1.0, 0.5, 200, 0, 1), (1.0, 1.5, 200, 0, 1), (2.0, 0.5, 200, 1, 1), (2.0, 0.5, 500, 1, 0))
    assert records.answers_per_second(2.0, 4.0) == 1
    assert (records.failed, records.longest_ms) == (1, 1500)
    assert len(records.due_within(1.0, 2.0)) == 2
    assert len(records.of_kind(1)) == 2


def test_places_that_only_one_answer_has_are_differences():
    assert same_share([["a", "b"], ["c"]], [["a", "x"], ["c", "d"]]) == 2 / 4
    assert same_share([["a", "b"]], [["b", "a"]]) == 0
    assert same_share([], []) == 1


def load_of(*rows):
    return Loaded(records=records_of(*rows), began=0.0, cpu_share=0.0, samples=())


def test_the_slowest_answer_of_a_swap_is_looked_for_in_its_window_and_failures_everywhere():
    load = load_of((1.0, 0.9, 200, 0, 1), (5.0, 0.1, 200, 0, 1), (6.0, 0.2, 200, 0, 1), (9.0, 0.4, 500, 0, 0))
    assert verdict_of_swaps(load, [(4.0, 5.5), (5.5, 8.0)], 10.0) == {"swap_failed": 1, "swap_max_ms": 200}


def test_an_outage_is_judged_by_sequences_all_the_time_and_by_playlists_while_it_lasts():
    songs = [(1.0, 0.1, 200, outage.SONGS, 1), (15.0, 0.3, 200, outage.SONGS, 1), (16.0, 0.1, 500, outage.SONGS, 0)]
    playlists = [
        (2.0, 0.1, 202, outage.PLAYLIST, IS_RIGHT),
        (11.0, 0.1, 503, outage.PLAYLIST, HAS_RETRY_AFTER),
        (12.0, 0.1, 503, outage.PLAYLIST, 0),
        (13.0, 0.1, 202, outage.PLAYLIST, IS_RIGHT),  # accepted by whom?
        (19.5, 1.0, 202, outage.PLAYLIST, IS_RIGHT),  # answered after the database was back
        (21.5, 0.1, 503, outage.PLAYLIST, HAS_RETRY_AFTER),
        (23.0, 0.1, 202, outage.PLAYLIST, IS_RIGHT),
    ]
    assert outage.verdict(load_of(*songs, *playlists), gone=10.0, back=20.0) == {
        "outage_s": 10,
        "songs": 3,
        "songs_failed": 1,
        "songs_max_ms": 300,
        "playlists_away": 4,
        "playlists_503": 1,
        "playlists_other": 2,
        "recovery_s": 1.5,
    }


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_kernel_tells_of_a_process_what_it_holds():
    assert parent_of(os.getpid()) == os.getppid()
    before = usage(os.getpid())
    with open(os.devnull):  # noqa: PTH123
        assert usage(os.getpid()).files == before.files + 1
    assert before.resident_mb > 10
    assert cpu_seconds(os.getpid()) > 0


# --- what is asked -----------------------------------------------------------------------------------------------------------


def test_sequences_are_the_same_every_time_and_hold_twenty_different_songs_of_the_catalogue():
    asked = sequences(1_000, 50)
    assert asked == sequences(1_000, 50)
    assert {len(set(songs)) for songs in asked} == {20}
    assert set(itertools.chain(*asked)) <= {str(number) for number in range(1, 1_001)}
    assert plain_requests(1_000)[0].body == {"songs": asked[0], "count": 10}


def test_every_control_of_a_body_is_one_that_the_service_knows():
    body = with_every_rule(["1"], random.Random(0))
    controls = Controls.model_validate({name: value for name, value in body.items() if name != "songs"})
    unused = {"listener", "exclude_played_days", "only", "filter", "explain"}
    assert controls.model_fields_set == set(Controls.model_fields) - unused


def test_the_soak_asks_for_everything_in_the_shares_that_it_names():
    requests = mixed_requests(2_000)
    counts = np.bincount([request.kind for request in requests])
    assert np.abs(counts / 20 - [share for _, _, share in MIX]).max() < 5
    assert sum(share for _, _, share in MIX) == 100
    assert json.loads(json.dumps([dataclasses.asdict(request) for request in requests[:100]]))


# --- the handler beside it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def model():
    return small_model(*small_encoders()).eval()


def test_the_naive_handler_answers_as_brute_force_over_the_model_s_scores(model):
    naive = Naive(model, SONGS)
    for songs in (["s03"], ["s00", "s05", "s11"], ["s01", "never seen", "s02"], SONGS[:7]):
        numbers = [FIRST_NUMBER + SONGS.index(song) for song in songs if song in SONGS]
        scores = model.score(inference_batch([np.array(numbers)], model.row_len))[0].tolist()
        left = [place for place in range(len(SONGS)) if FIRST_NUMBER + place not in numbers]
        best = sorted(left, key=lambda place: -scores[FIRST_NUMBER + place])[:4]
        told = naive.recommend(songs, 4)
        assert [(song["song_id"], song["rank"]) for song in told] == [(SONGS[place], n) for n, place in enumerate(best, 1)]
        assert [song["score"] for song in told] == pytest.approx([scores[FIRST_NUMBER + place] for place in best], abs=1e-5)


def test_the_naive_handler_speaks_the_json_of_the_service(model):
    client = create_app(Naive(model, SONGS)).test_client()
    answered = client.post("/recommend", json={"songs": ["s03"], "count": 3})
    assert answered.status_code == 200
    assert [song["rank"] for song in answered.get_json()["songs"]] == [1, 2, 3]
    assert songs_in(answered.data) == 3


# --- a catalogue without training --------------------------------------------------------------------------------------------


def test_made_up_songs_have_one_artist_an_album_and_raw_features_in_their_units():
    songs = random_songs(3_000)
    owners = {(album, artist) for album, artist in zip(songs.albums.tolist(), songs.artists.tolist(), strict=True)}
    assert len(owners) == len(set(songs.albums.tolist()))
    assert np.bincount(songs.albums).max() <= 8
    editions = np.flatnonzero(songs.recordings != np.arange(3_000))
    assert 0.01 < len(editions) / 3_000 < 0.05
    assert (songs.artists[editions] == songs.artists[songs.recordings[editions]]).all()
    assert songs.features["tempo"].dropna().between(60, 200).all()
    assert set(songs.features["key"].dropna()) == set(range(12))
    assert (np.diff(songs.plays) <= 0).all()


def test_a_song_is_copied_with_everything_that_a_model_does_not_hold():
    songs = random_songs(100)
    rows = [row.rstrip("\n").split("\t") for row in song_rows(songs, 40, 42)]
    assert [row[:2] for row in rows] == [[str(number), f"Song {songs.recordings[number - 1] + 1}"] for number in (41, 42)]
    assert rows[0][2:6] == [
        f"artist {songs.artists[40]}",
        f"{{artist {songs.artists[40]}}}",
        f"album {songs.albums[40]}",
        f"XXBEN{songs.recordings[40]:07d}",
    ]
    assert {len(row) for row in rows} == {6 + len(songs.features.columns)}


@pytest.mark.parametrize(("ids", "song"), [("text", "7"), ("int", 7)])
def test_an_untrained_run_is_made_once_and_can_be_served(tmp_path, ids, song):
    run = untrained_run(tmp_path / "run", 300, ids=ids)
    made = (run / "catalogue.safetensors").stat().st_mtime_ns
    assert untrained_run(tmp_path / "run", 300, ids=ids) == run
    assert (run / "catalogue.safetensors").stat().st_mtime_ns == made
    answered = Recommender.load(run, ServiceConfig()).recommend([song])
    assert len(answered.songs) == 10
    assert all(type(each.song_id) is type(song) for each in answered.songs)
