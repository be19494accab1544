# Two commands do all the set-up: `make run` and `make test`. Both need python3 (3.11 or later) with venv, and make.
VENV    := .venv
PYTHON  := $(VENV)/bin/python
DENYLOG := $(VENV)/bin/denylog
STORE   ?= var/store
LOG     ?=
# What the tests drive; installed when `make test` runs as root on Debian or Ubuntu.
PACKAGES := rsyslog logrotate iptables nftables iproute2 systemd systemd-journal-remote kmod procps util-linux \
            libcap2-bin nmap netcat-openbsd iputils-ping chromium prometheus rsyslog-relp rsyslog-gnutls bubblewrap openssl \
            libfaketime kubectl=kubernetes-client

.PHONY: run sample test test-slow lint packages constraints clean
.DELETE_ON_ERROR:

# The sample day, or LOG as it grows; then the dashboard, whose address is the last line on the screen. Ctrl-C ends it.
run: $(VENV)/.installed
	@if [ -n "$(LOG)" ]; then $(DENYLOG) collect --store $(STORE) $(LOG) & trap "kill $$! && wait $$!" EXIT; \
	else $(MAKE) --no-print-directory sample || exit $$?; fi; \
	$(DENYLOG) dashboard --store $(STORE)

sample: $(VENV)/.installed
	@$(DENYLOG) ingest --store $(STORE) samples/syslog.1.gz samples/syslog
	@$(DENYLOG) inventory import --store $(STORE) samples/inventory.json
	@$(DENYLOG) policies snapshot --store $(STORE) --at 2026-11-14T00:00+00:00 samples/policies
	@$(DENYLOG) policies attribute --store $(STORE) >/dev/null 2>&1 || [ $$? -eq 1 ]

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
