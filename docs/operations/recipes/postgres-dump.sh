#!/bin/sh
# Backs a z4j database up with pg_dump, and restores it into a new database with pg_restore.
#
#   postgres-dump.sh dump FILE
#   postgres-dump.sh restore FILE DATABASE     makes DATABASE, which must not exist
#
# Where the server is, as whom and with which password, libpq reads from PGHOST, PGPORT, PGUSER, PGDATABASE and ~/.pgpass (or
# PGPASSFILE): a URL on the command line would show its password to everybody who may list processes.
# Read docs/operations/recipes/README.md for what comes after a restore.
set -eu
umask 077
case ${1:-} in
dump)
	file=${2:?usage: postgres-dump.sh dump FILE}
	[ ! -e "$file" ] || {
		echo "$file exists already" >&2
		exit 1
	}
	# One snapshot, so no brain needs to be stopped. The unfinished dump has another name: a file called FILE is whole.
	pg_dump --format=custom --no-owner --no-privileges --file="$file.part"
	pg_restore --list "$file.part" >/dev/null # it can be read
	sync "$file.part"
	mv "$file.part" "$file"
	;;
restore)
	file=${2:?usage: postgres-dump.sh restore FILE DATABASE}
	database=${3:?usage: postgres-dump.sh restore FILE DATABASE}
	createdb "$database" # into a new database always: what you have may still be wanted
	# All or nothing: with the first error nothing of it is left, and the exit code says so.
	pg_restore --exit-on-error --single-transaction --no-owner --no-privileges --dbname="$database" "$file" || {
		dropdb "$database"
		exit 1
	}
	echo "restored into $database: stop the brains, point Z4J_DATABASE_URL at it, start one"
	;;
*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
