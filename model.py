"""BERT4Rec over songs, albums, artists and audio features, in one file.

The network of BERT4Rec (Sun et al. 2019, https://arxiv.org/abs/1904.06690): a bidirectional transformer encoder that predicts
hidden songs of a sequence.  A song enters as its song, album and artist embeddings side by side plus a projection of its
numeric features, and leaves through the same parts: the score of a song is the product of the encoder's output with that sum.
So a song that no training sequence held still has a score, from its artist, its album and how it sounds.

Shape letters: B rows of a batch, L places of a row, M masked places of a batch, V songs of the catalogue (the three specials
included), T songs seen in training (a prefix of V), K sampled negatives, D width of the model, F feature columns, H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config import FIRST_NUMBER, MASK, PAD, UNKNOWN, ModelConfig

# The parts of the output embedding would start far from orthogonal at a larger scale; BERT's 0.02 starts too flat for catalogues.
EMBEDDING_STD = 0.05


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What is known of each song, by song number.  Numbers from n_fitted_* on were not seen in training."""

    song_artist: Tensor  # (V,) int
    song_album: Tensor  # (V,) int
    song_features: Tensor  # (V, F) float32
    n_fitted_songs: int
    n_fitted_albums: int
    n_fitted_artists: int


class PartEmbedding(nn.Embedding):
    """An embedding table for the fitted numbers; every other number takes the row of UNKNOWN."""

    def __init__(self, n_fitted: int, width: int):
        super().__init__(n_fitted, width, padding_idx=PAD)
        nn.init.normal_(self.weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.weight[PAD].zero_()

    def forward(self, numbers: Tensor) -> Tensor:
        """Embed numbers of any shape (...) into (..., width)."""
        return super().forward(torch.where(numbers < self.num_embeddings, numbers, UNKNOWN))


class FeatureProjection(nn.Module):
    """Numeric features to model width: standardised over the songs of training, then a two-layer perceptron.

    The hidden layer lets a feature prefer a value (the next track number, a tempo close by) where a plain product could only
    prefer more or less of it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, song_features: Tensor, n_fitted_songs: int, d_model: int):
        super().__init__()
        real = song_features[FIRST_NUMBER:n_fitted_songs]
        columns = song_features.shape[1]
        spread = real.std(dim=0, correction=0) if len(real) else torch.zeros(columns)
        self.register_buffer("mean", real.mean(dim=0) if len(real) else torch.zeros(columns))
        self.register_buffer("std", torch.where(spread > 1e-6, spread, 1.0))
        self.hidden = nn.Linear(columns, d_model)
        self.out = nn.Linear(d_model, d_model)
        nn.init.normal_(self.out.weight, std=EMBEDDING_STD / d_model**0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) to (..., D)."""
        return self.out(F.gelu(self.hidden((features - self.mean) / self.std)))


class SongEmbedding(nn.Module):
    """A song as the sum of its parts; the same module serves input and output."""

    song_artist: Tensor
    song_album: Tensor
    song_features: Tensor

    def __init__(self, config: ModelConfig, catalogue: Catalogue):
        super().__init__()
        # Persistent buffers: a checkpoint carries its catalogue, and scores without the snapshot.
        self.register_buffer("song_artist", _with_specials(catalogue.song_artist))
        self.register_buffer("song_album", _with_specials(catalogue.song_album))
        self.register_buffer("song_features", catalogue.song_features.float().clone())
        self.song = PartEmbedding(catalogue.n_fitted_songs, config.d_songs)
        self.album = PartEmbedding(catalogue.n_fitted_albums, config.d_albums) if config.d_albums else None
        self.artist = PartEmbedding(catalogue.n_fitted_artists, config.d_artists) if config.d_artists else None
        has_features = config.use_features and catalogue.song_features.shape[1] > 0
        self.features = FeatureProjection(self.song_features, catalogue.n_fitted_songs, config.d_model) if has_features else None

    def forward(self, songs: Tensor, hidden_ids: Tensor | None = None) -> Tensor:
        """Embed song numbers (...) into (..., D); where `hidden_ids` (...) is true the song's own id counts as unknown."""
        own = songs if hidden_ids is None else songs.masked_fill(hidden_ids & (songs >= FIRST_NUMBER), UNKNOWN)
        parts = [self.song(own)]
        if self.album is not None:
            parts.append(self.album(self.song_album[songs]))
        if self.artist is not None:
            parts.append(self.artist(self.song_artist[songs]))
        embedded = torch.cat(parts, dim=-1)  # (..., D)
        if self.features is not None:
            numeric = self.features(self.song_features[songs])  # (..., D)
            embedded = embedded + numeric.masked_fill((songs < FIRST_NUMBER)[..., None], 0.0)
        return embedded


class SelfAttention(nn.Module):
    """Bidirectional multi-head self-attention; no place looks at padding."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.dropout_prob = config.heads, config.dropout_prob
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D); `visible` (B, 1, 1, L) is true at real songs."""
        B, L, D = hidden.shape
        query, key, value = self.qkv(hidden).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # (B, H, L, D/H)
        dropout = self.dropout_prob if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)  # (B, H, L, D/H)
        return self.out(mixed.transpose(1, 2).reshape(B, L, D))  # (B, L, D)


class Block(nn.Module):
    """Attention, then a feed-forward layer, each normalised before and added after (pre-norm)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = SelfAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.d_model, config.d_ff),
            nn.GELU(),
            nn.Dropout(config.dropout_prob),
            nn.Linear(config.d_ff, config.d_model),
        )
        self.dropout = nn.Dropout(config.dropout_prob)

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), visible))
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)))


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Which songs stand in one relation to a song (or to its artist, or album), and how many training sequences support it."""

    name: str
    songs: Tensor  # (rows, K) int32, strongest first, PAD where there are fewer
    counts: Tensor  # (rows, K) float32 sequences that support the pair
    totals: Tensor  # (rows,) float32 sequences that hold the row's song (artist, album)
    reach: int  # how many songs back from the place to predict it is looked up
    key_of_song: Tensor | None = None  # (V,) the row of each song; None: its number
    is_counted: bool = True  # False: holds by itself, and no training list is taken out of it
    counts_pairs: bool = False  # True: counts lists where one directly follows the other; False: lists that hold the song


class OwnList(NamedTuple):
    """What the list of each training row has put into the counts, to be taken out again; 0 where a list has fewer."""

    songs: Tensor  # (B, any) int64 its songs
    pairs: Tensor  # (B, any) int64 `pair_slots` of the songs that directly follow each other in it


# Pairs are remembered as one of so many slots: a list of 1,000 pairs mistakes 1.5 % of other pairs for its own.
PAIR_SLOTS = 1 << 16

Numbers = TypeVar("Numbers", Tensor, np.ndarray)


def pair_slots(first: Numbers, second: Numbers) -> Numbers:
    """A slot in 1..PAIR_SLOTS - 1 for each ordered pair of song numbers (int64), the same for tensors and arrays."""
    return 1 + (first * 1_000_003 + second * 8_191) % (PAIR_SLOTS - 1)


class LookedUp(NamedTuple):
    """Sparse additions to the scores of M places: C songs each, which may occur more than once; PAD stands for none."""

    songs: Tensor  # (M, C) int64
    bonus: Tensor  # (M, C)


AGAIN = "again"  # the relation that is found in the sequence itself, not in a table


class Memory(nn.Module):
    """Counts and copies: adds to the scores of songs that stand in known relations to the songs of the sequence.

    A transformer of this size neither counts nor copies well (next plays in listening histories repeat or follow fixed pairs),
    while a counter knows nothing else.  Here the encoder decides, by gates from its output, how much each kind of evidence
    weighs at this place; both are learned together.  Its closest relative is the pointer of See et al. 2017 (section 2.2).

    In training the list at hand has supported the very pairs that it would look up, so its own support is taken out: one from
    each count that it is part of (leave-one-out), else the model would learn to trust counts that no new list has.
    """

    song_plays: Tensor
    CHANNELS = 3  # share c / n of the key's sequences, log(1 + c), cosine c / sqrt(n m)
    INITIAL_WEIGHTS = (2.0, 0.5, 2.0)

    def __init__(self, d_model: int, relations: Sequence[Relation], song_plays: Tensor, again_reach: int = 0):
        """`song_plays` (V,): training sequences that hold each song, m in the cosine.

        With `again_reach`, what followed the last song when it stood up to so many places earlier in the same sequence is a
        relation too.
        """
        super().__init__()
        self.names = [relation.name for relation in relations] + ([AGAIN] if again_reach else [])
        self.reaches = [relation.reach for relation in relations] + ([again_reach] if again_reach else [])
        self.is_counted = [relation.is_counted for relation in relations] + ([False] if again_reach else [])
        self.counts_pairs = [relation.counts_pairs for relation in relations] + ([False] if again_reach else [])
        self.register_buffer("song_plays", song_plays.float())
        for relation in relations:
            for part in ("songs", "counts", "totals", "key_of_song"):
                self.register_buffer(f"{relation.name}_{part}", getattr(relation, part))
        self.gate = nn.Linear(d_model, len(self.names) * self.CHANNELS)
        nn.init.zeros_(self.gate.weight)
        start = torch.tensor(self.INITIAL_WEIGHTS).repeat(len(self.names))
        with torch.no_grad():
            self.gate.bias.copy_(start.expm1().log())  # softplus(gate) begins at the initial weights
        # How evidence fades with distance, per relation and channel.
        self.fading = nn.ParameterList(
            nn.Parameter((1 / torch.arange(1, reach + 1)).repeat(self.CHANNELS, 1)) for reach in self.reaches
        )  # (CHANNELS, W) each

    def forward(self, songs: Tensor, places: Tensor, queries: Tensor, own: OwnList | None = None) -> LookedUp:
        """Look up the songs before each place: `songs` (B, L), `places` (M,) in B * L, `queries` (M, D) from the encoder.

        `own` tells in training what each row's own list has put into the counts; None takes nothing out.
        """
        row, column = places // songs.shape[1], places % songs.shape[1]
        gates = F.softplus(self.gate(queries)).view(len(places), len(self.names), self.CHANNELS)  # (M, R, CHANNELS)
        own_songs = own_pairs = None
        if own is not None:
            own_songs = _marked(own.songs, len(self.song_plays))  # (B, V)
            own_pairs = _marked(own.pairs, PAIR_SLOTS)  # (B, PAIR_SLOTS)
        found = []
        for number, name in enumerate(self.names):
            context = self._context(songs, row, column, self.reaches[number])  # (M, W)
            if name == AGAIN:
                neighbours, evidence = self._heard_again(songs, row, column, context)
            else:
                keys = self._keys(name, context)
                neighbours = self.get_buffer(f"{name}_songs")[keys].long()  # (M, W, K)
                evidence = self._evidence(name, keys, neighbours)  # (3, M, W, K): counts, totals, plays
                if own_songs is not None and own_pairs is not None and self.is_counted[number]:
                    holds = own_songs[row[:, None, None], neighbours]  # (M, W, K)
                    follows = (
                        own_pairs[row[:, None, None], pair_slots(context[..., None], neighbours)]
                        if self.counts_pairs[number]
                        else holds
                    )
                    evidence = evidence - torch.stack([follows, torch.ones_like(holds), holds]).float()
                evidence = self._channels(evidence.clamp(min=0), neighbours)  # (CHANNELS, M, W, K)
            weights = gates[:, number].T[:, :, None] * self.fading[number][:, None, :]  # (CHANNELS, M, W)
            bonus = (weights[..., None] * evidence).sum(0)  # (M, W, K)
            found.append((neighbours.flatten(1), bonus.flatten(1)))
        return LookedUp(torch.cat([songs for songs, _ in found], dim=1), torch.cat([bonus for _, bonus in found], dim=1))

    @staticmethod
    def _context(songs: Tensor, row: Tensor, column: Tensor, reach: int, skipped: int = 0) -> Tensor:
        """The songs one, two, ... `reach` places before each place (M,), PAD beyond the row: (M, W)."""
        back = column[:, None] - torch.arange(1, reach + 1, device=songs.device) - skipped
        return torch.where(back >= 0, songs[row[:, None], back.clamp(min=0)], PAD)

    def _heard_again(self, songs: Tensor, row: Tensor, column: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Songs of the context whose predecessor is the last song: (M, W, 1) and evidence of one in each channel."""
        before = self._context(songs, row, column, context.shape[1], skipped=1)  # (M, W)
        follows = (before == context[:, :1]) & (before >= FIRST_NUMBER) & (context >= FIRST_NUMBER)
        return context[..., None], follows[..., None].float().expand(self.CHANNELS, -1, -1, -1)

    def _keys(self, name: str, context: Tensor) -> Tensor:
        """The table row of each context song; row PAD, which is empty, for what is no song or has no artist or album."""
        key_of_song = getattr(self, f"{name}_key_of_song")
        keys = context if key_of_song is None else key_of_song[context]
        return torch.where((context >= FIRST_NUMBER) & (keys >= FIRST_NUMBER), keys, PAD)

    def _evidence(self, name: str, keys: Tensor, neighbours: Tensor) -> Tensor:
        """Lists that support the pair, that hold the key, that hold the neighbour: (M, W) and (M, W, K) to (3, M, W, K)."""
        counts = self.get_buffer(f"{name}_counts")[keys]  # (M, W, K)
        totals = self.get_buffer(f"{name}_totals")[keys][..., None].expand_as(counts)
        return torch.stack([counts, totals, self.song_plays[neighbours]])

    @staticmethod
    def _channels(evidence: Tensor, neighbours: Tensor) -> Tensor:
        """Share, logarithm and cosine of each neighbour, nothing at PAD: (3, M, W, K) to (CHANNELS, M, W, K)."""
        counts, totals, plays = evidence.unbind()
        share, cosine = counts / (totals + 1), counts / ((totals + 1) * (plays + 1)).sqrt()
        return torch.stack([share, counts.log1p(), cosine]).masked_fill(neighbours == PAD, 0.0)


def _marked(numbers: Tensor, width: int) -> Tensor:
    """True at the columns named in each row: (B, any) to (B, width)."""
    return torch.zeros(len(numbers), width, dtype=torch.bool, device=numbers.device).scatter_(1, numbers, True)


class BERT4Rec(nn.Module):
    """The whole model.  Training calls it for a loss; serving takes `encode_last` and the output side."""

    def __init__(self, config: ModelConfig, catalogue: Catalogue, memory: Memory | None = None):
        super().__init__()
        self.config = config
        self.memory = memory
        self.n_fitted_songs = catalogue.n_fitted_songs
        self.n_fitted_albums, self.n_fitted_artists = catalogue.n_fitted_albums, catalogue.n_fitted_artists
        self.embedding = SongEmbedding(config, catalogue)
        # A place is numbered by its distance from the end of the row, where the song to predict stands when the model is used.
        self.position = nn.Embedding(config.seq_len, config.d_model)
        self.embedding_norm = nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout_prob)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.N))
        self.head = nn.Sequential(
            nn.LayerNorm(config.d_model), nn.Linear(config.d_model, config.d_model), nn.GELU(), nn.LayerNorm(config.d_model)
        )
        self.bias = nn.Parameter(torch.zeros(catalogue.n_fitted_songs))  # row UNKNOWN serves every song not fitted
        nn.init.normal_(self.position.weight, std=EMBEDDING_STD)

    @property
    def n_songs(self) -> int:
        """V: songs of the catalogue, the specials included."""
        return len(self.embedding.song_artist)

    def encode(self, songs: Tensor, hidden_ids: Tensor | None = None) -> Tensor:
        """Run the encoder over left-padded rows: (B, L) song numbers to (B, L, D)."""
        L = songs.shape[1]
        distance = torch.arange(L - 1, -1, -1, device=songs.device)
        visible = (songs != PAD)[:, None, None, :]  # (B, 1, 1, L)
        # A row of padding alone would have nothing to attend to, and softmax over nothing is NaN.
        visible = visible | ~visible.any(dim=-1, keepdim=True)
        hidden = self.embedding(songs, hidden_ids) + self.position(distance)  # (B, L, D)
        hidden = self.dropout(self.embedding_norm(hidden))
        for block in self.blocks:
            hidden = block(hidden, visible)
        return hidden

    def encode_last(self, songs: Tensor) -> Tensor:
        """The query of the last place of each row, (B, L) to (B, D); the last place holds MASK."""
        return self.head(self.encode(songs)[:, -1])

    def output_embeddings(self) -> Tensor:
        """The output side for the whole catalogue, (V, D)."""
        return self.embedding(torch.arange(self.n_songs, device=self.bias.device))

    def output_bias(self) -> Tensor:
        """The bias for the whole catalogue, (V,): minus infinity at the specials, which are never recommended."""
        bias = self.bias[UNKNOWN].repeat(self.n_songs)
        bias[: self.n_fitted_songs] = self.bias
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
        negatives: "Negatives | None" = None,
        own: OwnList | None = None,
    ) -> Tensor:
        """Mean cross-entropy (nats) at the masked places: `songs` (B, L) with MASK, `places` (M,) in B * L, `targets` (M,).

        Logits are computed at the masked places only.  With `negatives` each target is compared with the shared sample
        instead of all T songs.  Ids are hidden with `unknown_song_probability` on the input and on the output side, so that
        the rest of a song learns to stand in for its id.
        """
        hidden_ids = torch.rand(songs.shape, device=songs.device) < unknown_song_probability
        queries = self.head(self.encode(songs, hidden_ids).flatten(0, 1)[places])  # (M, D)
        if negatives is None:
            songs_known = torch.arange(self.n_fitted_songs, device=songs.device)
            hidden_known = torch.rand(songs_known.shape, device=songs.device) < unknown_song_probability
            logits = queries @ self.embedding(songs_known, hidden_known).T + self._trained_bias(hidden_known)  # (M, T)
            if self.memory is not None:
                logits = self.add_looked_up(logits, self.memory(songs, places, queries, own))
            return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        looked_up = None if self.memory is None else self.memory(songs, places, queries, own)
        return self._sampled_loss(queries, targets, negatives, looked_up, unknown_song_probability)

    def _trained_bias(self, hidden_known: Tensor) -> Tensor:
        """The bias of each fitted song (T,); where its id is hidden, that of an unknown song, which so learns its own."""
        bias = torch.where(hidden_known, self.bias[UNKNOWN], self.bias)
        special = torch.arange(self.n_fitted_songs, device=self.bias.device) < FIRST_NUMBER
        return bias.masked_fill(special, -1e4)  # finite, so that label smoothing stays finite

    def _sampled_loss(
        self,
        queries: Tensor,
        targets: Tensor,
        negatives: "Negatives",
        looked_up: LookedUp | None,
        unknown_song_probability: float,
    ) -> Tensor:
        """Softmax over the target and K shared negatives, each logit corrected by how often it is drawn (logQ).

        Bengio and Senécal 2008; Yi et al., RecSys 2019, section 4: without the correction popular songs are pushed down.
        """
        M, K = len(targets), len(negatives.songs)
        drawn = torch.cat([targets, negatives.songs])  # (M + K,)
        hidden_ids = torch.rand(drawn.shape, device=drawn.device) < unknown_song_probability
        embeddings = self.embedding(drawn, hidden_ids)  # (M + K, D)
        bias = torch.where(hidden_ids, self.bias[UNKNOWN], self.bias[drawn])  # (M + K,)
        positive = (queries * embeddings[:M]).sum(-1) + bias[:M]  # (M,)
        shared = queries @ embeddings[M:].T + (bias[M:] - negatives.log_expected_count)  # (M, K)
        if looked_up is not None:
            positive = positive + (looked_up.bonus * (looked_up.songs == targets[:, None])).sum(-1)
            place_of_song = torch.full((self.n_songs,), K, device=drawn.device)
            place_of_song[negatives.songs] = torch.arange(K, device=drawn.device)
            wider = F.pad(shared, (0, 1))  # a last column takes the bonuses of songs that were not drawn
            shared = wider.scatter_add(1, place_of_song[looked_up.songs], looked_up.bonus.to(wider.dtype))[:, :K]
        shared = shared.masked_fill(targets[:, None] == negatives.songs, -torch.inf)  # a target is no negative of its own
        logits = torch.cat([positive[:, None], shared], dim=1)  # (M, 1 + K)
        return F.cross_entropy(logits, torch.zeros_like(targets))


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """A sample of distinct songs shared by all masked places of a step."""

    songs: Tensor  # (K,) int64
    log_expected_count: Tensor  # (K,) log of the probability that the sample holds that song


class NegativeSampler:
    """Draws negatives by training frequency to the power 0.75 (Mikolov et al. 2013, section 2.2); doubles are drawn once."""

    def __init__(self, frequencies: Tensor, power: float = 0.75):
        """`frequencies` (T,): plays of each fitted song in training; the specials are never drawn."""
        weights = frequencies.double().clamp(min=1).pow(power)
        weights[:FIRST_NUMBER] = 0
        self.probabilities = weights / weights.sum()
        self.cumulative = self.probabilities.cumsum(0)

    def draw(self, n_draws: int, generator: torch.Generator) -> Negatives:
        """Draw `n_draws` times, K distinct songs; `generator` lives on the frequencies' device."""
        uniform = torch.rand(n_draws, generator=generator, device=self.cumulative.device, dtype=torch.float64)
        songs = torch.searchsorted(self.cumulative, uniform).clamp(FIRST_NUMBER, len(self.cumulative) - 1).unique()  # type: ignore[no-untyped-call]
        # A song is in the sample unless all draws miss it: 1 - (1 - p)^n.
        expected_count = -torch.expm1(n_draws * torch.log1p(-self.probabilities[songs].clamp(max=1 - 1e-9)))
        return Negatives(songs=songs, log_expected_count=expected_count.log().float())


def _with_specials(numbers: Tensor) -> Tensor:
    """Artist or album numbers per song (V,), with PAD, MASK and UNKNOWN standing for themselves."""
    numbers = numbers.long().clone()
    specials = torch.tensor([PAD, MASK, UNKNOWN])
    numbers[:FIRST_NUMBER] = specials[: len(numbers)]
    return numbers
