import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving import batching
from serving.batching import MicroBatcher


class SlowFirstBatch:
    """Doubles numbers; the first batch waits until it is let go, so that a line forms behind it."""

    def __init__(self):
        self.batches = []
        self.began, self.go = threading.Event(), threading.Event()

    def __call__(self, queries):
        self.batches.append(list(queries))
        if len(self.batches) == 1:
            self.began.set()
            assert self.go.wait(30)
        if -1 in queries:
            raise ValueError("minus one")
        return [2 * query for query in queries]


def submit_behind_the_first(answer, numbers, largest_batch=32):
    """Futures of the first query and of `numbers`, all of which stood in line while the first was scored."""
    batcher = MicroBatcher(answer, largest_batch=largest_batch)
    with ThreadPoolExecutor(1 + len(numbers)) as threads:
        first = threads.submit(batcher.submit, 0)
        assert answer.began.wait(30)
        others = [threads.submit(batcher.submit, number) for number in numbers]
        while len(batcher._line) < len(numbers):
            threading.Event().wait(0.001)
        answer.go.set()
    return [first, *others]


def test_a_lone_query_is_answered_at_once():
    batcher: MicroBatcher[int, int] = MicroBatcher(lambda queries: [query + 1 for query in queries])
    assert batcher.submit(1) == 2


def test_what_came_in_meanwhile_is_scored_as_one_batch_and_each_gets_its_own_answer():
    answer = SlowFirstBatch()
    futures = submit_behind_the_first(answer, [1, 2, 3, 4])
    assert [future.result() for future in futures] == [0, 2, 4, 6, 8]
    assert [sorted(batch) for batch in answer.batches] == [[0], [1, 2, 3, 4]]


def test_a_batch_is_never_larger_than_the_largest():
    answer = SlowFirstBatch()
    futures = submit_behind_the_first(answer, list(range(1, 11)), largest_batch=4)
    assert [future.result() for future in futures] == [2 * number for number in range(11)]
    assert max(map(len, answer.batches)) == 4
    assert len(answer.batches) == 4


def test_a_failing_batch_ends_with_an_answer_or_an_error_for_everyone():
    answer = SlowFirstBatch()
    first, poison, *others = submit_behind_the_first(answer, [-1, 1, 2, 3])
    assert first.result() == 0
    with pytest.raises(ValueError, match="minus one"):
        poison.result()
    answered = [future.result() for future in others if future.exception() is None]
    assert len(answered) >= len(others) - 1  # at most the thread whose batch met the poison failed with it
    assert set(answered) <= {2, 4, 6}


def test_who_is_answered_goes_on_while_the_next_batch_is_scored():
    """Of 0; 1 and 2; 3 and 4, the last batch does not end before the threads of 1 and 2 have their answers."""
    answered, last_began = threading.Event(), threading.Event()

    class SlowLastBatch(SlowFirstBatch):
        def __call__(self, queries):
            if len(self.batches) == 2:
                last_began.set()
                assert answered.wait(30)
            return super().__call__(queries)

    answer = SlowLastBatch()
    batcher = MicroBatcher(answer, largest_batch=2)
    with ThreadPoolExecutor(5) as threads:
        futures = [threads.submit(batcher.submit, 0)]
        assert answer.began.wait(30)
        for number in (1, 2, 3, 4):
            futures.append(threads.submit(batcher.submit, number))
            while len(batcher._line) < number:
                threading.Event().wait(0.001)
        answer.go.set()
        assert last_began.wait(30)
        assert [future.result(timeout=30) for future in futures[:3]] == [0, 2, 4]
        answered.set()
        assert [future.result() for future in futures[3:]] == [6, 8]
    assert answer.batches == [[0], [1, 2], [3, 4]]


@pytest.mark.parametrize("is_called", [False, True])
def test_a_thread_that_is_interrupted_holds_nobody_up(is_called, monkeypatch):
    """Query 1 is interrupted while it waits, or at the moment at which it is to lead."""

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            assert not is_called or super().wait(30)
            raise KeyboardInterrupt

    class Ticket(batching._Ticket):
        def __init__(self, query):
            super().__init__(query)
            if query == 1:
                self.called = Interrupted()

    monkeypatch.setattr(batching, "_Ticket", Ticket)
    answer = SlowFirstBatch()
    batcher = MicroBatcher(answer)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(batcher.submit, 0)
        assert answer.began.wait(30)
        interrupted = threads.submit(batcher.submit, 1)
        while not (len(batcher._line) == 1 if is_called else interrupted.done()):
            threading.Event().wait(0.001)
        second = threads.submit(batcher.submit, 2)
        while len(batcher._line) < 1 + is_called:
            threading.Event().wait(0.001)
        answer.go.set()
        assert [first.result(timeout=30), second.result(timeout=30)] == [0, 4]
        with pytest.raises(KeyboardInterrupt):
            interrupted.result()
    assert answer.batches == [[0], [2]]
    assert batcher.submit(3) == 6
