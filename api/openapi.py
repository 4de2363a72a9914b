"""One table of routes, from which both the routes and the OpenAPI document are made, so that they cannot disagree."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from ..utils.errors import FlotillaError, InvalidInput, NotAllowed, TooLarge
from ..utils.version import VERSION
from ..workers.entries import invalid_input
from .http import answers_errors, json_object, refuse_other_sites
from .services import Services
from .wire import ErrorBody, ErrorInfo

PREFIX = "/distributed/v2"
JSON_TYPE = "application/json"
SCHEMAS = "#/components/schemas/"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")

Method = Literal["GET", "POST", "PATCH", "DELETE"]


@dataclass(frozen=True)
class Call:
    """One request, checked: ``path`` holds the parts of the path by name, ``query`` and ``body`` are instances of the
    route's models (None where it has none)."""

    path: Mapping[str, str]
    query: Any = None
    body: Any = None


@dataclass(frozen=True)
class Route:
    """One route of the API. ``errors`` are those that ``handler`` raises; those of bad requests are added to them.

    A route with a ``body`` changes something and wants JSON; one without either reads (GET) or needs no more than its
    address (DELETE).
    """

    method: Method
    path: str
    summary: str
    handler: Callable[[Services, Call], Awaitable[BaseModel]]
    response: type[BaseModel]
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    errors: tuple[type[FlotillaError], ...] = ()
    status: int = web.HTTPOk.status_code
    tag: str = ""

    @property
    def path_names(self) -> list[str]:
        """The names of the variable parts of the path."""
        return _PLACEHOLDER.findall(self.path)

    @property
    def all_errors(self) -> list[type[FlotillaError]]:
        """What a caller may meet, ordered by status."""
        own: set[type[FlotillaError]] = {*self.errors, FlotillaError}
        if self.query is not None:
            own.add(InvalidInput)
        if self.method != "GET":
            own.add(NotAllowed)
        if self.body is not None:
            own |= {InvalidInput, TooLarge}
        return sorted(own, key=lambda error: (error.status, error.code))

    def matches(self, path: str) -> bool:
        """Whether a request's path is this route's, whatever its method."""
        return re.fullmatch(_PLACEHOLDER.sub("[^/]+", self.path), path) is not None


def add_routes(services: Services, table: Iterable[Route], routes: web.RouteTableDef) -> None:
    """Registers every route of ``table``."""
    for route in table:
        routes.route(route.method, route.path)(_web_handler(services, route))


def add_fallback(table: Sequence[Route], routes: web.RouteTableDef) -> None:
    """Answers what no route answers in the same shape as all other errors: 405 for a wrong method, else 404."""

    async def no_such_route(request: web.Request) -> web.StreamResponse:
        path = request.path[request.path.find(PREFIX) :]
        allowed = sorted({route.method for route in table if route.matches(path)})
        cure = "GET /distributed/v2/openapi.json lists all routes."
        if not allowed:
            error = ErrorInfo(code="not_found", message="There is no such route.", cure=cure)
            return _json(ErrorBody(error=error), web.HTTPNotFound.status_code)
        error = ErrorInfo(
            code="method_not_allowed",
            message=f"This route does not know {request.method}.",
            cure=cure,
            details={"allowed": allowed},
        )
        response = _json(ErrorBody(error=error), web.HTTPMethodNotAllowed.status_code)
        response.headers["Allow"] = ", ".join(allowed)
        return response

    routes.route("*", PREFIX + "/{rest:.*}")(no_such_route)


def document(table: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of ``table``."""
    refs, schemas = _schemas(table)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flotilla",
            "version": VERSION,
            "summary": "Several ComfyUI servers as one: jobs, items, workers.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}, {"url": "/api"}],
        "tags": [{"name": name} for name in dict.fromkeys(route.tag for route in table)],
        "paths": paths,
        "components": {"schemas": schemas},
    }


# Requests


def _web_handler(services: Services, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    @answers_errors()
    async def handle(request: web.Request) -> web.StreamResponse:
        query = _read_query(request, route.query)
        body = await _read_body(request, route)
        answer = await route.handler(services, Call(request.match_info, query, body))
        return _json(answer, route.status)

    return handle


def _read_query(request: web.Request, model: type[BaseModel] | None) -> BaseModel | None:
    if model is None:
        return None
    given = dict(request.query)
    if len(given) != len(request.query):
        raise InvalidInput("A query parameter is given twice.", cure="Give each one once.")
    return _checked(model, given, "The query")


async def _read_body(request: web.Request, route: Route) -> BaseModel | None:
    if route.body is not None:
        return _checked(route.body, await json_object(request), "The body")
    if route.method != "GET":
        refuse_other_sites(request)
    return None


def _checked(model: type[BaseModel], value: dict[str, Any], what: str) -> BaseModel:
    """Raises InvalidInput that names every wrong field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_input(what, error) from None


def _json(answer: BaseModel, status: int) -> web.Response:
    return web.Response(text=answer.model_dump_json(), status=status, content_type=JSON_TYPE)


# The document

_Refs = dict[tuple[type[BaseModel], JsonSchemaMode], dict[str, Any]]


def _schemas(table: Sequence[Route]) -> tuple[_Refs, dict[str, Any]]:
    """References to the models of all routes, and the schemas that they lead to."""
    models: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(ErrorBody, "serialization"): None}
    for route in table:
        models[(route.response, "serialization")] = None
        for sent in (route.body, route.query):
            if sent is not None:
                models[(sent, "validation")] = None
    refs, definitions = models_json_schema(list(models), ref_template=SCHEMAS + "{model}")
    named = dict(definitions["$defs"])
    for route in table:
        if route.query is not None:  # its fields stand as parameters at the route
            named.pop(refs[(route.query, "validation")]["$ref"].removeprefix(SCHEMAS), None)
    return {key: refs[key] for key in models}, named


def _operation(route: Route, refs: _Refs) -> dict[str, Any]:
    responses: dict[str, Any] = {
        str(route.status): {
            "description": _first_line(route.response),
            "content": {JSON_TYPE: {"schema": refs[(route.response, "serialization")]}},
        }
    }
    for error in route.all_errors:
        name = f"`{error.code}`: {_first_line(error)}"
        same_status = responses.setdefault(
            str(error.status),
            {"description": "", "content": {JSON_TYPE: {"schema": refs[(ErrorBody, "serialization")]}}},
        )
        same_status["description"] = " ".join(part for part in (same_status["description"], name) if part)
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": responses,
    }
    if route.body is not None:
        schema = refs[(route.body, "validation")]
        operation["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
    return operation


def _first_line(documented: type) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.path_names]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = route.query.model_json_schema(ref_template=SCHEMAS + "{model}")
    return [
        {"name": name, "in": "query", "required": False, "schema": field}
        for name, field in schema["properties"].items()
    ]
