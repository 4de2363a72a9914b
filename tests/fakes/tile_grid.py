"""A grid of tiles on a fake clock: the real state machine, workers with a lease in hand, a master that asks when it is free.

Each tile takes the same time. A tile is ready when all earlier ones beside it have been blended, which is some time after
their results were offered.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, Instruction, SendLease, StopLease
from flotilla.jobs.machine import Machine

TILE_S = 0.5
LEASE_S = 0.01
"""From the machine's word to the participant, and from the end of a tile to the machine."""
BLEND_S = 0.03
"""From a result to the items that it makes ready."""
MASTER = "master"
JOB = "grid"

Place = tuple[int, int]


def linear(columns: int, rows: int) -> list[Place]:
    return [(x, y) for y in range(rows) for x in range(columns)]


def chess(columns: int, rows: int) -> list[Place]:
    return sorted(linear(columns, rows), key=lambda place: sum(place) % 2)


def mosaic(columns: int, rows: int) -> list[Place]:
    colours = [(0, 0), (1, 1), (1, 0), (0, 1)]
    return sorted(linear(columns, rows), key=lambda place: colours.index((place[0] % 2, place[1] % 2)))


def needs_of(order: Sequence[Place]) -> list[set[int]]:
    """What each tile of the order needs: those before it that are beside it, or touch its corners."""
    number_of = {place: number for number, place in enumerate(order)}
    around = [step for step in itertools.product((-1, 0, 1), repeat=2) if step != (0, 0)]
    return [
        {near for dx, dy in around if (near := number_of.get((x + dx, y + dy), number)) < number}
        for number, (x, y) in enumerate(order)
    ]


@dataclass
class Hand:
    """What a participant has: leases in the order in which they came, the first of them at work."""

    leases: list[SendLease] = field(default_factory=list)
    is_warm: bool = False


class TileGrid:
    """Runs one job of tiles to its end. ``makespan`` is in tile times."""

    def __init__(
        self,
        needs: Sequence[set[int]],
        workers: Sequence[str] = ("a", "b"),
        *,
        jitter: Callable[[int], float] = lambda _number: 1.0,
        first_takes_s: float = 0.0,
        master_asks_after_s: float = 0.0,
    ) -> None:
        self.machine = Machine()
        self.now_s = 0.0
        self.jitter = jitter
        self.first_takes_s = first_takes_s  # more than the others, at each participant
        self.needs = needs
        self.blended: set[int] = set()
        self.ready = {number for number, before in enumerate(needs) if not before}
        self.hands = {who: Hand() for who in (MASTER, *workers)}
        self.stops = 0
        self.given = dict.fromkeys(self.hands, 0)  # leases that the machine knows each to have
        self.waits_behind = 0  # leases that were given to somebody busy while another had nothing to do
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._tickets = itertools.count()
        self._tell(ev.ParticipantOnline(MASTER, slots=1_000, takes_unpinned=False))
        for who in workers:
            self._tell(ev.ParticipantOnline(who, slots=2))
        people = tuple(self.hands)
        self._tell(ev.JobPlanned(JOB, (), people, fallback=MASTER, late_groups=frozenset({0})), ev.JobAccepted(JOB))
        self.master_asks = False
        if master_asks_after_s:
            self._later(master_asks_after_s, self._ask)
        else:
            self._ask()
        self._tell(
            ev.ItemsAdded(
                JOB,
                tuple(
                    ev.ItemSpec(number, people[number % len(people)], pulled=True, held=bool(before))
                    for number, before in enumerate(needs)
                ),
            )
        )

    @property
    def makespan(self) -> float:
        """When all tiles were blended."""
        return self.now_s / TILE_S

    def run(self) -> TileGrid:
        while len(self.blended) < len(self.needs):
            deadline_s = self.machine.next_deadline_s()
            if deadline_s is not None and (not self._agenda or deadline_s < self._agenda[0][0]):
                self.now_s = max(self.now_s, deadline_s)
                self._tell(ev.TimePassed())
                continue
            at_s, _, happens = heapq.heappop(self._agenda)
            self.now_s = at_s
            happens()
        self._tell(ev.PromptEnded(JOB))
        return self

    def _ask(self) -> None:
        self.master_asks = True
        self._tell(ev.ItemAsked(JOB, 0, MASTER))

    def _later(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now_s + seconds, next(self._tickets), happens))

    def _tell(self, *events: ev.Event) -> None:
        for event in events:
            for told in self.machine.handle(event, self.now_s):
                self._carry_out(told)
            self.machine.validate()

    def _carry_out(self, told: Instruction) -> None:
        if isinstance(told, SendLease):
            self.given[told.participant_id] += 1
            self.master_asks &= told.participant_id != MASTER
            if self.given[told.participant_id] > 1:  # one of the others would have begun it at once
                idle = {who for who, count in self.given.items() if not count}
                self.waits_behind += bool(idle if self.master_asks else idle - {MASTER})
            self._later(LEASE_S, lambda: self._take(told))
        elif isinstance(told, StopLease):
            self.given[told.participant_id] -= 1
            self._later(LEASE_S, lambda: self._stop(told))
        elif isinstance(told, FetchResult):
            self.given[told.participant_id] -= 1
            self._later(BLEND_S, lambda: self._blend(told))

    def _take(self, lease: SendLease) -> None:
        hand = self.hands[lease.participant_id]
        hand.leases.append(lease)
        if len(hand.leases) == 1:
            self._begin(hand)

    def _begin(self, hand: Hand) -> None:
        lease = hand.leases[0]
        self._tell(ev.ItemStarted(JOB, lease.index, lease.attempt, lease.participant_id))
        if hand.leases[:1] == [lease]:
            seconds = TILE_S * self.jitter(lease.index) + (0.0 if hand.is_warm else self.first_takes_s)
            hand.is_warm = True
            self._later(seconds, lambda: self._end(hand, lease))

    def _end(self, hand: Hand, lease: SendLease) -> None:
        if hand.leases[:1] != [lease]:
            return  # it was stopped meanwhile
        del hand.leases[0]
        if hand.leases:
            self._begin(hand)
        result = ev.ItemFinished(JOB, lease.index, lease.attempt, lease.participant_id, result="pixels")
        self._tell(result)
        if lease.participant_id == MASTER:
            self._ask()

    def _stop(self, stop: StopLease) -> None:
        hand = self.hands[stop.participant_id]
        lease = SendLease(stop.participant_id, stop.job_id, stop.index, stop.attempt)
        if lease not in hand.leases:
            return
        self.stops += 1
        was_first = hand.leases[0] == lease
        hand.leases.remove(lease)
        if was_first and hand.leases:
            self._begin(hand)

    def _blend(self, fetch: FetchResult) -> None:
        self._tell(ev.ResultFetched(JOB, fetch.index, fetch.attempt, fetch.participant_id))
        if fetch.index in self.blended:
            return
        self.blended.add(fetch.index)
        fresh = [
            number for number, before in enumerate(self.needs) if number not in self.ready and before <= self.blended
        ]
        self.ready.update(fresh)
        if fresh:
            self._tell(ev.ItemsReady(JOB, tuple(fresh)))
