"""Every setting, as one frozen dataclass per concern; the only reader of the environment.

A value comes from the first of these that names it:

1. the command line            ``--lr 0.001``, ``--d-songs 64``
2. the environment             ``BERT4MUSICREC_LR=0.001``
3. a TOML file                 ``[training]`` / ``lr = 0.001`` in ``bert4musicrec.toml`` or ``--config FILE``
4. the default below

A name that nothing knows is refused with the nearest name that exists.  The names of the original project (seq_len, N, heads,
cloze_probability, ...) keep their meaning; README.md has the table.
"""

import argparse
import ast
import dataclasses
import difflib
import functools
import inspect
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote, unquote, urlencode

from errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent
DEFAULT_CONFIG_FILE = "bert4musicrec.toml"
ENVIRONMENT_PREFIX = "BERT4MUSICREC_"
API_KEY_VARIABLE = f"{ENVIRONMENT_PREFIX}API_KEY"  # no setting: what a client of the service, as `health.py`, sends

# The special numbers of every vocabulary (songs, albums, artists).  Real ids start at FIRST_NUMBER.
PAD = 0  # fills a row up to the length of the batch
MASK = 1  # the place whose song is to be predicted
UNKNOWN = 2  # an id that no encoder has seen
FIRST_NUMBER = 3


@dataclass(frozen=True, kw_only=True)
class DatabaseConfig:
    """Where PostgreSQL is.  `url` unset and no libpq or POSTGRES_* name set means: the embedded server."""

    url: str | None = None
    """A libpq URL (postgresql://user:password@host:port/name); None starts the embedded server."""
    local_folder: Path = PROJECT_ROOT / ".local"
    """Where the embedded server lives, in its folder `postgres`; nothing else moves with it."""
    embedded_database: str = "bert4musicrec"
    """Which database of the embedded server; without meaning where a server of your own is named."""
    queries_folder: Path = PROJECT_ROOT / "storage" / "queries" / "music"
    """The query files that map somebody's tables onto the contract; the default reads the schema `music`."""
    connect_timeout_seconds: int = 10
    """How long one connection attempt may take."""

    def __post_init__(self) -> None:
        _require(self.connect_timeout_seconds >= 1, "connect_timeout_seconds", self.connect_timeout_seconds, "at least 1")
        _require(bool(self.embedded_database), "embedded_database", repr(self.embedded_database), "a name")
        if self.url is not None and not self.url.startswith(("postgresql://", "postgres://")):
            raise ConfigError(f"database url must start with postgresql:// (got {_without_password(self.url)!r})")

    @property
    def is_embedded(self) -> bool:
        """True when nothing names a server, so that our own is started."""
        return self.url is None


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Histories and playlists that services export, on their way into the schema `music`."""

    listener: str = "me"
    """Whose history a file holds that does not say so; names of accounts are never stored."""
    min_play_seconds: float = 30.0
    """A song that played for so long was heard; what the listener left earlier is kept as skipped."""
    min_play_share: float = 0.5
    """So was one that played for this share of its length, where the length is known."""
    keep_incognito: bool = False
    """Whether plays of private sessions are imported."""
    same_play_seconds: float = 90.0
    """Plays of one song that two sources tell are the same one when they begin at most this far apart."""
    session_gap_minutes: float | None = None
    """A pause of more than this ends a session, for all plays in the schema `music`; None keeps what it was, 30 at first."""
    audio_seconds: float = 90.0
    """So much from the middle of an audio file is analysed for tempo, key and energy."""
    audio_processes: int = 0
    """Audio files that are analysed at the same time, in processes of about 400 MB each; 0: one for each core."""

    def __post_init__(self) -> None:
        _require(0 < len(self.listener) <= 200 and '"' not in self.listener, "listener", repr(self.listener),
                 "a name of 1 to 200 characters without quotes")  # fmt: skip
        for name in ("min_play_seconds", "same_play_seconds"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(0 < self.min_play_share <= 1, "min_play_share", self.min_play_share, "above 0 and at most 1")
        _require(self.session_gap_minutes is None or 0 < self.session_gap_minutes <= 10_000, "session_gap_minutes",
                 self.session_gap_minutes, "above 0 and at most 10,000")  # fmt: skip
        _require(10 <= self.audio_seconds <= 600, "audio_seconds", self.audio_seconds, "between 10 and 600")
        _require(0 <= self.audio_processes <= 256, "audio_processes", self.audio_processes, "between 0 and 256")


@dataclass(frozen=True, kw_only=True)
class PreprocessingConfig:
    """From PostgreSQL to encoders and snapshot."""

    encoders_folder: Path = PROJECT_ROOT / "preprocessing encoders"
    """Where the fitted encoders and their manifest are written."""
    snapshot: Path = PROJECT_ROOT / ".local" / "snapshot"
    """The snapshot's folder: song and sequence columns for training without a database."""
    split: Literal["auto", "time", "sequence", "leave_one_out"] = "auto"
    """How sequences are held out: by time, by sequence, or the last song of each; auto: time where it is known."""
    train_size: float = 0.9
    """Share of the sequences in the training part; the rest is halved into validation and test."""
    min_sequence_length: int = 2
    """Sequences with fewer songs are left out, and counted."""
    split_seed: int = 0
    """Seed of the split by sequence."""
    leave_out_recommended: bool = True
    """Whether plays that we recommended (the column is_recommended) are left out, so that a model does not learn its own echo."""

    def __post_init__(self) -> None:
        _require(0 < self.train_size < 1, "train_size", self.train_size, "between 0 and 1, both excluded")
        _require(self.min_sequence_length >= 2, "min_sequence_length", self.min_sequence_length, "at least 2")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of the network, and what its encoder predicts."""

    objective: Literal["cloze", "causal"] = "cloze"
    """Songs hidden anywhere, from both sides (cloze, as BERT4Rec), or each song from those before it (causal, as SASRec)."""
    seq_len: int = 32
    """Songs in one training row, the place to predict included: the encoder reads one fewer, or as many with "causal"."""
    d_songs: int = 64
    """Width of the song embedding."""
    d_albums: int = 32
    """Width of the album embedding; 0 leaves albums out."""
    d_artists: int = 32
    """Width of the artist embedding; 0 leaves artists out."""
    use_features: bool = True
    """Whether the numeric audio features are projected and added."""
    d_ff: int = 512
    """Width of the feed-forward layer in each block."""
    N: int = 2
    """Encoder layers."""
    heads: int = 2
    """Attention heads; must divide d_songs + d_albums + d_artists."""
    dropout_prob: float = 0.1
    """Dropout after embeddings, attention and feed-forward layers."""

    def __post_init__(self) -> None:
        for name in ("seq_len", "d_songs", "d_ff", "heads", "N"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.seq_len >= 2, "seq_len", self.seq_len, "at least 2: one song and the masked place")
        _require(self.d_albums >= 0, "d_albums", self.d_albums, "0 (no albums) or more")
        _require(self.d_artists >= 0, "d_artists", self.d_artists, "0 (no artists) or more")
        _require(0 <= self.dropout_prob < 1, "dropout_prob", self.dropout_prob, "at least 0 and below 1")
        if self.d_model % self.heads:
            raise ConfigError(
                f"d_model ({self.d_model} = d_songs {self.d_songs} + d_albums {self.d_albums} + d_artists {self.d_artists}) "
                f"must be divisible by heads ({self.heads}): change heads or one of the three widths"
            )

    @property
    def d_model(self) -> int:
        """Width of the network: the three embeddings side by side."""
        return self.d_songs + self.d_albums + self.d_artists


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """What the model may look up beside what it has learned: songs that stand in a counted relation to those of the sequence.

    A reach is how many songs back from the place to predict a relation is looked up; 0 leaves the relation out.
    """

    neighbours: int = 64
    """Songs kept per song, artist or album in each relation."""
    window: int = 50
    """Songs up to so many places apart stand after or before each other; further apart they count less, 1 / sqrt(places)."""
    folds: int = 4
    """Parts of the training lists; a list is trained on with the counts of the other parts, as if it were new."""
    withheld: float = 0.15
    """Share of the songs that each part trains on as if nobody had played them; 0: only those that the other parts lack."""
    after_reach: int = 20
    """Songs that came after this one in training sequences."""
    before_reach: int = 12
    """Songs that came before this one in training sequences."""
    next_reach: int = 3
    """Songs that directly followed this one in training sequences."""
    near_reach: int = 0
    """Songs that stood in the same training sequences as this one, anywhere."""
    lists: int = 24
    """Training lists, the most similar to this one, whose songs are looked up; 0 leaves them out."""
    lists_reach: int = 31
    """Songs by which lists are compared."""
    same_reach: int = 100
    """The song itself: repeats, or their absence."""
    again_reach: int = 193
    """What followed the last songs when they were heard before in the same sequence."""
    artist_reach: int = 8
    """Songs of the same artist."""
    album_reach: int = 4
    """Songs of the same album."""
    unheard_reach: int = 50
    """Songs by whose artist and album others are looked up that no training sequence holds, beside those of likely songs."""
    track_reach: int = 1
    """The next track of the same album, where track numbers are known."""
    judged: int = 256
    """Songs found that are judged by all their signals together, the best by the weighed sum of the signals; 0: none."""

    def __post_init__(self) -> None:
        for name in ("neighbours", "window", "lists_reach"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.folds >= 2, "folds", self.folds, "at least 2")
        most = 1 / self.folds
        _require(0 <= self.withheld <= most, "withheld", self.withheld, f"between 0 (none) and {most:g}, which is one over folds")
        _require(self.lists >= 0, "lists", self.lists, "0 (none) or more")
        _require(self.judged >= 0, "judged", self.judged, "0 (none) or more")
        for name in (
            *("after_reach", "before_reach", "next_reach", "near_reach", "same_reach", "again_reach"),
            *("artist_reach", "album_reach", "unheard_reach", "track_reach"),
        ):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 (not looked up) or more")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What is predicted in a row, and the loop around it."""

    cloze_probability: float = 0.25
    """Share of the places of a row that are masked and predicted; with the objective "causal" every place is."""
    last_item_probability: float = 0.9
    """Share of the rows that end at a song drawn at random, and in which (cloze) that one alone is masked, as in use."""
    memory_places: int | None = None
    """Places of a row, drawn at random, at which the memory learns; None: one with the objective "causal", all with "cloze"."""
    unknown_song_probability: float = 0.2
    """Share of the input songs whose id is hidden, so that album, artist and features carry them."""
    batch_size: int = 64
    """Rows in one step of one process."""
    num_epochs: int = 40
    """Passes over the training sequences at most; early stopping and --minutes may end sooner."""
    lr: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; embeddings, biases and norms have none."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from 0."""
    label_smoothing: float = 0.0
    """Share of the target's probability given to all songs alike."""
    max_grad_norm: float = 1.0
    """Gradients longer than this are shortened to it."""
    negatives: int | None = None
    """Songs drawn per step, the same for all its places; 0: the whole catalogue; None: 0 up to 100,000 songs, else 8,192."""
    early_stopping_epochs: int = 6
    """Evaluations without a better validation NDCG@10 after which training ends; 0 never stops early."""
    minutes: float | None = None
    """Budget of training time; the learning rate falls to its end within it."""
    seed: int = 0
    """Fixes initial weights, order, masks and dropout."""
    threads: int = 0
    """Torch threads of one process; 0 leaves the choice to torch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes CUDA when there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 runs matrix products in bfloat16; auto does so on CUDA devices that have it."""
    compile: bool = False
    """Whether torch.compile makes the forward pass; its first steps take minutes, and it needs a C++ compiler (CUDA: Triton)."""
    model_folder: Path = PROJECT_ROOT / "models"
    """Runs are written below this folder, one folder a run."""
    epoch_to_preload: int | None = None
    """Resume the newest run from this epoch's checkpoint; -1 goes on where it was interrupted, also within an epoch."""
    checkpoint_minutes: float = 10.0
    """Minutes between the states that are written within an epoch, to go on from; 0 writes checkpoints of whole epochs only."""
    continue_from: Path | None = None
    """Begin a new run with what this run (or checkpoint, or newest finished run below a folder) learned, grown by new songs."""
    writer_dict: Path | None = None
    """Folder of the TensorBoard scalars; None writes them into the run's folder."""
    keep_checkpoints: int = 3
    """Epoch checkpoints kept besides the best one."""
    map_songs: int = 2000
    """Songs in the map of the finished model, which takes seconds to lay out; 0 makes none, 20,000 are the most."""

    def __post_init__(self) -> None:
        for name in ("cloze_probability", "last_item_probability", "unknown_song_probability", "label_smoothing"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "between 0 and 1")
        for name in ("batch_size", "num_epochs", "keep_checkpoints"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require((self.negatives or 0) >= 0, "negatives", self.negatives, "0 or more")
        _require(
            self.memory_places is None or self.memory_places >= 1, "memory_places", self.memory_places, "at least 1, or none"
        )
        for name in ("warmup_steps", "early_stopping_epochs", "threads", "weight_decay", "map_songs", "checkpoint_minutes"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(self.map_songs <= 20_000, "map_songs", self.map_songs, "at most 20000: the page draws no larger map")
        if self.label_smoothing and self.negatives:
            raise ConfigError(
                f"label_smoothing ({self.label_smoothing}) needs the whole catalogue: set negatives ({self.negatives}) to 0"
            )
        _require(self.lr > 0, "lr", self.lr, "above 0")
        _require(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "above 0")
        _require(self.minutes is None or self.minutes > 0, "minutes", self.minutes, "above 0")
        _require(self.epoch_to_preload is None or self.epoch_to_preload >= -1, "epoch_to_preload", self.epoch_to_preload,
                 "-1 (the last epoch) or more")  # fmt: skip
        if self.epoch_to_preload is not None and self.continue_from is not None:
            raise ConfigError(
                f"epoch_to_preload ({self.epoch_to_preload}) goes on with a run, continue_from ({self.continue_from}) begins a "
                "new one: name one of them"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a model is judged."""

    last_share: float = 0.2
    """The songs in this last part of a held-out sequence are the targets, at least one, each from all songs before it."""
    allow_repeats: Literal["auto", "yes", "no"] = "auto"
    """Whether a song of the prefix may be the next one; auto: yes where over 1 % of the training songs repeat."""

    def __post_init__(self) -> None:
        _require(0 < self.last_share <= 1, "last_share", self.last_share, "above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """The HTTP service and its worker."""

    host: str = "127.0.0.1"
    """Address to listen on; anything else than loopback opens the service to the network."""
    port: int = 4517
    """TCP port."""
    model: Path | None = None
    """A run or checkpoint folder to answer with, whatever is published; None follows what was activated, else the newest run."""
    model_poll_seconds: float = 2.0
    """How often the service looks for a newly activated model or a newer run."""
    count: int = 10
    """Songs in an answer unless the request says otherwise."""
    max_count: int = 1000
    """The most songs that one answer may hold."""
    max_songs: int = 10_000
    """The longest sequence that a request may send."""
    max_batch: int = 100
    """The most sequences that one batch request may hold."""
    max_per_artist: int = 2
    """Songs of one artist in an answer, one less where the artist stands among the newest songs; 0 sets no bound."""
    artist_spacing: int = 1
    """Songs of other artists between two of one artist, the end of the sequence counted; 0 sets no bound."""
    one_per_recording: bool = True
    """Whether of several editions of a recording only the best-ranked one is recommended, and none of one in the sequence."""
    discovery: float | None = None
    """From 0 (well-known songs first) to 1 (little-known songs first); None leaves the model's order."""
    temperature: float = 0.0
    """How much chance there is in an answer: 0 none; 1 draws songs as often as the model expects them."""
    exclude_played_days: float = 0.0
    """Songs that the listener played within so many days are not recommended; 0 excludes none."""
    skipped_days: float = 30.0
    """Songs that the listener skipped within so many days are not recommended."""
    allow_explicit: bool = True
    """Whether songs that are marked explicit may be recommended."""
    order: Literal["score", "flow"] = "score"
    """Best song first, or arranged so that tempo and key of neighbours go together."""
    min_confidence: float = 0.0
    """Songs that the model expects next with less than this probability are left out; 0 keeps all."""
    index: Literal["auto", "fp32", "int8"] = "auto"
    """How the best songs are found: auto takes the faster of the two on this machine; both find the same songs."""
    catalogue_refresh_seconds: float = 300.0
    """How often names, features and new songs are read from the database; 0 reads them at the start only."""
    filter_refresh_seconds: float = 60.0
    """How long the songs of a named filter are kept before its query is asked again."""
    require_key: Literal["auto", "always"] = "auto"
    """Whether requests need an API key; auto: on every address but loopback."""
    requests_per_minute: int = 600
    """Requests a minute that one API key may make, unless the key says otherwise."""
    log_format: Literal["text", "json"] = "text"
    """Log lines for people, or one JSON object a line."""
    max_body_bytes: int = 1_048_576
    """The largest request body."""
    wait_seconds: float = 30.0
    """How long a request with "wait": true stays for its songs."""
    server_threads: int = 16
    """Threads of the HTTP server: so many requests can be scored together."""
    pin: bool = False
    """Whether each process stays on one core (Linux): with two processes on two cores 472 requests a second in place of 211."""
    torch_threads: int = 1
    """Torch threads of one scoring call: two took the 99th percentile from 14 to 231 ms on a busy machine."""
    worker: bool = True
    """Whether the service also works on the request table."""
    wake: Literal["notify", "poll"] = "notify"
    """How an idle worker hears of requests: by LISTEN beside a look every second; poll is the look alone, for pgbouncer."""
    lease_seconds: float = 60.0
    """How long a claimed request belongs to its worker before another may take it."""
    max_attempts: int = 3
    """Attempts after which a request is failed with its error."""

    def __post_init__(self) -> None:
        _require(0 <= self.port <= 65535, "port", self.port, "between 0 and 65535")
        for name in (
            *("count", "max_count", "max_songs", "max_batch", "max_body_bytes", "server_threads", "torch_threads"),
            *("max_attempts", "requests_per_minute"),
        ):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("wait_seconds", "lease_seconds", "model_poll_seconds"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in (
            *("max_per_artist", "artist_spacing", "exclude_played_days", "skipped_days", "temperature"),
            *("catalogue_refresh_seconds", "filter_refresh_seconds"),
        ):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(self.discovery is None or 0 <= self.discovery <= 1, "discovery", self.discovery, "between 0 and 1, or none")
        _require(0 <= self.min_confidence < 1, "min_confidence", self.min_confidence, "at least 0 and below 1")
        if self.count > self.max_count:
            raise ConfigError(f"count ({self.count}) must not exceed max_count ({self.max_count})")


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings together.  Names are unique over all concerns, so the command line needs no prefixes."""

    database: DatabaseConfig = field(default_factory=DatabaseConfig)
    imports: ImportConfig = field(default_factory=ImportConfig)
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)

    def __post_init__(self) -> None:
        training = self.training
        if self.model.objective == "cloze" and training.cloze_probability == 0 and training.last_item_probability == 0:
            raise ConfigError("cloze_probability (0) and last_item_probability (0) leave nothing to predict: raise one of them")


# "model" is both a concern and the service's setting; on the command line and in the environment the setting is meant.
SECTIONS: dict[str, type] = {section.name: typing.cast(type, section.type) for section in dataclasses.fields(Config)}
FIELDS: dict[str, tuple[str, dataclasses.Field[Any]]] = {
    setting.name: (section, setting) for section, cls in SECTIONS.items() for setting in dataclasses.fields(cls)
}
# Where everything of the demo stands unless the settings say so: apart from one's own music, models and snapshot.
DEMO_FOLDER = PROJECT_ROOT / ".local" / "demo"
DEMO_SETTINGS: Mapping[str, Any] = {
    "embedded_database": "demo",
    "snapshot": DEMO_FOLDER / "snapshot",
    "encoders_folder": DEMO_FOLDER / "encoders",
    "model_folder": DEMO_FOLDER / "models",
}
# Names without our prefix that people already have in their environment; each of them names a server, or a database on one.
_FOREIGN_VARIABLES = (
    "DATABASE_URL", "POSTGRES_HOST", "POSTGRES_DB",
    "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE",
)  # fmt: skip
# Parameters of a libpq URL that are secrets themselves.
_SECRET_PARAMETERS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
_HOST = r"(\[[\w:.%]*\]|[^][:/?@,]*)(:\d*)?"  # a port that is no number is the rest of a password
_ADDRESS = re.compile(rf"{_HOST}(,{_HOST})*(/[^:/?@]*)?")
_PARAMETER = re.compile(r"[^=@]+=[^=@]*")


def load_config(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Gather settings from defaults, file, environment and overrides (in rising order) and check them.

    `file` None reads `bert4musicrec.toml` in the working directory if there is one.  `environ` None is the process's own.
    `overrides` maps names of settings to values, None meaning "not given"; `defaults` replaces defaults of the dataclasses.
    Raises ConfigError with the name and the way out.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in (defaults or {}).items():
        values[FIELDS[name][0]][name] = value
    for section, name, value in _from_file(file):
        values[section][name] = value
    url = database_url_from(environ)
    if url is not None:
        values["database"]["url"] = url
    for variable, text in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable != API_KEY_VARIABLE:
            name = _known_name(variable.removeprefix(ENVIRONMENT_PREFIX), f"environment variable {variable}")
            values[FIELDS[name][0]][name] = text
    for name, value in (overrides or {}).items():
        if value is not None:
            values[FIELDS[_known_name(name, "setting")][0]][name] = value
    return Config(**{section: build_section(SECTIONS[section], given) for section, given in values.items()})


Section = TypeVar("Section")


def build_section(cls: type[Section], given: Mapping[str, Any]) -> Section:
    """Make one settings dataclass from plain values (texts are converted), refusing unknown names."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}: {_nearest(unknown[0], hints)}")
    return cls(**{name: _convert(name, value, hints[name]) for name, value in given.items()})


def as_plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain JSON values, without passwords; the inverse of `build_section` for one concern."""
    plain: dict[str, Any] = {}
    for setting in dataclasses.fields(settings):
        value = getattr(settings, setting.name)
        if dataclasses.is_dataclass(value):
            plain[setting.name] = as_plain(value)
        elif setting.name == "url" and value is not None:
            plain[setting.name] = _without_password(value)
        else:
            plain[setting.name] = str(value) if isinstance(value, Path) else value
    return plain


def database_url_from(environ: Mapping[str, str]) -> str | None:
    """The server that the environment names: DATABASE_URL, else POSTGRES_*, else libpq's own variables, else None.

    >>> database_url_from({"POSTGRES_HOST": "db", "POSTGRES_DB": "music", "POSTGRES_USER": "me", "POSTGRES_PASSWORD": "p@ss"})
    'postgresql://me:p%40ss@db/music'
    """
    if environ.get("DATABASE_URL"):
        return environ["DATABASE_URL"]
    if not any(environ.get(name) for name in _FOREIGN_VARIABLES):
        return None
    # libpq reads PG* itself where the URL is silent; POSTGRES_* are spelled out because libpq does not know them.
    user, password = environ.get("POSTGRES_USER", ""), environ.get("POSTGRES_PASSWORD", "")
    host, port, name = environ.get("POSTGRES_HOST", ""), environ.get("POSTGRES_PORT", ""), environ.get("POSTGRES_DB", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    query = {"host": host} if host.startswith("/") else {}
    address = ("" if host.startswith("/") else host) + (f":{port}" if port else "")
    return f"postgresql://{login}{'@' if login else ''}{address}/{quote(name, safe='')}{'?' + urlencode(query) if query else ''}"


def add_arguments(parser: argparse.ArgumentParser, *sections: str) -> None:
    """Add --config, --demo and one option per setting of the named concerns, with its meaning and default in the help."""
    if not any(action.dest == "config" for action in parser._actions):
        where = f"TOML settings file (default {DEFAULT_CONFIG_FILE}, if there is one)"
        parser.add_argument("--config", type=Path, metavar="FILE", help=where)
        what = f"use the demo's database on the embedded server, and its folders in {_shorten(DEMO_FOLDER)}"
        parser.add_argument("--demo", action="store_true", help=what)
        parser.error = functools.partial(_refuse_arguments, parser)  # type: ignore[method-assign]
    for section in sections:
        group = parser.add_argument_group(section)
        meanings = describe(SECTIONS[section])
        for setting in dataclasses.fields(SECTIONS[section]):
            option = "--" + setting.name.replace("_", "-")
            aliases = {option, "--" + setting.name, option.lower()}
            shown = "" if setting.default is None else f" (default {_shorten(setting.default)})"
            group.add_argument(
                *sorted(aliases, key=lambda alias: alias != option),
                dest=setting.name,
                metavar=setting.name.upper(),
                help=(meanings[setting.name] + shown).replace("%", "%%"),
            )


def _refuse_arguments(parser: argparse.ArgumentParser, message: str) -> typing.NoReturn:
    """One line instead of argparse's page of usage, with the nearest option where one is unknown."""
    unknown = message.removeprefix("unrecognized arguments: ").split()[0]
    if unknown != message.split()[0] and unknown.startswith("-"):
        options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
        raise ConfigError(f"unknown option {unknown}: {_nearest(unknown.split('=')[0], options)}")
    raise ConfigError(f"{message}; {parser.prog} --help tells the options")


def config_from_arguments(arguments: argparse.Namespace) -> Config:
    """The settings of a command whose parser was filled by `add_arguments`."""
    given = {name: value for name, value in vars(arguments).items() if name in FIELDS}
    if not arguments.demo:
        return load_config(file=arguments.config, overrides=given)
    # The demo stands in the schema `music`, whatever tables somebody's queries read.
    given["queries_folder"] = DatabaseConfig.queries_folder
    return load_config(file=arguments.config, overrides=given, defaults=DEMO_SETTINGS)


@functools.cache
def describe(cls: type) -> dict[str, str]:
    """The line under each field of a settings dataclass, by name: the one place where a setting's meaning stands."""
    definition = ast.parse(inspect.getsource(cls)).body[0]
    assert isinstance(definition, ast.ClassDef)
    meanings: dict[str, str] = {}
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            assert isinstance(after.value, ast.Constant)
            meanings[before.target.id] = str(after.value.value)
    return meanings


def _from_file(file: Path | None) -> Iterable[tuple[str, str, Any]]:
    path = Path(DEFAULT_CONFIG_FILE) if file is None else file
    if not path.is_file():
        if file is not None:
            raise ConfigError(f"settings file {path} does not exist")
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"settings file {path} is not valid TOML: {exc}") from exc
    for section, settings in content.items():
        if section not in SECTIONS or not isinstance(settings, dict):
            raise ConfigError(f"unknown section [{section}] in {path}: {_nearest(section, SECTIONS)}")
        names = [setting.name for setting in dataclasses.fields(SECTIONS[section])]
        for name, value in settings.items():
            if name not in names:
                raise ConfigError(f"unknown setting {name!r} in [{section}] of {path}: {_nearest(name, names)}")
            yield section, name, value


def _known_name(name: str, origin: str) -> str:
    by_folded_name = {known.lower(): known for known in FIELDS}
    if name.lower() not in by_folded_name:
        raise ConfigError(f"unknown {origin}: {_nearest(name.lower(), by_folded_name)}")
    return by_folded_name[name.lower()]


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Turn a TOML value or a text into the field's type, or say which type it should have been."""
    options: Sequence[Any] = (hint,)
    if isinstance(hint, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if value is None or (isinstance(value, str) and value.lower() in ("", "none")):
            return None
    wanted = options[0]
    if typing.get_origin(wanted) is Literal:
        choices = typing.get_args(wanted)
        if value not in choices:
            raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))} (got {value!r})")
        return value
    if wanted is bool:
        truth = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in truth:
            return truth[str(value).lower()]
        raise ConfigError(f"{name} must be true or false (got {value!r})")
    if wanted in (int, float) and isinstance(value, bool):
        raise ConfigError(f"{name} must be a number (got {value!r})")
    try:
        converted = wanted(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ConfigError(f"{name} must be {_article(wanted)} (got {value!r})") from exc
    if wanted is int and isinstance(value, float) and converted != value:
        raise ConfigError(f"{name} must be a whole number (got {value!r})")
    if wanted is float and not math.isfinite(converted):
        raise ConfigError(f"{name} must be a finite number (got {value!r})")
    return converted


def _article(wanted: type) -> str:
    return {int: "a whole number", float: "a number", Path: "a path", str: "a text"}[wanted]


def _require(holds: bool, name: str, value: Any, bound: str) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {bound} (got {value})")


def _shorten(default: Any) -> str:
    return str(default).removeprefix(f"{PROJECT_ROOT}{os.sep}")


def _without_password(url: str) -> str:
    """The URL without its secrets, for files and messages; of one that cannot be taken apart only the scheme is left.

    >>> _without_password("postgresql://me:secret@db/music?sslmode=require&password=secret")
    'postgresql://me@db/music?sslmode=require'
    """
    scheme, separator, rest = url.partition("://")
    login, at, address = rest.partition("@")
    if not at or "/" in login:  # as libpq reads it, a login ends before the first slash
        login, at, address = "", "", rest
    address, _, query = address.partition("?")
    parameters = query.split("&") if query else []
    if not separator or not _ADDRESS.fullmatch(address) or not all(map(_PARAMETER.fullmatch, parameters)):
        return f"{scheme}://..." if separator else "..."
    kept = [parameter for parameter in parameters if unquote(parameter.partition("=")[0]).lower() not in _SECRET_PARAMETERS]
    return f"{scheme}://{login.partition(':')[0]}{at}{address}{'?' if kept else ''}{'&'.join(kept)}"
