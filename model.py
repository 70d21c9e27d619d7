"""BERT4Rec over songs, albums, artists and audio features, in one file.

The network of BERT4Rec (Sun et al. 2019, https://arxiv.org/abs/1904.06690): a bidirectional transformer encoder that predicts
hidden songs of a sequence; or, with `objective = "causal"`, one that predicts each song from those before it, as SASRec does
(Kang and McAuley 2018, https://arxiv.org/abs/1808.09781).  A song enters as its song, album and artist embeddings side by side
plus a projection of its numeric features, and leaves through the same parts: the score of a song is the product of the encoder's
output with that sum.  So a song that no training sequence held still has a score, from its artist, its album and how it sounds.

Beside it stands a memory (`memory`) of what plain counting knows.  Each learns to predict these songs by itself, and the
score is the memory's plus `encoder_weight` times the encoder's, and `newcomer_bonus` for songs that no training list holds.  The
two numbers are chosen on held-out lists (`engine.fusion`), not trained: the encoder has seen the training lists and the memory
has not, so in training the encoder looks better than it is; and how many new songs come later no training list can tell.

Shape letters: B rows of a batch, L places of a row, M places asked for in a batch, V songs of the catalogue (the three specials
included), T songs seen in training (a prefix of V), K sampled negatives, D width of the model, F feature columns, H heads.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import FIRST_NUMBER, MASK, PAD, UNKNOWN, ModelConfig
from losses import OUT, Negatives, linear_cross_entropy, sampled_cross_entropy
from memory import LookedUp, Memory
from sources import Origin, twin

# The parts of the output embedding would start far from orthogonal at a larger scale; BERT's 0.02 starts too flat for catalogues.
EMBEDDING_STD = 0.05
# Width of the hidden layer through which features go: every song of the catalogue passes it in every step.
FEATURE_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What is known of each song, by song number.  Numbers from n_fitted_* on were not seen in training.

    Below n_fitted_songs may be gaps where numbers are older than the training part (an incremental preprocessing keeps them):
    songs that are not in `fitted`.  They, and artists and albums of such songs alone, are as unknown as what comes later.
    """

    song_artist: Tensor  # (V,) int
    song_album: Tensor  # (V,) int
    song_features: Tensor  # (V, F) float32
    n_fitted_songs: int
    n_fitted_albums: int
    n_fitted_artists: int
    fitted: Tensor | None = None  # (n_fitted_songs,) bool; None: every one

    def fitted_numbers(self, n_fitted: int, of_song: Tensor) -> Tensor | None:
        """Which artists (or albums) below `n_fitted` are those of a fitted song, (n_fitted,) bool; None where there are no gaps.

        `of_song` (V,) names the artist (or album) of each song.
        """
        if self.fitted is None:
            return None
        songs = slice(FIRST_NUMBER, self.n_fitted_songs)
        numbers = of_song[songs][self.fitted[songs].to(of_song.device)].long()
        fitted = torch.arange(n_fitted, device=of_song.device) < FIRST_NUMBER
        fitted[numbers[numbers < n_fitted]] = True
        return fitted


class PartEmbedding(nn.Embedding):
    """An embedding table for the fitted numbers; every other number takes the row of UNKNOWN."""

    row: Tensor | None

    def __init__(self, n_fitted: int, width: int, fitted: Tensor | None = None):
        """`fitted` (n_fitted,) is false at numbers that are not fitted all the same; their rows lie idle."""
        super().__init__(n_fitted, width, padding_idx=PAD)
        nn.init.normal_(self.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.weight[PAD].zero_()
        row = None if fitted is None else torch.where(fitted, torch.arange(n_fitted, device=fitted.device), UNKNOWN)
        self.register_buffer("row", row, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Embed numbers of any shape (...) into (..., width)."""
        rows = torch.where(numbers < self.num_embeddings, numbers, UNKNOWN)
        return super().forward(rows if self.row is None else self.row[rows])


class GELU(nn.Module):
    """Gaussian error linear unit (Hendrycks and Gimpel 2016), x times the normal distribution function of x."""

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape."""
        if values.device.type != "cpu" or not self.training:
            return F.gelu(values)
        activated: Tensor = _TrainedGELU.apply(values)  # type: ignore[no-untyped-call]
        return activated


class _TrainedGELU(torch.autograd.Function):
    """On a processor torch's own backward takes three times as long: it evaluates the error function once more."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        # 1 + erf(x) in bfloat16 would keep nothing of what is far below 0.
        below = torch.special.ndtr(values.to(torch.promote_types(values.dtype, torch.float32))).to(values.dtype)
        ctx.save_for_backward(values, below)
        return values * below

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:
        values, below = ctx.saved_tensors
        slope: Tensor = values.square().mul_(-0.5).exp_().mul_((2 * math.pi) ** -0.5).mul_(values).add_(below)
        return slope.mul_(grad_outputs[0])


class FeatureProjection(nn.Module):
    """Numeric features to model width: standardised over the songs of training, then a two-layer perceptron.

    The hidden layer lets a feature prefer a value (the next track number, a tempo close by) where a plain product could only
    prefer more or less of it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, song_features: Tensor, fitted: Tensor, d_model: int):
        """`song_features` (V, F); `fitted` (V,) bool, the songs of training."""
        super().__init__()
        real = song_features[fitted]
        columns = song_features.shape[1]
        spread = real.std(dim=0, correction=0) if len(real) else torch.zeros(columns)
        self.register_buffer("mean", real.mean(dim=0) if len(real) else torch.zeros(columns))
        self.register_buffer("std", torch.where(spread > 1e-6, spread, 1.0))
        self.hidden = nn.Linear(columns, FEATURE_WIDTH)
        self.activation = GELU()
        self.out = nn.Linear(FEATURE_WIDTH, d_model)
        nn.init.normal_(self.out.weight, std=EMBEDDING_STD / FEATURE_WIDTH**0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) to (..., D)."""
        return self.out(self._activated(features))

    def added_to(self, embedded: Tensor, features: Tensor) -> Tensor:
        """The projection of features (T, F) without its bias, added to (T, D): one operation where all songs are candidates."""
        return torch.addmm(embedded, self._activated(features), self.out.weight.T)

    def _activated(self, features: Tensor) -> Tensor:
        activated: Tensor = self.activation(self.hidden((features - self.mean) / self.std))
        return activated


class SongEmbedding(nn.Module):
    """A song as the sum of its parts; the same module serves input and output."""

    song_artist: Tensor
    song_album: Tensor
    song_features: Tensor
    fitted: Tensor | None

    def __init__(self, config: ModelConfig, catalogue: Catalogue):
        super().__init__()
        # Persistent buffers: a checkpoint carries its catalogue, and scores without the snapshot.
        self.register_buffer("fitted", None if catalogue.fitted is None else catalogue.fitted.clone())
        self.register_buffer("song_artist", _with_specials(catalogue.song_artist))
        self.register_buffer("song_album", _with_specials(catalogue.song_album))
        self.register_buffer("song_features", catalogue.song_features.float().clone())
        self.song = PartEmbedding(catalogue.n_fitted_songs, config.d_songs, self._fitted_rows(catalogue.n_fitted_songs))
        parts = (
            (config.d_albums, catalogue.n_fitted_albums, self.song_album),
            (config.d_artists, catalogue.n_fitted_artists, self.song_artist),
        )
        self.album, self.artist = (
            PartEmbedding(n_fitted, width, catalogue.fitted_numbers(n_fitted, of_song)) if width else None
            for width, n_fitted, of_song in parts
        )
        has_features = config.use_features and catalogue.song_features.shape[1] > 0
        self.features = FeatureProjection(self.song_features, self.are_fitted(), config.d_model) if has_features else None

    def forward(self, songs: Tensor, hidden_ids: Tensor | None = None) -> Tensor:
        """Embed song numbers (...) into (..., D); where `hidden_ids` (...) is true the song's own id counts as unknown."""
        embedded = self._parts(songs, hidden_ids)
        if self.features is not None:
            numeric = self.features(self.song_features[songs])  # (..., D)
            embedded = embedded + numeric.masked_fill((songs < FIRST_NUMBER)[..., None], 0.0)
        return embedded

    def candidates(self, n: int, hidden_ids: Tensor) -> Tensor:
        """The songs below number `n` as what a softmax is taken over, (n, D); `hidden_ids` (n,) as in `forward`.

        What is the same for all of them is left out, since a softmax does not see it, and the specials mean nothing.
        """
        songs = torch.arange(n, device=hidden_ids.device)
        embedded = self._parts(songs, hidden_ids)
        return embedded if self.features is None else self.features.added_to(embedded, self.song_features[:n])

    def _parts(self, songs: Tensor, hidden_ids: Tensor | None) -> Tensor:
        """Song, album and artist side by side, (..., D)."""
        own = songs if hidden_ids is None else songs.masked_fill(hidden_ids & (songs >= FIRST_NUMBER), UNKNOWN)
        parts = [self.song(own)]
        if self.album is not None:
            parts.append(self.album(self.song_album[songs]))
        if self.artist is not None:
            parts.append(self.artist(self.song_artist[songs]))
        return torch.cat(parts, dim=-1)

    def are_fitted(self, songs: Tensor | None = None) -> Tensor:
        """Whether songs (...) occur in training, (...) bool; None: every song (V,).  False at the specials."""
        if songs is None:
            songs = torch.arange(len(self.song_artist), device=self.song_artist.device)
        fitted = (songs >= FIRST_NUMBER) & (songs < self.song.num_embeddings)
        return fitted if self.fitted is None else fitted & self.fitted[songs.clamp(max=len(self.fitted) - 1)]

    def _fitted_rows(self, n_fitted: int) -> Tensor | None:
        """Which rows of the song table are in use, those of the specials among them; None: every one."""
        return None if self.fitted is None else self.fitted | (torch.arange(n_fitted, device=self.fitted.device) < FIRST_NUMBER)

    def sparse_gradients(self, wanted: bool) -> None:
        """Let the gradients of the three tables hold the rows that were looked up alone, instead of all.

        Worth while where a step looks up few of many rows, as with sampled negatives.
        """
        for table in (self.song, self.album, self.artist):
            if table is not None:
                table.sparse = wanted

    def grown(self, song_artist: Tensor, song_album: Tensor, song_features: Tensor) -> "SongEmbedding":
        """The same parameters over a catalogue with N more songs, (N,), (N,) and (N, F)."""
        larger = twin(self)
        more = {"song_artist": song_artist, "song_album": song_album, "song_features": song_features}
        for name, column in more.items():
            known = getattr(self, name)
            larger.register_buffer(name, torch.cat([known, column.to(known)]))
        return larger


class Dropout(nn.Module):
    """Dropout whose draws are bytes on a processor, where torch takes four times as long for a number each.

    There the probability is rounded to a multiple of 1/256; what is kept is scaled by what it was rounded to.
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape, some of them 0 in training."""
        if not self.training or not self.probability:
            return values
        if values.device.type != "cpu":
            return F.dropout(values, self.probability)
        return values * drawn_mask(values.shape, self.probability).to(values.dtype)


def drawn_mask(shape: torch.Size, probability: float) -> Tensor:
    """0 with that probability, else one over the share that is kept: float32 on the CPU, from torch's global generator."""
    n, dropped = math.prod(shape), min(255, max(1, round(256 * probability)))
    draws = torch.empty(-(-n // 8), dtype=torch.int64).random_(-(2**63), None).numpy().view(np.uint8)[:n]
    return torch.from_numpy(np.multiply(draws >= dropped, np.float32(256 / (256 - dropped)), dtype=np.float32)).view(shape)


class SelfAttention(nn.Module):
    """Multi-head self-attention; which places look at which is the caller's to say."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.dropout_prob = config.heads, config.dropout_prob
        self.dropout = Dropout(config.dropout_prob)
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)

    def forward(self, hidden: Tensor, visible: Tensor, n_last: int) -> Tensor:
        """What the last `n_last` places read, (B, L, D) to (B, n_last, D).

        `visible` says what each place may look at, (B, 1, L, L), or (B, 1, 1, L) where that is the same for all of them.
        """
        B, L, D = hidden.shape
        visible = visible[:, :, -n_last:]
        weight, bias = self.qkv.weight, self.qkv.bias
        query = F.linear(hidden[:, L - n_last :], weight[:D], bias[:D])  # (B, n_last, D)
        query = query.view(B, n_last, self.heads, D // self.heads).transpose(1, 2)  # (B, H, n_last, D/H)
        key_value = F.linear(hidden, weight[D:], bias[D:])  # (B, L, 2 D)
        key, value = key_value.view(B, L, 2, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # (B, H, L, D/H)
        if self.training and self.dropout_prob and hidden.device.type == "cpu":
            mixed = self._mixed_with_dropout(query, key, value, visible)
        else:
            dropout = self.dropout_prob if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).reshape(B, n_last, D))  # (B, n_last, D)

    def _mixed_with_dropout(self, query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
        """What torch's own attention computes, (B, H, n_last, D/H), but with our dropout, which is faster on a processor."""
        B, H, n_last, width = query.shape
        hidden = torch.zeros(visible.shape, dtype=query.dtype).masked_fill(~visible, -torch.inf)  # (B, 1, n_last or 1, L)
        hidden = hidden.expand(B, H, n_last, -1).reshape(B * H, n_last, -1)
        query, key, value = query.reshape(B * H, n_last, width), key.reshape(B * H, -1, width), value.reshape(B * H, -1, width)
        scores = torch.baddbmm(hidden, query, key.transpose(1, 2), alpha=width**-0.5)  # (B H, n_last, L)
        return self.dropout(scores.softmax(-1)).bmm(value).view(B, H, n_last, width)


class Block(nn.Module):
    """Attention, then a feed-forward layer, each normalised before and added after (pre-norm)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = SelfAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = nn.Sequential(nn.Linear(config.d_model, config.d_ff), GELU(), nn.Linear(config.d_ff, config.d_model))
        self.dropout = Dropout(config.dropout_prob)

    def forward(self, hidden: Tensor, visible: Tensor, n_last: int) -> Tensor:
        """(B, L, D) to the last `n_last` places, (B, n_last, D)."""
        read = self.attention(self.attention_norm(hidden), visible, n_last)  # (B, n_last, D)
        hidden = hidden[:, hidden.shape[1] - n_last :] + self.dropout(read)
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))


class BERT4Rec(nn.Module):
    """The whole model.  Training calls it for a loss; serving takes `encode_last` and the output side."""

    def __init__(self, config: ModelConfig, catalogue: Catalogue, memory: Memory | None = None):
        super().__init__()
        self.config = config
        self.memory = memory
        self.encoder_weight = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.newcomer_bonus = nn.Parameter(torch.tensor(0.0), requires_grad=False)
        self.n_fitted_songs = catalogue.n_fitted_songs
        self.n_fitted_albums, self.n_fitted_artists = catalogue.n_fitted_albums, catalogue.n_fitted_artists
        self.embedding = SongEmbedding(config, catalogue)
        # A place is numbered by its distance from the end of the row, where the song to predict stands when the model is used.
        self.position = nn.Embedding(config.seq_len, config.d_model)
        self.embedding_norm = nn.LayerNorm(config.d_model)
        self.dropout = Dropout(config.dropout_prob)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.N))
        self.head = _head(config)
        self.bias = nn.Parameter(torch.zeros(catalogue.n_fitted_songs))  # row UNKNOWN serves every song not fitted
        nn.init.normal_(self.position.weight, std=EMBEDDING_STD)

    @property
    def n_songs(self) -> int:
        """V: songs of the catalogue, the specials included."""
        return len(self.embedding.song_artist)

    @property
    def row_len(self) -> int:
        """Songs of a row that are of use, the masked one included: the memory may look back further than the encoder."""
        return max(self.config.seq_len, 1 + (self.memory.reach if self.memory is not None else 0))

    @property
    def training_row_len(self) -> int:
        """Songs of a row in training: before each of the last `seq_len` places stands all that the memory looks at in use."""
        return self.config.seq_len + (self.memory.reach if self.memory is not None else 0)

    @property
    def songs_read(self) -> int:
        """How many of the newest songs the encoder reads, at most."""
        return min(self.row_len - 1, self.config.seq_len - (self.config.objective == "cloze"))

    def encode(
        self, songs: Tensor, hidden_ids: Tensor | None = None, n_last: int | None = None, table: Tensor | None = None
    ) -> Tensor:
        """Run the encoder over left-padded rows that `read` has made: (B, L) song numbers to (B, L, D).

        With `n_last` the last block computes the last places only, (B, n_last, D): half the time with two blocks.  `table` (V, D)
        holds the embedding of every song, for a caller who has it.
        """
        L = songs.shape[1]
        distance = torch.arange(L - 1, -1, -1, device=songs.device)
        visible = self._visible(songs)
        embedded = self.embedding(songs, hidden_ids) if table is None else F.embedding(songs, table)
        hidden = embedded + self.position(distance)  # (B, L, D)
        hidden = self.dropout(self.embedding_norm(hidden))
        for number, block in enumerate(self.blocks, start=1):
            hidden = block(hidden, visible, L if n_last is None or number < len(self.blocks) else n_last)
        return hidden

    def _visible(self, songs: Tensor) -> Tensor:
        """What each place of rows (B, L) may look at: (B, 1, 1, L), or (B, 1, L, L) where it depends on the place.

        Nothing looks at padding, but a row of padding alone has nothing else, and softmax over nothing is NaN.
        """
        visible = (songs != PAD)[:, None, None, :]  # (B, 1, 1, L)
        if self.config.objective == "cloze":
            return visible | ~visible.any(dim=-1, keepdim=True)
        L = songs.shape[1]
        until_here = torch.ones(L, L, dtype=torch.bool, device=songs.device).tril()
        return visible & until_here | torch.eye(L, dtype=torch.bool, device=songs.device)

    def read(self, songs: Tensor) -> Tensor:
        """What the encoder reads of rows (B, L) of any length: at each of the last `seq_len` places, what is visible there.

        With the objective "cloze" it is what stands there, MASK at the places to predict.  With "causal" it is the song before,
        so that the place itself may show its song: the whole row is a question about each of its places.
        """
        if self.config.objective == "causal":
            songs = F.pad(songs[:, :-1], (1, 0), value=PAD)
        return songs[:, -self.config.seq_len :]

    def encode_last(self, songs: Tensor, table: Tensor | None = None) -> Tensor:
        """The query of the last place of each row, (B, L) to (B, D); the last place holds MASK.  `table` as in `encode`."""
        return self.head(self.encode(self.read(songs), n_last=1, table=table)[:, 0])

    def embedding_table(self) -> Tensor:
        """The embedding of every song, (V, D)."""
        return self.embedding(torch.arange(self.n_songs, device=self.bias.device))

    def output_embeddings(self) -> Tensor:
        """The output side for the whole catalogue, (V, D), with the encoder's weight in it."""
        return self.encoder_weight * self.embedding_table()

    def encoder_bias(self) -> Tensor:
        """What the encoder gives each song at any place, (V,): that of UNKNOWN to the songs that training does not hold."""
        fitted = self.embedding.are_fitted()
        bias = self.bias[UNKNOWN].repeat(self.n_songs)
        bias[fitted] = self.bias[fitted[: self.n_fitted_songs]]
        return bias

    def output_bias(self) -> Tensor:
        """What each song of the catalogue gets at any place, (V,): minus infinity at the specials, never recommended."""
        bias = self.encoder_weight * self.encoder_bias()
        if self.memory is not None:
            bias = bias + self.memory.prior()[0]
        bias = bias + self.newcomer_bonus * ~self.embedding.are_fitted()
        bias[:FIRST_NUMBER] = -torch.inf
        return bias

    def score(self, songs: Tensor) -> Tensor:
        """Scores of every song as the one at the last place, (B, L) to (B, V); the specials get minus infinity."""
        queries = self.encode_last(songs)
        scores = queries @ self.output_embeddings().T + self.output_bias()  # (B, V)
        return self.add_looked_up(scores, self.look_up(songs, queries))

    def look_up(self, songs: Tensor, queries: Tensor) -> LookedUp | None:
        """What the memory adds at the last place of each row, given the queries (B, D) of `encode_last`."""
        if self.memory is None:
            return None
        last_places = (torch.arange(len(songs), device=songs.device) + 1) * songs.shape[1] - 1
        return self.memory(songs, last_places, queries)

    @staticmethod
    def add_looked_up(scores: Tensor, looked_up: LookedUp | None) -> Tensor:
        """Add the memory's bonuses to dense scores (B, V or less); songs beyond the scores' width are passed over."""
        if looked_up is None:
            return scores
        inside = looked_up.songs < scores.shape[1]
        return scores.scatter_add(
            1, torch.where(inside, looked_up.songs, PAD), torch.where(inside, looked_up.bonus, 0.0).to(scores.dtype)
        )

    def forward(
        self,
        songs: Tensor,
        places: Tensor,
        targets: Tensor,
        *,
        unknown_song_probability: float = 0.0,
        label_smoothing: float = 0.0,
        negatives: Negatives | None = None,
        origin: Origin | None = None,
        remembered: Tensor | None = None,
        memory_weight: float = 1.0,
    ) -> Tensor:
        """Mean cross-entropy (nats) at the places asked for: `songs` (B, L), `places` (M,) in B * L, what stands there (M,).

        With the objective "cloze" the places hold MASK.  With a memory the loss is the sum of two, of the encoder's scores and
        of the memory's, the latter times `memory_weight`; `origin` (B,) names the list of each row, `remembered` (m,) the places
        (by their number in `places`) at which the memory is asked, None: everywhere.
        The encoder reads the last `seq_len` songs of a row and must be asked for none before.  Logits are computed at the asked
        places only.  With `negatives` the encoder is compared on the shared sample instead of all T songs.  Ids are hidden
        with `unknown_song_probability` on the input and on the output side, so that the rest of a song learns to stand in for
        its id.  The memory is compared among the songs that it found; `label_smoothing` concerns the encoder alone.
        """
        read = self.read(songs)
        hidden_ids = torch.rand(read.shape, device=songs.device) < unknown_song_probability
        row, unread = places // songs.shape[1], songs.shape[1] - read.shape[1]
        queries = self.head(self.encode(read, hidden_ids).flatten(0, 1)[places - unread * (row + 1)])  # (M, D)
        if negatives is not None:
            loss = self._sampled_loss(queries, targets, negatives, unknown_song_probability)
        else:
            hidden_known = torch.rand(self.n_fitted_songs, device=songs.device) < unknown_song_probability
            embeddings = self.embedding.candidates(self.n_fitted_songs, hidden_known)  # (T, D)
            loss = linear_cross_entropy(queries, embeddings, self._trained_bias(hidden_known), targets, label_smoothing)
        if self.memory is None:
            return loss
        if remembered is not None:
            places, queries, targets, row = places[remembered], queries[remembered], targets[remembered], row[remembered]
        editions = None if origin is None else origin.editions[row]
        return loss + memory_weight * self._memory_loss(self.memory(songs, places, queries, origin), editions, targets)

    def _memory_loss(self, looked_up: LookedUp, editions: Tensor | None, targets: Tensor) -> Tensor:
        """Cross-entropy of the memory's scores among the songs it found: the sum over the places whose target it found, over M.

        A place whose target nothing speaks for cannot teach which evidence to trust, only to trust all of it less.
        """
        assert self.memory is not None
        editions = torch.zeros_like(targets) if editions is None else editions
        songs = looked_up.songs  # (M, U)
        scores = self.memory.prior_at(editions, songs) + looked_up.bonus.float()
        scores = scores.masked_fill(songs < FIRST_NUMBER, OUT)
        is_target = songs == targets[:, None]
        is_found = is_target.any(1)
        loss = scores.logsumexp(1) - (scores * is_target).sum(1)
        return (loss * is_found).sum() / len(targets)

    def _trained_bias(self, hidden_known: Tensor) -> Tensor:
        """The bias of each fitted song (T,); where its id is hidden, that of an unknown song, which so learns its own."""
        bias = torch.where(hidden_known, self.bias[UNKNOWN], self.bias)
        return bias.masked_fill(~self.embedding.are_fitted()[: self.n_fitted_songs], OUT)

    def _sampled_loss(self, queries: Tensor, targets: Tensor, negatives: Negatives, unknown_song_probability: float) -> Tensor:
        """Cross-entropy of the encoder's scores among the target and K shared negatives."""
        M = len(targets)
        drawn = torch.cat([targets, negatives.songs])  # (M + K,)
        hidden_ids = torch.rand(drawn.shape, device=drawn.device) < unknown_song_probability
        embeddings = self.embedding(drawn, hidden_ids)  # (M + K, D)
        # Not self.bias[drawn], whose gradient several threads add up in any order from 32,768 songs on.
        bias = torch.where(hidden_ids, self.bias[UNKNOWN], self.bias.index_select(0, drawn))  # (M + K,)
        positive = (queries * embeddings[:M]).sum(-1) + bias[:M]  # (M,)
        return sampled_cross_entropy(positive, queries @ embeddings[M:].T + bias[M:], targets, negatives)

    def grown(self, song_artist: Tensor, song_album: Tensor, song_features: Tensor) -> "BERT4Rec":
        """A model to answer with that knows N songs more, by artist and album number (N,) and encoded features (N, F) alone.

        Their numbers follow those of the catalogue; artists and albums may be new as well, with numbers behind the known ones.
        All parameters are shared with this model, which stays as it is.  A song of the same artist or album, and the song itself
        in a sequence, count as for a catalogue song that no training list held.
        """
        larger = twin(self)
        larger.embedding = self.embedding.grown(song_artist, song_album, song_features)
        larger.memory = None if self.memory is None else self.memory.grown(song_artist, song_album)
        return larger


def _head(config: ModelConfig) -> nn.Module:
    """From the encoder's output to a query: a layer as in BERT for what stands at MASK, nothing more where it is a next song."""
    if config.objective == "causal":
        return nn.LayerNorm(config.d_model)
    return nn.Sequential(
        nn.LayerNorm(config.d_model), nn.Linear(config.d_model, config.d_model), nn.GELU(), nn.LayerNorm(config.d_model)
    )


def _with_specials(numbers: Tensor) -> Tensor:
    """Artist or album numbers per song (V,), with PAD, MASK and UNKNOWN standing for themselves."""
    numbers = numbers.long().clone()
    specials = torch.tensor([PAD, MASK, UNKNOWN])
    numbers[:FIRST_NUMBER] = specials[: len(numbers)]
    return numbers
