"""Where a worker is: one checked address, and the URLs made from it.

Accepted: ``http(s)://host[:port][/prefix]``, or the same without the scheme as people type it. A user name or password,
a query, a fragment, white space and control characters are refused, and an error never repeats what was typed (it may
hold a password).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ..utils.errors import InvalidInput

LINK_PATH = "/distributed/v2/link"
"""The route on which an instance accepts links."""

COMFYUI_PORT = 8188
"""The port of a ComfyUI that nobody configured; taken for a bare host without scheme and port."""

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_ADDRESS_CHARS = 1_000
MAX_HOST_CHARS = 253
MAX_PORT = 65_535

HTTPS_HOSTS = (
    ".proxy.runpod.net",
    ".ngrok-free.app",
    ".ngrok-free.dev",
    ".ngrok.io",
    ".trycloudflare.com",
    ".cloudflare.dev",
)
"""Providers that serve https only; a bare host that ends so means https."""

_CURE = "Write it as http://host:port or https://host."
# Underscores are not in the DNS standard, but names of containers have them.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True)
class WorkerAddress:
    """A checked address. ``host`` is lower-case, an IPv6 address without brackets; ``prefix`` is "" or "/a/b"."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    def __str__(self) -> str:
        return self._base(self.scheme)

    def url(self, path: str) -> str:
        """The URL of an absolute ``path`` on this worker."""
        if not path.startswith("/"):
            raise ValueError("the path must start with a slash")
        return self._base(self.scheme) + path

    def link_url(self) -> str:
        """The WebSocket URL of the link route."""
        return self._base("wss" if self.scheme == "https" else "ws") + LINK_PATH

    @property
    def is_loopback(self) -> bool:
        """Whether it always leads to this machine."""
        return is_loopback_host(self.host)

    @property
    def identity(self) -> tuple[str, int, str]:
        """Equal for two addresses that surely lead to the same server."""
        return ("127.0.0.1" if self.host == "localhost" else self.host, self.port, self.prefix)

    def _base(self, scheme: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{scheme}://{host}{port}{self.prefix}"


def is_loopback_host(host: str) -> bool:
    """Whether a host name or IP address (without brackets) always means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def is_https_host(host: str) -> bool:
    """Whether the host belongs to a provider that serves https only."""
    return host.lower().endswith(HTTPS_HOSTS)


def parse_address(text: object) -> WorkerAddress:
    """Checks what a person or a file gave as a worker's address. Raises InvalidInput with cause and cure."""
    if not isinstance(text, str) or not text:
        raise InvalidInput("The worker's address is missing or not a text.", cure=_CURE)
    if len(text) > MAX_ADDRESS_CHARS:
        raise InvalidInput(f"The worker's address is longer than {MAX_ADDRESS_CHARS} characters.", cure=_CURE)
    if any(char.isspace() or not char.isprintable() or char == "\\" for char in text):
        raise InvalidInput("The worker's address holds white space, a backslash or a control character.", cure=_CURE)
    scheme_match = _SCHEME.match(text)
    scheme = scheme_match.group(1).lower() if scheme_match else ""
    if scheme_match and scheme not in DEFAULT_PORTS:
        raise InvalidInput("The worker's address must begin with http:// or https://.", cure=_CURE)
    rest = text[scheme_match.end() :] if scheme_match else text
    if "?" in rest or "#" in rest:
        raise InvalidInput("The worker's address holds a query or a fragment.", cure=_CURE)
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise InvalidInput(
            "The worker's address holds a user name or a password.",
            cure="Remove it: instances prove the fleet key to each other and need no other login.",
        )
    host_text, port = _split_port(authority)
    host = _check_host(host_text)
    prefix = _check_prefix(slash + path)
    if not scheme:
        scheme = "https" if is_https_host(host) or port == DEFAULT_PORTS["https"] else "http"
        if port is None and scheme == "http":
            port = COMFYUI_PORT
    return WorkerAddress(scheme, host, DEFAULT_PORTS[scheme] if port is None else port, prefix)


def _split_port(authority: str) -> tuple[str, int | None]:
    if authority.startswith("["):
        host, bracket, tail = authority.partition("]")
        host += bracket
    else:
        host, colon, tail = authority.partition(":")
        tail = colon + tail
    if not tail:
        return host, None
    digits = tail[1:]
    if not tail.startswith(":") or not (digits.isascii() and digits.isdigit()) or not 0 < int(digits[:6]) <= MAX_PORT:
        raise InvalidInput(
            "The port in the worker's address is not a number from 1 to 65535.",
            cure="Write it as host:8188; an IPv6 address needs brackets: [::1]:8188.",
        )
    return host, int(digits)


def _check_host(host: str) -> str:
    """The host in lower case and without brackets."""
    if not host:
        raise InvalidInput("The worker's address names no host.", cure=_CURE)
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        if host.startswith("["):
            if not host.endswith("]") or "%" in host:
                raise ValueError
            ip = ipaddress.IPv6Address(host[1:-1])
        elif all(char in "0123456789." for char in host):
            ip = ipaddress.IPv4Address(host)
        else:
            return _check_name(host.lower())
    except ValueError:
        raise InvalidInput("The host in the worker's address is not a valid name or IP address.", cure=_CURE) from None
    if ip.is_unspecified or ip.is_multicast:
        raise InvalidInput(
            "The worker's address is a wildcard or group address, which cannot be dialled.",
            cure="Use the machine's own address, or 127.0.0.1 for this machine.",
        )
    return str(ip)


def _check_name(host: str) -> str:
    if not host.isascii():
        raise InvalidInput(
            "The host name in the worker's address holds letters outside ASCII.", cure="Use its xn-- form or its IP."
        )
    labels = host.removesuffix(".").split(".")
    # A last label that reads as a number would be taken for an odd spelling of an IPv4 address (127.1, 0x7f.1).
    numeric_end = labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]) is not None
    if len(host) > MAX_HOST_CHARS or numeric_end or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError
    return ".".join(labels)


def _check_prefix(path: str) -> str:
    segments = path.split("/")
    if not _PREFIX.fullmatch(path) or any(segment in (".", "..") for segment in segments) or _bad_percent(path):
        raise InvalidInput("The path in the worker's address is not usable.", cure="Leave it out, or write /like/this.")
    return path.rstrip("/")


def _bad_percent(path: str) -> bool:
    """Whether a percent sign escapes nothing, or hides a dot, a slash or a control character."""
    for match in re.finditer(r"%(.{0,2})", path):
        code = match.group(1)
        if not re.fullmatch(r"[0-9A-Fa-f]{2}", code) or chr(int(code, 16)) in "./\\" or int(code, 16) < 0x20:
            return True
    return False
