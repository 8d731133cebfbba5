# make demo: from nothing to a report in about five minutes.   make test: what the project must pass.

PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
DEEPCG := $(BIN)/deepcg
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile --only-binary :all: -c constraints.txt
DEMO := demo
REQUIREMENTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest lint docs notebook clean venv

help:
	@echo "make demo   simulate a small box of water, fit, sample, compare: report in $(DEMO)/"
	@echo "make test   format, lint, types and tests (make lint: without the tests)"
	@echo "make test-lowest  tests with the lowest versions of what the package needs"
	@echo "make docs   the manual in docs/_build/html"
	@echo "make notebook  open the notebooks in Jupyter"
	@echo "make venv   the package with its test tools in $(VENV)"
	@echo "make clean  remove $(VENV), $(DEMO) and caches"

demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(DEEPCG) simulate water --molecules 216 --ns 0.06 --equilibration-ps 20 --interval-ps 0.1 -o $(DEMO)/water
	$(DEEPCG) fit $(DEMO)/water/traj.dcd --map oxygens --steps 800 -o $(DEMO)/run
	$(DEEPCG) sample $(DEMO)/run --replicas 4 --ps 16 --equilibration-ps 2
	$(DEEPCG) compare $(DEMO)/run
	@echo "Done. Open $(DEMO)/run/report/report.html"

# one thread in each of as many processes as there are cores; a file stays in one process
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

# the same with the lowest versions that pyproject.toml allows; takes a network and minutes
test-lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) .ci/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --only-binary :all: -c $(LOWEST)/lowest.txt -e '.[test]'
	$(LOWEST)/bin/python -m pip check
	OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest -n auto --dist loadfile -W ignore::DeprecationWarning

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# warnings are errors; needs no network once the extra is installed
docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -n -W --keep-going -j auto docs docs/_build/html
	@echo "Done. Open docs/_build/html/index.html"

notebook: $(VENV)/installed-notebook
	$(BIN)/jupyter lab notebooks

venv: $(VENV)/installed-test

$(VENV)/installed: $(REQUIREMENTS) | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/installed-test: $(REQUIREMENTS) | $(BIN)/python
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: $(REQUIREMENTS) | $(BIN)/python
	$(PIP) -e '.[docs]'
	touch $@ $(VENV)/installed

$(VENV)/installed-notebook: $(REQUIREMENTS) | $(BIN)/python
	$(PIP) -e '.[notebook]'
	touch $@ $(VENV)/installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) $(LOWEST) $(DEMO) docs/_build docs/commands docs/notebooks docs/reference .mypy_cache .pytest_cache .ruff_cache .hypothesis
