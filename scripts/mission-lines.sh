# The promises of docs/operations/backups.md, one function each; scripts/mission.sh calls them. Each leaves the brain running and the
# worker connected. $brain is the program, $work a directory, $api the running brain.
# shellcheck shell=sh disable=SC2154,SC2034

# dumped: everything that the database holds, as text, to look for secrets in.
dumped() {
	if [ "$database" = sqlite ]; then
		cat "$Z4J_HOME/z4j.db" "$Z4J_HOME/z4j.db-wal"
	else
		"$LAB_PG_BIN/pg_dump" "$Z4J_DATABASE_URL"
	fi
}

# absent WHAT TEXT: it is in no column, no log line and no file of the home but secret.env.
absent() {
	! dumped | grep -aqF -e "$2" || fail "$1 is in the database"
	! grep -aqF -e "$2" "$work/brain.log" || fail "$1 is in the log"
	! find "$Z4J_HOME" -type f ! -name secret.env -exec grep -alF -e "$2" {} + | grep -v 'z4j.db' | grep . || fail "$1 is in a file"
	echo "$1: in no table, log line or file"
}

secret() { sed -n "s/^$1=//p" "$Z4J_HOME/secret.env" | tr -d "\"'"; }

# M1: the database holds everything that is not a secret.
M1() {
	backup "$work/m1.backup"
	into=$(fresh m1)
	show other "$work/m1" "$into" "$brain" restore "$work/m1.backup" --into "$into" --yes
	"$brain" status --json | json '{k: v for k, v in d["counts"].items() if k not in ("active_sessions", "audit_rows")}' >"$work/here"
	other "$work/m1" "$into" "$brain" status --json | json '{k: v for k, v in d["counts"].items() if k not in ("active_sessions", "audit_rows")}' >"$work/there"
	echo "here:     $(cat "$work/here")"
	echo "restored: $(cat "$work/there")"
	cmp "$work/here" "$work/there" || fail "the restored database holds something else"
}

# backup FILE: one that is encrypted to nobody, for scripts.
backup() { show "$brain" backup --to "$1" 2>&1 || fail "no backup"; }

# M2: secrets live in the environment or in a 0600 file, never in the database; none is minted over an existing database.
M2() {
	show stat -c "%a %n" "$Z4J_HOME/secret.env"
	[ "$(stat -c %a "$Z4J_HOME/secret.env")" = 600 ] || fail "secret.env is not 0600"
	for name in Z4J_SECRET Z4J_SESSION_SECRET Z4J_AUDIT_SECRET; do
		value=$(secret $name)
		[ ${#value} -ge 32 ] || fail "$name is not in secret.env"
		absent $name "$value"
	done
	url=${Z4J_DATABASE_URL:-sqlite:$Z4J_HOME/z4j.db}
	got=0
	(Z4J_HOME=$work/empty Z4J_DATABASE_URL=$url Z4J_BIND_PORT=0 "$brain" serve) >"$work/refused" 2>&1 || got=$?
	cat "$work/refused"
	[ "$got" != 0 ] || fail "a brain without the secrets started on the database"
	[ ! -e "$work/empty/secret.env" ] || fail "secrets were minted over an existing database"
}

# M3: only who minted it has an agent's token.
M3() {
	absent "the agent's token" "$(json 'd["token"]' <"$work/keys")"
	absent "the agent's signing secret" "$(json 'd["hmac_secret"]' <"$work/keys")"
	get /projects/default/agents | json '[sorted(a) for a in d][0]'
}

# M4: backup makes verified, encrypted backups of either database; doctor tells the RPO.
M4() {
	echo "Correct Horse 9 Battery Staple" >"$work/passphrase"
	mkdir -p "$work/backups"
	show "$brain" backup --to "$work/backups/" --passphrase-file "$work/passphrase"
	show "$brain" backup list "$work/backups/"
	newest=$(find "$work/backups" -type f | sort | tail -n 1)
	[ "$(stat -c %a "$newest")" = 600 ] || fail "$newest is not 0600"
	head -c 22 "$newest" | grep -q age-encryption.org || fail "$newest is not encrypted"
	ends 0 "$brain" backup verify "$newest" --passphrase-file "$work/passphrase"
	cp "$newest" "$work/torn"
	printf 'X' | dd of="$work/torn" bs=1 seek=3000 conv=notrunc 2>/dev/null
	! show "$brain" backup verify "$work/torn" --passphrase-file "$work/passphrase" || fail "an archive with a wrong byte verified"
	"$brain" doctor >"$work/doctor"
	cat "$work/doctor"
	says "$work/doctor" '^lost with the database: .*now [0-9]* second'
}

# M5: revoke an agent, mint another; connections end at once.
M5() {
	post /projects/default/agents '{"name":"lost"}' >/dev/null
	show "$brain" agents list --project default
	show "$brain" agents revoke --project default shop
	until_ok 5 "the worker's connection is closed" sh -c "! curl -fsS -b $work/jar $api/projects/default/agents | grep -q '\"state\":\"online\"'"
	stop_worker
	"$brain" agents mint --project default --name shop --json >"$work/keys"
	json '"minted " + d["agent"]["name"]' <"$work/keys"
	start_worker
	id=$(get /projects/default/agents | json '[a["id"] for a in d if a["name"] == "lost"][0]')
	delete "/projects/default/agents/$id"
	echo "revoked by API: lost"
	[ "$(get '/projects/default/tasks?limit=100' | json 'len(d["items"])')" -ge 40 ] || fail "tasks of the revoked agent are gone"
}

# M6: the drill, as one command and by hand.
M6() {
	if [ ! -e "$work/backups" ]; then
		echo "Correct Horse 9 Battery Staple" >"$work/passphrase"
		mkdir -p "$work/backups"
		"$brain" backup --to "$work/backups/" --passphrase-file "$work/passphrase" >/dev/null
	fi
	ends 0 "$brain" drill "$work/backups/" --passphrase-file "$work/passphrase"
	echo "-- by hand: restore, a new brain, audit verify, the agents come, log in, list tasks"
	into=$(fresh m6)
	show other "$work/m6" "$into" "$brain" restore "$work/backups/" --into "$into" --yes --passphrase-file "$work/passphrase"
	ends 0 other "$work/m6" "$into" "$brain" audit verify --restored
	before=$(states)
	stop_brain
	(
		as_other "$work/m6" "$into"
		exec "$brain" serve
	) >>"$work/brain.log" 2>&1 &
	brain_pid=$!
	until_ok 60 "the new brain is ready" curl -fsS "$api/health/ready"
	log_in
	until_ok 90 "the agent came by itself" online
	get /projects/default/agents | json '[(a["name"], a["state"]) for a in d]'
	echo "tasks: $(states), before: $before"
	stop_brain
	start_brain
	log_in
	until_ok 90 "the agent is back" online
}

# M7: audit verify reads every row.
M7() {
	ends 0 "$brain" audit verify
	"$brain" audit verify --json | json '(d["result"], d["rows_exist"], d["rows_checked"])'
	if [ "$database" = sqlite ]; then
		into=$work/tampered.db
		python3 - "$Z4J_HOME/z4j.db" "$into" <<'PY'
import sqlite3, sys
a, b = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
a.backup(b)
b.execute("DROP TRIGGER audit_log_update")
b.execute("UPDATE audit_log SET actor_id = 'somebody else' WHERE seq = 2")
b.commit()
PY
		got=0
		other "$work/tampered" "sqlite:$into" "$brain" audit verify || got=$?
		echo "(a copy with one changed field: exit code $got)"
		[ "$got" = 1 ] || fail "a tampered copy ended with $got"
	fi
}

# M8: the curl line.
M8() {
	TOKEN=$("$brain" api-keys create --user "$email" --name auditor --scope audit:read)
	absent "the API key" "$TOKEN"
	(
		cd "$work"
		curl -fsS -H "Authorization: Bearer $TOKEN" "$host/api/v1/audit/export?format=csv&from=2026-01-01" >audit-2026-q1.csv
	) || fail "the curl line of the page does not work"
	head -n 1 "$work/audit-2026-q1.csv"
	echo "$(wc -l <"$work/audit-2026-q1.csv") lines"
}

# M9: the file proves itself without us.
M9() {
	[ -e "$work/audit-2026-q1.csv" ] || M8 >/dev/null
	secret Z4J_AUDIT_SECRET >"$work/audit-secret"
	ends 0 python3 docs/verify_audit.py --secret-file "$work/audit-secret" "$work/audit-2026-q1.csv"
	sed 's/,allow,/,deny,/' "$work/audit-2026-q1.csv" >"$work/edited.csv"
	ends 1 python3 docs/verify_audit.py --secret-file "$work/audit-secret" "$work/edited.csv"
}

# M10: tasks and events older than the retention go in a daily sweep.
M10() {
	show "$brain" retention --plan
	# Time can't be made to pass here: ten tasks are made old in the database.
	if [ "$database" = sqlite ]; then
		python3 - "$Z4J_HOME/z4j.db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=20)
times = [c[1] for c in db.execute("PRAGMA table_info(tasks)") if c[1].endswith("_at")]
db.execute("UPDATE tasks SET id = CAST(X'018000000000' || substr(id, 7) AS BLOB), " + ", ".join(f"{t} = {t} - 100*86400*1000000" for t in times) + " WHERE rowid IN (SELECT rowid FROM tasks LIMIT 10)")
db.commit()
PY
	else
		"$LAB_PG_BIN/psql" -qAt "$Z4J_DATABASE_URL" -c "SELECT 'UPDATE tasks SET id = overlay(id::text placing ''01800000'' from 1)::uuid, ' || string_agg(column_name || ' = ' || column_name || ' - interval ''100 days''', ', ') || ' WHERE ctid IN (SELECT ctid FROM tasks LIMIT 10)' FROM information_schema.columns WHERE table_name = 'tasks' AND table_schema = 'public' AND column_name LIKE '%_at'" |
			"$LAB_PG_BIN/psql" -q "$Z4J_DATABASE_URL"
	fi
	before=$(get '/projects/default/tasks?limit=500' | json 'len(d["items"])')
	show "$brain" retention --plan
	show "$brain" retention run
	after=$(get '/projects/default/tasks?limit=500' | json 'len(d["items"])')
	echo "tasks before: $before, after: $after"
	[ "$after" -eq $((before - 10)) ] || fail "ten old tasks are not gone"
	"$brain" audit export --format ndjson --action retention.swept | head -n 1 | json '(d["action"], d["details"])'
	ends 0 "$brain" audit verify
}

# M11: the audit log is deleted by hand only, after an export, with a last entry.
M11() {
	ends 0 "$brain" audit export --older-than 1y --delete --yes
	through=$("$brain" audit verify --json | json 'd["to"] - 2')
	ends 0 "$brain" audit export --through "$through" --delete --yes --out "$work/pruned.ndjson"
	ends 0 "$brain" audit verify
	ends 0 "$brain" audit verify --file "$work/pruned.ndjson"
	tail -n 1 "$work/pruned.ndjson" | json 'd["action"]'
}

# M12: rotating the audit secret.
M12() {
	backup "$work/before-rotation.backup"
	secret Z4J_AUDIT_SECRET >"$work/old-audit-secret"
	show "$brain" secrets rotate audit
	stop_brain
	start_brain
	log_in
	mint after-rotation >/dev/null
	post /projects/default/agents '{"name":"rotated"}' | json '"minted " + d["agent"]["name"]'
	ends 0 "$brain" audit verify
	echo "-- without the old secret: cannot check, which is not tampered"
	cp -r "$Z4J_HOME" "$work/without-old"
	sed -i '/AUDIT_SECRETS_PREVIOUS/d' "$work/without-old/secret.env"
	url=${Z4J_DATABASE_URL:-sqlite:$Z4J_HOME/z4j.db}
	got=0
	Z4J_HOME=$work/without-old Z4J_DATABASE_URL=$url "$brain" audit verify || got=$?
	echo "(exit code $got)"
	[ "$got" = 3 ] || fail "without the old secret verify ended with $got"
	ends 0 "$brain" secrets rotate audit --finish
	ends 0 "$brain" audit verify
}

# M13: the container.
M13() { sh scripts/image-check.sh; }

# M14: the whole control plane, as far as it is built: what scripts/first-light.sh and conformance/ run.
M14() {
	for path in /projects /projects/default /projects/default/tasks /projects/default/workers /projects/default/queues /projects/default/agents \
		/projects/default/stats /projects/default/audit /projects/default/memberships /users /home/summary /auth/me; do
		get "$path" >/dev/null || fail "$path"
		echo "GET $path: 200"
	done
}
