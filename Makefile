# The only commands to know. Python >= 3.11, git and make are all they need; everything else comes from the package registry.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# A caller's virtual environment must not leak into ours.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME
.DEFAULT_GOAL := help

UV := .tools/bin/uv
UV_WANTED := uv>=0.9,<0.14
BIN := .venv/bin
WORKERS ?= 3
ARGS ?=
# Redis and Postgres come as wheels for these; uv takes the first it finds on PATH, and fetches one when there is none.
export UV_PYTHON ?= >=3.11,<3.13
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
MANIFESTS := uv.lock $(wildcard pyproject.toml */pyproject.toml services/*/pyproject.toml)
DAEMON_MEMBERS := contracts bus daemon

.PHONY: help demo up check test fault bench ready daemon-runtime

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1#\2/p' $(MAKEFILE_LIST) | column -t -s '#' 2>/dev/null \
		|| sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1  \2/p' $(MAKEFILE_LIST)

demo: ready ## one machine from created to active and back to nothing, on a fresh embedded stack
	@$(BIN)/python -m paddock.local.demo $(ARGS)

up: ready ## the embedded stack, kept in ./.paddock; ctrl-c stops it (ARGS="--data DIR ...")
	@$(BIN)/paddock up $(ARGS)

check: ready ## lint, format, types, import arrows, and the repository's checks of itself
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -p no:xdist tests/repo

test: check ## check, then every test but the long faults and the measurements
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal --ignore=tests/repo $(ARGS)

fault: ready ## real processes, really killed; minutes long
	$(BIN)/pytest -m fault tests/fault $(ARGS)

bench: ready ## measurements against floors taken in the same run; writes build/bench.json
	@$(BIN)/python -m tests.bench $(ARGS)

ready: .venv/.synced daemon-runtime

# A uv on PATH that is new enough is linked to, else one is installed here.
$(UV):
	@mkdir -p $(@D); \
	read -r major minor < <(uv --version 2>/dev/null | sed -n 's/^uv \([0-9]*\)\.\([0-9]*\).*/\1 \2/p') || true; \
	if [ "$${major:-0}" -gt 0 ] || [ "$${minor:-0}" -ge 9 ]; then \
		ln -sf "$$(command -v uv)" $@; \
	else \
		echo "installing uv into .tools"; \
		python3 -m venv .tools && .tools/bin/python -m pip install --quiet --disable-pip-version-check "$(UV_WANTED)"; \
	fi

.venv/.synced: $(MANIFESTS) | $(UV)
	@$(UV) sync --quiet --all-packages --frozen
	@touch $@

# What a sandbox binds read-only: the daemon with only what it needs, installed and not linked to these sources. Its
# stamp is a digest of the sources, so an edited daemon is never tested as it was before.
daemon-runtime: .venv/.synced
	@digest=$$(find $(DAEMON_MEMBERS) uv.lock -name '*.py' -o -name pyproject.toml -o -name uv.lock | LC_ALL=C sort \
		| xargs sha256sum | sha256sum | cut -c1-64); \
	stamp=build/daemon-venv/.sources; \
	if [ "$$(cat $$stamp 2>/dev/null)" != "$$digest" ]; then \
		mkdir -p build; \
		UV_PROJECT_ENVIRONMENT=$(CURDIR)/build/daemon-venv UV_PYTHON=$(CURDIR)/$(BIN)/python \
			$(UV) sync --quiet --frozen --no-editable --no-dev --compile-bytecode --package paddock-daemon \
			$(foreach member,$(DAEMON_MEMBERS),--reinstall-package paddock-$(member)); \
		echo "$$digest" > $$stamp; \
	fi
