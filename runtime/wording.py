"""From what participants say to what people read: failures, refusals, the error that a job ends with."""

from __future__ import annotations

from collections.abc import Callable

from ..host.records import Outcome
from ..jobs.instructions import FinishJob
from ..jobs.model import Failure, JobState
from ..jobs.view import ItemView
from ..utils.errors import FlotillaError, JobCancelled, JobFailed
from ..workers import messages as m
from ..workers.entries import MASTER_ID

SHOWN_NODES = 3
SHOWN_ERRORS = 3


def failure_of(worker_id: str, message: m.ItemFailed) -> Failure:
    """A worker's report of a failed item, as the state machine keeps it."""
    named = f"{message.exception_type}: {message.message}" if message.exception_type else message.message
    return Failure(
        kind=message.kind,
        message=named,
        traceback="".join(message.traceback),
        node_id=message.node_id,
        node_type=message.node_type,
        participant_id=worker_id,
    )


def prompt_failure(outcome: Outcome | None) -> Failure | None:
    """Why the master's own prompt failed, by the host's record of it; None if it did not."""
    if outcome is None or outcome.status != "error":
        return None
    text = outcome.message or "the host says no more"
    return Failure(
        kind="prompt",
        message=f"{outcome.exception_type}: {text}" if outcome.exception_type else text,
        traceback="".join(outcome.traceback),
        node_id=outcome.node_id,
        node_type=outcome.node_type,
        participant_id=MASTER_ID,
    )


def describe_refusal(message: m.LeaseRefused) -> str:
    """One sentence of what a worker's host found wrong with an item's prompt."""
    parts = [message.reason]
    for node_id, node in list(message.node_errors.items())[:SHOWN_NODES]:
        errors = node.get("errors", ()) if isinstance(node, dict) else ()
        for error in errors[:SHOWN_ERRORS]:
            text = " ".join(str(error.get(key) or "") for key in ("message", "details")).strip()
            parts.append(f"node {node_id} ({node.get('class_type', '?')}): {text}")
    return "; ".join(part for part in parts if part)


def ending_error(order: FinishJob, name_of: Callable[[str], str], what: str = "") -> FlotillaError | None:
    """What the nodes of an ended job raise; None when there is something to return. ``name_of``: ids to names for people;
    ``what``: the item that failed, for people."""
    if order.state in (JobState.DONE, JobState.PARTIAL):
        return None
    failure = order.failure
    if order.state == JobState.CANCELLED or failure is None:
        return JobCancelled(f"The job was cancelled: {failure.message}" if failure else "The job was cancelled.")
    where = f" on {name_of(failure.participant_id)}" if failure.participant_id else ""
    node = f" in node {failure.node_id} ({failure.node_type})" if failure.node_id else ""
    attempt = f", attempt {failure.attempt}" if failure.attempt else ""
    at = f" at {what}" if what else ""
    text = f"The distributed job failed{at}{where}{node}{attempt}: {failure.message}"
    if failure.traceback:
        text += f"\n\nTraceback{where}:\n{failure.traceback}"
    return JobFailed(text, details={"kind": failure.kind, "participant": failure.participant_id})


def why_missing(item: ItemView, name_of: Callable[[str], str]) -> str:
    """Why a job lacks an item, in one line."""
    failure = item.error
    if failure is None:
        return "it was not computed"
    where = f"{name_of(failure.participant_id)}: " if failure.participant_id else ""
    lines = failure.message.strip().splitlines()
    return where + (lines[0] if lines else failure.kind)
