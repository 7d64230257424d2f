#!/bin/sh
# Checks what the Dockerfile promises where no container engine runs: the binary is static; with nothing around it but /data it
# serves, as a user that may write nothing else; it says itself whether it is healthy; it stops within 20 s. As root this happens
# in a root directory of its own, which is what `FROM scratch` is; for anybody else with an empty environment.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
pid=
finish() {
	[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
	chmod -R u+w "$work" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT
fail() {
	echo "image: $*" >&2
	[ ! -f "$work/log" ] || tail -n 40 "$work/log" >&2
	exit 1
}

if command -v ldd >/dev/null && ldd bin/z4j-brain >"$work/ldd" 2>&1; then
	fail "bin/z4j-brain is not static: $(cat "$work/ldd")"
fi
echo "image: the binary is static ($(($(wc -c <bin/z4j-brain) / 1048576)) MiB)"

root=$work/root
mkdir -p "$root/data"
cp bin/z4j-brain "$root/z4j-brain"
chmod 755 "$work"
if [ "$(id -u)" = 0 ]; then
	chown 65532:65532 "$root/data"
	chmod 700 "$root/data"
	chmod 555 "$root"
	enter="$(command -v chroot) --userspec=65532:65532 $root /z4j-brain"
	home=/data
else
	chmod 700 "$root/data"
	chmod 555 "$root"
	enter=$root/z4j-brain
	home=$root/data
fi
port=$((20000 + $$ % 10000))
brain() {
	# shellcheck disable=SC2086
	env -i "Z4J_HOME=$home" Z4J_BIND_HOST=127.0.0.1 "Z4J_BIND_PORT=$port" $enter "$@"
}

if brain health >/dev/null 2>&1; then
	fail "health says yes before anything was started"
fi
# Started directly, not through the function, so that $! is the brain itself.
# shellcheck disable=SC2086
env -i "Z4J_HOME=$home" Z4J_BIND_HOST=127.0.0.1 "Z4J_BIND_PORT=$port" $enter serve >"$work/log" 2>&1 &
pid=$!
tries=0
until brain health >/dev/null 2>&1; do
	tries=$((tries + 1))
	[ "$tries" -lt 100 ] || fail "not healthy after 20 s"
	kill -0 "$pid" 2>/dev/null || fail "the brain ended"
	sleep 0.2
done
brain health
echo "image: healthy, as uid $(awk '/^Uid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null || id -u), with nothing but /data"

written=$(find "$root" -path "$root/data" -prune -o -newer "$root/z4j-brain" -type f -print)
[ -z "$written" ] || fail "written outside /data: $written"
[ -f "$root/data/z4j.db" ] || fail "no database in /data"
mode=$(find "$root/data/secret.env" -perm 600)
[ -n "$mode" ] || fail "secret.env is not mode 0600"

begin=$(date +%s)
kill -TERM "$pid"
code=0
wait "$pid" || code=$?
pid=
[ "$code" = 0 ] || fail "exit code $code after SIGTERM"
took=$(($(date +%s) - begin))
[ "$took" -le 20 ] || fail "took $took s to stop"
echo "image: stopped in $took s"
