"""What the tests of the clients have in common."""

import asyncio

import numpy as np
from fake_server import HIDDEN
from gdn_client import AsyncClient, RetryPolicy

QUICK = RetryPolicy(attempts=4, initial=0.001, maximum=0.002)
X = np.arange(5 * HIDDEN, dtype=np.float32).reshape(5, HIDDEN) / 7


class Blocking:
    """AsyncClient with Client's way of calling."""

    def __init__(self, target, **kw):
        self.loop = asyncio.new_event_loop()
        self.client = self.loop.run_until_complete(AsyncClient(target, **kw).connect())
        self.info, self.rows, self.step_id = self.client.info, self.client.rows, self.client.step_id

    def __getattr__(self, name):
        return lambda *a, **kw: self.loop.run_until_complete(getattr(self.client, name)(*a, **kw))

    def list_sequences(self, *a):
        async def collect():
            return [s async for s in self.client.list_sequences(*a)]

        return self.loop.run_until_complete(collect())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        self.loop.close()


def begin(client, *ids, tokens=1):
    """Prefills new sequences; -> the fast form's slots and epochs, and the answer."""
    n = len(ids)
    rows = client.rows(request_ids=ids, create=True, token_counts=[tokens] * n)
    answer = client.prefill(0, rows, np.ones((n * tokens, HIDDEN), np.float32))
    return dict(slots=answer.slots, epochs=answer.epochs), answer
