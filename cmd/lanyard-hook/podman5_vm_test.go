//go:build vm

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// podmanVersion returns the version of podman, such as 5.4.
func podmanVersion(t *testing.T) (major, minor int) {
	t.Helper()
	out, err := exec.Command("podman", "--version").Output()
	must(t, err)
	if _, err := fmt.Sscanf(string(out), "podman version %d.%d", &major, &minor); err != nil {
		t.Fatalf("podman says %q: %v", out, err)
	}
	return major, minor
}

// TestPodmanRestartPolicy checks that a container with --restart=always is attached again after its
// process has exited, if containers.conf has hooks_dir. With --hooks-dir alone it is off the LAN before
// podman 5.6, which does not use that option for the next start.
func TestPodmanRestartPolicy(t *testing.T) {
	mustBeInVM(t)
	testenv.ByName(t)
	major, minor := podmanVersion(t)
	kept := major > 5 || major == 5 && minor >= 6
	e := newEngine(t)
	before := e.w.defineVLAN50()
	withHooks, podman := e.podman("runc"), e.plainPodman("runc")
	t.Cleanup(func() { e.run(withHooks("rm", "--all", "--force", "--time", "0")...) })
	options := []string{"run", "--detach", "--name", "w", "--restart", "always", "--network", "none", "--cap-add",
		"NET_RAW", "--annotation", "io.lanyard.network=web", "--rootfs", e.rootfs(), "sleep", "300"}
	restarted := func(what string, want bool) {
		t.Helper()
		pid := func() string {
			return strings.TrimSpace(e.must(podman("inspect", "--format", "{{.State.Pid}}", "w")...))
		}
		old := pid()
		e.must("kill", "-9", old)
		patiently(t, what+": the next start", func() error {
			if now := pid(); now == old || now == "0" {
				return errors.New("it does not run")
			}
			return nil
		})
		if out, err := e.run(podman("exec", "w", "ping", "-c1", "-W5", "192.168.50.1")...); (err == nil) != want {
			t.Errorf("%s: podman %d.%d: on the LAN: %v, want %v: %s", what, major, minor, err == nil, want, out)
		}
		e.must(podman("rm", "--force", "--time", "0", "w")...)
	}
	e.must(withHooks(options...)...)
	restarted("--hooks-dir", kept)
	if !kept {
		e.w.sweepPods() // no poststop ran, either
	}
	writeContainersConf(t, fmt.Sprintf("[engine]\nhooks_dir = [%q]\n", e.hooksDir()))
	e.must(podman(options...)...)
	restarted("hooks_dir", true)
	e.w.WantNothing("web", before)
}

// hostsRoutes gives a host an address and a default route of each family, which pasta copies.
func hostsRoutes(t *testing.T, host *testenv.Namespace) {
	t.Helper()
	must(t, os.Chmod("/dev/net/tun", 0o666)) // as udev has it
	for _, line := range []string{
		"addr add 10.9.0.2/24 dev eth9", "route add default via 10.9.0.1", "addr add fd09::2/64 dev eth9 nodad",
		"-6 route add default via fd09::1 dev eth9",
	} {
		_, err := host.Exec("ip", strings.Fields(line)...)
		must(t, err)
	}
}

// TestRootlessPasta attaches to a container without --network, which has pasta's interface from
// podman 5 on. It has the name and the addresses of the host's. Its default routes stay in place,
// unless the annotation says otherwise, and podman writes resolv.conf.
func TestRootlessPasta(t *testing.T) {
	testenv.InSuite(t, "trixie", "forky")
	testenv.OnOneKernel(t, "6.12")
	r := newRootless(t, "crun", nil)
	hostsRoutes(t, r.Host)
	for option, more := range map[string][]string{
		"none": nil, "default-route": {"--annotation", "io.lanyard.default-route=true"},
	} {
		want := []string{"default via 10.9.0.1 dev eth9", "default via fd09::1 dev eth9", "192.168.50.0/24 dev eth0",
			"inet 10.9.0.2/24", "nameserver"}
		if more != nil {
			want = append(want, "0.0.0.0/1 via 192.168.50.1 dev eth0", "128.0.0.0/1 via 192.168.50.1 dev eth0",
				"::/1 via fd50::1 dev eth0", "8000::/1 via fd50::1 dev eth0")
		}
		args := append([]string{"run", "--detach", "--name", "a1", "--cap-add", "NET_RAW", "--annotation",
			"io.lanyard.network=web"}, more...)
		r.mustPodman(alice, append(args, "--rootfs", filepath.Join(r.home(alice), "rootfs"), "sleep", "300")...)
		a := r.Record()
		if a.Interface != "eth0" || a.Guard == nil || a.Verdict.Code != verify.OK || (len(a.Others) == 2) != (more == nil) {
			t.Errorf("%s: the record is %+v", option, a)
		}
		out := r.mustPodman(alice, "exec", "a1", "sh", "-c",
			"ip addr; ip route; ip -6 route; cat /etc/resolv.conf; ping -c1 -W5 192.168.50.1")
		for _, line := range want {
			if !strings.Contains(out, line) {
				t.Errorf("%s: there is no %q in %s", option, line, out)
			}
		}
		if strings.Contains(out, "lab.example") || strings.Count(out, "via 192.168.50.1") != (len(want)-5)/2 {
			t.Errorf("%s: the network's name servers or routes are in %s", option, out)
		}
		r.mustPodman(alice, "rm", "--force", "--time", "0", "a1")
	}
}

// documentedQuadlet returns the Quadlet unit of docs/engines.md, for a root file system.
func documentedQuadlet(t *testing.T, rootfs string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/engines.md")
	must(t, err)
	found := regexp.MustCompile(`(?s)\n    # /etc/containers/systemd/web.container\n(.*?)\n\n[^ ]`).FindSubmatch(text)
	if found == nil {
		t.Fatal("docs/engines.md has no Quadlet unit")
	}
	unit := strings.ReplaceAll("\n"+string(found[1]), "\n    ", "\n")
	return regexp.MustCompile("Image=.*").ReplaceAllString(unit,
		"Rootfs="+rootfs+"\nAddCapability=NET_RAW\nExec=sleep 600")
}

// TestQuadlet runs the unit of docs/engines.md under systemd, for root, and without Network= for a
// user: podman's default is then pasta. Lanyard is installed by "make install".
func TestQuadlet(t *testing.T) {
	testenv.InSuite(t, "trixie", "forky") // podman 4.3 has no Quadlet
	testenv.ByName(t)
	s := newInstalled(t)
	s.AddGateway(50, "192.168.50.1/24")
	hostsRoutes(t, s.Host)
	home, err := os.MkdirTemp("/srv", "lanyard-test") // no other mount is over it
	must(t, err)
	t.Cleanup(func() { testenv.RemoveAll(t, home) })
	mustAccount(t, alice, home)
	const storage = "[storage]\ndriver = \"vfs\"\ngraphroot = \"%s/storage\"\nrunroot = \"%s/storage\"\n"
	settings := filepath.Join(home, ".config/containers/storage.conf") // podman 5.8 reads root's for users, too
	must(t, os.MkdirAll(filepath.Dir(settings), 0o755))
	must(t, os.WriteFile(settings, fmt.Appendf(nil, storage, home, fmt.Sprintf("/run/user/%d", alice)), 0o644))
	for _, dir := range []string{settings, filepath.Dir(settings), filepath.Join(home, ".config")} {
		must(t, os.Chown(dir, alice, alice))
	}
	for path, text := range map[string]string{
		"/etc/containers/storage.conf":          fmt.Sprintf(storage, home+"/root", "/run"),
		"/etc/containers/systemd/web.container": documentedQuadlet(t, mustRootfs(t, filepath.Join(home, "root"), 0)),
		fmt.Sprintf("/etc/containers/systemd/users/%d/web.container", alice): strings.ReplaceAll(
			documentedQuadlet(t, mustRootfs(t, home, alice)), "Network=none\n", ""),
	} {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
		t.Cleanup(func() { must(t, os.Remove(path)) })
	}
	s.boot()
	s.mustAs(0, "systemctl enable --now lanyard.socket; lanyard network create web50 --parent eth9.50 "+
		"--subnet 192.168.50.0/24 --allow-user alice; systemctl start web")
	ping := "podman exec systemd-web ping -c1 -W5 192.168.50.1"
	last := s.onlyRow(0, "")
	s.mustAs(0, ping)
	for _, line := range []string{"systemctl restart web", "podman kill systemd-web"} { // Restart=on-failure
		s.mustAs(0, line)
		last = s.onlyRow(0, last.Container)
		s.mustAs(0, ping)
	}
	s.wants("systemctl stop web; lanyard ps --quiet", "")

	s.mustAs(0, "loginctl enable-linger alice")
	s.mustAs(alice, "systemctl --user start web")
	last = s.onlyRow(alice, "")
	out := s.mustAs(alice, ping+"; podman exec systemd-web ip route")
	for _, line := range []string{"default via 10.9.0.1 dev eth9", "192.168.50.0/24 dev eth0"} {
		if !strings.Contains(out, line) {
			t.Errorf("there is no %q in %s", line, out)
		}
	}
	s.mustAs(alice, "systemctl --user restart web")
	s.onlyRow(alice, last.Container)
	s.mustAs(alice, ping+"; systemctl --user stop web")
	s.wants("lanyard ps --quiet", "")
}

// onlyRow waits for the only container on record, which is attached, and is not the one named.
func (s *installed) onlyRow(owner uint32, not string) (r row) {
	s.t.Helper()
	patiently(s.t, "one container", func() error {
		rows := s.rows()
		if len(rows) != 1 || rows[0].State != hook.Attached || rows[0].Container == not {
			return fmt.Errorf("there are %+v", rows)
		}
		r = rows[0]
		return nil
	})
	if r.Verdict != verify.OK || r.Owner != owner {
		s.t.Errorf("attached is %+v", r)
	}
	return r
}
