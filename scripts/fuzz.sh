#!/bin/sh
# Runs every fuzz target of the module for the given time, one after the other.
set -eu
time=${1:-20s}
ran=0
for dir in $(git ls-files -co --exclude-standard '*_test.go' | xargs grep -l '^func Fuzz' | xargs -n1 dirname | sort -u); do
	for target in $(go test -list '^Fuzz' "./$dir" | grep '^Fuzz'); do
		echo "fuzz ./$dir $target for $time"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$dir"
		ran=$((ran + 1))
	done
done
if [ "$ran" = 0 ]; then
	echo "no fuzz target found" >&2
	exit 1
fi
echo "$ran fuzz targets ran"
