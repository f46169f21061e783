"""The page on which a person tries the model: one HTML file without other resources."""

import base64
import hashlib
import json
import re
from importlib import resources

from flaxbert.report.html import tag
from flaxbert.report.style import COLORS
from flaxbert.server.messages import EXAMPLES, MESSAGES
from flaxbert.server.service import Service

LANGUAGES = tuple(MESSAGES)


def _file(name: str) -> str:
    return resources.files("flaxbert.server").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """Return a source expression of a content security policy (CSP level 2)."""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


STYLE = COLORS + _file("page.css")
SCRIPT = _file("page.js")

POLICY = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Language",
}
"""The headers of the page: the browser runs no other script, and sends text to this server only."""


def make_page(service: Service) -> dict[str, str]:
    """Return the page in each language: {language: HTML}."""
    pipeline, form = service.predictor.pipeline, service.form
    data = {
        "task": pipeline.task_name,
        "model": service.name,
        "kind": form.kind,
        "fields": form.fields,
        "topK": form.has_top_k,
        "characters": service.limits.characters,
        "messages": MESSAGES,
        "examples": {language: EXAMPLES[language][form.kind] for language in LANGUAGES},
    }
    return {language: _render(data | {"language": language}) for language in LANGUAGES}


def _render(data: dict[str, object]) -> str:
    """Return the page for its data."""
    language = str(data["language"])
    # In a script element only "<" could end it, or open a comment.
    embedded = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    parts = {
        "LANGUAGE": language,
        "TITLE": tag("title", f"{data['model']} · flaxbert"),
        "NO_SCRIPT": tag("noscript", tag("p", MESSAGES[language]["no_script"])),
        "STYLE": STYLE,
        "DATA": embedded,
        "SCRIPT": SCRIPT,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: str(parts[match[1]]), _file("page.html"))


def language_of(header: str) -> str:
    """Return the language of the page for a request.

    Args:
      header: the value of Accept-Language (RFC 9110, section 12.5.4), such as "es-MX, en;q=0.8".
    """
    best, chosen = 0.0, LANGUAGES[0]
    for item in header.split(","):
        name, _, parameters = item.strip().partition(";")
        quality = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", parameters)
        weight = float(quality[1]) if quality else 0.0 if parameters else 1.0
        language = name.partition("-")[0].strip().lower()
        if language in LANGUAGES and weight > best:
            best, chosen = weight, language
    return chosen
