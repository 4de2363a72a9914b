"""The OpenAPI document and the routes come from one table; every reference in it leads somewhere."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fakes.api import Instance
from flotilla.api import openapi, v2_fleet, v2_jobs
from flotilla.utils.version import VERSION

METHODS = {"get", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document(v2_fleet.ALL_ROUTES)


@pytest.fixture
async def instance(tmp_path: Path) -> AsyncIterator[Instance]:
    made = Instance(tmp_path)
    yield made
    await made.close()


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from walk(child)
    elif isinstance(value, list):
        for child in value:
            yield from walk(child)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_head_of_the_document(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == VERSION
    assert set(document) <= {"openapi", "info", "servers", "tags", "paths", "components"}


def test_every_reference_leads_to_a_schema_and_every_schema_is_needed(document: dict[str, Any]) -> None:
    refs = {node["$ref"] for node in walk(document) if "$ref" in node}
    assert refs == {openapi.SCHEMAS + name for name in document["components"]["schemas"]}


async def test_every_registered_route_is_in_the_document(document: dict[str, Any], instance: Instance) -> None:
    services = instance.services(None)
    routes = web.RouteTableDef()
    v2_jobs.register(services, routes)
    v2_fleet.register(services, routes)
    registered = {
        (one.method.lower(), one.path) for one in routes if isinstance(one, web.RouteDef) and one.method != "*"
    }
    assert registered == {(method, path) for path, method, _ in operations(document)}


def test_operations_are_complete(document: dict[str, Any]) -> None:
    ids = []
    for path, method, operation in operations(document):
        assert method in METHODS
        assert path.startswith("/distributed/v2/")
        ids.append(operation["operationId"])
        assert operation["summary"] and operation["tags"][0] in {tag["name"] for tag in document["tags"]}
        in_path = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert in_path == re.findall(r"\{(\w+)\}", path)
        assert all(one["required"] for one in operation["parameters"] if one["in"] == "path")
        assert len([status for status in operation["responses"] if status.startswith("2")]) == 1
        assert ("requestBody" in operation) == (method in {"post", "patch"})
        for status, response in operation["responses"].items():
            assert response["description"].strip()
            schema = response["content"]["application/json"]["schema"]
            if not status.startswith("2"):
                assert schema == {"$ref": openapi.SCHEMAS + "ErrorBody"}
    assert len(ids) == len(set(ids))


def test_a_change_tells_of_every_way_to_refuse_it(document: dict[str, Any]) -> None:
    responses = document["paths"]["/distributed/v2/workers/{id}"]["patch"]["responses"]
    assert set(responses) == {"200", "400", "403", "404", "409", "413", "500"}


def test_a_patch_requires_nothing_and_shows_no_defaults(document: dict[str, Any]) -> None:
    for name in ("WorkerPatch", "SettingsPatch"):
        schema = document["components"]["schemas"][name]
        assert "required" not in schema
        assert not [field for field in schema["properties"].values() if "default" in field]
    assert document["components"]["schemas"]["WorkerIn"]["required"] == ["address"]


def test_answers_promise_all_their_fields(document: dict[str, Any]) -> None:
    for name in ("WorkerOut", "JobDetail", "SystemOut", "SettingsOut", "ErrorBody", "ErrorInfo"):
        schema = document["components"]["schemas"][name]
        assert sorted(schema["required"]) == sorted(schema["properties"]), name


def test_query_parameters_have_their_bounds(document: dict[str, Any]) -> None:
    parameters = {one["name"]: one for one in document["paths"]["/distributed/v2/jobs"]["get"]["parameters"]}
    assert set(parameters) == {"state", "participant", "since_s", "until_s", "text", "limit", "offset"}
    limit = parameters["limit"]["schema"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 200, 50)
