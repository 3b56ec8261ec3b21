#!/bin/sh
# Installs the Debian packages that the named subjects of the Makefile need. It installs only
# missing packages, so that a second run does nothing.
set -eu

test_="etcd-server etcd-client gcc libc6-dev iproute2 iputils-ping kmod xz-utils qemu-system-x86 runc crun podman uidmap busybox-static procps systemd dbus libpam-systemd dbus-user-session slirp4netns network-manager ethtool iw lldpd prometheus curl groff-base containernetworking-plugins dnsmasq-base isc-dhcp-server kea-dhcp4-server kea-dhcp6-server fish radvd"
suite="mmdebstrap debian-archive-keyring"
browser="chromium chromium-driver fonts-dejavu-core iproute2 iputils-ping"
demo="iproute2 kmod xz-utils qemu-system-x86 runc busybox-static jq"
bench="debian-archive-keyring dnsmasq-base patchelf netavark iperf3 runc time busybox-static iproute2 util-linux"
generate="clang llvm libbpf-dev"
vagrant="vagrant vagrant-libvirt"
box="vagrant vagrant-libvirt mmdebstrap debian-archive-keyring grub-common grub-pc-bin fdisk e2fsprogs qemu-utils"
package="mmdebstrap debian-archive-keyring dpkg-dev lintian curl iproute2 iputils-ping util-linux"

packages=
for subject in "$@"; do
	case $subject in
	test) packages="$packages $test_" ;;
	browser) packages="$packages $browser" ;;
	suite) packages="$packages $suite" ;;
	demo) packages="$packages $demo" ;;
	bench) packages="$packages $bench" ;;
	generate) packages="$packages $generate" ;;
	package) packages="$packages $package" ;;
	vagrant) packages="$packages $vagrant" ;;
	box) packages="$packages $box" ;;
	*)
		echo "deps.sh: unknown subject \"$subject\": test, browser, suite, demo, bench, generate, package, vagrant, box" >&2
		exit 2
		;;
	esac
done

missing=
for p in $packages; do
	case $(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true) in
	"install ok installed") ;;
	*) missing="$missing $p" ;;
	esac
done
# Tests start these servers themselves. Installed on a host with systemd, they would also run as
# services.
for p in $missing; do
	case $p in
	etcd-server) unit=/etc/systemd/system/etcd.service ;; # as "systemctl mask etcd" does
	isc-dhcp-server | kea-dhcp4-server | kea-dhcp6-server) unit=/etc/systemd/system/$p.service ;;
	radvd) unit=/etc/systemd/system/radvd.service ;;
	*) continue ;;
	esac
	[ "$(id -u)" != 0 ] || [ -e $unit ] || ln -s /dev/null $unit
done
if [ -n "$missing" ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "deps.sh: missing packages, which only root can install:$missing" >&2
		exit 1
	fi
	apt-get update
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
fi

# Docker is unpacked, not installed: an installed daemon would start, and change the machine's
# network.
case " $* " in
*" bench "*)
	[ ! -x bin/docker/usr/sbin/dockerd ] || exit 0
	debs=$(mktemp -d)
	(cd "$debs" && apt-get -o APT::Sandbox::User=root download docker.io containerd tini) ||
		echo "deps.sh: cannot download docker.io, so its driver is not measured: try apt-get update" >&2
	for deb in "$debs"/*.deb; do
		[ ! -e "$deb" ] || dpkg -x "$deb" bin/docker
	done
	rm -r "$debs"
	;;
esac
