#!/bin/sh
# CNI plugins check for their own network namespace after the work of ADD, not before it.
#
# CNI plugins 1.6.2 to 1.9.1 (1.9.1 here), and not 1.5.1. With CNI_NETNS the namespace that the plugin
# itself runs in, skel (pkg/skel of the CNI project) calls the plugin's ADD and only then compares the
# two namespaces. host-local, which uses no namespace, has reserved an address and printed its result
# by then. So stdout has two JSON documents, a result and an error, the exit status is 1, and the address
# stays reserved. DEL frees it, and reports the same error. A caller that reads the first
# document, or does not call DEL after an error, gets it wrong.
#
# Output of the last run:
#   host-local v1.5.1: exit 0, 1 document, 1 address reserved
#   host-local v1.9.1: exit 1, 2 documents, 1 address reserved
#   host-local v1.9.1 DEL: exit 1, 0 addresses reserved
#
# It needs Go and python3 (to count the documents). It exits with 1 if one of these lines is another one.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

for version in v1.5.1 v1.9.1; do
	CGO_ENABLED=0 GOFLAGS= GOBIN="$dir/$version" \
		go install "github.com/containernetworking/plugins/plugins/ipam/host-local@$version" 2>"$dir/build" ||
		{ cat "$dir/build" >&2; exit 1; }
done

# plugin VERSION COMMAND: runs host-local in its own network namespace. Sets status.
plugin() {
	status=0
	printf '{"cniVersion": "1.0.0", "name": "lan", "type": "host-local", "ipam": {"type": "host-local",
		"dataDir": "%s/data-%s", "subnet": "10.9.0.0/24"}}' "$dir" "$1" |
		env CNI_COMMAND="$2" CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS=/proc/self/ns/net CNI_PATH="$dir" \
			"$dir/$1/host-local" >"$dir/out" || status=$?
}

documents() {
	python3 -c '
import json, sys
text, n = sys.stdin.read().strip(), 0
while text:
    text, n = text[json.JSONDecoder().raw_decode(text)[1]:].strip(), n + 1
print(n)' <"$dir/out"
}

reserved() { find "$dir/data-$1/lan" -name '10.9.0.*' | wc -l; }

{
	plugin v1.5.1 ADD
	echo "host-local v1.5.1: exit $status, $(documents) document, $(reserved v1.5.1) address reserved"
	plugin v1.9.1 ADD
	echo "host-local v1.9.1: exit $status, $(documents) documents, $(reserved v1.9.1) address reserved"
	plugin v1.9.1 DEL
	echo "host-local v1.9.1 DEL: exit $status, $(reserved v1.9.1) addresses reserved"
} | tee "$dir/seen"

sed -n 's/^#   //p' "$0" | cmp - "$dir/seen"
