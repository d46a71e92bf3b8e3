"""One running registry and dataset service for all tests that only need to call them."""

import uuid

import pytest

from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests.suite import Suite, suite


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """A suite that stays up; tests keep apart by projects of their own."""
    with suite(tmp_path_factory.mktemp("suite"), "registry", "dataset") as started:
        yield started


@pytest.fixture
async def project(running: Suite):
    """The name of a new project."""
    async with running.channel("registry") as channel:
        wanted = registry.Project(display_name=f"p {uuid.uuid4().hex[:12]}")
        request = registry.CreateProjectRequest(project=wanted)
        return (await registry.ProjectServiceStub(channel).CreateProject(request)).project.name


@pytest.fixture
async def keys(running: Suite, project: str):
    """Makes a key with one role in the test's project: `name, secret = await keys(types.ROLE_AUDITOR)`."""
    async with running.channel("registry") as channel:

        async def make(role: "types.Role", where: str = project) -> tuple[str, str]:
            key = registry.ApiKey(display_name=uuid.uuid4().hex)
            key.role_bindings.add(project=where, role=role)
            request = registry.CreateApiKeyRequest(parent=project, api_key=key)
            made = await registry.ApiKeyServiceStub(channel).CreateApiKey(request)
            return made.api_key.name, made.secret

        yield make
