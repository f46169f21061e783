"""docs/launching.md: what it shows is what the launchers print."""

import documents
from conftest import ROOT


def test_the_dry_runs_on_the_page_are_up_to_date() -> None:
    maker = documents.script("docs/make_launching.py")
    commands = [
        block[2].split()[0] for block in maker.BLOCK.finditer(maker.PAGE.read_text("utf-8"))
    ]
    files = {f"launch/{file.name}" for file in (ROOT / "launch").glob("*.sh")}
    assert sorted(commands) == sorted(files - {"launch/common.sh"})
    assert not maker.stale()
