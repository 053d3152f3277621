import pytest
from clients import QUICK, Blocking
from fake_server import FakeServer
from gdn_client import Client


@pytest.fixture
def fake():
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture(params=[Client, Blocking], ids=["sync", "asyncio"])
def connect(request):
    """Client, or AsyncClient that is called in the same way."""
    return request.param


@pytest.fixture
def client(fake, connect):
    with connect(fake.target, retry=QUICK) as client:
        yield client


@pytest.fixture
def sync_client(fake):
    with Client(fake.target, retry=QUICK) as client:
        yield client
