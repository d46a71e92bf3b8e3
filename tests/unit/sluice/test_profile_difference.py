"""What two bodies of rows do not share, against plain Python over the same keys."""

import random
from collections import Counter

import pyarrow as pa
import pytest

from sluice.rows.profile import count_new, difference
from sluice.rows.profile.difference import Keyed


def side(values, size=7, read=None):
    """Rows whose keys stand for small numbers, so many at a time."""

    def rows():
        for start in range(0, len(values), size):
            part = values[start : start + size]
            if read is not None:
                read.append(len(part))
            keys = pa.array([value.to_bytes(8) + (value * 7).to_bytes(8) for value in part], pa.binary(16))
            splits = pa.array([("train", "test")[value % 2] for value in part]).dictionary_encode()
            yield Keyed(start + 1, keys, splits)

    return rows


def beyond(values, others):
    """Rows that the others have not, the last ones of those that are there more often."""
    left, found = Counter(others), []
    for number, value in enumerate(values, 1):
        left[value] -= 1
        if left[value] < 0:
            found.append((number, value))
    return found


@pytest.mark.parametrize("at_once", [1000, 9])
@pytest.mark.parametrize("seed", range(30))
def test_rows_count_as_often_as_they_are_there(seed, at_once):
    rng = random.Random(seed)
    before, after = ([rng.randrange(12) for _ in range(rng.randrange(30))] for _ in range(2))
    count = len(before) + len(after)
    found = difference(side(before), side(after), count, at_once=at_once)
    for change, true in ((found.added, beyond(after, before)), (found.removed, beyond(before, after))):
        assert (change.rows, change.first) == (len(true), [number for number, _ in true])
        assert change.splits == Counter(("train", "test")[value % 2] for _, value in true)
    new = count_new(side(before), side(after), count, at_once=at_once)
    assert new == sum(value not in before for value in after)


def test_many_rows_are_gone_through_again_instead_of_held():
    read = []
    found = difference(side(range(100), 10, read), side(range(50, 150), 10, read), 200, first=3, at_once=50)
    assert (found.added.rows, found.added.first) == (50, [51, 52, 53])
    assert sum(read) == 4 * 200


def test_keys_that_share_a_half_are_two():
    halves = [(1, 2), (1, 3), (2, 3)]
    keys = pa.array([high.to_bytes(8) + low.to_bytes(8) for high, low in halves], pa.binary(16))

    def rows(which):
        return lambda: [Keyed(1, keys.take(pa.array(which)), pa.array(["train"] * len(which)))]

    assert difference(rows([0]), rows([1, 2]), 3).added.rows == 2


def test_nothing_at_all():
    nothing = difference(side([]), side([]), 0)
    assert (nothing.added.rows, nothing.removed.rows, nothing.added.splits) == (0, 0, {})
    assert count_new(side([]), side([1, 1]), 2) == 2
