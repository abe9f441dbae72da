#!/bin/sh
# Makes sure that the browser tests find a Chromium; where it cannot, says how to, and the tests fail with the same words.
set -eu
for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing chromium for the browser tests ..."
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core; } >/dev/null && exit 0
fi
echo "No Chromium was found: install it (Debian, Ubuntu: apt-get install chromium) or set CHROMIUM to its path." >&2
echo "The browser tests will fail without it." >&2
