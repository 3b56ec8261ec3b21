#!/bin/sh
# Installs the Debian package by name in a new Debian root, upgrades it while a container runs,
# removes and purges it. Usage: package.sh SUITE OLD.deb NEW.deb, as root.
set -eu

suite=$1 old=$2 new=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
# The mirror that this machine uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep '/debian/$' | head -n 1)
mmdebstrap --quiet --variant=apt --include=podman,runc,busybox-static,iproute2,iputils-ping,procps \
	--aptopt='APT::Sandbox::User ""' "$suite" "$root" "$mirror"
mkdir -p "$root/repo"
: > "$root/etc/apt/sources.list"
rm -f "$root"/etc/apt/sources.list.d/*
echo "deb [trusted=yes] file:/repo ./" > "$root/etc/apt/sources.list.d/lanyard.list"
cp "$old" "$root/repo"
(cd "$root/repo" && dpkg-scanpackages --multiversion . > Packages 2> /dev/null)
cp "$new" "$root/new.deb"
(cd "$root" && mkdir next && mv new.deb next/ && cd next && dpkg-scanpackages . > Packages 2> /dev/null &&
	sed -i 's|^Filename: ./new.deb|Filename: ./next.deb|' Packages && mv new.deb next.deb)

# In namespaces of its own: processes, mounts and networks end with the script.
unshare --mount --pid --net --fork --kill-child --propagation private sh -eu -s "$root" <<'INSIDE'
root=$1
mount --bind "$root" "$root"
mount -t proc proc /proc
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t bpf bpf "$root/sys/fs/bpf"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
ip link set lo up
ip link add eth9 type veth peer name router
unshare --net sleep 300 &
gateway=$!
sleep 0.5
ip link set router netns $gateway
nsenter --net --target $gateway ip addr add 192.168.50.1/24 dev router
nsenter --net --target $gateway ip link set router up
ip link set eth9 up
step() { echo "== $*"; }
absent() { if [ -e "$1" ] || [ -L "$1" ]; then echo "$1 is left" >&2; exit 1; fi; }
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"; }
counters() { inside lanyard ps --format '{{.Container}} {{.Address}} {{.Counters.OutFrames}}'; }

step install by name
inside apt-get -qq update
inside apt-get -qq --yes install lanyard > /dev/null
inside lanyard version --format '{{.Version}}' | grep -F "$(inside dpkg-query -W -f '${Version}' lanyard)"
inside lanyard hooks status
test -L "$root/etc/systemd/system/sockets.target.wants/lanyard.socket"

step attach a container
mkdir -p "$root/srv/rootfs/bin" "$root/srv/rootfs/proc" "$root/srv/rootfs/sys" "$root/srv/rootfs/dev" "$root/srv/rootfs/etc" \
	"$root/srv/rootfs/run" "$root/srv/rootfs/tmp" "$root/etc/containers"
cp "$root/bin/busybox" "$root/srv/rootfs/bin/"
for tool in sh sleep ping; do ln -s busybox "$root/srv/rootfs/bin/$tool"; done
printf '[storage]\ndriver = "vfs"\ngraphroot = "/srv/storage"\nrunroot = "/run/storage"\n' > "$root/etc/containers/storage.conf"
printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n' > "$root/etc/containers/containers.conf"
inside lanyard network create web --parent eth9 --subnet 192.168.50.0/24
inside podman run --detach --name web --network none --annotation io.lanyard.network=web --rootfs /srv/rootfs sleep 300 > /dev/null
inside lanyard verify web
before=$(counters)
inside lanyard doctor

step upgrade with the container running
cp "$root"/next/* "$root/repo/"
rm -f "$root"/repo/lanyard_*.deb
inside apt-get -qq update
inside apt-get -qq --yes install lanyard > /dev/null
inside lanyard version --format '{{.Version}}' | grep -F "$(inside dpkg-query -W -f '${Version}' lanyard)"
nsenter --net --target $gateway ping -c1 -W5 192.168.50.2 > /dev/null
after=$(counters)
echo "before: $before; after: $after"
test "${before% *}" = "${after% *}"
test "${after##* }" -gt "${before##* }"
inside lanyard verify web

step remove, and purge
inside apt-get -qq --yes remove lanyard
absent "$root/usr/bin/lanyard"
test -e "$root/etc/lanyard/networks.d/web.json"
nsenter --net --target $gateway ping -c1 -W5 192.168.50.2 > /dev/null
inside apt-get -qq --yes purge lanyard > /dev/null
absent "$root/etc/lanyard"
absent "$root/etc/containers/containers.conf.d/50-lanyard.conf"
absent "$root/etc/systemd/system/sockets.target.wants/lanyard.socket"
inside podman rm --force --time 0 web > /dev/null
step passed
INSIDE
