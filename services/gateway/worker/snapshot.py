"""What a worker is told: routes, candidates and keys as immutable values swapped by reference; knows no
source of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

Label = Literal["stable", "candidate"]
ALL_PROJECTS = "projects/-"
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Upstream:
    """An OpenAI-compatible engine: base URL without `/v1`, its own key, and the name it knows the version
    by.
    """

    url: str
    key: str = field(repr=False)
    model: str

    def __post_init__(self) -> None:
        url = urlsplit(self.url)
        if url.scheme not in ("http", "https") or not url.hostname or url.port == 0 or url.query or url.username:
            raise ValueError("an engine's URL is not of the form http://host:port or https://host:port")
        if not (self.url.isascii() and self.url.isprintable() and self.key.isascii() and self.key.isprintable()):
            raise ValueError("an engine's URL or key has characters a header can't carry; use printable ASCII")


@dataclass(frozen=True, slots=True)
class Arm:
    """One version in a route. The control process puts only approved versions here; a worker trusts that."""

    version: str
    label: Label
    weight_percent: int
    engine: Upstream

    def __post_init__(self) -> None:
        if self.label not in ("stable", "candidate"):
            raise ValueError(f"arm {self.version} has label {self.label!r}; use 'stable' or 'candidate'")
        if not 0 <= self.weight_percent <= 100:
            raise ValueError(f"arm {self.version} has weight {self.weight_percent}; use 0 to 100 percent")


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint's arms. Weights add up to 100, or are all 0: then only explicit addressing reaches a
    version.

    Where the control process knows no confirmed weight it says stable = 100: unknown means stable.
    """

    endpoint: str
    slug: str
    project: str
    interface: str
    arms: tuple[Arm, ...]
    salt: str

    def __post_init__(self) -> None:
        total = sum(arm.weight_percent for arm in self.arms)
        if total not in (0, 100):
            raise ValueError(f"weights of {self.endpoint} add up to {total}; make them 100, or all 0")
        if len({arm.label for arm in self.arms}) != len(self.arms):
            raise ValueError(f"{self.endpoint} has two arms of one label; keep one stable and one candidate")
        if len({arm.version for arm in self.arms}) != len(self.arms):
            raise ValueError(f"{self.endpoint} has one version in two arms; keep one of them")
        if self.endpoint != f"{self.project}/endpoints/{self.slug}":
            raise ValueError(f"{self.endpoint} is not endpoint {self.slug} of {self.project}; correct its name")

    def arm(self, label: Label) -> Arm | None:
        """The arm of that label, or None."""
        for arm in self.arms:
            if arm.label == label:
                return arm
        return None

    def without(self, versions: Set[str]) -> Route:
        """The share of a candidate falls to the stable arm; without that nobody serves, as nobody is promoted by a
        loss.
        """
        arms = tuple(arm for arm in self.arms if arm.version not in versions)
        if len(arms) == len(self.arms):
            return self
        alone = tuple(replace(arm, weight_percent=100) for arm in arms if arm.label == "stable")
        return replace(self, arms=alone)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version loaded for judgment, reachable under `slug` by `principal` alone."""

    name: str
    slug: str
    version: str
    engine: Upstream
    principal: str


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Everything that may serve at one revision: routes by endpoint name, candidates by slug."""

    revision: int
    endpoints: Mapping[str, Route]
    candidates: Mapping[str, Candidate]
    _by_slug: Mapping[str, tuple[Route, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, route in self.endpoints.items():
            if name != route.endpoint:
                raise ValueError(f"route {route.endpoint} is filed under {name}; file it under its name")
        for slug, candidate in self.candidates.items():
            if slug != candidate.slug:
                raise ValueError(f"candidate {candidate.slug} is filed under {slug}; file it under its slug")
        by_slug: dict[str, tuple[Route, ...]] = {}
        for route in self.endpoints.values():
            by_slug[route.slug] = (*by_slug.get(route.slug, ()), route)
        object.__setattr__(self, "endpoints", MappingProxyType(dict(self.endpoints)))
        object.__setattr__(self, "candidates", MappingProxyType(dict(self.candidates)))
        object.__setattr__(self, "_by_slug", by_slug)

    def named(self, slug: str) -> tuple[Route, ...]:
        """The routes of that slug, one a project at most."""
        return self._by_slug.get(slug, ())

    def versions(self) -> frozenset[str]:
        """Every version that may serve anybody."""
        arms = (arm.version for route in self.endpoints.values() for arm in route.arms)
        return frozenset(arms) | {candidate.version for candidate in self.candidates.values()}

    def without(self, versions: Set[str]) -> RouteTable:
        """The same table with these versions serving nobody."""
        if self.versions().isdisjoint(versions):
            return self
        endpoints = {name: route.without(versions) for name, route in self.endpoints.items()}
        candidates = {slug: each for slug, each in self.candidates.items() if each.version not in versions}
        return RouteTable(self.revision, endpoints, candidates)

    def upstreams(self) -> Iterator[Upstream]:
        """Every engine the table names; repeats where versions share one."""
        for route in self.endpoints.values():
            for arm in route.arms:
                yield arm.engine
        for candidate in self.candidates.values():
            yield candidate.engine


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: resource name, roles by project (`projects/-` stands for all; a service has none), end of
    validity (epoch s).
    """

    name: str
    bindings: Mapping[str, frozenset[str]]
    expires_at: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bindings", MappingProxyType(dict(self.bindings)))

    def has_role(self, roles: Set[str], project: str | None = None) -> bool:
        """Whether one of the roles holds in the project; without one: in any."""
        if project is None:
            return any(not held.isdisjoint(roles) for held in self.bindings.values())
        here, everywhere = self.bindings.get(project, _NONE), self.bindings.get(ALL_PROJECTS, _NONE)
        return not (here.isdisjoint(roles) and everywhere.isdisjoint(roles))


def digest(secret: str | bytes) -> bytes:
    """SHA-256 of an API key's secret: 32 bytes, the only form in which a worker holds a key."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()


@dataclass(frozen=True, slots=True)
class KeyTable:
    """Principals by `digest(secret)`. A revoked key is absent."""

    revision: int
    principals: Mapping[bytes, Principal]

    def __post_init__(self) -> None:
        object.__setattr__(self, "principals", MappingProxyType(dict(self.principals)))
