"""The guided tour: it runs from top to bottom as it is committed, and shows what it promises."""

import csv
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from traitlets import default

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "demo.ipynb"
SEQUENCE = ROOT / "demo data" / "sequence.csv"
MARKDOWN, HTML, PICTURE = "text/markdown", "text/html", "image/png"


class ThisInterpreter(KernelSpecManager):
    """Every kernel is the Python that runs the tests, whatever `python3` means elsewhere on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


class KernelOfThisInterpreter(AsyncKernelManager):
    @default("kernel_spec_manager")
    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return ThisInterpreter()


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after a run of its own, in the project's root; an error in a cell fails every test that asks."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    home = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as environment:
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):  # nobody's start-up scripts, nothing in anybody's home
            environment.setenv(name, str(home / name.lower()))
        NotebookClient(
            notebook,
            kernel_manager_class=KernelOfThisInterpreter,
            resources={"metadata": {"path": str(ROOT)}},
            timeout=600,
            coalesce_streams=True,
        ).execute()
    return notebook


def outputs(notebook, cell_id):
    return next(cell.outputs for cell in notebook.cells if cell.id == cell_id)


def shown(notebook, cell_id, kind):
    """What a cell displays in one format, in order."""
    return [output.data[kind] for output in outputs(notebook, cell_id) if kind in output.get("data", {})]


def printed(notebook, name):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return "".join(output.text for cell in cells for output in cell.outputs if output.get("name") == name)


def column_of_markdown(table, title):
    """A column of figures in a Markdown table, by the name of each row."""
    lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    at = lines[0].index(title)
    return {line[0]: float(line[at]) for line in lines[2:]}


def rows_of_html(frame):
    """The rows of a pandas table, its index under the name ""."""
    table = ElementTree.fromstring(frame[frame.index("<table") : frame.index("</table>") + len("</table>")])
    head, *body = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
    return [dict(zip(head, row, strict=True)) for row in body]


@pytest.mark.slow
def test_every_cell_runs_without_error_or_warning(tour):
    kinds = {output.output_type for cell in tour.cells if cell.cell_type == "code" for output in cell.outputs}
    assert kinds == {"stream", "display_data", "execute_result"}
    assert "Warning" not in printed(tour, "stderr")


@pytest.mark.slow
def test_the_model_is_above_every_single_baseline(tour):
    ndcg = column_of_markdown(shown(tour, "evaluate", MARKDOWN)[0], "NDCG@10")
    assert ndcg["BERT4Rec"] > max(ndcg[name] for name in ("popularity", "Markov", "item kNN", "co-occurrence"))


@pytest.mark.slow
def test_ten_songs_are_recommended_none_of_them_from_the_playlist(tour):
    playlist, continuation = map(rows_of_html, shown(tour, "continue", HTML))
    with SEQUENCE.open(encoding="utf-8", newline="") as file:
        listed = [row["song_id"] for row in csv.DictReader(file)]
    assert [row["song_id"] for row in playlist] == listed
    assert [row[""] for row in continuation] == [f"+{rank}" for rank in range(1, 11)]
    assert len({row["song_id"] for row in continuation} - set(listed)) == 10


@pytest.mark.slow
def test_every_recommended_song_has_a_name_and_a_reason(tour):
    continuation = rows_of_html(shown(tour, "continue", HTML)[1])
    assert [row for row in continuation if not (row["title"] and row["artist"] and row["strongest reason"])] == []


@pytest.mark.slow
def test_every_plot_is_there(tour):
    plots = {cell.id: len(shown(tour, cell.id, PICTURE)) for cell in tour.cells if "plt.show()" in cell.source}
    assert plots == dict.fromkeys(["look-shape", "look-coverage", "history", "why", "sound"], 1)


@pytest.mark.slow
def test_the_last_cell_leaves_the_server(tour):
    said = outputs(tour, "end")[0].text
    assert said.startswith(("the embedded server has stopped", "this tour has left the embedded server"))


def test_the_committed_outputs_are_small_and_name_no_folder_of_a_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert [folder for folder in (str(ROOT), "/home/", "/root/", "/tmp/", "/Users/") if folder in text] == []
