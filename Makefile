# fedfab: every command a newcomer or the checks need. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PACKAGES := cli common connectors coordinator federation gateway models privacy tools trust
DEBIAN := mariadb-server postgresql libmodbus-dev gcc nodejs npm iproute2 nftables openssl libgcrypt20 \
          mosquitto prometheus nginx-light tinyproxy faketime dpkg-dev python3-venv shellcheck systemd
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup servers demo deb docs test check check-static format

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/installed ## create .venv with the pinned packages

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

servers: ## install the foreign servers that tests talk to (as root; otherwise says what is missing)
	@PACKAGES="$(DEBIAN)" tests/servers/install

demo: setup ## the main job on loopback: machines, two layers of learning, predictions (ARGS="--once --out DIR")
	$(BIN)/fedfab demo $(ARGS)

deb: ## dist/fedfab_VERSION_ARCHITECTURE.deb with all wheels, for a plant without a network
	deploy/deb/build dist

docs: setup ## write the pages of reference anew: commands, options of configurations
	$(BIN)/python -m tools.reference

test: setup servers ## every test, the real processes and foreign servers included
	$(BIN)/pytest -n 2 $(ARGS)

check: check-static ## before every commit: format, lint, types, import rules, fast tests
	$(BIN)/pytest -n 2 -m "not e2e and not server" $(ARGS)

check-static: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## apply the formatter and the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
