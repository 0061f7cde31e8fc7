# make demo and make test set themselves up in .venv; they need Python 3.11+, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= demo-out
TEST_PROCESSES ?= 2

.PHONY: help setup demo test lint format notebooks clean

help:
	@echo "make demo    the whole way on the built-in phantom, into $(DEMO_OUT)"
	@echo "make test    all tests, with the reasons of those that are skipped"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make format  ruff format and its safe fixes"
	@echo "make notebooks  the .ipynb of every notebook from its .py"
	@echo "make clean   remove .venv, $(DEMO_OUT) and caches"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ctmar needs Python 3.11 or newer"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/ctmar demo --out $(DEMO_OUT) --overwrite

# one thread of torch in every test process: with more, they wait for each other's cores longer than they work
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal --durations 20

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: setup
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

clean:
	rm -rf $(VENV) $(DEMO_OUT) .pytest_cache .ruff_cache .mypy_cache
