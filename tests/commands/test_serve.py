"""flaxbert serve: its flags, and its errors before a model is loaded."""

import importlib.util

import pytest

from flaxbert.commands import serve


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch-size=0"], "--batch-size=0: expected at least 1."),
        (["--max-wait-ms=-1"], "--max-wait-ms=-1.0: expected at least 0."),
        (["--max-wait-ms=inf"], "--max-wait-ms=inf: expected at most 86400000."),
        (["--timeout=inf"], "--timeout=inf: expected at most 86400."),
        (["--timeout=nan"], "--timeout=nan: expected at least 0.001."),
        (["--port=70000"], "--port=70000: expected a number from 0 to 65535."),
        (["--port=0", "--host=no host"], "--host=no host --port=0: "),
    ],
)
def test_bad_flags_are_one_error(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.main(["runs/none", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}")
    assert len(captured.err.splitlines()) == 1


def test_missing_packages_name_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert serve.main(["runs/none"]) == 2
    assert 'pip install "flaxbert[serve]"' in capsys.readouterr().err


def test_clients_see_no_directories(tmp_path: object) -> None:
    assert serve._name_of(f"{tmp_path}") == str(tmp_path).rpartition("/")[2]
    assert serve._name_of("user/model") == "user/model"
