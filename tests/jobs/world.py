"""Playlists in a test database, workers in threads, and patience."""

import threading
import time
from contextlib import contextmanager

from config import Config, DatabaseConfig, ServiceConfig
from jobs.worker import Worker
from serving.live import LiveRecommender
from storage.connections import connect
from storage.requests import State, add_request, recommendations_of, request_state

PATIENCE_SECONDS = 30
WAKE = "notify"  # the tests of this folder set it to poll where they go through pgbouncer
QUERIES_FOLDER = DatabaseConfig().queries_folder


def add_playlist(url, playlist_id, songs):
    with connect(url) as connection:
        for song_id in songs:
            connection.execute("INSERT INTO music.song (song_id) VALUES (%s) ON CONFLICT DO NOTHING", [song_id])
        connection.execute("INSERT INTO music.playlist (playlist_id) VALUES (%s)", [playlist_id])
        for position, song_id in enumerate(songs):
            connection.execute(
                "INSERT INTO music.playlist_song (playlist_id, position, song_id) VALUES (%s, %s, %s)",
                [playlist_id, position, song_id],
            )


def ask(url, playlist_id, **options):
    with connect(url) as connection:
        return add_request(connection, playlist_id, options)


def state_of(url, request_id):
    with connect(url) as connection:
        return request_state(connection, request_id)


def songs_of(url, request_id):
    with connect(url) as connection:
        return recommendations_of(connection, request_id)


def is_over(url, request_id):
    return state_of(url, request_id).state in (State.DONE, State.FAILED)


def cut_connections(url):
    """End all other connections to the database, as a restart of the server does."""
    with connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def new_worker(url, recommender, queries_folder=QUERIES_FOLDER, **settings):
    """A worker that answers with one recommender, or with whatever a LiveRecommender has in service."""
    live = recommender if isinstance(recommender, LiveRecommender) else LiveRecommender(recommender)
    service, database = ServiceConfig(**{"wake": WAKE, **settings}), DatabaseConfig(queries_folder=queries_folder)
    return Worker(url, live=live, config=Config(service=service, database=database))


def work_once(url, recommender, **settings):
    """One batch in this thread; returns how many requests were claimed."""
    with connect(url) as connection:
        return new_worker(url, recommender, **settings).work(connection, threading.Event())


@contextmanager
def running(*workers):
    """Run workers in threads of their own; at the end they must stop by themselves."""
    stop = threading.Event()
    threads = [threading.Thread(target=worker.run, args=[stop]) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads)


def wait_until(holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
