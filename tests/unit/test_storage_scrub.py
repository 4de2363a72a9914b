"""What of a prompt's extra data is written down."""

from __future__ import annotations

import json

from flotilla.storage.scrub import scrub

WORKFLOW = {
    "nodes": [{"id": 1, "type": "KSampler", "inputs": [{"name": "token"}]}],
    "extra": {"api_key": "a slot's name"},
}


def test_what_a_requeue_needs_is_kept_as_it_is() -> None:
    extra = {"extra_pnginfo": {"workflow": WORKFLOW, "note": [1, None]}, "preview_method": "taesd"}
    assert scrub(extra) == extra


def test_credentials_and_what_is_of_the_moment_is_dropped() -> None:
    secret = "s3cret"
    extra = {
        "auth_token_comfy_org": secret,
        "api_key_comfy_org": secret,
        "client_id": "me",
        "create_time": 5,
        "somebody_elses": {"key": secret},
        "extra_pnginfo": {
            "workflow": WORKFLOW,
            "auth_token_x": secret,
            "API-Key": "x",
            "apiKey": secret,
            "Password": secret,
        },
    }
    kept = scrub(extra)
    assert secret not in json.dumps(kept)
    assert set(kept) == {"extra_pnginfo"}
    assert kept["extra_pnginfo"]["workflow"] == WORKFLOW


def test_what_is_not_json_is_dropped_and_the_original_left_alone() -> None:
    extra = {"extra_pnginfo": {"workflow": object()}, "preview_method": "auto"}
    assert scrub(extra) == {"preview_method": "auto"}
    assert set(extra) == {"extra_pnginfo", "preview_method"}


def test_extra_data_of_any_shape() -> None:
    assert scrub({}) == {}
    assert scrub({"extra_pnginfo": None}) == {"extra_pnginfo": None}
    assert scrub({"extra_pnginfo": [1]}) == {"extra_pnginfo": [1]}
