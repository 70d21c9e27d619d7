"""What a checkpoint says of itself: checkpoint.json, and in it a model as plain data, from which the empty one is built again.

A model is stored in three parts: its shape as plain data, its parameters, and its catalogue with the memory's tables, which
training does not change.  The empty model has the shape and the catalogue; its parameters are loaded by whoever asks for it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from config import ModelConfig
from errors import CheckpointError
from memory import EDITED, Memory
from model import BERT4Rec, Catalogue
from newcomers import Groups, Newcomers
from settings import as_plain, build_section
from sources import CountedRelations, HeardBefore, ListIndex, NearestLists, Relations, Source

FORMAT_VERSION = 5
DESCRIPTION, WEIGHTS = "checkpoint.json", "weights.safetensors"

# What every checkpoint.json names; a folder that lacks one of them is not ours.
DESCRIBED = frozenset(
    {
        "epoch",
        "model",
        "memory",
        "judged",
        "newcomers",
        "counts",
        "metrics",
        "weights_digest",
        "catalogue_digest",
        "training_state_digest",
    }
    | {"encoders_digest", "snapshot_digest", "trained_at"}
)


def read_description(folder: Path) -> dict[str, Any]:
    """The checkpoint.json of a checkpoint folder, with all that `DESCRIBED` lists; CheckpointError where it is not one."""
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        version = described["format_version"]
        lacking = sorted(DESCRIBED - set(described))
        complete = (folder / WEIGHTS).is_file()
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(f"{folder} is not a checkpoint of this project ({exc})") from exc
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {folder} has format {version} (this version reads {FORMAT_VERSION}): train a new model"
        )
    if not complete:
        raise CheckpointError(f"checkpoint {folder} lacks {WEIGHTS}: name another one")
    if lacking:
        raise CheckpointError(f"{folder} is not a checkpoint of this project ({DESCRIPTION} lacks {', '.join(lacking)})")
    return dict(described)


# --- models ------------------------------------------------------------------------------------------------------------------


def empty_model(described: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> BERT4Rec:
    """A model of the described shape around the stored catalogue, its parameters still random."""
    counts, config = described["counts"], build_section(ModelConfig, described["model"])
    catalogue = Catalogue(
        song_artist=buffers["embedding.song_artist"],
        song_album=buffers["embedding.song_album"],
        song_features=buffers["embedding.song_features"],
        n_fitted_songs=counts["fitted_songs"],
        n_fitted_albums=counts["fitted_albums"],
        n_fitted_artists=counts["fitted_artists"],
        fitted=buffers.get("embedding.fitted"),
    )
    memory = _empty_memory(config.d_model, described, buffers)
    return BERT4Rec(config, catalogue, memory)


def _empty_memory(d_model: int, described: Mapping[str, Any], buffers: Mapping[str, torch.Tensor]) -> Memory | None:
    """A memory with the described sources around their stored tables; None where there are none."""
    sources = [
        _empty_source(source, _below(f"memory.sources.{number}.", buffers)) for number, source in enumerate(described["memory"])
    ]
    if not sources:
        return None
    newcomers = None
    if described["newcomers"] is not None:
        tables = [Groups(**_below(f"memory.newcomers.tables.{number}.", buffers)) for number in range(len(Newcomers.names))]
        newcomers = Newcomers(tables, described["newcomers"]["reach"])
    return Memory(d_model, sources, buffers["memory.song_plays"], described["judged"], newcomers)


def _below(prefix: str, buffers: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): buffer for name, buffer in buffers.items() if name.startswith(prefix)}


def _empty_source(described: Mapping[str, Any], tables: dict[str, torch.Tensor]) -> Source:
    names = tuple(described["names"])
    if names == HeardBefore.names:
        return HeardBefore(described["reach"])
    if names == NearestLists.names:
        return NearestLists(ListIndex(**tables), described["neighbours"], described["reach"])
    return CountedRelations(
        Relations(
            names=names, reaches=tuple(described["reaches"]), rows=tuple(described["rows"]), most=described["most"], **tables
        )
    )


def describe_model(model: BERT4Rec) -> dict[str, Any]:
    """A model's shape as plain data: what `empty_model` cannot tell from the stored buffers."""
    return {
        "model": as_plain(model.config),
        "memory": _describe_memory(model.memory),
        "judged": _judged_by(model.memory),
        "newcomers": _describe_newcomers(model.memory),
        "counts": _counts_of(model),
    }


def _describe_memory(memory: Memory | None) -> list[dict[str, Any]]:
    if memory is None:
        return []
    return [_describe_source(source) for source in memory.sources]


def _describe_newcomers(memory: Memory | None) -> dict[str, Any] | None:
    return None if memory is None or memory.newcomers is None else {"reach": memory.newcomers.reach}


def _judged_by(memory: Memory | None) -> int:
    """How many songs of a place are judged."""
    return 0 if memory is None or memory.judgement is None else memory.judgement.most


def _describe_source(source: torch.nn.Module) -> dict[str, Any]:
    """What `_empty_source` cannot tell from the tables."""
    if isinstance(source, CountedRelations):
        return {"names": source.names, "reaches": source.reaches, "rows": source.rows, "most": source.most}
    if isinstance(source, NearestLists):
        return {"names": source.names, "reach": source.reach, "neighbours": source.neighbours}
    return {"names": source.names, "reach": source.reach}


def _counts_of(model: BERT4Rec) -> dict[str, int]:
    return {
        "songs": model.n_songs,
        "features": model.embedding.song_features.shape[1],
        "fitted_songs": model.n_fitted_songs,
        "fitted_albums": model.n_fitted_albums,
        "fitted_artists": model.n_fitted_artists,
    }


def stored_buffers(model: BERT4Rec) -> dict[str, torch.Tensor]:
    """The buffers that a model is used with: of the memory's tables the full edition, the others are made anew for training."""
    kept = set(model.state_dict())
    return {
        name: (buffer[:1] if name.startswith("memory.") and name.rsplit(".", 1)[1] in EDITED else buffer).detach().clone()
        for name, buffer in model.named_buffers()
        if name in kept
    }
