"""Notebooks (Jupyter, Colab, Kaggle): a progress bar, log lines and interrupts without set-up.

Nothing here happens in other processes, such as those of the command line.
"""

import contextlib
import html
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

from flaxbert.messages.language import tr
from flaxbert.runtime.preemption import Preemption
from flaxbert.runtime.terminal import Clipped

log = logging.getLogger("flaxbert")


def available() -> bool:
    """Return whether this process runs the cells of a notebook."""
    ipython: Any = sys.modules.get("IPython")  # a notebook has imported it
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None  # IPython in a terminal has no kernel


@contextlib.contextmanager
def session(preemption: Preemption | None = None) -> Iterator[None]:
    """Show log lines below the cell within the block, and leave nothing behind.

    Args:
      preemption: if given, an interrupt of the kernel saves the run; see `Preemption.interrupts`.
    """
    if not available():
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.callback(_drop_bars, len(_bars))
        stack.enter_context(_visible_log())
        if preemption is not None:
            stack.enter_context(preemption.interrupts())
        yield


@contextlib.contextmanager
def _visible_log() -> Iterator[None]:
    """Show the lines of flaxbert's logger, unless the program has set up logging itself.

    A handler of the root logger is no sign of that: Orbax's import and Colab add one, at the level
    of warnings.
    """
    root = logging.getLogger()
    if log.handlers or log.level or (root.handlers and root.level <= logging.INFO):
        yield
        return
    handler = logging.StreamHandler(sys.stdout)  # notebooks show stderr in red
    handler.setFormatter(Clipped("%(message)s"))
    propagate = log.propagate
    log.addHandler(handler)
    log.propagate = False  # the root logger's handler would repeat warnings
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
        log.setLevel(logging.NOTSET)


_bars: list["Bar"] = []
"""The open bars. They share one display, so that evaluations do not add to the output."""


def _drop_bars(count: int) -> None:
    """Forget the bars after `count`: an interrupt may come before their owners can close them."""
    del _bars[count:]


STYLE = "font-variant-numeric:tabular-nums;white-space:pre-wrap"
"""The style of a bar's line."""


class Bar:
    """A progress bar in the output of a cell; below it, those that begin while it is open.

    Attributes:
      note: text next to the bar, which the caller may set.
    """

    SECONDS_BETWEEN_UPDATES = 0.25

    def __init__(self, what: str, total: int, done: int):
        """Show a bar.

        Args:
          what: the operation, such as "train".
          total: the count at its end.
          done: the count at its start.
        """
        self._what, self._total, self._done, self.note = what, total, done, ""
        self._remaining: float | None = None
        self._start = time.monotonic()
        _bars.append(self)
        if _bars[0] is self:
            from IPython.display import display

            self._handle = display(self._bundle(), raw=True, display_id=True)
            self._last_update = self._start
        else:
            _bars[0].draw()

    def update(self, done: int, note: str, remaining: float) -> None:
        """Set what is done, the text, and the seconds that remain; draw now and then."""
        self._done, self.note, self._remaining = done, note, remaining
        if self not in _bars:  # closed
            return
        if time.monotonic() - _bars[0]._last_update > self.SECONDS_BETWEEN_UPDATES:
            _bars[0].draw()

    def close(self) -> None:
        """Draw the last count; a bar below another one vanishes."""
        self._remaining = None
        if self in _bars[1:]:
            _bars.remove(self)
            _bars[0].draw()
        elif self in _bars:
            del _bars[1:]
            self.draw()
            _bars.clear()

    def draw(self) -> None:
        """Draw all open bars in the display of this one."""
        self._last_update = time.monotonic()
        self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        lines = [bar._text() for bar in _bars]
        drawn = [
            f'<div style="{STYLE}"><progress value="{bar._done}" '
            f'max="{max(bar._total, 1)}" style="width:16em;margin-right:.8em"></progress>'
            f"{html.escape(text)}</div>"
            for bar, text in zip(_bars, lines, strict=True)
        ]
        return {"text/plain": "\n".join(lines), "text/html": "".join(drawn)}

    def _text(self) -> str:
        elapsed = clock_time(time.monotonic() - self._start)
        left = ""
        if self._remaining is not None:
            left = tr(", {time} left", time=clock_time(self._remaining))
        note = f"  {self.note}" if self.note else ""
        return f"{self._what} {self._done}/{self._total}  {elapsed}{left}{note}"


def clock_time(seconds: float) -> str:
    """Return a time such as 1:05 (minutes and seconds) or 2:01:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
