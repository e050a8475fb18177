# `make serve` opens the chat in the browser, `make test` checks everything; both start from nothing.
#
# Variables, each overridable on the command line:
#   PYTHON       the Python (3.11 or newer) that .venv is made with
#   ARGS         options for the command that runs:  make serve ARGS="--port 8000"
#   PIP_FLAGS    further options for pip:            make serve PIP_FLAGS="--no-cache-dir"
#   TORCH_INDEX  where torch comes from. On Linux the registry's torch brings gigabytes of CUDA;
#                PyTorch's own index has a build for the CPU alone (about 200 MB):
#                make serve TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   JOBS         test processes side by side
#   VARIANTS     models for `make conformance`, out of tests/conformance/variants.py; else all of them
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
ARGS ?=
PIP_FLAGS ?=
TORCH_INDEX ?=
JOBS ?= 2
VARIANTS ?=

# All paths are relative, so that a space in the path of the checkout does no harm.
BIN := .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install $(PIP_FLAGS)
# A stamp says what .venv holds: made last, and made again only when the files below are newer.
APP_STAMP := .venv/.installed-app
TEST_STAMP := .venv/.installed-test
STAMP_SOURCES := pyproject.toml constraints.txt

# The scripts of a .venv name its path: after the checkout was moved or copied, .venv is made anew.
ifneq "$(shell cat .venv/.place 2>/dev/null || pwd -P)" "$(shell pwd -P)"
MOVED := yes
$(APP_STAMP) $(TEST_STAMP): FORCE
endif

.DEFAULT_GOAL := help
.PHONY: help install serve chat test test-slow conformance mutants lint types format lines clean FORCE

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

install: $(APP_STAMP)  ## make .venv with the package and what the chat needs
	@echo "chatbot is installed in .venv: make serve, make chat"

serve: $(APP_STAMP)  ## chat in the browser with the shipped model
	@$(BIN)/chatbot serve $(ARGS)

chat: $(APP_STAMP)  ## chat in the terminal with the shipped model
	@$(BIN)/chatbot chat $(ARGS)

test: lint types  ## lint, types and all tests but the slow ones
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not alone" $(ARGS)
	$(BIN)/python -m pytest -m "alone and not slow" $(ARGS) || [ $$? -eq 5 ] # 5: ARGS names none of them
	@$(MAKE) --no-print-directory lines

test-slow: $(TEST_STAMP)  ## the slow tests: trainings
	$(BIN)/python -m pytest -m slow $(ARGS)

conformance: $(TEST_STAMP)  ## transformers' own model tests on ours, which pip downloads
	$(BIN)/python -m pytest -q -rfE -n $(JOBS) tests/conformance/model_tests.py $(if $(VARIANTS),--variants $(VARIANTS))

mutants: $(TEST_STAMP)  ## break the model on purpose: each time a test must turn red
	$(BIN)/python scripts/mutate.py

lint: $(TEST_STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST_STAMP)  ## mypy
	$(BIN)/mypy

format: $(TEST_STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lines:  ## lines of Python (tests/test_house.py keeps the limits)
	@echo "chatbot/           $$(find chatbot -name '*.py' -exec cat {} + | wc -l) lines"
	@echo "chatbot/modeling/  $$(find chatbot/modeling -name '*.py' -exec cat {} + | wc -l) lines"

clean:  ## remove builds and caches (.venv, data and runs stay)
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(APP_STAMP): $(STAMP_SOURCES)
	$(call install,app)
	@touch $(APP_STAMP)

$(TEST_STAMP): $(STAMP_SOURCES)
	$(call install,test)
	@touch $(APP_STAMP) $(TEST_STAMP)

# Makes .venv where it is missing or broken, then installs the package, editable, with extra $(1).
# A system Python without ensurepip (Debian without python3-venv) lends its own pip instead.
define install
$(if $(MOVED),@rm -rf .venv)
@rm -f $(APP_STAMP) $(TEST_STAMP)
@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	[ -n "$(PYTHON)" ] && "$(PYTHON)" -c '$(NEW_ENOUGH)' || { \
		echo "chatbot needs Python 3.11 or newer; found: $(or $(PYTHON),neither as python3.11 nor as python3)." >&2; \
		echo "Name yours: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	}; \
	echo "Making .venv with $(PYTHON)"; \
	rm -rf .venv; \
	"$(PYTHON)" -m venv .venv >/dev/null || { \
		rm -rf .venv; \
		"$(PYTHON)" -m venv --without-pip .venv \
			&& "$(PYTHON)" -m pip --python $(BIN)/python install pip; \
	} || { echo "$(PYTHON) can make no .venv: install its venv module (Debian: python3-venv)." >&2; exit 1; }; \
}
@pwd -P >.venv/.place
$(if $(TORCH_INDEX),$(PIP) --no-deps --index-url "$(TORCH_INDEX)" "$(shell grep '^torch==' constraints.txt)")
$(PIP) -c constraints.txt -e ".[$(1)]"
endef
