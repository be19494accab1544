#!/usr/bin/env bash
# Writes the pinned constraints: names, versions and hashes only. Run by `make constraints` after pyproject.toml changed.
set -euo pipefail
cd "$(dirname "$0")"
pip_compile="../.venv/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options"

wanted() {  # the requirements named in pyproject.toml: dependencies, extras, and the dependency groups given as arguments
  ../.venv/bin/python - "$@" <<'PYTHON'
import sys
import tomllib

project = tomllib.load(open("../pyproject.toml", "rb"))
groups = project["dependency-groups"]
extras = [line for extra in project["project"]["optional-dependencies"].values() for line in extra]
print(*project["project"]["dependencies"], *extras, *(line for name in sys.argv[1:] for line in groups[name]), sep="\n")
PYTHON
}

trap 'rm -f wanted.in' EXIT
wanted build > wanted.in
$pip_compile --output-file=run.txt wanted.in
wanted build test lint > wanted.in
$pip_compile --constraint=run.txt --output-file=dev.txt wanted.in
