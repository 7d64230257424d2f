#!/bin/sh
# Point-in-time recovery of the Postgres behind z4j: a base backup now and then, every WAL segment copied away as it fills, and
# a restore to any moment in between.
#
#   postgres-pitr.sh settings WAL_DIR                   prints what postgresql.conf needs
#   postgres-pitr.sh base DIR                           a base backup into DIR, while everything runs
#   postgres-pitr.sh restore DIR WAL_DIR DATA TIME      makes the data directory DATA as everything was at TIME
#
# TIME is as Postgres writes it: '2026-11-25 10:30:00+00'. WAL_DIR should be on another machine (NFS, or a command of your own that
# copies into an object store in the place of cp). base reads PGHOST, PGPORT, PGUSER and PGPASSFILE; the role needs REPLICATION.
# Read docs/operations/recipes/README.md for what comes after a restore.
set -eu
umask 077
case ${1:-} in
settings)
	wal=${2:?usage: postgres-pitr.sh settings WAL_DIR}
	# archive_timeout is the most that is lost; a segment never overwrites one that is there.
	cat <<CONF
wal_level = replica
archive_mode = on
archive_command = 'test ! -f $wal/%f && cp %p $wal/%f.part && sync $wal/%f.part && mv $wal/%f.part $wal/%f'
archive_timeout = 60s
CONF
	;;
base)
	dir=${2:?usage: postgres-pitr.sh base DIR}
	pg_basebackup --pgdata="$dir" --checkpoint=fast --wal-method=stream
	pg_verifybackup "$dir"
	;;
restore)
	dir=${2:?usage: postgres-pitr.sh restore DIR WAL_DIR DATA TIME}
	wal=${3:?WAL_DIR}
	data=${4:?DATA}
	time=${5:?TIME}
	[ ! -e "$data" ] || {
		echo "$data exists already: restore beside it, never over it" >&2
		exit 1
	}
	cp -a "$dir" "$data"
	rm -f "$data/postmaster.pid"
	cat >>"$data/postgresql.auto.conf" <<CONF
restore_command = 'cp $wal/%f %p'
recovery_target_time = '$time'
recovery_target_action = 'promote'
archive_mode = off
CONF
	touch "$data/recovery.signal"
	echo "start Postgres on $data; when pg_is_in_recovery() is false, start a brain; then archive to a new directory"
	;;
*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
