# Two commands do all the set-up: `make run` and `make test`. Both need python3 (3.11 or later) with venv, and make.
VENV    := .venv
PYTHON  := $(VENV)/bin/python
STORE   ?= var/store
LOG     ?=
# What the tests drive; installed when `make test` runs as root on Debian or Ubuntu.
PACKAGES := rsyslog logrotate iptables nftables iproute2 systemd systemd-journal-remote kmod procps util-linux \
            libcap2-bin nmap netcat-openbsd iputils-ping chromium prometheus rsyslog-relp rsyslog-gnutls bubblewrap openssl \
            libfaketime kubectl=kubernetes-client

.PHONY: run test test-slow lint packages constraints clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	@if [ -n "$(LOG)" ]; then exec $(VENV)/bin/denylog collect --store $(STORE) $(LOG); \
	else $(VENV)/bin/denylog ingest --store $(STORE) samples/syslog* && $(VENV)/bin/denylog top --store $(STORE); fi

test: $(VENV)/.installed-dev packages lint
	$(VENV)/bin/pytest -m "not slow"

test-slow: $(VENV)/.installed-dev packages
	$(VENV)/bin/pytest

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

packages:
	@bash tests/packages.sh $(PACKAGES)
	@bash tests/syslog-ng.sh

constraints: $(VENV)/.installed-dev
	bash requirements/pin.sh

$(VENV)/.installed: requirements/run.txt pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements/dev.txt $(VENV)/.installed
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

clean:
	rm -rf $(VENV) var build dist
