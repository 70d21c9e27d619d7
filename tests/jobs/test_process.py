"""The worker as a process: `python cli.py worker`, real signals."""

import os
import signal
import subprocess
import sys

import pytest

from config import PROJECT_ROOT
from storage.connections import connect
from storage.requests import State
from tests.jobs.world import add_playlist, ask, is_over, songs_of, state_of, wait_until
from tests.serving.small import SONGS, small_run

pytestmark = pytest.mark.pooled


@pytest.fixture
def start(database_url, tmp_path):
    """`start(*options)` -> a worker process that has told its name; none is left behind."""
    run, processes = small_run(tmp_path / "models" / "run"), []

    def run_worker(*options):
        command = [sys.executable, "cli.py", "worker", "--model", str(run), *options]
        environ = {**os.environ, "DATABASE_URL": database_url}
        processes.append(subprocess.Popen(command, cwd=PROJECT_ROOT, env=environ, text=True, stdout=-1, stderr=-1))
        line = processes[-1].stdout.readline()
        assert line.startswith("worker "), processes[-1].communicate()[1]
        return processes[-1]

    yield run_worker
    for process in processes:
        process.kill()
        process.communicate()


def test_a_worker_answers_and_stops_at_a_signal(start, database_url):
    add_playlist(database_url, "p", ["s03", "s00"])
    add_playlist(database_url, "all", SONGS)
    process, request_id = start(), ask(database_url, "p", count=3)
    wait_until(lambda: is_over(database_url, request_id))
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert len(songs_of(database_url, request_id)) == 3
    assert "answered a playlist with 3 songs" in told
    assert f"request_id={request_id}" in told


def test_a_stopped_worker_leaves_nothing_running(start, database_url):
    add_playlist(database_url, "p", ["s00"])
    for count in range(1, 201):
        ask(database_url, "p", count=count)
    process = start()
    wait_until(lambda: is_over(database_url, 1))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    with connect(database_url) as connection:
        states = connection.execute("SELECT DISTINCT state, attempts FROM recommender.request ORDER BY state").fetchall()
    assert states in ([("done", 1)], [("done", 1), ("queued", 0)])


def test_a_killed_worker_is_replaced_by_another(start, database_url):
    add_playlist(database_url, "p", ["s00"])
    first = start("--lease-seconds", "1", "--wake", "poll")
    first.kill()
    request_id = ask(database_url, "p")
    start("--lease-seconds", "1")
    wait_until(lambda: is_over(database_url, request_id))
    assert state_of(database_url, request_id).state is State.DONE
