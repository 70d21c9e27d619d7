# The two commands of a fresh machine are `make demo` and `make test`; everything else is for the day's work.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
PEERS_VENV ?= .venv-peers
SETS ?= playlists playlists_large listening
# `make bench-quality DATA=playlists`: a set's name instead of a folder
ONE_SET := $(filter playlists playlists_large listening ml-1m ml-100k,$(DATA))

# Two OpenMP threads that wait for each other by spinning run every trainer about ten times slower on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test lint format audit install install-dev clean bench-main bench-results bench-queue bench-quality \
	bench-serve bench-soak bench-outage bench-page bench-import bench-preprocess bench-train bench-ablation

demo: $(VENV)/.requirements
	$(BIN)/python cli.py demo

test: $(VENV)/.requirements-dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(VENV)/.requirements-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(wildcard *.py) api engine evaluation exporters importers jobs preparation serving storage web benchmarks docs
	$(BIN)/codespell

format: $(VENV)/.requirements-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Advisories for every package that the service runs on, resolved anew from requirements.txt; asks PyPI.  Without --strict a package
# that could not be looked up would count as one without advisories.
audit: $(VENV)/.requirements-dev
	$(BIN)/pip-audit --strict --progress-spinner off -r requirements.txt

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

# The service under load, in turn with the handler that one would write first.
bench-serve: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.serve

# 200 MB of extended streaming history, made up, imported twice; MEGABYTES=20 for less.
bench-import: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.imports $(if $(MEGABYTES),--megabytes $(MEGABYTES))

# An hour at 50 requests a second; SECONDS=600 for less.
bench-soak: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.soak $(if $(SECONDS),--seconds $(SECONDS))

# The database goes away for half a minute under load.
bench-outage: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.outage

# The page in a Chromium, over the demo's model: how long until somebody who opens it sees suggestions.
bench-page: $(VENV)/.requirements-dev
	$(BIN)/python -m benchmarks.page --demo

# Our model beside everything that can be installed; SETS="playlists listening" names the data sets.  Hours: three seeds of each.
bench-quality: $(VENV)/.requirements $(PEERS_VENV)/.requirements
	$(BIN)/python -m benchmarks.quality $(if $(ONE_SET),../shared/data,$(DATA)) --sets $(or $(ONE_SET),$(SETS)) \
		--peers-python $(PEERS_VENV)/bin/python

# What each part of the model is worth, on validation; SET=playlists_large for another data set, SEEDS="0 1 2" for more seeds.
bench-ablation: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.quality.ablation $(if $(ONE_SET),../shared/data,$(DATA)) $(addprefix --set ,$(or $(SET),$(ONE_SET))) $(if $(SEEDS),--seeds $(SEEDS))

# Reading, encoding and writing 1, 5 and 20 million rows, in turn with reading them alone; ROWS="5000000" names the sizes.
bench-preprocess: $(VENV)/.requirements
	$(BIN)/python -m benchmarks.preprocess $(if $(ROWS),--rows $(ROWS))

# Training and validation in turn with the trainer one would write first and with RecTools; ONLY="reference large" for less.
bench-train: $(VENV)/.requirements $(PEERS_VENV)/.requirements
	$(BIN)/python -m benchmarks.training --peers-python $(PEERS_VENV)/bin/python $(if $(ONLY),--only $(ONLY))

# The peers pin numpy below 2, so they live apart.
$(PEERS_VENV)/.requirements: benchmarks/quality/requirements-peers.txt
	test -x $(PEERS_VENV)/bin/python || $(PYTHON) -m venv $(PEERS_VENV)
	echo '*' > $(PEERS_VENV)/.gitignore
	$(PEERS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet -r $<
	touch $@

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
