import asyncio
import threading

import numpy as np
from fake_server import HIDDEN
from gdn_client import AsyncClient, AsyncKeeper, Keeper


def begin(client, *ids):
    client.prefill(
        0, client.rows(request_ids=ids, create=True), np.ones((len(ids), HIDDEN), np.float32)
    )


def test_keeps_and_reports_what_is_lost_once(fake, sync_client):
    begin(sync_client, "a", "b", "c")
    told, lost = threading.Event(), []

    def on_lost(ids):
        lost.append(ids)
        told.set()

    with Keeper(sync_client, on_lost, period=0.001) as keeper:
        keeper.add(["a", "b", "c"])
        keeper.discard(["c"])
        sync_client.release(["b", "c"])
        assert told.wait(10)
        seen = len(fake.renewals)
        while len(fake.renewals) < seen + 3:
            told.wait(0.001)
    assert lost == [["b"]] and fake.renewals[-1] == ["a"]


def test_a_restart_loses_all(fake, sync_client):
    begin(sync_client, "a", "b")
    told, lost = threading.Event(), []
    with Keeper(sync_client, lambda ids: (lost.extend(ids), told.set()), period=0.001) as keeper:
        keeper.add(["a", "b"])
        fake.restart()
        assert told.wait(10)
    assert lost == ["a", "b"]


def test_period_is_a_third_of_the_lease(sync_client):
    with Keeper(sync_client) as keeper:
        assert keeper._period == sync_client.info.step_ttl / 3


def test_asyncio(fake):
    async def run():
        async with AsyncClient(fake.target) as client:
            await client.prefill(
                0, client.rows(request_ids=["a", "b"], create=True), np.ones((2, HIDDEN))
            )
            told, lost = asyncio.Event(), []

            async def on_lost(ids):
                lost.extend(ids)
                told.set()

            async with AsyncKeeper(client, on_lost, period=0.001) as keeper:
                keeper.add(["a", "b"])
                await client.release(["b"])
                await asyncio.wait_for(told.wait(), 10)
            assert lost == ["b"] and keeper._kept() == ["a"]

    asyncio.run(run())
