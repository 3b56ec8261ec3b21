#!/bin/sh
# Runs every fuzz target of the named packages, one after the other, each for the given time. Go
# keeps failing inputs in the package's testdata/fuzz, where every later go test runs them.
set -eu

if [ $# -lt 2 ]; then
	echo "usage: fuzz.sh TIME PACKAGE…, such as fuzz.sh 60s ./..." >&2
	exit 2
fi
time=$1
shift

status=0
for package in $(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' "$@"); do
	# Listing compiles the tests: a package that does not compile is a failure, not a package
	# without targets.
	targets=$(go test -list '^Fuzz' "$package")
	for target in $(echo "$targets" | grep '^Fuzz' || true); do
		echo "== $package $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" || status=1
	done
done
exit $status
