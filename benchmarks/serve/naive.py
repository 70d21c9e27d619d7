"""The handler that one would write first: one request, one fp32 product with all songs, `torch.topk`.

    python -m benchmarks.serve.naive RUN --port 4600 [--torch-threads 1]

It has what a careful person gives it at once: the same model and weights as the service, output embeddings computed once, a dict
from ids to numbers, inference mode, as many waitress threads as the service, and no log.  It knows no rules, no reasons, no
metrics and no database, and checks nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import waitress
from flask import Flask, Response, jsonify, request

from config import FIRST_NUMBER, ServiceConfig
from dataset import inference_batch
from encoder_files import load_encoders
from engine.checkpoint import load_checkpoint
from engine.runs import find_checkpoint
from model import BERT4Rec


class Naive:
    """A model with its output side computed once."""

    def __init__(self, model: BERT4Rec, song_ids: Sequence[int | str]) -> None:
        """`song_ids`: those of the catalogue in the order of their numbers, without the specials."""
        self._model = model.eval()
        self._ids = song_ids
        self._number_of = {song_id: number for number, song_id in enumerate(song_ids, FIRST_NUMBER)}
        with torch.inference_mode():
            self._embeddings, self._bias = model.output_embeddings(), model.output_bias()  # (V, D), (V,)

    @classmethod
    def load(cls, run: Path) -> "Naive":
        """The best checkpoint of a run."""
        checkpoint = load_checkpoint(find_checkpoint(run))
        encoders = load_encoders(checkpoint.encoders_folder, checkpoint.encoders_digest)
        return cls(checkpoint.model, encoders.songs.decode(range(FIRST_NUMBER, len(encoders.songs))))

    def recommend(self, songs: Sequence[int | str], count: int) -> list[dict[str, Any]]:
        """The best songs after a sequence, none of it among them: as `model.score` says."""
        numbers = [self._number_of[song_id] for song_id in songs if song_id in self._number_of]
        row = inference_batch([np.array(numbers, np.int64)], self._model.row_len)  # (1, L)
        with torch.inference_mode():
            queries = self._model.encode_last(row)  # (1, D)
            scores = queries @ self._embeddings.T + self._bias  # (1, V)
            scores = self._model.add_looked_up(scores, self._model.look_up(row, queries))[0]
            scores[:FIRST_NUMBER] = -torch.inf
            scores[numbers] = -torch.inf
            best = torch.topk(scores, count)
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [
            {"song_id": self._ids[number - FIRST_NUMBER], "rank": rank, "score": score}
            for rank, (number, score) in enumerate(found, start=1)
        ]


def create_app(naive: Naive) -> Flask:
    """POST /recommend {"songs": [...], "count": 10} -> 200 {"songs": [{"song_id", "rank", "score"}, ...]}."""
    app = Flask(__name__)

    @app.post("/recommend")
    def recommend() -> Response:
        body = request.get_json()
        return jsonify({"songs": naive.recommend(body["songs"], body["count"])})

    return app


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="The handler that one would write first.")
    parser.add_argument("run", type=Path, help="a run or checkpoint folder")
    parser.add_argument("--port", type=int, required=True, help="TCP port on loopback")
    parser.add_argument("--torch-threads", type=int, help="threads of one product (default: what torch takes by itself)")
    arguments = parser.parse_args(argv)
    if arguments.torch_threads is not None:
        torch.set_num_threads(arguments.torch_threads)
    app = create_app(Naive.load(arguments.run))
    waitress.serve(app, host="127.0.0.1", port=arguments.port, threads=ServiceConfig().server_threads)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
