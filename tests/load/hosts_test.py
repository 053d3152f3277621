"""What the programs say of their batches."""

import hosts
import pytest


@pytest.mark.parametrize(
    "text, counts",
    [(b"batches 3 rows 12\n", (3, 12)), (b"batches 0 rows 0\n", (0, 0)), (b"", None)],
)
def test_reads_what_a_program_prints(text, counts):
    assert hosts.of_output(text) == counts
