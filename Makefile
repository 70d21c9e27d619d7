# The two commands of a fresh machine are `make demo` and `make test`; everything else is for the day's work.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data

# Two OpenMP threads that wait for each other by spinning run every trainer about ten times slower on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint format install install-dev clean bench-main bench-results bench-queue

demo: $(VENV)/.requirements
	$(BIN)/python cli.py demo

test: $(VENV)/.requirements-dev
	$(BIN)/python -m pytest

lint: $(VENV)/.requirements-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(wildcard *.py) engine evaluation importers jobs serving storage benchmarks docs
	$(BIN)/codespell

format: $(VENV)/.requirements-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.requirements
install-dev: $(VENV)/.requirements-dev

# The whole chain on one data set: import, preprocess, train for two minutes, evaluate, serve, POST.
bench-main: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.main_job $(DATA)/playlists

# The table of docs/results.md.
bench-results: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.results $(DATA)

# Kills, throughput and latency of the request queue, on a PostgreSQL of its own.
bench-queue: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.queue

$(VENV)/.requirements: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements.txt
	touch $@

$(VENV)/.requirements-dev: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r requirements-dev.txt
	touch $(VENV)/.requirements $@

clean:
	rm -rf $(VENV) .local .pytest_cache .mypy_cache .ruff_cache
