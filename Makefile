# make demo    everything on faces drawn from noise, from nothing to the HTML report
# make test    the tests
# make check   linter, types, import contracts
# make docs    the documentation as a site, in out/site; opens offline
# make faults  the fault suite: kills and corrupts, over and over; and what takes minutes
# make bench   is anything slower than committed? NAME=subject runs benches/bench_subject.py, with ARGS="..." if given
# make venv    only the virtual environment
# make clean   removes caches; keeps results, downloads and the virtual environment

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/install.log
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV_HELP := needs Python 3.11 or newer with venv. On Debian: apt-get install python3 python3-venv; or say which Python: make PYTHON=/path/to/python3.11

.PHONY: help demo test check docs faults bench venv clean
.DEFAULT_GOAL := help

help:
	@sed -n '/^# make/s/^# //p' Makefile

demo: $(STAMP)
	@$(BIN)/boundaryflow run

test: $(STAMP)
	@$(BIN)/python -m pytest

faults: $(STAMP)
	@$(BIN)/python -m pytest -m "faults or slow"

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "Built: out/site/index.html"

bench: NAME ?= guard
bench: $(STAMP)
	@test -f benches/bench_$(NAME).py || { echo "bench: no benches/bench_$(NAME).py; say make bench NAME=..., one of:" \
	  $$(ls benches 2>/dev/null | sed -n 's/^bench_\(.*\)\.py$$/\1/p'); exit 2; } >&2
	@$(BIN)/python -m benches.bench_$(NAME) $(ARGS)

venv: $(STAMP)

clean:
	@rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache build *.egg-info
	@find boundaryflow stages flows training tests website -name __pycache__ -type d -prune -exec rm -rf {} +

# pip writes to a log. Every few seconds a line says what it is at, so that a slow download does not look hung.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "make: $(VENV_HELP)" >&2; exit 2; }
	@echo "Installing into $(VENV) with $$("$(PYTHON)" --version): about 6 GB, a few minutes. Log: $(LOG)"
	@"$(PYTHON)" -m venv $(VENV)
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --progress-bar off --no-input \
	  --constraint constraints.txt --editable '.[dev,docs]' > $(LOG) 2>&1 & pip=$$!; \
	trap 'kill $$pip 2>/dev/null; exit 130' INT TERM HUP; \
	seconds=0; while kill -0 $$pip 2>/dev/null; do \
	  sleep 1; seconds=$$((seconds + 1)); \
	  if [ $$((seconds % 10)) -eq 0 ]; then \
	    printf '  %4d s  %s\n' $$seconds "$$(grep -v -e WARNING -e '^$$' $(LOG) | tail -n 1 | cut -c 1-90)"; \
	  fi; \
	done; \
	wait $$pip || { grep -v WARNING $(LOG) | tail -n 15 >&2; echo "make: installing failed; all of it: $(LOG)" >&2; exit 1; }; \
	echo "Installed in $$seconds s."
	@touch $(STAMP)
