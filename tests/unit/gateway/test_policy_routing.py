"""Who reaches which version: arms, names, keys and sessions, as tables and properties."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.worker.errors import AmbiguousModel, Denied, ModelNotFound, NotReady, Unauthenticated
from services.gateway.worker.policy import (
    Target,
    admit,
    authenticate,
    choose_arm,
    may_infer,
    resolve,
    session_key,
    stable_instead,
    visible,
)
from services.gateway.worker.snapshot import (
    Arm,
    Candidate,
    KeyTable,
    Principal,
    Route,
    RouteTable,
    Upstream,
    digest,
)

PROJECT = "projects/default"
unhurried = settings(deadline=None)  # the machine is shared
ENGINE = Upstream("http://127.0.0.1:9", "engine-key", "m-3")
USER = Principal(f"{PROJECT}/apiKeys/k1", {PROJECT: frozenset({"inference"})})
STRANGER = Principal("projects/other/apiKeys/k2", {"projects/other": frozenset({"inference"})})
EVALUATOR = Principal("services/evaluator", {})
TRAINER = Principal("services/trainer", {})


def version(number: int) -> str:
    return f"{PROJECT}/models/m/versions/{number}"


def route(stable: int = 90, candidate: int = 10, slug: str = "assistant", project: str = PROJECT) -> Route:
    arms = (Arm(version(2), "stable", stable, ENGINE), Arm(version(3), "candidate", candidate, ENGINE))
    return Route(f"{project}/endpoints/{slug}", slug, project, "chat", arms, "salt")


def table(*routes: Route) -> RouteTable:
    judged = Candidate(f"{PROJECT}/candidateRoutes/c9", "candidate-c9", version(9), ENGINE, "services/evaluator")
    return RouteTable(7, {each.endpoint: each for each in routes or (route(),)}, {judged.slug: judged})


@unhurried
@given(st.binary(min_size=1, max_size=40), st.integers(0, 100), st.integers(0, 100))
def test_a_ramp_moves_a_session_one_way_only(session: bytes, one: int, other: int) -> None:
    low, high = sorted((one, other))
    if choose_arm(route(100 - low, low), session).label == "candidate":
        assert choose_arm(route(100 - high, high), session).label == "candidate"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.integers(0, 2**32))
def test_weights_hold_over_sessions(weight: int, seed: int) -> None:
    split = route(100 - weight, weight)
    hits = sum(choose_arm(split, b"%d-%d" % (seed, n)).label == "candidate" for n in range(10_000))
    sigma = (10_000 * weight / 100 * (1 - weight / 100)) ** 0.5
    assert abs(hits - 100 * weight) <= 6 * sigma


@unhurried
@given(st.binary(max_size=40), st.sampled_from([0, 100]))
def test_an_arm_without_weight_never_serves(session: bytes, candidate: int) -> None:
    assert choose_arm(route(100 - candidate, candidate), session).weight_percent == 100


@unhurried
@given(st.binary(max_size=40), st.integers(0, 100))
def test_the_same_session_gets_the_same_arm(session: bytes, weight: int) -> None:
    split = route(100 - weight, weight)
    assert choose_arm(split, session) is choose_arm(split, session)


def test_an_endpoint_without_weights_serves_nobody() -> None:
    with pytest.raises(NotReady, match="assistant"):
        choose_arm(route(0, 0), b"s")


@pytest.mark.parametrize("weights", [(90, 20), (50, 0), (101, -1)])
def test_a_route_whose_weights_do_not_add_up_is_refused(weights: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="100"):
        route(*weights)


@pytest.mark.parametrize(
    ("model", "principal", "expected"),
    [
        ("assistant@2", USER, version(2)),
        ("assistant@3", USER, version(3)),
        (f"{PROJECT}/endpoints/assistant@3", USER, version(3)),
        ("assistant:candidate", EVALUATOR, version(3)),
        (f"{PROJECT}/endpoints/assistant:candidate", EVALUATOR, version(3)),
        ("candidate-c9", EVALUATOR, version(9)),
        ("assistant@9", USER, ModelNotFound),
        ("assistant@", USER, ModelNotFound),
        (f"{PROJECT}/endpoints/assistant@m@3", TRAINER, version(3)),
        ("assistant@m@9", USER, ModelNotFound),
        ("assistant@other@3", USER, ModelNotFound),
        ("assistant@@3", USER, ModelNotFound),
        ("assistant@m/versions/2", USER, ModelNotFound),
        ("assistant:stable", USER, ModelNotFound),
        ("assistant:candidate@3", USER, ModelNotFound),
        ("assistant:candidate", USER, Denied),
        ("candidate-c9", USER, ModelNotFound),
        ("assistant@2", STRANGER, ModelNotFound),
        ("assistant", STRANGER, ModelNotFound),
        (f"{PROJECT}/endpoints/assistant", STRANGER, ModelNotFound),
        (f"{PROJECT}/endpoints/assistant@2", TRAINER, version(2)),
        ("assistant:candidate", TRAINER, Denied),
        ("candidate-c9", TRAINER, ModelNotFound),
        ("nothing", USER, ModelNotFound),
        ("", USER, ModelNotFound),
    ],
)
def test_names(model: str, principal: Principal, expected: str | type[Exception]) -> None:
    if isinstance(expected, str):
        target = resolve(model, table(), principal)
        assert isinstance(target, Target)
        assert (target.version, target.revision) == (expected, 7)
    else:
        with pytest.raises(expected) as caught:
            resolve(model, table(), principal)
        assert f"`{model}`" in str(caught.value)


def test_a_slug_of_two_projects_is_each_callers_own_and_not_the_evaluators() -> None:
    both = table(route(), route(slug="assistant", project="projects/other"))
    assert admit("assistant", b"s", both, STRANGER).endpoint == "projects/other/endpoints/assistant"
    assert admit("assistant", b"s", both, USER).endpoint == "projects/default/endpoints/assistant"
    with pytest.raises(AmbiguousModel, match="full name"):
        resolve("assistant:candidate", both, EVALUATOR)


def test_a_key_bound_to_several_projects_serves_each_by_its_own_roles() -> None:
    both = table(route(), route(slug="assistant", project="projects/other"), route(slug="scribe", project="projects/x"))
    infers, audits = frozenset({"inference"}), frozenset({"auditor"})
    bound = Principal("projects/home/apiKeys/k", {PROJECT: infers, "projects/other": audits})
    assert admit("assistant", b"s", both, bound).endpoint == f"{PROJECT}/endpoints/assistant"
    with pytest.raises(ModelNotFound):
        resolve("projects/other/endpoints/assistant", both, bound)
    everywhere = Principal("projects/other/apiKeys/k", {"projects/-": infers})
    assert admit("assistant", b"s", both, everywhere).endpoint == "projects/other/endpoints/assistant"
    assert admit(f"{PROJECT}/endpoints/assistant", b"s", both, everywhere).endpoint.startswith(PROJECT)
    assert visible(both, everywhere) == ["assistant", f"{PROJECT}/endpoints/assistant", "scribe"]
    guest = Principal("projects/home/apiKeys/k", {"projects/-": infers})
    with pytest.raises(AmbiguousModel):
        resolve("assistant", both, guest)


def test_the_evaluators_probes_stay_out_of_the_endpoints_figures() -> None:
    target = resolve("assistant:candidate", table(), EVALUATOR)
    assert isinstance(target, Target)
    assert target.endpoint == f"{PROJECT}/endpoints/assistant:candidate"


def test_grades_for_a_job_stay_out_of_the_endpoints_figures_and_fall_back_all_the_same() -> None:
    chosen = admit(f"{PROJECT}/endpoints/assistant", b"job", table(route(0, 100)), TRAINER)
    assert chosen.endpoint == f"{PROJECT}/endpoints/assistant:judge"
    assert admit(f"{PROJECT}/endpoints/assistant@2", b"job", table(), TRAINER).endpoint.endswith(":judge")
    instead = stable_instead(chosen, table(route(90, 10)))
    assert instead is not None
    assert (instead.version, instead.endpoint) == (version(2), chosen.endpoint)


def test_models_shows_each_caller_its_own() -> None:
    assert visible(table(), USER) == ["assistant"]
    assert visible(table(), STRANGER) == []
    assert visible(table(), EVALUATOR) == ["candidate-c9"]


def test_stable_stands_in_only_for_a_weighted_choice_and_only_with_weight() -> None:
    chosen = admit("assistant", b"s", table(route(0, 100)), USER)
    assert chosen.version == version(3)
    instead = stable_instead(chosen, table(route(90, 10)))
    assert instead is not None
    assert instead.version == version(2)
    assert stable_instead(chosen, table(route(0, 100))) is None
    assert stable_instead(chosen, table(route(slug="other"))) is None
    pinned = resolve("assistant@3", table(), USER)
    assert isinstance(pinned, Target)
    assert stable_instead(pinned, table()) is None


KEYS = KeyTable(1, {digest("sk-good"): USER, digest("sk-old"): Principal("k", {}, 100.0)})


@pytest.mark.parametrize(
    "header", [None, b"", b"Bearer", b"Bearer ", b"Basic c2s=", b"Bearer sk-bad", b"sk-good", b"Bearer a.b.c"]
)
def test_a_bad_credential_is_refused(header: bytes | None) -> None:
    with pytest.raises(Unauthenticated):
        authenticate(header, KEYS, 99.0, lambda token: None)


def test_keys_expire_and_tokens_are_verified() -> None:
    assert authenticate(b"bearer sk-good", KEYS, 99.0) is USER
    assert authenticate(b"Bearer sk-old", KEYS, 99.9).name == "k"
    with pytest.raises(Unauthenticated):
        authenticate(b"Bearer sk-old", KEYS, 100.0)
    assert authenticate(b"Bearer h.p.s", KEYS, 0.0, {"h.p.s": EVALUATOR}.get) is EVALUATOR
    with pytest.raises(NotReady):
        authenticate(b"Bearer sk-good", None, 0.0)


@pytest.mark.parametrize("role", ["inference", "admin", "engineering", "algorithm", "operations"])
def test_roles_that_may_infer(role: str) -> None:
    principal = Principal("k", {PROJECT: frozenset({role})})
    assert may_infer(principal) is principal


@pytest.mark.parametrize("role", ["approver", "auditor", "service"])
def test_roles_that_may_not_infer(role: str) -> None:
    with pytest.raises(Denied, match="inference"):
        may_infer(Principal("k", {PROJECT: frozenset({role})}))


def test_a_session_is_the_header_then_the_user_then_the_key() -> None:
    assert session_key(b"s1", "u1", USER) == b"s1"
    assert session_key(None, "u1", USER) == b"u1"
    assert session_key(None, None, USER) == USER.name.encode()


def test_secrets_do_not_show_in_reprs() -> None:
    assert "engine-key" not in repr(table())


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://h:99999", "http://u:p@h", "http://h/\r\nx: y"])
def test_an_engine_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"engine|Port"):
        Upstream(url, "k", "m")
