"""An answer as a list that `exporters` writes to a file: its songs with their cards, and the reasons in words."""

from collections.abc import Mapping
from datetime import UTC, datetime

from exporters import ExportedList, exported_song
from serving.answers import Answer
from serving.reasons import SongId
from storage.catalogue import SongCard

SUGGESTIONS = "Suggestions"
"""What a list of recommended songs is called where nobody gives it a name."""


def as_exported(answer: Answer, cards: Mapping[SongId, SongCard], *, name: str = SUGGESTIONS) -> ExportedList:
    """The songs of an answer; `cards` of them, and of the songs of the sequence, whose titles stand in the reasons."""
    titles = {song_id: card.title for song_id, card in cards.items() if card.title}
    return ExportedList(
        name=name,
        songs=[
            exported_song(
                song.song_id,
                cards.get(song.song_id),
                rank=song.rank,
                score=song.score,
                reasons=[reason.sentence(titles) for reason in song.reasons],
            )
            for song in answer.songs
        ],
        created_at=datetime.now(UTC).replace(microsecond=0),
        model_id=None if answer.model is None else answer.model.model_id,
        model_version=None if answer.model is None else answer.model.version,
    )
