import csv
import gzip
import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from uuid import UUID

import pytest

import cli
from config import PROJECT_ROOT, Config, TrainingConfig
from engine.files import write_json
from engine.runs import FINISHED
from errors import DatabaseUnreachable, exit_code_of
from exporters import EXPORTERS
from storage.connections import connect
from tests.serving.small import small_run


def command(*arguments, url, folder, check=True):
    """Run `python cli.py ...` as a user does, with everything it writes below `folder`."""
    environ = {
        **os.environ,
        "DATABASE_URL": url,
        "BERT4MUSICREC_SNAPSHOT": str(folder / "snapshot"),
        "BERT4MUSICREC_ENCODERS_FOLDER": str(folder / "encoders"),
        "BERT4MUSICREC_MODEL_FOLDER": str(folder / "models"),
        "BERT4MUSICREC_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "cli.py", *map(str, arguments)],
        cwd=PROJECT_ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=check,
    )


def write_folder(folder, n_lists=40):
    """A small folder in the layout of `demo data`: lists go round a circle of twelve songs."""
    folder.mkdir()
    with gzip.open(folder / "songs.csv.gz", "wt", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["song_id", "song_name", "artist_id", "artist_name", "album_id", "album_name", "tempo"])
        rows.writerows(
            [f"s{n}", f"Song {n}", f"a{n % 3}", f"Artist {n % 3}", f"b{n % 4}", f"Album {n % 4}", 90 + n] for n in range(12)
        )
    with gzip.open(folder / "sequences.csv.gz", "wt", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["playlist_id", "pos", "song_id"])
        rows.writerows([f"p{n}", place, f"s{(n + place) % 12}"] for n in range(n_lists) for place in range(6))
    return folder


@pytest.fixture(scope="module")
def world(new_database, tmp_path_factory):
    """A database into which a folder was imported, and a model of it: (url, folder, what the commands printed)."""
    folder = tmp_path_factory.mktemp("cli")
    with new_database(None) as url:
        printed = {
            "import": command("import", "csv", write_folder(folder / "lists"), url=url, folder=folder).stdout,
            "train": command("train", "--num-epochs", "3", "--no-evaluation", "--lr", "0.01", url=url, folder=folder).stderr,
        }
        yield url, folder, printed


def test_the_import_says_what_it_added(world):
    assert "rows" in world[2]["import"]
    again = command("import", "csv", world[1] / "lists", url=world[0], folder=world[1]).stdout
    assert [line.split() for line in again.splitlines() if line.startswith("rows")] == [["rows", "240", "0", "0", "0", "240"]]


def test_training_preprocesses_first_and_says_so(world):
    assert "preprocessing first: no snapshot in" in world[2]["train"]
    assert "run preprocessing.py" not in world[2]["train"]
    again = command("train", "--num-epochs", "1", "--no-evaluation", url=world[0], folder=world[1]).stderr
    assert "is up to date with the database" in again


def test_evaluate_prints_the_model_beside_the_baselines(world):
    table = command("evaluate", url=world[0], folder=world[1]).stdout
    names = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert names == ["BERT4Rec", "random", "popularity", "Markov", "co-occurrence", "item kNN", "blend of the three"]


def test_recommend_prints_titles_and_reasons(world):
    lines = command("recommend", "s3", "s4", "s5", "--count", "4", url=world[0], folder=world[1]).stdout.splitlines()
    assert [re.split(r"  +", line.strip()) for line in lines[:3]] == [
        ["1", "Song 3", "Artist 0", "Album 3"],
        ["2", "Song 4", "Artist 1", "Album 0"],
        ["3", "Song 5", "Artist 2", "Album 1"],
    ]
    assert lines[3].strip("- ") == ""
    assert [line.split()[0] for line in lines[4:]] == ["+1", "+2", "+3", "+4"]
    assert all("Artist" in line for line in lines[4:])


def test_recommended_songs_are_written_to_files_of_every_form(world, tmp_path):
    files = [tmp_path / f"evening.{extension}" for extension in EXPORTERS]
    asked = ["recommend", "s3", "s4", "s5", "--count", "4", "--export-name", "Evening", "--export-table", "mine.lists"]
    done = command(*asked, *(word for file in files for word in ("--export", file)), url=world[0], folder=world[1])
    assert sorted(tmp_path.iterdir()) == sorted(files)
    texts = {file.suffix: file.read_text(encoding="utf-8") for file in files}
    songs = json.loads(texts[".json"])["songs"]
    assert [(song["rank"], song["artist"], len(song["reasons"]) > 0) for song in songs] == [
        (rank, f"Artist {int(song['song_id'][1:]) % 3}", True) for rank, song in enumerate(songs, start=1)
    ]
    assert [track["title"] for track in json.loads(texts[".jspf"])["playlist"]["track"]] == [song["title"] for song in songs]
    assert "4 of 4 songs are left out, no file of theirs is known: 1, 2, 3, 4" in done.stderr
    assert 'INSERT INTO "mine"."lists"' in texts[".sql"]
    # A list that was written is a sequence that can be continued.
    again = command("recommend", "--file", tmp_path / "evening.csv", url=world[0], folder=world[1]).stdout
    assert [line.split()[:3] for line in again.splitlines()[:4]] == [
        [str(place), *song["title"].split()] for place, song in enumerate(songs, start=1)
    ]


def test_an_ending_that_nobody_knows_is_told_before_anything_is_done(tmp_path):
    done = command("recommend", "s3", "--export", tmp_path / "a.pls", url="postgresql://nowhere", folder=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "a.pls has no ending of a file that lists can be written to: known are .jspf, .m3u8, .csv, .json, .sql"
    )


def test_an_oracle_is_refused_for_other_songs(world):
    done = command("evaluate", "--oracle", url=world[0], folder=world[1], check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == "error: the snapshot has 12 songs, the demo data 11540: no oracle"


def test_migrate_brings_a_database_up_to_date_once(new_database, tmp_path):
    with new_database(None) as url:
        assert command("migrate", url=url, folder=tmp_path).stdout.startswith("applied migrations 1, 2")
        assert command("migrate", url=url, folder=tmp_path).stdout == "the database is up to date\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "s3", "nothing-of-that-kind"], None),
        (["recommend"], "the sequence is empty"),
        (["recommend", "--file", "/nowhere.csv"], "/nowhere.csv cannot be read as a CSV file"),
        (["recommend", "--file", "requirements.txt"], "has no column song_id"),
        (["import", "csv", "/nowhere"], "/nowhere"),
        (["evaluate", "--model", "/nowhere"], "no trained model in /nowhere: run train.py first"),
        (["dance"], "unknown command 'dance': known are demo, migrate, import"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(world, arguments, message):
    done = command(*arguments, url=world[0], folder=world[1], check=False)
    assert done.returncode == (0 if message is None else 2)
    assert "Traceback" not in done.stderr
    if message is not None:
        assert message in done.stderr.strip().splitlines()[-1]


def test_no_database_and_a_wrong_password_are_said_without_it(tmp_path):
    done = command("migrate", url="postgresql://me:secret@127.0.0.1:1/music", folder=tmp_path, check=False)
    assert done.returncode == 2
    assert "no connection to me@127.0.0.1:1/music" in done.stderr
    assert "secret" not in done.stderr


def test_the_list_of_commands_is_the_documented_one(capsys):
    assert exit_code_of(cli.main, ["--help"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.split("\n\n")[1].splitlines()]
    assert shown == list(cli.COMMANDS)


UUIDS = [UUID(int=n) for n in range(12)]
QUERY_OF_UUIDS = """
SELECT song_id, 'Song ' || n AS title
FROM generate_series(0, 11) AS n, LATERAL (SELECT lpad(to_hex(n), 32, '0')::uuid AS song_id) AS as_uuid
WHERE song_id = ANY(%(song_ids)s)
"""


def test_recommend_finds_the_titles_of_uuids(empty_database_url, tmp_path):
    run = small_run(tmp_path / "run", ids=UUIDS)
    (tmp_path / "songs_by_id.sql").write_text(QUERY_OF_UUIDS)
    (tmp_path / "songs.sql").write_text(QUERY_OF_UUIDS.partition("WHERE")[0])
    options = ["--model", run, "--queries-folder", tmp_path, "--count", "2"]
    lines = command("recommend", UUIDS[3], *options, url=empty_database_url, folder=tmp_path).stdout.splitlines()
    assert lines[0].split() == ["1", "Song", "3"]
    assert [line.split()[:2] for line in lines[2:]] == [["+1", "Song"], ["+2", "Song"]]


@pytest.mark.parametrize(("ids", "wanted"), [(range(12), "whole numbers"), (UUIDS, "uuids")], ids=["int", "uuid"])
def test_recommend_refuses_a_text_that_is_no_id_in_one_line(tmp_path, ids, wanted):
    run = small_run(tmp_path / "run", ids=ids)
    done = command("recommend", "abc", "--model", run, url="postgresql://127.0.0.1:1/none", folder=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: song ids are {wanted} here (got 'abc'): send ids of the catalogue\n"


# --- the demo ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "named"), [("mine", "('x1', of source 'mine')"), (None, "('x1', without a source)")], ids=["another", "none"]
)
def test_the_demo_stops_before_it_mixes_with_other_songs(database_url, tmp_path, source, named):
    with connect(database_url) as connection:
        connection.execute("INSERT INTO music.song (song_id, source) VALUES ('x1', %s)", [source])
    done = command("demo", url=database_url, folder=tmp_path, check=False)
    assert done.stdout == "\n[1/6] YOUR database: made-up music goes into its schema music\n"
    assert done.stderr == (
        f"error: music.song holds other songs than the demo's {named}: name a database without them, "
        "or none (no DATABASE_URL) for the embedded one\n"
    )
    with connect(database_url) as connection:
        assert connection.execute("SELECT song_id FROM music.song").fetchall() == [("x1",)]


def test_the_demo_stands_apart_from_ones_own_music(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no settings file
    asked = []

    def note(settings):
        asked.append(settings)
        raise DatabaseUnreachable("seen")

    monkeypatch.setattr(cli, "database_url", note)
    for command_of in (cli.demo_command, cli.migrate_command):
        with pytest.raises(DatabaseUnreachable):
            command_of([])
    assert [settings.embedded_database for settings in asked] == ["demo", "bert4musicrec"]


def test_a_run_that_was_killed_is_trained_anew(monkeypatch, tmp_path, capsys):
    run = small_run(tmp_path / "20260102-030405-seed0")
    config = Config(training=TrainingConfig(model_folder=tmp_path))
    snapshot = SimpleNamespace(digest="f" * 64)  # that of the run
    monkeypatch.setattr(cli.train, "train", lambda *_: tmp_path / "new")
    assert cli.trained_run(config, snapshot) == tmp_path / "new"
    write_json(run / FINISHED, {})
    assert cli.trained_run(config, snapshot) == run
    assert "there is a model of this snapshot already" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_goes_all_the_way_and_starts_from_what_is_there_the_second_time(new_database, tmp_path):
    with new_database(None) as url:
        first = command("demo", "--num-epochs", "1", url=url, folder=tmp_path)
        second = command("demo", "--num-epochs", "1", url=url, folder=tmp_path)
    assert "added 11,540 songs" in first.stdout
    assert "oracle (the law itself)" in first.stdout
    assert [line.split()[0] for line in first.stdout.splitlines() if line.strip().startswith("+")] == [
        f"+{n}" for n in range(1, 11)
    ]
    assert "nothing new" in second.stdout
    assert "is up to date with the database" in second.stderr
    assert "there is a model of this snapshot already" in second.stdout
    assert first.stdout.split("[6/6]")[1].split("All of it")[0] == second.stdout.split("[6/6]")[1].split("All of it")[0]
