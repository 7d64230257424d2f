#!/bin/sh
# The whole walk as a new user takes it, and a transcript of it: start, set up with curl, connect a real Celery worker, run 50 tasks
# with failures and retries, kill -9 the brain in the middle, read everything back, verify the audit chain.
# usage: scripts/first-light.sh sqlite|postgres [agent version]
set -eu
database=${1:?usage: scripts/first-light.sh sqlite|postgres [agent version]}
version=${2:-1.13.0}
cd "$(dirname "$0")/.."
if [ "$database" = postgres ] && [ -z "${Z4J_DATABASE_URL:-}" ]; then
	exec sh scripts/with-postgres.sh sh scripts/first-light.sh "$@"
fi
[ "$database" = postgres ] || unset Z4J_DATABASE_URL
. scripts/lab.sh

say "start on $database"
began=$(date +%s%N)
start_brain
echo "ready after $((($(date +%s%N) - began) / 1000000)) ms"
"$brain" version

say "make the first account with the URL's token"
set_up

say "mint an agent"
mint shop

say "connect a Celery worker with agent $version"
start_worker

say "50 tasks: 25 that succeed, 10 that fail, 10 retried once, 5 retried until they fail"
send '[{"task":"add","args":[1,2],"n":13},{"task":"fail","args":["no such customer"],"n":10},{"task":"flaky","args":[1],"n":10},
 {"task":"hopeless","n":5},{"task":"add","args":[3,4],"n":12}]'
until_ok 60 "some of them ran" ran 10

say "kill -9 the brain in the middle"
stop_brain 9
until_ok 60 "the worker goes on without it" ran 50
echo "all 50 ended while the brain was dead"
start_brain
echo "the brain is back"

say "what the brain knows, beside what really happened"
until_ok 150 "every task is settled" knows "'failure': 15, 'success': 35"
echo "brain: $(states)"
echo "truth: $(truth | json '{"failure": len(d["failed"]), "success": len(d["succeeded"]), "retries": sum(d["retried"].values())}')"
get '/projects/default/tasks?limit=100' | json '"retries by the brain: " + str(sum(t["retry_count"] for t in d["items"]))'
one=$(get '/projects/default/tasks?limit=100&name=hopeless' | json 'd["items"][0]["task_id"]')
get "/projects/default/tasks/celery/$one" | json '(d["name"], d["state"], d["exception"], [a["state"] for a in d["attempts"]])'
get /projects/default/workers | json '[(w["name"], w["state"]) for w in d]'
get /projects/default/stats | json 'd["tasks_by_state"]'

say "verify the audit chain"
"$brain" audit verify
"$brain" status

say "stop"
began=$(date +%s%N)
stop_brain
echo "stopped after $((($(date +%s%N) - began) / 1000000)) ms"
say "first light on $database: seen"
