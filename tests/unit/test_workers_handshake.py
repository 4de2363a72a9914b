"""The handshake, both sides in memory: who is let in, who is not and why, and what an attacker in between can do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from flotilla.utils.errors import LinkRefused
from flotilla.workers.handshake import PROTOCOL_MAX, REASONS, Acceptor, Dialler, Established, Identity, Refusal
from flotilla.workers.key import FleetKey

KEY = FleetKey(b"the fleet's own secret, long enough")
OTHER_KEY = FleetKey(b"a secret of quite another fleet....")
MASTER = Identity("master-id", "Master", "0.2.0", "master-home")
WORKER = Identity("worker-id", "GPU box", "0.1.0", "worker-home")

Messages = list[dict[str, Any]]


def over_the_wire(messages: Messages) -> Messages:
    return [json.loads(json.dumps(message)) for message in messages]


def shake(dialler: Dialler, acceptor: Acceptor) -> tuple[Established, Established, Messages]:
    """Runs both to the end. Raises what either raises first. Returns all that travelled, too."""
    to_acceptor = over_the_wire(dialler.start())
    to_dialler = over_the_wire(acceptor.start())
    travelled = [*to_acceptor, *to_dialler]
    while to_acceptor or to_dialler:
        if to_acceptor:
            answers = over_the_wire(acceptor.receive(to_acceptor.pop(0)))
            to_dialler += answers
        else:
            answers = over_the_wire(dialler.receive(to_dialler.pop(0)))
            to_acceptor += answers
        travelled += answers
    assert dialler.established
    assert acceptor.established
    return dialler.established, acceptor.established, travelled


def refused(dialler: Dialler, acceptor: Acceptor) -> LinkRefused:
    """The refusal as the master tells it: its own, or the worker's as it came over the wire."""
    with pytest.raises(Refusal) as caught:
        shake(dialler, acceptor)
    own = caught.value
    fresh = Dialler(KEY, MASTER)
    with pytest.raises(LinkRefused) as told:
        fresh.receive(over_the_wire([own.farewell])[0])
    assert (told.value.reason, told.value.message, told.value.cure) == (own.reason, own.message, own.cure)
    assert own.cure
    return told.value


def test_two_that_share_the_key() -> None:
    at_master, at_worker, _ = shake(Dialler(KEY, MASTER), Acceptor(KEY, WORKER, False))
    assert at_master.session == at_worker.session
    assert (at_master.peer.instance_id, at_master.peer.name, at_master.peer.version) == (
        "worker-id",
        "GPU box",
        "0.1.0",
    )
    assert at_worker.peer.instance_id == "master-id"
    assert (at_master.peer.home_id, at_worker.peer.home_id) == ("worker-home", "master-home")
    assert at_master.peer.proved
    assert at_worker.peer.proved
    assert at_master.peer.protocol == PROTOCOL_MAX
    assert at_master.session.key.hex() not in repr(at_master)


def test_every_session_is_new() -> None:
    first, _, _ = shake(Dialler(KEY, MASTER), Acceptor(KEY, WORKER, False))
    second, _, _ = shake(Dialler(KEY, MASTER), Acceptor(KEY, WORKER, False))
    assert first.session.id != second.session.id
    assert first.session.key != second.session.key


def test_nothing_that_travels_holds_the_key_or_the_session_key() -> None:
    established, _, travelled = shake(Dialler(KEY, MASTER), Acceptor(KEY, WORKER, False))
    text = json.dumps(travelled)
    for secret in (KEY.reveal(), KEY.reveal().encode().hex(), established.session.key.hex(), established.session.id):
        assert secret not in text


def test_without_keys_on_one_machine() -> None:
    at_master, at_worker, _ = shake(Dialler(None, MASTER), Acceptor(None, WORKER, True))
    assert not at_master.peer.proved
    assert not at_worker.peer.proved
    assert at_master.session == at_worker.session


@pytest.mark.parametrize(
    ("dialler_key", "acceptor_key", "loopback", "reason"),
    [
        (KEY, OTHER_KEY, True, "wrong_key"),
        (KEY, None, True, "worker_has_no_key"),
        (KEY, None, False, "worker_has_no_key"),
        (None, KEY, True, "no_key_here"),
        (None, KEY, False, "no_key_here"),
        (None, None, False, "loopback_only"),
    ],
)
def test_keys_that_do_not_fit(
    dialler_key: FleetKey | None, acceptor_key: FleetKey | None, loopback: bool, reason: str
) -> None:
    error = refused(Dialler(dialler_key, MASTER), Acceptor(acceptor_key, WORKER, loopback))
    assert error.reason == reason
    assert "GPU box" in error.message
    assert reason in REASONS


def test_a_dialler_with_a_key_refuses_a_worker_that_lets_everybody_in() -> None:
    dialler = Dialler(KEY, MASTER)
    hello = {**Acceptor(None, WORKER, True).receive(Dialler(None, MASTER).start()[0])[0]}
    with pytest.raises(Refusal) as caught:
        dialler.receive(hello)
    assert caught.value.reason == "worker_has_no_key"


def test_other_protocols_are_named_on_both_sides() -> None:
    later = replace(MASTER, protocol_min=8, protocol_max=9, version="9.0.0")
    error = refused(Dialler(KEY, later), Acceptor(KEY, WORKER, True))
    assert error.reason == "protocol"
    for part in ("link protocol 8 to 9", "9.0.0", f"link protocol {PROTOCOL_MAX}", "0.1.0", "GPU box", "Master"):
        assert part in error.message
    for protocol in (1, 2):  # what released versions before this one speak: they know nothing of sent inputs
        earlier = replace(MASTER, protocol_min=1, protocol_max=protocol)
        assert refused(Dialler(KEY, earlier), Acceptor(KEY, WORKER, True)).reason == "protocol"
    with pytest.raises(Refusal) as caught:
        Dialler(KEY, MASTER).receive({"type": "hello", "protocol_min": 9, "protocol_max": 9, "shape": "of the future"})
    assert caught.value.reason == "protocol"


def test_the_highest_common_protocol_is_spoken() -> None:
    wide = replace(MASTER, protocol_min=1, protocol_max=7)
    wider = replace(WORKER, protocol_min=1, protocol_max=5)
    at_master, at_worker, _ = shake(Dialler(KEY, wide), Acceptor(KEY, wider, True))
    assert at_master.peer.protocol == at_worker.peer.protocol == 5


def test_fields_of_later_versions_are_carried_along() -> None:
    dialler, acceptor = Dialler(KEY, MASTER), Acceptor(KEY, WORKER, True)
    hello = {**dialler.start()[0], "colour": {"b": [1, None], "a": "ü"}}
    dialler._sent_hello = hello
    proof = dialler.receive(acceptor.receive(over_the_wire([hello])[0])[0])
    dialler.receive(acceptor.receive(proof[0])[0])
    assert dialler.established is not None


def test_itself() -> None:
    error = refused(Dialler(KEY, MASTER), Acceptor(KEY, replace(WORKER, instance_id="master-id"), True))
    assert error.reason == "itself"


def test_a_replayed_conversation_fails() -> None:
    _, _, travelled = shake(Dialler(KEY, MASTER), Acceptor(KEY, WORKER, False))
    hello, _, proof, _ = travelled
    acceptor = Acceptor(KEY, WORKER, False)
    acceptor.receive(hello)
    with pytest.raises(Refusal) as caught:
        acceptor.receive(proof)
    assert caught.value.reason == "wrong_key"
    assert acceptor.established is None


def test_a_reflected_proof_fails() -> None:
    """Somebody without the key sends back what the master itself sent, under another name."""
    dialler = Dialler(KEY, MASTER)
    hello = dialler.start()[0]
    with pytest.raises(Refusal) as caught:
        dialler.receive({**hello, "instance_id": "mallory"})
    assert caught.value.reason == "malformed"

    dialler = Dialler(KEY, MASTER)
    proof = dialler.receive({**dialler.start()[0], "instance_id": "mallory", "nonce": "0" * 64})[0]
    with pytest.raises(Refusal) as caught:
        dialler.receive(proof)
    assert caught.value.reason == "wrong_key"


def test_a_proof_from_a_second_conversation_at_the_same_time_fails() -> None:
    """An oracle attack: the attacker lets a real worker answer the challenge of a real master, with its own hello."""
    dialler, acceptor = Dialler(KEY, MASTER), Acceptor(KEY, WORKER, False)
    worker_hello = acceptor.receive({**dialler.start()[0], "nonce": "1" * 64})[0]
    masters_proof = dialler.receive(worker_hello)[0]
    with pytest.raises(Refusal):
        acceptor.receive(masters_proof)


@pytest.mark.parametrize("field", ["name", "version", "instance_id", "home_id", "nonce", "protocol_max", "keyed"])
def test_a_hello_changed_on_the_way_fails(field: str) -> None:
    changed = {"nonce": "2" * 64, "protocol_max": 4, "keyed": False}
    dialler, acceptor = Dialler(KEY, MASTER), Acceptor(KEY, WORKER, True)
    with pytest.raises(Refusal):
        hello = {**dialler.start()[0], field: changed.get(field, "mallory")}
        proof = dialler.receive(acceptor.receive(hello)[0])[0]
        acceptor.receive(proof)
    assert acceptor.established is None


def hello_with(**changes: Any) -> dict[str, Any]:
    return {**Dialler(KEY, MASTER).start()[0], **changes}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "proof", "mac": "0" * 64},
        {"type": 7},
        {"type": ["hello"]},
        hello_with(protocol_min="1"),
        hello_with(protocol_min=True),
        hello_with(protocol_min=3, protocol_max=2),
        hello_with(protocol_min=0),
        hello_with(nonce="short"),
        hello_with(nonce="G" * 64),
        hello_with(nonce=None),
        hello_with(instance_id=""),
        hello_with(instance_id="x" * 101),
        hello_with(home_id=""),
        hello_with(home_id="x" * 101),
        hello_with(home_id=None),
        hello_with(name="x" * 101),
        hello_with(keyed="yes"),
        hello_with(keyed=1),
    ],
)
def test_malformed_messages(message: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        Acceptor(KEY, WORKER, True).receive(message)
    assert caught.value.reason == "malformed"


def test_messages_out_of_order_are_malformed() -> None:
    dialler, acceptor = Dialler(KEY, MASTER), Acceptor(KEY, WORKER, True)
    hello = dialler.start()[0]
    acceptor.receive(hello)
    for late in (hello, {"type": "proof"}, {"type": "proof", "mac": "xyz"}):
        with pytest.raises(Refusal) as caught:
            acceptor.receive(late)
        assert caught.value.reason == "malformed"
    dialler, acceptor = Dialler(KEY, MASTER), Acceptor(KEY, WORKER, True)
    _, _, travelled = shake(dialler, acceptor)
    with pytest.raises(Refusal):
        acceptor.receive(travelled[2])


def test_a_refusal_from_outside_is_made_safe_to_show() -> None:
    with pytest.raises(LinkRefused) as caught:
        Dialler(KEY, MASTER).receive({"type": "refused", "reason": "wrong_key", "message": "a\x1b[31m\nb" + "x" * 1000})
    assert caught.value.reason == "wrong_key"
    assert "\x1b" not in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) <= 300
    for odd in ({"type": "refused"}, {"type": "refused", "reason": ["x"], "message": 7}):
        with pytest.raises(LinkRefused) as caught:
            Dialler(KEY, MASTER).receive(odd)
        assert caught.value.reason == "malformed"
        assert caught.value.message


def test_names_of_strangers_are_made_safe_to_show() -> None:
    at_master, _, _ = shake(Dialler(KEY, MASTER), Acceptor(KEY, replace(WORKER, name="a\r\nb\x00"), True))
    assert at_master.peer.name == "a??b?"
