"""Messages and their frames: what goes in comes out, rubbish is refused by name of the fault and not by content."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from flotilla.utils.errors import InvalidInput, TooLarge
from flotilla.workers import framing, messages
from flotilla.workers.framing import Joiner, split
from flotilla.workers.messages import (
    AskCapabilities,
    Bye,
    Capabilities,
    ItemFailed,
    ItemFinished,
    ItemPreview,
    ItemProgress,
    ItemStarted,
    JobOver,
    JobsHeld,
    Keep,
    Lease,
    LeaseAccepted,
    LeaseRefused,
    Message,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Release,
    SpoolOffer,
    SpoolPlace,
    Status,
    Stop,
    dump,
    parse_message,
)
from hypothesis import given
from hypothesis import strategies as st

ITEM = {"job_id": "j", "index": 3, "attempt": 1}
LEASE: dict[str, Any] = {
    **ITEM,
    "prompt_id": "p",
    "prompt": {"1": {"class_type": "X", "inputs": {"seed": 2**64 - 1, "image": ["2", 0]}}},
    "extra_data": {"a": None},
    "precision": "exact",
    "node_id": "12:3",
    "title": "Collect",
}
EXAMPLES: list[Message] = [
    Lease(**LEASE),
    Stop(**ITEM),
    Keep(**ITEM),
    Release(**ITEM),
    Prepare(job_id="j", prompt_id="p", prompt=LEASE["prompt"], extra_data={"a": None}),
    JobOver(job_id="j"),
    AskCapabilities(),
    LeaseAccepted(**ITEM),
    LeaseRefused(**ITEM, reason="invalid", message="no such node", node_errors={"1": {"errors": []}}),
    ItemStarted(**ITEM),
    ItemProgress(**ITEM, fraction=0.5, node_id="3", label="KSampler"),
    ItemPreview(**ITEM, node_id="3", format="jpeg", data="/9j/4AAQ", width=512, height=384),
    ItemFinished(**ITEM, manifest={"values": []}, seconds=1.5),
    ItemFailed(**ITEM, kind="error", message="boom", traceback=["a", "b"], retry=True),
    Prepared(job_id="j", ok=True, facts={"seconds": 1.5}),
    Prepared(job_id="j", ok=False, message="no memory"),
    JobsHeld(job_ids=["j", "k"]),
    Capabilities(data={"nodes": []}),
    Status(running=1, pending=2, ours=3),
    SpoolOffer(places=[SpoolPlace(nonce_path="/dev/shm/x/n", digest="0" * 64)]),
    Ping(sent_s=1.25),
    Pong(sent_s=1.25),
    Bye(reason="over"),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.type)
def test_round_trip(message: Message) -> None:
    text = dump(message)
    assert text.isascii()
    assert parse_message(text) == message
    assert parse_message(json.dumps({**json.loads(text), "field_of_a_later_version": 1})) == message


def test_every_message_has_an_example() -> None:
    assert {type(example) for example in EXAMPLES} == set(get_args(Message))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON))
def test_a_prompt_arrives_as_it_was(prompt: dict[str, Any]) -> None:
    lease = Lease(**{**LEASE, "prompt": prompt})
    assert parse_message(dump(lease)).prompt == prompt  # type: ignore[union-attr]


def test_values_that_json_has_no_word_for_survive() -> None:
    prompt = {"a": float("inf"), "b": float("nan"), "c": "\ud800"}
    back = parse_message(dump(Lease(**{**LEASE, "prompt": prompt})))
    assert repr(back.prompt) == repr(prompt)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "null", "[]", "{}", '"ping"', "[" * 100_000, '{"a":' * 50_000, '{"type":"hello"}', '{"type":["ping"]}',
        '{"type":"ping"}', '{"type":"ping","sent_s":"1"}', '{"type":"ping","sent_s":NaN}', '{"type":"ping","sent_s":true}',
        '{"type":"status","running":-1,"pending":0,"ours":0}', '{"type":"status","running":1.5,"pending":0,"ours":0}',
        '{"type":"status","running":true,"pending":0,"ours":0}',
        '{"type":"stop","job_id":"","index":0,"attempt":0}', '{"type":"stop","job_id":7,"index":0,"attempt":0}',
        '{"type":"spool_offer","places":[{"nonce_path":"/x","digest":"../.."}]}', '{"type":"spool_offer","places":{}}',
        '{"type":"item_finished","job_id":"j","index":0,"attempt":0,"manifest":[],"seconds":1}',
        '{"type":"item_progress","job_id":"j","index":0,"attempt":0,"fraction":"1"}',
        '{"type":"item_progress","job_id":"j","index":0,"attempt":0,"fraction":NaN}',
        '{"type":"keep","job_id":"j","index":0}', '{"type":"prepared","job_id":"j","ok":1}', '{"type":"job_over"}',
        '{"type":"prepare","job_id":"j","prompt_id":"p","prompt":[],"extra_data":{}}', '{"type":"jobs_held","job_ids":[""]}',
    ],
)  # fmt: skip
def test_rubbish_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_message(text)


PREVIEW: dict[str, Any] = {
    "type": "item_preview", **ITEM, "node_id": "3", "format": "jpeg", "data": "/9j/4A==", "width": 512, "height": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [
        {"format": "png"}, {"data": ""}, {"data": "/9j/4A== "}, {"data": "<svg>"}, {"data": "/9j/===="}, {"width": 0},
        {"data": "A" * (messages.MAX_PREVIEW_CHARS + 4)}, {"height": 1e6}, {"height": messages.MAX_PREVIEW_PX + 1},
    ],
)  # fmt: skip
def test_previews_have_their_limits(odd: dict[str, Any]) -> None:
    assert parse_message(json.dumps(PREVIEW)).type == "item_preview"
    with pytest.raises(InvalidInput):
        parse_message(json.dumps({**PREVIEW, **odd}))


def test_the_largest_preview_goes_in_one_frame() -> None:
    preview = {**PREVIEW, "data": "A" * messages.MAX_PREVIEW_CHARS, "node_id": "n" * messages.MAX_ID_CHARS}
    assert len(list(split(dump(parse_message(json.dumps(preview)))))) == 1


@pytest.mark.parametrize("field", list(LEASE))
def test_a_lease_needs_every_field(field: str) -> None:
    fields = {"type": "lease", **LEASE}
    del fields[field]
    with pytest.raises(InvalidInput):
        parse_message(json.dumps(fields))


@pytest.mark.parametrize("odd", [set(), object(), b"bytes", [1, {2}]])
def test_what_json_cannot_hold_is_refused(odd: object) -> None:
    with pytest.raises(InvalidInput):
        dump(Capabilities(data={"x": odd}))


def test_errors_repeat_no_content() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_message(json.dumps({"type": "lease", **LEASE, "prompt": "s3cret"}))
    assert "prompt" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_texts_for_people_are_cut_instead_of_refused() -> None:
    failed = ItemFailed(
        **ITEM,
        kind="error",
        message="m" * 50_000,
        traceback=[str(n) for n in range(1000)],
        exception_type="E",
        retry=False,
    )
    assert len(failed.message) == messages.MAX_TEXT_CHARS
    assert failed.traceback[-1] == "999"
    assert len(failed.traceback) == messages.MAX_TRACEBACK_LINES
    assert ItemProgress(**ITEM, fraction=1.0000001).fraction == 1.0
    assert ItemProgress(**ITEM, fraction=1).fraction == 1.0
    assert ItemProgress(**ITEM, fraction=-0.1).fraction == 0.0


def test_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 1_000)
    big = Capabilities(data={"x": "y" * 1_000})
    with pytest.raises(TooLarge):
        dump(big)
    with pytest.raises(TooLarge):
        parse_message('{"type":"capabilities","data":{"x":"' + "y" * 1_000 + '"}}')


def test_frames_of_any_length_join_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "PIECE_CHARS", 10)
    for length in (1, 2, 9, 10, 11, 19, 20, 21, 30, 31, 105):
        text = "{" + "x" * (length - 1)
        frames = list(split(text))
        assert all(len(frame) <= 11 for frame in frames)
        joiner = Joiner()
        got = [joiner.feed(frame) for frame in frames]
        assert got[:-1] == [None] * (len(frames) - 1)
        assert got[-1] == text


def test_whole_messages_come_between_pieces_and_a_new_start_drops_the_old() -> None:
    joiner = Joiner()
    assert joiner.feed("<{a") is None
    assert joiner.feed("{whole}") == "{whole}"
    assert joiner.feed("+b") is None
    assert joiner.feed("<{c") is None
    assert joiner.feed(">d}") == "{cd}"


@pytest.mark.parametrize("frames", [[""], ["+x"], [">x"], ["x"], ["<a", ">b", "+c"], ["[1]"]])
def test_frames_that_do_not_fit(frames: list[str]) -> None:
    joiner = Joiner()
    with pytest.raises(InvalidInput):
        for frame in frames:
            joiner.feed(frame)


def test_pieces_have_a_cap_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_MESSAGE_BYTES", 100)
    joiner = Joiner()
    joiner.feed("<" + "x" * 60)
    with pytest.raises(TooLarge):
        joiner.feed("+" + "x" * 60)
