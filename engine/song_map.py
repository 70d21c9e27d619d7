"""A sample of a model's songs laid out in the plane by their embeddings, so that songs which are alike lie together.

Made once for a checkpoint and kept beside it; the service reads it (`serving.song_map`) and has no need of scikit-learn for that.
Near is like; the axes mean nothing, nor does how far two groups lie apart.
"""

import json
import logging
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from config import FIRST_NUMBER
from engine.checkpoint import MAP
from engine.description import read_description
from engine.files import write_json
from errors import CheckpointError
from model import BERT4Rec

log = logging.getLogger(__name__)

LEAST_SONGS = 10  # fewer have no neighbourhoods to show
PERPLEXITY = 30.0  # van der Maaten and Hinton 2008 name 5 to 50; fewer songs take a third of their number
DIMENSIONS = 30  # that t-SNE sees: the paper's own first step
# 2,000 songs take 3 s; 1,000 rounds, scikit-learn's default, take twice as long for a layout that looks the same.
ROUNDS = 500
# Threads of OpenMP wait for each other by spinning: beside other work two took 16 s of both cores for what one does in 3 s.
THREADS = 1
DIGITS = 4  # of a coordinate: the map is a picture


def ensure_map(checkpoint: Path, model: BERT4Rec, count: int) -> bool:
    """Make the map of a checkpoint with at most `count` songs, unless it is there; 0 makes none.  Whether there is one now.

    A model without a map still answers, so what goes wrong here is logged, never raised.
    """
    if not count:
        return False
    try:
        digest = read_description(checkpoint)["weights_digest"]
        if _is_of(checkpoint / MAP, digest):
            return True
        songs = sampled_songs(model.n_songs, count)
        if len(songs) < LEAST_SONGS:
            log.info("no map of the songs: there are %d, and it takes %d", len(songs), LEAST_SONGS)
            return False
        places = lay_out(embeddings_of(model, songs))
        write_json(checkpoint / MAP, _described(digest, songs, places))
    except (CheckpointError, ValueError) as exc:
        log.warning("the model has no map of its songs: %s", exc)
        return False
    return True


def sampled_songs(n_songs: int, count: int) -> np.ndarray:
    """At most `count` song numbers below `n_songs`, in rising order: half of them those that are played most, the rest drawn.

    Songs are numbered by falling frequency.  The same arguments draw the same songs.
    """
    numbers = np.arange(FIRST_NUMBER, n_songs)
    if len(numbers) <= count:
        return numbers
    frequent, others = np.split(numbers, [count // 2])
    drawn = np.random.default_rng(0).choice(others, count - len(frequent), replace=False)
    return np.concatenate([frequent, np.sort(drawn)])


@torch.inference_mode()
def embeddings_of(model: BERT4Rec, songs: np.ndarray) -> np.ndarray:
    """The embeddings of some songs, (n, D), each of length 1: what counts is where they point."""
    embedded = model.embedding(torch.from_numpy(songs).to(model.bias.device)).float()
    return torch.nn.functional.normalize(embedded, dim=-1).cpu().numpy()


def lay_out(vectors: np.ndarray) -> np.ndarray:
    """Places in the unit square for vectors (n, D), (n, 2).  Raises ValueError where they cannot be laid out."""
    if not np.isfinite(vectors).all() or np.ptp(vectors, axis=0).max() < 1e-6:
        raise ValueError("its embeddings are all the same, or no numbers")
    n, D = vectors.shape
    perplexity = min(PERPLEXITY, (n - 1) / 3)
    with threadpool_limits(THREADS):
        fewer = PCA(min(DIMENSIONS, D, n - 1), svd_solver="full").fit_transform(vectors)
        placed = TSNE(init="pca", perplexity=perplexity, max_iter=ROUNDS, random_state=0).fit_transform(fewer).astype(np.float64)
    low, width = placed.min(axis=0), np.ptp(placed, axis=0).max()
    if not np.isfinite(placed).all() or width == 0:
        raise ValueError("its embeddings cannot be laid out")
    # One scale for both axes, so that distances keep their proportions; the shorter side is centred.
    margin = (width - np.ptp(placed, axis=0)) / 2
    return np.asarray((placed - low + margin) / width)


def _described(digest: str, songs: np.ndarray, places: np.ndarray) -> dict[str, object]:
    perplexity = min(PERPLEXITY, (len(songs) - 1) / 3)
    return {
        "format_version": 1,
        "weights_digest": digest,
        "method": f"t-SNE of the song embeddings (perplexity {perplexity:.3g})",
        "songs": songs.tolist(),
        "x": places[:, 0].round(DIGITS).tolist(),
        "y": places[:, 1].round(DIGITS).tolist(),
    }


def _is_of(path: Path, digest: str) -> bool:
    """Whether a map is there and of these weights."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8"))["weights_digest"] == digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False
