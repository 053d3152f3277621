"""The heartbeat: keeps the leases of sequences that wait."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from .errors import GdnError

if TYPE_CHECKING:
    from .aio import AsyncClient
    from .client import Client


class _Ids:
    """The ids to be kept."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._lock = threading.Lock()

    def add(self, request_ids: Iterable[str]) -> None:
        """Keeps sequences from now on. Add them once their first step was answered."""
        with self._lock:
            self._ids.update(request_ids)

    def discard(self, request_ids: Iterable[str]) -> None:
        """Lets sequences go; call it before Client.release."""
        with self._lock:
            self._ids.difference_update(request_ids)

    def _kept(self) -> list[str]:
        with self._lock:
            return sorted(self._ids)

    def _take(self, missing: list[str]) -> list[str]:
        """Of `missing`, those that were to be kept; they no longer are."""
        with self._lock:
            lost = [i for i in missing if i in self._ids]
            self._ids.difference_update(lost)
        return lost


class Keeper(_Ids):
    """Renews leases from a thread of its own, three times in each.

        with Keeper(client, lost=print) as keeper:
            keeper.add(["a", "b"])

    `lost` is called on that thread with the ids that turned out to be gone (expired, poisoned, or
    the server restarted): prefill them again from token 0. A renewal that fails is tried at the
    next turn.
    """

    def __init__(
        self,
        client: Client,
        lost: Callable[[list[str]], None] = lambda ids: None,
        *,
        ttl: float | None = None,
        period: float | None = None,
    ):
        """ttl: seconds of each lease (None: info.step_ttl). period: between renewals (None: ttl /
        3)."""
        super().__init__()
        self._client, self._lost, self._ttl = client, lost, ttl
        self._period = period or (ttl or client.info.step_ttl) / 3
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gdn-keeper", daemon=True)
        self._thread.start()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the heartbeat."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            ids = self._kept()
            if not ids:
                continue
            try:
                missing = self._client.renew(ids, self._ttl).missing
            except GdnError:
                continue
            if lost := self._take(missing):
                self._lost(lost)


class AsyncKeeper(_Ids):
    """As Keeper, in a task of the running event loop; `lost` may be a coroutine function.

    async with AsyncKeeper(client, lost=print) as keeper: ...
    """

    def __init__(
        self,
        client: AsyncClient,
        lost: Callable[[list[str]], None | Awaitable[None]] = lambda ids: None,
        *,
        ttl: float | None = None,
        period: float | None = None,
    ):
        super().__init__()
        self._client, self._lost, self._ttl = client, lost, ttl
        self._period = period or (ttl or client.info.step_ttl) / 3
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def __aenter__(self) -> AsyncKeeper:
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the heartbeat."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            ids = self._kept()
            if not ids:
                continue
            try:
                missing = (await self._client.renew(ids, self._ttl)).missing
            except GdnError:
                continue
            if lost := self._take(missing):
                answer = self._lost(lost)
                if inspect.isawaitable(answer):
                    await answer
