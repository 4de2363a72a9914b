"""A relay on a clock of the test's own, with a screen that remembers what it was to show."""

from __future__ import annotations

import asyncio
import base64
import io

from fakes.host import FakeScreen
from fakes.timers import ManualTimers
from flotilla.relay.news import ItemNews, JobNews, PreviewNews
from flotilla.relay.relay import Relay
from PIL import Image

CLIENT = "tab-1"
NAMES = {"master": "Desk", "w1": "GPU box", "w2": "Laptop"}
JOB = JobNews("job", "running", 24, CLIENT, ("master", "w1"))
WAIT_S = 10.0


class RelayWorld:
    """A relay with everything around it."""

    def __init__(self) -> None:
        self.screen = FakeScreen(clients={CLIENT})
        self.timers = ManualTimers()
        self.relay = Relay(
            self.screen,
            self.timers.clock,
            lambda one: NAMES.get(one, one),
            call_later=self.timers.call_later,
        )

    def jobs(self) -> list[dict[str, object]]:
        return self.screen.of("flotilla.job")

    def items(self) -> list[list[int]]:
        """The indexes in each message about items."""
        return [[item["index"] for item in data["items"]] for data in self.screen.of("flotilla.item")]

    async def shown(self, count: int) -> None:
        """Waits until so many pictures have been shown and told of."""

        async def wait() -> None:
            while len(self.screen.of("flotilla.preview")) < count:
                self.screen.changed.clear()
                await self.screen.changed.wait()

        await asyncio.wait_for(wait(), WAIT_S)

    def picture(self, participant_id: str, shade: int = 100, index: int = 0, job_id: str = "job") -> PreviewNews:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 32), (shade, shade, shade)).save(buffer, format="JPEG")
        return PreviewNews(job_id, index, "9", participant_id, base64.b64encode(buffer.getvalue()).decode())


def running(index: int, participant_id: str = "w1", fraction: float = 0.0, label: str = "") -> ItemNews:
    return ItemNews(
        index, index, "9", "running", participant_id, 1, fraction, label, copies=1, running_on=(participant_id,)
    )


def done(index: int, participant_id: str = "w1") -> ItemNews:
    return ItemNews(index, index, "9", "done", participant_id, 1, 1.0)
