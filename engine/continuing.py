"""A new run that begins with what an earlier one learned, on a snapshot that has moved on since.

Rows of the embedding tables are carried over by id, whatever their numbers are.  A song, album or artist that the earlier model
had no row for begins with the row of UNKNOWN, which stood in for it until now, so the new model begins where the old one ended.
Columns of features are carried over by name.  The memory's tables are counted anew; what it learned is carried over by source.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from config import FIRST_NUMBER, UNKNOWN, Config
from encoder_files import Encoders, load_encoders
from engine.checkpoint import Checkpoint, load_checkpoint
from engine.description import DESCRIPTION
from engine.resuming import refuse_other_settings
from engine.runs import SETTINGS, find_checkpoint, newest_finished_run
from errors import CheckpointError
from memory import Memory
from model import BERT4Rec, FeatureProjection, PartEmbedding
from preprocessing_utils import IdEncoder
from settings import as_plain
from snapshot import Snapshot

log = logging.getLogger("train")

FREE_TO_CHANGE = {"dropout_prob"}  # of the model's settings: it shapes no weight


def checkpoint_to_continue(path: Path) -> Path:
    """The checkpoint that a path means: itself, the best of a run, or the best of the newest finished run below it."""
    if (path / DESCRIPTION).is_file() or (path / SETTINGS).is_file():
        return find_checkpoint(path)
    run = newest_finished_run(path)
    if run is None:
        raise CheckpointError(f"no finished run in {path} to continue: train one first, or name a run with --continue-from RUN")
    return find_checkpoint(run)


def continue_from(folder: Path, model: BERT4Rec, config: Config, snapshot: Snapshot) -> dict[str, object]:
    """Give a fresh model what a checkpoint learned; returns what the new run's origin says of it.

    Raises ConfigError for a model of another shape, and EncoderError where ids are of another type.
    """
    old = load_checkpoint(folder)
    wanted = {name: value for name, value in as_plain(config.model).items() if name not in FREE_TO_CHANGE}
    refuse_other_settings(as_plain(old.model.config), wanted, f"{old.path.parent.name}, which is to be continued,")
    encoders = load_encoders(old.encoders_folder, old.encoders_digest)
    ours = load_encoders(config.preprocessing.encoders_folder, snapshot.manifest["encoders_digest"])
    known = carry_over(old.model, encoders, model, ours, snapshot.manifest["feature_names"])
    log.info("continuing %s: %s known to it", old.model_id, known)
    if snapshot.policy == "sequence" and snapshot.digest != old.snapshot_digest:
        log.warning(
            "%s was trained on another snapshot, and a split by sequence holds out other lists in each: it may have learned "
            "those that judge the new model, whose figures are then too good; set split to time, or start a new run",
            old.model_id,
        )
    return origin_of_continued(old)


def origin_of_continued(old: Checkpoint) -> dict[str, object]:
    """What a run is continued from, for whoever looks at it later."""
    return {"run": old.path.parent.name, "epoch": old.epoch, "model_id": old.model_id, "snapshot_digest": old.snapshot_digest}


@torch.no_grad()
def carry_over(old: BERT4Rec, old_encoders: Encoders, model: BERT4Rec, encoders: Encoders, feature_names: Sequence[str]) -> str:
    """Copy all parameters of the old model into the new one, grown; returns in words how much of the new one is known."""
    parts = old.embedding
    songs = rows_by_id(old_encoders.songs, encoders.songs, old.n_fitted_songs, model.n_fitted_songs, parts.song)
    albums = rows_by_id(old_encoders.albums, encoders.albums, old.n_fitted_albums, model.n_fitted_albums, parts.album)
    artists = rows_by_id(old_encoders.artists, encoders.artists, old.n_fitted_artists, model.n_fitted_artists, parts.artist)
    columns = _columns_by_name(old_encoders.features.feature_names, feature_names)
    rows = {
        "embedding.song.weight": songs,
        "bias": songs,
        "embedding.album.weight": albums,
        "embedding.artist.weight": artists,
    }
    theirs = dict(old.named_parameters())
    for name, weight in model.named_parameters():
        if name in theirs and not name.startswith("memory."):
            source = theirs[name].to(weight.device)
            if name in rows:
                source = source[rows[name].to(weight.device)]
            elif name == "embedding.features.hidden.weight":
                source = _with_columns(source, columns.to(weight.device))
            weight.copy_(source)
    if model.embedding.features is not None:
        _standardise_as_before(model.embedding.features, model.embedding.song_features, songs, columns)
    if model.memory is not None and old.memory is not None:
        _carry_over_memory(old.memory, model.memory)
    kinds = (("songs", songs), ("albums", albums), ("artists", artists))
    return ", ".join(f"{int((row > UNKNOWN).sum())} of {len(row) - FIRST_NUMBER} {kind}" for kind, row in kinds)


def rows_by_id(old: IdEncoder, new: IdEncoder, n_old: int, n_new: int, table: PartEmbedding | None = None) -> Tensor:
    """The old row of each new number, (n_new,) int64; UNKNOWN where the old model had no row of its own for the id.

    `n_old` and `n_new` are the rows of the tables, the specials included; `table`, the old one, knows which of them lay idle.
    """
    ids = new.ids.slice(0, n_new - FIRST_NUMBER)
    numbers = old.encode(ids) if len(ids) else np.zeros(0, np.int32)
    numbers = np.where(numbers < n_old, numbers, UNKNOWN)
    rows = torch.from_numpy(np.concatenate([np.arange(FIRST_NUMBER), numbers]).astype(np.int64))
    return rows if table is None or table.row is None else table.row.cpu()[rows]


def _columns_by_name(old: Sequence[str], new: Sequence[str]) -> Tensor:
    """The old column of each new one, (F,); -1 where it is new."""
    place = {name: number for number, name in enumerate(old)}
    return torch.tensor([place.get(name, -1) for name in new], dtype=torch.int64)


def _with_columns(weight: Tensor, columns: Tensor) -> Tensor:
    """The old columns (D, F_old) where the new features have them, (D, F); a new feature says nothing at first."""
    return torch.where(columns >= 0, weight[:, columns.clamp(min=0)], 0.0)


def _standardise_as_before(features: FeatureProjection, song_features: Tensor, songs: Tensor, columns: Tensor) -> None:
    """Standardise by the songs that the old model was trained on.

    The encoders were fitted anew, so an old song's numbers have been shifted and scaled; among the same songs it stands where it
    stood.
    """
    real = song_features[torch.nonzero(songs > UNKNOWN).squeeze(1).to(song_features.device)]
    if not len(real):
        return
    is_old = (columns >= 0).to(real.device)
    spread = real.std(dim=0, correction=0)
    features.mean.copy_(torch.where(is_old, real.mean(dim=0), features.mean))
    features.std.copy_(torch.where(is_old & (spread > 1e-6), spread, features.std))


def _carry_over_memory(old: Memory, new: Memory) -> None:
    """What the memory learned, relation by relation; one of another shape, or that the old one had not, begins anew."""
    new.popularity.copy_(old.popularity)
    theirs = old.learned()
    for name, ours in new.learned().items():
        learned = theirs.get(name, [])
        if [part.shape for part in ours] != [part.shape for part in learned]:
            log.info("the memory's relation %s begins anew", name)
            continue
        for part, of_old in zip(ours, learned, strict=True):
            part.copy_(of_old)
    if new.judgement is not None and old.judgement is not None:
        if list(new.learned()) == list(theirs) and new.gate.weight.shape == old.gate.weight.shape:
            new.judgement.load_state_dict(old.judgement.state_dict())
        else:
            log.info("the memory's judgement begins anew: it reads other relations")
