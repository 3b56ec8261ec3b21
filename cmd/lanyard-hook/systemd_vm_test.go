//go:build vm

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// installed is a system with Lanyard installed, by "make install" or from its package: the files of the
// virtual machine, and a systemd that is process 1 of its own namespaces, with the host
// of a lab as its network. Its files in memory end with it, as at a reboot.
type installed struct {
	*testenv.Lab
	t      *testing.T
	dir    string // files that survive a reboot, and end with the test
	cgroup string
	cmd    *exec.Cmd // nil while the system is down
	pid    int       // of its process 1
	log    *os.File
	inside string   // pid inside of podman's container
	others []string // pids inside of containers that are not podman's
	masked []string // units that systemd does not start
}

// bootScript prepares new namespaces for systemd. It mounts over everything that systemd
// would write or clean up at boot: systemd-tmpfiles empties /tmp.
const bootScript = `set -e
read -r go
mount --make-rshared /
mount --bind "$1/etc" /etc/lanyard
mount --bind "$1/units" /etc/systemd/system
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
for dir in /run /tmp /var/tmp /var/log; do mount -t tmpfs tmpfs "$dir"; done
for unit in $2; do
	ln -sf /dev/null "/etc/systemd/system/$unit"
done
exec env container=lanyard /lib/systemd/systemd --system --unit=multi-user.target
`

// masked are units that the test does not need, or that would change the machine.
var masked = []string{
	"systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
	"systemd-tmpfiles-setup.service", "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-clean.timer",
	"systemd-modules-load.service", "systemd-sysctl.service", "systemd-binfmt.service",
	"proc-sys-fs-binfmt_misc.automount",
	"systemd-random-seed.service", "systemd-sysusers.service", "systemd-update-utmp.service",
	"systemd-update-utmp-runlevel.service",
	"systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-machine-id-commit.service",
	"systemd-firstboot.service",
	"systemd-repart.service", "kmod-static-nodes.service", "modprobe@.service", "systemd-remount-fs.service",
	"remote-fs.target",
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
	"sys-kernel-config.mount",
	"sys-fs-fuse-connections.mount", "systemd-ask-password-console.path", "systemd-ask-password-wall.path",
	"cryptsetup.target", "veritysetup.target", "integritysetup.target", "getty.target",
}

func newInstalled(t *testing.T) *installed {
	t.Helper()
	mustBeInVM(t)
	out, err := exec.Command("make", "-C", "../..", "-o", "build", "install").CombinedOutput()
	if err != nil {
		t.Fatalf("make install: %v: %s", err, out)
	}
	t.Cleanup(func() { // other tests run podman without hooks
		if out, err := exec.Command("/usr/local/bin/lanyard", "hooks", "remove").CombinedOutput(); err != nil {
			t.Errorf("lanyard hooks remove: %v: %s", err, out)
		}
	})
	return newSystem(t, testenv.Config{VLANs: []uint16{50, 60, 70}})
}

// newSystem makes the system, without Lanyard.
func newSystem(t *testing.T, c testenv.Config) *installed {
	t.Helper()
	s := &installed{Lab: testenv.NewLab(t, c), t: t, dir: t.TempDir(), cgroup: "/sys/fs/cgroup/lanyard-systemd",
		masked: masked}
	for _, sub := range []string{"etc", "units"} {
		must(t, os.Mkdir(filepath.Join(s.dir, sub), 0o755))
	}
	must(t, os.MkdirAll("/etc/lanyard", 0o755))
	var err error
	s.log, err = os.Create(filepath.Join(s.dir, "systemd.log"))
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() && s.cmd != nil {
			said, _ := os.ReadFile(s.log.Name())
			t.Logf("systemd says:\n%s", said)
			out, _ := s.as(0, "ps -ef; journalctl --no-pager -b -u 'lanyard*'; systemctl --no-pager status 'lanyard*'; "+
				"systemctl --no-pager --failed; journalctl --no-pager -b -n 60")
			t.Logf("the journal:\n%s", out)
		}
		s.kill()
		s.log.Close()
	})
	return s
}

// override writes a drop-in as "systemctl edit" does, and restarts the service with it.
func (s *installed) override(text string) {
	s.t.Helper()
	dir := filepath.Join(s.dir, "units/lanyard.service.d")
	must(s.t, os.MkdirAll(dir, 0o755))
	must(s.t, os.WriteFile(filepath.Join(dir, "override.conf"), []byte(text), 0o644))
	s.mustAs(0, "systemctl daemon-reload; systemctl restart lanyard.service")
}

// documentedOptions is the drop-in of docs/monitoring.md that gives the service a page and metrics.
func documentedOptions(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/monitoring.md")
	must(t, err)
	found := regexp.MustCompile(`(?s)\n    (\[Service\]\n    ExecStart=\n.*?)\n\n`).FindSubmatch(text)
	if found == nil {
		t.Fatal("docs/monitoring.md has no drop-in for the service")
	}
	return strings.ReplaceAll(string(found[1]), "\n    ", "\n") + "\n"
}

// get asks for a page at a socket of the system.
func (s *installed) get(socket, path string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/%d/root/run/lanyard/%s", s.pid, socket))
		}}}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return "", err
	}
	got, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err == nil && got.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s at %s: %s: %s", path, socket, got.Status, body)
	}
	return string(body), err
}

// boot starts systemd and waits for its default units.
func (s *installed) boot() {
	s.t.Helper()
	must(s.t, os.MkdirAll(s.cgroup, 0o755))
	group, err := os.Open(s.cgroup)
	must(s.t, err)
	defer group.Close()
	s.cmd = exec.Command("unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child",
		"sh", "-c", bootScript, "boot", s.dir, strings.Join(s.masked, " "))
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	stdin, err := s.cmd.StdinPipe()
	must(s.t, err)
	must(s.t, s.Host.Start(s.cmd))
	testenv.Eventually(s.t, "namespaces", func() error {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.cmd.Process.Pid))
		if err == nil {
			s.pid, err = strconv.Atoi(strings.TrimSpace(string(children)))
		}
		return err
	})
	// systemd cannot delegate controllers in a group that has processes (cgroups(7), "no
	// internal processes"): unshare leaves the group, and systemd creates a group for
	// itself.
	must(s.t, os.WriteFile("/sys/fs/cgroup/cgroup.procs", fmt.Append(nil, s.cmd.Process.Pid), 0))
	_, err = stdin.Write([]byte("\n"))
	must(s.t, err)
	patiently(s.t, "systemd", func() error {
		out, err := s.as(0, "systemctl is-active multi-user.target")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}

// patiently waits longer than Eventually, for slow operations on an emulated machine.
func patiently(t *testing.T, what string, ask func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); <-time.After(500 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
	}
	t.Fatalf("waited three minutes for %s: %v", what, err)
}

// kill kills systemd and all its processes, like a power cut.
func (s *installed) kill() {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	if err := unix.Kill(s.pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		s.t.Errorf("kill systemd: %v", err)
	}
	s.ended()
}

// ended waits for the end of systemd, and removes its control groups.
func (s *installed) ended() {
	s.t.Helper()
	s.cmd.Wait() // ended by any signal
	s.cmd = nil
	// The group too: a group with delegated controllers must not have processes.
	testenv.Eventually(s.t, "the end of what systemd ran", func() error {
		return exec.Command("find", s.cgroup, "-depth", "-type", "d", "-delete").Run()
	})
}

// as runs a line of shell inside, as root or as a user who logs in.
func (s *installed) as(uid int, line string) (string, error) {
	args := []string{"--target", strconv.Itoa(s.pid), "--mount", "--pid", "--cgroup", "--net", "--uts", "--ipc", "--"}
	if uid == 0 {
		args = append(args, "sh", "-c", line)
	} else {
		args = append(args, "su", "--login", userNames[uid], "--command", line)
	}
	f, err := os.CreateTemp(s.dir, "output") // a running container may keep it open
	if err != nil {
		return "", err
	}
	defer f.Close()
	// Below systemd's own group: it cannot move a process from outside of it into the
	// group of a session (nsdelegate, cgroups(7)).
	group, err := visitors(s.cgroup)
	if err != nil {
		return "", err
	}
	defer group.Close()
	cmd := exec.Command("nsenter", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	// Commands that never end are stopped here.
	stop := time.AfterFunc(4*time.Minute, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	if err := cmd.Start(); err != nil {
		return "", err
	}
	err = cmd.Wait()
	out, rerr := os.ReadFile(f.Name())
	return string(out), errors.Join(err, rerr)
}

// visitors is the control group of processes from outside.
func visitors(root string) (*os.File, error) {
	dir := filepath.Join(root, "visitors")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.Open(dir)
}

func (s *installed) mustAs(uid int, line string) string {
	s.t.Helper()
	out, err := s.as(uid, line)
	if err != nil {
		s.t.Fatalf("uid %d runs %q: %v: %s", uid, line, err, out)
	}
	return strings.TrimSpace(out)
}

// wants checks the output of a command of root.
func (s *installed) wants(line, want string) {
	s.t.Helper()
	if out, err := s.as(0, line); strings.TrimSpace(out) != want {
		s.t.Errorf("%q says %q, %v; want %q", line, strings.TrimSpace(out), err, want)
	}
}

// row is a container's interface in the output of "lanyard ps".
type row struct {
	Container string
	State     hook.State
	Addresses []string
	Verdict   verify.Code
	Owner     uint32 `json:"owner_uid"`
}

func (s *installed) rows() (rows []row) {
	s.t.Helper()
	must(s.t, json.Unmarshal([]byte(s.mustAs(0, "lanyard ps --format json")), &rows))
	return rows
}

// processes starts processes of alice, as containers of a rootless engine.
func (s *installed) processes(n int) (pids []string) {
	s.t.Helper()
	out := s.mustAs(0, fmt.Sprintf(`for i in $(seq %d); do
	setpriv --reuid %d --regid %[2]d --clear-groups unshare --user --map-root-user --net sleep 600 \
		>/dev/null 2>&1 </dev/null &
	until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
	echo $!
done`, n, alice))
	pids = strings.Fields(out)
	s.others = append(s.others, pids...)
	return pids
}

// endOthers ends these processes without poststop.
func (s *installed) endOthers() {
	s.t.Helper()
	s.mustAs(0, "kill -9 "+strings.Join(s.others, " "))
	s.others = nil
}

// hookLine returns a line of shell that runs the installed hook for a process of alice.
func hookLine(id, pid, network string) string {
	return fmt.Sprintf(`setpriv --reuid %d --regid %[1]d --clear-groups \
	/usr/local/libexec/lanyard/lanyard-hook --timeout 2m createRuntime <<'END'
{"ociVersion":"1.0.2","id":%[2]q,"status":"creating","pid":%[3]s,"bundle":"/",
	"annotations":{"io.lanyard.network":%[4]q}}
END
`, alice, id, pid, network)
}

// alicesPodman is alice's command. The installed drop-in names the hooks.
const alicesPodman = "podman --storage-driver vfs "

// TestSystemd tests the installed units under systemd: sockets, restarts, a stop during
// work, hardening, logouts and reboots.
func TestSystemd(t *testing.T) {
	testenv.OnOneKernel(t, "6.1")
	s := newInstalled(t)
	s.AddGateway(50, "192.168.50.1/24", "fd50::1/64")
	home, err := os.MkdirTemp("/srv", "lanyard-test") // no other mount is over it
	must(t, err)
	t.Cleanup(func() { testenv.RemoveAll(t, home) })
	mustAccount(t, alice, home)
	s.boot()
	s.mustAs(0, "systemctl enable --no-reload lanyard-restore.service; systemctl enable --now lanyard.socket")
	s.wants("systemctl is-active lanyard.socket", "active")
	s.wants("systemctl is-active lanyard.service || true", "inactive")
	s.mustAs(0, "lanyard network create web50 --parent eth9.50 --subnet 192.168.50.0/24 --subnet fd50::/64 --allow-user "+
		"alice --max-per-user 40")
	for _, phase := range []struct {
		name string
		do   func()
	}{
		{"exposure", s.exposure},
		{"activation", func() { s.activation(home) }},
		{"root", s.root},
		{"restarts", s.restarts},
		{"finishes", s.finishes},
		{"crashes", s.crashes},
		{"logout", s.logout},
		{"reboot", func() { s.reboot(home) }},
	} {
		began := time.Now()
		phase.do()
		t.Logf("%s: %v", phase.name, time.Since(began).Round(time.Second))
	}
}

// exposure checks what systemd says about the unit's confinement, as the threat model
// states it.
func (s *installed) exposure() {
	s.t.Helper()
	out := s.mustAs(0, "systemd-analyze --no-pager security lanyard.service")
	found := regexp.MustCompile(`Overall exposure level for lanyard.service: (\d+\.\d)`).FindStringSubmatch(out)
	if found == nil {
		s.t.Fatalf("systemd-analyze says %s", out)
	}
	if level, err := strconv.ParseFloat(found[1], 64); err != nil || level >= 3 {
		s.t.Errorf("the exposure is %s, %v; want less than 3.0", found[1], err)
	}
	if out := s.mustAs(0, "systemd-analyze --man=no verify lanyard.service lanyard.socket lanyard-guards.service "+
		"lanyard-restore.service 2>&1 | grep -i lanyard || true"); out != "" {
		s.t.Errorf("systemd-analyze verify says %s", out)
	}
}

// activation checks that alice's podman starts the service by its socket.
func (s *installed) activation(home string) {
	s.t.Helper()
	mustRootfs(s.t, home, alice)
	s.mustAs(0, "loginctl enable-linger alice")
	s.mustAs(alice, alicesPodman+"run --detach --name a1 --network none --cap-add NET_RAW --annotation "+
		"io.lanyard.network=web50 --rootfs ~/rootfs sleep 600")
	s.wants("systemctl is-active lanyard.service", "active")
	if r := s.rows(); len(r) != 1 || r[0].State != hook.Attached || r[0].Verdict != verify.OK || r[0].Owner != alice {
		s.t.Errorf("attached are %+v", r)
	}
	out := s.mustAs(alice, "lanyard hooks status")
	if !strings.Contains(out, "1 with an annotation of Lanyard, all attached") {
		s.t.Errorf("the status of alice's hooks is %s", out)
	}
	// The kernel reports its capabilities: five, and it cannot get more.
	status := s.mustAs(0, "cat /proc/$(systemctl show --property MainPID --value lanyard)/status")
	const five = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE |
		1<<unix.CAP_BPF
	for _, want := range []string{fmt.Sprintf("CapEff:\t%016x\n", five), fmt.Sprintf("CapBnd:\t%016x\n", five),
		"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(status, want) {
			s.t.Errorf("the service's status lacks %q: %s", want, status)
		}
	}
	s.inside = s.mustAs(alice, alicesPodman+"inspect --format '{{.State.Pid}}' a1")
	s.pings()
}

// root checks that the confined service attaches root's containers: to a VLAN sub-interface that it
// creates, with an interface and a route of the host's, and with leases in etcd.
func (s *installed) root() {
	s.t.Helper()
	gw := s.AddGateway(70, "192.168.70.1/24", "fd70::1/64")
	s.slaac(gw)
	if os.Getenv("LANYARD_SUITE") != "forky" { // which has no ISC server
		s.dhcp(gw)
	}
	s.allowEtcd()
	s.mustAs(0, "lanyard network create web70 --parent eth9.70 --subnet 192.168.70.0/24 --host-access --leases etcd")
	got, end := s.attached("web70")
	service := s.mustAs(0, "systemctl show --property MainPID --value lanyard")
	if len(got) != 1 || strconv.Itoa(got[0].Hook.Pid) != strings.TrimSpace(service) || got[0].Verdict.Code != verify.OK {
		s.t.Fatalf("attached is %+v; the service has the pid %s", got, service)
	}
	s.mustAs(0, "ping -n -c1 -W5 "+got[0].Addrs[0].Addr().String())
	s.wants("journalctl --sync && journalctl --no-pager -u lanyard LANYARD_NETWORK=web70 LANYARD_CONTAINER=root1 "+
		"LANYARD_PARENT=eth9.70 LANYARD_VERDICT=ok --output cat | cut -d ' ' -f 1", "attached")
	end()
	s.mustAs(0, "lanyard network rm web70")
}

// attached attaches root's container "root1" to a network, by the service. end ends it.
func (s *installed) attached(network string) (got []hook.Attachment, end func()) {
	s.t.Helper()
	_, end = s.attach("root1", network)
	must(s.t, json.Unmarshal([]byte(s.mustAs(0, "lanyard inspect root1")), &got))
	return got, end
}

// attach attaches a container of root to a network, and returns its pid inside. end ends it.
func (s *installed) attach(id, network string) (pid string, end func()) {
	s.t.Helper()
	pid = s.mustAs(0, `unshare --net sleep 1800 >/dev/null 2>&1 </dev/null &
	until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
	echo $!`)
	call := fmt.Sprintf(`echo '{"ociVersion":"1.0.2","id":%q,"pid":%s,"annotations":{"io.lanyard.network":%q}}' |
		/usr/local/libexec/lanyard/lanyard-hook `, id, pid, network)
	if out := s.mustAs(0, call+"createRuntime"); out != "" {
		s.t.Errorf("the hook says %s", out)
	}
	return pid, func() { s.mustAs(0, "kill -9 "+pid+"; "+call+"poststop") }
}

// slaac checks that the confined service, which may use no IPv6 socket, hears a router.
func (s *installed) slaac(gw *testenv.Station) {
	s.t.Helper()
	gw.ServeRadvd("AdvDefaultLifetime 120; prefix fd70::/64 { };")
	s.mustAs(0, "lanyard network create auto70 --parent eth9.70 --subnet 192.168.70.0/24 --ipv6-mode slaac")
	got, end := s.attached("auto70")
	if len(got) != 1 || len(got[0].Verdicts) != 2 || got[0].Verdicts[1].Code != verify.OK {
		s.t.Errorf("attached with an address from a router is %+v", got)
	}
	end()
	s.mustAs(0, "lanyard network rm auto70")
}

// dhcp checks that the confined service, which may use no IP socket, gets leases of servers for a container of
// root and for a guarded one of alice's podman, and that it renews them, also after a restart.
func (s *installed) dhcp(gw *testenv.Station) {
	s.t.Helper()
	server := gw.ServeISC("192.168.70.0", "255.255.255.0", "192.168.70.100 192.168.70.150",
		"option routers 192.168.70.1; option domain-name-servers 192.168.70.5;")
	gw.ServeISC6("fd70::/64", "fd70::100 fd70::1ff")
	s.mustAs(0, "lanyard network create both70 --parent eth9.70 --ipam dhcp --ipv6-mode dhcp --deadline 4s")
	got, end := s.attached("both70")
	if len(got) != 1 || got[0].DHCP == nil || got[0].DHCP6 == nil || len(got[0].Verdicts) != 2 ||
		got[0].Verdict.Code != verify.OK {
		s.t.Errorf("attached with leases of servers is %+v", got)
	}
	s.renewed("root1")
	s.mustAs(0, "systemctl restart lanyard")
	s.renewed("root1")
	end()
	server.WantLog("DHCPRELEASE of " + got[0].Addrs[0].Addr().String())
	s.mustAs(0, "lanyard network rm both70")

	s.mustAs(0, "lanyard network create user70 --parent eth9.70 --ipam dhcp --ipv6-mode slaac "+
		"--allow-user alice")
	id := s.mustAs(alice, alicesPodman+"run --detach --network none --cap-add NET_RAW --annotation "+
		"io.lanyard.network=user70 --rootfs ~/rootfs sleep 600")
	a := s.inspected(id)
	if a.Guard == nil || a.DHCP == nil || len(a.Verdicts) != 2 || a.Verdict.Code != verify.OK {
		s.t.Errorf("alice's container is %+v", a)
	}
	inside := s.mustAs(alice, alicesPodman+"exec "+id+" cat /etc/resolv.conf")
	if !strings.Contains(inside, "nameserver 192.168.70.5") {
		s.t.Errorf("its resolv.conf is %s", inside)
	}
	s.renewed(id)
	pid := s.mustAs(alice, alicesPodman+"inspect --format '{{.State.Pid}}' "+id)
	s.mustAs(0, "nsenter --net=/proc/"+pid+"/ns/net ping -n -c1 -W5 192.168.70.1")
	s.mustAs(alice, alicesPodman+"rm --force --time 0 "+id)
	server.WantLog("DHCPRELEASE of " + a.Addrs[0].Addr().String())
	s.mustAs(0, "lanyard network rm user70")
}

// inspected returns the only attachment of a container.
func (s *installed) inspected(container string) hook.Attachment {
	s.t.Helper()
	var got []hook.Attachment
	must(s.t, json.Unmarshal([]byte(s.mustAs(0, "lanyard inspect "+container)), &got))
	if len(got) != 1 {
		s.t.Fatalf("container %s has %+v", container, got)
	}
	return got[0]
}

// renewed waits until the service has renewed all leases of a container.
func (s *installed) renewed(container string) {
	s.t.Helper()
	before := s.inspected(container)
	patiently(s.t, "renewed leases", func() error {
		a := s.inspected(container)
		for _, f := range hook.Families {
			old, now := before.ServerLease(f), a.ServerLease(f)
			if old != nil && (now.Lost != "" || now.Expires <= old.Expires) {
				return fmt.Errorf("it has %+v", now)
			}
		}
		return nil
	})
}

// allowEtcd starts etcd at an IP address of the host, and a service that may reach it, as
// docs/leases.md says. Without the drop-in, "lanyard leases check" sends the administrator to the
// log, which names it.
func (s *installed) allowEtcd() {
	s.t.Helper()
	e := testenv.StartEtcdCluster(s.t, map[string]*testenv.Station{"127.0.0.1": {Namespace: s.Host}})[0]
	must(s.t, os.WriteFile(filepath.Join(s.dir, "etc/leases.json"), fmt.Appendf(nil, `{"endpoints": [%q]}`, e.Endpoint),
		0o600))
	s.mustAs(0, "systemctl stop lanyard.service")
	if out, err := s.as(0, "lanyard leases check"); err == nil || !strings.Contains(out, "journalctl -u lanyard") {
		s.t.Errorf("leases check without the drop-in: %v: %s", err, out)
	}
	s.mustAs(0, "journalctl --no-pager -b -u lanyard | grep -q 'lanyard.service.d.*docs/leases.md'")
	dir := filepath.Join(s.dir, "units/lanyard.service.d")
	must(s.t, os.MkdirAll(dir, 0o755))
	must(s.t, os.WriteFile(filepath.Join(dir, "etcd.conf"),
		[]byte("[Service]\nRestrictAddressFamilies=AF_INET AF_INET6\nIPAddressAllow=127.0.0.1\n"), 0o644))
	s.mustAs(0, "systemctl daemon-reload; systemctl stop lanyard.service; lanyard leases check")
}

// pings pings the gateway from alice's container.
func (s *installed) pings() {
	s.t.Helper()
	for _, addr := range []string{"192.168.50.1", "fd50::1"} {
		s.mustAs(0, "nsenter --net=/proc/"+s.inside+"/ns/net ping -n -c1 -W5 "+addr)
	}
}

// restarts checks that no attach fails while the service restarts repeatedly.
func (s *installed) restarts() {
	s.t.Helper()
	const attaches, restarts = 6, 2
	var script strings.Builder
	script.WriteString("failed=0\n")
	for i, pid := range s.processes(attaches) {
		fmt.Fprintf(&script, "%s[ $? = 0 ] || failed=1\n", hookLine(fmt.Sprintf("r%d", i), pid, "web50"))
	}
	script.WriteString("exit $failed\n")
	done := make(chan error, 1)
	go func() {
		out, err := s.as(0, script.String())
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		done <- err
	}()
	first := s.mustAs(0, "systemctl show --property MainPID --value lanyard")
	for range restarts {
		s.mustAs(0, "systemctl restart lanyard")
	}
	if now := s.mustAs(0, "systemctl show --property MainPID --value lanyard"); now == first {
		s.t.Errorf("the service is %s still", now)
	}
	if err := <-done; err != nil {
		s.t.Errorf("attaches during restarts: %v", err)
	}
	attached := 0
	for _, r := range s.rows() {
		if r.State == hook.Attached && r.Verdict == verify.OK {
			attached++
		}
	}
	if attached != attaches+1 {
		s.t.Errorf("%d are attached, want %d: %+v", attached, attaches+1, s.rows())
	}
	s.pings()
	s.endOthers()
}

// slow is a network whose gateway is silent, so that attaches take long.
const slow = "slow60"

// begin starts an attach and waits for its intent.
func (s *installed) begin(id string) (done chan string) {
	s.t.Helper()
	line := hookLine(id, s.processes(1)[0], slow)
	done = make(chan string, 1)
	go func() {
		out, err := s.as(0, line)
		if err != nil {
			out = fmt.Sprint(err, ": ", out)
		}
		done <- out
	}()
	patiently(s.t, "the intent", func() error {
		for _, r := range s.rows() {
			if r.Container == id && r.State == hook.Attaching {
				return nil
			}
		}
		return errors.New("it is not there")
	})
	return done
}

// finishes checks that the service finishes its requests when it is told to stop.
func (s *installed) finishes() {
	s.t.Helper()
	s.mustAs(0, "lanyard network create "+slow+" --parent eth9.60 --subnet 192.168.60.0/24 "+
		"--allow-user alice --deadline 4s")
	done := s.begin("slow1")
	s.mustAs(0, "systemctl stop lanyard.service")
	if out := <-done; out != "" {
		s.t.Errorf("the hook says %q", out)
	}
	found := false
	for _, r := range s.rows() {
		found = found || r.Container == "slow1" && r.State == hook.Attached
	}
	if !found {
		s.t.Errorf("attached are %+v", s.rows())
	}
	s.wants("systemctl show --property Result --value lanyard", "success")
}

// crashes kills the service during an attach, and checks that it restarts, that it undoes the attach,
// and that the hook has it attach again.
func (s *installed) crashes() {
	s.t.Helper()
	s.mustAs(0, "systemctl start lanyard")
	done := s.begin("slow2")
	s.mustAs(0, "systemctl kill --signal KILL lanyard")
	if out := <-done; out != "lanyard: the service ended before it replied: the hook goes on without the service\n" {
		s.t.Errorf("the hook says %q", out)
	}
	patiently(s.t, "the sweeper", func() error {
		rows := slices.DeleteFunc(s.rows(), func(r row) bool { return r.Container != "slow2" })
		if len(rows) != 1 || rows[0].State != hook.Attached {
			return fmt.Errorf("there are %+v", rows)
		}
		return nil
	})
	s.wants("systemctl is-active lanyard.service", "active")
	s.pings()
}

// logout checks that attachments are released after a logout kills all processes of a
// user.
func (s *installed) logout() {
	s.t.Helper()
	s.endOthers()
	// As KillUserProcesses= does, without the 90 seconds for processes that ignore
	// SIGTERM.
	s.mustAs(0, fmt.Sprintf("loginctl disable-linger alice; systemctl kill --signal KILL user-%d.slice; systemctl stop "+
		"user-%[1]d.slice", alice))
	patiently(s.t, "the end of alice's processes", func() error {
		if out, err := s.as(0, "ps -u alice -o pid,args --no-headers"); err == nil {
			return fmt.Errorf("there are %s", out)
		}
		return nil
	})
	// A service sweeps when it starts, and every 30 seconds.
	s.mustAs(0, "systemctl restart lanyard")
	patiently(s.t, "the sweeper", func() error {
		if r := s.rows(); len(r) > 0 {
			return fmt.Errorf("there are %+v", r)
		}
		return nil
	})
	if out := s.mustAs(0, "nsenter --net=/run/lanyard/guards ip -brief link"); strings.Contains(out, "\n") {
		s.t.Errorf("the guards' namespace has %s", out)
	}
}

// reboot checks that links are created again and leases are gone after a reboot, before the first
// request. Root's podman container is started again by podman's own unit, on the LAN.
func (s *installed) reboot(home string) {
	s.t.Helper()
	storage := "[storage]\ndriver = \"vfs\"\ngraphroot = \"" + home + "/storage\"\nrunroot = \"/run/storage\"\n"
	must(s.t, os.WriteFile("/etc/containers/storage.conf", []byte(storage), 0o644))
	s.t.Cleanup(func() { must(s.t, os.Remove("/etc/containers/storage.conf")) })
	s.mustAs(0, "systemctl add-wants multi-user.target podman-restart.service; podman run --detach "+
		"--restart always --network none --annotation io.lanyard.network=web50 "+
		"--annotation io.lanyard.ip=192.168.50.77 --rootfs "+mustRootfs(s.t, filepath.Join(home, "root"), 0)+" sleep 600")
	if out := s.mustAs(0, hookLine("before", s.processes(1)[0], "web50")); out != "" {
		s.t.Errorf("the hook says %q", out)
	}
	_, _ = s.as(0, "systemctl poweroff") // which may end this command too
	patiently(s.t, "the end of systemd", func() error {
		return exec.Command("sh", "-c", fmt.Sprintf("! kill -0 %d 2>/dev/null", s.pid)).Run()
	})
	s.ended()
	s.others = nil
	for _, vlan := range []string{"eth9.50", "eth9.60"} {
		_, err := s.Host.Exec("ip", "link", "del", vlan)
		must(s.t, err)
	}
	s.boot()
	s.wants("systemctl is-active lanyard.socket lanyard-restore.service", "active\nactive")
	s.wants("systemctl is-active podman-restart.service lanyard.service", "active\nactive")
	for _, vlan := range []string{"eth9.50", "eth9.60"} {
		if out, err := s.Host.Exec("ip", "-brief", "link", "show", "up", "dev", vlan); err != nil || out == "" {
			s.t.Errorf("%s is %q, %v", vlan, out, err)
		}
	}
	s.wants("lanyard network ls --quiet | sort", slow+"\nweb50")
	if r := s.rows(); len(r) != 1 || r[0].Verdict != verify.OK || r[0].Addresses[0] != "192.168.50.77/24" {
		s.t.Errorf("attached are %+v", r)
	}
	if out := s.mustAs(0, hookLine("after", s.processes(1)[0], "web50")); out != "" {
		s.t.Errorf("the hook says %q", out)
	}
	if r := s.rows(); len(r) != 2 || r[0].Verdict != verify.OK || !slices.ContainsFunc(r, func(one row) bool {
		return one.Addresses[0] == "192.168.50.2/24"
	}) {
		s.t.Errorf("attached are %+v", r)
	}
	s.mustAs(0, "podman rm --all --force --time 0")
}
