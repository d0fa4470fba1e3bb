import pytest

from backend import threads


@pytest.fixture(autouse=True)
def _same_threads():
    """One of the entry points sets how many there are."""
    before = threads.limit()
    yield
    threads.set_limit(before)
