"""The caller of an rpc: a name and what it may do where; it does not know how the caller proved it."""

from collections.abc import Collection
from dataclasses import dataclass

ALL_PROJECTS = "projects/-"


@dataclass(frozen=True)
class Principal:
    """`bindings` holds (project, role) pairs; the project `projects/-` stands for all.

    `service` is the bare name of a service of the suite (`trainer`), empty for keys.
    """

    name: str
    bindings: frozenset[tuple[str, int]]
    service: str = ""

    def roles(self, project: str) -> frozenset[int]:
        """Return the roles that hold in a project, those given for all projects included."""
        return frozenset(role for where, role in self.bindings if where in (project, ALL_PROJECTS))

    def has_role(self, project: str, roles: Collection[int]) -> bool:
        """Say whether one of the roles holds in the project."""
        return not self.roles(project).isdisjoint(roles)
