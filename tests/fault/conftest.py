"""The seed of everything random here: said at the start of each run, and given back to repeat one."""

import os
import random

import pytest

SEED = int(os.environ.get("PADDOCK_FAULT_SEED", "0")) or random.randrange(1, 2**31)


def pytest_report_header() -> str:
    return f"faults: seed {SEED} (PADDOCK_FAULT_SEED={SEED} repeats it)"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of one test, by the run's seed and the test's name."""
    return random.Random(f"{SEED} {request.node.name}")
