"""Where flaxbert's own files are: config files, example data, and the directory of its caches.

In a clone configs/ and examples/ are next to the package. A wheel holds them inside it.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).parent
ROOT = PACKAGE if (PACKAGE / "configs").is_dir() else PACKAGE.parent
"""The directory that holds configs/ and examples/."""

EXAMPLES = "examples/data/"
"""The beginning of the paths of example data, in a clone and everywhere else."""


def configs() -> dict[str, Path]:
    """Return the config files by name, such as `squad`, in alphabetical order."""
    return {file.stem: file for file in sorted((ROOT / "configs").glob("*.py"))}


def local(path: str) -> Path:
    """Return a path in the file system, with the home directory for `~`.

    Where there is no file `examples/data/NAME`, this is the one that comes with flaxbert, so the
    same command runs in every directory.
    """
    given = Path(path).expanduser()
    shipped = ROOT / path
    return (
        shipped if path.startswith(EXAMPLES) and not given.exists() and shipped.is_file() else given
    )


def cache_home() -> Path | None:
    """Return the directory of all caches; None without a home directory."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "flaxbert"
    except RuntimeError:  # the user has no home directory
        return None
