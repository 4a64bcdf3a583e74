# make demo and make test need nothing but Python 3.11 or newer: they make .venv by themselves.

# The first of these that runs and is new enough; `make PYTHON=/path/to/python` takes another one.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# The index of another torch build, such as PyTorch's own for the CPU; empty takes what pip is configured for.
TORCH_INDEX ?=
VENV := .venv
STAMP := $(VENV)/installed
TEST_STAMP := $(VENV)/installed-test
PIP := $(VENV)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	--constraint constraints.txt torch==2.13.0

.PHONY: install demo test test-long test-benchmarks chaos lint docs tools picture

install: $(STAMP)

# Another page is built anew; what is current is kept.
WEB := hatch_build.py $(shell find peer/web -name node_modules -prune -o -type f -print)

$(STAMP): pyproject.toml constraints.txt $(WEB) | $(VENV)/bin/python
	$(PIP) --editable .
	@test -e peer/http/page/index.html || test -n "$(SHOAL_NO_WEB)" || echo 'Shoal is installed, its page is not: Node.js 20 or' \
		'newer builds it (pip install --verbose --no-deps --editable . says more)' >&2
	touch $@

# What the tests, the style, the types and the documentation need besides.
$(TEST_STAMP): $(STAMP)
	$(PIP) --editable '.[test,lint]'
	touch $@

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo 'Shoal needs Python 3.11 or newer; make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call debian,python3-venv)
	$(PYTHON) -m venv $(VENV)

demo: install
	$(VENV)/bin/shoal demo

test: $(TEST_STAMP) tools
	$(VENV)/bin/python -m pytest

# Real swarms for minutes, and many more schedules of the swarms in one event loop.
test-long: $(TEST_STAMP) tools
	$(VENV)/bin/python -m pytest -m long
	SHOAL_SCHEDULES=5000 $(VENV)/bin/python -m pytest -n auto --dist load tests/inloop

# What tests the benchmarks' own tools, not the product.
test-benchmarks: $(TEST_STAMP) tools
	$(VENV)/bin/python -m pytest -m bench

# Everything that can happen to a swarm, for two hours, and a swarm's life, for half of one; each goes on where it was.
chaos: $(TEST_STAMP) tools
	$(VENV)/bin/python -m benchmarks.chaos --cache .chaos
	$(VENV)/bin/python -m benchmarks.soak --cache .chaos

lint: $(TEST_STAMP)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --config-file tests/mypy.ini tests benchmarks

# The documentation as a site, in build/docs; from scratch, so that a warning is never passed over.
docs: $(TEST_STAMP)
	rm -rf build/docs
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html docs build/docs

# The picture in the README, from a real run of two minutes.
picture: $(TEST_STAMP)
	$(VENV)/bin/python docs/picture.py

# `ip` makes the network namespaces of the tests and benchmarks that need a network of their own, `nft` closes them, and
# `cc` builds what makes their links slow. Chromium draws the page; without it, the tests of that are left out.
tools:
	@command -v ip >/dev/null || test -x /usr/sbin/ip || $(call debian,iproute2)
	@command -v nft >/dev/null || test -x /usr/sbin/nft || $(call debian,nftables)
	-@command -v chromium >/dev/null || $(call debian,chromium)
	@echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1 || $(call debian,gcc libc6-dev)

# Install a Debian package as root; anybody else is told what to do, and why the rule stops here.
debian = { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq $(1); } \
	|| { echo 'please install $(1) (on Debian: apt-get install $(1))' >&2; exit 1; }
