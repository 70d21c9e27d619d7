import pytest

from errors import ConfigError
from settings import load_config
from storage.mapping.files import mapped_files, recommender_migrations, write_files
from storage.mapping.guess import map_tables
from storage.tables import Kind
from tests.storage.mapping.tables import column, junction, playlists, plays, songs, table

ROWS = junction("playlist_songs", column("order", Kind.WHOLE), leads_index=frozenset({"playlist_id"}))
ARTISTS = table("artists", column("id", Kind.WHOLE), column("name"))
SONGS = songs("songs", column("artist_id", Kind.WHOLE), column("lyrics"), references=(("artist_id", "artists"),))


def files_of(*tables, role="recommender_service", folder=None, zone="UTC"):
    return mapped_files(map_tables(tables, zone=zone), role=role, folder=folder)


def sql_of(text):
    """A file without its comments."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


def test_the_queries_of_playlists(tmp_path):
    files = files_of(SONGS, ARTISTS, playlists(), ROWS, folder=tmp_path)
    assert sql_of(files["songs_by_id.sql"]) == (
        "SELECT\n    song.id AS song_id,\n    song.artist_id,\n    song.title,\n    artist.name AS artist_name\n"
        "FROM public.songs AS song\nLEFT JOIN public.artists AS artist ON artist.id = song.artist_id\n"
        "WHERE song.id = ANY(%(song_ids)s::bigint[]);"
    )
    assert sql_of(files["sequences.sql"]) == (
        'SELECT\n    item.playlist_id AS sequence_id,\n    item.song_id,\n    item."order" AS position\n'
        'FROM public.playlist_songs AS item\nORDER BY item.playlist_id, item."order", item.song_id;'
    )
    assert sql_of(files["sequence_by_id.sql"]) == (
        "SELECT item.song_id AS song_id\nFROM public.playlist_songs AS item\n"
        'WHERE item.playlist_id = %(sequence_id)s::bigint\nORDER BY item."order", item.song_id;'
    )


def test_playlists_with_names_can_be_listed(tmp_path):
    made = playlists("playlists", column("created_at", Kind.ZONED_TIME))
    assert sql_of(files_of(SONGS, ARTISTS, made, ROWS, folder=tmp_path)["playlists.sql"]) == (
        "SELECT\n    playlist.id AS playlist_id,\n    playlist.name AS name,\n"
        "    (SELECT count(*) FROM public.playlist_songs AS item WHERE item.playlist_id = playlist.id) AS n_songs\n"
        "FROM public.playlists AS playlist\nWHERE playlist.id::text = %(q)s::text OR NOT EXISTS (\n"
        "    SELECT FROM regexp_split_to_table(btrim(lower(%(q)s::text)), '\\s+') AS word\n"
        "    WHERE strpos(lower(COALESCE(playlist.name, '')), word) = 0\n)\n"
        "ORDER BY playlist.id::text = %(q)s::text DESC, playlist.created_at DESC NULLS LAST, playlist.id DESC\n"
        "LIMIT %(count)s::integer;"
    )


@pytest.mark.parametrize("lists", [[table("playlists", column("id", Kind.WHOLE))], []], ids=["no name", "no table"])
def test_playlists_without_names_cannot(tmp_path, lists):
    assert "playlists.sql" not in files_of(SONGS, ARTISTS, *lists, ROWS, folder=tmp_path)


def test_the_plays_of_a_listener_are_looked_for_in_a_play_log_only(tmp_path):
    log = plays(time=Kind.NAIVE_TIME, leads_index=frozenset({"user_id"}))
    assert sql_of(files_of(songs(), log, folder=tmp_path)["plays_by_listener.sql"]) == (
        "SELECT\n    item.song_id,\n    item.played_at AT TIME ZONE 'UTC' AS listened_at\nFROM public.plays AS item\n"
        "WHERE item.user_id = %(listener)s::bigint\n    AND item.played_at AT TIME ZONE 'UTC' >= %(since)s::timestamptz;"
    )
    assert "plays_by_listener.sql" not in files_of(songs(), playlists(), ROWS, folder=tmp_path)


def test_the_service_may_read_what_the_queries_read_and_no_other_column(tmp_path):
    setup = files_of(SONGS, ARTISTS, playlists(), ROWS, folder=tmp_path)["setup.sql"]
    granted = [line for line in setup.splitlines() if "public" in line and line.startswith("GRANT")]
    assert granted == [
        "GRANT USAGE ON SCHEMA public TO recommender_service;",
        "GRANT SELECT (id, name) ON public.artists TO recommender_service;",
        'GRANT SELECT (playlist_id, song_id, "order") ON public.playlist_songs TO recommender_service;',
        "GRANT SELECT (id, name) ON public.playlists TO recommender_service;",
        "GRANT SELECT (id, title, artist_id) ON public.songs TO recommender_service;",
    ]


def test_the_schema_music_is_neither_made_nor_granted_nor_dropped(tmp_path):
    files = files_of(SONGS, ARTISTS, playlists(), ROWS, folder=tmp_path)
    assert "SCHEMA music" not in files["setup.sql"]
    assert "music" not in sql_of(files["uninstall.sql"])
    assert recommender_migrations()[0].name == "0002_recommender.sql"


def test_a_role_with_a_name_of_its_own_is_named_everywhere(tmp_path):
    files = files_of(SONGS, ARTISTS, playlists(), ROWS, folder=tmp_path, role="My Role")
    assert "recommender_service" not in files["setup.sql"] + files["uninstall.sql"]
    assert 'CREATE ROLE "My Role" LOGIN' in files["setup.sql"]
    assert "rolname = 'My Role'" in files["uninstall.sql"]


def test_a_table_with_row_level_security_gets_a_policy_that_uninstall_drops(tmp_path):
    rows = junction("playlist_songs", column("position", Kind.WHOLE), has_row_security=True)
    files = files_of(songs(), playlists(), rows, folder=tmp_path)
    policy = "CREATE POLICY recommender_service_reads ON public.playlist_songs FOR SELECT TO recommender_service USING (true);"
    assert policy in files["setup.sql"]
    assert "DROP POLICY IF EXISTS recommender_service_reads ON public.playlist_songs;" in files["uninstall.sql"]


def test_a_percent_sign_in_a_name_stands_twice_where_there_is_a_parameter(tmp_path):
    rows = junction("100% songs", column("position", Kind.WHOLE))
    files = files_of(songs(), playlists(), rows, folder=tmp_path)
    assert 'FROM public."100% songs" AS item' in files["sequences.sql"]
    assert 'FROM public."100%% songs" AS item' in files["sequence_by_id.sql"]


def test_a_zone_is_part_of_the_query_and_of_its_comment(tmp_path):
    log = plays(time=Kind.NAIVE_TIME, leads_index=frozenset({"user_id"}))
    text = files_of(songs(), log, folder=tmp_path, zone="Europe/Vienna")["sequences.sql"]
    assert "item.played_at AT TIME ZONE 'Europe/Vienna' AS listened_at" in text
    assert "-- NOTE: public.plays.played_at has no zone and is read as Europe/Vienna: --time-zone says otherwise\n" in text


def test_a_line_break_in_a_name_does_not_end_a_comment(tmp_path):
    odd = songs("songs\nDROP TABLE songs;")
    rows = junction(songs=odd.name)
    comments = [line for line in files_of(odd, playlists(), rows, folder=tmp_path)["songs.sql"].splitlines() if "points" in line]
    assert comments[0].startswith("-- public.songs DROP TABLE songs; was taken for the songs")


def test_the_settings_lead_to_the_queries(tmp_path):
    folder = tmp_path / 'a "folder"'
    write_files(folder, files_of(songs(), playlists(), ROWS, folder=folder))
    assert load_config(file=folder / "bert4musicrec.toml", environ={}).database.queries_folder == folder


def test_files_that_are_there_are_kept_unless_forced(tmp_path):
    (tmp_path / "songs.sql").write_text("mine")
    with pytest.raises(
        ConfigError, match=r"songs.sql is there already: name another folder with --out, or replace it with --force"
    ):
        write_files(tmp_path, {"new.sql": "", "songs.sql": "theirs"})
    assert [path.name for path in tmp_path.iterdir()] == ["songs.sql"]
    write_files(tmp_path, {"songs.sql": "theirs"}, force=True)
    assert (tmp_path / "songs.sql").read_text() == "theirs"


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_files(tmp_path / "file" / "below", {"songs.sql": ""})
