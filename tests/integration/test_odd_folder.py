"""Must be true 10: the pack works from a folder with dashes and spaces in its name, and replaces nothing of the host's."""

from __future__ import annotations

from fleetkit.client import Client
from fleetkit.fleets import tensor
from fleetkit.graphs import SEED, image_alone, images
from fleetkit.waiting import eventually

from devtools.fleet import Fleet
from devtools.instances import Instance

OWN_PREFIXES = ("Distributed", "Flotilla")
OWN_OTHERS = {"ImageBatchDivider", "AudioBatchDivider", "UltimateSDUpscaleDistributed"}


def test_mbt10_pack_in_an_odd_folder_leads_a_job(fleet: Fleet, second: Instance, bare: Client) -> None:
    (pack,) = [path for path in (second.folder / "custom_nodes").iterdir() if path.name.startswith("my ")]
    assert {" ", "-", "("} <= set(pack.name)
    client = Client(second.url)
    eventually(lambda: set(client.states().values()) == {"online"}, "the workers are linked")
    job = client.run(images("odd"))
    own, *others = [item["participant"] for item in client.job(job)["items"]]
    assert own == "master"
    assert set(others) <= {"w1", "w2"}, "a worker that is slow to begin has its item taken over"
    rows = []
    for k in range(3):
        bare.run(image_alone("odd", seed=SEED + k))
        rows += tensor(fleet.extras[0], "odd")["rows"]
    assert tensor(second, "odd")["rows"] == rows
    log = second.log_path.read_text(encoding="utf-8", errors="replace")
    assert "IMPORT FAILED" not in log
    assert "Traceback" not in log


def test_mbt10_hosts_own_nodes_and_routes_are_as_without_the_pack(master: Client, bare: Client) -> None:
    """Every node of the plain server is there with the same definition, and what is new bears our names."""
    ours, plain = (client.get("/object_info") for client in (master, bare))
    new = set(ours) - set(plain) - {"KitRare"}
    assert all(name.startswith(OWN_PREFIXES) or name in OWN_OTHERS for name in new), new
    for name, info in plain.items():
        assert ours[name] == info, name
    for path in ("/embeddings", "/extensions", "/features", "/models"):
        answers = [client.request("GET", path) for client in (master, bare)]
        if path == "/extensions":
            theirs = [one for one in answers[0].json() if "flotilla" not in one]
            assert theirs == answers[1].json()
        else:
            assert answers[0].body == answers[1].body, path
