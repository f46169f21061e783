"""Files that come with flaxbert: config files and example data.

In a clone they are in configs/ and examples/ next to the package. A wheel holds them inside it.
"""

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
