"""The prose against the code: defaults, commands, links, requirements, and the example of docs/database.md."""

import fnmatch
import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree

import pytest

import cli
import flask_app
import health
import preprocessing
import train
from config import FIELDS, PROJECT_ROOT, SECTIONS, Config
from docs import make_settings
from docs.make_picture import Line, draw
from storage.named import as_statement
from storage.requests import recommendations_of, request_state
from storage.source import check_contract, sequence_by_id, songs_by_id

PAGES = [PROJECT_ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "demo data/README.md")] + [
    *sorted((PROJECT_ROOT / "docs").glob("*.md"))
]
README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
DATABASE_PAGE = (PROJECT_ROOT / "docs" / "database.md").read_text(encoding="utf-8")

MAINS = {
    "cli.py": cli.main,
    "train.py": train.main,
    "preprocessing.py": preprocessing.main,
    "flask_app.py": flask_app.main,
    "health.py": health.main,
}
TEXT_FILES = ("*.py", "*.sql", "*.md", "*.toml", "*.txt", "*.svg", "*.ipynb", "Makefile", "run")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|Users|root|work|opt)/\w|/tmp/venv")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands_of(page: Path) -> Iterator[list[str]]:
    """The words of each command of a page, without its comment; a line that ends with a backslash goes on."""
    for block in blocks(page.read_text(encoding="utf-8"), "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


COMMANDS = [words for page in PAGES for words in commands_of(page)]
# From the script on: cli.py and its sub-command, or one of the others.
CALLS = [words[place:] for words in COMMANDS for place, word in enumerate(words) if word in MAINS]


def table_rows(text: str) -> list[list[str]]:
    """The cells of all table rows of a text, header and rule included."""
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("|")]


# --- settings ----------------------------------------------------------------------------------------------------------------


def test_the_readme_gives_the_defaults_that_the_code_has():
    section = README.partition("## Settings")[2].partition("\n## ")[0]
    rows = [row for row in table_rows(section) if row[0].startswith("`")]
    told = {row[0].strip("`"): row[3].strip("`") for row in rows}
    assert told == {name: make_settings.shown(FIELDS[name][1].default) for name in told}
    assert len(told) == 16


def test_the_page_of_settings_is_what_config_says():
    assert (PROJECT_ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == make_settings.page(), (
        "run: python -m docs.make_settings"
    )


def test_the_page_of_settings_has_every_setting():
    told = {row[0].strip("`") for row in table_rows(make_settings.page()) if row[0].startswith("`")}
    assert told == {field.name for section in SECTIONS.values() for field in fields(section)}


# --- commands ----------------------------------------------------------------------------------------------------------------


def test_make_has_the_targets_of_the_docs():
    targets = re.findall(r"^([\w-]+):", (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = {words[1] for words in COMMANDS if words[0] == "make"}
    assert named >= {"demo", "test", "lint"}
    assert named - set(targets) == set()


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_command_of_the_docs_has_its_options(call, capsys):
    script, *arguments = call
    sub_command = arguments[:1] if script == "cli.py" else []
    with pytest.raises(SystemExit) as left:
        MAINS[script]([*sub_command, "--help"])
    known = re.findall(r"--[\w-]+", capsys.readouterr().out)
    assert left.value.code == 0
    assert {word for word in arguments if word.startswith("--")} - set(known) == set()


def test_the_files_and_modules_in_the_commands_exist():
    files = {word for words in COMMANDS for word in words if re.match(r"(storage|tests|demo data)/", word)}
    modules = {after for words in COMMANDS for word, after in itertools.pairwise(words) if word == "-m" and after != "pytest"}
    assert len(files) >= 3
    assert modules >= {"docs.make_picture"}
    named = [*files, *(f"{module.replace('.', '/')}.py" for module in modules)]
    assert [name for name in named if not (PROJECT_ROOT / name).exists()] == []


def test_the_addresses_of_the_docs_are_routes_of_the_service():
    addresses = {
        address
        for page in PAGES
        for address in re.findall(r"(?:127\.0\.0\.1:4517|\$URL)(/[^\s\"]+)", page.read_text(encoding="utf-8"))
    }
    routes = flask_app.create_app(Config()).url_map.bind("localhost")
    assert addresses >= {"/v1/recommend", "/v1/requests/1", "/v1/feedback", "/v1/models/rollback", "/healthz", "/readyz"}
    assert [address for address in addresses if not (routes.test(address, "GET") or routes.test(address, "POST"))] == []


# --- files -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.strip("<>").partition("#")[0] for target in re.findall(r"\]\((<[^>]+>|[^)\s]+)\)", text)]
    files = [target for target in targets if target and not target.startswith("http")]
    assert [file for file in files if not (page.parent / file).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s#]*)#([\w-]+)\)", re.sub(r"http\S+", "", text))
    for file, anchor in links:
        headings = re.findall(r"^#+ (.*)$", (page.parent / file).read_text(encoding="utf-8") if file else text, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def files_of_the_project() -> Iterator[Path]:
    """All text files but what .gitignore names, so that a copy without git is looked at in the same way."""
    ignored = [line.rstrip("/") for line in (PROJECT_ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()]
    folders = [PROJECT_ROOT]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            relative = path.relative_to(PROJECT_ROOT)
            if path.name == ".git" or any(
                fnmatch.fnmatch(name, pattern) for pattern in ignored for name in (path.name, str(relative))
            ):
                continue
            if path.is_dir():
                folders.append(path)
            elif any(fnmatch.fnmatch(path.name, pattern) for pattern in TEXT_FILES):
                yield path


def test_no_file_names_a_path_of_somebodys_machine():
    found = {
        f"{path.relative_to(PROJECT_ROOT)}: {match.group()}"
        for path in files_of_the_project()
        if path != Path(__file__)
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8"))
    }
    assert found == set()


def test_every_pinned_package_has_its_line_in_the_decisions():
    pinned = {
        line.partition("==")[0]
        for name in ("requirements.txt", "requirements-dev.txt", "requirements-audio.txt")
        for line in (PROJECT_ROOT / name).read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    decisions = (PROJECT_ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").partition("## Design")[0]
    assert {row[0].strip("`") for row in table_rows(decisions) if row[0].startswith("`")} == pinned


# --- the picture -------------------------------------------------------------------------------------------------------------


def test_the_picture_is_drawn_well_formed_whatever_the_titles_are():
    played = [Line(number="1", title="Rhythm & <Blues>", artist="Me")]
    recommended = [Line(number="+1", title="Next", artist="You", score="1.25", reason='because of "Rhythm & <Blues>"')]
    texts = [
        element.text for element in ElementTree.fromstring(draw(played, recommended)).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert texts[3:] == ["Me", "score", "reason", "+1", "Next", "You", "1.25", 'because of "Rhythm & <Blues>"', texts[-1]]
    assert texts[1:3] == ["1", "Rhythm & <Blues>"]


def test_the_picture_in_the_readme_continues_the_demo_sequence():
    picture = (PROJECT_ROOT / "docs" / "continued-playlist.svg").read_text(encoding="utf-8")
    texts = [element.text for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    first, *_ = (PROJECT_ROOT / "demo data" / "sequence.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert texts[1:4] == ["1", *first.split(",")[1:]]
    assert {f"+{rank}" for rank in range(1, 11)} <= set(texts)


# --- the example of somebody's own tables ------------------------------------------------------------------------------------


@pytest.fixture
def own_queries(connection, tmp_path):
    """The tables of docs/database.md with one mix of two tracks, and its query files in a folder."""
    section = DATABASE_PAGE.partition("## Your own tables")[2].partition("\n## ")[0]
    tables, *query_texts = blocks(section, "sql")
    connection.execute(as_statement(tables))
    connection.execute("INSERT INTO artist VALUES ('00000000-0000-0000-0000-00000000000a', 'A')")
    connection.execute(
        "INSERT INTO track VALUES (1, '00000000-0000-0000-0000-00000000000a', 'T', 120, 200), (2, NULL, NULL, NULL, NULL)"
    )
    connection.execute("INSERT INTO mix VALUES ('00000000-0000-0000-0000-00000000000b', now())")
    connection.execute("INSERT INTO mix_track SELECT id, place, 3 - place FROM mix, generate_series(1, 2) AS place")
    for name, text in zip(re.findall(r"^`(\w+\.sql)` ", section, re.MULTILINE), query_texts, strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_example_queries_keep_the_contract(connection, own_queries):
    columns = check_contract(connection, own_queries)
    assert (columns.songs["song_id"], columns.sequences["sequence_id"]) == ("int8", "uuid")
    assert sequence_by_id(connection, own_queries, "00000000-0000-0000-0000-00000000000b") == [2, 1]
    artist = UUID("00000000-0000-0000-0000-00000000000a")
    assert songs_by_id(connection, own_queries, [1]) == [
        {"song_id": 1, "artist_id": artist, "title": "T", "artist_name": "A", "tempo": 120.0, "duration_ms": 200_000}
    ]


def test_the_example_grants_let_an_application_ask(connection):
    connection.execute(as_statement((PROJECT_ROOT / "storage" / "setup.sql").read_text(encoding="utf-8")))
    grants, *_ = blocks(DATABASE_PAGE.partition("## Roles")[2], "sql")
    connection.execute("CREATE ROLE app_of_the_docs")  # gone with the transaction
    connection.execute(as_statement(grants.replace("TO app;", "TO app_of_the_docs;")))
    connection.execute("SET LOCAL ROLE app_of_the_docs")
    row = connection.execute("SELECT recommender.request('p0007')").fetchone()
    assert request_state(connection, row[0]).playlist_id == "p0007"
    assert recommendations_of(connection, row[0]) == []
