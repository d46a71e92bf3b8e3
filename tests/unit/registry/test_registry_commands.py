"""The commands of the registry on a private database, and what they emit."""

import asyncio
import hashlib

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlmodel import col, delete, select

from kit.auth import AccessSnapshot, Principal
from kit.rpc.errors import AlreadyExists, Denied, Invalid, NotFound, Stale, StateConflict
from kit.store import OutboxRow, check
from services.registry import access, commands, domain, policies, store
from sluice.evaluator import v1 as evaluator
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

PROJECT = "projects/default"
FIRST = hashlib.sha256(b"secret").hexdigest()
ADMIN = Principal(f"{PROJECT}/apiKeys/first", frozenset({("projects/-", int(types.ROLE_ADMIN))}))
SET = f"{PROJECT}/datasets/d/versions/1"


@pytest.fixture
async def started(database):
    """A registry after its first start."""
    await database.transact(lambda unit: commands.first_start(unit, FIRST))
    return database


def artifact(mark="a", kind=types.ARTIFACT_KIND_FULL):
    return types.Artifact(kind=kind, digest=f"sha256:{hashlib.sha256(mark.encode()).hexdigest()}")


def finished(job="j1", model="bank", mark="a", task_type="sft", figures=None, **spec):
    """The event of a training job that succeeded."""
    return trainer.TrainingJobSucceeded(
        training_job=f"{PROJECT}/trainingJobs/{job}",
        spec=trainer.TrainingJobSpec(
            task_type=task_type, dataset_version=SET, model=model, sft=trainer.SftRecipe(), **spec
        ),
        result=trainer.TrainingResult(artifact=artifact(mark), metrics=figures or {"loss": 0.1}),
        creator="author",
    )


async def train(database, catalog, **fields):
    await database.transact(lambda unit: commands.register_training(unit, catalog, finished(**fields)))


async def read(database, version=1, model="bank"):
    async with database.read() as session:
        return await store.get_version(session, f"{PROJECT}/models/{model}/versions/{version}")


def completed(version=1, automatic=True, rows=100, **values):
    metrics = values or {"exact_match": 0.9, "rouge_l": 0.9, "bleu_4": 0.9}
    report = evaluator.Report(
        metrics=[evaluator.Metric(name=name, value=value) for name, value in metrics.items()],
        rows_scored=rows,
        parity=evaluator.Parity(passed=True),
    )
    name = f"{PROJECT}/models/bank/versions/{version}"
    return evaluator.EvaluationCompleted(evaluation="e", model_version=name, report=report, automatic=automatic)


async def emitted(database, prefix=""):
    async with database.read() as session:
        rows = (await session.exec(select(OutboxRow.type).order_by(col(OutboxRow.sequence)))).all()
    return [name for row in rows if (name := row.removeprefix("sluice.registry.v1.")).startswith(prefix)]


async def present(database):
    """The keys as a follower gets them."""
    keys = access.Keys(database, AccessSnapshot())
    await keys.refresh()
    return await anext(keys.snapshots())


async def test_one_reading_serves_all_followers_and_only_when_a_key_or_a_project_changed(started, catalog):
    own = AccessSnapshot()
    keys = access.Keys(started, own)
    await keys.refresh()
    followers = [keys.snapshots() for _ in range(3)]
    first = [await anext(follower) for follower in followers]
    assert first[0] is first[1] is first[2]
    model = registry.Model(display_name="bank", task_type="sft")
    await started.transact(lambda unit: commands.create_model(unit, catalog, PROJECT, model))
    await keys.refresh()
    waiting = [asyncio.create_task(anext(follower)) for follower in followers]
    done, _ = await asyncio.wait(waiting, timeout=0.05)
    assert not done
    await started.transact(lambda unit: commands.create_key(unit, PROJECT, named("ci"), ADMIN))
    await keys.refresh()
    second = await asyncio.gather(*waiting)
    assert len(second[2].keys) == 2 and own.table.revision == second[0].revision
    await started.transact(lambda unit: commands.create_project(unit, registry.Project(display_name="other")))
    await keys.refresh()
    assert (await anext(followers[0])).projects == [PROJECT, "projects/other"]


async def test_models_and_migrations_agree(database):
    assert await check(database, store.ProjectRow.metadata) == []


async def test_the_first_start_happens_once(database):
    for _ in range(3):
        await database.transact(lambda unit: commands.first_start(unit, FIRST))
    response = await present(database)
    assert [(bytes(key.secret_sha256).hex(), key.principal) for key in response.keys] == [(FIRST, ADMIN.name)]
    assert await emitted(database) == ["project.created", "api_key.created"]


async def test_without_a_hash_it_makes_the_project_alone(database):
    await database.transact(lambda unit: commands.first_start(unit, ""))
    assert await emitted(database) == ["project.created"]


def named(display_name, project=PROJECT, role=types.ROLE_INFERENCE):
    return registry.ApiKey(display_name=display_name, role_bindings=[registry.RoleBinding(project=project, role=role)])


async def test_a_key_works_until_it_is_revoked_and_its_secret_is_nowhere(started):
    before = (await present(started)).revision
    key, secret = await started.transact(lambda unit: commands.create_key(unit, PROJECT, named("ci"), ADMIN))
    now = await present(started)
    assert now.revision > before and hashlib.sha256(secret.encode()).digest() in [k.secret_sha256 for k in now.keys]
    async with started.read() as session:
        bodies = (await session.exec(select(store.KeyRow.body))).all()
        events = (await session.exec(select(OutboxRow.data_json))).all()
    assert secret.encode() not in b"".join(bodies) and secret not in "".join(events)
    with pytest.raises(Stale):
        await started.transact(lambda unit: commands.revoke_key(unit, key.name, "99", ADMIN))
    for _ in range(2):
        revoked = await started.transact(lambda unit: commands.revoke_key(unit, key.name, "", ADMIN))
    after = await present(started)
    assert revoked.HasField("revoke_time") and len(after.keys) == 1 and after.revision > now.revision
    assert await emitted(started, "api_key") == ["api_key.created", "api_key.created", "api_key.revoked"]


async def test_a_key_with_roles_elsewhere_is_revoked_by_who_rules_there(started):
    here = Principal(f"{PROJECT}/apiKeys/a", frozenset({(PROJECT, int(types.ROLE_ADMIN))}))
    for project in (domain.ALL_PROJECTS, "projects/other"):
        key, _ = await started.transact(
            lambda unit, p=project: commands.create_key(unit, PROJECT, named(f"of {p}", p), ADMIN)
        )
        with pytest.raises(Denied, match="only an administrator there"):
            await started.transact(lambda unit, n=key.name: commands.revoke_key(unit, n, "", here))
    own, _ = await started.transact(lambda unit: commands.create_key(unit, PROJECT, named("own"), ADMIN))
    assert (await started.transact(lambda unit: commands.revoke_key(unit, own.name, "", here))).HasField("revoke_time")


async def test_a_name_of_a_key_is_taken_once(started):
    await started.transact(lambda unit: commands.create_key(unit, PROJECT, named("ci"), ADMIN))
    with pytest.raises(AlreadyExists):
        await started.transact(lambda unit: commands.create_key(unit, PROJECT, named("CI"), ADMIN))


async def test_a_job_that_is_told_ten_times_makes_one_version(started, catalog):
    for _ in range(10):
        await train(started, catalog)
    version = await read(started, "latest")
    assert (version.version, version.gate_policy, version.endpoint) == (1, "no-regression", "bank")
    assert version.lineage.creator == "author" and version.lineage.recipe == "sft"
    assert await emitted(started, "model") == ["model.created", "model_version.created"]


async def test_a_job_that_repeats_another_makes_no_version(started, catalog):
    await train(started, catalog)
    event = finished("j2", mark="b")
    event.reproduces = f"{PROJECT}/trainingJobs/j1"
    await started.transact(lambda unit: commands.register_training(unit, catalog, event))
    with pytest.raises(NotFound):
        await read(started, 2)
    async with started.read() as session:
        assert (await store.MODELS.get(session, f"{PROJECT}/models/bank")).latest_version == 1


async def test_a_version_is_of_the_task_type_of_its_job(started, catalog):
    wanted = registry.Model(display_name="bank", task_type="pretrain")
    await started.transact(lambda unit: commands.create_model(unit, catalog, PROJECT, wanted))
    await train(started, catalog)
    version = await read(started)
    assert (version.task_type, version.gate_policy) == ("sft", "no-regression")


async def test_two_jobs_with_the_same_weights_make_two_versions(started, catalog):
    await train(started, catalog, job="j1")
    await train(started, catalog, job="j2")
    assert (await read(started, "latest")).version == 2


def header(mark="a"):
    return registry.ImportHeader(parent=f"{PROJECT}/models/bank", artifact=artifact(mark), dataset_version=SET)


async def test_the_same_weights_imported_twice_are_one_version(started, catalog):
    wanted = registry.Model(display_name="bank", task_type="sft")
    await started.transact(lambda unit: commands.create_model(unit, catalog, PROJECT, wanted))
    made = []
    for mark in "aab":
        made.append(
            await started.transact(lambda unit, m=mark: commands.register_import(unit, catalog, header(m), "author"))
        )
    assert [version.version for version in made] == [1, 1, 2]
    assert await emitted(started, "model_version") == ["model_version.created"] * 2


async def test_the_same_weights_again_tell_what_they_are_called_and_get_no_other_rows(started, catalog):
    async def again(**told):
        wanted = registry.ImportHeader(parent=f"{PROJECT}/models/bank", artifact=artifact(), **told)
        return await started.transact(lambda unit: commands.register_import(unit, catalog, wanted, "author"))

    wanted = registry.Model(display_name="bank", task_type="sft")
    await started.transact(lambda unit: commands.create_model(unit, catalog, PROJECT, wanted))
    assert (await again()).source_id == ""
    assert (await again(source_id="qwen/Qwen-7B")).source_id == "qwen/Qwen-7B"
    assert (await again(source_id="qwen/Qwen-7B")) == await again() == await read(started)
    known = "`bank@1` has these weights already, under the id `qwen/Qwen-7B`: name that one, or import them as another"
    with pytest.raises(StateConflict, match=known):
        await again(source_id="another/Name")
    assert (await read(started)).source_id == "qwen/Qwen-7B"
    with pytest.raises(StateConflict, match="with no rows to be judged on; import them as another model to have"):
        await again(dataset_version=SET)


async def test_the_same_adapter_on_another_base_is_another_version(started, catalog):
    async def adapter(base):
        wanted = registry.ImportHeader(parent=f"{PROJECT}/models/bank", base_model_version=base)
        wanted.artifact.CopyFrom(artifact(kind=types.ARTIFACT_KIND_ADAPTER))
        return await started.transact(lambda unit: commands.register_import(unit, catalog, wanted, "author"))

    wanted = registry.Model(display_name="bank", task_type="sft")
    await started.transact(lambda unit: commands.create_model(unit, catalog, PROJECT, wanted))
    bases = [f"{PROJECT}/models/{name}/versions/1" for name in ("small", "big", "small", "big")]
    made = [await adapter(base) for base in bases]
    assert [(each.version, each.base_model_version) for each in made] == list(zip((1, 2, 1, 2), bases, strict=True))
    assert len({each.artifact.digest for each in made}) == 1


async def test_a_version_tells_whom_its_job_learned_from(started, catalog):
    event, teacher = finished(), f"{PROJECT}/models/big/versions/1"
    event.result.read_model_versions["teacher"] = teacher
    await started.transact(lambda unit: commands.register_training(unit, catalog, event))
    assert dict((await read(started)).lineage.read_model_versions) == {"teacher": teacher}


async def test_an_import_of_few_bits_says_so_in_its_lineage(started, catalog):
    wanted = registry.Model(display_name="bank", task_type="sft")
    await started.transact(lambda unit: commands.create_model(unit, catalog, PROJECT, wanted))
    made = [
        await started.transact(
            lambda unit, m=mark, h=held: commands.register_import(unit, catalog, header(m), "author", h)
        )
        for mark, held in (("a", "int4 in groups of 32"), ("b", ""))
    ]
    told = [dict(version.lineage.environment) for version in made]
    assert told == [{"quantization": "int4 in groups of 32"}, {}]


async def test_an_import_into_no_model(started, catalog):
    with pytest.raises(NotFound):
        await started.transact(lambda unit: commands.register_import(unit, catalog, header(), "author"))


async def test_the_gate_opens_once_and_only_for_its_own_evaluation(started, catalog):
    await train(started, catalog)
    await started.transact(lambda unit: commands.judge(unit, catalog, completed(automatic=False)))
    assert (await read(started)).state == registry.MODEL_VERSION_STATE_PENDING
    for event in (completed(), completed(exact_match=0.0)):
        await started.transact(lambda unit, e=event: commands.judge(unit, catalog, e))
    assert (await read(started)).state == registry.MODEL_VERSION_STATE_APPROVED
    assert await emitted(started, "model_version.") == [
        "model_version.created",
        "model_version.decided",
        "model_version.approved",
    ]


async def test_a_second_report_of_its_own_evaluation_may_decide(started, catalog):
    await train(started, catalog)
    for rows in (3, 100):
        await started.transact(lambda unit, r=rows: commands.judge(unit, catalog, completed(rows=r)))
    assert (await read(started)).state == registry.MODEL_VERSION_STATE_APPROVED


async def test_a_drift_above_its_limit_keeps_an_export_out(started, catalog):
    policy = registry.GatePolicy(criteria=[registry.Criterion(metric="log_prob_drift", at_most=0.05)])
    await started.transact(lambda unit: policies.create_policy(unit, catalog, PROJECT, "near", policy))
    for version, (drift, verdict) in enumerate(((0.04, registry.VERDICT_PASS), (0.31, registry.VERDICT_FAIL)), 1):
        told = {"mark": str(version), "job": f"j{version}", "gate_policy": "near"}
        await train(started, catalog, figures={"log_prob_drift": drift}, **told)
        await started.transact(lambda unit, v=version: commands.judge(unit, catalog, completed(v)))
        assert (await read(started, version)).gate_decision.verdict == verdict


async def test_a_policy_that_compares_what_only_a_job_can_measure_is_refused(started, catalog):
    policy = registry.GatePolicy(criteria=[registry.Criterion(metric="top1_agreement", not_below_incumbent_by=0.01)])
    sentence = r"gate_policy\.criteria\[0\] compares `top1_agreement` with the incumbent's.*; take at_most or at_least"
    with pytest.raises(Invalid, match=sentence):
        await started.transact(lambda unit: policies.create_policy(unit, catalog, PROJECT, "mine", policy))
    changed = registry.GatePolicy(criteria=[registry.Criterion(metric="top1_agreement", at_least=0.9)])
    made = await started.transact(lambda unit: policies.create_policy(unit, catalog, PROJECT, "mine", changed))
    policy.name = made.name
    with pytest.raises(Invalid, match=sentence):
        await started.transact(lambda unit: policies.update_policy(unit, catalog, policy, FieldMask()))


async def test_an_import_that_repeats_a_version_of_before_its_files_were_known_holds_them(started, catalog):
    wanted = registry.Model(display_name="bank", task_type="sft")
    await started.transact(lambda unit: commands.create_model(unit, catalog, PROJECT, wanted))
    again = header()
    again.artifact.files.add(path="model.safetensors", digest=again.artifact.digest, size_bytes=1)

    async def known():
        async with started.read() as session:
            return await store.stored_files(session, PROJECT, [again.artifact.digest])

    async def forget(unit):
        await unit.session.exec(delete(store.FileRow))

    for _ in range(2):
        await started.transact(lambda unit: commands.register_import(unit, catalog, again, "author"))
        assert await known() == {again.artifact.digest}
        await started.transact(forget)
        assert not await known()


async def test_a_failed_evaluation_is_said_on_the_version(started, catalog):
    await train(started, catalog)
    name = f"{PROJECT}/models/bank/versions/1"
    event = evaluator.EvaluationFailed(evaluation=f"{PROJECT}/evaluations/e", model_version=name, automatic=True)
    event.state = types.JOB_STATE_FAILED
    await started.transact(lambda unit: commands.leave_undecided(unit, catalog, event))
    version = await read(started)
    assert version.state == registry.MODEL_VERSION_STATE_INCONCLUSIVE
    assert "`sluice eval retry e` runs it again" in version.gate_decision.reasons[0]
    for state, why in (
        (types.JOB_STATE_CANCELLED, "it was cancelled"),
        (types.JOB_STATE_EXPIRED, "it waited too long"),
    ):
        event.state = state
        await started.transact(lambda unit: commands.leave_undecided(unit, catalog, event))
        assert f"{why}; `sluice eval retry e` runs it again" in (await read(started)).gate_decision.reasons[0]


async def test_a_failure_that_comes_late_takes_nothing_from_a_report(started, catalog):
    await train(started, catalog)
    await started.transact(lambda unit: commands.judge(unit, catalog, completed(rows=3)))
    judged = await read(started)
    assert judged.state == registry.MODEL_VERSION_STATE_INCONCLUSIVE
    event = evaluator.EvaluationFailed(evaluation="given up", model_version=judged.name, automatic=True)
    await started.transact(lambda unit: commands.leave_undecided(unit, catalog, event))
    assert (await read(started)).gate_decision == judged.gate_decision


def request(version, **fields):
    return registry.ApproveModelVersionRequest(name=version.name, **fields)


async def test_a_policy_of_two_people(started, catalog):
    policy = registry.GatePolicy(approvals_required=2, criteria=[registry.Criterion(metric="rouge_l", at_least=0)])
    await started.transact(lambda unit: policies.create_policy(unit, catalog, PROJECT, "four-eyes", policy))
    await train(started, catalog, gate_policy="four-eyes")
    await started.transact(lambda unit: commands.judge(unit, catalog, completed()))
    version = await read(started)
    assert version.state == registry.MODEL_VERSION_STATE_AWAITING_APPROVAL
    with pytest.raises(Stale):
        await started.transact(lambda unit: commands.approve(unit, request(version, etag="1"), "one"))
    for who in ("one", "one", "two", "two"):
        asked = request(version)
        version = await started.transact(lambda unit, w=who, a=asked: commands.approve(unit, a, w))
    assert version.state == registry.MODEL_VERSION_STATE_APPROVED and len(version.approvals) == 2
    assert (await emitted(started, "model_version")).count("model_version.approved") == 1


async def test_a_job_cannot_put_aside_the_policy_of_its_model(started, catalog):
    policy = registry.GatePolicy(approvals_required=2)
    await started.transact(lambda unit: policies.create_policy(unit, catalog, PROJECT, "four-eyes", policy))
    wanted = registry.Model(display_name="bank", task_type="sft", gate_policy="four-eyes")
    await started.transact(lambda unit: commands.create_model(unit, catalog, PROJECT, wanted))
    for number, asked in enumerate(("baseline", "no-regression", ""), 1):
        await train(started, catalog, job=f"j{number}", gate_policy=asked)
        assert (await read(started, number)).gate_policy == "four-eyes"


async def test_a_job_that_chose_no_policy_leaves_its_new_model_open(started, catalog):
    await train(started, catalog, job="j1", gate_policy="no-regression")  # what the trainer writes by itself
    await train(started, catalog, job="j2", gate_policy="baseline")
    assert (await read(started, 2)).gate_policy == "baseline"
    await train(started, catalog, job="j3", model="other", gate_policy="baseline")
    await train(started, catalog, job="j4", model="other", gate_policy="no-regression")
    assert (await read(started, 2, "other")).gate_policy == "baseline"


async def test_what_was_revoked_stays_revoked(started, catalog):
    await train(started, catalog)
    await started.transact(lambda unit: commands.judge(unit, catalog, completed()))
    name = f"{PROJECT}/models/bank/versions/1"
    asked = registry.RevokeModelVersionRequest(name=name, reason="wrong labels")
    first = await started.transact(lambda unit: commands.revoke(unit, asked))
    again = await started.transact(lambda unit: commands.revoke(unit, asked))
    assert first.etag == again.etag
    with pytest.raises(StateConflict):
        waiver = registry.ApproveModelVersionRequest(name=name, waiver=True, reason="no")
        await started.transact(lambda unit: commands.approve(unit, waiver, "one"))
    assert (await emitted(started, "model_version"))[-1] == "model_version.revoked"


async def test_stable_follows_the_route_and_never_goes_back_in_time(started, catalog):
    await train(started, catalog, job="j1")
    await train(started, catalog, job="j2", mark="b")
    endpoint, one, two = f"{PROJECT}/endpoints/bank", *(f"{PROJECT}/models/bank/versions/{n}" for n in (1, 2))
    for serving, revision, stable in ((one, 1, 1), ("", 2, 1), (two, 4, 2), (one, 3, 2), (two, 4, 2), (one, 5, 1)):
        await started.transact(lambda unit, s=serving, r=revision: commands.follow_route(unit, endpoint, s, r))
        assert (await read(started, "stable")).version == stable


async def test_a_built_in_policy_keeps_its_name(started, catalog):
    with pytest.raises(AlreadyExists, match="built in"):
        await started.transact(
            lambda unit: policies.create_policy(unit, catalog, PROJECT, "baseline", registry.GatePolicy())
        )


async def test_a_changed_policy_holds_from_now_on(started, catalog):
    policy = registry.GatePolicy(min_rows=3, criteria=[registry.Criterion(metric="rouge_l", at_least=0)])
    made = await started.transact(lambda unit: policies.create_policy(unit, catalog, PROJECT, "mine", policy))
    wanted = registry.GatePolicy(name=made.name, etag=made.etag, criteria=[registry.Criterion(metric="f1", at_most=1)])

    async def change(*paths: str) -> registry.GatePolicy:
        return await started.transact(
            lambda unit: policies.update_policy(unit, catalog, wanted, FieldMask(paths=paths))
        )

    changed = await change("criteria")
    assert (changed.min_rows, changed.criteria[0].metric, len(changed.criteria)) == (3, "f1", 1)
    with pytest.raises(Stale):
        await change("criteria")
    wanted.etag = ""
    assert (await change()).min_rows == 0  # the whole policy is what was sent
    with pytest.raises(Invalid, match="create_time"):
        await change("create_time")
    wanted.criteria[0].metric = "No Such!"
    with pytest.raises(Invalid, match="criteria"):
        await change()
    for name, kind in ((f"{PROJECT}/gatePolicies/baseline", StateConflict), (f"{made.name}-not", NotFound)):
        wanted.name = name
        with pytest.raises(kind):
            await change()
    assert await emitted(started, "gate_policy") == ["gate_policy.created", *["gate_policy.updated"] * 2]


@pytest.mark.parametrize(("field", "value"), [("endpoint", "No Such!"), ("display_name", "")])
async def test_an_update_is_held_to_the_rules_of_the_contract(started, catalog, field, value):
    wanted = registry.Model(display_name="bank", task_type="sft")
    model = await started.transact(lambda unit: commands.create_model(unit, catalog, PROJECT, wanted))
    changed = registry.Model(name=model.name, **{field: value})
    with pytest.raises(Invalid, match=field):
        await started.transact(lambda unit: commands.update_model(unit, catalog, changed, FieldMask(paths=[field])))


async def test_no_model_under_a_project_or_a_policy_that_is_not_there(started, catalog):
    for parent, policy in (("projects/other", ""), ("projects/-", ""), (PROJECT, "none")):
        wanted = registry.Model(display_name="bank", task_type="sft", gate_policy=policy)
        with pytest.raises(NotFound):
            await started.transact(lambda unit, p=parent, w=wanted: commands.create_model(unit, catalog, p, w))
