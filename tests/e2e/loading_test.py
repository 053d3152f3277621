"""A server that is still loading: it listens, says that it is not ready, and can be ended."""

import grpc
import pytest
from gdn_client import GdnError
from hostile_test import METHODS
from make_checkpoint import make_checkpoint
from steps import raw_call

# A channel that tries again at once until the server listens.
EAGER = [(f"grpc.{name}_reconnect_backoff_ms", 10) for name in ("initial", "min", "max")]
NOT_SERVING = b"\x08\x02"  # grpc.health.v1.HealthCheckResponse


def test_not_ready_until_everything_is_loaded(launch, tmp_path):
    """The layers take seconds to load, these calls milliseconds."""
    sizes = dict(hidden=2048, heads=16, value_heads=32, key_dim=128, value_dim=128, layers=32)
    model = make_checkpoint(tmp_path / "model", **sizes, blank=True)
    target = f"unix:{tmp_path}/gdn.sock"
    server = launch(model, listen=target, slots=1, max_rows=1, max_tokens=64)
    with grpc.insecure_channel(target, options=EAGER) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=60, wait_for_ready=True) == NOT_SERVING
        for path in METHODS:
            with pytest.raises(GdnError) as e:
                raw_call(channel, path, b"")
            assert (e.value.code, e.value.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_READY")
            assert e.value.retry_delay > 0
        assert check(b"") == NOT_SERVING
    assert server.stop() == 0 and b"ready" not in server.process.stdout.read()
