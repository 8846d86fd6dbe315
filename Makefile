# Every target sets up what it needs in .venv; the machine needs only make and Python 3.11 or newer.
# ARGS is handed on:  make run ARGS="--port 8080"   make test ARGS="-k reload"   make test ARGS="-n 0 tests/test_hub.py"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run traces test test-unit test-rest test-all nightly check format bench chaos keeping soak steady same docs lock clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
UV ?= uv

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

run: $(VENV)/.run ## start the daemon with the shipped streams
	@exec $(BIN)/regstream run $(ARGS)

traces: $(VENV)/.run ## install what OTEL_TRACES_EXPORTER=otlp needs
	@$(PIP) install --require-hashes -r constraints-traces.txt

# tests/tiers.py says what each tier is. Twice as many processes of tests as there are cores, at most four: tests wait often.
PYTEST := $(BIN)/python -m pytest
SPREAD := -n $(shell n=$$(($$(nproc 2>/dev/null || echo 1) * 2)); echo $$((n < 4 ? n : 4))) --dist worksteal

test: $(VENV)/.dev ## run the tests, all but those of test-rest (ten minutes on two cores)
	@$(PYTEST) $(SPREAD) -m "not system and not slow" $(ARGS)

test-unit: $(VENV)/.dev ## run the tests that need no other process and no connection (a minute)
	@$(PYTEST) $(SPREAD) -m unit $(ARGS)

# The two halves of system tests share a machine and must not part; what measures runs by itself, last
test-rest: $(VENV)/.dev ## run what needs systemd, nginx or Prometheus, then what measures: chaos, soak, benchmarks
	@failed=0; \
	$(PYTEST) -n 2 --dist loadfile -m system $(ARGS) || failed=1; \
	$(PYTEST) -m slow $(ARGS) || failed=1; \
	exit $$failed

test-all: ## run every test: test, then test-rest
	@failed=0; \
	$(MAKE) --no-print-directory test || failed=1; \
	$(MAKE) --no-print-directory test-rest || failed=1; \
	exit $$failed

nightly: ## run every test, with as many examples of each property as it asks for (hours)
	@HYPOTHESIS_PROFILE=nightly $(MAKE) --no-print-directory test-all ARGS="--timeout 3600 $(ARGS)"

check: $(VENV)/.dev ## format, lint and strict types; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev ## format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## measure speed and size, as a table and as JSON
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: $(VENV)/.dev ## kill Kafka and the daemon for ten minutes and see what is lost (ARGS=--short: one minute)
	@$(BIN)/python -m scripts.chaos $(ARGS)

keeping: $(VENV)/.dev ## kill PostgreSQL and the daemon for six minutes and see what is kept (ARGS=--short: one minute)
	@$(BIN)/python -m scripts.keeping $(ARGS)

soak: $(VENV)/.dev ## let clients come and go for ten minutes and see what they were shown (ARGS=--short: 20 seconds)
	@$(BIN)/python -m scripts.soak $(ARGS)

same: $(VENV)/.dev ## see that a million events are the same twice, live, in other batches and after a kill -9, and that ten million name no row that is gone (ten minutes)
	@SAME_EVENTS=$(or $(EVENTS),1000000) $(BIN)/python -m pytest -q --timeout 7200 tests/test_same.py tests/generate/test_dangling.py $(ARGS)

steady: $(VENV)/.dev ## 2,000 events a second to 200 clients for half an hour, with reloads (ARGS=--short: 40 seconds)
	@$(BIN)/python -m scripts.steady $(ARGS)

docs: $(VENV)/.dev ## write docs/configuration.md and the service's example environment from the declarations
	@$(BIN)/python scripts/configuration_page.py

# Pins stay as they are unless pyproject.toml asks for more; `make lock ARGS=--upgrade` takes the newest of everything.
LOCK := pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate
lock: ## pin every library with its hashes (needs uv)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv, or make lock UV=path/to/uv" >&2; exit 1; }
	$(UV) $(LOCK) pyproject.toml --group dev --extra traces -o constraints-dev.txt $(ARGS)
	$(UV) $(LOCK) pyproject.toml --group build --constraint constraints-dev.txt -o constraints.txt $(ARGS)
	$(UV) $(LOCK) pyproject.toml --group build --extra traces --constraint constraints-dev.txt -o constraints-traces.txt $(ARGS)

clean: ## remove .venv and all caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `make run` installs what the daemon needs, everything else also what tests it.
$(VENV)/.run: constraints.txt pyproject.toml
	$(VIRTUALENV)
	@echo "setting up $(VENV): the daemon's libraries" >&2
	@$(PIP) install --require-hashes -r constraints.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: constraints-dev.txt constraints.txt pyproject.toml
	$(VIRTUALENV)
	@echo "setting up $(VENV): the daemon's libraries and those that test it" >&2
	@$(PIP) install --require-hashes -r constraints-dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(VENV)/.run $@

# The first Python that is new enough and can make a virtual environment; PYTHON=… goes first. One that works is kept.
define VIRTUALENV
@$(BIN)/python -m pip --version >/dev/null 2>&1 && exit 0; \
bare=; \
for python in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
    if $$python -c 'import ensurepip, venv' >/dev/null 2>&1; then \
        exec $$python -m venv --clear $(VENV); \
    fi; \
    bare=$$python; \
done; \
if [ -n "$$bare" ]; then \
    echo "$$bare cannot make a virtual environment: apt-get install python3-venv, or its like on this system" >&2; \
else \
    echo "regstream needs Python 3.11 or newer, and none was found: install it, or name it, make PYTHON=path/to/python" >&2; \
fi; \
exit 1
endef
