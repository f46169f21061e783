"""Notebooks, with a fake IPython: the bar, the log, interrupts and the result."""

import logging
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from made_runs import SCRIPT, write_run

from flaxbert.errors import ConfigError, Preempted
from flaxbert.report import result
from flaxbert.report.result import Trained
from flaxbert.runtime import notebook
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.progress import Progress, is_watched, show


class Handle:
    """What a notebook shows in one place: its versions, the last one is visible."""

    def __init__(self, bundle: dict[str, str]):
        self.versions = [bundle]

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.versions.append(bundle)


@pytest.fixture
def displays(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    """What is displayed in a fake notebook; every change is drawn."""
    displays: list[Handle] = []

    def display(bundle: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert raw
        assert display_id
        displays.append(Handle(bundle))
        return displays[-1]

    shell = types.SimpleNamespace(kernel=object())
    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    ipython.display = types.SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    monkeypatch.setattr(notebook.Bar, "SECONDS_BETWEEN_UPDATES", -1.0)
    return displays


def test_a_terminal_with_ipython_is_no_notebook(displays, monkeypatch):
    assert notebook.available()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: object())
    assert not notebook.available()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert not notebook.available()


def test_bar_is_one_display_and_escapes_its_text(displays):
    bar = Progress("train", 4)
    bar.note = "loss <b>"
    bar.advance()
    bar.advance(3)
    bar.close()
    (display,) = displays
    shown = [bundle["text/plain"].split("  ")[0] for bundle in display.versions]
    assert shown == ["train 0/4", "train 1/4", "train 4/4", "train 4/4"]
    assert " left" in display.versions[1]["text/plain"]
    assert " left" not in display.versions[-1]["text/plain"]
    assert "loss &lt;b&gt;" in display.versions[-1]["text/html"]
    assert 'value="4" max="4"' in display.versions[-1]["text/html"]


def test_explanations_are_shown_to_the_person_at_the_notebook(displays, capsys):
    assert is_watched()
    show("A sentence.")
    assert capsys.readouterr() == ("A sentence.\n", "")


def test_bar_of_an_evaluation_is_below_that_of_training_and_vanishes(displays):
    outer, inner = Progress("train", 2), Progress("evaluate", 8)
    inner.advance()
    outer.advance()
    (display,) = displays
    assert [line.split("  ")[0] for line in display.versions[-1]["text/plain"].splitlines()] == [
        "train 1/2",
        "evaluate 1/8",
    ]
    inner.close()
    assert "evaluate" not in display.versions[-1]["text/html"]
    outer.close()
    inner.advance()  # closed: no effect, and no error
    Progress("evaluate", 8).close()
    assert len(displays) == 2


def test_bar_that_an_interrupt_left_open_does_not_keep_its_display(displays):
    with notebook.session():
        Progress("train", 2)
    Progress("train", 2).close()
    assert len(displays) == 2


def test_log_is_visible_in_a_session_only(displays, capsys):
    log = logging.getLogger("flaxbert")
    log.handlers, log.level = [], logging.NOTSET
    for _ in range(2):
        with notebook.session(), notebook.session():
            log.info("a line")
            log.warning("a warning")
        log.info("not shown")
    assert capsys.readouterr().out == "a line\na warning\n" * 2
    assert (log.handlers, log.level, log.propagate) == ([], logging.NOTSET, True)


def test_logging_that_is_set_up_stays_as_it_is(displays, capsys):
    log = logging.getLogger("flaxbert")
    log.setLevel(logging.WARNING)
    with notebook.session():
        log.info("not shown")
        assert (log.handlers, log.level) == ([], logging.WARNING)
    assert capsys.readouterr().out == ""


def press_stop() -> None:
    """Call the handler. A signal would also reach the listeners that other tests have started."""
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    handler(signal.SIGINT, None)


def test_interrupt_is_a_request_while_there_is_something_to_save(displays):
    before = signal.getsignal(signal.SIGINT)
    preemption = Preemption()
    with notebook.session(preemption):
        with preemption.holding():
            assert not preemption.requested()
            press_stop()
            assert preemption.requested()
            with pytest.raises(KeyboardInterrupt):
                press_stop()
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_interrupt_with_nothing_to_save_is_an_interrupt(displays, capsys):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), notebook.session(Preemption()):
        press_stop()
    assert signal.getsignal(signal.SIGINT) == before
    assert "nothing to save); run this cell again to continue" in capsys.readouterr().out


def test_outside_a_notebook_nothing_changes():
    before = signal.getsignal(signal.SIGINT)
    log = logging.getLogger("flaxbert")
    handlers = list(log.handlers)
    with notebook.session(Preemption()):
        assert signal.getsignal(signal.SIGINT) == before
        assert log.handlers == handlers


def test_errors_show_their_message_in_a_notebook():
    assert ConfigError("a: b")._render_traceback_() == ["ConfigError: a: b"]
    assert "run this cell again" in Preempted("stopped")._render_traceback_()[1]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (65, "1:05"), (7265, "2:01:05")]
)
def test_times(seconds: float, text: str) -> None:
    assert notebook.clock_time(seconds) == text


def trained(workdir: Path, **results: float) -> Trained:
    files = result.read_run(workdir)
    pipeline: Any = None
    return Trained(dict(files.results) | results, pipeline, (), [], workdir)


def test_result_shows_metrics_curves_errors_and_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a run").mkdir()
    shown = trained(write_run(Path("a run"), "classification"))
    page = shown._repr_html_()
    for part in ("0.800", "95 % interval", "baseline", "Most wrong", 'href="a%20run/report.html"'):
        assert part in page
    assert page.count("<figure>") == 2
    assert SCRIPT not in page
    assert " id=" not in page  # two results in a notebook would share it
    assert "html" not in page.partition(">")[0]  # a part of a page, not a page
    assert str(tmp_path) not in page


def test_style_of_a_result_is_only_its_own():
    style = result.IN_A_NOTEBOOK
    assert style.count("{") == style.count("}")
    depth, heads, rule = 0, [], ""
    for character in style:
        if depth == 0 and character == "{":
            heads.append(rule.strip())
        depth += {"{": 1, "}": -1}.get(character, 0)
        rule = "" if character in "{}" else rule + character
    assert heads
    assert all(part.endswith(".flaxbert") for head in heads for part in head.split(","))


def test_result_in_a_console_is_short_text(tmp_path):
    shown = trained(write_run(tmp_path, "classification"))
    assert repr(shown).splitlines() == [
        f"Run in {tmp_path}, 20 steps",
        "  loss        0.500",
        "  accuracy    0.800  (95 %: 0.600 to 0.900)",
        f"  report: {tmp_path / 'report.html'}",
    ]


def test_result_whose_files_are_of_another_run_is_text(tmp_path, caplog):
    workdir = write_run(tmp_path, "classification")
    assert trained(workdir, accuracy=0.9)._repr_html_() is None
    shown = trained(workdir)
    (workdir / "results.json").unlink()
    assert shown._repr_html_() is None
    assert "cannot be shown (WorkdirError: " in caplog.text
