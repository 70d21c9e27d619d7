"""Feedback from HTTP and from SQL, the tastes that follow from it, and how it is forgotten."""

import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from config import PROJECT_ROOT, DatabaseConfig
from errors import InvalidFeedback, UnknownModel
from storage.connections import connect
from storage.feedback import Event, Feedback, Taste, TasteWanted, add_feedback, tastes_of
from storage.models import Model, current_deployment, register_model
from storage.named import as_statement
from storage.requests import RankedSong, add_request, claim, finish
from storage.source import check_contract, sequence_by_id

SHIPPED = DatabaseConfig().queries_folder
NOW = datetime.now(UTC)


def said(listener: str, event: Event, song_id: str | None = None, **rest) -> Feedback:
    return Feedback(listener=listener, event=event, song_id=song_id, **rest)


def taste(**ids) -> Taste:
    return Taste(**{name: frozenset(listed) for name, listed in ids.items()})


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def stored(connection, columns="listener, event, song_id") -> list[tuple]:
    return connection.execute(f"SELECT {columns} FROM recommender.feedback ORDER BY feedback_id").fetchall()


@pytest.fixture
def answered(connection):
    """(connection, number of a request that model m answered with the songs s1 and s2)."""
    register_model(connection, Model(model_id="m", path="p", encoders_digest="e", snapshot_digest="s"))
    add_request(connection, "p", {"listener": "l"})
    claimed = claim(connection, "w")[0]
    finish(connection, claimed, [RankedSong(song_id=song_id, score=1) for song_id in ("s1", "s2")], model_id="m")
    connection.commit()
    return connection, claimed.request_id


# --- taking it in ------------------------------------------------------------------------------------------------------------


def test_feedback_comes_back_as_it_was_sent(connection):
    sent = said("l", Event.PLAYED, "s", happened_at=days_ago(1), is_recommended=True, ms_played=1000)
    assert add_feedback(connection, [sent, said("l", Event.NEVER_AGAIN, artist_id="a")]) == 2
    columns = "listener, event, song_id, artist_id, is_recommended, ms_played"
    assert sorted(stored(connection, columns), key=str) == [
        ("l", "never_again", None, "a", False, None),
        ("l", "played", "s", None, True, 1000),
    ]
    assert (days_ago(1),) in stored(connection, "happened_at")


def test_no_feedback_is_no_error(connection):
    assert add_feedback(connection, []) == 0


def test_a_report_that_is_sent_again_counts_once(connection):
    played = said("l", Event.PLAYED, "s", happened_at=days_ago(1))
    assert add_feedback(connection, [played, played]) == 1
    assert add_feedback(connection, [played, said("l", Event.PLAYED, "s", happened_at=days_ago(2))]) == 1


def test_two_who_report_the_same_at_once_make_one_report(connection, database_url):
    reports = [said("l", Event.PLAYED, song_id, happened_at=days_ago(1)) for song_id in ("s1", "s2")]
    assert add_feedback(connection, reports) == 2
    new = []

    def report_as_well():
        with connect(database_url) as another:
            new.append(add_feedback(another, reports[::-1]))

    thread = threading.Thread(target=report_as_well)
    thread.start()
    thread.join(timeout=0.2)
    assert new == []  # waits for the first one's commit
    connection.commit()
    thread.join()
    assert new == [0]


def test_a_song_and_an_artist_of_one_id_are_two_things(connection):
    both = [said("l", Event.NEVER_AGAIN, "x", happened_at=NOW), said("l", Event.NEVER_AGAIN, artist_id="x", happened_at=NOW)]
    assert add_feedback(connection, both) == 2


def test_a_clock_that_runs_ahead_is_set_back_to_now(connection):
    add_feedback(connection, [said("l", Event.SKIPPED, "s", happened_at=NOW + timedelta(days=400))])
    assert stored(connection, "happened_at <= statement_timestamp()") == [(True,)]


def test_the_number_of_a_request_tells_whose_song_it_was(answered):
    connection, request_id = answered
    add_feedback(
        connection,
        [said("l", Event.PLAYED, "s1", request_id=request_id), said("l", Event.PLAYED, "other", request_id=request_id)],
    )
    assert sorted(stored(connection, "song_id, model_id, is_recommended")) == [("other", None, False), ("s1", "m", True)]


def test_a_models_song_is_a_recommended_one(answered):
    connection, _ = answered
    add_feedback(connection, [said("l", Event.LIKED, "s", model_id="m")])
    assert stored(connection, "model_id, is_recommended") == [("m", True)]


def test_a_model_that_is_not_known_is_named(connection):
    with pytest.raises(
        UnknownModel, match=r"feedback names a model that is not known here \('x'\): send the model_id of an answer"
    ):
        add_feedback(connection, [said("l", Event.LIKED, "s", model_id="x")])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "send one of the two"),
        ({"song_id": "s", "artist_id": "a"}, "send one of the two"),
        ({"artist_id": "a"}, r"played is about a song: send a song_id"),
        ({"song_id": ""}, r"song_id must have between 1 and 1000 bytes \(got 0\)"),
        ({"song_id": "é" * 501}, r"song_id must have between 1 and 1000 bytes \(got 1002\)"),
        ({"song_id": "a\0"}, "song_id must be a text that PostgreSQL can hold"),
        ({"song_id": "s", "listener": ""}, "listener must have between 1 and 1020 bytes"),
        ({"song_id": "s", "ms_played": -1}, r"ms_played must be between 0 and 2147483647 milliseconds \(got -1\)"),
        ({"song_id": "s", "request_id": 2**63}, r"request_id must be the number of a request"),
        ({"song_id": "s", "happened_at": datetime(2026, 1, 2)}, "happened_at needs its zone"),
    ],
)
def test_what_is_no_feedback_is_refused(fields, message):
    with pytest.raises(InvalidFeedback, match=message):
        Feedback(**{"listener": "l", "event": Event.PLAYED, **fields})


def test_the_longest_ids_fit_into_the_index(connection):
    longest = "".join(chr(0x4E00 + number * 37 % 20_000) for number in range(333))  # three bytes each, nothing to compress
    assert add_feedback(connection, [said(longest, Event.PLAYED, longest)]) == 1


# --- from SQL ----------------------------------------------------------------------------------------------------------------

SONG = UUID(int=11)


@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        ("'l', 's', 'played'", ("l", "played", "s")),
        ("7, 42, 'skipped'", ("7", "skipped", "42")),
        ("'l', 42, 'liked'", ("l", "liked", "42")),
        ("7, 's', 'liked'", ("7", "liked", "s")),
        ("7::bigint, 's'::varchar(9), 'liked'", ("7", "liked", "s")),
        ("'l'::varchar(9), 's'::varchar(9), 'liked'", ("l", "liked", "s")),
        (f"'{UUID(int=7)}'::uuid, '{SONG}'::uuid, 'played', ms_played => 5", (str(UUID(int=7)), "played", str(SONG))),
    ],
)
def test_ids_of_any_type_are_taken(connection, arguments, row):
    assert connection.execute(f"SELECT recommender.feedback({arguments})").fetchone()[0] > 0
    assert stored(connection) == [row]


def test_an_artist_is_blocked_in_sql(connection):
    connection.execute("SELECT recommender.feedback('l', NULL, 'never_again', artist_id => 'a')")
    assert tastes_of(connection, SHIPPED, [TasteWanted(listener="l")]) == [taste(never_artists={"a"})]


@pytest.mark.parametrize(
    ("arguments", "constraint"),
    [
        ("'l', 's', 'danced'", "feedback_event_check"),
        ("'l', NULL, 'played'", "feedback_about_check"),
        ("'l', NULL, 'played', artist_id => 'a'", "feedback_artist_check"),
        ("'', 's', 'played'", "feedback_length_check"),
        ("'l', 's', 'played', ms_played => -1", "feedback_ms_played_check"),
    ],
)
def test_what_is_no_feedback_is_refused_in_sql(connection, arguments, constraint):
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        connection.execute(f"SELECT recommender.feedback({arguments})")


OWN_TRIGGER = """
CREATE ROLE player_of_the_tests; -- gone with the transaction
CREATE TABLE play_log (user_id int, track_id bigint, played_at timestamptz, ms int);
CREATE FUNCTION report_play() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM recommender.feedback(NEW.user_id, NEW.track_id, 'played', happened_at => NEW.played_at, ms_played => NEW.ms);
    RETURN NULL;
END $$;
CREATE TRIGGER report_play AFTER INSERT ON play_log FOR EACH ROW EXECUTE FUNCTION report_play();
GRANT INSERT ON play_log TO player_of_the_tests;
GRANT USAGE ON SCHEMA recommender TO player_of_the_tests;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA recommender TO player_of_the_tests;
"""


def test_a_trigger_reports_plays_with_no_right_to_the_table(connection):
    connection.execute(OWN_TRIGGER)
    connection.execute("SET LOCAL ROLE player_of_the_tests")
    connection.execute("INSERT INTO play_log VALUES (7, 42, '2026-01-02Z', 1000), (7, 43, '2026-01-02 00:01Z', 1000)")
    connection.execute("RESET ROLE")
    assert stored(connection) == [("7", "played", "42"), ("7", "played", "43")]


@pytest.mark.parametrize(
    "statement", ["SELECT recommender.deploy('m')", "SELECT recommender.roll_back()", "SELECT recommender.forget(7)"]
)
def test_who_may_report_may_neither_deploy_nor_forget(connection, statement):
    connection.execute(OWN_TRIGGER)
    connection.execute("SET LOCAL ROLE player_of_the_tests")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


OWN_CAST = """
CREATE ROLE app_of_the_tests; -- gone with the transaction
GRANT USAGE ON SCHEMA recommender TO app_of_the_tests;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA recommender TO app_of_the_tests;
SET LOCAL ROLE app_of_the_tests;
CREATE TEMPORARY TABLE cast_as (role text);
GRANT INSERT ON cast_as TO PUBLIC;
CREATE TYPE pg_temp.own_id AS (number int);
CREATE FUNCTION pg_temp.as_text(id pg_temp.own_id) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pg_temp.cast_as VALUES (current_user);
    RETURN 'x';
END $$;
CREATE CAST (pg_temp.own_id AS text) WITH FUNCTION pg_temp.as_text(pg_temp.own_id);
"""


@pytest.mark.parametrize("ids", ["'l', ROW(7)::pg_temp.own_id", "ROW(7)::pg_temp.own_id, 's'", "ROW(7)::pg_temp.own_id, 7"])
def test_a_cast_of_somebodys_own_never_runs_with_the_owners_rights(connection, ids):
    connection.execute(OWN_CAST)
    connection.execute(f"SELECT recommender.feedback({ids}, 'liked')")
    assert set(connection.execute("SELECT role FROM cast_as")) == {("app_of_the_tests",)}


# --- tastes ------------------------------------------------------------------------------------------------------------------


def test_tastes_come_in_the_order_in_which_they_were_asked_for(connection):
    add_feedback(
        connection,
        [
            said("a", Event.NEVER_AGAIN, "s1", happened_at=days_ago(4000)),
            said("a", Event.NEVER_AGAIN, artist_id="x", happened_at=days_ago(4000)),
            said("a", Event.SKIPPED, "s2", happened_at=days_ago(10)),
            said("a", Event.PLAYED, "s3", happened_at=days_ago(10)),
            said("b", Event.SKIPPED, "s4", happened_at=days_ago(10)),
            said("b", Event.LIKED, "s5", happened_at=days_ago(10)),
        ],
    )
    wanted = [
        TasteWanted(listener="b", skipped_days=30, played_days=30),
        TasteWanted(listener="nobody", skipped_days=30, played_days=30),
        TasteWanted(listener="a", skipped_days=9, played_days=30),
        TasteWanted(listener="a", skipped_days=30),
    ]
    assert tastes_of(connection, SHIPPED, wanted) == [
        taste(skipped={"s4"}),
        taste(),
        taste(never={"s1"}, never_artists={"x"}, played={"s3"}),
        taste(never={"s1"}, never_artists={"x"}, skipped={"s2"}),
    ]
    assert tastes_of(connection, SHIPPED, []) == []


def test_no_number_of_days_is_too_large(connection):
    add_feedback(connection, [said("l", Event.PLAYED, "s", happened_at=days_ago(30_000))])
    assert tastes_of(connection, SHIPPED, [TasteWanted(listener="l", skipped_days=1e300, played_days=1e300)]) == [
        taste(played={"s"})
    ]


LISTENS = """
INSERT INTO music.song (song_id) VALUES ('s1'), ('s2'), ('s3');
INSERT INTO music.listen (user_id, song_id, listened_at) VALUES
    ('l', 's1', now() - INTERVAL '1 day'), ('l', 's2', now() - INTERVAL '5 days'), ('k', 's3', now() - INTERVAL '1 day');
"""


def test_plays_of_the_schema_music_count_beside_those_of_the_feedback(connection):
    connection.execute(LISTENS)
    add_feedback(connection, [said("l", Event.PLAYED, "s3", happened_at=days_ago(1))])
    wanted = [TasteWanted(listener="l", played_days=3), TasteWanted(listener="k", played_days=0.5), TasteWanted(listener="k")]
    assert tastes_of(connection, SHIPPED, wanted) == [taste(played={"s1", "s3"}), taste(), taste()]


def test_without_the_optional_file_feedback_alone_counts(connection, tmp_path):
    connection.execute(LISTENS)
    add_feedback(connection, [said("l", Event.PLAYED, "s3")])
    assert tastes_of(connection, tmp_path, [TasteWanted(listener="l", played_days=3)]) == [taste(played={"s3"})]


@pytest.fixture
def own_plays(connection, tmp_path):
    """Writes a plays_by_listener.sql over a table with numeric keys, and returns its folder."""
    connection.execute("CREATE TABLE own_play (user_id bigint, track_id bigint, at timestamp, note text)")
    connection.execute(
        "INSERT INTO own_play VALUES (7, 41, now() - INTERVAL '1 h', 'a%b'), (7, 42, now() - INTERVAL '9 days', 'a')"
    )

    def write(text: str):
        (tmp_path / "plays_by_listener.sql").write_text(text)
        return tmp_path

    return write


NUMBERS = "SELECT track_id AS song_id, at AS listened_at FROM own_play WHERE user_id = %(listener)s::bigint"


@pytest.mark.parametrize("condition", ["AND at >= %(since)s;", ";", "-- all of them", "AND note LIKE 'a%%' ORDER BY at"])
def test_somebodys_own_plays_are_found_whether_or_not_the_file_looks_at_the_time(connection, own_plays, condition):
    wanted = [TasteWanted(listener="7", played_days=2), TasteWanted(listener="8", played_days=2)]
    assert tastes_of(connection, own_plays(f"{NUMBERS} {condition}"), wanted) == [taste(played={"41"}), taste()]


def test_a_listener_that_is_no_key_of_that_table_has_no_plays_there_and_disturbs_nobody(connection, own_plays):
    add_feedback(connection, [said("guest", Event.NEVER_AGAIN, "s")])
    wanted = [TasteWanted(listener=listener, played_days=2) for listener in ("7", "guest", "9" * 30)]
    assert tastes_of(connection, own_plays(NUMBERS), wanted) == [taste(played={"41"}), taste(never={"s"}), taste()]
    assert stored(connection) != []  # the caller's transaction goes on


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT track_id AS song_id FROM own_play", "plays_by_listener.sql fails: it has columns song_id and listened_at"),
        (NUMBERS.replace("::bigint", ""), r"in the key's own type \(%\(listener\)s::bigint\), but operator does not exist"),
        (NUMBERS.replace("own_play", "nowhere"), 'relation "nowhere" does not exist'),
        (NUMBERS.replace("%(listener)s", "%s"), "positional and named placeholders cannot be mixed"),
        ("SELECT 1 AS song_id, now() AS listened_at WHERE 1 / (SELECT 0) = 1", "plays_by_listener.sql fails: division by"),
        ("SELECT 's' AS song_id, pg_temp.refuse() AS listened_at", "^plays_by_listener.sql fails: not today$"),
    ],
)
def test_a_file_that_breaks_its_contract_is_named_and_costs_its_plays_only(connection, own_plays, text, message):
    connection.execute(
        "CREATE FUNCTION pg_temp.refuse() RETURNS timestamptz LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'not today' USING ERRCODE = '23505'; END $$"
    )
    reports = ((Event.NEVER_AGAIN, "s1"), (Event.SKIPPED, "s2"), (Event.PLAYED, "s3"))
    add_feedback(connection, [said("7", event, song_id) for event, song_id in reports])
    wanted = [TasteWanted(listener="7", skipped_days=2, played_days=2), TasteWanted(listener="7")]
    without, unasked = tastes_of(connection, own_plays(text), wanted)
    assert re.search(message, without.plays_error)
    assert replace(without, plays_error=None) == taste(never={"s1"}, skipped={"s2"}, played={"s3"})
    assert unasked == taste(never={"s1"})


def test_a_file_that_cannot_be_read_is_named_and_costs_its_plays_only(connection, tmp_path):
    (tmp_path / "plays_by_listener.sql").write_bytes(b"SELECT '\xff'")
    add_feedback(connection, [said("l", Event.NEVER_AGAIN, "s")])
    [without] = tastes_of(connection, tmp_path, [TasteWanted(listener="l", played_days=2)])
    assert without.plays_error.startswith("plays_by_listener.sql cannot be read: 'utf-8' codec can't decode")
    assert without.never == {"s"}


MANY = """
INSERT INTO recommender.feedback (listener, event, song_id, happened_at)
SELECT 'l' || n % 100, CASE WHEN n % 500 = 7 THEN 'never_again' ELSE 'played' END, 's' || n, now() - n * INTERVAL '1 min'
FROM generate_series(1, 50000) AS n
"""


def test_tastes_of_a_batch_are_read_through_the_indexes(connection):
    connection.execute(MANY)
    connection.execute("ANALYZE recommender.feedback")
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.commit()
    scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'feedback'"
    before = connection.execute(scans).fetchone()
    wanted = [TasteWanted(listener=f"l{number}", skipped_days=30, played_days=1) for number in range(32)]
    tastes = tastes_of(connection, SHIPPED, wanted)
    assert (len(tastes[7].never), len(tastes[8].played)) == (100, 15)  # the minutes 8, 108, ..., 1408
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.commit()
    assert connection.execute(scans).fetchone() == before


def test_a_listeners_feedback_is_found_newest_first_through_an_index(connection):
    connection.execute(MANY)
    connection.execute("ANALYZE recommender.feedback")
    query = "EXPLAIN SELECT song_id FROM recommender.feedback WHERE listener = 'l7' ORDER BY happened_at DESC LIMIT 20"
    plan = "\n".join(line for (line,) in connection.execute(query))
    assert "Index Scan using feedback_listener_key" in plan
    assert "Sort" not in plan


# --- plays, and forgetting ---------------------------------------------------------------------------------------------------


def test_the_view_of_plays_has_the_columns_of_a_play_log(connection):
    add_feedback(
        connection,
        [
            said("l", Event.PLAYED, "s1", happened_at=days_ago(2), ms_played=5, is_recommended=True),
            said("l", Event.SKIPPED, "s2", happened_at=days_ago(1)),
            said("l", Event.LIKED, "s3"),
        ],
    )
    query = "SELECT listener, song_id, listened_at, ms_played, skipped, is_recommended FROM recommender.play ORDER BY listened_at"
    assert connection.execute(query).fetchall() == [
        ("l", "s1", days_ago(2), 5, False, True),
        ("l", "s2", days_ago(1), None, True, False),
    ]


@pytest.mark.parametrize(("listener", "called"), [("l", "'l'"), ("7", "7")])
def test_what_is_known_of_a_listener_is_forgotten_and_nothing_else(answered, listener, called):
    connection, _ = answered
    connection.execute("TRUNCATE recommender.request CASCADE")
    for name in (listener, "other"):
        add_feedback(connection, [said(name, Event.PLAYED, "s1"), said(name, Event.NEVER_AGAIN, artist_id="a")])
        add_request(connection, "p", {"listener": name}, idempotency_key=name)
    assert connection.execute(f"SELECT recommender.forget({called})").fetchone() == (3,)
    everything = (
        "SELECT (SELECT array_agg(DISTINCT listener) FROM recommender.feedback), "
        "(SELECT array_agg(options ->> 'listener') FROM recommender.request), "
        "(SELECT array_agg(idempotency_key) FROM recommender.idempotency)"
    )
    assert connection.execute(everything).fetchone() == (["other"], ["other"], ["other"])


# --- the page of the database ------------------------------------------------------------------------------------------------


def blocks_of(section: str) -> list[str]:
    """The SQL of one section of docs/database.md."""
    page = (PROJECT_ROOT / "docs" / "database.md").read_text(encoding="utf-8")
    text = re.split(r"^##+ ", page.partition(f"# {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```sql\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_documented_ways_to_report_work(answered):
    connection, _ = answered
    calls, trigger = blocks_of("Feedback")
    connection.execute(as_statement(calls))
    connection.execute("CREATE TABLE play_log (user_id int, track_id bigint, played_at timestamptz)")
    connection.execute(as_statement(trigger))
    connection.execute("INSERT INTO play_log VALUES (7, 42, now()), (NULL, 42, now())")  # the second one is a warning
    assert [song_id for _, _, song_id in stored(connection)] == ["17", "17", "17", None, "42"]
    assert connection.execute("SELECT count(*) FROM play_log").fetchone() == (2,)


def test_the_documented_ways_to_deploy_and_to_read_figures_work(connection):
    for model_id in ("20260102-030405-seed0/epoch-007/0123456789ab", "a model", "another one"):
        register_model(connection, Model(model_id=model_id, path="p", encoders_digest="e", snapshot_digest="s"))
    deploying, figures = blocks_of("Models")
    connection.execute(as_statement(deploying))
    assert connection.execute(as_statement(figures)).fetchall() == []
    assert current_deployment(connection).model_id == "20260102-030405-seed0/epoch-007/0123456789ab"
    connection.execute(as_statement(blocks_of("Keeping and forgetting")[0]))


def test_plays_of_the_feedback_become_sessions_in_the_documented_way(connection, tmp_path):
    [union] = blocks_of("Our own echo")
    for path in SHIPPED.glob("s*.sql"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace("FROM music.listen\n", union), encoding="utf-8")
    connection.execute(LISTENS)
    add_feedback(
        connection,
        [
            said("k", Event.PLAYED, "s1", happened_at=days_ago(0.5), is_recommended=True),
            said("k", Event.SKIPPED, "s2", happened_at=days_ago(0.5) + timedelta(minutes=3)),
            said("k", Event.PLAYED, "unknown", happened_at=days_ago(0.5) + timedelta(minutes=6)),
        ],
    )
    check_contract(connection, tmp_path)
    sessions = as_statement((tmp_path / "sequences.sql").read_text(encoding="utf-8"))
    of_k = f"SELECT sequence_id, song_id, skipped, is_recommended FROM ({sessions}) AS played WHERE sequence_id LIKE 'listen:k:%'"
    assert connection.execute(of_k).fetchall() == [
        ("listen:k:0", "s3", None, None),
        ("listen:k:1", "s1", False, True),  # what was skipped is in no session
    ]
    assert sequence_by_id(connection, tmp_path, "listen:k:1") == ["s1"]


def test_what_the_own_plays_say_was_skipped_counts_as_skipped_and_not_as_played(connection):
    brought = "INSERT INTO music.song (song_id) VALUES ('s1'), ('s2'), ('s3')"
    connection.execute(brought)
    connection.execute(
        "INSERT INTO music.listen (user_id, song_id, listened_at, skipped) VALUES "
        "('k', 's1', now() - INTERVAL '1 day', TRUE), ('k', 's2', now() - INTERVAL '1 day', NULL), "
        "('k', 's3', now() - INTERVAL '40 days', TRUE)"
    )
    wanted = [TasteWanted(listener="k", skipped_days=30, played_days=7), TasteWanted(listener="k", skipped_days=0, played_days=7)]
    first, second = tastes_of(connection, SHIPPED, wanted)
    assert (first.skipped, first.played) == ({"s1"}, {"s2"})
    assert (second.skipped, second.played) == (set(), {"s2"})


def test_a_file_of_plays_without_the_word_skipped_is_not_asked_for_skips(connection, tmp_path):
    (tmp_path / "plays_by_listener.sql").write_text("SELECT song_id, listened_at FROM nowhere")
    [taste] = tastes_of(connection, tmp_path, [TasteWanted(listener="k", skipped_days=30)])
    assert taste == Taste()
