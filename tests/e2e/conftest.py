"""One whole suite with fake engines and recipes, for all tests that do not stop or break it."""

import pytest

from tests.pipeline import pipeline


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """A suite whose base serves. Who wants an adapter trains one; what served before may be any version."""
    with pipeline(tmp_path_factory.mktemp("suite")) as started:
        started.create_endpoint()
        started.base()
        yield started
