#!/usr/bin/env bash
# Unpacks syslog-ng into var/syslog-ng for the tests that forward to it. Debian's packages of syslog-ng and rsyslog
# exclude each other, so it is not installed: the programs run from where they were unpacked. Needs no root.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=var/syslog-ng
[ -x "$folder/usr/sbin/syslog-ng" ] && exit 0
packages=(syslog-ng-core libivykis0 libnet1 libwrap0)
if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
  mkdir -p var
  fresh=$(mktemp -d var/syslog-ng.XXXXXX)
  trap 'rm -rf "$fresh"' EXIT
  # APT drops its rights for a download and could not write to a folder of ours.
  if (cd "$fresh" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" "${packages[@]}" >/dev/null 2>&1); then
    for package in "$fresh"/*.deb; do dpkg-deb --extract "$package" "$fresh/root"; done
    mv "$fresh/root" "$folder"
    exit 0
  fi
fi
echo "syslog-ng could not be unpacked (apt-get download ${packages[*]}); tests that need it are skipped" >&2
[ "${CI:-}" != true ]
