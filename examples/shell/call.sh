#!/bin/sh
# Calls a service with a token from a file, which keyturn keeps fresh meanwhile.
# A program that can read its token from a file needs nothing more.
#
#   KEYTURN_SOCKET=/tmp/kt/sign.sock sh call.sh PROFILE SUBJECT AUDIENCE URL
set -eu
profile=$1 subject=$2 audience=$3 url=$4
dir=$(mktemp -d)

# In production this is a service of its own, or a sidecar; see docs/client.md.
keyturn token --profile "$profile" --subject "$subject" --audience "$audience" --out "$dir/token" --watch &
watcher=$!
trap 'kill $watcher 2>/dev/null && wait $watcher; rm -rf "$dir"' EXIT

until [ -s "$dir/token" ]; do
	kill -0 $watcher 2>/dev/null || exit 1 # it ends where the daemon refuses, and says why
	sleep 0.1
done

# The header comes from standard input: arguments are for everybody to see.
printf 'header = "Authorization: Bearer %s"\n' "$(cat "$dir/token")" | curl -fsS --config - "$url"
