#!/bin/sh
# Runs every fuzz target of the packages named in turn, each for the time given. What
# one finds, go keeps in its package's testdata/fuzz, where go test tries it for ever.
set -eu

if [ $# -lt 2 ]; then
	echo "usage: fuzz.sh TIME PACKAGE…, such as fuzz.sh 60s ./..." >&2
	exit 2
fi
time=$1
shift

status=0
for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' "$@"); do
	# Listing compiles: a package whose tests do not is a failure, not one without targets.
	targets=$(go test -list '^Fuzz' "$package")
	for target in $(echo "$targets" | grep '^Fuzz' || true); do
		echo "== $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" || status=1
	done
done
exit $status
