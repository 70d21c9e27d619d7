"""A model that grows by songs knows them as if they had stood in its catalogue from the beginning, heard by nobody."""

import numpy as np
import pytest
import torch

from config import FIRST_NUMBER, MASK, UNKNOWN, MemoryConfig, ModelConfig
from engine.relations import build_memory
from memory import Memory
from model import BERT4Rec, Catalogue
from snapshot import write_snapshot
from sources import CountedRelations, Relations
from splits import split_by_sequence
from tests.engine.small import N_SONGS, circle_lists

V = FIRST_NUMBER + N_SONGS
# Four artists and ten albums, numbered from 3 on; song 3 is by artist 3 on album 3, song 4 by artist 4 on album 4, ...
ARTISTS = FIRST_NUMBER + np.arange(N_SONGS) % 4
ALBUMS = FIRST_NUMBER + np.arange(N_SONGS) % 10
NEW_ARTIST, NEW_ALBUM = 7, 13
# V: beside songs 4, 14; V + 1 and V + 2: of somebody new; V + 3: nothing is known of it.
MORE_ARTISTS = np.array([4, NEW_ARTIST, NEW_ARTIST, UNKNOWN])
MORE_ALBUMS = np.array([4, NEW_ALBUM, NEW_ALBUM, UNKNOWN])
MORE_FEATURES = np.array([[0.5, 0], [-1, 0], [-1, 0], [0, 1]], np.float32)
OLD_ROWS = [[3, 4, 5, MASK], [13, 14, 4, MASK], [UNKNOWN, 22, 21, MASK]]
NEW_ROWS = [[3, 4, V, MASK], [V + 1, V + 2, V + 1, MASK], [V + 3, V, 5, MASK]]


def snapshot_with(folder, artists, albums, features):
    """Lists around two circles of the first N_SONGS songs, over a catalogue that may have more."""
    specials = np.arange(FIRST_NUMBER)
    return write_snapshot(
        folder,
        song_artist=np.concatenate([specials, artists]),
        song_album=np.concatenate([specials, albums]),
        song_features=np.concatenate([np.zeros((FIRST_NUMBER, 2)), features]),
        feature_names=["tempo", "tempo_missing"],
        n_fitted_songs=V,
        n_fitted_albums=NEW_ALBUM,
        n_fitted_artists=NEW_ARTIST,
        n_albums=int(albums.max()) + 1,
        n_artists=int(artists.max()) + 1,
        sequences=circle_lists(60, 7).ravel().astype(np.int32),
        offsets=np.arange(61) * 7,
        split=split_by_sequence(np.arange(60), 0.8, np.random.default_rng(0)),
        encoders_digest="",
        source={},
    )


def model_over(snapshot, **memory):
    """An untrained model with every source that needs no track numbers."""
    torch.manual_seed(0)
    config = ModelConfig(seq_len=6, d_songs=8, d_albums=4, d_artists=4, d_ff=16, N=1, heads=2)
    counts = snapshot.manifest["counts"]
    catalogue = Catalogue(
        song_artist=torch.from_numpy(np.array(snapshot.song_artist)),
        song_album=torch.from_numpy(np.array(snapshot.song_album)),
        song_features=torch.from_numpy(np.array(snapshot.song_features)),
        n_fitted_songs=counts["fitted_songs"],
        n_fitted_albums=counts["fitted_albums"],
        n_fitted_artists=counts["fitted_artists"],
    )
    settings = MemoryConfig(**{"near_reach": 3, "track_reach": 0, **memory})
    model = BERT4Rec(config, catalogue, build_memory(snapshot, settings, config.d_model))
    judgement = model.memory.judgement
    for weight in (model.memory.gate.weight, judgement.context.weight, judgement.out.weight):
        torch.nn.init.normal_(weight, std=0.3)  # as if trained: gates and judgements that differ from place to place
    return model.eval()


@pytest.fixture
def features():
    return np.stack([np.linspace(-1.5, 1.5, N_SONGS), np.zeros(N_SONGS)], axis=1)


@pytest.fixture
def model(tmp_path, features):
    return model_over(snapshot_with(tmp_path / "small", ARTISTS, ALBUMS, features))


@pytest.fixture
def grown(model):
    return model.grown(*map(torch.from_numpy, (MORE_ARTISTS, MORE_ALBUMS, MORE_FEATURES)))


def scores_of(model, rows):
    with torch.inference_mode():
        return model.score(torch.tensor(rows))


def test_a_grown_model_answers_as_one_that_had_the_songs_from_the_beginning(tmp_path, features, grown):
    whole = model_over(
        snapshot_with(
            tmp_path / "whole",
            np.concatenate([ARTISTS, MORE_ARTISTS]),
            np.concatenate([ALBUMS, MORE_ALBUMS]),
            np.concatenate([features, MORE_FEATURES]),
        )
    )
    whole.load_state_dict(dict(grown.named_parameters()), strict=False)
    assert grown.n_songs == whole.n_songs == V + 4
    torch.testing.assert_close(scores_of(grown, OLD_ROWS + NEW_ROWS), scores_of(whole, OLD_ROWS + NEW_ROWS))


def test_old_songs_score_as_before_and_the_model_itself_stays_as_it_was(model, grown):
    before = scores_of(model, OLD_ROWS)
    torch.testing.assert_close(scores_of(grown, OLD_ROWS)[:, :V], before)
    assert scores_of(model, OLD_ROWS).equal(before)
    assert model.n_songs == V


@torch.no_grad()
def leave_only_sums_of(model):
    """What the memory's sources say, without what an untrained encoder, gates and a judgement of noise make up."""
    for weight in (model.encoder_weight, model.memory.gate.weight, *model.memory.judgement.out.parameters()):
        weight.zero_()


def test_a_new_song_of_the_last_songs_album_stands_before_an_unrelated_one(grown):
    leave_only_sums_of(grown)
    ((on_the_album, unrelated),) = scores_of(grown, [[3, 14, 4, MASK]])[:, [V, V + 3]].tolist()
    assert on_the_album > unrelated


def test_a_new_song_in_a_sequence_speaks_for_the_songs_of_its_artist_and_album(grown):
    """Song V is by artist 4 on album 4, and no other song of the sequence is."""
    leave_only_sums_of(grown)
    unknown, known = scores_of(grown, [[3, 5, UNKNOWN, MASK], [3, 5, V, MASK]])
    gain = (known - unknown)[FIRST_NUMBER:V]
    related = (ARTISTS == 4) | (ALBUMS == 4)
    assert gain[related].min() > 0 >= gain[~related].max()


def test_parameters_and_tables_by_song_are_shared_not_copied(model, grown):
    mine, theirs = dict(model.named_parameters()), dict(grown.named_parameters())
    assert {parameter.data_ptr() for parameter in mine.values()} == {parameter.data_ptr() for parameter in theirs.values()}
    tables = {buffer.data_ptr() for buffer in grown.buffers()}
    names = [source.names for source in model.memory.sources]
    assert names == [("after", "before", "next", "near"), ("artist", "album"), ("same",), ("lists",), ("again",)]
    for of_source, source in zip(names, model.memory.sources, strict=True):
        shared = [source.songs.data_ptr() in tables, source.starts.data_ptr() in tables] if of_source != ("again",) else []
        assert not any(shared) if of_source == ("same",) else all(shared)
    assert not any(tables & {table.songs.data_ptr(), table.starts.data_ptr()} for table in model.memory.newcomers.tables)


def test_a_grown_model_can_grow_again(model, grown):
    first, rest = slice(0, 1), slice(1, None)
    columns = [torch.from_numpy(column) for column in (MORE_ARTISTS, MORE_ALBUMS, MORE_FEATURES)]
    twice = model.grown(*(column[first] for column in columns)).grown(*(column[rest] for column in columns))
    assert scores_of(twice, OLD_ROWS + NEW_ROWS).equal(scores_of(grown, OLD_ROWS + NEW_ROWS))


def test_a_model_without_a_memory_grows_too(model):
    model.memory = None
    longer = model.grown(torch.tensor([4]), torch.tensor([4]), torch.zeros(1, 2))
    assert scores_of(longer, [[3, V, MASK]]).shape == (1, V + 1)


def relation_of(name, *rows, row_of_song, folds=0):
    """A relation with these rows of songs, each of which five lists support; nine hold what the row is of."""
    lengths, songs = [len(row) for row in rows], [song for row in rows for song in row]
    return Relations(
        names=(name,),
        reaches=(2,),
        rows=(len(rows),),
        most=max(lengths),
        row_of_song=torch.tensor([row_of_song], dtype=torch.int32),
        starts=torch.tensor([0, *np.cumsum(lengths).tolist()]),
        songs=torch.tensor(songs, dtype=torch.int32),
        counts=torch.full((len(songs),), 5.0),
        totals=torch.full((1 + folds, len(rows)), 9.0),
        fold_counts=torch.ones(folds, len(songs)) if folds else None,
    )


def rows_of(relation):
    tables = relation.tables()
    bounds = tables.starts[1:-1]
    return [[part.tolist() for part in column.tensor_split(bounds)] for column in (tables.songs, tables.counts)]


def test_a_new_song_speaks_for_an_artist_who_is_counted_and_stands_in_no_row():
    """Artists are numbered up to 5, of whom 4 has no play, and albums up to 3; what is new beyond them is not counted."""
    parts = [
        relation_of("artist", [], [], [], [3, 4], [], [5], row_of_song=[0, 0, 0, 3, 3, 5], folds=2),
        relation_of("album", [], [], [], [4], row_of_song=[0, 0, 0, 0, 3, 0], folds=2),
    ]
    memory = Memory(2, [CountedRelations(Relations.joined(parts))], torch.zeros(3, 6))
    before = rows_of(memory.sources[0])
    artists, albums = torch.tensor([3, UNKNOWN, 5, 4, 6, 3]), torch.tensor([UNKNOWN, 3, 4, 3, MASK, 0])
    (relation,) = memory.grown(artists, albums).sources
    assert (
        rows_of(relation)
        == before
        == [[[], [], [], [3, 4], [], [5], [], [], [], [4]], [[], [], [], [5, 5], [], [5], *[[]] * 3, [5]]]
    )
    assert relation.totals.equal(memory.sources[0].totals)
    assert relation.fold_counts.equal(memory.sources[0].fold_counts)
    assert relation.row_of_song.tolist() == [[0, 0, 0, 3, 3, 5, 3, 0, 5, 4, 0, 3], [0, 0, 0, 0, 9, 0, 0, 9, 0, 9, 0, 0]]
    assert relation.row_of_song.dtype == memory.sources[0].row_of_song.dtype


@pytest.mark.parametrize("steps", [[3], [1, 2], [1, 1, 1]])
def test_a_new_song_has_a_row_of_its_own_to_stand_for_itself(steps):
    """Behind those of all relations; which track follows it is not known."""
    parts = [
        relation_of("same", [], [], [], [3], [4], row_of_song=[0, 0, 0, 3, 4]),
        relation_of("track", [], [], [], [4], [], row_of_song=[0, 0, 0, 3, 0]),
    ]
    memory = Memory(2, [CountedRelations(Relations.joined(parts))], torch.zeros(1, 5))
    before = rows_of(memory.sources[0])
    larger = memory
    for n_new in steps:
        larger = larger.grown(torch.full((n_new,), 3), torch.full((n_new,), UNKNOWN))
    (relation,) = larger.sources
    assert rows_of(relation) == [[*before[0], [5], [6], [7]], [*before[1], [1], [1], [1]]]
    assert relation.totals.tolist() == [[9] * 10 + [1] * 3]
    assert relation.row_of_song.tolist() == [[0, 0, 0, 3, 4, 10, 11, 12], [0, 0, 0, 8, 0, 0, 0, 0]]
    assert rows_of(memory.sources[0]) == before


def test_as_many_new_songs_of_one_artist_as_there_may_be_speak_for_the_others():
    relations = relation_of("artist", [], [], [], [3, 4], row_of_song=[0, 0, 0, 3, 3])
    memory = Memory(2, [CountedRelations(relations)], torch.zeros(1, 5))
    (relation,) = memory.grown(torch.full((100,), 3), torch.full((100,), UNKNOWN)).sources
    assert relation.row_of_song[0, 5:].tolist() == [3] * 100
    assert rows_of(relation)[0] == [[], [], [], [3, 4]]
