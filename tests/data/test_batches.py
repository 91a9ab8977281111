"""Groups of examples that go through the model at once."""

from itertools import combinations

import pytest

from pref_toolkit.data.batches import micro_batches, packed_length
from pref_toolkit.data.tokens import Encoded


def examples_of(lengths):
    """A response of one token adds nothing to its prompt."""
    return [Encoded([1] * n, [[2]], where=f"row {i}") for i, n in enumerate(lengths)]


def cut(items, places):
    return [items[a:b] for a, b in zip([0, *places], [*places, len(items)])]


@pytest.mark.parametrize("limit", [1, 5, 9, 13, 20, 40, 1000])
@pytest.mark.parametrize("lengths", [[], [3], [9, 1, 1, 9, 1, 1], [5, 5, 5, 5, 5], [2, 30, 2, 7, 1, 8, 8, 3]])
def test_groups_keep_the_order_are_the_fewest_and_the_most_even(lengths, limit):
    examples = examples_of(lengths)
    groups = micro_batches(examples, limit)
    assert [e for group in groups for e in group] == examples
    size = lambda group: sum(packed_length(e) for e in group)
    assert all(group and (size(group) <= limit or len(group) == 1) for group in groups)
    ways = [cut(lengths, places) for n in range(len(lengths)) for places in combinations(range(1, len(lengths)), n)]
    allowed = [way for way in ways if all(sum(part) <= limit or len(part) == 1 for part in way)]
    assert len(groups) == min(map(len, allowed), default=0)
    if groups:
        best = min(max(map(sum, way)) for way in allowed if len(way) == len(groups))
        assert max(map(size, groups)) == best
