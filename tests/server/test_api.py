"""The API: predictions are those of Python, and every error has one form."""

import asyncio
import copy
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from http_calls import Answer, call, call_all, make_predictor, make_service, send
from test_predictor import assert_equal

from flaxbert.config import DataConfig
from flaxbert.errors import ConfigError
from flaxbert.pipeline.predictor import Predictor
from flaxbert.server.app import make_app
from flaxbert.server.forms import form_of
from flaxbert.server.service import Limits, Service, State
from flaxbert.tasks.pretraining import PreTraining, PreTrainingOptions

pytestmark = pytest.mark.usefixtures("one_device")

LONG = "the film was good and the food is bad and it was very old " * 2

# Of each task: an input of the API, and the same in Python.
INPUTS: dict[str, list[tuple[Any, Any]]] = {
    "multi_label": [("the film was good", "the film was good"), ("", "")],
    "regression": [({"text": "good", "pair": "the film"}, ("good", "the film"))],
    "multiple_choice": [
        (
            {"question": "where is it?", "choices": ["paris", "the old film", "he"]},
            {"question": "where is it?", "choices": ["paris", "the old film", "he"]},
        )
    ],
    "question_answering": [
        ({"question": "who?", "context": "the king is in paris"}, ("who?", "the king is in paris")),
        ({"question": "where?", "context": LONG}, ("where?", LONG)),
    ],
    "token_classification": [
        ("the king visited paris.", "the king visited paris."),
        (["the", "king"], ["the", "king"]),
    ],
}


@pytest.fixture(scope="module")
def predictor(
    one_device: None, one_layer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Predictor:
    return make_predictor("classification", one_layer, tmp_path_factory.mktemp("texts"), 64)


@pytest.fixture(scope="module")
def served(predictor: Predictor) -> tuple[Service, Any]:
    predictor.compile([["a"]], batch_size=1)
    return make_service(predictor, body_bytes=2000, characters=1000)


def without_shapes(predictor: Predictor) -> Predictor:
    """Return the predictor as `flaxbert.load` returns it, before `compile`."""
    plain = copy.copy(predictor)
    plain._step, plain._shapes = predictor._jitted, None
    return plain


def predict(app: Any, *inputs: Any, **keys: Any) -> Answer:
    return call(app, "POST", "/v1/predict", {"inputs": list(inputs)} | keys)


# --- predictions ---------------------------------------------------------------------------------


def test_predictions_of_all_row_lengths_equal_those_of_python(
    predictor: Predictor, served: tuple[Service, Any]
) -> None:
    texts = ["good", "", LONG, "the film was very bad", "the food is old " * 50]
    plain = without_shapes(predictor)
    expected = plain.predict(texts)
    answer = predict(served[1], *texts)
    assert answer.status == 200
    assert_equal(answer.json["predictions"], expected)
    for text, prediction in zip(texts, expected, strict=True):  # alone, in shorter rows
        assert_equal(predict(served[1], text).json["predictions"], [prediction])
    assert predictor._shapes is not None
    assert predictor._shapes.row_lengths == [16, 64]


def test_requests_compile_nothing_once_the_server_is_ready(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("compiled")

    fresh = Predictor(predictor.config, predictor.pipeline, predictor.params)
    fresh._jitted = fail
    monkeypatch.setattr("flaxbert.pipeline.predictor.start_compiling", lambda *_: lambda: "ready")
    fresh.compile([["a"]], batch_size=2)
    with pytest.raises(TypeError, match="'str' object is not callable"):  # a compiled program
        fresh.predict(["good"])
    with pytest.raises(TypeError, match="'str' object is not callable"):
        fresh.predict([LONG] * 5)


@pytest.mark.parametrize("task", INPUTS)
def test_every_task_is_served(task: str, one_layer: Path, tmp_path: Path) -> None:
    predictor = make_predictor(task, one_layer, tmp_path)
    plain = without_shapes(predictor)
    service, app = make_service(predictor, batch_size=3)
    if task == "multiple_choice":  # its features have several sequences; compiling takes time
        predictor.compile(service.form.samples, batch_size=1)
    ours, theirs = zip(*INPUTS[task], strict=True)
    answer = predict(app, *ours)
    assert answer.status == 200, answer.body
    assert_equal(answer.json["predictions"], plain.predict(theirs))
    schema = call(app, "GET", "/openapi.json").json["components"]["schemas"]
    assert schema["PredictRequest"]["additionalProperties"] is False
    if task == "question_answering":
        answers = predict(app, ours[0], top_k=3).json["predictions"]
        assert_equal(answers, plain.predict(theirs[:1], top_k=3))
        too_long = {"question": "who " * 40, "context": "he"}
        refused = predict(app, ours[0], too_long)
        assert refused.error == (422, "invalid_request")
        assert refused.json["error"]["message"].startswith("inputs.1: the question has 40 tokens")
        assert predict(app, ours[0], top_k=3.0).json["predictions"] == answers  # JSON's integers
        for top_k in (0, 2.5, "3"):
            assert predict(app, ours[0], top_k=top_k).error == (422, "invalid_request")
        top_k = schema["PredictRequest"]["properties"]["top_k"]
        assert (top_k["type"], top_k["minimum"], top_k["maximum"]) == ("integer", 1, 20)
    else:
        assert predict(app, ours[0], top_k=1).error == (422, "invalid_request")


def test_concurrent_requests_share_batches(served: tuple[Service, Any]) -> None:
    answers = call_all(served[1], "/v1/predict", [{"inputs": [f"{n} good"]} for n in range(12)])
    assert [answer.json["predictions"][0]["text"] for answer in answers] == [
        f"{n} good" for n in range(12)
    ]
    text = call(served[1], "GET", "/metrics").body.decode()
    batches = float(text.partition("flaxbert_batch_inputs_count ")[2].split()[0])
    inputs = float(text.partition("flaxbert_batch_inputs_sum ")[2].split()[0])
    assert inputs > batches


def test_pretraining_is_refused() -> None:
    task = PreTraining(DataConfig(), PreTrainingOptions())
    with pytest.raises(ConfigError, match="PreTraining: has no predictions for single texts"):
        form_of(task, characters=10)


def test_tokens_are_those_that_the_model_receives(served: tuple[Service, Any]) -> None:
    answer = call(served[1], "POST", "/v1/tokens", {"input": "Good film zebra"}).json
    (sequence,) = answer["sequences"]
    assert [token["token"] for token in sequence[:4]] == ["[CLS]", "good", "film", "z"]
    assert sequence[4]["token"] == "##e"
    assert sequence[-1]["token"] == "[SEP]"
    assert answer["truncated"] is False
    assert call(served[1], "POST", "/v1/tokens", {"input": "old " * 80}).json["truncated"] is True


def test_schema_names_labels_and_limits(served: tuple[Service, Any]) -> None:
    schemas = call(served[1], "GET", "/openapi.json").json["components"]["schemas"]
    assert schemas["Prediction"]["properties"]["label"]["enum"] == ["negative", "positive"]
    inputs = schemas["PredictRequest"]["properties"]["inputs"]
    assert (inputs["minItems"], inputs["maxItems"]) == (1, 128)
    assert inputs["items"]["maxLength"] == 1000
    model = call(served[1], "GET", "/v1/model").json
    assert (model["task"], model["labels"]) == ("classification", ["negative", "positive"])
    assert model["max_length"] == 64


# --- errors --------------------------------------------------------------------------------------

LARGE = json.dumps({"inputs": ["a" * 3000]}).encode()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "expected"),
    [
        ("POST", "/v1/predict", b'{"inputs": [', None, (400, "malformed_json")),
        ("POST", "/v1/predict", b"\xff\xfe{", None, (400, "malformed_json")),
        ("POST", "/v1/predict", b"[" * 1900, None, (400, "malformed_json")),
        ("POST", "/v1/predict", {}, None, (422, "invalid_request")),
        ("POST", "/v1/predict", {"inputs": []}, None, (422, "invalid_request")),
        ("POST", "/v1/predict", {"inputs": ["a"] * 129}, None, (422, "invalid_request")),
        ("POST", "/v1/predict", {"inputs": ["a" * 1001]}, None, (422, "invalid_request")),
        ("POST", "/v1/predict", {"inputs": [3]}, None, (422, "invalid_request")),
        ("POST", "/v1/predict", {"inputs": ["\ud800"]}, None, (422, "invalid_request")),
        ("POST", "/v1/predict", {"inputs": ["a"], "x": 1}, None, (422, "invalid_request")),
        ("POST", "/v1/predict", None, None, (422, "invalid_request")),
        ("POST", "/v1/predict", LARGE, None, (413, "body_too_large")),
        ("POST", "/v1/predict", b"{}", {"content-type": "text/plain"},
         (415, "unsupported_media_type")),
        ("GET", "/v1/predict", None, None, (405, "method_not_allowed")),
        ("DELETE", "/v1/model", None, None, (405, "method_not_allowed")),
        ("GET", "/v2/predict", None, None, (404, "not_found")),
    ],
)  # fmt: skip
def test_errors_have_one_form(
    served: tuple[Service, Any], method: str, path: str, body: Any, headers: Any, expected: Any
) -> None:
    answer = call(served[1], method, path, body, headers)
    assert answer.error == expected
    assert ("allow" in answer.headers) == (answer.status == 405)


def test_a_body_that_never_ends_is_refused_in_time(predictor: Predictor) -> None:
    _, app = make_service(predictor, body_seconds=0.05)

    async def slow() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"a", "more_body": True}

    answer = call(app, "POST", "/v1/predict", headers={"content-length": "9999"}, receive=slow)
    assert answer.error == (408, "request_timeout")
    assert answer.headers["connection"] == "close"


def test_an_announced_body_that_is_too_large_is_not_asked_for(served: tuple[Service, Any]) -> None:
    async def never() -> dict[str, Any]:
        raise AssertionError("read")

    headers = {"content-length": "99999", "expect": "100-continue"}
    answer = call(served[1], "POST", "/v1/predict", headers=headers, receive=never)
    assert answer.error == (413, "body_too_large")


def test_busy_slow_and_stopping_servers_answer_at_once(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, app = make_service(predictor, queue=2, seconds=0.2)
    opened, entered = threading.Event(), threading.Event()

    def blocked(*_: Any) -> Any:
        entered.set()
        opened.wait(30)
        raise RuntimeError("internal")

    monkeypatch.setattr(predictor, "tokenize", blocked)

    async def requests() -> list[Answer]:
        body = {"inputs": ["good"]}
        first = asyncio.ensure_future(send(app, "POST", "/v1/predict", body))
        await asyncio.to_thread(entered.wait, 30)
        waiting = [asyncio.ensure_future(send(app, "POST", "/v1/predict", body)) for _ in range(2)]
        await asyncio.sleep(0)
        while service.batcher.waiting < 2:
            await asyncio.sleep(0.001)
        refused = await send(app, "POST", "/v1/predict", body)
        return [refused, await first, *[await each for each in waiting]]

    refused, *late = asyncio.run(requests())
    assert refused.error == (503, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert [answer.error for answer in late] == [(504, "timeout")] * 3
    opened.set()
    assert predict(app, "good").error == (500, "internal_error")
    assert call(app, "GET", "/ready").status == 200
    service.stop()
    for answer in (call(app, "GET", "/ready"), predict(app, "good")):
        assert answer.error == (503, "unavailable")
        assert "stopping" in answer.json["error"]["message"]
    assert call(app, "GET", "/health").json == {"status": "alive"}
    service.close()


def test_a_server_is_ready_when_everything_is_compiled(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "compile", lambda samples, batch_size: 0)
    service = Service("toy", predictor, Limits())
    app = make_app(service)
    assert service.state is State.STARTING
    assert call(app, "GET", "/ready").error == (503, "unavailable")
    assert predict(app, "good").headers["retry-after"] == "1"
    assert call(app, "GET", "/health").status == 200
    service.prepare()
    assert call(app, "GET", "/ready").json == {"status": "ready"}
    service.batcher.close()  # as if its thread had failed
    for answer in (call(app, "GET", "/ready"), predict(app, "good")):
        assert answer.error == (503, "unavailable")
        assert "has ended" in answer.json["error"]["message"]
    assert call(app, "GET", "/health").status == 500


def test_metrics_count_requests_by_known_paths(predictor: Predictor) -> None:
    _, app = make_service(predictor)
    predict(app, "good film", "bad")
    call(app, "GET", "/private/path")
    call(app, "BREW", "/health")
    answer = call(app, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    count = 'flaxbert_requests_total{method="POST",path="/v1/predict",status="200"} 1.0'
    assert count in lines
    assert 'flaxbert_requests_total{method="GET",path="other",status="404"} 1.0' in lines
    assert 'flaxbert_requests_total{method="other",path="/health",status="405"} 1.0' in lines
    assert "flaxbert_tokens_total 7.0" in lines  # [CLS] good film [SEP] [CLS] bad [SEP]
    assert "flaxbert_queue_inputs 0.0" in lines
    assert "flaxbert_ready 1.0" in lines
    assert "private" not in answer.body.decode()
