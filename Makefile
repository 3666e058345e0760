# `make quickstart` and `make test` set up everything they need in .venv, and only when needed:
# the first run needs the simulators alone, and the tests all that continuous integration has.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SIMULATORS := $(VENV)/installed-simulators
STAMP := $(VENV)/installed
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt

.PHONY: help install quickstart test slow coverage lint format types docs notebooks audit clean

help:
	@echo "make quickstart   set up and run the whole pipeline on five tasks"
	@echo "make test         set up and run the fast tests"
	@echo "make lint types   formatting, lint, spelling, wording, dead links and type checks"
	@echo "make docs         the documentation site, into build/site"
	@echo "make notebooks    run the notebooks, and save them with their outputs"
	@echo "make slow         the tests that take minutes"
	@echo "make coverage     the fast tests, and which lines they do not run"
	@echo "make audit        known vulnerabilities of what is installed"

$(SIMULATORS): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else "pwm needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is " + sys.version.split()[0] + "; run make PYTHON=/path/to/python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(PIP) -e '.[sim]'
	@touch $@

$(STAMP): $(SIMULATORS)
	$(PIP) -e '.[dev]'
	@touch $@

install: $(STAMP)

quickstart: $(SIMULATORS)
	$(BIN)/pwm quickstart out=runs/quickstart

# A file's tests run in one process, which makes their fixtures once. Compiled modules are kept even
# where Python is told to write none, since to compile the tests takes a third of a minute each time.
PYTEST := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/$(VENV)/compiled \
  $(BIN)/python -m pytest
PARALLEL := -n 2 --dist loadfile

test: $(STAMP)
	$(PYTEST) $(PARALLEL)

slow: $(STAMP)
	$(PYTEST) -m slow

coverage: $(STAMP)
	$(PYTEST) $(PARALLEL) --cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/python scripts/check_prose.py
	$(BIN)/python scripts/check_links.py
	$(BIN)/lint-imports --no-logo

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMP)
	$(BIN)/mypy

$(VENV)/docs-installed: $(STAMP)
	$(PIP) -e '.[docs]'
	@touch $@

docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: $(STAMP)
	$(BIN)/python scripts/run_notebooks.py

# In an environment of its own, so that the one that is audited stays as it is.
audit: $(STAMP)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --quiet pip-audit
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' > $(VENV)/audit/installed.txt
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r $(VENV)/audit/installed.txt

clean:
	rm -rf $(VENV) build dist
