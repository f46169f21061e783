"""The one form of all errors: a status, a code for programs, and a message for people."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from flaxbert.server.forms import Strict

SHOWN = 3
"""Problems of a request that a message lists."""

CODES = {
    400: ("malformed_json", "The body is not JSON in UTF-8."),
    404: ("not_found", "There is no such path. GET /openapi.json describes all."),
    405: ("method_not_allowed", "The path does not allow this method."),
    408: ("request_timeout", "The request arrived too slowly."),
    413: ("body_too_large", "The body is too large."),
    415: ("unsupported_media_type", "The body must have Content-Type: application/json."),
    422: (
        "invalid_request",
        "The request does not fit the schema, or an input cannot be used.",
    ),
    500: ("internal_error", "The server failed. Its log has the details."),
    503: ("unavailable", "The server is starting, stopping or busy. Try again later."),
    504: ("timeout", "The result was not ready in time."),
}
"""{status: its code and the default message}."""


class ErrorDetail(Strict):
    """What is wrong."""

    code: str = Field(description="one code for each status and cause")
    message: str = Field(description="what is wrong, and how to fix it")


class ErrorBody(Strict):
    """The body of every response with an error."""

    error: ErrorDetail


class ApiError(Exception):
    """An error that is the response to a request."""

    def __init__(self, status: int, message: str = "", *, code: str = "", retry: int = 0):
        """Create an error.

        Args:
          status: one of CODES.
          message: what is wrong; by default that of the status.
          code: by default that of the status.
          retry: seconds after which to try again; 0 sends no such header.
        """
        default_code, default_message = CODES[status]
        super().__init__(message or default_message)
        self.status, self.code, self.retry = status, code or default_code, retry

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        return {"Retry-After": str(self.retry)} if self.retry else {}

    def body(self) -> dict[str, Any]:
        """Return the body of the response."""
        return {"error": {"code": self.code, "message": str(self)}}

    def encoded(self) -> bytes:
        """Return the body as JSON."""
        return json.dumps(self.body()).encode()


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses with errors for the OpenAPI schema."""
    return {status: {"model": ErrorBody, "description": CODES[status][1]} for status in statuses}


def install(app: FastAPI) -> None:
    """Make an app answer all errors in the one form."""
    app.add_exception_handler(ApiError, _respond)
    app.add_exception_handler(RequestValidationError, _respond_to_invalid)
    app.add_exception_handler(HTTPException, _respond_to_http)
    app.add_exception_handler(Exception, _respond_to_unexpected)


def _response(error: ApiError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    merged = {**error.headers, **(headers or {})}
    return JSONResponse(error.body(), status_code=error.status, headers=merged)


async def _respond(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return _response(error)


async def _respond_to_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code if error.status_code in CODES else 400
    return _response(ApiError(status), error.headers)


async def _respond_to_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = list(error.errors())
    if problems and problems[0]["type"] == "json_invalid":
        return _response(ApiError(400, f"The body is not JSON: {problems[0]['ctx']['error']}."))
    lines = [f"{_place(problem['loc'])}: {problem['msg']}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"and {len(problems) - SHOWN} more")
    return _response(ApiError(422, "; ".join(lines)))


async def _respond_to_unexpected(request: Request, error: Exception) -> JSONResponse:
    return _response(ApiError(500))


def _place(location: tuple[str | int, ...]) -> str:
    """Return where a problem is, such as inputs.2.question; indices count from 0."""
    return ".".join(map(str, location[1:])) or "body"
