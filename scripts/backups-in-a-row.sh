#!/bin/sh
# Backups one after another of a brain that takes in events and is changed all the while. Each is restored into an empty database,
# is proved there, and holds at least what there was when it began and at most what there was when it ended.
# usage: scripts/backups-in-a-row.sh sqlite|postgres [how many: 50] [events a second: 300]
set -eu
database=${1:?usage: scripts/backups-in-a-row.sh sqlite|postgres [how many: 50] [events a second: 300]}
count=${2:-50}
rate=${3:-300}
version=1.13.0
cd "$(dirname "$0")/.."
if [ "$database" = postgres ] && [ -z "${LAB_PG_HOME:-}" ]; then
	exec sh scripts/with-postgres.sh sh scripts/backups-in-a-row.sh "$@"
fi
[ "$database" = postgres ] || unset Z4J_DATABASE_URL
. scripts/lab.sh

say "a brain on $database with $rate events a second"
start_brain
set_up
Z4J_LOADGEN_EMAIL=$email Z4J_LOADGEN_PASSWORD=$password bin/z4j-loadgen run --url "$host" --agents 4 --rate "$rate" --duration 0 >"$work/load.log" 2>&1 &
load_pid=$!
at_end() { kill "$load_pid" 2>/dev/null || true; }
# held COMMAND…: tasks, events and audit entries of that brain's database.
held() { "$@" status --json | json '" ".join(str(d["counts"][k]) for k in ("tasks", "events", "audit_rows"))'; }
some_tasks() { [ "$(held "$brain" | cut -d' ' -f1)" -gt 100 ]; }
until_ok 60 "a hundred tasks" some_tasks

n=0
while [ "$n" -lt "$count" ]; do
	n=$((n + 1))
	post /projects/default/agents "{\"name\":\"agent-$n\"}" >/dev/null
	before=$(held "$brain")
	"$brain" backup --to "$work/$n.backup" >"$work/backup.log" 2>&1 || fail "backup $n: $(cat "$work/backup.log")"
	after=$(held "$brain")
	into=$(fresh "copy$n")
	other "$work/copy$n" "$into" "$brain" restore "$work/$n.backup" --into "$into" --yes >"$work/restore.log" 2>&1 || fail "restore $n: $(cat "$work/restore.log")"
	other "$work/copy$n" "$into" "$brain" audit verify --restored >"$work/verify.log" || fail "verify $n: $(cat "$work/verify.log")"
	there=$(held other "$work/copy$n" "$into" "$brain")
	# The restore has recorded itself, and the backup was recorded after its snapshot.
	python3 - "$before" "$there" "$after" <<'PY' || fail "backup $n holds $there; before $before, afterwards $after"
import sys
low, there, high = ([int(x) for x in a.split()] for a in sys.argv[1:])
sys.exit(not all(l <= t <= h for l, t, h in zip(low[:2], there[:2], high[:2])) or there[2] < low[2])
PY
	if [ $((n % 10)) = 0 ]; then
		other "$work/copy$n" "$into" "$brain" backup --to "$work/again.backup" >"$work/again.log" 2>&1 || fail "a backup of copy $n: $(cat "$work/again.log")"
		rm -f "$work/again.backup"
		echo "$n: before $before, restored $there, afterwards $after (tasks, events, audit entries)"
	fi
	rm -rf "$work/$n.backup" "$work/copy$n" "$work/copy$n".db*
	[ "$database" = sqlite ] || "$LAB_PG_BIN/psql" "$Z4J_DATABASE_URL" -qAtc "DROP DATABASE copy$n"
done
kill -0 "$load_pid" || fail "the load ended: $(cat "$work/load.log")"
kill -INT "$load_pid"
wait "$load_pid" || fail "the load: $(cat "$work/load.log")"
cat "$work/load.log"
ends 0 "$brain" audit verify
stop_brain
say "$count backups in a row on $database: seen"
