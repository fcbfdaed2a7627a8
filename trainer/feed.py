"""A stream taken group by group, as many as a step turns out to need, read ahead in the background.

What a step takes depends on how many dead pools it replaces, so a run's place in the stream is not its step: it is the
number of groups taken so far, one integer, saved in every checkpoint.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from trainer.stream import Group, Stream


class Feed:
    """Groups of a stream in its order, from a position on. Reading runs beside the training (Lance releases the GIL).

    Args:
        stream: one that gives one group a batch.
        position: groups taken before.
        ahead: how many are read before they are asked for.
    """

    def __init__(self, stream: Stream, position: int = 0, ahead: int = 8) -> None:
        if stream.groups != 1:
            raise ValueError(f"a feed takes single groups, got a stream of {stream.groups} a batch")
        self.stream, self.position, self.ahead = stream, position, ahead
        self._pool = ThreadPoolExecutor(1)
        self._reading: deque[Future[list[Group]]] = deque()

    def take(self, count: int) -> list[Group]:
        """The next `count` groups. Raises what reading them raised."""
        self._read(count)
        taken = [self._reading.popleft().result()[0] for _ in range(count)]
        self.position += count
        self._read(self.ahead)
        return taken

    def _read(self, wanted: int) -> None:
        """Have at least so many groups in hand or under way."""
        while len(self._reading) < wanted:
            place = self.position + len(self._reading)
            self._reading.append(self._pool.submit(self.stream.batch, place))

    def __enter__(self) -> Self:
        self._read(self.ahead)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
