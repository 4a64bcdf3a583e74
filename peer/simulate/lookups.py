"""What a look-up in a Kademlia DHT costs: nodes with routing tables, and the search that asks them one by one.

Routing tables have buckets of 20 (Kademlia, Maymounkov and Mazières 2002, 2.2), filled at random; they are made when
they are first looked at. The search asks the nearest node that it has heard of, until 20 have answered that are nearer
to the key than all others that it knows, as Hivemind's does. So most questions go to the key's own neighbourhood, and
the number of nodes adds only the few that lead there.
"""

import hashlib
import random
from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Sequence
from heapq import heapify, heappop, heappush, nsmallest

ID_BITS = 160
BUCKET = 20  # contacts of a bucket, contacts in an answer, and the search's beam
REPLICAS = 5  # nodes that a record is stored at


def node_id(name: str) -> int:
    """Return where a node, or a key, lies."""
    return int.from_bytes(hashlib.sha1(name.encode(), usedforsecurity=False).digest())


class Kademlia:
    """The nodes of a DHT. Those that have `left` stand in the others' tables still, and do not answer."""

    def __init__(self, names: Iterable[str], left: Collection[str], seed: int) -> None:
        self._left = {node_id(name) for name in left}
        self._sorted = sorted({node_id(name) for name in names} | self._left)
        self._seed = seed
        self._tables: dict[int, list[int]] = {}

    def store(self, me: str, key: str) -> int:
        """Return how many questions it takes to store a record: to find the nodes near its key, and to tell them."""
        questions, nearest = self.search(node_id(me), node_id(key))
        return questions + min(REPLICAS, len(nearest))

    def fetch(self, me: str, key: str) -> int:
        """Return how many questions it takes to read a key's newest records: as many as to find the nodes near it."""
        return self.search(node_id(me), node_id(key))[0]

    def search(self, me: int, key: int) -> tuple[int, list[int]]:
        """Return how many nodes `me` asks, and the nodes nearest to the key that answered, nearest first."""
        known = {me, *self.neighbours(me, key)}
        unasked = [(contact ^ key, contact) for contact in known - {me}]
        heapify(unasked)
        questions = 0
        answered: list[tuple[int, int]] = []  # distance and contact, nearest first
        while unasked and (len(answered) < BUCKET or unasked[0][0] < answered[BUCKET - 1][0]):
            distance, contact = heappop(unasked)
            questions += 1
            if contact in self._left:
                continue
            insort(answered, (distance, contact))
            for found in set(self.neighbours(contact, key)) - known:
                known.add(found)
                heappush(unasked, (found ^ key, found))
        return questions, [contact for _, contact in answered[:BUCKET]]

    def neighbours(self, node: int, key: int) -> list[int]:
        """Return the contacts of a node that are nearest to the key: its answer."""
        return nsmallest(BUCKET, self._table(node), key=lambda contact: contact ^ key)

    def _table(self, node: int) -> Sequence[int]:
        if node not in self._tables:
            self._tables[node] = self._filled(node)
        return self._tables[node]

    def _filled(self, node: int) -> list[int]:
        """Fill a bucket for each number of leading bits that a contact has in common with the node."""
        chance = random.Random(node ^ self._seed)
        table: list[int] = []
        first, last = 0, len(self._sorted)  # the nodes with the bits in common
        for bit in range(ID_BITS - 1, -1, -1):
            if last - first <= 1:
                break
            base = node >> (bit + 1) << (bit + 1)
            middle = bisect_left(self._sorted, base | 1 << bit, first, last)
            near, far = ((middle, last), (first, middle)) if node >> bit & 1 else ((first, middle), (middle, last))
            table += chance.sample(self._sorted[slice(*far)], min(BUCKET, far[1] - far[0]))
            first, last = near
        return table
