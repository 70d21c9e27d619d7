"""A data folder as a snapshot, split by the protocol of its kind, with the questions that follow from it.

    playlists, playlists_large   dated versions of lists: training before November 2020, validation before 2021, test after (UTC)
    listening                    chunks of users: each user's last chunk is the test, the one before it validates for 12 % of the
                                 users that have a third; earlier chunks are the history of later ones
    ml-1m, ml-100k               leave one out

Numbers, artists, albums and features of the songs are made by the same functions as in preprocessing.py, fitted on the training
part alone; only the split is this benchmark's own.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.quality.questions import Questions
from config import FIRST_NUMBER, EvaluationConfig
from encoder_files import save_encoders
from engine.comparison import repeats_allowed
from errors import DataError
from evaluation.metrics import Mask
from evaluation.protocols import leave_one_out_tasks, next_song_tasks
from preparation.encoding import encode_songs, fit_encoders
from preparation.reading import Catalogue
from preparation.splitting import HELD_OUT_OF_EACH, TrainingPart
from preprocessing_utils import IdEncoder, as_arrow, count_repeats
from snapshot import Snapshot, take_ranges, write_snapshot
from splits import TEST, TRAIN, VALIDATION

VALIDATION_FROM, TEST_FROM = np.datetime64("2020-11-01"), np.datetime64("2021-01-01")  # UTC
VALIDATING_USERS = 0.12
IDS = ("song_id", "artist_id", "album_id", "playlist_id", "base_id", "user_id")
# As in storage/queries/music/songs.sql, so that a model sees what it would see in the service; what a file lacks is missing.
FEATURES = (
    "explicit", "mode", "disc_number", "track_number", "danceability", "energy", "loudness", "speechiness", "acousticness",
    "instrumentalness", "liveness", "valence", "tempo", "duration_ms", "time_signature", "key",
)  # fmt: skip
FLOW_COLUMNS = ("tempo", "energy", "key", "mode")

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """A data folder as read and split, before songs have numbers."""

    name: str
    catalogue: pd.DataFrame
    """A row a song, with the columns of songs.csv."""
    songs: Ints
    """(R,) rows of the catalogue, sequence after sequence."""
    offsets: Ints
    """(S + 1,) where each sequence begins and ends."""
    parts: NDArray[np.uint8]
    """(S,) TRAIN, VALIDATION or TEST."""
    groups: Ints
    """(S,) the list that a sequence is a version of, or its user."""
    policy: str
    """"time", "chunks" or "leave_one_out"."""

    def training_rows(self) -> Mask:
        """Which rows training may see, (R,)."""
        lengths = np.diff(self.offsets)
        if self.policy != "leave_one_out":
            return np.repeat(self.parts == TRAIN, lengths)
        from_end = np.repeat(self.offsets[1:], lengths) - np.arange(len(self.songs))
        return np.asarray(from_end > HELD_OUT_OF_EACH)

    def without(self, removed: Ints) -> "Rows":
        """Training without some songs, rows of the catalogue, whose metadata stays; what is held out stays as it is."""
        kept = ~(self.training_rows() & np.isin(self.songs, removed))
        before = np.concatenate([[0], np.cumsum(kept)])
        return dataclasses.replace(self, songs=self.songs[kept], offsets=before[self.offsets])


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """A snapshot with what the benchmark must know beside it."""

    name: str
    snapshot: Snapshot
    encoders_folder: Path
    number: Ints
    """The song number of each row of the catalogue."""
    groups: Ints
    """(S,) as in Rows."""
    history_starts: Ints
    """(S,) the row at which the history before each sequence begins: with chunks, the first row of its user."""
    flow: pd.DataFrame
    """Tempo, energy, key and mode by song number, (V) rows; NaN where unknown."""

    def questions(self, part: int, config: EvaluationConfig) -> Questions:
        """All questions of a part."""
        snapshot = self.snapshot
        sequences, offsets, chosen = snapshot.sequences, snapshot.offsets, snapshot.indices(part)
        if snapshot.policy == "leave_one_out":
            every = leave_one_out_tasks(sequences, offsets, chosen, from_end=HELD_OUT_OF_EACH if part == VALIDATION else 1)
        else:
            every = next_song_tasks(sequences, offsets, chosen, config.last_share)
        number = np.arange(snapshot.n_songs)
        return Questions(
            every=every,
            history_starts=self.history_starts,
            groups=self.groups,
            trained=(number >= FIRST_NUMBER) & (number < snapshot.manifest["counts"]["fitted_songs"]),
            allow_repeats=repeats_allowed(snapshot, config),
        )

    def digest(self, part: int) -> str:
        """Which questions answers belong to."""
        return f"{self.snapshot.digest}-{part}"

    def training(self, *, joined: bool = False) -> tuple[Ints, Ints]:
        """The training part as songs and offsets; `joined` puts the sequences that share a history into one."""
        songs, offsets = self.snapshot.part(TRAIN)
        if not joined:
            return songs, offsets
        starts = self.history_starts[self.snapshot.indices(TRAIN)]
        return songs, np.concatenate([offsets[:-1][np.diff(starts, prepend=-1) != 0], offsets[-1:]])


def read(folder: Path) -> Rows:
    """Read a data folder and split it.  Raises DataError where it is not one."""
    sequences, catalogue = _csv(folder / "sequences.csv.gz"), _csv(folder / "songs.csv.gz")
    songs = pd.Index(catalogue["song_id"]).get_indexer(sequences["song_id"])
    if (songs < 0).any():
        raise DataError(f"{folder}: song {sequences['song_id'][int(np.argmin(songs))]} is not in songs.csv.gz")
    starts = np.flatnonzero(sequences["playlist_id"].ne(sequences["playlist_id"].shift()))
    offsets = np.append(starts, len(songs)).astype(np.int64)
    rows = Rows(
        name=folder.name, catalogue=catalogue, songs=songs.astype(np.int64), offsets=offsets, policy="leave_one_out",
        parts=np.full(len(starts), TRAIN, np.uint8), groups=np.arange(len(starts)),
    )  # fmt: skip
    if not (folder / "playlists.csv.gz").is_file():
        return rows
    described = _csv(folder / "playlists.csv.gz").set_index("playlist_id").loc[sequences["playlist_id"].iloc[starts]]
    if "snapshot_time" in described:
        return split_by_time(rows, described)
    return split_by_chunk(rows, described) if "chunk" in described else rows


def split_by_time(rows: Rows, described: pd.DataFrame) -> Rows:
    """Versions oldest first, each in the part that its time falls into."""
    times = pd.to_datetime(described["snapshot_time"], utc=True).dt.tz_localize(None).to_numpy()
    order = np.argsort(times, kind="stable")
    songs, offsets = take_ranges(rows.songs, rows.offsets[:-1][order], rows.offsets[1:][order])
    edges = np.array([VALIDATION_FROM, TEST_FROM])
    parts = np.array([TRAIN, VALIDATION, TEST], np.uint8)[np.searchsorted(edges, times[order], side="right")]
    groups = pd.factorize(described["base_id"])[0][order]
    return dataclasses.replace(rows, songs=songs, offsets=offsets, parts=parts, groups=groups, policy="time")


def split_by_chunk(rows: Rows, described: pd.DataFrame) -> Rows:
    """The last chunk of every user with two tests, the one before it validates for a drawn share of the users with three.

    Raises DataError where the chunks of a user do not follow each other in their order.
    """
    users = pd.factorize(described["user_id"])[0].astype(np.int64)
    if (np.diff(users) < 0).any() or ((np.diff(described["chunk"].astype(int)) != 1) & (np.diff(users) == 0)).any():
        raise DataError(f"{rows.name}: the chunks of a user must follow each other in their order")
    sizes = np.bincount(users)
    from_end = np.cumsum(sizes)[users] - np.arange(len(users))  # 1 is a user's last chunk
    validating = np.random.default_rng(0).random(len(sizes)) < VALIDATING_USERS
    parts = np.full(len(users), TRAIN, np.uint8)
    parts[(sizes[users] > 1) & (from_end == 1)] = TEST
    parts[(sizes[users] > 2) & (from_end == 2) & validating[users]] = VALIDATION
    return dataclasses.replace(rows, parts=parts, groups=users, policy="chunks")


def build(rows: Rows, folder: Path) -> DataSet:
    """Fit the encoders on the training part and write encoders and snapshot below a folder."""
    catalogue = _as_catalogue(rows.catalogue)
    training = _training_part(rows)
    encoders = fit_encoders(catalogue, training)
    columns = encode_songs(catalogue, encoders)
    number = encoders.songs.encode(catalogue.songs.ids).astype(np.int64)
    history_starts = _history_starts(rows)
    snapshot = write_snapshot(
        folder / "snapshot",
        song_artist=columns.artist,
        song_album=columns.album,
        song_features=columns.features,
        feature_names=encoders.features.feature_names,
        n_fitted_songs=encoders.songs.n_fitted,
        n_fitted_albums=encoders.albums.n_fitted,
        n_fitted_artists=encoders.artists.n_fitted,
        n_albums=len(encoders.albums),
        n_artists=len(encoders.artists),
        sequences=number[rows.songs].astype(np.int32),
        offsets=rows.offsets,
        split=rows.parts,
        encoders_digest=save_encoders(encoders, folder / "encoders"),
        source={"data": rows.name, "split": rows.policy},
        policy=rows.policy,
        history_starts=history_starts,
    )
    return DataSet(
        name=rows.name,
        snapshot=snapshot,
        encoders_folder=folder / "encoders",
        number=number,
        groups=rows.groups,
        history_starts=history_starts,
        flow=_flow(rows.catalogue, number, snapshot.n_songs),
    )


def _csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=dict.fromkeys(IDS, str))
    except OSError as exc:
        raise DataError(f"{path} cannot be read ({exc.strerror}): name a folder of data sets") from exc


def _as_catalogue(songs: pd.DataFrame) -> Catalogue:
    features = songs.reindex(columns=list(FEATURES)).astype(float)
    numbers = IdEncoder("song").extend(songs["song_id"])
    return Catalogue(
        songs=numbers,
        numbers=numbers.encode(songs["song_id"]),
        artist_ids=as_arrow(songs["artist_id"], "artist"),
        album_ids=as_arrow(songs["album_id"], "album"),
        features=pa.Table.from_pandas(features, preserve_index=False),
    )


def _training_part(rows: Rows) -> TrainingPart:
    seen = rows.training_rows()
    before = np.concatenate([[0], np.cumsum(seen)])
    songs, offsets = rows.songs[seen], before[rows.offsets]
    return TrainingPart(
        counts=np.bincount(songs + FIRST_NUMBER, minlength=len(rows.catalogue) + FIRST_NUMBER),
        n_sequences=int((np.diff(offsets) > 0).sum()),
        n_repeats=count_repeats(songs, offsets),
    )


def _history_starts(rows: Rows) -> Ints:
    starts = rows.offsets[:-1]
    if rows.policy != "chunks":
        return starts
    first_of_user = np.diff(rows.groups, prepend=-1) != 0
    return np.asarray(starts[first_of_user][rows.groups])


def _flow(catalogue: pd.DataFrame, number: Ints, n_songs: int) -> pd.DataFrame:
    known = catalogue.reindex(columns=list(FLOW_COLUMNS)).astype(float).set_index(number)
    return known.reindex(range(n_songs))
