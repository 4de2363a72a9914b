"""Must be true 2: workers that die, come late, repeat themselves or are cut off change no pixel of an upscale."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fleetkit.client import Client
from fleetkit.faulty import WORKERS, FaultyFleet
from fleetkit.fleets import tensor
from fleetkit.upscales import TILES, ended, pixels_alone, tile_runs, upscaled, workers_of
from fleetkit.waiting import eventually

from devtools.fleet import Fleet
from devtools.instances import Instance

MODES = ("mosaic", "linear")
TILE_S = 0.5
CUT_EVERY_S = 0.4
SOON_S = 40.0


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def wanted(mode: str, alone: Client, alone_instance: Instance) -> str:
    """The pixels of a single server."""
    return pixels_alone(alone, alone_instance, mode=mode)


def start(faulty: FaultyFleet, prefix: str, mode: str, **watch: Any) -> str:
    """Queues an upscale whose tiles take their time; ``watch`` are inputs of the kit's VAE."""
    return faulty.master.queue(upscaled(prefix, mode=mode, watch={"delay_s": TILE_S, **watch}))


def check(faulty: FaultyFleet, job: str, prefix: str, wanted: str) -> dict[str, Any]:
    """The job, which must end with the pixels of a single server."""
    faulty.master.succeeded(job, SOON_S)
    told = ended(faulty.master, job)
    assert (told["state"], {item["state"] for item in told["items"]}, len(told["items"])) == ("done", {"done"}, TILES)
    assert tensor(faulty.fleet.master, prefix)["blake3"] == wanted
    return told


def at_work(faulty: FaultyFleet, name: str) -> bool:
    return bool(faulty.client(name).queued()[0])


def attempts_of(told: dict[str, Any], participant: str) -> list[str]:
    """The states of a participant's attempts."""
    return [one["state"] for item in told["items"] for one in item["attempts"] if one["participant"] == participant]


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_mbt2_worker_killed_in_mid_tile(coordinates: bool, mode: str, wanted: str, faulty: FaultyFleet) -> None:
    faulty.master.change_settings(master_delegate_only=coordinates)
    prefix = f"up-killed-{mode}-{int(coordinates)}"
    job = start(faulty, prefix, mode, stall="never", only_worker="w1")
    eventually(lambda: "running" in attempts_of(faulty.master.job(job), "w1"), "w1 is at a tile")
    faulty.instance("w1").kill()
    told = check(faulty, job, prefix, wanted)
    assert "lost" in attempts_of(told, "w1")
    assert "w1" not in workers_of(told)


@pytest.mark.parametrize("coordinates", [False, True], ids=["pulls", "coordinates"])
def test_mbt2_only_worker_killed(
    coordinates: bool, faulty: FaultyFleet, alone: Client, alone_instance: Instance
) -> None:
    """The master finishes alone, also when it was only to coordinate and has loaded no model."""
    faulty.master.change_settings(master_delegate_only=coordinates)
    for name in ("w2", "w3"):
        faulty.master.change_worker(name, enabled=False)
    prefix = f"up-only-{int(coordinates)}"
    job = start(faulty, prefix, "mosaic", speeds="master=5")
    eventually(lambda: "done" in attempts_of(faulty.master.job(job), "w1"), "w1 has done a tile", SOON_S)
    eventually(lambda: "running" in attempts_of(faulty.master.job(job), "w1"), "w1 is at another", SOON_S)
    faulty.instance("w1").kill()
    told = check(faulty, job, prefix, pixels_alone(alone, alone_instance, mode="mosaic"))
    assert workers_of(told) == {"master", "w1"}


def test_mbt2_worker_joins_at_half(mode: str, wanted: str, faulty: FaultyFleet) -> None:
    """w3 is switched off when the job is planned; w1 and w2 would need long for the rest."""
    faulty.master.change_settings(master_delegate_only=True)
    faulty.master.change_worker("w3", enabled=False)
    prefix = f"up-joined-{mode}"
    job = start(faulty, prefix, mode)
    eventually(lambda: faulty.master.job(job)["items_done"] >= TILES // 3, "some tiles are done", SOON_S)
    faulty.master.change_worker("w3", enabled=True)
    told = check(faulty, job, prefix, wanted)
    assert "w3" in {one["id"] for one in told["participants"]}
    assert "w3" not in told["left_out"]
    if mode == "mosaic":  # where others are left to do
        assert "w3" in workers_of(told)


@pytest.fixture
def stammering(faulty: FaultyFleet) -> Iterator[None]:
    """Every worker says of each finished item twice that it is finished."""
    for name in WORKERS:
        faulty.client(name).post("/kit/twice", {"on": True})
    yield
    for name in WORKERS:
        faulty.client(name).post("/kit/twice", {"on": False})


@pytest.mark.usefixtures("stammering")
def test_mbt2_every_tile_is_returned_twice(mode: str, wanted: str, faulty: FaultyFleet) -> None:
    prefix = f"up-twice-{mode}"
    told = check(faulty, start(faulty, prefix, mode), prefix, wanted)
    assert workers_of(told) & set(WORKERS)
    runs = tile_runs(faulty.instances, prefix)
    assert len(runs) == TILES
    assert sum(runs.values()) < 2 * TILES, "not every tile is computed twice for that"


def test_mbt2_tile_that_two_have_computed(faulty: FaultyFleet, alone: Client, alone_instance: Instance) -> None:
    """w1 and w2 are cut off one after the other while they are at the same tile; both offer its result afterwards."""
    faulty.master.change_settings(master_delegate_only=True)
    faulty.master.change_worker("w3", enabled=False)
    job = start(faulty, "up-both", "linear", delay_s=1.5)
    for name in ("w1", "w2"):
        eventually(lambda name=name: at_work(faulty, name), f"{name} is at a tile", SOON_S)
        faulty.cables[name].cut()
        eventually(lambda name=name: faulty.master.states()[name] != "online", f"the master has lost {name}")
    eventually(
        lambda: max(tile_runs(faulty.instances, "up-both").values(), default=0) >= 2, "it is computed twice", SOON_S
    )
    for cable in faulty.cables.values():
        cable.mend()
    check(faulty, job, "up-both", pixels_alone(alone, alone_instance, mode="linear"))


def test_mbt2_cables_that_are_cut_again_and_again(mode: str, wanted: str, faulty: FaultyFleet) -> None:
    """Also while pixels are on their way."""
    prefix = f"up-cut-{mode}"
    chance = random.Random(1)
    job = start(faulty, prefix, mode)
    while faulty.master.history(job) is None:
        cable = faulty.cables[chance.choice(WORKERS)]
        cable.cut()
        time.sleep(CUT_EVERY_S * chance.random())
        cable.mend()
        time.sleep(CUT_EVERY_S)
    check(faulty, job, prefix, wanted)


def test_mbt2_result_that_arrives_broken(mode: str, wanted: str, faulty: FaultyFleet) -> None:
    """One byte of a tile's pixels is another on the way."""
    faulty.master.change_settings(master_delegate_only=True)
    prefix = f"up-broken-{mode}"
    for cable in faulty.cables.values():
        cable.corrupt(200)
    check(faulty, start(faulty, prefix, mode), prefix, wanted)


@pytest.mark.parametrize("mode", ["mosaic"], indirect=True)
def test_mbt2_worker_that_stands_still(mode: str, wanted: str, faulty: FaultyFleet) -> None:
    """w1 says that it lives and does not go on with its first tile; others copy it."""
    prefix = f"up-still-{mode}"
    told = check(faulty, start(faulty, prefix, mode, stall="never", only_worker="w1"), prefix, wanted)
    assert "w1" not in workers_of(told)
    assert attempts_of(told, "w1")
    eventually(faulty.client("w1").idle, "the tile that stands still is stopped")


@pytest.mark.parametrize("mode", ["mosaic"], indirect=True)
def test_mbt2_frozen_worker(mode: str, wanted: str, faulty: FaultyFleet) -> None:
    """w1 is stopped in its tracks in mid-tile, and goes on when all is over."""
    prefix = f"up-frozen-{mode}"
    job = start(faulty, prefix, mode)
    eventually(lambda: "running" in attempts_of(faulty.master.job(job), "w1"), "w1 is at a tile")
    faulty.instance("w1").freeze()
    check(faulty, job, prefix, wanted)
    faulty.instance("w1").thaw()
    eventually(faulty.client("w1").idle, "w1 has stopped at its tile", SOON_S)


def test_uneven_speeds(fleet: Fleet, master: Client, alone: Client, alone_instance: Instance) -> None:
    """Results arrive in quite another order than that of the mode."""
    watch = {"delay_s": 0.2, "speeds": "w1=4,w2=0.5"}
    job = master.run(upscaled("up-uneven", mode="chess", watch=watch))
    assert tensor(fleet.master, "up-uneven")["blake3"] == pixels_alone(alone, alone_instance, mode="chess")
    assert ended(master, job)["state"] == "done"
