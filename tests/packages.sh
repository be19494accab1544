#!/usr/bin/env bash
# Installs the Debian packages given as arguments that the tests drive. As root on Debian or Ubuntu it installs what is
# missing; without root it only says what is left out. With CI=true a missing package is an error. COMMAND=PACKAGE asks
# for the package only where there is no such command: it may have come from elsewhere.
set -euo pipefail
missing=()
for wanted in "$@"; do
  package=${wanted#*=}
  [ "$package" = "$wanted" ] || ! command -v "${wanted%%=*}" >/dev/null || continue
  dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  # A package must not start a daemon on the machine that only runs tests.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod 755 "$policy"; trap 'rm -f "$policy"' EXIT
  fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends --no-remove "${missing[@]}" >/dev/null && exit 0
fi
echo "packages not installed (run as root to have them): ${missing[*]}; tests that need them are skipped" >&2
[ "${CI:-}" != true ]
