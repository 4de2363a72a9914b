"""Log lines: constant messages, facts behind them, nothing in a fact that can break the formatting."""

from __future__ import annotations

import logging

import pytest
from flotilla.utils.log import get_logger

ROOM = "a_room"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger=f"flotilla.{ROOM}")
    return caplog


def test_the_logger_has_a_fixed_name() -> None:
    assert get_logger(ROOM).logger.name == "flotilla.a_room"


def test_facts_follow_the_message(lines: pytest.LogCaptureFixture) -> None:
    get_logger(ROOM).info("worker linked", worker="w1", rtt_ms=3)
    assert lines.messages == ["[Flotilla] worker linked (worker=w1 rtt_ms=3)"]
    assert lines.records[0].__dict__["facts"] == {"worker": "w1", "rtt_ms": 3}


def test_a_message_without_facts_stands_alone(lines: pytest.LogCaptureFixture) -> None:
    get_logger(ROOM).warning("no worker is enabled")
    assert lines.messages == ["[Flotilla] no worker is enabled"]


@pytest.mark.parametrize("text", ["50%", "%s", "100%d", "%(name)s", "a%%b"])
def test_percent_signs_in_facts_stay_what_they_are(lines: pytest.LogCaptureFixture, text: str) -> None:
    get_logger(ROOM).error("item failed", cause=text)
    assert lines.messages == [f"[Flotilla] item failed (cause={text})"]


@pytest.mark.parametrize("text", ["done at 50%", "%s of %d", "100%"])
def test_percent_signs_in_messages_stay_what_they_are(lines: pytest.LogCaptureFixture, text: str) -> None:
    get_logger(ROOM).info(text, n=1)
    get_logger(ROOM).info(text)
    assert lines.messages == [f"[Flotilla] {text} (n=1)", f"[Flotilla] {text}"]


@pytest.mark.parametrize("text", ["w1\n[Flotilla] all is well", "w1\r\n", "\x1b[2J"])
def test_a_fact_cannot_forge_a_line(lines: pytest.LogCaptureFixture, text: str) -> None:
    get_logger(ROOM).warning("worker refused", name=text)
    assert lines.messages == [f"[Flotilla] worker refused (name={text!r})"]
    assert lines.messages[0].isprintable()


def test_letters_of_any_language_stay_readable(lines: pytest.LogCaptureFixture) -> None:
    get_logger(ROOM).info("worker linked", name="Büro 計算機")
    assert lines.messages == ["[Flotilla] worker linked (name=Büro 計算機)"]


def test_exceptions_keep_their_traceback(lines: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("boom %s")
    except ValueError:
        get_logger(ROOM).exception("item failed", item=2)
    record = lines.records[0]
    assert record.getMessage() == "[Flotilla] item failed (item=2)"
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


def test_extra_of_the_caller_is_kept(lines: pytest.LogCaptureFixture) -> None:
    get_logger(ROOM).info("blob stored", extra={"room": "spool"}, size_bytes=5)
    assert lines.records[0].__dict__["room"] == "spool"
    assert lines.records[0].__dict__["facts"] == {"size_bytes": 5}


def test_the_line_names_the_file_that_logged(lines: pytest.LogCaptureFixture) -> None:
    get_logger(ROOM).info("here", n=1)
    assert lines.records[0].filename == "test_utils_log.py"


def test_nothing_is_built_for_a_level_that_is_off(lines: pytest.LogCaptureFixture) -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("a line nobody reads was built")

    lines.set_level(logging.WARNING, logger=f"flotilla.{ROOM}")
    get_logger(ROOM).debug("worker linked", worker=Costly())
    assert lines.messages == []
