"""Asynchronous iterators walked by a plain loop."""

import asyncio
import copy
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import grpc
import pytest

from kit.rpc.errors import Invalid
from sluice.client.blocking import LoopThread
from sluice.client.login import Login


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.stop()


class Counting:
    """Yields numbers, says when the one after those used is under way, and when it was closed."""

    def __init__(self, most: int) -> None:
        self.most, self.begun, self.closed = most, [threading.Event() for _ in range(most)], threading.Event()

    async def numbers(self):
        try:
            for number in range(self.most):
                self.begun[number].set()
                yield number
            raise KeyError("after the last")
        finally:
            self.closed.set()


def test_the_next_is_under_way_while_one_is_used(loop):
    counting = Counting(3)
    found = loop.iterate(counting.numbers())
    assert next(found) == 0 and counting.begun[1].wait(10) and not counting.begun[2].is_set()


def test_an_error_comes_after_what_came_before_it(loop):
    counting, seen = Counting(3), []
    with pytest.raises(KeyError, match="after the last"):
        seen.extend(loop.iterate(counting.numbers()))
    assert seen == [0, 1, 2] and counting.closed.is_set()


def test_leaving_closes_what_is_walked(loop):
    counting = Counting(100)
    found = loop.iterate(counting.numbers())
    next(found)
    found.close()
    assert counting.closed.is_set() and not counting.begun[2].is_set()


def test_a_login_has_one_client_in_a_process_however_often_it_is_taken_along():
    """A data loader opens its version again for each epoch; each client has a thread and a channel."""
    login = Login("127.0.0.1:1", "key", "p", 30.0)
    taken = [pickle.loads(pickle.dumps(login)).client() for _ in range(2)]
    assert taken[0] is taken[1] is login.client()
    taken[0].close()


def test_credentials_of_tls_are_not_taken_to_another_process():
    login = Login("127.0.0.1:1", "key", "p", 30.0, grpc.ssl_channel_credentials())
    copy.deepcopy(login).client().close()
    with pytest.raises(Invalid, match="num_workers=0"):
        pickle.loads(pickle.dumps(login)).client()
    assert "key" not in repr(login)


def test_who_waits_when_the_client_is_closed_is_told(loop):
    waiting, told = threading.Event(), []

    async def silent():
        waiting.set()
        await asyncio.Event().wait()
        yield

    def wait():
        with pytest.raises(CancelledError):
            next(loop.iterate(silent()))
        told.append(True)

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    loop.stop()
    thread.join(10)
    assert told


def test_a_cancelled_wait_closes_what_is_walked(loop):
    closed, waiting = threading.Event(), threading.Event()

    async def slow_to_close():
        try:
            yield 0
            waiting.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.set()

    found = loop.iterate(slow_to_close())
    assert next(found) == 0 and waiting.wait(10)
    with pytest.raises(KeyboardInterrupt):
        found.throw(KeyboardInterrupt())
    assert closed.is_set()
