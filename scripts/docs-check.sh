#!/bin/sh
# Runs what the documents say: the README's commands as they stand there (but for the port), every command of the binary that any
# page names, and every link between pages.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
group=
finish() {
	[ -z "$group" ] || kill -9 -"$group" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT
fail() {
	echo "docs: $*" >&2
	[ ! -f "$work/log" ] || tail -n 30 "$work/log" >&2
	exit 1
}
pages="README.md CONTRIBUTING.md CHANGELOG.md $(find docs -name '*.md')"

[ "$(wc -l <README.md)" -le 150 ] || fail "README.md has more than 150 lines"
for page in $pages; do
	for link in $(grep -oE '\]\([^)#:]+\)' "$page" | sed 's/^](//; s/)$//'); do
		[ -e "$(dirname "$page")/$link" ] || fail "$page links to $link, which is not there"
	done
done
echo "docs: links lead somewhere"

# shellcheck disable=SC2086
grep -ohE '(bin/)?z4j-brain( [a-z][a-z-]+)+' $pages | sed 's/^.*z4j-brain //' | sort -u >"$work/commands"
while read -r words; do
	# Words that follow a command in a sentence are not part of it: the longest prefix that the binary knows has to be at least one word.
	known=
	prefix=
	for word in $words; do
		prefix="$prefix $word"
		# shellcheck disable=SC2086
		if bin/z4j-brain $prefix --help >/dev/null 2>&1; then
			known=$prefix
		fi
	done
	[ -n "$known" ] || fail "a page names 'z4j-brain $words', which the binary does not know"
done <"$work/commands"
echo "docs: $(wc -l <"$work/commands") mentions of commands are known to the binary"

# block N [PAGE]: the N-th shell block of a page, the README if none is given, with our port.
port=$((20000 + $$ % 10000))
block() {
	awk -v want="$1" '/^```sh$/ { n++; inside = n == want; next } /^```$/ { inside = 0 } inside' "${2:-README.md}" | sed "s/7700/$port/g"
}
here=$(pwd)
GOMODCACHE=$(go env GOMODCACHE) GOCACHE=$(go env GOCACHE)
export GOMODCACHE GOCACHE HOME="$work" Z4J_BIND_PORT="$port"
unset Z4J_HOME Z4J_DATABASE_URL 2>/dev/null || true
block 1 | grep -q 'make run' && block 2 | grep -q createsuperuser || fail "the README's blocks 1 and 2 are not what they were"
# Block 1 goes on until it is stopped; make stands between us and the brain, so both get a group of their own.
block 1 >"$work/first.sh"
setsid sh -eu "$work/first.sh" >"$work/log" 2>&1 &
group=$!
tries=0
until curl -fsS "http://127.0.0.1:$port/api/v1/health/ready" >/dev/null 2>&1; do
	tries=$((tries + 1))
	[ "$tries" -lt 600 ] || fail "the brain of the README's first block is not ready after two minutes"
	kill -0 "$group" 2>/dev/null || fail "the brain of the README's first block ended"
	sleep 0.2
done
grep -q "http://127.0.0.1:$port/setup#token=" "$work/log" || fail "the README's first block printed no set-up URL"
block 2 >"$work/second.sh"
sh -eu "$work/second.sh" || fail "the README's second block"
{
	block 3
	echo
	echo 'echo'
	block 6 | sed 's/curl -sS/curl -fsS/'
} >"$work/third.sh"
grep -q auth/login "$work/third.sh" && grep -q 'state=failure' "$work/third.sh" || fail "the README's blocks 3 and 6 are not what they were"
{
	echo 'brain=http://127.0.0.1:'"$port"'/api/v1; csrf=$(awk '"'"'$6 ~ /z4j_csrf$/ { print $7 }'"'"' jar)'
	block 3 docs/getting-started.md | grep '/projects$'
	echo 'echo'
	block 5 docs/getting-started.md | grep -v '<task id>' | sed 's/curl -sS/curl -fsS/; s/ *#.*//; s/$/; echo/'
} >"$work/fourth.sh"
[ "$(grep -c 'curl' "$work/fourth.sh")" -ge 8 ] || fail "docs/getting-started.md: its third and fifth block are not what they were"
block 6 docs/getting-started.md >"$work/fifth.sh"
grep -q 'users create' "$work/fifth.sh" || fail "docs/getting-started.md: its sixth block is not the one that makes another account"
cd "$work" # where the jar of cookies goes
sh -eu "$work/third.sh" >"$work/answers" 2>&1 || fail "the README's curl lines: $(cat "$work/answers")"
for want in '"token":' '"hmac_secret":' '"items":'; do
	tr -d ' ' <"$work/answers" | grep -q "$want" || fail "the README's curl lines: no $want in $(cat "$work/answers")"
done
sh -eu "$work/fourth.sh" >"$work/answers" 2>&1 || fail "the curl lines of docs/getting-started.md: $(cat "$work/answers")"
grep -q '"slug":"shop"' "$work/answers" || fail "docs/getting-started.md made no project: $(cat "$work/answers")"
cd "$here"
sh -eu "$work/fifth.sh" >"$work/answers" 2>&1 || fail "the second account of docs/getting-started.md: $(cat "$work/answers")"
echo "docs: the README's commands make an account, log in, mint an agent and list tasks; so do those of docs/getting-started.md"
