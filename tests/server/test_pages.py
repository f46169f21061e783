"""The page: one file, safe against texts that are code, and complete in every language."""

import base64
import hashlib
import json
import re
import types
from typing import Any

import pytest

from flaxbert.server import page
from flaxbert.server.messages import EXAMPLES, MESSAGES
from flaxbert.server.service import Limits

HOSTILE = '</script><img src=x onerror="alert(1)"><!--'


def make_page(name: str = "toy", kind: str = "text") -> dict[str, str]:
    task = types.SimpleNamespace(task_name="classification")
    form = types.SimpleNamespace(kind=kind, fields=["text"], has_top_k=False)
    predictor = types.SimpleNamespace(pipeline=task)
    service: Any = types.SimpleNamespace(predictor=predictor, form=form, name=name, limits=Limits())
    return page.make_page(service)


def test_the_page_needs_no_other_file_and_allows_no_other_script() -> None:
    html = make_page()["en"]
    assert re.findall(r"(?:src|href)=\"([^\"]*)\"", html) == ["data:,", "openapi.json", "metrics"]
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert not re.search(r"<[^>]+\s(?:style|on\w+)=", html)
    policy = page.HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for name in ("style", "script"):
        (content,) = re.findall(rf"<{name}>(.*?)</{name}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_texts_cannot_become_code() -> None:
    html = make_page(HOSTILE)["en"]
    assert "<img" not in html
    assert html.count("<script") == html.count("</script>") == 2
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    assert json.loads(data)["model"] == HOSTILE
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert sink not in page.SCRIPT


def test_every_language_has_every_text() -> None:
    first, *others = MESSAGES.values()
    assert len(others) == 1
    for other in others:
        assert list(other) == list(first)
        assert all(other.values())
        for key, text in first.items():  # the same places to fill in
            assert set(re.findall(r"\{\w+\}", other[key])) == set(re.findall(r"\{\w+\}", text))
    assert list(EXAMPLES) == list(MESSAGES)
    english = {kind: list(fields) for kind, fields in EXAMPLES["en"].items()}
    assert all({k: list(v) for k, v in kinds.items()} == english for kinds in EXAMPLES.values())


def test_every_text_of_the_page_exists_and_is_used() -> None:
    html = page._file("page.html")
    used = set(re.findall(r'data-message="(\w+)"', html))
    used |= set(re.findall(r'message\("(\w+)"', page.SCRIPT))
    fields = {name for example in EXAMPLES["en"].values() for name in example}
    tasks = {"classification", "multi_label", "regression", "multiple_choice",
             "question_answering", "token_classification"}  # fmt: skip
    assert set(MESSAGES["en"]) == used | fields | tasks | {"name", "no_script"}


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("es", "es"),
        ("es-MX,es;q=0.9,en;q=0.8", "es"),
        ("de, en;q=0.4, es;q=0.5", "es"),
        ("en-US,en;q=0.9,es;q=0.8", "en"),
        ("es;q=0, fr", "en"),
        ("ES;q=nonsense", "en"),
        ("*", "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_prefers(header: str, language: str) -> None:
    assert page.language_of(header) == language
    assert f'<html lang="{language}">' in make_page()[language]
