"""What idle participants do for others when nothing is left to lease: they take over what has not begun, and copy what
takes too long. Of copies the first result wins."""

from __future__ import annotations

from collections.abc import Iterable

from .forecast import Forecast
from .leasing import Leasing
from .ledger import Ledger
from .model import MAX_COPIES, Attempt, Group, Participant
from .selection import Ranking, has_slot, may_ask, may_help, open_to_asks, takers
from .states import AttemptState, ItemState, JobState

TAKEOVER_GAIN = 0.1
"""An attempt is taken over if it ends earlier by at least this share of what the item takes at the new place."""

TAKEOVER_GRACE_S = 5.0
"""What lies first with a participant that does nothing else for us is thought to begin soon for so long: its host may be
tidying up, or at work for somebody else."""

COPY_GAIN = 1.5
"""An item is copied if what is left of it is more than this many times what all of it takes at the idle participant."""

SMALL_GROUP = 64
"""Groups with fewer attempts at work are looked at whenever somebody becomes idle."""

LOOK_GAP_S = 0.25
"""Larger ones at most this often."""


class Helping:
    """Works on the machine's books."""

    def __init__(self, books: Ledger, forecast: Forecast, leasing: Leasing) -> None:
        self._books = books
        self._forecast = forecast
        self._leasing = leasing

    def look(self, group: Group) -> None:
        """Looks whether those with nothing to do can take, take over or copy anything of this group."""
        books = self._books
        if group.job.state is not JobState.RUNNING:
            return
        is_large = len(group.at_work) >= SMALL_GROUP
        if is_large and group.looked_s is not None and books.now_s < group.looked_s + LOOK_GAP_S:
            books.timers.set_earlier(group, group.looked_s + LOOK_GAP_S)
            return
        group.looked_s = books.now_s
        for failed_by in list(group.floating):
            self._leasing.match(group, failed_by)
        leaving = {one for failed_by in group.floating for one in takers(books, group, failed_by)}
        helpers = [one for one in self._helpers(group) if one not in leaving]  # what waits comes first
        helpers = self._copy(group, self._take_over(group, helpers))
        if (helpers or leaving) and group.at_work:
            self._leasing.look_later(group)

    def _helpers(self, group: Group) -> list[str]:
        """Who has nothing to do, the one expected to finish an item first coming first."""
        books, job = self._books, group.job
        asking = [one for one in group.asks if may_ask(group, books.participants[one])]
        if len(books.idle) < len(job.usable):
            idle = [one for one in books.idle if one in job.usable]
        else:
            idle = [one for one in job.usable if one in books.idle]
        named = sorted({*asking, *idle}, key=job.participants.__getitem__)
        ranking = Ranking(named, lambda one: self._forecast.finish_s(books.participants[one], group))
        helpers = []
        while (soonest := ranking.soonest()) is not None:
            helpers.append(soonest)
            ranking.drop_soonest()
        return helpers

    def _take_over(self, group: Group, helpers: list[str]) -> list[str]:
        """What has been leased and not begun goes where it ends earlier, the latest first. Returns who is still idle."""
        if not helpers:
            return helpers
        held = sorted(self._not_begun(group), key=lambda one: -one[1])
        left = []
        for helper_id in helpers:
            helper = self._books.participants[helper_id]
            here_s = self._forecast.finish_s(helper, group)
            least_s = here_s + TAKEOVER_GAIN * self._forecast.seconds(helper_id, group)
            for place, (attempt, there_s) in enumerate(held):
                if there_s < least_s:
                    left.append(helper_id)
                    break
                if self._may_give(attempt, helper):
                    del held[place]
                    self._books.stop(attempt)
                    if not attempt.item.live:
                        self._books.move_item(attempt.item, ItemState.WAITING)
                    self._give(attempt, helper)
                    break
            else:
                left.append(helper_id)
        return left

    def _not_begun(self, group: Group) -> Iterable[tuple[Attempt, float]]:
        """Attempts that could be taken over, with when they are expected to be done."""
        holders = {
            attempt.participant_id: None
            for attempt in group.at_work
            if attempt.state is AttemptState.LEASED and not attempt.asked
        }
        for holder_id in holders:
            is_first = True
            for attempt, done_s in self._forecast.schedule(self._books.participants[holder_id]):
                is_here = attempt in group.at_work and not attempt.asked
                begins_soon = is_first and self._forecast.waits_s(attempt) < TAKEOVER_GRACE_S
                is_first = False
                if is_here and attempt.state is AttemptState.LEASED and len(attempt.item.live) == 1 and not begins_soon:
                    yield attempt, done_s

    def _copy(self, group: Group, helpers: list[str]) -> list[str]:
        """What takes too long is begun a second time by who is idle, the worst first. Returns who is still idle."""
        if not helpers:
            return helpers
        running = sorted(self._running(group), key=lambda one: (not one[1], -one[2]))
        left = []
        for helper_id in helpers:
            chosen = self._worth_copying(running, helper_id, group.pace.own(helper_id))
            if chosen is None:
                left.append(helper_id)
            else:
                attempt = running[chosen][0]
                running = [one for one in running if one[0].item is not attempt.item]
                self._give(attempt, self._books.participants[helper_id])
        return left

    def _running(self, group: Group) -> Iterable[tuple[Attempt, bool, float]]:
        """Attempts that could be copied, whether they are stuck, and how long an idle one may need for it to be worth while.

        An item has one copy at a time; those that are stuck as well do not count.
        """
        for attempt in group.at_work:
            live = attempt.item.live
            if attempt.state is not AttemptState.RUNNING:
                continue
            if len(live) >= MAX_COPIES and not all(self._forecast.is_stuck(one) for one in live):
                continue
            elapsed_s = self._forecast.elapsed_s(attempt)
            is_stuck = self._forecast.is_stuck(attempt)
            told_s, own_s = self._forecast.told_remaining_s(attempt), group.pace.own(attempt.participant_id)
            if is_stuck:
                worth_s = elapsed_s
            elif told_s is not None:
                worth_s = told_s / COPY_GAIN
            elif own_s is not None and elapsed_s < own_s:
                worth_s = (own_s - elapsed_s) / COPY_GAIN
            else:  # late, and thought to need as long again: less sure
                worth_s = (elapsed_s - own_s) / group.job.stall_factor if own_s is not None else 0.0
            yield attempt, is_stuck, worth_s

    def _worth_copying(
        self, running: list[tuple[Attempt, bool, float]], helper_id: str, own_s: float | None
    ) -> int | None:
        for place, (attempt, is_stuck, worth_s) in enumerate(running):
            if not is_stuck and (own_s is None or worth_s <= own_s):
                return None
            if self._may_give(attempt, self._books.participants[helper_id]):
                return place
        return None

    def _may_give(self, attempt: Attempt, helper: Participant) -> bool:
        item = attempt.item
        may_get = has_slot(self._books, item.group, helper.id) or open_to_asks(item.group, item.failed_by)
        return may_get and may_help(self._books, self._forecast, attempt, helper.id)

    def _give(self, attempt: Attempt, helper: Participant) -> None:
        by_slot = has_slot(self._books, attempt.item.group, helper.id)
        self._books.lease(attempt.item, helper, asked=not by_slot)
