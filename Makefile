# Two commands: `make demo` and `make test`. Each sets up what it needs; nothing else has to be installed first.
# PYTHON names the interpreter to build the environment with (3.11 or newer): make demo PYTHON=python3.12

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python

# Packages are installed without bytecode: what is imported is compiled then, once. Where this is set, as in many
# containers, each of the many processes of the tests would compile torch again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo benchmark test unit integrations quick lint clean

help:  ## show these commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(VENV)/.ready-demo  ## set up, embed real molecules with dirty rows among them, print a summary
	$(PY) scripts/demo.py

benchmark: $(VENV)/.ready-benchmark  ## set up, score frozen features on FreeSolv, write a report
	$(PY) -m molcmim benchmark --tasks freesolv --protocol random5 --heads svm,ridge --out benchmark_output

test:  ## set up, run every test; the environment of the integrations is made while the others run
	$(MAKE) --jobs 2 unit $(VENV)-integrations/.ready
	$(MAKE) integrations

unit: $(VENV)/.ready-dev  ## set up, run every test but those of the integrations
	$(PY) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

integrations: $(VENV)-integrations/.ready  ## set up, run the tests against DeepChem, scikit-fingerprints and molfeat
	$(VENV)-integrations/bin/python -m pytest --numprocesses 2 --dist loadfile tests/integrations tests/test_chem.py tests/test_moleculenet_datasets.py tests/test_moleculenet_splits.py

quick: $(VENV)/.ready-dev  ## set up, run the tests that take seconds
	$(PY) -m pytest -m "not slow"

lint: $(VENV)/.ready-dev  ## set up, run ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

clean:  ## remove the environment, caches and the demo's output
	rm -rf $(VENV) $(VENV)-integrations build dist *.egg-info demo_output benchmark_output .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make an environment stale when dependencies or version change; the venv is made only if missing.
SETUP := pyproject.toml constraints.txt constraints-integrations.txt molcmim/__init__.py

$(VENV)/.ready-demo: $(SETUP) | $(PY)
	@echo "installing into $(VENV): a few minutes the first time, torch is large"
	$(PY) -m pip install --quiet --no-compile --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.ready-benchmark: $(SETUP) | $(PY)
	@echo "installing into $(VENV): a few minutes the first time, torch is large"
	$(PY) -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[benchmark]"
	@touch $@

$(VENV)/.ready-dev: $(SETUP) | $(PY)
	@echo "installing into $(VENV): a few minutes the first time, torch is large"
	$(PY) -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/.ready-demo $(VENV)/.ready-benchmark

# scikit-fingerprints wants an older RDKit than the newest, so these libraries have an environment of their own.
$(VENV)-integrations/.ready: $(SETUP) | $(PY)
	@echo "installing into $(VENV)-integrations: a few minutes the first time"
	$(PYTHON) -m venv $(VENV)-integrations
	$(VENV)-integrations/bin/python -m pip install --quiet --no-compile --constraint constraints.txt --constraint constraints-integrations.txt --editable ".[dev,integrations]"
	@touch $@

$(PY):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "molcmim needs Python 3.11 or newer, $(PYTHON) is %d.%d: make PYTHON=python3.12 ..." % v[:2])'
	$(PYTHON) -m venv $(VENV)
