"""Every setting, as one frozen dataclass per concern: its default, its meaning in the line below it, and its bounds.

Where the values come from is told in settings.py; options.py makes an option of each.  The names of the original project
(seq_len, N, heads, cloze_probability, ...) keep their meaning; README.md has the table.
"""

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from database_urls import without_password
from errors import ConfigError

PROJECT_ROOT = Path(__file__).resolve().parent

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
            raise ConfigError(f"database url must start with postgresql:// (got {without_password(self.url)!r})")

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


def _require(holds: bool, name: str, value: Any, bound: str) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {bound} (got {value})")
