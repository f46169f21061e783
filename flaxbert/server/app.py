"""The HTTP API and the page, as an ASGI app."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import Field

from flaxbert.errors import DataError
from flaxbert.runtime import hardware
from flaxbert.server import errors, metrics, page
from flaxbert.server.batcher import ClosedError, InputError, QueueFullError
from flaxbert.server.errors import ApiError
from flaxbert.server.forms import MOST_ANSWERS, Strict, integer, list_of, model
from flaxbert.server.limits import Guard
from flaxbert.server.service import Key, Service, State

RETRY_SECONDS = 1
"""After this time, a client may try again: a queue empties in seconds."""

PLAIN = "text/plain"


class Status(Strict):
    """The state of the server."""

    status: str = Field(description="alive or ready")


class ModelLimits(Strict):
    """The limits of requests."""

    inputs: int = Field(description="most inputs of a request")
    characters: int = Field(description="longest text")
    body_bytes: int = Field(description="largest body")
    seconds: float = Field(description="longest time for a response")


class ModelInfo(Strict):
    """The model that is served."""

    model: str
    task: str
    labels: list[str] = Field(description="names of labels; empty for tasks without labels")
    max_length: int = Field(description="tokens of the longest sequence")
    devices: str
    dtype: str = Field(description="type of the arithmetic")
    limits: ModelLimits
    versions: dict[str, str]


class Token(Strict):
    """A token of the model's input."""

    token: str
    id: int
    type: int = Field(description="0 in the first text, 1 in the second")


class Tokens(Strict):
    """The tokens of an input."""

    sequences: list[list[Token]] = Field(description="one sequence, or one for each window")
    truncated: bool = Field(description="whether the text was cut")


def make_app(service: Service) -> Guard:
    """Return the app that serves a predictor, with its limits and metrics."""
    app = FastAPI(
        title="flaxbert",
        version=hardware.version("flaxbert") or "unknown",
        description=f"Predictions of {service.name} ({service.predictor.pipeline.task_name}).",
        docs_url=None,  # their pages load scripts from another host
        redoc_url=None,
    )
    errors.install(app)
    _add_status(app, service)
    _add_predict(app, service)
    _add_tokens(app, service)
    html = page.make_page(service)

    async def index(request: Request) -> Response:
        language = page.language_of(request.headers.get("accept-language", ""))
        return HTMLResponse(html[language], headers=page.HEADERS)

    app.add_api_route("/", index, include_in_schema=False)
    paths = {route.path for route in app.routes if hasattr(route, "path")}
    return Guard(app, service.limits, paths, service.metrics.request)


def _add_status(app: FastAPI, service: Service) -> None:
    """Add what says how the server is, and what it serves."""

    async def describe() -> Any:
        return service.describe()

    async def health() -> Any:
        if not service.batcher.alive:
            raise ApiError(500, ENDED)
        return {"status": "alive"}

    async def ready() -> Any:
        _require_ready(service)
        return {"status": "ready"}

    async def prometheus() -> Response:
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    routes: list[tuple[str, Callable[..., Any], Any, str, Sequence[int]]] = [
        ("/v1/model", describe, ModelInfo, "Describe the model", ()),
        ("/health", health, Status, "Return whether the process works", (500,)),
        ("/ready", ready, Status, "Return whether predictions are answered now", (503,)),
    ]
    for path, endpoint, kind, summary, failing in routes:
        responses = errors.responses(*failing)
        app.add_api_route(path, endpoint, response_model=kind, summary=summary, responses=responses)
    text = {200: {"content": {PLAIN: {"schema": {"type": "string"}}}, "description": "metrics"}}
    app.add_api_route(
        "/metrics",
        prometheus,
        response_class=Response,
        responses=text,
        summary="Return metrics for Prometheus",
    )


ENDED = "The thread that computes has ended. Restart the server."

FAILING = (400, 408, 413, 415, 422, 500, 503, 504)
"""Statuses of requests that compute something."""


def _add_predict(app: FastAPI, service: Service) -> None:
    form, most = service.form, service.limits.most_inputs
    fields: dict[str, Any] = {"inputs": list_of(form.input, min_length=1, max_length=most)}
    if form.has_top_k:
        fields["top_k"] = (integer("answers for each input", ge=1, le=MOST_ANSWERS), 1)
    body_type = model("PredictRequest", "Inputs to predict for.", **fields)
    predictions = list_of(form.prediction, description="one for each input")
    response_type = model("PredictResponse", "The predictions.", predictions=predictions)

    async def predict(body: body_type) -> Any:  # type: ignore[valid-type]
        given = [form.to_input(item) for item in body.inputs]  # type: ignore[attr-defined]
        key = Key("predict", getattr(body, "top_k", 1))
        return {"predictions": await _computed(service, key, given)}

    app.add_api_route(
        "/v1/predict",
        predict,
        methods=["POST"],
        response_model=response_type,
        response_model_exclude_unset=True,
        responses=errors.responses(*FAILING),
        summary="Predict for each input",
    )


def _add_tokens(app: FastAPI, service: Service) -> None:
    form = service.form
    body_type = model("TokensRequest", "An input to tokenize.", input=form.input)

    async def tokens(body: body_type) -> Any:  # type: ignore[valid-type]
        given = [form.to_input(body.input)]  # type: ignore[attr-defined]
        return (await _computed(service, Key("tokens"), given))[0]

    app.add_api_route(
        "/v1/tokens",
        tokens,
        methods=["POST"],
        response_model=Tokens,
        responses=errors.responses(*FAILING),
        summary="Return the tokens that the model receives for an input",
    )


def _require_ready(service: Service) -> None:
    """Raise unless the server answers predictions now."""
    if service.ready:
        return
    ended = service.state is State.READY
    problem = ENDED if ended else f"The server is {service.state.value}."
    raise ApiError(503, problem, retry=RETRY_SECONDS)


async def _computed(service: Service, key: Key, inputs: Sequence[Any]) -> list[Any]:
    """Return the results for inputs, as soon as the batches that hold them are computed.

    Raises:
      ApiError: if the server is not ready or busy, an input is bad, or it takes too long.
    """
    _require_ready(service)
    try:
        pending = service.submit(key, inputs)
    except QueueFullError:
        message = "Too many inputs wait. Try again later."
        raise ApiError(503, message, code="queue_full", retry=RETRY_SECONDS) from None
    except ClosedError:
        raise ApiError(503, "The server is stopping.", retry=RETRY_SECONDS) from None
    seconds = service.limits.seconds
    try:
        return await asyncio.wait_for(asyncio.wrap_future(pending), seconds)
    except TimeoutError:
        raise ApiError(504, f"The result was not ready within {seconds:g} s.") from None
    except InputError as error:
        if not isinstance(error.reason, DataError):
            raise ApiError(500) from error
        raise ApiError(422, _message(key, error)) from None


def _message(key: Key, error: InputError) -> str:
    """Return the message of a bad input, which was computed alone, with its place in the body."""
    place = "input" if key.work == "tokens" else f"inputs.{error.index}"
    return f"{place}: {str(error.reason).removeprefix('inputs:1: ')}"
