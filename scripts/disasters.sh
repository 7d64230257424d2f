#!/bin/sh
# What happens to a Postgres, done to a real one under a brain with a Celery worker and a client that goes on minting agents:
#   failover   a standby that lacks the last actions is promoted: within the grace the brain goes on by itself and says what was
#              lost; without a grace it holds until somebody acknowledges
#   killed     the server is killed with -9 again and again: no action that was answered is missing afterwards
# usage: scripts/disasters.sh failover|killed [agent version]
set -eu
disaster=${1:?usage: scripts/disasters.sh failover|killed [agent version]}
version=${2:-1.13.0}
cd "$(dirname "$0")/.."
case $disaster in
failover | killed) ;;
*)
	echo "$disaster: no such disaster" >&2
	exit 2
	;;
esac
if [ -z "${LAB_PG_HOME:-}" ]; then
	LAB_PG_OPTIONS="-c wal_level=replica -c hot_standby=on" exec sh scripts/with-postgres.sh sh scripts/disasters.sh "$@"
fi
database=postgres
. scripts/lab.sh

port=$(echo "$Z4J_DATABASE_URL" | sed 's|.*:\([0-9]*\)/.*|\1|')
serve_data() { # serve_data DIR PORT
	server pg_ctl -D "$LAB_PG_HOME/$1" -w -l "$LAB_PG_HOME/$1.log" -o "-p $2 -k $LAB_PG_HOME -c listen_addresses=127.0.0.1" start >/dev/null
}
ask() { PATH="$LAB_PG_BIN:$PATH" psql -h 127.0.0.1 -p "$1" -U postgres -d postgres -qAtc "$2"; }

# try_mint NAME: mints an agent; prints the status, and notes the name if it was answered with 201.
try_mint() {
	code=$(curl -s --max-time 20 -o "$work/answer" -w '%{http_code}' -b "$work/jar" -c "$work/jar" -H 'Content-Type: application/json' \
		-H "X-CSRF-Token: $(awk '$6 ~ /z4j_csrf$/ { print $7 }' "$work/jar")" -d "{\"name\":\"$1\"}" "$api/projects/default/agents") || code=none
	[ "$code" != 201 ] || echo "$1" >>"$work/answered"
	echo "$code"
}
minted() { [ "$(try_mint "$1")" = 201 ]; }
# nothing_missing: every answered action has its agent and its audit entry.
nothing_missing() {
	get '/projects/default/agents' | json '"\n".join(a["name"] for a in d)' | sort >"$work/agents"
	"$brain" audit export --format ndjson >"$work/log.ndjson"
	python3 - "$work/log.ndjson" <<'PY' | sort >"$work/entries"
import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    if row["action"] == "agent.token.minted":
        print(row["target_label"])
PY
	sort "$work/answered" >"$work/want"
	for of in agents entries; do
		missing=$(comm -23 "$work/want" "$work/$of")
		[ -z "$missing" ] || fail "answered with 201, and not among the $of: $missing"
	done
	echo "$(wc -l <"$work/want") answered actions, each with its agent and its audit entry"
}

standby() { # standby DIR PORT FROM_PORT: a streaming standby
	server pg_basebackup -h 127.0.0.1 -p "$3" -U postgres --pgdata="$LAB_PG_HOME/$1" --checkpoint=fast --wal-method=stream --write-recovery-conf
	serve_data "$1" "$2"
	until_ok 60 "the standby follows" sh -c "[ \"\$('$LAB_PG_BIN/psql' -h 127.0.0.1 -p $3 -U postgres -d postgres -qAtc 'SELECT count(*) FROM pg_stat_replication')\" = 1 ]"
}
caught_up() { [ "$(ask "$1" 'SELECT pg_current_wal_lsn()')" = "$(ask "$2" 'SELECT pg_last_wal_replay_lsn()')" ]; }

# fail_over FROM TO FROM_PORT TO_PORT NAME: the standby is cut off, NAME is minted, the primary dies, the standby is promoted.
fail_over() {
	until_ok 60 "the standby has everything" caught_up "$3" "$4"
	server pg_ctl -D "$LAB_PG_HOME/$2" -m fast -w stop >/dev/null
	[ "$(try_mint "$5")" = 201 ] || fail "$5 was not minted: $(cat "$work/answer")"
	echo "minted $5 while the standby was cut off"
	server pg_ctl -D "$LAB_PG_HOME/$1" -m immediate -w stop >/dev/null
	serve_data "$2" "$4"
	server pg_ctl -D "$LAB_PG_HOME/$2" -w promote >/dev/null
	echo "the primary is dead, the standby is promoted: timeline $(ask "$4" 'SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)')"
}

second=$(free_port)
[ "$disaster" = killed ] || Z4J_DATABASE_URL="postgres://postgres@127.0.0.1:$port,127.0.0.1:$second/postgres?sslmode=disable&target_session_attrs=read-write"
at_end() {
	for dir in standby third; do server pg_ctl -D "$LAB_PG_HOME/$dir" -m immediate stop >/dev/null 2>&1 || true; done
}

say "a brain with a worker and 20 tasks"
start_shop
: >"$work/answered"

case $disaster in
failover)
	say "failover within the grace: the brain goes on"
	standby standby "$second" "$port"
	minted before || fail "an agent before the failover"
	fail_over data standby "$port" "$second" lost
	until_ok 120 "an agent is minted on the new primary" minted after
	agents
	[ "$(agents)" = "['after', 'before', 'shop']" ] || fail "not the agents of the standby and the one of after"
	ends 0 "$brain" audit verify
	grep -E 'level=(WARN|ERROR)' "$work/brain.log" | grep -i -E 'lost|generation|failover' | tail -n 3 || fail "the brain's log says nothing of what was lost"
	send '[{"task":"add","args":[3,4],"n":10}]'
	until_ok 120 "the worker's tasks of after the failover are there" knows "'success': 25"

	say "failover without a grace: the brain holds, and goes on when somebody acknowledges"
	stop_brain
	third=$port
	standby third "$third" "$second"
	Z4J_DATABASE_URL="postgres://postgres@127.0.0.1:$second,127.0.0.1:$third/postgres?sslmode=disable&target_session_attrs=read-write"
	export Z4J_AUDIT_FAILOVER_GRACE=0
	start_brain
	log_in
	until_ok 60 "the worker is back" online
	fail_over standby third "$second" "$third" lost-too
	in_doubt() { [ "$(try_mint doubted)" = 503 ] && grep -q history_in_doubt "$work/answer"; }
	until_ok 120 "changes are refused with history_in_doubt" in_doubt
	cat "$work/answer"
	echo
	ends 1 "$brain" check >"$work/check"
	says "$work/check" 'audit  *WRONG .*acknowledge-rollback'
	show "$brain" audit acknowledge-rollback --reason "failed over by scripts/disasters.sh"
	until_ok 60 "logged in again" log_in
	until_ok 60 "an agent is minted" minted last
	agents
	ends 0 "$brain" audit verify
	send '[{"task":"add","args":[3,4],"n":10}]'
	until_ok 120 "the worker's tasks of after the second failover are there" knows "'success': 35"
	;;
killed)
	say "Postgres is killed with -9 ten times while agents are minted and tasks run"
	round=0
	while [ "$round" -lt 10 ]; do
		round=$((round + 1))
		send '[{"task":"add","args":[5,6],"n":10}]'
		(
			n=0
			while [ ! -e "$work/enough-$round" ]; do
				n=$((n + 1))
				try_mint "agent-$round-$n" >>"$work/codes"
			done
		) &
		minting=$!
		until_ok 120 "three agents of round $round" sh -c "[ \"\$(grep -c '^agent-$round-' '$work/answered')\" -ge 3 ]"
		kill -9 "$(head -n 1 "$LAB_PG_HOME/data/postmaster.pid")"
		until_ok 120 "Postgres is there again" serve_data data "$port"
		had=$(wc -l <"$work/answered")
		until_ok 120 "agents are minted again" sh -c "[ \"\$(wc -l <'$work/answered')\" -gt $had ]"
		: >"$work/enough-$round"
		wait "$minting"
	done
	echo "answers: $(sort "$work/codes" | uniq -c | tr -s ' \n' ' ')"
	nothing_missing
	ends 0 "$brain" audit verify
	until_ok 180 "all 120 tasks are known" knows "'failure': 5, 'success': 115"
	states
	;;
esac
stop_brain
say "disaster $disaster: seen"
