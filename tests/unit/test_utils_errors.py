"""The tree of errors: stable codes, right statuses, nothing lost between cause and cure."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flotilla.utils import errors
from flotilla.utils.errors import FlotillaError, InvalidInput, LinkRefused, NotAllowed

LINK_REASON = "wrong_key"


def family(root: type[FlotillaError]) -> Iterator[type[FlotillaError]]:
    yield root
    for child in root.__subclasses__():
        if vars(errors).get(child.__name__) is child:
            yield from family(child)


ALL = sorted(set(family(FlotillaError)), key=lambda kind: kind.__name__)


def make(kind: type[FlotillaError]) -> FlotillaError:
    if kind is LinkRefused:
        return LinkRefused(LINK_REASON, "The keys differ.", cure="Give both the same key.")
    return kind("The keys differ.", cure="Give both the same key.", details={"n": 1})


def test_codes_are_unique_and_machine_readable() -> None:
    codes = [kind.code for kind in ALL]
    assert len(codes) == len(set(codes)), "two errors share a code"
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_its_own_and_an_error_status(kind: type[FlotillaError]) -> None:
    assert "code" in vars(kind), "an inherited code would hide which error it was"
    assert 400 <= kind.status <= 599


def test_the_docstring_draws_the_tree_that_the_code_has() -> None:
    drawn: dict[str, int | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^[\s│├└─]*([A-Z][A-Za-z]+)\s.*?(\d{3})?$", line)
        if match and hasattr(errors, match.group(1)):
            drawn[match.group(1)] = int(match.group(2)) if match.group(2) else None
    assert set(drawn) == {kind.__name__ for kind in ALL}
    for kind in ALL:
        status = drawn[kind.__name__]
        assert status in (None, kind.status), f"{kind.__name__} is drawn with {status}"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.FlotillaError, 500),
        (errors.InvalidPrompt, 400),
        (errors.InvalidBlob, 400),
        (errors.NobodyCanRun, 400),
        (errors.LinkRefused, 403),
        (errors.NotFound, 404),
        (errors.Conflict, 409),
        (errors.TooLarge, 413),
        (errors.SpoolFull, 507),
        (errors.FetchFailed, 502),
    ],
)
def test_statuses_are_those_of_the_api(kind: type[FlotillaError], status: int) -> None:
    assert kind.status == status


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_tells_cause_and_cure(kind: type[FlotillaError]) -> None:
    error = make(kind)
    assert error.message == "The keys differ."
    assert str(error) == "The keys differ. Give both the same key."
    assert error.details


def test_an_error_without_a_cure_is_its_message() -> None:
    assert str(FlotillaError("It broke.")) == "It broke."
    assert FlotillaError("It broke.").details == {}


def test_details_are_a_copy() -> None:
    given = {"n": 1}
    error = InvalidInput("No.", details=given)
    given["n"] = 2
    assert error.details == {"n": 1}


def test_a_refused_link_carries_its_reason_for_people_and_machines() -> None:
    error = make(LinkRefused)
    assert isinstance(error, NotAllowed)
    assert isinstance(error, LinkRefused)
    assert error.reason == LINK_REASON
    assert error.details == {"reason": LINK_REASON}


def test_errors_are_shown_under_the_name_of_the_pack() -> None:
    """The host prints the module before the class, and a pack's module is the path of its folder."""
    assert {kind.__module__ for kind in ALL} == {"flotilla"}
