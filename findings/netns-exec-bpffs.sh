#!/bin/sh
# "ip netns exec" and BPF pins.
#
# iproute2 6.1.0 (Debian 12). "ip netns exec" gives each command a mount namespace of its own and
# mounts a new sysfs at /sys, since sysfs shows the devices of a network namespace. The new sysfs
# covers the host's bpffs: /sys/fs/bpf is an empty directory on sysfs there. If the command, or a
# library in it, mounts a bpffs at that place, everything works while the command runs. The mount
# ends with the command, and so do pins in it: programs on links of the *persistent* network
# namespace are detached at that moment, without an error anywhere. "nsenter --net=/run/netns/NAME"
# changes the network namespace only, and pins stay.
#
# Output of the last run:
#   host: bpf_fs
#   ip netns exec: sysfs
#   in the same command: bpf_fs pins
#   in the next command: sysfs, no pins
#   nsenter: bpf_fs
#
# Run as root with apt-get, nsenter (util-linux) and a bpffs at /sys/fs/bpf. It exits with 1 if the
# behaviour changes.
set -eu
tmp=$(mktemp -d)
name=finding-$$
cleanup() {
	"$tmp/root/bin/ip" netns del "$name" 2>/dev/null || true
	rm -rf "$tmp"
}
trap cleanup EXIT

(cd "$tmp" && apt-get -o APT::Sandbox::User=root -q download iproute2=6.1.0-3 >/dev/null)
dpkg -x "$tmp"/iproute2_*.deb "$tmp/root"
ip=$tmp/root/bin/ip
"$ip" -V | grep -q 'iproute2-6.1.0'

fail() {
	echo "changed: $1" >&2
	exit 1
}
type='stat -f -c %T /sys/fs/bpf'

"$ip" netns add "$name"
host=$($type)
echo "host: $host"
[ "$host" = bpf_fs ] || fail "mount a bpffs at /sys/fs/bpf first"
inside=$("$ip" netns exec "$name" $type)
echo "ip netns exec: $inside"
[ "$inside" = sysfs ] || fail "the bpffs of the host is visible"
same=$("$ip" netns exec "$name" sh -c "mount -t bpf bpf /sys/fs/bpf && mkdir /sys/fs/bpf/pins && $type && ls -d /sys/fs/bpf/pins")
echo "in the same command:" $(echo "$same" | sed 's|/sys/fs/bpf/||')
echo "$same" | grep -q /sys/fs/bpf/pins || fail "no directory can be made on the new bpffs"
next=$("$ip" netns exec "$name" sh -c "$type; ls -A /sys/fs/bpf")
[ "$next" = sysfs ] || fail "what was mounted by the last command is there: $next"
echo "in the next command: $next, no pins"
enter=$(nsenter --net="/run/netns/$name" $type)
echo "nsenter: $enter"
[ "$enter" = bpf_fs ] || fail "nsenter hides the bpffs, too"
