# Each target makes the environments that it needs from a bare clone; all it takes is make and a Python
# of 3.11 or later with pip (another than python3: make PYTHON=/path/to/python ...).

PYTHON ?= python3
# What `make test` and `make test-protobuf6` run, and with which options of pytest. Without TESTS: everything, first
# what bears company on all processors, then the rest one by one, because it watches the clock.
TESTS ?=
PYTEST_ARGS ?=
PARALLEL_TESTS := tests/unit tests/property tests/simulation tests/contract
SERIAL_TESTS := tests/integration
# Which seeds `make simulate` runs, and of which course: long (16 hosts, 200 VMs, ten minutes), short, rules,
# votes or pair.
SEEDS ?= 50
FIRST ?= 0
COURSE ?= long
# Which part `make bench` measures, as options of `ferry bench suite`. Without any: everything, and docs/ has it.
BENCH_ARGS ?=

PIP_INSTALL := bin/python -m pip install --quiet --quiet --disable-pip-version-check
INSTALLED := .installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-protobuf6 simulate explore chaos reference bench check check-stubs check-lint check-format check-types check-imports \
	format stubs venv clean

help:
	@echo "make demo            the guided tour: a live migration, a killed host, a failover"
	@echo "make test            the test suite; TESTS=tests/unit PYTEST_ARGS='-x -k name' narrow it"
	@echo "make test-protobuf6  the same on the oldest gRPC and protobuf that are supported"
	@echo "make simulate        clusters under faults on virtual time; SEEDS=300 FIRST=0 COURSE=long|short|rules"
	@echo "make explore         every interleaving of one move under few faults, on virtual time; minutes"
	@echo "make chaos           real processes killed, frozen and cut off in every phase of a move: half an hour"
	@echo "make reference       the reference points of live migration, each with its figures: four minutes"
	@echo "make check           stubs, ruff, mypy, import contracts"
	@echo "make bench           live migration measured against its peers: 50 minutes; BENCH_ARGS='--only smb'"
	@echo "make format          lets ruff format and fix the code"
	@echo "make stubs           generates the stubs of proto/ferry/v1"
	@echo "make clean           removes all that make has made, environments too"

demo: .venv/$(INSTALLED)
	@.venv/bin/ferry demo

test: .venv/$(INSTALLED)
	$(call run_tests,.venv)

test-protobuf6: .venv-protobuf6/$(INSTALLED)
	$(call run_tests,.venv-protobuf6)

define run_tests
	$(if $(TESTS),,$(1)/bin/python -m pytest --numprocesses auto --dist loadscope $(PYTEST_ARGS) $(PARALLEL_TESTS))
	$(1)/bin/python -m pytest $(PYTEST_ARGS) $(or $(TESTS),$(SERIAL_TESTS))
endef

simulate: .venv/$(INSTALLED)
	@.venv/bin/python -m ferry_sim --seeds $(SEEDS) --first $(FIRST) --course $(COURSE)

explore: .venv/$(INSTALLED)
	@.venv/bin/python -m ferry_sim.explore

chaos: .venv/$(INSTALLED)
	.venv/bin/python -m pytest -m chaos $(PYTEST_ARGS) $(TESTS)

reference: .venv/$(INSTALLED)
	.venv/bin/python -m pytest -m reference $(PYTEST_ARGS) $(or $(TESTS),tests/reference)

bench: .venv/$(INSTALLED)
	$(if $(BENCH_ARGS),@.venv/bin/ferry bench suite $(BENCH_ARGS),$(bench_whole))

define bench_whole
	@mkdir -p docs
	@.venv/bin/ferry bench suite --out docs/benchmarks.json
	@.venv/bin/ferry bench document docs/benchmarks.json --out docs/benchmarks.md
endef

check: check-stubs check-lint check-format check-types check-imports

check-stubs: .venv-stubs/$(INSTALLED)
	.venv-stubs/bin/python tools/generate_stubs.py --check

check-lint: .venv/$(INSTALLED)
	.venv/bin/ruff check --quiet

check-format: .venv/$(INSTALLED)
	.venv/bin/ruff format --check --quiet --diff

check-types: .venv/$(INSTALLED)
	.venv/bin/mypy

check-imports: .venv/$(INSTALLED)
	.venv/bin/lint-imports --no-logo

format: .venv/$(INSTALLED)
	.venv/bin/ruff check --fix --quiet
	.venv/bin/ruff format --quiet

stubs: .venv-stubs/$(INSTALLED)
	.venv-stubs/bin/python tools/generate_stubs.py

venv: .venv/$(INSTALLED)

clean:
	rm -rf .venv .venv-stubs .venv-protobuf6 .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache \
		build dist
	find proto agents coordinator tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is complete once its stamp is there; the stamp is older than what it was made from when
# that has changed. Its interpreter is checked first, so that an upgraded or removed Python is noticed.
.venv/$(INSTALLED): pyproject.toml constraints.txt
	$(call make_environment,$(@D))
	@$(@D)/$(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $@

.venv-protobuf6/$(INSTALLED): pyproject.toml constraints.txt constraints-protobuf6.txt
	$(call make_environment,$(@D))
	@awk -F == 'FNR == NR { replaced[$$1] = 1; print; next } !($$1 in replaced)' \
		constraints-protobuf6.txt constraints.txt > $(@D)/constraints.txt
	@$(@D)/$(PIP_INSTALL) --constraint $(@D)/constraints.txt --editable '.[dev]'
	@touch $@

.venv-stubs/$(INSTALLED): tools/stubs-requirements.txt
	$(call make_environment,$(@D))
	@$(@D)/$(PIP_INSTALL) --requirement tools/stubs-requirements.txt
	@touch $@

define make_environment
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "Hyperferry needs Python 3.11 or later, and $(PYTHON) is not there." \
			"Install it, or name one: make PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"Hyperferry needs Python 3.11 or later, and $(PYTHON) is %d.%d. Name another: make PYTHON=/path/to/python" \
		% sys.version_info[:2])'
	@echo "Setting up $(1) (once; it takes a minute or two) ..." >&2
	@$(1)/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| "$(PYTHON)" -m venv --clear $(1)
endef
