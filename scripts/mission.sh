#!/bin/sh
# Walks docs/operations/backups.md line by line, with a real Celery worker connected all along, and prints the transcript. The
# promises are numbered M1 to M14 in docs/operations/proof.md; with some of them named, only the walk to those is made.
# usage: scripts/mission.sh sqlite|postgres [M…]
set -eu
database=${1:?usage: scripts/mission.sh sqlite|postgres [M…]}
shift
wanted=${*:-M1 M2 M3 M4 M5 M6 M7 M8 M9 M10 M11 M12 M13 M14}
version=${Z4J_AGENT_VERSION:-1.13.0}
cd "$(dirname "$0")/.."
if [ "$database" = postgres ] && [ -z "${Z4J_DATABASE_URL:-}" ]; then
	exec sh scripts/with-postgres.sh sh scripts/mission.sh postgres "$wanted"
fi
[ "$database" = postgres ] || unset Z4J_DATABASE_URL
. scripts/lab.sh
. scripts/mission-lines.sh

say "a brain on $database, a worker, 40 tasks"
start_brain
set_up
mint shop
start_worker
send '[{"task":"add","args":[1,2],"n":20},{"task":"fail","args":["no such customer"],"n":10},{"task":"flaky","args":[1],"n":5},{"task":"hopeless","n":5}]'
until_ok 120 "the brain knows all 40" knows "'failure': 15, 'success': 25"
states

for line in $wanted; do
	case $line in
	M[1-9] | M1[0-4]) ;;
	*) fail "$line: there are M1 to M14" ;;
	esac
	say "$line ($database)"
	"$line"
done

say "afterwards the worker still works, and the chain is proved"
send '[{"task":"add","args":[7,8],"n":5}]'
last_five() { [ "$(get '/projects/default/tasks?limit=5&name=add' | json '{t["state"] for t in d["items"]}')" = "{'success'}" ]; }
until_ok 90 "new tasks arrive" last_five
ends 0 "$brain" audit verify
stop_brain
say "mission on $database: seen ($wanted)"
