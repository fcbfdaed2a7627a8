"""A stream taken group by group, as many as a step turns out to need, read ahead in the background.

What a step takes depends on how many dead pools it replaces, so a run's place in the stream is not its step: it is the
number of groups taken so far, one integer, saved in every checkpoint. Where several processes share a step they all
take the same places, and each reads those that it is dealt.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from trainer.ranks import ALONE, Ranks
from trainer.stream import Group, Stream


class Feed:
    """Groups of a stream in its order, from a position on. Reading runs beside the training (Lance releases the GIL).

    Args:
        stream: one that gives one group a batch.
        position: groups taken before, by all processes together.
        ahead: how many are read before they are asked for.
        ranks: who shares what is taken.
    """

    def __init__(self, stream: Stream, position: int = 0, ahead: int = 8, ranks: Ranks = ALONE) -> None:
        if stream.groups != 1:
            raise ValueError(f"a feed takes single groups, got a stream of {stream.groups} a batch")
        self.stream, self.position, self.ahead, self.ranks = stream, position, ahead, ranks
        self._pool = ThreadPoolExecutor(1)
        self._reading: dict[int, Future[list[Group]]] = {}

    def take(self, count: int) -> list[Group]:
        """This process's share of the next `count` groups. Raises what reading them raised."""
        taken = [self._reading.pop(place).result()[0] for place in self._read(count)]
        self.position += count
        self._read(self.ahead)
        return taken

    def _read(self, wanted: int) -> list[int]:
        """Have this process's share of so many groups in hand or under way; returns their places in the stream."""
        places = self.ranks.mine(range(self.position, self.position + wanted))
        for place in places:
            if place not in self._reading:
                self._reading[place] = self._pool.submit(self.stream.batch, place)
        for place in [p for p in self._reading if p < self.position]:  # read ahead, then dealt to another process
            self._reading.pop(place).cancel()
        return places

    def __enter__(self) -> Self:
        self._read(self.ahead)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
