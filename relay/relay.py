"""The event stream: tells everybody who looks at this master how jobs, items and participants stand.

The messages are described in docs/events.md. However fast the news comes, a job sends at most one round of messages
every `JOB_EVERY_S`; what has changed meanwhile is told together, and the last state is always told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..host.records import HostScreen
from ..utils.clock import Clock
from .feed import JobFeed
from .news import ItemNews, JobNews, ParticipantNews, PreviewNews
from .pace import CallLater, Pace, call_later_on_loop
from .preview_desk import PreviewDesk

JOB_EVENT = "flotilla.job"
ITEM_EVENT = "flotilla.item"
PARTICIPANT_EVENT = "flotilla.participant"
JOB_EVERY_S = 0.25
PARTICIPANT_EVERY_S = 0.25
MAX_REASON_CHARS = 500


@dataclass
class _Job:
    feed: JobFeed
    pace: Pace


@dataclass
class _Participant:
    news: ParticipantNews
    told: ParticipantNews | None
    pace: Pace


class Relay:
    """One per instance. Everything runs on the server's loop, and nothing blocks it."""

    def __init__(
        self,
        screen: HostScreen,
        clock: Clock,
        names: Callable[[str], str],
        *,
        call_later: CallLater = call_later_on_loop,
    ) -> None:
        """``names`` turns a participant's id into its name for people."""
        self._screen = screen
        self._clock = clock
        self._names = names
        self._call_later = call_later
        self._jobs: dict[str, _Job] = {}
        self._participants: dict[str, _Participant] = {}
        self._previews = PreviewDesk(screen, clock, names, call_later)

    def job_changed(self, news: JobNews) -> None:
        """A job has begun, changed its state, or ended. Its end is told at once and last; what follows is dropped."""
        job = self._jobs.get(news.job_id)
        if job is None:
            if not news.is_open:
                return
            job = self._jobs[news.job_id] = self._begin(news)
        job.feed.take_job(news)
        if news.is_open:
            job.pace.soon()
        else:
            self._end(job)

    def item_changed(self, job_id: str, news: ItemNews) -> None:
        """An item of an open job has changed. News of other jobs is dropped."""
        job = self._jobs.get(job_id)
        if job is not None and job.feed.take_item(news, self._clock.now_s()):
            job.pace.soon()

    def preview(self, news: PreviewNews) -> None:
        """A picture of an item has come. Shown to the client of an open job, else dropped."""
        self._previews.offer(news)

    def picture(self, job_id: str, node_id: str, jpeg: bytes) -> None:
        """How a picture looks that the master puts together. Shown on the node to the client of an open job."""
        self._previews.show(job_id, node_id, jpeg)

    def participant_changed(self, news: ParticipantNews) -> None:
        """A participant's state or its reason has changed."""
        participant = self._participants.get(news.participant_id)
        if participant is None:
            participant_id = news.participant_id
            pace = Pace(
                lambda: self._tell_participant(participant_id), PARTICIPANT_EVERY_S, self._clock, self._call_later
            )
            participant = self._participants[participant_id] = _Participant(news, None, pace)
        participant.news = news
        if participant.news != participant.told:
            participant.pace.soon()

    def participant_gone(self, participant_id: str) -> None:
        """There is no such participant any more."""
        participant = self._participants.pop(participant_id, None)
        if participant is not None:
            participant.pace.stop()

    async def close(self) -> None:
        """Tells nothing any more."""
        for job in self._jobs.values():
            job.pace.stop()
        self._jobs.clear()
        for participant in self._participants.values():
            participant.pace.stop()
        self._participants.clear()
        await self._previews.close()

    def _begin(self, news: JobNews) -> _Job:
        self._previews.open_job(news.job_id, news.client_id)
        pace = Pace(lambda: self._tell_job(news.job_id), JOB_EVERY_S, self._clock, self._call_later)
        return _Job(JobFeed(news, self._names), pace)

    def _end(self, job: _Job) -> None:
        job_id = job.feed.news.job_id
        self._previews.close_job(job_id)
        job.pace.stop()
        job.feed.forget_cancelled()
        while job.feed.has_changed_items:
            self._tell_items(job.feed)
        self._tell_summary(job.feed)
        del self._jobs[job_id]

    def _tell_job(self, job_id: str) -> None:
        job = self._jobs[job_id]
        self._tell_items(job.feed)
        self._tell_summary(job.feed)
        if job.feed.has_changed_items:
            job.pace.soon()

    def _tell_items(self, feed: JobFeed) -> None:
        message = feed.next_items()
        if message is not None:
            self._screen.send_event(ITEM_EVENT, message)

    def _tell_summary(self, feed: JobFeed) -> None:
        message = feed.summary(self._clock.now_s())
        if message is not None:
            self._screen.send_event(JOB_EVENT, message)

    def _tell_participant(self, participant_id: str) -> None:
        participant = self._participants[participant_id]
        news = participant.told = participant.news
        message = {
            "id": news.participant_id,
            "name": self._names(news.participant_id),
            "state": news.state,
            "reason": news.reason[:MAX_REASON_CHARS],
        }
        self._screen.send_event(PARTICIPANT_EVENT, message)
