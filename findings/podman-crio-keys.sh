#!/bin/sh
# podman writes an annotation key of CRI-O on every container.
#
# podman 4.3.1 (Debian 12). The configuration of each container that podman creates has the
# annotation io.kubernetes.cri-o.TTY, in no pod and without Kubernetes on the machine. An OCI hook,
# or a "when" condition in hooks.d, that takes the prefix io.kubernetes.cri-o. for a sign of CRI-O
# matches all of podman's containers. io.container.manager (value libpod) tells the two apart only
# in the state that the runtime gives to hooks: it is not among the annotations that
# "podman inspect" shows.
#
# Output of the last run:
#   podman version 4.3.1
#   "io.kubernetes.cri-o.TTY":"false"
#
# Run as root with apt-get. It creates a container and does not start it. It exits with 1 if the
# behaviour changes.
set -eu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

(cd "$tmp" && apt-get -o APT::Sandbox::User=root -q download podman=4.3.1+ds1-8+deb12u1+b3 \
	conmon=2.1.6+ds1-1 golang-github-containers-common=0.50.1+ds1-4 \
	golang-github-containers-image=5.23.1-4 libgpgme11 libassuan0 libsubid4 libdevmapper1.02.1 crun >/dev/null)
for deb in "$tmp"/*.deb; do
	dpkg -x "$deb" "$tmp/root"
done
LD_LIBRARY_PATH=$(echo "$tmp"/root/usr/lib/*-linux-gnu):$(echo "$tmp"/root/lib/*-linux-gnu)
export LD_LIBRARY_PATH
mkdir -p "$tmp/rootfs"
: >"$tmp/conf"
export CONTAINERS_CONF="$tmp/conf"
podman() {
	"$tmp/root/usr/bin/podman" --root "$tmp/storage" --runroot "$tmp/run" --storage-driver vfs \
		--cgroup-manager cgroupfs --conmon "$tmp/root/usr/bin/conmon" --runtime "$tmp/root/usr/bin/crun" "$@"
}
podman --version
podman create --name finding --network none --ulimit nofile=1024:1024 --rootfs "$tmp/rootfs" /bin/true >/dev/null
keys=$(podman inspect finding --format '{{json .Config.Annotations}}')
podman rm finding >/dev/null
echo "$keys" | grep -o '"io.kubernetes.cri-o.TTY":"[a-z]*"' || {
	echo "changed: the annotations are $keys" >&2
	exit 1
}
if echo "$keys" | grep -q 'io.container.manager'; then
	echo "changed: podman inspect shows io.container.manager: $keys" >&2
	exit 1
fi
