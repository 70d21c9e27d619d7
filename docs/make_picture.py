"""Draw docs/continued-playlist.svg, the picture of the README, from what a trained model really answers.

    python -m docs.make_picture --demo               the demo's newest run, `demo data/sequence.csv`
    python -m docs.make_picture --model models/RUN   another one, with titles from your own database

The picture is readable on light and dark pages: it carries colours for both and takes those that the reader prefers.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from cli import DEMO_DATA, read_sequence
from config import PROJECT_ROOT, Config
from errors import exit_code_of
from options import add_arguments, config_from_arguments
from serving.answers import Answer, Query
from serving.controls import Controls
from serving.reasons import SongId
from serving.recommender import Recommender
from storage.catalogue import SongCard, song_cards
from storage.connections import connect, database_url, expected_errors

PICTURE = PROJECT_ROOT / "docs" / "continued-playlist.svg"

# Pixels.  A page of GitHub shows 880 of them without shrinking.
WIDTH, ROW, MARGIN, HEADER, GAP, FOOTER = 880, 25, 24, 74, 34, 46
NUMBER_END, TITLE, ARTIST, SCORE_END, REASON = 52, 66, 318, 574, 596
# About what fits between two columns at 14 pixels.
TITLE_SIGNS, ARTIST_SIGNS, REASON_SIGNS = 34, 28, 38

STYLE = """
    text { font: 14px ui-sans-serif, system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
    .end { text-anchor: end; }
    .quiet { fill: #59636e; }
    .new { fill: #1a7f37; font-weight: 600; }
    .code { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
    .small { font-size: 12px; }
    .page { fill: #ffffff; stroke: #d1d9e0; }
    .line { stroke: #d1d9e0; }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc; }
      .quiet { fill: #9198a1; }
      .new { fill: #3fb950; }
      .page { fill: #0d1117; stroke: #3d444d; }
      .line { stroke: #3d444d; }
    }
"""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One song of the picture; `score` and `reason` only where it is a recommended one."""

    number: str
    title: str
    artist: str
    score: str = ""
    reason: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Ask the model and write the picture."""
    parser = argparse.ArgumentParser(description="Draw a continued playlist.")
    parser.add_argument("--file", type=Path, default=DEMO_DATA / "sequence.csv", help="a CSV file with a column song_id")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="the SVG file to write")
    add_arguments(parser, "service", "training", "database")
    arguments = parser.parse_args(argv)
    played, recommended = continued(read_sequence(arguments.file), config_from_arguments(arguments))
    arguments.picture.write_text(draw(played, recommended), encoding="utf-8")
    return 0


def continued(texts: Sequence[str], config: Config) -> tuple[list[Line], list[Line]]:
    """The lines of a sequence and those of its next songs."""
    recommender = Recommender.load(config.service.model or config.training.model_folder, config.service)
    songs = [recommender.id_from(text) for text in texts]
    answer = recommender.recommend_many([Query(songs=songs, controls=Controls(explain=True))])[0]
    with database_url(config.database) as url, connect(url) as connection, expected_errors():
        cards = song_cards(connection, config.database.queries_folder, [*songs, *(song.song_id for song in answer.songs)])
    played = [_line(str(number), song_id, cards) for number, song_id in enumerate(songs, start=1)]
    return played, recommended_lines(answer, cards)


def recommended_lines(answer: Answer, cards: Mapping[SongId, SongCard]) -> list[Line]:
    """One line per recommended song, with its score and its first reason."""
    titles = {song_id: card.title for song_id, card in cards.items() if card.title}
    return [
        _line(f"+{song.rank}", song.song_id, cards, score=f"{song.score:.2f}", reason=song.reasons[0].sentence(titles))
        for song in answer.songs
    ]


def draw(played: Sequence[Line], recommended: Sequence[Line]) -> str:
    """The picture as SVG text."""
    begin = HEADER + ROW * len(played) + GAP  # of the recommended songs
    height = begin + ROW * len(recommended) + FOOTER
    rule = begin - GAP
    parts = [
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        _text('$ python cli.py recommend --demo --file "demo data/sequence.csv"', MARGIN, 36, "code quiet"),
        *_rows(played, HEADER, "quiet"),
        _text("score", SCORE_END, rule - 9, "small quiet end"),
        _text("reason", REASON, rule - 9, "small quiet"),
        f'<line class="line" x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{rule}" y2="{rule}"/>',
        *_rows(recommended, begin, "new"),
        _text("Songs and artists are made up. Scores are comparable within one answer only.", MARGIN, height - 18, "small quiet"),
    ]
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"  <title>A playlist of {len(played)} songs and the {len(recommended)} that the model puts next</title>\n"
        f"  <style>{STYLE}  </style>\n  {body}\n</svg>\n"
    )


def _line(number: str, song_id: SongId, cards: Mapping[SongId, SongCard], *, score: str = "", reason: str = "") -> Line:
    card = cards.get(song_id)
    title = card.title if card and card.title else str(song_id)
    return Line(number=number, title=title, artist=card.artist or "" if card else "", score=score, reason=reason)


def _rows(lines: Iterable[Line], top: int, number_style: str) -> list[str]:
    return [text for place, line in enumerate(lines) for text in _row(line, top + ROW * place, number_style)]


def _row(line: Line, y: int, number_style: str) -> list[str]:
    cells = [
        _text(line.number, NUMBER_END, y, f"{number_style} end"),
        _text(_shortened(line.title, TITLE_SIGNS), TITLE, y, ""),
        _text(_shortened(line.artist, ARTIST_SIGNS), ARTIST, y, "quiet"),
        _text(line.score, SCORE_END, y, "end"),
        _text(_shortened(line.reason, REASON_SIGNS), REASON, y, "quiet"),
    ]
    return [cell for cell in cells if cell]


def _text(content: str, x: int, y: int, style: str) -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{x}" y="{y}">{escape(content)}</text>' if content else ""


def _shortened(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder="…")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
