#!/bin/sh
# Runs one of the recipes of docs/operations/recipes/ for real: a brain with a Celery worker, a backup, more work, the restore, and
# everything that has to be true afterwards.
# usage: scripts/recipes.sh postgres-dump|postgres-pitr|sqlite-snapshot [agent version]
set -eu
recipe=${1:?usage: scripts/recipes.sh postgres-dump|postgres-pitr|sqlite-snapshot [agent version]}
version=${2:-1.13.0}
cd "$(dirname "$0")/.."
case $recipe in
sqlite-snapshot) database=sqlite ;;
postgres-dump | postgres-pitr) database=postgres ;;
*)
	echo "$recipe: no such recipe" >&2
	exit 2
	;;
esac
if [ "$database" = postgres ] && [ -z "${LAB_PG_HOME:-}" ]; then
	# What `postgres-pitr.sh settings` prints, as options of the server, for both recipes.
	LAB_PG_OPTIONS="-c wal_level=replica -c archive_mode=on -c archive_timeout=60s -c archive_command='test ! -f {home}/wal/%f && cp %p {home}/wal/%f.part && mv {home}/wal/%f.part {home}/wal/%f'" \
		exec sh scripts/with-postgres.sh sh scripts/recipes.sh "$@"
fi
[ "$database" = postgres ] || unset Z4J_DATABASE_URL
. scripts/lab.sh
recipes=$top/docs/operations/recipes

if [ "$database" = postgres ]; then
	PATH=$LAB_PG_BIN:$PATH
	PGHOST=127.0.0.1 PGUSER=postgres PGDATABASE=postgres
	PGPORT=$(echo "$Z4J_DATABASE_URL" | sed 's|.*:\([0-9]*\)/.*|\1|')
	export PATH PGHOST PGPORT PGUSER PGDATABASE
	server mkdir -p "$LAB_PG_HOME/wal"
fi


say "a brain on $database with a worker and 20 tasks"
start_shop
states
"$brain" audit verify

say "back up: $recipe"
case $recipe in
sqlite-snapshot)
	kill -STOP "$brain_pid" # so that the copy is of one instant, as a snapshot of the volume is
	mkdir "$work/snapshot"
	cp "$Z4J_HOME"/z4j.db "$Z4J_HOME"/z4j.db-wal "$work/snapshot/"
	kill -CONT "$brain_pid"
	ls "$work/snapshot"
	;;
postgres-dump) show sh "$recipes/postgres-dump.sh" dump "$work/z4j.dump" ;;
postgres-pitr) show server sh "$recipes/postgres-pitr.sh" base "$LAB_PG_HOME/base" ;;
esac

say "afterwards two actions, and 10 tasks"
post /projects/default/agents '{"name":"first"}' >/dev/null
moment=$(date -u '+%Y-%m-%d %H:%M:%S.%6N+00')
sleep 1.2 # so that the moment lies between the two for every clock
post /projects/default/agents '{"name":"second"}' >/dev/null
send '[{"task":"add","args":[3,4],"n":10}]'
until_ok 90 "the brain knows all 30" knows "'failure': 5, 'success': 25"
agents

say "restore; the worker goes on all the while"
stop_brain
case $recipe in
sqlite-snapshot) show sh "$recipes/sqlite-snapshot.sh" restore "$work/snapshot" "$Z4J_HOME" ;;
postgres-dump)
	show sh "$recipes/postgres-dump.sh" restore "$work/z4j.dump" z4j_restored
	Z4J_DATABASE_URL=$(echo "$Z4J_DATABASE_URL" | sed 's|/postgres?|/z4j_restored?|')
	;;
postgres-pitr)
	psql -qAtc 'SELECT pg_switch_wal()' >/dev/null
	server pg_ctl -D "$LAB_PG_HOME/data" -m fast -w stop >/dev/null
	show server sh "$recipes/postgres-pitr.sh" restore "$LAB_PG_HOME/base" "$LAB_PG_HOME/wal" "$LAB_PG_HOME/restored" "$moment"
	port=$(free_port)
	server pg_ctl -D "$LAB_PG_HOME/restored" -w -l "$LAB_PG_HOME/restored.log" -o "-p $port -k $LAB_PG_HOME -c listen_addresses=127.0.0.1" start >/dev/null
	at_end() { server pg_ctl -D "$LAB_PG_HOME/restored" -m immediate stop >/dev/null 2>&1 || true; }
	PGPORT=$port
	until_ok 60 "Postgres is out of recovery" sh -c '[ "$(psql -qAtc "SELECT pg_is_in_recovery()")" = f ]'
	Z4J_DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres?sslmode=disable"
	;;
esac

say "start: the brain notices that history went back, and holds"
start_brain
get_health() { curl -fsS "$api/health"; }
get_health
echo
ends 1 "$brain" check >"$work/check"
cat "$work/check"
says "$work/check" 'audit  *WRONG .*acknowledge-rollback'
log_in
code=$(curl -s -o "$work/answer" -w '%{http_code}' -b "$work/jar" -c "$work/jar" -H 'Content-Type: application/json' \
	-H "X-CSRF-Token: $(awk '$6 ~ /z4j_csrf$/ { print $7 }' "$work/jar")" -d '{"name":"third"}' "$api/projects/default/agents")
echo "mint an agent: $code $(cat "$work/answer")"
[ "$code" = 503 ] || fail "a change in hold was answered with $code"
says "$work/answer" history_in_doubt

say "acknowledge, verify"
show "$brain" audit acknowledge-rollback --reason "restored by the recipe $recipe"
ends 0 "$brain" audit verify

say "log in again, list tasks and agents; the worker came back by itself"
log_in
until_ok 90 "the agent is online" online
states
agents
case $recipe in
postgres-pitr) [ "$(agents)" = "['first', 'shop']" ] || fail "the moment between the two actions is not where the database is" ;;
*) [ "$(agents)" = "['shop']" ] || fail "agents that were made after the backup are there" ;;
esac
before=$(states)
send '[{"task":"add","args":[5,6],"n":5}]'
new_tasks() { [ "$(get '/projects/default/tasks?limit=500&name=add' | json 'len(d["items"])')" -ge "$1" ]; }
until_ok 90 "the tasks of after the restore are there" new_tasks 20
echo "$before -> $(states)"
post /projects/default/agents '{"name":"third"}' | json '"minted " + d["agent"]["name"]'
ends 0 "$brain" audit verify
stop_brain
say "recipe $recipe: seen"
