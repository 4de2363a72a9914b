"""Addresses: what people type, what is refused, and that a refusal repeats no secret."""

from __future__ import annotations

import pytest
from flotilla.utils.errors import InvalidInput
from flotilla.workers.address import LINK_PATH, parse_address


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("http://gpu.lan:8188", "http://gpu.lan:8188"),
        ("HTTP://GPU.lan:8188/", "http://gpu.lan:8188"),
        ("https://gpu.lan", "https://gpu.lan"),
        ("https://gpu.lan:443", "https://gpu.lan"),
        ("http://gpu.lan", "http://gpu.lan"),
        ("http://gpu.lan:443", "http://gpu.lan:443"),
        ("gpu.lan:9000", "http://gpu.lan:9000"),
        ("gpu.lan", "http://gpu.lan:8188"),
        ("gpu.lan:443", "https://gpu.lan"),
        ("my_worker-2:80", "http://my_worker-2"),
        ("192.168.1.5:8189", "http://192.168.1.5:8189"),
        ("[::1]:8189", "http://[::1]:8189"),
        ("[2001:DB8::1]", "http://[2001:db8::1]:8188"),
        ("abc.trycloudflare.com", "https://abc.trycloudflare.com"),
        ("x-8188.proxy.runpod.net", "https://x-8188.proxy.runpod.net"),
        ("x.ngrok-free.app:8443", "https://x.ngrok-free.app:8443"),
        ("https://host/comfy/a%20b/", "https://host/comfy/a%20b"),
        ("localhost.:8188", "http://localhost:8188"),
    ],
)
def test_accepted(typed: str, shown: str) -> None:
    address = parse_address(typed)
    assert str(address) == shown
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "typed",
    [
        "", None, 7, " gpu.lan", "gpu.lan:8188 ", "gpu .lan", "gpu\n.lan", "gpu.lan\x00", "ftp://gpu.lan", "javascript://x",
        "http:/gpu.lan", "http:gpu.lan", "http://", "//gpu.lan", "gpu.lan:0", "gpu.lan:65536", "gpu.lan:x", "gpu.lan:",
        "gpu.lan:-1", "gpu.lan:٣", "gpu.lan:99999999999999999999", "::1:8188", "[::1", "[::1]x", "[gpu]", "[fe80::1%eth0]",
        "256.1.1.1", "1.2.3", "127.1", "0x7f.1", "gpu.123", "gpu..lan", "-gpu.lan", "gpü.lan", "0.0.0.0:8188", "[::]:8188",
        "224.0.0.1", "gpu.lan?x=1", "gpu.lan/#x", "gpu.lan/../x", "gpu.lan/%2e%2e/x", "gpu.lan/a%2fb", "gpu.lan/a//b",
        "gpu.lan/%zz", "gpu.lan\\x", "a" * 64 + ".lan", "x" * 2000, ".", "http://.", "gpu.lan/<x>",
    ],
)  # fmt: skip
def test_refused_with_a_cause_and_a_cure(typed: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_address(typed)
    assert caught.value.message
    assert caught.value.cure


@pytest.mark.parametrize(
    "typed", ["http://me:hunter2@gpu.lan", "me:hunter2@gpu.lan", "hunter2@gpu.lan", "http://x:hunter2@"]
)
def test_credentials_are_refused_and_not_repeated(typed: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_address(typed)
    assert "password" in caught.value.message
    assert "hunter2" not in str(caught.value) + str(caught.value.details)


def test_urls() -> None:
    address = parse_address("https://host/comfy")
    assert address.url("/prompt?x=1") == "https://host/comfy/prompt?x=1"
    assert address.link_url() == "wss://host/comfy" + LINK_PATH
    assert parse_address("[::1]:8189").link_url() == "ws://[::1]:8189" + LINK_PATH
    with pytest.raises(ValueError, match="slash"):
        address.url("prompt")


@pytest.mark.parametrize(
    ("typed", "loopback"),
    [
        ("localhost", True),
        ("w.localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("[::1]", True),
        ("[::ffff:127.0.0.1]", True),
        ("localhost.evil.com", False),
        ("127.0.0.1.evil.com", False),
        ("192.168.0.1", False),
        ("[::ffff:192.168.0.1]", False),
    ],
)
def test_loopback(typed: str, loopback: bool) -> None:
    assert parse_address(typed).is_loopback is loopback


def test_identity_sees_through_spelling() -> None:
    assert parse_address("localhost:8189").identity == parse_address("http://127.0.0.1:8189/").identity
    assert parse_address("localhost:8189").identity != parse_address("localhost:8190").identity
