"""Which failures to answer with the same call, and when."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from .errors import GdnError, Interrupted, ResourceExhausted


@dataclass(frozen=True)
class RetryPolicy:
    """`attempts` tries in all. Between them `initial` seconds, doubled each time up to `maximum`,
    or what the server asked for where that is longer."""

    attempts: int = 8
    initial: float = 0.05
    maximum: float = 1.0

    def delay(self, error: GdnError, attempt: int, repeatable: bool = True) -> float | None:
        """Seconds to wait after the failed `attempt` (from 1); None: raise the error.

        Not `repeatable` is a step with step_id 0: it is tried again only where the server says that
        nothing was done.
        """
        refused = isinstance(error, ResourceExhausted) or (
            isinstance(error, Interrupted) and error.reason
        )
        lost = isinstance(error, Interrupted) and repeatable
        if attempt >= self.attempts or not (refused or lost):
            return None
        return max(
            min(self.initial * 2.0 ** min(attempt - 1, 30), self.maximum), error.retry_delay or 0.0
        )


NO_RETRY = RetryPolicy(attempts=1)
ENDLESS = RetryPolicy(attempts=sys.maxsize)  # for who has a deadline of its own
