"""How two instances prove to each other that they share the fleet key, without I/O of its own.

    dialler                                   acceptor
    hello (versions, ids, name, nonce) ──▶
                                       ◀──    hello
    proof: MAC(key, "dialler", both)   ──▶
                                       ◀──    proof: MAC(key, "acceptor", both)

The dialler proves first, so that nobody can use an acceptor to collect proofs. Each proof covers both hellos, which
hold a fresh nonce of each side, and the name of the role: a replayed or reflected proof fails. Session id and session
key are derived from the same bytes. Two instances without a key talk only over loopback; the MACs then use an empty
key and prove nothing but that both saw the same hellos. The key itself never travels. What is sent after the handshake
is not encrypted by it: over networks that are not trusted, use https addresses.

Either side may answer with ``{"type": "refused", "reason", "message"}`` and close. The reasons are `REASONS`.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..utils.errors import LinkRefused
from .key import FleetKey, keyed_mac

PROTOCOL_MIN = 3
PROTOCOL_MAX = 3
NONCE_BYTES = 32
MAX_NAME_CHARS = 100
MAX_SHOWN_CHARS = 300
MAX_HANDSHAKE_CHARS = 16 * 1024
"""No message of the handshake is longer; a peer that has proved nothing gets no more room."""

REASONS: dict[str, str] = {
    "protocol": "Update Flotilla on the older one of the two, then restart it.",
    "wrong_key": "Give both the same key: copy the file fleet.key, or set FLOTILLA_FLEET_KEY, and restart.",
    "worker_has_no_key": "Give the worker the fleet key of this server (file fleet.key or FLOTILLA_FLEET_KEY).",
    "no_key_here": "Give this server the fleet key of the worker (file fleet.key or FLOTILLA_FLEET_KEY).",
    "loopback_only": "Give both a fleet key: without one, links are possible on one machine only.",
    "itself": "Remove this worker: its address leads back to this server.",
    "malformed": "Check that the address leads to a ComfyUI with Flotilla and that no proxy changes the messages.",
}
"""Every reason for which a handshake fails, with what a person can do about it."""

_Text = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]
_Version = Annotated[int, Field(ge=1, le=1_000_000)]
_HexDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Identity:
    """What an instance says about itself. ``instance_id`` is new at every start, ``home_id`` stays over restarts (see
    `home`), 1 to 100 characters; neither is a secret."""

    instance_id: str
    name: str
    version: str
    home_id: str
    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX


@dataclass(frozen=True)
class PeerInfo:
    """The other side of a link. ``proved`` is False only between instances without a key on one machine.

    ``instance_id`` tells a process from the one before it, ``home_id`` is the same for both.
    """

    instance_id: str
    name: str
    version: str
    protocol: int
    proved: bool
    home_id: str


@dataclass(frozen=True)
class Session:
    """What both sides of a link know and nobody else does. ``key`` (32 bytes) signs blob requests, see `tokens`."""

    id: str
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Established:
    """A finished handshake."""

    peer: PeerInfo
    session: Session


class Refusal(LinkRefused):
    """This side refuses; ``farewell`` is the message to send before closing."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message, cure=REASONS[reason])
        self.farewell = {"type": "refused", "reason": reason, "message": message}


class _Hello(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    type: Literal["hello"]
    protocol_min: _Version
    protocol_max: _Version
    instance_id: _Text
    name: Annotated[str, Field(max_length=MAX_NAME_CHARS)]
    version: _Text
    home_id: _Text
    nonce: _HexDigest
    keyed: bool


class _Proof(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    type: Literal["proof"]
    mac: _HexDigest


class _Side:
    """What both roles share. ``established`` is set when the handshake is done."""

    role: Literal["dialler", "acceptor"]
    peer_role: Literal["dialler", "acceptor"]

    def __init__(self, key: FleetKey | None, me: Identity) -> None:
        self._key = key
        self._me = me
        self._sent_hello: dict[str, Any] = {
            "type": "hello",
            "protocol_min": me.protocol_min,
            "protocol_max": me.protocol_max,
            "instance_id": me.instance_id,
            "name": me.name[:MAX_NAME_CHARS],
            "version": me.version,
            "home_id": me.home_id,
            "nonce": secrets.token_hex(NONCE_BYTES),
            "keyed": key is not None,
        }
        self._peer: PeerInfo | None = None
        self._transcript = b""
        self.established: Established | None = None

    @property
    def has_key(self) -> bool:
        return self._key is not None

    def start(self) -> list[dict[str, Any]]:
        """The messages to send before anything was received."""
        return []

    def receive(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Takes the peer's next message and returns the answers. Raises LinkRefused (a `Refusal` has a farewell)."""
        kind = message.get("type")
        if self.established is not None:
            raise Refusal("malformed", "A message of the handshake came after its end.")
        if kind == "refused":
            raise self._refused_by_peer(message)
        if kind == "hello" and self._peer is None:
            return self._on_hello(message)
        if kind == "proof" and self._peer is not None:
            return self._on_proof(message, self._peer)
        raise Refusal("malformed", "A message came that does not belong at this point of the handshake.")

    # Steps

    def _on_hello(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        protocol = self._common_protocol(message)
        try:
            hello = _Hello.model_validate(dict(message))
        except ValidationError:
            raise Refusal("malformed", "The other side's hello is not well-formed.") from None
        if hello.instance_id == self._me.instance_id:
            raise Refusal("itself", "The worker's address leads back to the master itself.")
        if hello.nonce == self._sent_hello["nonce"]:
            raise Refusal("malformed", "The other side sent this side's own nonce back.")
        self._check_keys(hello.keyed, shown(hello.name))
        proved = self._key is not None
        name, version, home_id = shown(hello.name), shown(hello.version), shown(hello.home_id)
        self._peer = PeerInfo(hello.instance_id, name, version, protocol, proved, home_id)
        hellos = {self.role: self._sent_hello, self.peer_role: dict(message)}
        self._transcript = _canonical([hellos["dialler"], hellos["acceptor"]])
        return self._after_hello()

    def _on_proof(self, message: Mapping[str, Any], peer: PeerInfo) -> list[dict[str, Any]]:
        try:
            proof = _Proof.model_validate(dict(message))
        except ValidationError:
            raise Refusal("malformed", "The other side's proof is not well-formed.") from None
        if not hmac.compare_digest(bytes.fromhex(proof.mac), self._mac(f"proof of the {self.peer_role}")):
            worker, master = self._named(peer.name)
            raise Refusal("wrong_key", f"{worker} and {master} hold different fleet keys.")
        session_id = self._mac("session id")[:16].hex()
        answers = self._after_proof()
        self.established = Established(peer, Session(session_id, self._mac("session key")))
        return answers

    def _after_hello(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def _after_proof(self) -> list[dict[str, Any]]:
        return []

    def _check_keys(self, peer_keyed: bool, peer_name: str) -> None:
        raise NotImplementedError

    # Parts

    def _proof(self) -> dict[str, Any]:
        return {"type": "proof", "mac": self._mac(f"proof of the {self.role}").hex()}

    def _mac(self, purpose: str) -> bytes:
        label = f"flotilla link {purpose}"
        return self._key.mac(label, self._transcript) if self._key else keyed_mac(b"", label, self._transcript)

    def _common_protocol(self, message: Mapping[str, Any]) -> int:
        """Looked at before all else: a later version may well shape the rest of its hello differently."""
        low, high = message.get("protocol_min"), message.get("protocol_max")
        if type(low) is not int or type(high) is not int or not 0 < low <= high:
            raise Refusal("malformed", "The other side's hello states no protocol version.")
        common = min(high, self._me.protocol_max)
        if common >= max(low, self._me.protocol_min):
            return common
        theirs = f"link protocol {_span(low, high)} (Flotilla {shown(message.get('version'))})"
        mine = f"link protocol {_span(self._me.protocol_min, self._me.protocol_max)} (Flotilla {self._me.version})"
        worker, master = self._named(shown(message.get("name")))
        by_role = {self.role: mine, self.peer_role: theirs}
        raise Refusal("protocol", f"{worker} speaks {by_role['acceptor']}, {master} speaks {by_role['dialler']}.")

    def _named(self, peer_name: str) -> tuple[str, str]:
        """How to call the worker and the master in a text that either of them may show."""
        names = {self.role: shown(self._me.name), self.peer_role: peer_name}
        return f"The worker {names['acceptor']!r}", f"the master {names['dialler']!r}"

    def _refused_by_peer(self, message: Mapping[str, Any]) -> LinkRefused:
        reason = message.get("reason")
        if not isinstance(reason, str) or reason not in REASONS:
            reason = "malformed"
        text = shown(message.get("message")) or "The other side refused the link."
        return LinkRefused(reason, text, cure=REASONS[reason])


class Dialler(_Side):
    """The side that opened the connection (the master). ``key`` None: run without a key, on one machine only."""

    role = "dialler"
    peer_role = "acceptor"

    def start(self) -> list[dict[str, Any]]:
        """The dialler speaks first."""
        return [self._sent_hello]

    def _check_keys(self, peer_keyed: bool, peer_name: str) -> None:
        worker, master = self._named(peer_name)
        if self._key is not None and not peer_keyed:
            raise Refusal("worker_has_no_key", f"{worker} has no fleet key, {master} has one.")
        if self._key is None and peer_keyed:
            raise Refusal("no_key_here", f"{worker} asks for the fleet key, {master} has none.")

    def _after_hello(self) -> list[dict[str, Any]]:
        return [self._proof()]


class Acceptor(_Side):
    """The side that was dialled (the worker). ``peer_is_loopback``: whether the dialler surely is on this machine."""

    role = "acceptor"
    peer_role = "dialler"

    def __init__(self, key: FleetKey | None, me: Identity, peer_is_loopback: bool) -> None:
        super().__init__(key, me)
        self._peer_is_loopback = peer_is_loopback

    def _check_keys(self, peer_keyed: bool, peer_name: str) -> None:
        worker, master = self._named(peer_name)
        if self._key is not None and not peer_keyed:
            raise Refusal("no_key_here", f"{worker} asks for the fleet key, {master} has none.")
        if self._key is None and peer_keyed:
            raise Refusal("worker_has_no_key", f"{worker} has no fleet key, {master} has one.")
        if self._key is None and not self._peer_is_loopback:
            raise Refusal("loopback_only", f"{worker} has no fleet key and accepts links from its own machine only.")

    def _after_hello(self) -> list[dict[str, Any]]:
        return [self._sent_hello]

    def _after_proof(self) -> list[dict[str, Any]]:
        return [self._proof()]


def shown(value: object) -> str:
    """A peer's text made safe to show: one line, bounded, nothing invisible."""
    if not isinstance(value, str):
        return ""
    return "".join(char if char.isprintable() else "?" for char in value[:MAX_SHOWN_CHARS])


def _canonical(value: Any) -> bytes:
    """The same bytes on both sides for the same JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"
