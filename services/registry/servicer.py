"""The rpcs of the registry but those on task types and model versions: each calls one command and wraps the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlmodel import col

from kit.auth import authorize
from kit.rpc import paging
from kit.rpc.call import current_call
from kit.rpc.names import id_of, parent_of
from kit.store import Database, Unit
from services.registry import commands, domain, policies, store
from services.registry.catalog import Catalog
from sluice.registry import v1 as registry
from sluice.types import v1 as types

Context = Any
PoliciesRequest = registry.ListGatePoliciesRequest
NamedT = TypeVar("NamedT", registry.TaskType, registry.GatePolicy)


class ProjectServicer(registry.ProjectServiceServicer):
    """Projects by name."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def CreateProject(
        self, request: registry.CreateProjectRequest, context: Context
    ) -> registry.CreateProjectResponse:
        # Which project a request names must not decide here: this one is not there yet.
        authorize(current_call().principal, types.Access(), domain.ALL_PROJECTS)

        async def work(unit: Unit) -> registry.CreateProjectResponse:
            return registry.CreateProjectResponse(project=await commands.create_project(unit, request.project))

        return await self.database.answer(request, work)

    async def GetProject(self, request: registry.GetProjectRequest, context: Context) -> registry.GetProjectResponse:
        async with self.database.read() as session:
            return registry.GetProjectResponse(project=await store.PROJECTS.get(session, request.name))

    async def ListProjects(
        self, request: registry.ListProjectsRequest, context: Context
    ) -> registry.ListProjectsResponse:
        mine = {project for project, _ in current_call().principal.bindings}
        where = [] if domain.ALL_PROJECTS in mine else [col(store.ProjectRow.name).in_(mine)]
        async with self.database.read() as session:
            found, token = await store.PROJECTS.page(
                session, page_size=request.page_size, page_token=request.page_token, where=where
            )
        return registry.ListProjectsResponse(projects=found, next_page_token=token)


class ApiKeyServicer(registry.ApiKeyServiceServicer):
    """Keys by name."""

    def __init__(self, database: Database, refresh: Callable[[], Awaitable[None]]) -> None:
        """``refresh`` makes this process know the keys of the database."""
        self.database = database
        self.refresh = refresh

    async def CreateApiKey(
        self, request: registry.CreateApiKeyRequest, context: Context
    ) -> registry.CreateApiKeyResponse:
        giver = current_call().principal
        key, secret = await self.database.transact(
            lambda unit: commands.create_key(unit, request.parent, request.api_key, giver)
        )
        await self.refresh()
        return registry.CreateApiKeyResponse(api_key=key, secret=secret)

    async def ListApiKeys(self, request: registry.ListApiKeysRequest, context: Context) -> registry.ListApiKeysResponse:
        async with self.database.read() as session:
            found, token = await store.keys().page(
                session, parent=request.parent, page_size=request.page_size, page_token=request.page_token
            )
        return registry.ListApiKeysResponse(api_keys=found, next_page_token=token)

    async def RevokeApiKey(
        self, request: registry.RevokeApiKeyRequest, context: Context
    ) -> registry.RevokeApiKeyResponse:
        by = current_call().principal
        key = await self.database.transact(lambda unit: commands.revoke_key(unit, request.name, request.etag, by))
        await self.refresh()
        return registry.RevokeApiKeyResponse(api_key=key)

    async def WhoAmI(self, request: registry.WhoAmIRequest, context: Context) -> registry.WhoAmIResponse:
        principal = current_call().principal
        bindings = [
            registry.RoleBinding(project=project, role=types.Role.Name(types.Role.ValueType(role)))
            for project, role in sorted(principal.bindings)
        ]
        return registry.WhoAmIResponse(principal=principal.name, role_bindings=bindings)


class GatePolicyServicer(registry.GatePolicyServiceServicer):
    """Gate policies by name; built-in ones exist in every project."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self.database = database
        self.catalog = catalog

    async def CreateGatePolicy(
        self, request: registry.CreateGatePolicyRequest, context: Context
    ) -> registry.CreateGatePolicyResponse:
        async def work(unit: Unit) -> registry.CreateGatePolicyResponse:
            wanted = request.gate_policy
            created = await policies.create_policy(unit, self.catalog, request.parent, request.gate_policy_id, wanted)
            return registry.CreateGatePolicyResponse(gate_policy=created)

        return await self.database.answer(request, work)

    async def UpdateGatePolicy(
        self, request: registry.UpdateGatePolicyRequest, context: Context
    ) -> registry.UpdateGatePolicyResponse:
        async def work(unit: Unit) -> registry.UpdateGatePolicyResponse:
            changed = await policies.update_policy(unit, self.catalog, request.gate_policy, request.update_mask)
            return registry.UpdateGatePolicyResponse(gate_policy=changed)

        return await self.database.answer(request, work)

    async def GetGatePolicy(
        self, request: registry.GetGatePolicyRequest, context: Context
    ) -> registry.GetGatePolicyResponse:
        async with self.database.read() as session:
            found = await policies.find_policy(session, self.catalog, parent_of(request.name), id_of(request.name))
        return registry.GetGatePolicyResponse(gate_policy=found)

    async def ListGatePolicies(
        self, request: registry.ListGatePoliciesRequest, context: Context
    ) -> registry.ListGatePoliciesResponse:
        built_in = [self.catalog.policy(request.parent, name) for name in self.catalog.policies]
        async with self.database.read() as session:
            own = await store.POLICIES.find(session, parent=request.parent)
        found, token = page_by_name([*filter(None, built_in), *own], request)
        return registry.ListGatePoliciesResponse(gate_policies=found, next_page_token=token)


class ModelServicer(registry.ModelServiceServicer):
    """Models by name."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self.database = database
        self.catalog = catalog

    async def CreateModel(self, request: registry.CreateModelRequest, context: Context) -> registry.CreateModelResponse:
        async def work(unit: Unit) -> registry.CreateModelResponse:
            created = await commands.create_model(unit, self.catalog, request.parent, request.model)
            return registry.CreateModelResponse(model=created)

        return await self.database.answer(request, work)

    async def GetModel(self, request: registry.GetModelRequest, context: Context) -> registry.GetModelResponse:
        async with self.database.read() as session:
            return registry.GetModelResponse(model=await store.MODELS.get(session, request.name))

    async def ListModels(self, request: registry.ListModelsRequest, context: Context) -> registry.ListModelsResponse:
        async with self.database.read() as session:
            found, token = await store.MODELS.page(
                session,
                parent=request.parent,
                page_size=request.page_size,
                page_token=request.page_token,
                filter=request.filter,
            )
        return registry.ListModelsResponse(models=found, next_page_token=token)

    async def UpdateModel(self, request: registry.UpdateModelRequest, context: Context) -> registry.UpdateModelResponse:
        async def work(unit: Unit) -> registry.UpdateModelResponse:
            changed = await commands.update_model(unit, self.catalog, request.model, request.update_mask)
            return registry.UpdateModelResponse(model=changed)

        return await self.database.answer(request, work)


def page_by_name(
    every: list[NamedT], request: registry.ListTaskTypesRequest | PoliciesRequest
) -> tuple[list[NamedT], str]:
    """One page of a list that is short enough to be held whole, and the token of the next."""
    query = (type(request).__name__, getattr(request, "parent", ""))
    after = paging.decode(request.page_token, *query, of=(str,))
    left = sorted((each for each in every if not after or each.name > str(after[0])), key=lambda each: each.name)
    size = paging.page_size(request.page_size)
    token = paging.encode([left[size - 1].name], *query) if len(left) > size else ""
    return left[:size], token
