"""What can be done to gate policies: one function an intent, inside a unit of the caller; built-in ones stay."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc import masks
from kit.rpc.errors import AlreadyExists, Invalid, StateConflict
from kit.rpc.interceptors.validation import validate
from kit.rpc.names import id_of
from kit.store import Unit
from services.registry import domain, store
from services.registry.catalog import Catalog
from services.registry.gates import OF_JOBS
from sluice.registry import v1 as registry

CHANGEABLE = ("description", "criteria", "min_rows", "approvals_required", "parity_required")


async def create_policy(
    unit: Unit, catalog: Catalog, parent: str, policy_id: str, wanted: registry.GatePolicy
) -> registry.GatePolicy:
    """Creates a gate policy."""
    check_criteria(wanted)
    await store.PROJECTS.get(unit.session, parent)
    name = f"{parent}/gatePolicies/{policy_id}"
    if policy_id in catalog.policies:
        raise AlreadyExists(f"`{policy_id}` is built in; choose another id", resource=("GatePolicy", name))
    created = registry.GatePolicy()
    created.CopyFrom(wanted)
    created.name = name
    created = await store.POLICIES.insert(unit, created)
    unit.emit(registry.GatePolicyCreated(gate_policy=name), name)
    return created


async def update_policy(
    unit: Unit, catalog: Catalog, wanted: registry.GatePolicy, mask: FieldMask
) -> registry.GatePolicy:
    """Changes what versions must show that are not decided on yet; a decision keeps the policy as it was."""
    policy_id = id_of(wanted.name)
    if policy_id in catalog.policies:
        raise StateConflict(
            f"`{policy_id}` is built in and stays as it is; create a policy of your own",
            resource=("GatePolicy", wanted.name),
        )
    present = await store.POLICIES.get(unit.session, wanted.name)
    masks.apply(present, wanted, mask, CHANGEABLE)
    validate(present)
    check_criteria(present)
    present = await store.POLICIES.update(unit, present, wanted.etag)
    unit.emit(registry.GatePolicyUpdated(gate_policy=present), present.name)
    return present


def check_criteria(policy: registry.GatePolicy) -> None:
    """Raises Invalid for a criterion that no version beside an incumbent could ever fulfil."""
    for number, criterion in enumerate(policy.criteria):
        if criterion.metric in OF_JOBS and criterion.WhichOneof("rule") == "not_below_incumbent_by":
            what = (
                f"compares `{criterion.metric}` with the incumbent's, but a job measures it against the weights that "
                "its own were made of, so two versions have nothing to compare; take at_most or at_least"
            )
            field = f"criteria[{number}]"
            raise Invalid(f"gate_policy.{field} {what}", violations=[(f"gate_policy.{field}", what)])


async def find_policy(session: AsyncSession, catalog: Catalog, parent: str, policy_id: str) -> registry.GatePolicy:
    """A policy of the project or a built-in one. Raises NotFound."""
    built_in = catalog.policy(parent, policy_id)
    if built_in:
        return built_in
    name = f"{parent}/gatePolicies/{policy_id}"
    found = await store.POLICIES.find(session, name=name)
    if not found:
        raise domain.unknown_policy(name)
    return found[0]
