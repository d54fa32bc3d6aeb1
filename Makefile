# One word for everything. `make` alone lists them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first of these that is Python 3.11 or newer; `make PYTHON=/path/to/python` names another.
PYTHONS := python3 python3.13 python3.12 python3.11
PYTHON ?=
# More arguments for test, bench and evaluate: make test ARGS="-k soldout"
ARGS ?=
# One load of the benchmarks: make bench SCENARIO=hot
SCENARIO ?=
# Anything here for a quick look: make evaluate QUICK=1
QUICK ?=
# The MongoDB of test-mongo: 4.4, 5.0 or 6.0
VERSION ?= 4.4
# So many processes share the tests, a file at a time, each with a mongod of its own.
PROCESSES ?= 2
TESTS = $(BIN)/python -m pytest --numprocesses=$(PROCESSES) --dist=loadfile

.DEFAULT_GOAL := help
.PHONY: help run test test-deploy test-mongo audit fuzz chaos failover mutants lint format bench flash-sale evaluate clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(STAMP) ## start the service, with a database of its own unless MONGODB_URI is set
	@$(BIN)/python -m promo_service run

test: $(STAMP) ## run all tests, on a real mongod
	@$(TESTS) $(ARGS)

test-deploy: $(STAMP) ## run the tests of deploy/; they need nginx and Prometheus from the system
	@$(BIN)/python -m pytest tests/deploy $(ARGS)

test-mongo: $(STAMP) ## run the tests that need MongoDB on another one: make test-mongo VERSION=5.0
	@mongod=$$($(BIN)/python -m tests.support.versions $(VERSION)) && \
		MONGOD_BINARY=$$mongod $(TESTS) tests/mongo tests/http tests/stateful $(ARGS)

bench: $(STAMP) ## measure the service beside its yardsticks
	@$(BIN)/python -m evaluation.bench $(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

flash-sale: $(STAMP) ## play locustfile.py's sale, 2000 requests/s, with everything on this machine
	@$(BIN)/python -m evaluation.shop $(ARGS)

evaluate: $(STAMP) ## show what was wrong before and that it is right now, in a report
	@$(BIN)/python -m evaluation.evaluate $(if $(QUICK),--quick) $(ARGS)

audit: $(STAMP) ## look the requirements up in the list of known vulnerabilities
	@$(BIN)/python -m tests.audit

fuzz: $(STAMP) ## try 100,000 bad inputs on the service: make fuzz ARGS="--seed 2"
	@$(BIN)/python -m tests.bad_input $(ARGS)

chaos: $(STAMP) ## play schedules of faults: make chaos ARGS="--seed 7 --schedules 20"
	@$(BIN)/python -m tests.chaos.run $(ARGS)

failover: $(STAMP) ## take the primary away, and judge the outage: make failover ARGS="--rounds 1"
	@$(BIN)/python -m tests.chaos.failover $(ARGS)

mutants: $(STAMP) ## make mistakes in copies of the service, and see that each is noticed
	@$(BIN)/python -m tests.chaos.mutants $(ARGS)

lint: $(STAMP) ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(STAMP) ## lay out the code, and repair what can be repaired
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean: ## remove the environment, the development database and every cache
	rm -rf $(VENV) .data .evaluation .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installs again when the requirements change, and only then.
$(STAMP): requirements.txt requirements-dev.txt
	@python=""; \
	for each in $(or $(PYTHON),$(PYTHONS)); do \
		if $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$each; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer is needed (tried: $(or $(PYTHON),$(PYTHONS))); name one with make PYTHON=..." >&2; \
		exit 1; \
	fi; \
	echo "Installing the requirements into $(VENV) (once, about a minute) ..."; \
	$$python -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
