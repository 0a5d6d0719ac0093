# make fuzz   install what is missing and run the main job
# make test   install what is missing, lint, type-check and run the tests
# make lint   ruff and mypy alone
# make docs   write docs/measurements.md from its data, and what symm prints into docs/layouts.md
# make hostile kill, mutate and mislead the harness for five minutes
# make oldest check the oldest versions that pyproject.toml allows, in an environment of their own
# make clean  remove the environments

PYTHON ?= python3
VENV ?= .venv
DRAWS ?= 300
FUZZ ?=
TESTS ?=
HOSTILE ?=
OLDEST ?= .venv-oldest
OLDEST_TORCH ?= 2.10.0
OLDEST_TESTS ?= tests/package/test_wheel.py tests/substrate/sim tests/ipc tests/kernels

IMPORTED := harness.cli.main, harness.plugin, harness.plugin.tested_world, harness.rank.server, \
  harness.substrate.sim.substrate, rich.progress, triton.language, triton.runtime.interpreter, pytest, pytest_timeout, \
  xdist.dsession, xdist.remote

BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
GPU := $(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU ')
TORCH := 2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
NCCL := 2.32.3

ifeq ($(GPU),0)
EXTRAS := test,lint
else
EXTRAS := test,lint,cu13
endif

.PHONY: fuzz test tested lint docs hostile clean

fuzz: $(VENV)/.compiled
	$(BIN)/symm fuzz --draws $(DRAWS) $(FUZZ)

test: $(VENV)/.installed
	@$(MAKE) --no-print-directory -j2 lint tested

tested: $(VENV)/.compiled
ifdef PYTHONDONTWRITEBYTECODE
	$(BIN)/python -m compileall -q harness tests
endif
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict harness

docs: $(VENV)/.installed
	$(BIN)/python docs/measurements/page.py
	$(BIN)/python docs/shown.py

hostile: $(VENV)/.compiled
	$(BIN)/python -m tests.hostile $(HOSTILE)

oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -n 2 --dist loadfile $(OLDEST_TESTS)

clean:
	rm -rf $(VENV) $(OLDEST)

$(VENV)/.installed: pyproject.toml constraints.txt Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; say which with make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
ifeq ($(GPU),0)
	$(PIP) -c constraints.txt 'torch==$(TORCH)+cpu' \
	  || $(PIP) -c constraints.txt --extra-index-url $(TORCH_CPU_INDEX) 'torch==$(TORCH)+cpu' \
	  || $(PIP) -c constraints.txt 'torch==$(TORCH)'
else
	$(PIP) -c constraints.txt 'torch==$(TORCH)'
endif
	$(PIP) -c constraints.txt -e '.[$(EXTRAS)]'
ifneq ($(GPU),0)
	$(PIP) --no-deps 'nvidia-nccl-cu13==$(NCCL)'  # torch pins an older one, which cannot share a GPU
endif
	touch $@

$(VENV)/.compiled: $(VENV)/.installed
ifdef PYTHONDONTWRITEBYTECODE  # or every process would compile what it imports
	env -u PYTHONDONTWRITEBYTECODE TRITON_INTERPRET=1 $(BIN)/python -c 'import $(IMPORTED)'
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/symm topologies >/dev/null  # Typer imports more at the first option
endif
	touch $@

# The CPU build from torch's own index is small; where that cannot be reached, PyPI's build does, at some gigabytes.
$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt Makefile
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install -q -c constraints-oldest.txt 'torch==$(OLDEST_TORCH)+cpu' --extra-index-url $(TORCH_CPU_INDEX) \
	  || $(OLDEST)/bin/pip install -q -c constraints-oldest.txt 'torch==$(OLDEST_TORCH)'
	$(OLDEST)/bin/pip install -q -c constraints-oldest.txt -e '.[test]'
	touch $@
