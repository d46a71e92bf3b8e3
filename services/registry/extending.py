"""What a project's task type has of the one that it extends, and what of its own; pure, it knows no store."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from kit.rpc.errors import Invalid
from kit.rpc.names import id_of
from sluice.labels import over
from sluice.registry import v1 as registry
from sluice.rows import ROWS_OF_TASK
from sluice.trainer import v1 as trainer

#: What decides how rows, jobs and endpoints work, and so is always that of what is extended.
FIXED = ("row_schema", "recipe", "interface")
#: What decides how models are asked, and so which metrics can be had.
ASKING = ("row_schema", "interface")
#: What a task type may have of its own; where it says nothing, that of what it extends holds.
OWN = ("description", "suite_max_rows", "suite_max_tokens", "gate_policy")


def extended(name: str, base: registry.TaskType, wanted: registry.TaskType) -> registry.TaskType:
    """The task type ``name`` with all that it has, its own or that of ``base``.

    It is written down whole, so that what was approved holds whatever becomes of ``base``. Raises Invalid where it
    wants another row schema, recipe or interface.
    """
    check_id(id_of(name))
    made = registry.TaskType(name=name, extends=id_of(base.name), state=registry.TASK_TYPE_STATE_PROPOSED)
    for field in FIXED:
        _check_same(field, getattr(base, field), getattr(wanted, field))
        setattr(made, field, getattr(base, field))
    for field in OWN:
        setattr(made, field, getattr(wanted, field) or getattr(base, field))
    made.metrics.extend(wanted.metrics or base.metrics)
    if base.HasField("defaults") or wanted.HasField("defaults"):
        made.defaults.CopyFrom(over(base.defaults, wanted.defaults))
    rule = wanted if wanted.submit_roles or wanted.submit_principals else base
    made.submit_roles.extend(rule.submit_roles)
    made.submit_principals.extend(rule.submit_principals)
    return made


def check_id(task_type: str) -> None:
    """Raises Invalid for a name that the field or the suite has a meaning of its own for."""
    recipes = trainer.TrainingJobSpec.DESCRIPTOR.oneofs_by_name["recipe"].fields
    if task_type in ROWS_OF_TASK or task_type in {field.name.replace("_", "-") for field in recipes}:
        raise Invalid(
            f"`{task_type}` is what the field calls a method; name the business, such as `{task_type}-reports`",
            violations=[("task_type_id", "is the name of a method")],
        )


def check_metrics(
    wanted: registry.TaskType, policy: registry.GatePolicy, built_in: Iterable[registry.TaskType]
) -> None:
    """Raises Invalid for a metric that no built-in task type of such rows has, and for a policy that asks others.

    Else a mistyped one would be found only when the first model of it waits at its gate.
    """
    alike = [each for each in built_in if all(getattr(each, at) == getattr(wanted, at) for at in ASKING)]
    known = sorted({metric for each in alike for metric in each.metrics})
    for metric in wanted.metrics:
        if metric not in known:
            near = get_close_matches(metric, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"it is one of {', '.join(known)}"
            raise _wrong("metrics", f"has `{metric}`, which no built-in task type of such rows has; {hint}")
    for criterion in policy.criteria:
        if criterion.metric not in wanted.metrics:
            asks = f"its gate policy `{id_of(policy.name)}` asks for"
            raise _wrong("metrics", f"lacks `{criterion.metric}`, which {asks}; add it, or name another gate policy")


def _check_same(field: str, base: str, wanted: str) -> None:
    if wanted not in ("", base):
        raise _wrong(field, f"is `{wanted}`, but that of what it extends is `{base}`; leave it out, or extend another")


def _wrong(field: str, what: str) -> Invalid:
    return Invalid(f"task_type.{field} {what}", violations=[(f"task_type.{field}", what)])
