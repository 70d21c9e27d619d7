import threading
from itertools import count

import numpy as np
import pytest
import torch

from config import TrainingConfig
from dataset import TrainingRows, ask, mask, training_batch
from engine import feeding
from engine.feeding import Part, ahead, home_of_songs, pack, parts_on
from engine.processes import own_share

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


def test_items_come_in_their_order_from_another_thread():
    makers = set()

    def made():
        for number in range(100):
            makers.add(threading.current_thread().name)
            yield number

    assert list(ahead(made(), depth=3)) == list(range(100))
    assert makers == {"batches"}


def test_no_more_is_made_than_is_asked_for():
    asked, made = threading.Semaphore(0), []

    def items():
        for number in count():
            made.append(number)
            asked.release()
            yield number

    ready = ahead(items(), depth=3)
    assert next(ready) == 0
    for _ in range(5):  # three that wait, the one that was taken, and one in the making
        assert asked.acquire(timeout=10)
    assert not asked.acquire(timeout=0.2)
    assert made == [0, 1, 2, 3, 4]
    ready.close()


def test_an_error_comes_in_the_place_of_its_item():
    def items():
        yield 1
        yield 2
        raise ValueError("no third")

    ready = ahead(items(), depth=5)
    assert [next(ready), next(ready)] == [1, 2]
    with pytest.raises(ValueError, match="no third"):
        next(ready)


def test_whoever_stops_early_ends_the_thread():
    before = threading.active_count()
    ready = ahead(count(), depth=2)
    assert next(ready) == 0
    assert threading.active_count() == before + 1
    ready.close()
    assert threading.active_count() == before


def test_tensors_travel_in_one_block():
    tensors = [torch.arange(6).view(2, 3), torch.tensor([7]), torch.zeros(0, dtype=torch.int64)]
    packed = pack(tensors)
    assert packed.block.tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert [tensor.tolist() for tensor in packed.unpack("cpu")] == [tensor.tolist() for tensor in tensors]


@pytest.mark.parametrize(("n_bytes", "free", "home"), [(250, 1000, CUDA), (251, 1000, CPU)])
def test_songs_live_on_the_device_if_they_take_a_quarter_of_what_is_free(n_bytes, free, home):
    assert home_of_songs(n_bytes, CUDA, lambda: free) == home
    assert home_of_songs(n_bytes, CPU) == CPU


def shares_of(rows, config):
    generator = torch.Generator().manual_seed(0)
    for windows in rows.epoch(8, generator, last_item_probability=config.last_item_probability):
        yield own_share(ask(rows, windows, config, generator), rank=1, world_size=2)


def plain(part: Part):
    batch = part.batch
    remembered = [] if batch.remembered is None else [batch.remembered]
    columns = (batch.songs, batch.places, batch.targets, *batch.origin, *remembered)
    return [column.tolist() for column in columns], *part[1:]


@pytest.mark.parametrize("hides", [True, False])
@pytest.mark.parametrize("rows_are_there", [True, False])
def test_what_is_sent_makes_the_same_batch_on_the_other_side(rows_are_there, hides):
    """The two ways to a CUDA device, without one: places are sent and songs gathered there, or songs are sent."""
    lists = [np.arange(10 * n, 10 * n + 2 + n % 8) for n in range(1, 40)]
    offsets = np.concatenate([[0], np.cumsum([len(songs) for songs in lists])])
    rows = TrainingRows(np.concatenate(lists).astype(np.int32), offsets[:-1], offsets[1:], 8, hides=hides)
    config = TrainingConfig(last_item_probability=0.5)
    expected = [plain(part) for part in parts_on(CPU, rows, shares_of(rows, config))]
    for share, wanted in zip(shares_of(rows, config), expected, strict=True):
        packed = pack(feeding._what_is_sent(rows, share, rows_are_there))
        batch = feeding._received(rows, share, packed.unpack("cpu"), rows_are_there)
        assert plain(Part(batch, share.weight, share.n_places, share.memory_weight)) == wanted


def test_a_process_reads_the_songs_of_its_own_rows_alone():
    class Watched(torch.Tensor):
        """Notes which places of it are read."""

        def __getitem__(self, index):
            read.update(index.flatten().tolist())
            return super().__getitem__(index).as_subclass(torch.Tensor)

    read = set()
    rows = TrainingRows(np.arange(3, 43, dtype=np.int32), np.arange(0, 40, 4), np.arange(4, 44, 4), 4)
    rows.flat = rows.flat.as_subclass(Watched)
    (windows,) = rows.epoch(10, torch.Generator().manual_seed(0))
    asked = mask(windows, 4, TrainingConfig(), torch.Generator().manual_seed(0))
    training_batch(rows, own_share(asked, 0, 2).asked)
    own = windows.firsts[::2]
    assert {place // 4 for place in read} == {int(first) // 4 for first in own}
