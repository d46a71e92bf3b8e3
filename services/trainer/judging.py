"""Which version grades a job's answers: found when the job is submitted, and the same to its end; it asks no judge."""

from __future__ import annotations

from collections.abc import Sequence

from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import id_of, parent_of
from sluice.gateway import v1 as gateway
from sluice.trainer import v1 as trainer


def judges_of(spec: trainer.TrainingJobSpec) -> Sequence[trainer.Reward.Judge]:
    """The judges that a spec names, in their order; they are the spec's own messages."""
    recipe = getattr(spec, str(spec.WhichOneof("recipe")))
    return [part.judge for part in getattr(recipe, "rewards", ()) if part.HasField("judge")]


def judge_versions(spec: trainer.TrainingJobSpec) -> dict[str, str]:
    """The version that grades at each endpoint; those of a job from before versions were recorded are left out."""
    return {judge.endpoint: judge.model_version for judge in judges_of(spec) if judge.model_version}


def check_apart(spec: trainer.TrainingJobSpec) -> None:
    """Raises Invalid where the model being trained is for the endpoint that grades it."""
    for judge in judges_of(spec):
        if judge.endpoint == (spec.endpoint or spec.model):
            raise _invalid(
                spec,
                f"asks the endpoint `{judge.endpoint}`, which the model being trained is for, so that its versions "
                "would grade themselves; name another endpoint for one of them",
            )


def version_of(spec: trainer.TrainingJobSpec, judge: trainer.Reward.Judge, endpoint: gateway.Endpoint) -> str:
    """The version that grades: the one that was asked for, else the stable one. Raises Invalid and StateConflict."""
    if endpoint.interface not in ("", "chat"):
        raise _invalid(spec, f"asks `{judge.endpoint}`, which serves `{endpoint.interface}`; name an endpoint for chat")
    stable = next((arm.model_version for arm in endpoint.route if arm.role == gateway.ARM_ROLE_STABLE), "")
    found = judge.model_version or stable
    if not found:
        raise StateConflict(
            f"the endpoint `{judge.endpoint}`, which is to grade answers, serves no version yet; wait for its rollout",
            resource=("Endpoint", endpoint.name),
        )
    if all(arm.model_version != found for arm in endpoint.route):
        raise StateConflict(
            f"the endpoint `{judge.endpoint}` does not serve `{found}`, which is to grade answers; bring it back "
            "(sluice rollouts create), or submit the job with the version that serves",
            resource=("Endpoint", endpoint.name),
        )
    if id_of(parent_of(found)) == spec.model:
        raise _invalid(
            spec,
            f"asks `{judge.endpoint}`, which serves `{found}`, a version of the model being trained; name an endpoint "
            "of another model, or train a model of another name",
        )
    return found


def check_one_each(spec: trainer.TrainingJobSpec) -> None:
    """Raises Invalid where two versions of one endpoint would grade a job whose judges have been found."""
    versions = judge_versions(spec)
    for judge in judges_of(spec):
        if versions[judge.endpoint] != judge.model_version:
            raise _invalid(spec, f"asks two versions of the endpoint `{judge.endpoint}`; let one of them grade")


def _invalid(spec: trainer.TrainingJobSpec, what: str) -> Invalid:
    field = f"{spec.WhichOneof('recipe')}.rewards"
    return Invalid(f"spec.{field} {what}", violations=[(f"training_job.spec.{field}", what)])
