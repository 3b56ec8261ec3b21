#!/bin/bash
# The main task, end to end, on a LAN of namespaces: a runc container on VLAN 50, verified; the
# same with the gateway's port in the wrong VLAN; and no leftovers at the end. It needs root, a
# kernel with 8021q and bridge VLAN filtering, and lanyard and lanyard-hook in PATH. "make demo"
# provides all of these.
set -euo pipefail

work=$(mktemp -d)
readonly work

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { printf '\033[1m$ %s\033[0m\n' "$*"; "$@"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# A switch with a trunk port to this host's eth0, and a gateway on an access
# port of VLAN 50.
lab() {
	ip netns add switch
	ip netns add gateway
	ip -n switch link add br0 type bridge vlan_filtering 1 vlan_default_pvid 0
	ip -n switch link set br0 up

	ip link add eth0 type veth peer name trunk netns switch
	ip -n switch link set trunk master br0 up
	bridge -n switch vlan add dev trunk vid 2-4094
	ip link set eth0 up

	ip -n gateway link add eth0 type veth peer name port1 netns switch
	ip -n switch link set port1 master br0 up
	bridge -n switch vlan add dev port1 vid 50 pvid untagged
	ip -n gateway addr add 192.168.50.1/24 dev eth0
	ip -n gateway link set eth0 up
}

port1_to_vlan() {
	bridge -n switch vlan del dev port1 vid 2-4094
	bridge -n switch vlan add dev port1 vid "$1" pvid untagged
}

# A bundle with busybox, the hooks of lanyard and one annotation.
bundle() {
	mkdir -p "$work/bundle/rootfs/bin"
	cp /bin/busybox "$work/bundle/rootfs/bin/"
	for tool in sh ip ping sleep; do ln -sf busybox "$work/bundle/rootfs/bin/$tool"; done
	(cd "$work/bundle" && runc spec)
	local hook
	hook=$(command -v lanyard-hook)
	jq --arg hook "$hook" '
		.process.args = ["sleep", "3600"] | .process.terminal = false |
		(.process.capabilities | .bounding, .effective, .permitted) += ["CAP_NET_RAW"] |
		.annotations = {"io.lanyard.network": "web50"} |
		.hooks = {
			createRuntime: [{path: $hook, args: ["lanyard-hook", "createRuntime"]}],
			poststop:      [{path: $hook, args: ["lanyard-hook", "poststop"]}]
		}' "$work/bundle/config.json" >"$work/config.json"
	mv "$work/config.json" "$work/bundle/config.json"
}

# The container keeps runc's stdout open: without the file, a reader of this script's output would
# wait for the container's end.
start() {
	printf '\033[1m$ runc run --detach web\033[0m\n'
	runc run --detach web </dev/null >"$work/log" 2>&1
}

cleanup() {
	runc delete -f web >/dev/null 2>&1 || true
	ip netns del gateway 2>/dev/null || true
	ip netns del switch 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

lab
bundle
cd "$work/bundle"

say "A network on VLAN 50 of trunk eth0. The sub-interface eth0.50 is made for it."
run lanyard network create web50 --parent eth0.50 --subnet 192.168.50.0/24 --verify strict
run ip -brief link show type vlan

say "A runc container with the hook and one annotation in its config.json."
run jq -c .annotations config.json
start || fail "$(cat "$work/log")"

say "It has its own MAC and address on the LAN, and reaches the gateway."
run runc exec web ip addr show eth0
run runc exec web ping -c 1 192.168.50.1

say "And that was proven before its first process ran."
run lanyard ps
run lanyard verify web50
printf '\033[1m$ lanyard inspect web | jq -c ".[0] | .verdict, .evidence.gateways[]"\033[0m\n'
lanyard inspect web | jq -c '.[0] | .verdict, .evidence.gateways[]'

say "Now the gateway's switch port is in VLAN 60 by mistake: the start is refused, with the reason."
runc delete -f web
port1_to_vlan 60
if start; then
	fail "the container started although its gateway is in another VLAN"
fi
cat "$work/log"

say "Nothing is left."
runc delete -f web >/dev/null 2>&1 || true
run lanyard ps
run lanyard network rm web50
run ip -brief link show type vlan
[ -z "$(ip -o link show type vlan)" ] || fail "a VLAN sub-interface still exists"
run ls -A /sys/fs/bpf
[ -z "$(ls -A /sys/fs/bpf)" ] || fail "pins still exist"
say "Done."
