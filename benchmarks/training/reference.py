"""The trainer that one would write first, kept as it would be written: the measure of what the engine is worth.

One playlist per item, looked up in a pandas frame and masked song by song; the same widths, layers and features as ours; softmax
over the catalogue at every place, and then its logarithm; evaluation one row at a time.
"""

import time

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from config import FIRST_NUMBER, MASK, ModelConfig
from evaluation.metrics import ndcg_at
from evaluation.protocols import NextSongTask
from snapshot import Snapshot
from splits import TRAIN, VALIDATION


class Playlists(Dataset):  # type: ignore[type-arg]
    """One playlist per item."""

    def __init__(self, snapshot: Snapshot, seq_len: int, cloze_probability: float, part: int = TRAIN):
        songs, offsets = snapshot.part(part)
        playlist = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        features = pd.DataFrame(np.asarray(snapshot.song_features)[songs]).add_prefix("feature_")
        self.rows = pd.DataFrame(
            {
                "playlist_id": playlist,
                "song": songs,
                "artist": np.asarray(snapshot.song_artist)[songs],
                "album": np.asarray(snapshot.song_album)[songs],
            }
        ).join(features)
        self.feature_columns = list(features.columns)
        self.playlist_ids = self.rows["playlist_id"].unique()
        self.seq_len, self.cloze_probability = seq_len, cloze_probability

    def __len__(self) -> int:
        return len(self.playlist_ids)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        rows = self.rows[self.rows["playlist_id"] == self.playlist_ids[item]].tail(self.seq_len)
        return self._tensors(rows, [np.random.random() < self.cloze_probability for _ in range(len(rows))])

    def before(self, item: int, position: int) -> dict[str, Tensor]:
        """What is shown of a playlist to ask for the song at `position`: the songs before it, then MASK."""
        rows = self.rows[self.rows["playlist_id"] == self.playlist_ids[item]].iloc[: position + 1].tail(self.seq_len + 1)
        shown = self._tensors(rows, [False] * (len(rows) - 1) + [True])
        return {name: column for name, column in shown.items() if name != "label"}

    def _tensors(self, rows: pd.DataFrame, is_masked: list[bool]) -> dict[str, Tensor]:
        masked = {
            name: [MASK if hidden else number for number, hidden in zip(rows[name], is_masked, strict=True)]
            for name in ("song", "artist", "album")
        }
        labels = [song if hidden else 0 for song, hidden in zip(rows["song"], is_masked, strict=True)]
        features = rows[self.feature_columns].to_numpy(np.float32)
        features = np.where(np.array(is_masked)[:, None], np.float32(0), features)
        padding = max(0, self.seq_len - len(rows))
        return {
            **{name: torch.tensor([0] * padding + numbers) for name, numbers in masked.items()},
            "features": torch.tensor(np.vstack([np.zeros((padding, features.shape[1]), np.float32), features])),
            "label": torch.tensor([0] * padding + labels),
        }


class Network(nn.Module):
    """Embeddings side by side, features added, a transformer encoder, a linear layer over the catalogue."""

    def __init__(self, config: ModelConfig, snapshot: Snapshot):
        super().__init__()
        counts = snapshot.manifest["counts"]
        self.song = nn.Embedding(counts["songs"], config.d_songs, padding_idx=0)
        self.artist = nn.Embedding(counts["artists"], config.d_artists, padding_idx=0)
        self.album = nn.Embedding(counts["albums"], config.d_albums, padding_idx=0)
        self.features = nn.Linear(snapshot.song_features.shape[1], config.d_model)
        self.position = nn.Embedding(config.seq_len, config.d_model)
        layer = nn.TransformerEncoderLayer(
            config.d_model, config.heads, config.d_ff, config.dropout_prob, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, config.N, enable_nested_tensor=False)
        self.out = nn.Linear(config.d_model, counts["songs"])

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Probabilities of every song at every place, (B, L, V)."""
        embedded = torch.cat([self.song(batch["song"]), self.artist(batch["artist"]), self.album(batch["album"])], dim=-1)
        embedded = embedded + self.features(batch["features"]) + self.position(torch.arange(embedded.shape[1]))
        hidden = self.encoder(embedded, src_key_padding_mask=batch["song"] == 0)
        return torch.softmax(self.out(hidden), dim=-1)


class Reference:
    """The trainer: give it seconds, and it says how far it came."""

    def __init__(self, snapshot: Snapshot, config: ModelConfig, batch_size: int, cloze_probability: float):
        torch.manual_seed(0)
        np.random.seed(0)
        self.data = Playlists(snapshot, config.seq_len, cloze_probability)
        self.network = Network(config, snapshot)
        self.loader = DataLoader(self.data, batch_size=batch_size, shuffle=True)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def train(self, warm_up: float, seconds: float) -> dict[str, float]:
        """Train and count what is trained on between the warm-up and the end, to whole batches."""
        started = last = time.perf_counter()
        begun, sequences, predictions = None, 0, 0
        self.network.train()
        while begun is None or last - begun < seconds:
            for batch in self.loader:
                self._step(batch)
                last = time.perf_counter()
                if begun is None:
                    begun = last if last - started >= warm_up else None
                    continue
                sequences += len(batch["song"])
                predictions += int((batch["label"] > 0).sum())
                if last - begun >= seconds:
                    break
        elapsed = last - begun
        return {
            "sequences_per_s": sequences / elapsed,
            "predictions_per_s": predictions / elapsed,
        }

    def _step(self, batch: dict[str, Tensor]) -> None:
        self.optimizer.zero_grad()
        probabilities = self.network(batch)  # (B, L, V)
        loss = nn.functional.nll_loss(torch.log(probabilities + 1e-9).flatten(0, 1), batch["label"].flatten(), ignore_index=0)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    @torch.no_grad()
    def validate(self, snapshot: Snapshot, tasks: NextSongTask, seconds: float) -> dict[str, float]:
        """Score tasks one row at a time until the seconds are over; at least ten."""
        self.network.eval()
        held_out = Playlists(snapshot, self.data.seq_len - 1, 0.0, VALIDATION)
        playlist = np.unique(tasks.sequence, return_inverse=True)[1]
        begin, done, quality = time.perf_counter(), 0, 0.0
        for item, position, target in zip(playlist, tasks.position, tasks.targets, strict=True):
            batch = {name: column[None] for name, column in held_out.before(item, position).items()}
            scores = torch.log(self.network(batch) + 1e-9)[0, -1]
            heard = batch["song"][0]
            scores[:FIRST_NUMBER] = -torch.inf
            scores[heard] = -torch.inf
            rank = int((torch.argsort(scores, descending=True) == int(target)).nonzero()[0]) + 1
            quality += float(ndcg_at(np.array([rank]), 10)[0])
            done += 1
            if done >= 10 and time.perf_counter() - begin >= seconds:
                break
        return {"tasks_per_s": done / (time.perf_counter() - begin), "ndcg10": quality / done}
