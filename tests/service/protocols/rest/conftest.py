"""A frontend with a null worker, shared by the tests of a module."""

from collections.abc import Iterator

import httpx
import pytest

from tests.service.frontends import RunningFrontend, run_frontend


@pytest.fixture(scope="module")
def frontend() -> Iterator[RunningFrontend]:
    """Serves with one worker that answers at once."""
    with run_frontend(max_image_bytes="100000", log_level="warning") as running:
        running.add_worker(0)
        yield running


@pytest.fixture(scope="module")
def client(frontend: RunningFrontend) -> Iterator[httpx.Client]:
    """Speaks to it."""
    with httpx.Client(base_url=frontend.url, timeout=20) as made:
        yield made
