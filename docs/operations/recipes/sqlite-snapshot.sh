#!/bin/sh
# Restores z4j's SQLite database from a snapshot of the volume (LVM, ZFS, btrfs, a cloud disk) that it lives on.
#
#   sqlite-snapshot.sh restore SNAPSHOT_DIR HOME       both hold z4j.db; the brain must be stopped
#
# A snapshot that takes z4j.db and z4j.db-wal at the same instant is a good backup, also while the brain runs: opening it is like
# starting after a power cut. One that takes them one after the other (cp, tar, rsync of a running brain) is none; use
# `z4j-brain backup`, which needs no snapshots.
# Read docs/operations/recipes/README.md for what comes after a restore.
set -eu
umask 077
case ${1:-} in
restore)
	from=${2:?usage: sqlite-snapshot.sh restore SNAPSHOT_DIR HOME}
	home=${3:?usage: sqlite-snapshot.sh restore SNAPSHOT_DIR HOME}
	[ -f "$from/z4j.db" ] || {
		echo "$from has no z4j.db" >&2
		exit 1
	}
	# What is there may still be wanted. Its -wal goes with it: left behind, SQLite would play it over the restored file.
	if [ -e "$home/z4j.db" ]; then
		aside=$home/before-$(date -u +%Y%m%dT%H%M%SZ)
		mkdir "$aside"
		for part in z4j.db z4j.db-wal z4j.db-shm; do
			[ ! -e "$home/$part" ] || mv "$home/$part" "$aside/"
		done
		echo "the database that was there is in $aside"
	fi
	for part in z4j.db z4j.db-wal; do # never -shm: SQLite makes it anew
		[ ! -e "$from/$part" ] || cp "$from/$part" "$home/$part"
	done
	sync
	echo "restored: start the brain"
	;;
*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
