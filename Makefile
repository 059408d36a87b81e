# make run              installs into .venv and runs the main job: ten sigmoid layers that do not learn
# make test             installs into .venv, runs the checks, and the tests last
# make test-frameworks  installs PyTorch, JAX and others into .venv as well, and tests the adapters
# make test-all         all of these and the long suites, one after the other:
# make long-dp          random expressions and programs, interrupts before every line
# make long-recording   random PyTorch models, and trainings with and without a recorder
# make long-theory      predictions against drawn nets, claims of other seeds, every kind of figure
# make long-studies     processes that are killed, stopped or asked to end at many moments
# make long-cli         attempts to break the command line
# make long-others      injected faults, damaged files, measured memory, the pages of docs/
# make notebooks        writes the .ipynb of each lesson anew from its .py, which is the one to edit
# make docs             builds the documentation into docs/_build/html
# make clean            removes .venv and what tools left behind, but no results
# Each works alone on a fresh clone with Python 3.11 or newer: make test PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
FIRST := runs/first
TORCH := torch==2.13.0
WORKERS ?= 2
# one thread each, so that the workers do not fight for the cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile

LONG := long-dp long-recording long-theory long-studies long-cli long-others
HERE := tests/gradiometer
# what each long suite is of; long-others takes the rest, so that nothing is left out
FOLDERS_dp := tests/dp
FOLDERS_recording := $(HERE)/recording
FOLDERS_theory := $(HERE)/theory $(HERE)/claims $(HERE)/plots
FOLDERS_studies := $(HERE)/studies
FOLDERS_cli := $(HERE)/cli
FOLDERS_others := $(foreach suite,dp recording theory studies cli,$(FOLDERS_$(suite):%=--ignore=%))

.PHONY: run test test-all test-frameworks lint notebooks docs clean $(LONG)
.NOTPARALLEL: # two installs into one .venv would trip over each other

run: .venv/run.stamp
	$(BIN)/gradiometer run --layers 10 --activation sigmoid --members 20 --out $(FIRST)
	@test -s $(FIRST)/gradients.png
	@echo "The picture: $(FIRST)/gradients.png"

# pytest comes last, so that its closing line is the last one
test: lint
	$(PYTEST) -m 'not long and not frameworks'

test-all: test test-frameworks $(LONG)

# a file's tests may run side by side here: in some of these suites one file has most of them
$(LONG): long-%: .venv/frameworks.stamp
	GRADIOMETER_REQUIRE_FRAMEWORKS=1 $(PYTEST) --dist worksteal -m long $(FOLDERS_$*)

test-frameworks: .venv/frameworks.stamp
	GRADIOMETER_REQUIRE_FRAMEWORKS=1 $(PYTEST) -m 'frameworks and not long'

lint: .venv/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

notebooks: .venv/test.stamp
	$(BIN)/jupytext --to ipynb --opt notebook_metadata_filter=-all notebooks/*.py

docs: .venv/docs.stamp
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# A stamp is written only after its install succeeded, and is out of date when the versions change.
.venv/venv.stamp:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gradiometer needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/run.stamp: .venv/venv.stamp pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/test.stamp: .venv/venv.stamp pyproject.toml constraints.txt
	$(INSTALL) --editable '.[test]'
	touch $@

.venv/frameworks.stamp: .venv/test.stamp Makefile
	$(INSTALL) $(TORCH) --editable '.[frameworks]'
	touch $@

.venv/docs.stamp: .venv/venv.stamp pyproject.toml constraints.txt
	$(INSTALL) --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
