"""The language of what a person reads: the sentences about a run, its report, and the console.

English texts stand in the code, as the argument of `tr` or `plural`; `spanish.py` translates them.
Warnings and errors stay English, so that they can be searched for.
"""

import locale
import os
import sys

from flaxbert.errors import ConfigError
from flaxbert.messages.spanish import SPANISH

LANGUAGES = ("en", "es")
"""The languages; the first is the default."""

VARIABLE = "FLAXBERT_LANG"
"""The environment variable that chooses one of them."""


def language() -> str:
    """Return the language: that of FLAXBERT_LANG, else of the locale, else English.

    Raises:
      ConfigError: if FLAXBERT_LANG names another language.
    """
    chosen = os.environ.get(VARIABLE, "").strip().lower()
    if chosen and chosen not in LANGUAGES:
        raise ConfigError(
            f"{VARIABLE}={chosen}: there is no such language. Set the environment variable to "
            f"one of {', '.join(LANGUAGES)}, or unset it."
        )
    if chosen:
        return chosen
    name = _locale().partition("_")[0].partition(".")[0].lower()
    return name if name in LANGUAGES else LANGUAGES[0]


def _locale() -> str:
    """Return the name of the user's locale, such as es_MX.UTF-8; "" if it is not known."""
    names = map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))  # the first that is set counts
    name = next(filter(None, names), "")
    if not name and sys.platform == "win32":  # which sets no such variables
        import ctypes

        name = locale.windows_locale.get(ctypes.windll.kernel32.GetUserDefaultUILanguage(), "")
    return name


def tr(text: str, /, **values: object) -> str:
    """Return a text in the user's language.

    Args:
      text: the English text, a literal, with fields as for str.format.
      values: the values of the fields; whole numbers are written as by `amount`.
    """
    if language() == "es":
        text = SPANISH.get(text, text)
    shown = {name: amount(v) if type(v) is int else v for name, v in values.items()}
    return text.format(**shown)


def plural(count: int, one: str, many: str, /, **values: object) -> str:
    """Return one of two texts in the user's language: `one` if `count` is 1, else `many`.

    Both are literals. The field {n} is the count.
    """
    return tr(one if count == 1 else many, n=count, **values)


def amount(number: float) -> str:
    """Return a number as a whole one, with its digits in groups.

    Spanish writes a space between the groups, from five digits on (Ortografía de la lengua
    española, 2010): in some countries a point separates thousands, in others decimals. For the same
    reason decimals have a point in every language; the files of a run have it too.
    """
    grouped = f"{number:,.0f}"
    if language() == "en":
        return grouped
    return grouped.replace(",", "\u00a0" if abs(number) >= 10_000 else "")


def percent(share: float) -> str:
    """Return a share in percent: whole, but never 0 % or 100 % unless it is exactly that."""
    rounded = round(100 * share)
    exact = share in (0, 1) or rounded not in (0, 100)
    return f"{rounded} %" if exact else f"{100 * share:.1f} %"


def span(low: str, high: str) -> str:
    """Return an interval of two numbers."""
    return tr("{low} to {high}", low=low, high=high)
