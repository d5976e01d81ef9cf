"""Best-fit decreasing, for so many documents that only their lengths are counted: which lengths share a sample."""

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """`count` samples that hold pieces of the same lengths: (length, how many of it), in the order they were put in."""

    count: int
    pieces: tuple[tuple[int, int], ...]


def best_fit(counts: Lengths, capacity: int) -> list[Group]:
    """Pack counts[l] pieces of each length l (1 <= l <= capacity) into samples of `capacity` tokens.

    As best-fit decreasing does it: the longest piece first, each into the sample that it leaves the least room in, and
    into a new one if it fits nowhere. Samples with the same room are alike, so all of them are filled in one step, and
    the time depends on the number of lengths, not of pieces.
    """
    bins = _Bins(capacity)
    for length in range(len(counts) - 1, 0, -1):
        left = int(counts[length])
        while left:
            left -= bins.put(length, left)
    return bins.groups()


class _Bins:
    """Samples by the room that is left in them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._by_room: dict[int, list[Group]] = {}
        self._rooms: list[int] = []  # with samples in them, ascending

    def put(self, length: int, left: int) -> int:
        """Put up to `left` pieces of a length into the fullest samples that take them, all of one group; how many."""
        at = bisect_left(self._rooms, length)
        if at == len(self._rooms):
            each = self._capacity // length
            full = left // each
            if full:
                self._add(Group(full, ((length, each),)), self._capacity - each * length)
                return full * each
            self._add(Group(1, ((length, left),)), self._capacity - left * length)
            return left
        room = self._rooms[at]
        group = self._take(room)
        each = room // length
        full = min(left // each, group.count)
        if full < group.count:
            self._add(Group(group.count - full, group.pieces), room)
        if full:
            self._add(Group(full, (*group.pieces, (length, each))), room - each * length)
            return full * each
        # Fewer pieces than one sample takes: they all go into one.
        untouched = self._take(room)
        if untouched.count > 1:
            self._add(Group(untouched.count - 1, untouched.pieces), room)
        self._add(Group(1, (*untouched.pieces, (length, left))), room - left * length)
        return left

    def groups(self) -> list[Group]:
        """All samples, the fullest first."""
        return [group for room in self._rooms for group in self._by_room[room]] + self._by_room.get(0, [])

    def _add(self, group: Group, room: int) -> None:
        if room and not self._by_room.get(room):
            insort(self._rooms, room)
        self._by_room.setdefault(room, []).append(group)

    def _take(self, room: int) -> Group:
        group = self._by_room[room].pop()
        if not self._by_room[room]:
            self._rooms.remove(room)
        return group
