"""Write the output of the dry runs into launching.md.

python docs/make_launching.py            run the commands of the page, and write what they print
python docs/make_launching.py --check    fail if the page is not up to date
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "launching.md"

BLOCK = re.compile(r"(```console\n\$ )(.*?[^\\]\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL)
"""A command after $, on lines that end with a backslash, and its output."""


def output(command: str, programs: str) -> str:
    """Return what a command prints."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def page() -> str:
    """Return the page with the output of its commands."""
    with tempfile.TemporaryDirectory() as programs:
        for name, text in (("id", "echo 1000"), ("git", "")):  # the same on every machine
            file = Path(programs, name)
            file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
            file.chmod(0o755)
        return BLOCK.sub(
            lambda block: f"{block[1]}{block[2]}{output(block[2], programs)}{block[4]}",
            PAGE.read_text(encoding="utf-8"),
        )


def stale() -> bool:
    """Return whether the page is not up to date."""
    return PAGE.read_text(encoding="utf-8") != page()


def main(arguments: list[str]) -> int:
    """Write the page, or with --check compare it; return the exit code."""
    if arguments == ["--check"]:
        if old := stale():
            message = "launching.md is not up to date. Run python docs/make_launching.py."
            print(message, file=sys.stderr)
        return int(old)
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
