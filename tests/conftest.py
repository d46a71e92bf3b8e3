"""What all tests share: hypothesis without deadlines, as a loaded machine is no fault of the code, and repeatable."""

import pytest
from hypothesis import settings

settings.register_profile("landing", deadline=None, derandomize=True)
settings.load_profile("landing")


@pytest.fixture(scope="session")
def node_client(tmp_path_factory):
    """The Node.js client, ready to run; a test that wants it is skipped where it cannot be had."""
    from tests import node_client

    try:
        return node_client.install(tmp_path_factory.mktemp("node"))
    except (node_client.NotHere, node_client.InstallFailed) as missing:
        pytest.skip(str(missing))
