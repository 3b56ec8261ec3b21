#!/bin/sh
# The commands of docs/vagrant.md, and what they have to say. It starts the machines and destroys them.
set -eu
cd "$(dirname "$0")"

on() { machine=$1; shift; vagrant ssh "$machine" -c "$*" -- -T; }
step() { echo "== $*"; }
# expect STATUS PATTERN MACHINE COMMAND...
expect() {
	status=0
	want=$1 pattern=$2
	shift 2
	output=$(on "$@") || status=$?
	echo "$output"
	if [ "$status" != "$want" ] || ! echo "$output" | grep -q -- "$pattern"; then
		echo "test.sh: status $status, want $want, with \"$pattern\": $*" >&2
		exit 1
	fi
}

trap 'vagrant destroy --force' EXIT
step up
timeout 3000 vagrant up

step healthy
expect 0 'host1 .* 10, 50 ' host1 sudo lanyard lldp eth1
expect 0 'port "host1" of switch "switch", VLANs 10, 50' host1 sudo lanyard doctor eth1
for host in host1 host2; do expect 0 ok $host sudo lanyard verify --all; done
address=$(on host2 "sudo lanyard ps --format '{{.Network}} {{.Address}}'" | sed -n 's/^web50 //p')
expect 0 ' 0% packet loss' host1 sudo podman exec on-web50 ping -c 3 "$address"

# A minute after its last frame, a VLAN is no longer taken for alive: vlan-silent, until then
# gateway-silent. Both say what the switch says of its port.
step a wrong VLAN on the port of host1
on switch sudo set-vlan host1 60
expect 1 'carries VLAN 60, and not 50: add it there' host1 sudo lanyard doctor eth1.50
expect 1 'carries VLAN 60, and not 10: add it there' host1 sudo lanyard verify --all
expect 0 ' ok ' host2 sudo lanyard verify --all
expect 0 '' host1 sudo podman restart on-web50
expect 0 'web50 .* \(vlan\|gateway\)-silent ' host1 sudo lanyard ps
expect 125 '' host1 sudo podman restart on-lan10
expect 0 'lan10.*dhcp-silent' host1 sudo lanyard why

step mended
on switch sudo set-vlan host1 10 50
expect 0 '' host1 sudo podman start on-lan10
expect 0 ' ok ' host1 sudo lanyard verify --all
step passed
