#!/bin/sh
# Installs the Debian package by name in a new Debian root with a systemd that runs, upgrades it
# while a container and the service run, removes and purges it. Then it does the same with the rpm,
# by Debian's rpm. Usage: package.sh SUITE OLD.deb NEW.deb RPM, as root.
set -eu

suite=$1 old=$2 new=$3 rpm=$4
docs=$(realpath "$(dirname "$0")/../docs")
work=$(mktemp -d)
group=lanyard-package-$$
# The processes inside end with their namespaces, and then their control groups can be removed.
clean() {
	unshare --mount --propagation private sh -c 'mount -t cgroup2 cgroup2 "$0" || exit
for i in $(seq 50); do
	[ -d "$0/$1" ] || exit 0
	find "$0/$1" -depth -type d -delete 2> /dev/null || sleep 0.2
done
echo "package.sh: the control group $1 is left" >&2' "$work" "$group"
	rm -rf "$work"
}
trap clean EXIT
root=$work/root
# The mirror that this machine uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep '/debian/$' | head -n 1)
mmdebstrap --quiet --variant=apt --dpkgopt=force-unsafe-io --include=systemd-sysv,dbus,rpm,podman,podman-compose,ansible-core,python3-apt,runc,busybox-static,iproute2,iputils-ping,procps \
	--aptopt='APT::Sandbox::User ""' "$suite" "$root" "$mirror"
mkdir -p "$root/repo"
: > "$root/etc/apt/sources.list"
rm -f "$root"/etc/apt/sources.list.d/*
echo "deb [trusted=yes] file:/repo ./" > "$root/etc/apt/sources.list.d/lanyard.list"
cp "$old" "$root/repo"
cp "$rpm" "$root/lanyard.rpm"
(cd "$root/repo" && dpkg-scanpackages --multiversion . > Packages 2> /dev/null)
cp "$new" "$root/new.deb"
(cd "$root" && mkdir next && mv new.deb next/ && cd next && dpkg-scanpackages . > Packages 2> /dev/null &&
	sed -i 's|^Filename: ./new.deb|Filename: ./next.deb|' Packages && mv new.deb next.deb)

# In namespaces of its own: processes, mounts and networks end with the script.
unshare --mount --pid --net --fork --kill-child --propagation private sh -eu -s "$root" "$docs" "$group" <<'INSIDE'
root=$1 docs=$2
mount -t proc proc /proc
ip link set lo up
ip link add eth9 type veth peer name router
unshare --net sleep 900 &
gateway=$!
sleep 0.5
ip link set router netns $gateway
nsenter --net --target $gateway ip addr add 192.168.50.1/24 dev router
nsenter --net --target $gateway ip link set router up
ip link set eth9 up

# systemd is process 1 of namespaces inside, below a control group of its own. It sees no devices of
# this machine, and cannot change the kernel's settings, but those of its network.
mkdir "$root/cgroup"
mount -t cgroup2 cgroup2 "$root/cgroup"
group=$root/cgroup/$3
mkdir "$group"
cat > "$root/start-systemd" <<'BOOT'
echo 0 > "$2/cgroup.procs"
exec unshare --cgroup --mount --pid --uts --ipc --fork --kill-child sh -eu -c '
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t bpf bpf sys/fs/bpf
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --bind /proc/sys/net proc/sys/net
for dir in dev run tmp; do mount -t tmpfs tmpfs $dir; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for node in null zero full random urandom tty; do : > dev/$node; mount --bind /dev/$node dev/$node; done
until [ -e moved ]; do sleep 0.1; done
mkdir former
pivot_root . former # not chroot: "podman exec" enters the root of the mount namespace
cd /
umount --lazy /former
exec env -i container=lanyard /lib/systemd/systemd --system --unit=multi-user.target
' boot "$1"
BOOT
for unit in getty.target console-getty.service dev-hugepages.mount dev-mqueue.mount; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
sh "$root/start-systemd" "$root" "$group" > "$root/boot.log" 2>&1 &
booting=$!
until systemd=$(cat /proc/$booting/task/$booting/children) && [ -n "$systemd" ]; do sleep 0.1; done
# A group with delegated controllers has no processes: systemd leaves it, and unshare has to.
echo $booting > "$root/cgroup/cgroup.procs"
: > "$root/moved"
step() { echo "== $*"; }
absent() { if [ -e "$1" ] || [ -L "$1" ]; then echo "$1 is left" >&2; exit 1; fi; }
inside() {
	mkdir -p "$group/visitors"
	sh -c 'echo 0 > "$0/visitors/cgroup.procs"; exec "$@"' "$group" \
		nsenter --target $systemd --mount --pid --cgroup --uts --ipc --root --wd \
		env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive "$@"
}
property() { inside systemctl show --property "$1" --value lanyard.service; }
counters() { inside lanyard ps --format '{{.Container}} {{.Address}} {{.Counters.OutFrames}}'; }

step boot
for i in $(seq 120); do
	inside systemctl is-active --quiet multi-user.target 2> /dev/null && break
	[ $i != 120 ] && kill -0 $booting || { cat "$root/boot.log"; inside systemctl --no-pager list-jobs; exit 1; } >&2
	sleep 1
done

step install by name
inside apt-get -qq update
inside apt-get -qq --yes install lanyard > /dev/null
inside lanyard version --format '{{.Version}}' | grep -F "$(inside dpkg-query -W -f '${Version}' lanyard)"
inside lanyard hooks status
test -L "$root/etc/systemd/system/sockets.target.wants/lanyard.socket"
inside systemctl is-active lanyard.socket
test "$(property ActiveState)" = inactive

step attach a container
mkdir -p "$root/srv/rootfs/bin" "$root/srv/rootfs/proc" "$root/srv/rootfs/sys" "$root/srv/rootfs/dev" "$root/srv/rootfs/etc" \
	"$root/srv/rootfs/run" "$root/srv/rootfs/tmp" "$root/etc/containers"
cp "$root/bin/busybox" "$root/srv/rootfs/bin/"
for tool in sh sleep ping; do ln -s busybox "$root/srv/rootfs/bin/$tool"; done
printf '[storage]\ndriver = "vfs"\ngraphroot = "/srv/storage"\nrunroot = "/run/storage"\n' > "$root/etc/containers/storage.conf"
printf '[containers]\npids_limit = 0\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n[engine]\nevents_logger = "file"\nruntime = "runc"\n' > "$root/etc/containers/containers.conf"
inside lanyard network create web50 --parent eth9 --subnet 192.168.50.0/24
inside podman run --detach --name web --network none --annotation io.lanyard.network=web50 --rootfs /srv/rootfs sleep 300 > /dev/null
inside lanyard verify web50
test "$(property ActiveState)" = active
inside journalctl --sync
test "$(inside journalctl --quiet --unit lanyard --output cat LANYARD_NETWORK=web50 LANYARD_VERDICT=ok | wc -l)" = 1
inside lanyard doctor

step page and metrics, by the drop-in of docs/monitoring.md
mkdir "$root/etc/systemd/system/lanyard.service.d"
# lldpd is not installed.
sed -n '/^    \[Service\]/,/^$/s/^    //p' "$docs/monitoring.md" | grep -v SupplementaryGroups \
	> "$root/etc/systemd/system/lanyard.service.d/override.conf"
inside systemctl daemon-reload
inside systemctl restart lanyard.service
fetch() { curl --silent --unix-socket "/proc/${systemd% }/root/run/lanyard/$1" "http://localhost/$2"; }
# agree waits until page, metrics and ps show a verdict.
agree() {
	for i in $(seq 60); do
		page=$(fetch web.sock map.json | sed -n 's/.*"verdict": "\([a-z-]*\)".*/\1/p')
		metrics=$(fetch metrics.sock metrics | sed -n 's/^lanyard_attachment_verdict{.*verdict="\([a-z-]*\)".*/\1/p')
		said="$page $metrics $(inside lanyard ps --format '{{.Verdict}}')"
		[ "$said" != "$1 $1 $1" ] || return 0
		sleep 1
	done
	echo "page, metrics and ps say: $said; want $1" >&2
	return 1
}
agree ok
nsenter --net --target $gateway ip addr del 192.168.50.1/24 dev router
agree gateway-silent
inside lanyard ps 2>&1 | grep -F ': gateway-silent since '
inside sh -c 'lanyard doctor | grep -F "gateway-silent: gateway 192.168.50.1 did not answer"'
nsenter --net --target $gateway ip addr add 192.168.50.1/24 dev router
agree ok
inside journalctl --sync
test "$(inside journalctl --quiet --unit lanyard --output cat LANYARD_VERDICT=gateway-silent | wc -l)" = 1
rm -r "$root/etc/systemd/system/lanyard.service.d"
inside systemctl daemon-reload
inside systemctl restart lanyard.service
service=$(property MainPID)
before=$(counters)

# example prints a file of docs/engines.md, by the comment on its first line.
example() { sed -n "\\|^    # $1|,/^[^ ]/s/^    //p" "$docs/engines.md"; }

# podman 4 has no Quadlet, and the podman-compose of that time no "network_mode: none".
if [ -e "$root/usr/lib/systemd/system-generators/podman-system-generator" ]; then
	tar --directory "$root/srv/rootfs" --create --file "$root/image.tar" .
	inside podman import --quiet --change 'CMD ["sleep","300"]' /image.tar docker.io/library/nginx:stable > /dev/null

	step compose file of docs/engines.md
	mkdir "$root/srv/compose"
	example compose.yaml > "$root/srv/compose/compose.yaml"
	inside env -C /srv/compose podman-compose up --detach
	test "$(inside lanyard ps --quiet | wc -l)" = 2
	inside lanyard verify --all
	inside env -C /srv/compose podman-compose down --timeout 0
	test "$(inside lanyard ps --quiet | wc -l)" = 1

	step Quadlet unit of docs/engines.md
	mkdir -p "$root/etc/containers/systemd"
	example /etc/containers/systemd/web.container > "$root/etc/containers/systemd/web.container"
	inside systemctl daemon-reload
	for verb in start restart; do
		inside systemctl $verb web.service
		inside lanyard verify --all
		test "$(inside lanyard ps --quiet | wc -l)" = 2
	done
	inside systemctl stop web.service
	test "$(inside lanyard ps --format '{{.Network}}')" = web50
	rm "$root/etc/containers/systemd/web.container"

	step Ansible playbook of docs/engines.md
	nsenter --net --target $gateway ip addr add 192.168.51.1/24 dev router
	mkdir "$root/srv/play"
	cp "$root"/repo/lanyard_*.deb "$root/srv/play/lanyard.deb"
	for file in playbook.yaml /etc/containers/systemd/web.container; do
		example $file | sed 's|web50|play51|
			s|eth0.50 --subnet 192.168.50.0/24|eth9 --share-parent --subnet 192.168.51.0/24|
			s|hosts: lan|hosts: localhost|' > "$root/srv/play/${file##*/}"
	done
	for changed in 'changed=[1-9]' changed=0; do
		inside env -C /srv/play LANG=C.UTF-8 ansible-playbook --connection local playbook.yaml > "$root/play.log" || { cat "$root/play.log"; exit 1; } >&2
		grep -qE "$changed .*failed=0" "$root/play.log" || { cat "$root/play.log"; exit 1; } >&2
	done
	inside lanyard verify play51
	inside systemctl stop web.service
	inside lanyard network rm play51
fi

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
test "$(property ActiveState)" = active
test "$(property MainPID)" != "$service"
inside lanyard network inspect web50 | grep -qF 192.168.50.2
inside lanyard verify web50

step remove, and purge
inside apt-get -qq --yes remove lanyard
absent "$root/usr/bin/lanyard"
test "$(property ActiveState)" = inactive
inside sh -c '! systemctl is-active lanyard.socket'
test -e "$root/etc/lanyard/networks.d/web50.json"
nsenter --net --target $gateway ping -c1 -W5 192.168.50.2 > /dev/null
inside apt-get -qq --yes purge lanyard > /dev/null
absent "$root/etc/lanyard"
absent "$root/etc/containers/containers.conf.d/50-lanyard.conf"
absent "$root/etc/systemd/system/sockets.target.wants/lanyard.socket"
inside podman rm --force --time 0 web > /dev/null

step rpm
force=$(inside rpm --help | grep -o -e --force-debian || true) # bookworm's rpm asks for it
inside rpm --install --nodeps $force /lanyard.rpm
inside lanyard gc # the container of before has ended without a hook
inside lanyard network create web50 --parent eth9 --subnet 192.168.50.0/24
inside systemctl is-enabled lanyard.socket
inside systemctl start lanyard.socket
inside podman run --detach --name web --network none --annotation io.lanyard.network=web50 --rootfs /srv/rootfs sleep 300 > /dev/null
inside lanyard verify web50
test "$(property ActiveState)" = active
inside rpm --erase $force lanyard
absent "$root/usr/bin/lanyard"
absent "$root/etc/systemd/system/sockets.target.wants/lanyard.socket"
test "$(property ActiveState)" = inactive
step passed
INSIDE
