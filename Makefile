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

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench evaluate clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(STAMP) ## start the service, with a database of its own unless MONGODB_URI is set
	@$(BIN)/python -m promo_service run

test: $(STAMP) ## run all tests, on a real mongod
	@$(BIN)/python -m pytest $(ARGS)

bench: $(STAMP) ## measure the service beside its yardsticks
	@$(BIN)/python -m evaluation.bench $(if $(SCENARIO),--scenario $(SCENARIO)) $(ARGS)

evaluate: $(STAMP) ## show what was wrong before and that it is right now, in a report
	@$(BIN)/python -m evaluation.evaluate $(if $(QUICK),--quick) $(ARGS)

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
