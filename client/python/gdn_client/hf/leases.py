"""The sequences of an attachment: their leases are kept until they are let go."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from queue import SimpleQueue

from ..client import Client
from ..errors import GdnError
from ..keeper import Keeper

_CLOSE_TIMEOUT = 5.0  # seconds; leases that are not released by then end by themselves


class Leases:
    """Keeps sequences alive from one thread and releases them from another.

    The garbage collector lets sequences go when their cache dies, at any point of any thread; so
    `drop` takes no lock and makes no call.
    """

    def __init__(self, client: Client):
        self._client = client
        self._keeper = Keeper(client)
        self._live: set[str] = set()
        self._dropped: SimpleQueue[list[str] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="gdn-release", daemon=True)
        self._thread.start()

    def add(self, request_ids: Iterable[str]) -> None:
        """Ids of sequences that are about to begin."""
        self._live.update(request_ids)

    def keep(self, request_ids: Iterable[str]) -> None:
        """Renews the leases of sequences from now on: of those that have begun."""
        self._keeper.add(request_ids)

    def drop(self, request_ids: list[str]) -> None:
        """Releases sequences, soon."""
        self._dropped.put(request_ids)

    def release(self, request_ids: list[str]) -> None:
        """Releases sequences, now. A release that fails is left to the ends of their leases."""
        self._keeper.discard(request_ids)
        self._live.difference_update(request_ids)
        try:
            self._client.release(request_ids)
        except (GdnError, ValueError):  # ValueError: the channel was closed meanwhile
            pass

    def close(self) -> None:
        """Releases all, those too whose first answer was lost, and ends both threads."""
        self._dropped.put(None)
        self._thread.join(_CLOSE_TIMEOUT)
        self._keeper.close()

    def _run(self) -> None:
        while (request_ids := self._dropped.get()) is not None:
            self.release(request_ids)
        self.release(list(self._live))
