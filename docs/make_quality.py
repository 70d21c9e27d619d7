"""Write the tables of quality in README.md and docs/quality.md from what the benchmarks have stored.

python -m docs.make_quality
"""

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.quality.table import BEYOND_TITLES, MODEL, is_ours, looks
from config import PROJECT_ROOT

RESULTS = PROJECT_ROOT / "benchmarks" / "results"
README, PAGE = PROJECT_ROOT / "README.md", PROJECT_ROOT / "docs" / "quality.md"
SETS = ("playlists", "playlists_large", "listening")
LEFT_ONE_OUT = ("ml-1m", "ml-100k")
PEERS = (
    *("popularity", "recent popularity", "Markov", "co-occurrence", "item kNN", "EASE", "blend of the three"),
    *("implicit ALS", "RecTools BERT4Rec", "RecTools SASRec", "RecTools eSASRec"),
)
SHOWN = {MODEL: "BERT4Rec, this project's"}
DIGITS = (3, 3, 2, 2, 1, 3, 3)  # of the columns beyond accuracy
HISTORY = "the history's own"

Line = Mapping[str, Any]


def main() -> int:
    """Fill all blocks."""
    lines = [json.loads(line) for line in (RESULTS / "quality.jsonl").read_text(encoding="utf-8").splitlines()]
    newest = {name: _newest(lines, name) for name in SETS}
    fill(README, "results:quality", [*overview(newest), *beside_published(lines)])
    fill(PAGE, "tests", [*by_set(newest), "", *beyond(newest), "", *cold(lines), "", *told_looks(lines)])
    fill(PAGE, "movielens", movielens({name: _newest(lines, name) for name in LEFT_ONE_OUT if _has_model(lines, name)}))
    ablation = RESULTS / "ablation.jsonl"
    if ablation.is_file():
        fill(PAGE, "ablation", ablations([json.loads(line) for line in ablation.read_text(encoding="utf-8").splitlines()]))
    return 0


def fill(page: Any, name: str, rows: Sequence[str]) -> None:
    """Replace what stands between the two marks of that name.  Raises ValueError where a page lacks them."""
    text, first, last = page.read_text(encoding="utf-8"), f"<!-- {name} -->\n", f"<!-- /{name} -->"
    begin, end = text.index(first) + len(first), text.index(last)
    page.write_text(text[:begin] + "\n".join(rows) + "\n" + text[end:], encoding="utf-8")


def overview(newest: Mapping[str, Line]) -> list[str]:
    """Every party on every data set."""
    best = {name: max(line["parties"], key=lambda party: _all(line, party)["ndcg10"]) for name, line in newest.items()}
    rows = ["| NDCG@10 / HR@10 | " + " | ".join(f"`{name}`" for name in newest) + " |", "|---|" + "---:|" * len(newest)]
    for party in (MODEL, *PEERS):
        cells = [_cell(line, party, best[name] == party) for name, line in newest.items()]
        if any(cells):
            rows.append(f"| {SHOWN.get(party, party)} | " + " | ".join(cells) + " |")
    ratios = (line["interval"] for line in newest.values())
    shown = (f"{of['ratio']:.2f} ({of['ratio_low']:.2f} to {of['ratio_high']:.2f})" for of in ratios)
    rows.append("| ratio to the best of the others | " + " | ".join(shown) + " |")
    counts = (_all(line, "popularity") for line in newest.values())
    asked = [
        f"`{name}` {count['n_sequences']:,} sequences with {count['n_tasks']:,} questions, {_seeds(line)}, {_minutes(line)} each"
        for (name, line), count in zip(newest.items(), counts, strict=True)
    ]
    return [*rows, "", textwrap.fill(f"{'; '.join(asked)}. Intervals of 95 % are resampled by list and by listener.", 128)]


def by_set(newest: Mapping[str, Line]) -> list[str]:
    """The model beside the best peer, a row a data set."""
    rows = [
        "| | NDCG@10 | best peer | ratio | new songs, HR@10 / NDCG@10 | a hidden fifth, NDCG@10 (best peer) | validation |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, line in newest.items():
        ours, peer, interval = line["parties"][MODEL], line["parties"][line["best_peer"]], line["interval"]
        new = ours["kinds"]["cold"]
        cells = (
            f"`{name}` ({_seeds(line)})",
            f"{line['ndcg10']:.4f}",
            f"{line['best_peer']}, {line['best_peer_ndcg10']:.4f}",
            f"{interval['ratio']:.3f} ({interval['ratio_low']:.3f} to {interval['ratio_high']:.3f})",
            f"{new['hr10']:.4f} / {new['ndcg10']:.4f} (n = {new['n_tasks']:,})",
            f"{ours['continuation']['ndcg10']:.4f} ({peer['continuation']['ndcg10']:.4f})",
            ", ".join(f"{seed['validation_ndcg10']:.4f}" for seed in ours["seeds"]),
        )
        rows.append("| " + " | ".join(cells) + " |")
    for name, line in newest.items():
        ours, peer = line["parties"][MODEL]["kinds"], line["parties"][line["best_peer"]]["kinds"]
        if "repeat" in ours:
            rows += ["", f"On `{name}` repeats are found with HR@10 {ours['repeat']['hr10']:.3f} (best peer "
                         f"{peer['repeat']['hr10']:.3f}), songs new to the listener with {ours['explore']['hr10']:.3f} "
                         f"({peer['explore']['hr10']:.3f})."]  # fmt: skip
    return rows


def beyond(newest: Mapping[str, Line]) -> list[str]:
    """What the lists are like."""
    titles = " | ".join(BEYOND_TITLES.values())
    rows = [f"| beyond accuracy, lists of ten | {titles} |", "|---|" + "---:|" * len(BEYOND_TITLES)]
    for name, line in newest.items():
        parties = line["parties"]
        listed = {
            "model": parties[MODEL]["beyond"],
            line["best_peer"]: parties[line["best_peer"]]["beyond"],
            HISTORY: line["history"],
        }
        for who, figures in listed.items():
            values = (figures[key] for key in BEYOND_TITLES)
            cells = ("" if value is None else f"{value:.{digits}f}" for value, digits in zip(values, DIGITS, strict=True))
            rows.append(f"| `{name}`, {who} | " + " | ".join(cells) + " |")
    return rows


def beside_published(lines: Sequence[Line]) -> list[str]:
    """Our models on MovieLens-1M in a sentence, with the best figures that were published; nothing before they were measured."""
    if not _has_model(lines, "ml-1m"):
        return []
    line = _newest(lines, "ml-1m")
    asked = _all(line, MODEL)["n_sequences"]
    ours = [f"{_trained(line, party)} {_cell(line, party, is_best=False)}" for party in filter(is_ours, line["parties"])]
    told = (
        f"MovieLens-1M, NDCG@10 / HR@10 for the last film of each of {asked:,} users: {'; '.join(ours)}; the best that was "
        "published 0.1882 / 0.3232, of the BERT4Rec family 0.165 / 0.30."
    )
    return ["", textwrap.fill(told, 128)]


def movielens(newest: Mapping[str, Line]) -> list[str]:
    """All parties where the last song of each list is asked for; nothing before that was measured."""
    if not newest:
        return []
    found = dict.fromkeys(party for line in newest.values() for party in line["parties"])
    rows = ["| NDCG@10 / HR@10 | " + " | ".join(f"`{name}`" for name in newest) + " |", "|---|" + "---:|" * len(newest)]
    for party in (*filter(is_ours, found), *(peer for peer in PEERS if peer in found)):
        rows.append(f"| {_shown(party)} | " + " | ".join(_cell(line, party, is_best=False) for line in newest.values()) + " |")
    counts = {name: _all(line, MODEL)["n_sequences"] for name, line in newest.items()}
    ours = [
        f"`{name}`: {counts[name]:,} questions; ours "
        + "; ".join(_trained(line, party) for party in filter(is_ours, line["parties"]))
        for name, line in newest.items()
    ]
    return [*rows, "", textwrap.fill("; ".join(ours) + ".", 128)]


def cold(lines: Sequence[Line]) -> list[str]:
    """Songs withheld from training and then asked for."""
    newest = [line for line in lines if line["data"].endswith("-cold")][-1]
    rows = [
        "| withheld, then asked for | questions | Recall@10 | nearest songs | random order | known songs: price, change |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind, title in {"songs": "5 % of the songs", "artists": "all songs of 3 % of the artists"}.items():
        of = newest[kind]
        rows.append(
            f"| {title}, {len(of['draws'])} draws | {of['n_tasks']} | {of['recall10']:.4f} | {of['nearest']:.4f} | "
            f"{of['random_expected']:.4f} | {100 * of['warm_price']:+.1f} %, {100 * of['warm_change']:+.1f} % |"
        )
    return rows


def told_looks(lines: Sequence[Line]) -> list[str]:
    """How often the tests were looked at."""
    names = [name for name in (*SETS, *LEFT_ONE_OUT) if name in SETS or _has_model(lines, name)]
    listed = ", ".join(f"{looks(lines, name)} of `{name}`" for name in names)
    return [f"Looks at a test part, each a line of `benchmarks/results/quality.jsonl`: {listed}."]


def ablations(lines: Sequence[Line]) -> list[str]:
    """What each part is worth, the newest line of each variant."""
    rows = []
    for data in dict.fromkeys(line["data"] for line in lines):
        newest = {line["variant"]: line for line in lines if line["data"] == data}
        rows += [
            "",
            f"| `{data}`, validation | NDCG@10, by seed | known songs | new songs |",
            "|---|---:|---:|---:|",
        ]
        for variant, line in newest.items():
            runs = line["runs"]
            each = ", ".join(f"{run['all']:.4f}" for run in runs)
            known, new = (np.mean([run[kind] for run in runs]) for kind in ("warm", "cold"))
            rows.append(f"| {variant} | {each} | {known:.4f} | {new:.4f} |")
    return rows[1:]


def _newest(lines: Sequence[Line], name: str) -> Line:
    """The last line of a data set in which the model stands."""
    return [line for line in lines if _is_of(line, name)][-1]


def _has_model(lines: Sequence[Line], name: str) -> bool:
    return any(_is_of(line, name) for line in lines)


def _is_of(line: Line, name: str) -> bool:
    return line["data"] == name and line["part"] == "test" and MODEL in line["parties"]


def _shown(party: str) -> str:
    return party.replace(MODEL, SHOWN[MODEL])


def _all(line: Line, party: str) -> Mapping[str, float]:
    found: Mapping[str, float] = line["parties"][party]["kinds"]["all"]
    return found


def _cell(line: Line, party: str, is_best: bool) -> str:
    if party not in line["parties"]:
        return ""
    of = _all(line, party)
    text = f"{of['ndcg10']:.4f} / {of['hr10']:.4f}"
    return f"**{text}**" if is_best else text


def _trained(line: Line, party: str) -> str:
    settings = line["parties"][party]["seeds"][0]["settings"]
    where = " on a GPU" if settings.get("device") == "cuda" else ""
    return f"{settings.get('objective', 'cloze')}, {_seeds(line, party)} of {_minutes(line, party)}{where}"


def _seeds(line: Line, party: str = MODEL) -> str:
    n = len(line["parties"][party]["seeds"])
    return f"{n} seeds" if n > 1 else "1 seed"


def _minutes(line: Line, party: str = MODEL) -> str:
    minutes = [round(seed["fit_seconds"] / 60) for seed in line["parties"][party]["seeds"]]
    least, most = max(1, min(minutes)), max(1, *minutes)
    return f"{least} minutes" if least == most else f"{least} to {most} minutes"


if __name__ == "__main__":
    sys.exit(main())
