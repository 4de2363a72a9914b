"""What one event leads to, gathered while it is handled."""

from __future__ import annotations

from .instructions import FinishJob, Instruction, ItemChanged, ParticipantChanged
from .model import Item, Participant
from .states import ParticipantState


class Outbox:
    """Commands in the order in which they were given, and what has changed, each thing once."""

    def __init__(self) -> None:
        self._commands: list[Instruction] = []
        self._changed: dict[tuple[str, int], None] = {}
        self._participants_before: dict[Participant, tuple[ParticipantState, str]] = {}
        self._finished: list[FinishJob] = []

    def order(self, command: Instruction) -> None:
        """Adds a command to what comes of this event."""
        self._commands.append(command)

    def changed(self, item: Item) -> None:
        """Notes that something that can be seen of the item is different."""
        self._changed[(item.job.id, item.index)] = None

    def changes(self, participant: Participant) -> None:
        """Notes that the participant's state, or the reason for it, is about to be set."""
        self._participants_before.setdefault(participant, (participant.state, participant.reason))

    def finished(self, told: FinishJob) -> None:
        """A job has ended, which is said last."""
        self._finished.append(told)

    def take_instructions(self) -> list[Instruction]:
        """What came of this event: commands in order, then changed items and participants, then ended jobs."""
        taken = self._commands
        taken += [ItemChanged(job_id, index) for job_id, index in self._changed]
        if self._participants_before:
            taken += [
                ParticipantChanged(participant.id)
                for participant, before in self._participants_before.items()
                if before != (participant.state, participant.reason)
            ]
            self._participants_before = {}
        if self._finished:
            taken += self._finished
            self._finished = []
        self._commands, self._changed = [], {}
        return taken
