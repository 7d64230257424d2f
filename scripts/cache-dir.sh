#!/bin/sh
# Prints where the tests keep what they download. The rule is the same as in internal/store/storetest.
# Root's own cache can't be read by the unprivileged user that Postgres runs as, so root has another.
if [ -n "${Z4J_TEST_CACHE:-}" ]; then
	echo "$Z4J_TEST_CACHE"
elif [ "$(id -u)" = 0 ]; then
	echo /var/cache/z4j
else
	echo "${XDG_CACHE_HOME:-$HOME/.cache}/z4j"
fi
