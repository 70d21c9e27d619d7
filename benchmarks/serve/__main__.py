"""The service under load, beside the handler that one would write first; everything in one run on one machine.

    python -m benchmarks.serve                                             (or: make bench-serve)
    python -m benchmarks.serve --only rate --seconds 3 --rounds 2          shorter, one part

Parts: `rate` (requests/s and p99 at 16 kept connections, in turn with `benchmarks.serve.naive`), `identical` (the quick index
against the exact one and against `torch.topk`), `single` (processor time of one request at a million songs), `memory`, `start`,
`swap` (another model comes into service under load).  The service is `python flask_app.py` on a database that holds all songs;
model and songs are made up (`benchmarks.untrained`).  The last line is one JSON object; with all parts it is stored.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chain import store
from benchmarks.serve.client import LoadPlan, Request
from benchmarks.serve.processes import (
    MB,
    Loaded,
    Server,
    cpu_seconds,
    end_on_sigterm,
    first_answer_seconds,
    machine_busy_seconds,
    naive,
    rest,
    run_load,
    service,
    service_in_two,
    usage,
)
from benchmarks.serve.records import Records
from benchmarks.serve.sameness import top10_identical
from benchmarks.serve.swap import TRIGGERS, swapping
from benchmarks.serve.world import CONNECTIONS, RECOMMEND, Plan, catalogue_database, plain_requests, run_of
from engine.checkpoint import CATALOGUE
from engine.description import WEIGHTS, read_description
from engine.runs import find_checkpoint
from errors import exit_code_of

PARTS = ("rate", "identical", "single", "memory", "start", "swap")
FIGURES = (
    "songs", "vs_naive_16", "p99_ms_16", "top10_identical", "single_cpu_ms_1m", "memory_ratio", "start_s", "swap_failed",
    "swap_max_ms",
)  # fmt: skip
WARM_SECONDS = 1.0
STARTS = 3
SMALL_SONGS = 1_000  # of the service whose memory is taken for that of the code
MEMORY_REQUESTS = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts and print their figures."""
    parser = argparse.ArgumentParser(description="The service under load, beside the handler that one would write first.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="run these parts")
    parser.add_argument("--songs", type=int, default=100_000, help="songs of the catalogue")
    parser.add_argument("--large-songs", type=int, default=1_000_000, help="songs of the catalogue for single and memory")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all parties in turn, of which the medians count")
    parser.add_argument("--swaps", type=int, default=5, help="models that come into service under load")
    parser.add_argument("--trigger", choices=sorted(TRIGGERS), default="newest", help="what makes the service swap")
    arguments = vars(parser.parse_args(argv))
    end_on_sigterm()
    parts, plan = arguments.pop("only"), Plan(**arguments)
    figures: dict[str, Any] = dict.fromkeys(FIGURES) | {"songs": plan.songs}
    for part in PARTS:
        if part in parts:
            told = MEASURES[part](plan)
            print(f"{part}: {told}", file=sys.stderr, flush=True)
            figures.update(told)
    if set(parts) == set(PARTS):
        store("serve", figures)
    print(json.dumps({name: figures[name] for name in FIGURES}))
    return 0


# --- requests a second -------------------------------------------------------------------------------------------------------


def rate(plan: Plan) -> dict[str, Any]:
    """Requests/s of the service over those of the better of two naive handlers: medians of rounds in which all take turns.

    The service has two processes, one on each core; beside it stands the same in one process, as `python flask_app.py` starts it.
    """
    run, requests = run_of(plan.songs), plain_requests(plan.songs)
    rates: dict[str, list[float]] = {}
    latencies: dict[str, list[Records]] = {}
    with catalogue_database(plan.songs) as database, ExitStack() as stack:
        servers = [
            stack.enter_context(service("--model", str(run), database=database)),
            stack.enter_context(service_in_two(run, database=database)),
            stack.enter_context(naive(run, torch_threads=1)),
            stack.enter_context(naive(run, torch_threads=None)),
        ]
        for server in servers:
            first_answer_seconds(server, RECOMMEND, requests[0].body)
        for server in servers:
            rest(server.pid)
        for number in range(plan.rounds):
            for server in servers if number % 2 == 0 else reversed(servers):
                per_s, records = one_round(server, requests, plan.seconds)
                rates.setdefault(server.name, []).append(per_s)
                latencies.setdefault(server.name, []).append(records)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, found in rates.items():
        p50, p99 = (all_of(latencies[name]).quantile_ms(share) for share in (0.5, 0.99))
        span = f"{min(found):.1f} to {max(found):.1f}"
        print(f"rate: {name} {medians[name]:.1f} requests/s ({span}), p50 {p50:.1f} ms, p99 {p99:.1f} ms", file=sys.stderr)
    best_naive = max(median for name, median in medians.items() if name.startswith("naive"))
    return {
        "vs_naive_16": round(medians["service-2"] / best_naive, 2),
        "p99_ms_16": round(all_of(latencies["service-2"]).quantile_ms(0.99), 1),
        "vs_naive_16_one_process": round(medians["service"] / best_naive, 2),
        "p99_ms_16_one_process": round(all_of(latencies["service"]).quantile_ms(0.99), 1),
        "requests_per_s": {name: round(median, 1) for name, median in medians.items()},
    }


def one_round(server: Server, requests: Sequence[Request], seconds: float) -> tuple[float, Records]:
    """Requests/s, and what was asked, of one server under a closed load; a wrong answer ends the benchmark."""
    busy, began, own = machine_busy_seconds(), time.monotonic(), cpu_seconds(server.pid)
    plan = LoadPlan(port=server.port, requests=requests, connections=CONNECTIONS, seconds=WARM_SECONDS + seconds)
    loaded = run_load(plan)
    wall, own = time.monotonic() - began, cpu_seconds(server.pid) - own
    others = (machine_busy_seconds() - busy - own) / wall - loaded.cpu_share
    begin, finish = loaded.began + WARM_SECONDS, loaded.began + WARM_SECONDS + seconds
    records = checked(loaded, server).due_within(begin, finish)
    per_s = loaded.records.answers_per_second(begin, finish)
    print(
        f"rate: {server.name} {per_s:.1f} requests/s, p99 {records.quantile_ms(0.99):.1f} ms; of a core it takes "
        f"{own / wall:.0%}, the client {loaded.cpu_share:.0%}, everything else {others:.0%}",
        file=sys.stderr,
        flush=True,
    )
    return per_s, records


def checked(loaded: Loaded, server: Server) -> Records:
    """The records of a load; a server that gives wrong answers is not measured any further."""
    if loaded.records.failed:
        raise ValueError(f"{server.name} failed {loaded.records.failed} requests: {list(loaded.samples)}")
    return loaded.records


def all_of(rounds: Sequence[Records]) -> Records:
    """The records of several rounds together."""
    return Records(np.concatenate([records.rows for records in rounds]))


# --- one request, memory, start ----------------------------------------------------------------------------------------------


def single(plan: Plan) -> dict[str, Any]:
    """Milliseconds of processor time that the whole service takes for a request, on one connection with a large catalogue.

    Whatever else the process does in that time is counted with it.
    """
    run, requests = run_of(plan.large_songs), plain_requests(plan.large_songs)
    with catalogue_database(plan.large_songs) as database, service("--model", str(run), database=database) as server:
        seconds = first_answer_seconds(server, RECOMMEND, requests[0].body)
        rest(server.pid)
        for _ in range(2):  # the first time warms up
            before = cpu_seconds(server.pid)
            loaded = run_load(LoadPlan(port=server.port, requests=requests, connections=1, seconds=plan.seconds))
            spent = cpu_seconds(server.pid) - before
    records = checked(loaded, server)
    print(
        f"single: {len(records)} requests at {plan.large_songs} songs, p50 {records.quantile_ms(0.5):.1f} ms, "
        f"p99 {records.quantile_ms(0.99):.1f} ms; the first answer came after {seconds:.1f} s",
        file=sys.stderr,
    )
    return {"single_cpu_ms_1m": round(1000 * spent / len(records), 2)}


def memory(plan: Plan) -> dict[str, Any]:
    """Resident memory that model and catalogue add to the service's process, over the bytes of the model and its index."""
    return {"memory_ratio": memory_ratio(plan.songs), "memory_ratio_1m": memory_ratio(plan.large_songs)}


def memory_ratio(n_songs: int) -> float:
    """(resident of the service - resident of the same service with SMALL_SONGS songs) / (tensors of the run + index).

    Both after 200 requests.  Divided by is what a run has to hold: all tensors of its two safetensors files, and the index, V
    output embeddings with their biases in fp32 and the same in int8 with what its bounds need.  The names and features that the
    service reads from the database and the dict of ids are only in what is divided.
    """
    run, small = run_of(n_songs), resident_mb(SMALL_SONGS)
    full = resident_mb(n_songs)
    tensors_mb, index_mb = tensor_bytes(run) / MB, index_bytes(run) / MB
    ratio = (full - small) / (tensors_mb + index_mb)
    print(
        f"memory: {n_songs} songs: ({full:.0f} MB resident - {small:.0f} MB with {SMALL_SONGS} songs) / "
        f"({tensors_mb:.0f} MB of tensors + {index_mb:.0f} MB of index) = {ratio:.2f}",
        file=sys.stderr,
        flush=True,
    )
    return round(ratio, 2)


def resident_mb(n_songs: int) -> float:
    """Resident memory of the service with so many songs after some requests."""
    run, requests = run_of(n_songs), plain_requests(n_songs)
    with catalogue_database(n_songs) as database, service("--model", str(run), database=database) as server:
        first_answer_seconds(server, RECOMMEND, requests[0].body)
        rest(server.pid)
        for request in requests[:MEMORY_REQUESTS]:
            server.post(RECOMMEND, request.body)
        return usage(server.pid).resident_mb


def tensor_bytes(run: Path) -> int:
    """Bytes of all tensors of a run's best checkpoint and its catalogue, without the headers of the files."""
    return sum(tensor_bytes_of(path) for path in (find_checkpoint(run) / WEIGHTS, run / CATALOGUE))


def tensor_bytes_of(path: Path) -> int:
    """What follows the header of a safetensors file, whose length stands in the first eight bytes."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


def index_bytes(run: Path) -> int:
    """Bytes of an output embedding and a bias for each song in fp32, the same in int8, and what its bounds need in fp32."""
    described = read_description(find_checkpoint(run))
    shape = described["model"]
    width = int(shape["d_songs"]) + int(shape["d_albums"]) + int(shape["d_artists"])
    of_bounds = 5  # step, norm of the codes, residual, and two forms of the bias
    return int(described["counts"]["fitted_songs"]) * (4 * (width + 1) + width + 4 * of_bounds)


def start(plan: Plan) -> dict[str, Any]:
    """Seconds from exec to the first 200; the database runs, and the run's files are in the cache.  Median of three."""
    run, requests = run_of(plan.songs), plain_requests(plan.songs)
    with catalogue_database(plan.songs) as database:
        seconds = []
        for _ in range(STARTS):
            with service("--model", str(run), database=database) as server:
                seconds.append(first_answer_seconds(server, RECOMMEND, requests[0].body))
    print(f"start: {', '.join(f'{each:.2f}' for each in seconds)} s", file=sys.stderr)
    return {"start_s": round(statistics.median(seconds), 2)}


MEASURES = {
    "rate": rate, "identical": top10_identical, "single": single, "memory": memory, "start": start, "swap": swapping,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
