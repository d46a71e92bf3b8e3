"""`sluice gate explain`: what the gate said of a version and why, with the exit code a CI stage wants; and policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sluice.cli import evaluations, exits, live, policies, screen, words
from sluice.cli.options import Session, command, group

if TYPE_CHECKING:
    from sluice.registry import v1 as registry

app = group("gate", "The gate: what a version must show before it may serve.")
app.add_typer(policies.app)


@command(app, "explain")
def explain(
    session: Session,
    version: Annotated[
        str, typer.Argument(metavar="MODEL@N", help="A version: bank-bot@3; bank-bot means the newest.")
    ],
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait up to a minute for the version, then until the gate has decided.")
    ] = False,
) -> int:
    """Say what the gate decided and why; exit 0 PASS, 1 FAIL, 2 INCONCLUSIVE or not decided yet."""
    from sluice.registry import v1 as registry

    found = _version(session, version, wait)
    if wait and not found.gate_decision.verdict:
        screen.hint(session, f"{words.brief(found.name)} is being judged …")
        found = _decided(session, found.name)
    decision = found.gate_decision
    if session.json:
        screen.emit(decision)
    elif decision.verdict:
        _show(session, found)
    else:
        exits.complain(
            f"the gate has not decided on {words.brief(found.name)} yet;"
            f" `sluice eval watch {words.brief(found.name)}` follows what it waits for, --wait waits here"
        )
    codes = {registry.VERDICT_PASS: exits.OK, registry.VERDICT_FAIL: exits.FAILED}
    return codes.get(decision.verdict, exits.INCONCLUSIVE)


def _version(session: Session, version: str, wait: bool) -> registry.ModelVersion:
    """The version; with ``wait`` also one that the registry has yet to make of a job that just succeeded."""
    if not wait:
        return session.client.models.version(version)
    return live.awaited(session, lambda: session.client.models.version(version))


def _decided(session: Session, name: str) -> registry.ModelVersion:
    """The version once the gate has spoken, or nobody waits for it any more; a terminal sees what it waits for."""
    from sluice.registry import v1 as registry

    if screen.out().is_terminal and not session.json and not session.quiet:
        judged = live.awaited(session, lambda: session.client.evaluations.get(words.brief(name)))
        evaluations.follow(session, judged.name)
    for found in session.client.models.watch(name):
        if found.gate_decision.verdict or found.state == registry.MODEL_VERSION_STATE_REVOKED:
            return found
    return session.client.models.version(name)


def _show(session: Session, version: registry.ModelVersion) -> None:
    decision = version.gate_decision
    fields = {
        "version": words.brief(version.name),
        "verdict": words.verdict(decision.verdict),
        "because": "\n".join(decision.reasons),
        "policy": words.brief(decision.policy.name),
        "state": words.version_state(version.state),
        "evaluation": words.brief(decision.evaluation),
        "decided": words.when(decision.time),
    }
    columns: screen.Columns = {
        "METRIC": lambda each: each.criterion.metric,
        "VERDICT": lambda each: words.verdict(each.verdict),
        "VALUE": lambda each: f"{each.value:.4f}" if each.HasField("value") else "none",
        "95 % INTERVAL": lambda each: f"{each.low:.4f} … {each.high:.4f}" if each.HasField("value") else "",
        "WANTED": wanted,
        "INCUMBENT": lambda each: f"{each.incumbent_value:.4f}" if each.HasField("incumbent_value") else "",
    }
    more = [screen.titled("criteria", decision.results, columns)] if decision.results else []
    screen.fields(session, decision, fields, *more)


def wanted(result: Any) -> str:
    """What a criterion asks, with the number it came to."""
    criterion = result.criterion
    match criterion.WhichOneof("rule"):
        case "at_least":
            return f"≥ {criterion.at_least:g}"
        case "at_most":
            return f"≤ {criterion.at_most:g}"
        case "not_below_incumbent_by" if result.HasField("incumbent_value"):
            return f"≥ {result.threshold:.4f} (incumbent − {criterion.not_below_incumbent_by:g})"
    return "anything (no incumbent)"
