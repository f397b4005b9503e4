# make demo    install into .venv if needed, then the whole road on the embedded model
# make test    the same set-up, then the tests, as many at a time as there are cores (WORKERS=0: one after the other)
# make test-fast ROOM=align/rows   the quick tests of one room and the rules of the tree (no ROOM: of all)
# make lint    ruff and pyright
# make graph   circles and arrows between the modules of the tree
# make bench   DPO timed against TRL's trainer; saves runs/bench (BENCH_ARGS=--full for the sweep)
# make setup   only the set-up (EXTRA=cpu or gpu, PYTHON=python3.11)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast bench graph lint lock clean

# Once chosen, the extra stays; at first an NVIDIA driver decides.
INSTALLED := $(firstword $(patsubst .venv/.installed-%,%,$(wildcard .venv/.installed-*)))
DETECTED = $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
EXTRA ?= $(or $(INSTALLED),$(DETECTED))
STAMP := .venv/.installed-$(EXTRA)
BIN := .venv/bin
PYTHON ?= python3.11 python3.12 python3 python
PYTEST_ARGS ?= --durations=15
# Tests at the same time: one a core, at most four (a training takes 2 GB). 0: in one process. Servers would
# not leave each other a GPU.
CORES := $(shell nproc 2>/dev/null || echo 1)
WORKERS ?= $(shell echo $$(( $(if $(filter gpu,$(EXTRA)),1,$(CORES)) < 2 ? 0 : $(CORES) < 4 ? $(CORES) : 4 )))

help:
	@sed -n '/^# make/s/^# //p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml setup/install.py setup/$(EXTRA).lock align/doctor/torchvision_ops.py
	@for python in $(PYTHON); do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; \
	  then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "no Python 3.11 or 3.12 with venv among: $(PYTHON). Install one (Debian: python3.11-venv) or say make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	rm -f .venv/.installed-*; \
	"$$found" setup/install.py --extra $(EXTRA)
	@touch $@

demo: $(STAMP)
	@$(BIN)/align run recipes/quickstart/pipeline.yaml

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

test-fast: $(STAMP)
	@$(BIN)/python -m pytest -m "not slow and not vllm" -q $(if $(ROOM),tests/$(ROOM) tests/tree/test_import_graph.py tests/tree/test_dependency_rule.py,-n $(WORKERS))

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.dpo_vs_trl $(BENCH_ARGS)

graph: $(STAMP)
	@$(BIN)/python -m tests.tree.import_graph

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

# Pins what .venv holds now, after changing pyproject.toml and installing by hand.
lock: $(STAMP)
	@$(BIN)/python setup/lock.py $(EXTRA) > setup/$(EXTRA).lock.new && mv setup/$(EXTRA).lock.new setup/$(EXTRA).lock
	@touch $(STAMP)

clean:
	rm -rf .venv
