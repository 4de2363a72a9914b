"""Tokens of blob requests: bound to session, method, path and time."""

from __future__ import annotations

import pytest
from flotilla.utils.errors import NotAllowed
from flotilla.workers.tokens import LIFETIME_S, SLACK_S, issue, verify

SESSION_KEY = b"s" * 32
SESSION = "ab" * 16
PATH = "/distributed/v2/blobs/0123"


def check(
    header: str | None, *, age_s: float = 100.0, method: str = "GET", path: str = PATH, key: bytes = SESSION_KEY
) -> str:
    return verify(header, lambda session_id: (key, age_s) if session_id == SESSION else None, method, path)


def make(now_s: float = 100.0) -> str:
    return issue(SESSION_KEY, SESSION, "GET", PATH, now_s)


def test_a_fresh_token_passes_and_names_its_session() -> None:
    assert check(make()) == SESSION
    assert check(issue(SESSION_KEY, SESSION, "get", PATH, 100.0)) == SESSION
    assert SESSION_KEY.hex() not in make()


@pytest.mark.parametrize("age_s", [100.0 - SLACK_S + 1, 100.0 + LIFETIME_S, 100.0 + LIFETIME_S + SLACK_S])
def test_it_lives_a_minute_and_clocks_may_differ_a_little(age_s: float) -> None:
    assert check(make(), age_s=age_s) == SESSION


@pytest.mark.parametrize("age_s", [100.0 + LIFETIME_S + SLACK_S + 1, 100.0 - SLACK_S - 2, 0.0, 1e9])
def test_it_ends_and_cannot_be_made_ahead(age_s: float) -> None:
    with pytest.raises(NotAllowed):
        check(make(), age_s=age_s)


def test_it_opens_nothing_else() -> None:
    for attempt in (
        lambda: check(make(), method="PUT"),
        lambda: check(make(), path=PATH + "4"),
        lambda: check(make(), path=PATH + "?x"),
        lambda: check(make(), key=b"t" * 32),
        lambda: check(make().replace(SESSION, "cd" * 16)),
    ):
        with pytest.raises(NotAllowed):
            attempt()


def test_forged_or_odd_headers() -> None:
    scheme, value = make().split(" ")
    session, expires, mac = value.split(".")
    for header in (
        None, "", "Flotilla", value, f"Bearer {value}", f"{scheme}  {value}", f"{scheme} {value} ", f"{scheme} {value}\n",
        f"{scheme} {session}.{int(expires) + 1}.{mac}", f"{scheme} {session}.{expires}.{'0' * 64}",
        f"{scheme} {session}.{expires}.{mac[:-1]}", f"{scheme} {session}.{expires}.{mac.upper()}x",
        f"{scheme} {session}.{'9' * 500}.{mac}", f"{scheme} {session}.١.{mac}", f"{scheme} {session}.-1.{mac}",
    ):  # fmt: skip
        with pytest.raises(NotAllowed):
            check(header)


def test_all_refusals_read_the_same() -> None:
    texts = set()
    for header, age_s in (
        (None, 0.0),
        (make(), 1e6),
        (make()[:-1] + "x", 100.0),
        (make().replace(SESSION, "cd" * 16), 100.0),
    ):
        with pytest.raises(NotAllowed) as caught:
            check(header, age_s=age_s)
        texts.add(str(caught.value))
    assert len(texts) == 1
