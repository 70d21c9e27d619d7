"""What runs the service: the image, compose.yaml, gunicorn, and the tables of docs/service.md.

No container engine is needed.  Docker Compose's own program judges compose.yaml and hadolint the Dockerfile; the files that the
image would hold are laid into a folder, and every command of both files is run there.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import wsgi
from config import PROJECT_ROOT, Config, DatabaseConfig, ServiceConfig
from docs import make_service_tables
from flask_app import service_of
from settings import load_config
from storage.connections import connect
from storage.migrate import migrate
from storage.places import find_place
from storage.requests import request_state
from tests.jobs.world import add_playlist, ask, is_over, songs_of, state_of, wait_until
from tests.places import SERVER
from tests.serving.small import SONGS, small_run
from tests.test_layers import ROOMS, files_of

DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((PROJECT_ROOT / "compose.yaml").read_text(encoding="utf-8"))
PAGE = make_service_tables.PAGE.read_text(encoding="utf-8")
PASSWORDS = {"POSTGRES_PASSWORD": "owner's", "RECOMMENDER_PASSWORD": "it's 100% \\secret"}
ONE_SHOTS = {"migrate", "rights", "train"}


def program(name):
    """A program that requirements-dev.txt brings; not on every kind of machine."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None and "CI" in os.environ:
        pytest.fail(f"{name} is missing: pip install -r requirements-dev.txt")
    if found is None:
        pytest.skip(f"needs {name}, which has no wheel for this machine")
    return found


def postgres_program(name):
    """One of PostgreSQL's programs, out of the embedded server's wheel."""
    installation: Path = find_place(SERVER).installation
    return str(installation / "bin" / name)


# --- the image ---------------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of each line of the Dockerfile, comments left out and continued lines joined."""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#")).replace("\\\n", "").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def told(instruction):
    return [rest for name, rest in instructions() if name == instruction]


def image_environment():
    """The variables that the image sets."""
    return dict(pair.split("=", 1) for rest in told("ENV") for pair in rest.split())


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a file into the image: the last line that fits it, or a folder above it, decides."""
    lines = (PROJECT_ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    parts = path.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    sent = True
    for line in (line for line in lines if line and not line.startswith("#")):
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, name) for name in above):
            sent = line.startswith("!")
    return sent


def files_of_the_project() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    if listed.returncode:  # a copy without git
        return [str(path.relative_to(PROJECT_ROOT)) for path in PROJECT_ROOT.rglob("*") if path.is_file()]
    return [name for name in listed.stdout.splitlines() if (PROJECT_ROOT / name).is_file()]


@pytest.fixture(scope="session")
def image(tmp_path_factory) -> Path:
    """A folder with the files that the image would hold below /app."""
    folder: Path = tmp_path_factory.mktemp("image") / "app"
    for name in filter(is_sent, files_of_the_project()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT_ROOT / name, folder / name)
    return folder


def run_in(image, command, **environment):
    """Run a command of the image as its user would, with nothing of this machine's settings in the environment."""
    kept = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable if word == "python" else word for word in command]
    return subprocess.run(words, cwd=image, env={**kept, **environment}, capture_output=True, text=True)


def test_the_image_holds_the_code_and_all_that_it_reads(image):
    code = {str(path.relative_to(PROJECT_ROOT)) for room in ROOMS for path in files_of(room)}
    files = [*(PROJECT_ROOT / "storage").rglob("*.sql"), *(PROJECT_ROOT / "web").glob("[st]*/*")]
    read = {str(path.relative_to(PROJECT_ROOT)) for path in files}
    there = {str(path.relative_to(image)) for path in image.rglob("*") if path.is_file()}
    assert there == code | read | {"requirements.txt", "LICENSE"}


@pytest.mark.parametrize(
    "name",
    [
        *(".env", ".git/config", ".venv/bin/python", ".local/postgres/password", ".dockerignore", "compose.yaml"),
        *(
            "bert4musicrec.toml",
            "models/run/weights.safetensors",
            "preprocessing encoders/songs.joblib",
            "demo data/songs.csv.gz",
        ),
        *("dump.sql", "mapping/songs.sql", "tests/conftest.py", "storage/__pycache__/source.cpython-311.pyc"),
    ],
)
def test_the_image_holds_nothing_of_anybody(name):
    assert not is_sent(name)


def test_the_sources_of_the_image_exist_and_are_sent():
    assert told("COPY") == ["requirements.txt ./", ". ./"]
    assert is_sent("requirements.txt")


def test_a_change_of_the_code_installs_nothing_again():
    steps = [f"{name} {rest}" for name, rest in instructions() if name in ("COPY", "RUN")]
    installing = next(number for number, step in enumerate(steps) if step.startswith("RUN pip install"))
    assert installing < steps.index("COPY . ./")
    assert steps[installing].endswith("-r requirements.txt")


def test_the_service_of_the_image_is_not_root_and_listens_where_the_docs_say():
    settings = load_config(environ={name: value for name, value in image_environment().items() if name.startswith("BERT4")})
    assert (settings.service.host, [str(settings.service.port)]) == ("0.0.0.0", told("EXPOSE"))
    assert told("USER") == ["10001:10001"]
    assert told("STOPSIGNAL") == ["SIGTERM"]


def test_the_volumes_of_the_image_are_the_folders_of_its_settings_and_belong_to_its_user():
    settings = load_config(environ={name: value for name, value in image_environment().items() if name.startswith("BERT4")})
    folders = [settings.training.model_folder, settings.preprocessing.encoders_folder, settings.preprocessing.snapshot]
    assert json.loads(told("VOLUME")[0]) == [str(folder) for folder in folders]
    assert f"--owner recommender --group recommender {' '.join(map(str, folders))}" in " ".join(told("RUN"))


def test_hadolint_has_nothing_to_say():
    judged = subprocess.run([program("hadolint"), "--no-color", "Dockerfile"], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert (judged.stdout, judged.returncode) == ("", 0)


# --- compose.yaml ------------------------------------------------------------------------------------------------------------


def composed(**environment):
    """What Docker Compose makes of the file; it asks no engine for that."""
    return subprocess.run(
        [program("docker-compose"), "--profile", "*", "config", "--format", "json"],
        cwd=PROJECT_ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
    )


def services():
    return COMPOSE["services"]


def environment_of(service):
    """The variables of one service, with the passwords filled in and the database where it is."""
    filled = json.loads(composed(**PASSWORDS).stdout)["services"][service]["environment"]
    return {name: value.replace("$$", "$") for name, value in filled.items()}


def test_docker_compose_takes_the_file():
    judged = composed(**PASSWORDS)
    assert (judged.stderr, judged.returncode) == ("", 0)
    assert set(json.loads(judged.stdout)["services"]) == set(services())


@pytest.mark.parametrize("missing", sorted(PASSWORDS))
def test_without_a_password_nothing_starts(missing):
    judged = composed(**{name: value for name, value in PASSWORDS.items() if name != missing})
    assert judged.returncode != 0
    assert f"required variable {missing} is missing a value" in judged.stderr


def test_no_secret_stands_in_the_file():
    secrets = {
        (name, variable, value)
        for name, service in services().items()
        for variable, value in service.get("environment", {}).items()
        if re.search("PASSWORD|KEY|URL", variable) and not re.fullmatch(r"\$\{[A-Z0-9_]+:(\?[^}]+|-)\}", value)
    }
    assert secrets == set()


def test_what_runs_on_is_watched_bounded_and_started_again():
    on = {name: service for name, service in services().items() if name not in ONE_SHOTS}
    assert set(on) == {"db", "service", "worker"}
    for service in on.values():
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert {"mem_limit", "stop_grace_period", "logging"} <= set(service)


def test_what_runs_once_is_not_started_again_and_has_no_health():
    for name in ONE_SHOTS:
        assert (services()[name]["restart"], services()[name]["healthcheck"]) == ("no", {"disable": True})


def test_the_order_of_the_start_is_database_schemas_rights_service():
    waits = {
        name: {other: condition["condition"] for other, condition in service["depends_on"].items()}
        for name, service in services().items()
        if "depends_on" in service
    }
    ready = {"db": "service_healthy", "rights": "service_completed_successfully"}
    assert waits == {
        "migrate": {"db": "service_healthy"},
        "rights": {"migrate": "service_completed_successfully"},
        **dict.fromkeys(("service", "worker", "train"), ready),
    }


def test_our_containers_can_change_nothing_but_their_volumes():
    ours = {name: service for name, service in services().items() if service["image"].startswith("bert4musicrec")}
    assert set(ours) == {"migrate", "service", "worker", "train"}
    for service in ours.values():
        assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    for name in ("service", "worker"):
        assert all(volume.endswith(":ro") for volume in ours[name]["volumes"])


def test_only_the_service_is_published_and_on_loopback():
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published == {"service": [f"${{LISTEN:-127.0.0.1:{ServiceConfig().port}}}:{ServiceConfig().port}"]}
    assert {name for name, service in services().items() if "front" in service["networks"]} == {"service"}
    assert COMPOSE["networks"]["data"] == {"internal": True}


def test_volumes_are_mounted_where_the_image_has_its_folders():
    mounted = {
        mount.split(":")[1]
        for name in ("service", "worker", "train")
        for mount in services()[name]["volumes"]
        if not mount.startswith("database:")
    }
    assert mounted == set(json.loads(told("VOLUME")[0]))


@pytest.mark.parametrize(
    ("service", "role"),
    [
        ("migrate", "postgres"),
        ("service", "recommender_service"),
        ("worker", "recommender_service"),
        ("train", "recommender_service"),
    ],
)
def test_the_variables_of_a_service_are_settings_and_name_the_database(service, role):
    address = conninfo_to_dict(load_config(environ=environment_of(service)).database.url or "")
    password = PASSWORDS["POSTGRES_PASSWORD" if role == "postgres" else "RECOMMENDER_PASSWORD"]
    assert address == {"host": "db", "dbname": "music", "user": role, "password": password}


COMMANDS = {name: service["command"] for name, service in services().items() if service.get("command", [""])[0] == "python"}


# One process shows the help of all commands: each would load torch.
SHOW_HELP = """
import contextlib, json, runpy, sys
for words in json.loads(sys.argv[1]):
    sys.argv = [*words[1:], "--help"]
    print("---")
    with contextlib.suppress(SystemExit):
        runpy.run_path(words[1], run_name="__main__")
"""


def test_the_commands_of_the_services_have_their_options(image):
    assert set(COMMANDS) == {"migrate", "service", "worker", "train"}
    shown = run_in(image, ["python", "-c", f"import sys; sys.path.insert(0, '')\n{SHOW_HELP}", json.dumps([*COMMANDS.values()])])
    assert (shown.stderr, shown.returncode) == ("", 0)
    for command, help_text in zip(COMMANDS.values(), shown.stdout.split("---\n")[1:], strict=True):
        known = re.findall(r"--[\w-]+", help_text)
        assert "--help" in known
        assert {word for word in command if word.startswith("--")} - set(known) == set()


def address_in_variables(url, **more):
    """A database for libpq's own variables."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    parts = conninfo_to_dict(url)
    return {variable: str(parts[name]) for name, variable in names.items() if name in parts} | more


def test_the_migrating_command_works_with_the_files_of_the_image(image, empty_database_url):
    done = run_in(image, COMMANDS["migrate"], DATABASE_URL=empty_database_url)
    assert done.stdout.startswith("applied migrations 1, 2"), done.stderr


@pytest.fixture
def another_role(database_url):
    """The name of a role that does not exist yet and is gone at the end: recommender_service belongs to the whole server."""
    name = f"recommender_service_{os.getpid()}"
    yield name
    with connect(database_url) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_the_rights_are_granted_and_the_password_is_set_whatever_signs_it_has(database_url, another_role, tmp_path):
    setup, script = tmp_path / "setup.sql", services()["rights"]["command"][0]
    setup.write_text(
        (PROJECT_ROOT / "storage" / "setup.sql").read_text(encoding="utf-8").replace("recommender_service", another_role)
    )
    script = script.replace("/setup.sql", str(setup)).replace("recommender_service", another_role)
    folder = str(Path(postgres_program("psql")).parent)
    secret = PASSWORDS["RECOMMENDER_PASSWORD"]
    variables = address_in_variables(database_url, PATH=f"{folder}:/usr/bin:/bin", RECOMMENDER_PASSWORD=secret)
    for _ in range(2):  # as at each start
        done = subprocess.run([*services()["rights"]["entrypoint"], script], env=variables, capture_output=True, text=True)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    service = {**conninfo_to_dict(database_url), "user": another_role, "password": secret}
    with psycopg.connect(**service) as connection:
        assert connection.execute("SELECT count(*) FROM recommender.request").fetchone() == (0,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(**{**service, "password": "another"})


def test_rights_that_cannot_be_granted_keep_the_service_from_starting(empty_database_url):
    script = services()["rights"]["command"][0].replace("/setup.sql", str(PROJECT_ROOT / "storage" / "setup.sql"))
    folder = str(Path(postgres_program("psql")).parent)
    variables = address_in_variables(empty_database_url, PATH=f"{folder}:/usr/bin:/bin", RECOMMENDER_PASSWORD="x")
    done = subprocess.run([*services()["rights"]["entrypoint"], script], env=variables, capture_output=True, text=True)
    assert done.returncode != 0
    assert 'schema "music" does not exist' in done.stderr


def test_the_health_of_the_database_is_asked_in_words_that_pg_isready_knows(server_url):
    _, name, *options = services()["db"]["healthcheck"]["test"]
    variables = address_in_variables(server_url)
    assert subprocess.run([postgres_program(name), *options], env=variables).returncode == 0
    assert subprocess.run([postgres_program(name), *options], env={**variables, "PGPORT": "1"}).returncode == 2


# --- backup ------------------------------------------------------------------------------------------------------------------


def commands_of_the_page(program_name):
    """The lines of docs/service.md that begin with a program's name."""
    return [line for line in PAGE.splitlines() if line.startswith(f"{program_name} ")]


def test_the_backup_of_the_page_restores_into_an_empty_database(database_url, empty_database_url, tmp_path):
    add_playlist(database_url, "p", ["s03", "s00"])
    request = ask(database_url, "p", count=3)
    path = {"PATH": f"{Path(postgres_program('psql')).parent}:/usr/bin:/bin"}
    for program_name, url in (("pg_dump", database_url), ("pg_restore", empty_database_url)):
        for command in commands_of_the_page(program_name):
            words = ["sh", "-euc", command]
            done = subprocess.run(words, cwd=tmp_path, env={**path, "DATABASE_URL": url}, capture_output=True, text=True)
            assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    with connect(empty_database_url) as connection:
        assert migrate(connection) == []
        assert request_state(connection, request).playlist_id == "p"
    assert ask(empty_database_url, "another") == request + 1


# --- gunicorn ----------------------------------------------------------------------------------------------------------------


def environment_for(url, run, **settings):
    names = {f"BERT4MUSICREC_{name.upper()}": str(value) for name, value in {"model": run, "port": 0, **settings}.items()}
    return {**os.environ, "DATABASE_URL": url, **names}


@contextmanager
def gunicorn(environment, *options) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A gunicorn as the docs start it, and its address; killed at the end if it still runs."""
    command = [sys.executable, "-m", "gunicorn", "--log-level", "info", *options, "wsgi:application()"]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, text=True, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            before = []
            for line in process.stderr:
                before.append(line)
                if found := re.search(r"Listening at: (http://\S+)", line):
                    break
            else:
                pytest.fail("".join(before))
            yield process, found.group(1)
        finally:
            process.kill()


def post(address, body):
    request = urllib.request.Request(f"{address}/recommend", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.status, json.load(response)


def stopped(process):
    """What a process said until it ended by SIGTERM, and its exit code."""
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said


@pytest.fixture
def run_folder(tmp_path):
    return small_run(tmp_path / "models" / "run")


@pytest.mark.slow
def test_gunicorn_answers_works_on_the_table_is_well_and_stops_at_a_signal(database_url, run_folder, image):
    add_playlist(database_url, "p", ["s03", "s00"])
    environment = environment_for(database_url, run_folder)
    with gunicorn(environment) as (process, address):
        sequence = post(address, {"songs": ["s03", "s00"]})  # waits in the backlog until the model is loaded
        playlist = post(address, {"playlist_id": "p", "wait": True})
        asked_of = {**environment, "BERT4MUSICREC_PORT": address.rpartition(":")[2]}
        checks = [json.loads(told("HEALTHCHECK")[0].partition(" CMD ")[2]), services()["service"]["healthcheck"]["test"][1:]]
        checks += [[*checks[0], "--ready"], services()["worker"]["healthcheck"]["test"][1:]]
        healthy = [run_in(image, check, **asked_of) for check in checks]
        code, said = stopped(process)
        gone = [run_in(image, check, **asked_of) for check in checks]
    assert (code, sequence[0], playlist[0]) == (0, 200, 200), said
    assert [song["song_id"] for song in sequence[1]["songs"]] == [song["song_id"] for song in playlist[1]["songs"]]
    assert [(check.returncode, check.stderr) for check in healthy] == [(0, "")] * 4
    assert [check.returncode for check in gone] == [1] * 4
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_stopping_process_lets_go_whoever_waits_and_leaves_the_table_alone_when_told_to(database_url, run_folder):
    add_playlist(database_url, "p", ["s03", "s00"])
    with gunicorn(environment_for(database_url, run_folder, worker="false", wait_seconds=600)) as (process, address):
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(post(address, {"playlist_id": "p", "wait": True})))
        waiting.start()
        wait_until(lambda: process.poll() is not None or is_asked(database_url))
        code, said = stopped(process)
        waiting.join()
    assert (code, answers) == (0, [(202, {"playlist_id": "p", "status": "accepted", "request_id": 1})]), said
    assert state_of(database_url, 1).state.value == "queued"


def is_asked(url):
    with connect(url) as connection:
        return connection.execute("SELECT FROM recommender.request").fetchone() is not None


@pytest.mark.slow
def test_each_process_has_a_worker_of_its_own_and_every_request_is_answered_once(database_url, run_folder):
    add_playlist(database_url, "p", ["s03", "s00"])
    add_playlist(database_url, "all", SONGS)
    requests = [ask(database_url, "p", count=count) for count in range(1, 8)]
    with gunicorn(environment_for(database_url, run_folder), "--workers", "2") as (process, _):
        wait_until(lambda: all(is_over(database_url, request) for request in requests))
        wait_until(lambda: n_sessions(database_url) == 6)  # each worker works on one and listens on another; the follower asks
        code, said = stopped(process)
    assert code == 0, said
    assert [len(songs_of(database_url, request)) for request in requests] == list(range(1, 8))
    assert said.count("answered a playlist with") == len(requests)


def n_sessions(url):
    with connect(url) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return connection.execute(query).fetchall()[0][0]


@pytest.mark.parametrize(
    ("settings", "options", "line"),
    [
        ({}, ["--bind", "0.0.0.0:0"], "error: gunicorn is to listen on 0.0.0.0:0, the settings say 127.0.0.1:0: set "),
        ({"port": -1}, [], "error: port must be between 0 and 65535 (got -1)"),
        ({}, [], "error: no trained model in nowhere: "),
    ],
)
def test_what_keeps_gunicorn_from_starting_is_one_line(settings, options, line):
    environment = environment_for("postgresql://nobody@127.0.0.1:1/nothing", "nowhere", **settings)
    command = [sys.executable, "-m", "gunicorn", *options, "wsgi:application()"]
    ended = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert [said[: len(line)] for said in ended.stderr.splitlines() if said.startswith("error: ")] == [line]
    assert "Traceback" not in ended.stderr


def test_what_an_application_opened_is_closed_with_it(database_url, run_folder):
    config = Config(service=ServiceConfig(model=run_folder), database=DatabaseConfig(url=database_url))
    app = wsgi.opened(config)
    service = service_of(app)
    wait_until(lambda: service.worker_state() == "running")
    for _ in range(2):
        app.extensions[wsgi.EXTENSION].close()
        assert service.worker_state() == "ended"
    assert n_sessions(database_url) == 0


def test_the_name_that_gunicorn_looks_for_is_that_of_wsgi():
    assert f'_PROCESS = "{wsgi.EXTENSION}"' in (PROJECT_ROOT / "gunicorn.conf.py").read_text(encoding="utf-8")


# --- docs/service.md ---------------------------------------------------------------------------------------------------------


def test_the_tables_of_the_page_are_what_the_code_says():
    assert make_service_tables.page(PAGE) == PAGE, "run: python -m docs.make_service_tables"


def test_a_page_without_a_place_for_a_table_is_refused():
    with pytest.raises(ValueError, match="has no place for 'controls'"):
        make_service_tables.page("# The service\n")
