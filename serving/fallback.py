"""What answers without a model: counts of the snapshot, and what is popular.

`CountScorer` stands in while no model is trained: songs that share lists with the last songs of the sequence.  `popular_scores`
is for a model that knows no song of the sequence.

Shape letters: B sequences, V songs by number, the specials included.
"""

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder_files import Encoders
from errors import EncoderError
from evaluation.baselines import CoOccurrence, Popularity
from serving.catalogue import SongCatalogue
from snapshot import Snapshot

Scores = NDArray[np.float32]


class CountScorer:
    """Scores every song by what stood together in the lists of a snapshot, all of its parts."""

    def __init__(self, sequences: np.ndarray, offsets: np.ndarray, n_songs: int) -> None:
        """Count sequences of song numbers below `n_songs` (V): sequence s is `sequences[offsets[s]:offsets[s + 1]]`."""
        self._together = CoOccurrence().fit(sequences, offsets, n_songs)
        self._popularity = Popularity().fit(sequences, offsets, n_songs)
        self._n_counted = self._n_songs = n_songs

    @classmethod
    def of(cls, snapshot: Snapshot, encoders: Encoders) -> "CountScorer":
        """Count the lists of a snapshot.  Raises EncoderError for encoders that number other songs."""
        if len(encoders.songs) != snapshot.n_songs:
            raise EncoderError(
                f"the snapshot {snapshot.path} has {snapshot.n_songs} song numbers and the encoders {len(encoders.songs)}: "
                "run preprocessing.py, which writes both"
            )
        return cls(np.asarray(snapshot.sequences), np.asarray(snapshot.offsets), snapshot.n_songs)

    def grown(self, n_songs: int) -> "CountScorer":
        """The same counts for a catalogue of `n_songs` numbers (V), of which those at the end are new: they score 0."""
        larger = copy.copy(self)
        larger._n_songs = n_songs
        return larger

    def score(self, prefixes: Sequence[np.ndarray]) -> Scores:
        """Score every song as the next one of each sequence of numbers, oldest first: (B, V), -inf at the specials.

        Songs that nothing speaks for are ordered by popularity; so are all of them where no song of the sequence is known.
        """
        return self._padded(self._together.score([prefix[prefix < self._n_counted] for prefix in prefixes]))

    def popular(self) -> Scores:
        """In how many rows each song stands, (V,), -inf at the specials."""
        return self._padded(self._popularity.score([np.empty(0, np.int64)]))[0]

    def in_training(self) -> np.ndarray:
        """Whether each song stands in a list that was counted, (V,) bool."""
        return np.asarray(self.popular() > 0)

    def _padded(self, scores: Scores) -> Scores:
        more = self._n_songs - self._n_counted
        return np.pad(scores, ((0, 0), (0, more))) if more else scores


def popular_scores(catalogue: SongCatalogue) -> Scores:
    """The logarithm of one plus the popularity of every song, (V,), -inf where a song is not available."""
    return np.where(catalogue.is_available, np.log1p(catalogue.popularity), -np.inf).astype(np.float32)
