"""A suite whose base serves, made once a file, and calm at the start of each test."""

import pytest
from pipeline_faults import calm

from tests.pipeline import Pipeline, pipeline


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """It stays the same through all faults of a file."""
    with pipeline(tmp_path_factory.mktemp("suite")) as started:
        started.create_endpoint()
        started.base()
        yield started


@pytest.fixture
def running(serving: Pipeline) -> Pipeline:
    """Each fault hits a suite that has recovered from the last."""
    calm(serving)
    return serving
