"""The management API on aiohttp: who is calling, whether they may, what they sent, and every refusal in one shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ValidationError

from common.errors import FedfabError
from common.validation import Finding, findings
from coordinator.api import OPERATIONS, Services
from coordinator.errors import ConflictError, CoordinatorError, ForbiddenError, InvalidError, NotFoundError
from coordinator.operations import FieldProblem, Inputs, Operation, Problem
from trust.errors import TrustError
from trust.identity import Peer, TrustStore
from trust.tls import peer

log = structlog.get_logger()

_STATUS: dict[type[CoordinatorError], HTTPStatus] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    InvalidError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ForbiddenError: HTTPStatus.FORBIDDEN,
}
_Model = TypeVar("_Model", bound=BaseModel)
_CALLER = web.RequestKey("caller", Peer)


def application(services: Services, trust: TrustStore) -> web.Application:
    """The API as an application to mount under `operations.PREFIX`, for connections whose certificates ``trust`` judges.

    The largest body it takes is that of the application it is mounted in.
    """
    app = web.Application(middlewares=[_problems, _operators_only(trust)])
    for operation in OPERATIONS:
        app.router.add_route(operation.method, operation.path, _handler(operation, services))
    return app


def _handler(operation: Operation[Services, Any], services: Services) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        inputs = await _inputs(operation, request)
        answer = await operation.handle(services, request[_CALLER], inputs)
        if isinstance(answer, BaseModel):
            return web.Response(
                status=operation.status, body=answer.model_dump_json().encode(), content_type="application/json"
            )
        return web.Response(status=operation.status, body=answer, content_type="application/octet-stream")

    return handle


async def _inputs(operation: Operation[Services, Any], request: web.Request) -> Inputs:
    """Path, query and body, checked. A parameter given twice is refused as the list it is."""
    values: dict[str, object] = {
        name: given[0] if len(given := request.query.getall(name)) == 1 else given for name in request.query
    }
    values |= request.match_info
    if operation.body is not None:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text=f'expected application/json, got "{request.content_type}"')
        raw = await request.read()
        values["body"] = _checked(operation.body, lambda model: model.model_validate_json(raw, strict=True))
    inputs: Inputs = _checked(operation.inputs, lambda model: model.model_validate(values))
    return inputs


def _checked(model: type[_Model], validate: Callable[[type[_Model]], _Model]) -> _Model:
    try:
        return validate(model)
    except ValidationError as error:
        raise InvalidError(list(findings(model, error))) from error


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _problem(error.status, "FF-COORD-001", error.text or error.reason, allow=error.headers.get("Allow"))
    except InvalidError as error:
        return _problem(_STATUS[InvalidError], error.code, error.message, hint=error.hint, findings=error.findings)
    except (NotFoundError, ConflictError, ForbiddenError) as error:
        return _problem(_STATUS[type(error)], error.code, error.message, hint=error.hint)
    except FedfabError as error:
        log.error("a call failed", method=request.method, path=request.path, error=str(error))
        return _problem(500, error.code, error.message, hint=error.hint)
    except Exception:
        log.exception("a call failed", method=request.method, path=request.path)
        return _problem(500, "FF-COORD-002", "the coordinator met an error of its own", hint="its log has the details")


def _operators_only(trust: TrustStore) -> Middleware:
    """Deny by default: no path of this application, known or not, answers anyone but an operator."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            caller = peer(request.transport, trust)
        except TrustError as error:
            raise ForbiddenError(error.code, error.message, hint=error.hint) from error
        if caller.role != "operator":
            raise ForbiddenError(
                "FF-COORD-003",
                f'"{caller.name}" has the role {caller.role}; only an operator may call the management API',
                hint="use a certificate of `fedfab pki issue --role operator`",
            )
        request[_CALLER] = caller
        return await handler(request)

    return guard


def _problem(
    status: int, code: str, detail: str, *, hint: str = "", findings: Sequence[Finding] = (), allow: str | None = None
) -> web.Response:
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        hint=hint,
        errors=[
            FieldProblem(
                field=".".join(map(str, each.where)), expected=each.expected, got=each.got, nearest=each.nearest
            )
            for each in findings
        ],
    )
    return web.Response(
        status=status,
        body=problem.model_dump_json().encode(),
        content_type="application/problem+json",
        headers={"Allow": allow} if allow else None,
    )
