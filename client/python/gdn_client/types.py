"""What calls answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np

from .layout import DataType, Geometry, Layout


class Answer(NamedTuple):
    """The answer to a step.

    output         [tokens, width] in row order, read-only; no tokens where `discard_output` was set.
                   Of a step in shared memory it is a view of the region: it changes with it
    slots, epochs  of every row (-1 and 0 for padding) where the rows came as request_ids; else None
    replayed_rows  rows answered from the store, because this step had committed for them before
    """

    output: np.ndarray
    slots: np.ndarray | None = None
    epochs: np.ndarray | None = None
    replayed_rows: int = 0


@dataclass(frozen=True)
class ServerInfo:
    """What the server hosts and allows. `layers` are N of model.layers.N; leases in seconds."""

    version: str
    instance_id: str
    model_fingerprint: str
    geometry: Geometry
    layers: tuple[int, ...]
    data_type: DataType
    ssm_data_type: DataType
    input_layouts: tuple[Layout, ...]
    max_rows: int
    max_tokens: int
    max_decode_tokens: int
    max_speculative_tokens: int
    max_message_bytes: int
    slots: int
    slots_used: int
    step_ttl: float
    max_ttl: float


@dataclass(frozen=True)
class Sequence:
    """A sequence. `positions` is {layer: tokens folded in}; times are the server's, in UTC."""

    request_id: str
    slot: int
    epoch: int
    poisoned: bool
    positions: dict[int, int]
    create_time: datetime
    expire_time: datetime


class Renewal(NamedTuple):
    """The answer to a heartbeat: `missing` are the ids that are gone, or poisoned. A new
    instance_id means that the server was restarted."""

    instance_id: str
    missing: list[str]


def _seconds(duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def server_info(m) -> ServerInfo:
    """From a GetServerInfoResponse."""
    g = m.geometry
    plain = (
        "version",
        "instance_id",
        "model_fingerprint",
        "max_rows",
        "max_tokens",
        "max_decode_tokens",
    )
    plain += ("max_speculative_tokens", "max_message_bytes", "slots", "slots_used")
    return ServerInfo(
        geometry=Geometry(
            g.hidden_size, g.key_heads, g.value_heads, g.key_dim, g.value_dim, g.conv_width
        ),
        layers=tuple(m.layers),
        data_type=DataType(m.data_type),
        ssm_data_type=DataType(m.ssm_data_type),
        input_layouts=tuple(map(Layout, m.input_layouts)),
        step_ttl=_seconds(m.step_ttl),
        max_ttl=_seconds(m.max_ttl),
        **{name: getattr(m, name) for name in plain},
    )


def sequence(m, layers: tuple[int, ...]) -> Sequence:
    """From a gdn.v1.Sequence."""
    return Sequence(
        m.request_id,
        m.slot,
        m.epoch,
        m.state == 2,
        dict(zip(layers, m.positions)),
        m.create_time.ToDatetime(timezone.utc),
        m.expire_time.ToDatetime(timezone.utc),
    )
