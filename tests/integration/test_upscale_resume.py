"""An upscale whose master was killed goes on where it was: finished tiles are not redrawn."""

from __future__ import annotations

import pytest
from fleetkit.client import Client
from fleetkit.faulty import WORKERS, FaultyFleet
from fleetkit.fleets import tensor
from fleetkit.upscales import TILES, ended, marked, pixels_alone, tile_runs, upscaled
from fleetkit.waiting import eventually

from devtools.instances import Instance

TILE_S = 0.6
RESUMED_WITHIN_S = 60.0


@pytest.mark.parametrize("coordinates", [True, False], ids=["coordinates", "pulls"])
@pytest.mark.parametrize("mode", ["mosaic", "linear"])
def test_master_killed_in_the_middle_and_resumed(
    mode: str, coordinates: bool, faulty: FaultyFleet, alone: Client, alone_instance: Instance
) -> None:
    faulty.master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-resumed-{mode}-{int(coordinates)}"
    job = faulty.master.queue(upscaled(prefix, mode=mode, watch={"delay_s": TILE_S}))
    eventually(
        lambda: faulty.master.job(job)["items_done"] >= TILES // 2, "half of the tiles are done", RESUMED_WITHIN_S
    )
    faulty.fleet.master.kill()
    before = tile_runs(faulty.instances, prefix)
    on_workers = set(tile_runs([faulty.instance(name) for name in WORKERS], prefix))
    assert len(before) >= TILES // 2

    faulty.fleet.restart(faulty.fleet.master)
    faulty.await_online()
    assert faulty.master.job(job)["state"] == "interrupted"
    faulty.master.post(f"/distributed/v2/jobs/{job}/resume", {})
    faulty.master.succeeded(job, RESUMED_WITHIN_S)
    told = ended(faulty.master, job)
    assert (told["state"], told["lives"], told["items_done"]) == ("done", 2, TILES)
    assert tensor(faulty.fleet.master, prefix)["blake3"] == pixels_alone(alone, alone_instance, mode=mode)
    after = tile_runs(faulty.instances, prefix)
    assert len(after) == TILES
    again = {tile for tile in before if after[tile] > before[tile]}
    # A worker's tile is never redrawn. The master was killed: the tile that it was at, or had not put into its spool yet, is
    # the only loss.
    assert not again & on_workers, again
    assert len(again) <= (0 if coordinates else 1), again


def test_retry_of_what_failed(faulty: FaultyFleet, alone: Client, alone_instance: Instance) -> None:
    """The marked tile fails the first time on each worker, and two times are enough for the job to fail."""
    faulty.master.change_settings(master_delegate_only=True, max_attempts=2)
    watch = {"delay_s": 0.3, "fail": "planted for a retry", "only_marked": True, "times": 1}
    job = faulty.master.queue(upscaled("up-retried", change=marked, watch=watch))
    assert "planted for a retry" in faulty.master.error_of(job)["exception_message"]
    told = ended(faulty.master, job)
    assert told["state"] == "failed"
    before = tile_runs(faulty.instances, "up-retried")
    for life in (2, 3):  # who had not tried it yet may be the one that fails it next
        faulty.master.post(f"/distributed/v2/jobs/{job}/retry_failed", {})
        eventually(lambda life=life: faulty.master.job(job)["lives"] == life, "the next life begins")
        told = ended(faulty.master, job)
        if told["state"] == "done":
            break
    assert (told["state"], told["items_done"]) == ("done", TILES)
    alone.run(upscaled("alone-retried", change=marked))
    assert tensor(faulty.fleet.master, "up-retried")["blake3"] == tensor(alone_instance, "alone-retried")["blake3"]
    after = tile_runs(faulty.instances, "up-retried")
    again = [tile for tile in before if after[tile] > before[tile]]
    assert len(before) > 1
    assert len(again) <= told["lives"] * len(WORKERS), "but for what was at work as the job failed"
