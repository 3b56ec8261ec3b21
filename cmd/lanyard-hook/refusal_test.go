package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// TestBadInput checks that wrong annotations give one line and status 1, and change
// nothing.
func TestBadInput(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) {
		d.Subnets[0].Aux = map[string]netip.Addr{"nas": netip.MustParseAddr("192.168.50.200")}
	})
	before := w.links(w.Host)
	c, gone := testenv.NewContainer(t), testenv.NewContainer(t)
	gonePid := gone.Pid
	gone.End(t)
	host := testenv.JoinNamespace(t, w.Host)
	createRuntime := []string{"createRuntime"}
	for _, bad := range []struct {
		what  string
		stdin []byte
		words []string
	}{
		{"empty state", nil, []string{"stdin", "not an OCI state"}},
		{"not JSON", []byte("hello"), []string{"not an OCI state"}},
		{"too large", bytes.Repeat([]byte("x"), 2<<20), []string{"over 1048576 bytes"}},
		{"no pid", state("c1", 0, "network=web"), []string{"no pid"}},
		{"pid is gone", state("c1", gonePid, "network=web"), []string{fmt.Sprint(gonePid), "exited"}},
		{"the host's own namespace", state("c1", host.Pid, "network=web"), []string{"the host's own"}},
		{"unknown key", state("c1", c.Pid, "netwrok=web"), []string{`"io.lanyard.netwrok"`,
			`did you mean "io.lanyard.network"?`}},
		{"unknown network", state("c1", c.Pid, "network=wbe"), []string{`"wbe"`, `did you mean "web"?`}},
		{"address outside", state("c1", c.Pid, "network=web", "ip=10.0.0.9"), []string{"10.0.0.9", "192.168.50.0/24"}},
		{"the gateway's", state("c1", c.Pid, "network=web", "ip=192.168.50.1"),
			[]string{"192.168.50.1", "reserved", "gateway"}},
		{"reserved", state("c1", c.Pid, "network=web", "ip=192.168.50.200"), []string{`aux-address "nas"`}},
		{"network address", state("c1", c.Pid, "network=web", "ip=192.168.50.0"), []string{"network address"}},
		{"broadcast", state("c1", c.Pid, "network=web", "ip=192.168.50.255"), []string{"broadcast address"}},
		{"anycast", state("c1", c.Pid, "network=web", "ip6=fd50::"), []string{"anycast"}},
		{"interface of 16 bytes", state("c1", c.Pid, "network=web", "interface=sixteen-bytes-xx"),
			[]string{"16 bytes", "15"}},
		{"interface that is there", state("c1", c.Pid, "network=web", "interface=lo"), []string{`"lo" cannot be`}},
		{"MTU over the parent's", state("c1", c.Pid, "network=web", "mtu=9000"), []string{"9000", "1500", w.Trunk}},
		{"MTU too small for IPv6", state("c1", c.Pid, "network=web", "mtu=1000"), []string{"1000", "1280"}},
		{"the parent's MAC", state("c1", c.Pid, "network=web", "mac="+w.trunkMAC()), []string{w.trunkMAC(), w.Trunk}},
	} {
		w.refused(bad.what, w.run(bad.stdin, createRuntime), 1, bad.words...)
	}
	for what, args := range map[string][]string{
		"no stage":       {},
		"unknown stage":  {"createContainers"},
		"unknown flag":   {"--rot", "x", "createRuntime"},
		"bad timeout":    {"--timeout", "soon", "createRuntime"},
		"flag, no value": {"createRuntime", "--timeout"},
	} {
		w.refused(what, w.run(state("c1", c.Pid, "network=web"), args), 2, "usage")
	}
	w.wantNothing("web", before)
	if links := w.links(c.Namespace); fmt.Sprint(links) != "[lo]" {
		t.Errorf("links of the container: %v", links)
	}
	w.mustAttach("c1", c, "network=web", "ip=192.168.50.9")
	other := testenv.NewContainer(t)
	w.refused("address in use", w.attach("c2", other, "network=web", "ip=192.168.50.9"), 1, "192.168.50.9", "held by")
}

func (w *world) trunkMAC() string {
	w.tb.Helper()
	l, err := w.Host.Netlink().LinkByName(w.Trunk)
	must(w.tb, err)
	return l.Attrs().HardwareAddr.String()
}

// TestNoAnnotation checks that a container without Lanyard's annotations changes nothing.
func TestNoAnnotation(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	c := testenv.NewContainer(t)
	for _, stage := range []string{"createRuntime", "prestart", "poststop"} {
		if o := w.run(state("c1", c.Pid), []string{stage}); o.status != 0 || o.stderr != "" {
			t.Errorf("%s: %+v", stage, o)
		}
	}
	if _, err := os.Stat(w.root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}

// TestLargeState checks that a large state is read completely: otherwise crun dies of
// SIGPIPE.
func TestLargeState(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	big := strings.Replace(string(state("c1", c.Pid, "network=web")), `{`, `{"x":"`+strings.Repeat("y", 200<<10)+`",`, 1)
	if o := w.run([]byte(big), []string{"createRuntime"}); o.status != 0 {
		t.Errorf("%+v", o)
	}
}

// TestDeadline checks that the hook's timeout ends it if the runtime has none.
func TestDeadline(t *testing.T) {
	w, gw := lan(t, func(d *network.Definition) { d.Deadline = network.Duration(time.Minute) })
	before := w.links(w.Host)
	gw.RemoveAddr("192.168.50.1/24")
	c := testenv.NewContainer(t)
	w.refused("silent gateway", w.run(state("c1", c.Pid, "network=web"), []string{"--timeout", "300ms", "createRuntime"}),
		1, "not done after 300ms")
	w.wantNothing("web", before)
}

// TestWatchdog checks that the timeout also ends a hook whose stdin is never closed.
func TestWatchdog(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	cmd, stderr := w.command(nil, []string{"--timeout", "100ms", "createRuntime"})
	open, write, err := os.Pipe()
	must(t, err)
	defer write.Close()
	cmd.Stdin = open
	err = w.Host.Run(cmd)
	open.Close()
	if err == nil {
		t.Fatal("an unfinished state was taken")
	}
	w.refused("open stdin", outcome{cmd.ProcessState.ExitCode(), stderr.String()}, 1, "not done after 100ms")
}

// TestLongLine checks that annotations of any size give one line of bounded length.
func TestLongLine(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	c := testenv.NewContainer(t)
	o := w.attach("c1", c, strings.Repeat("\x1b", 100<<10)+"=1")
	w.refused("a key of 100 KB", o, 1, "io.lanyard.")
	if len(o.stderr) > 4<<10 || strings.Contains(o.stderr, "\x1b") {
		t.Errorf("said %d bytes", len(o.stderr))
	}
}

// TestUnprivileged checks that the hook reports a missing CAP_NET_ADMIN and leaves
// nothing.
func TestUnprivileged(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	cmd, stderr := w.command(state("c1", c.Pid, "network=web"), []string{"createRuntime"})
	cmd.Args = append([]string{"setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"},
		append([]string{selfExe(t)}, cmd.Args[1:]...)...)
	path, err := exec.LookPath("setpriv")
	must(t, err)
	cmd.Path = path
	err = w.Host.Run(cmd)
	if err == nil {
		t.Fatal("attached without CAP_NET_ADMIN")
	}
	w.refused("unprivileged", outcome{cmd.ProcessState.ExitCode(), stderr.String()}, 1, "CAP_NET_ADMIN")
	if len(w.records()) != 0 || w.held("web") != 0 {
		t.Error("something is left")
	}
}

func selfExe(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	return path
}

// TestUnobserved checks that a container starts without bpffs, verified by ARP only, and
// that the verdict says why.
func TestUnobserved(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	cmd, stderr := w.command(state("c1", c.Pid, "network=web"), []string{"createRuntime"})
	cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /sys/fs/bpf && exec "$0" "$@"`,
		selfExe(t)}, cmd.Args[1:]...)
	path, err := exec.LookPath("unshare")
	must(t, err)
	cmd.Path = path
	if err := w.Host.Run(cmd); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	a := w.record()
	if a.Verdict.Code != verify.Unobserved || !strings.Contains(a.Verdict.Text, "bpf") {
		t.Errorf("verdict is %+v", a.Verdict)
	}
	pings(t, c.Namespace, "192.168.50.1")
}

// TestDamagedDatabase checks that a damaged database is renamed, reported, and rebuilt
// from kernel state.
func TestDamagedDatabase(t *testing.T) {
	for what, damage := range map[string]func(path string) error{
		"overwritten": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("garbage "), 8192), 0o600) },
		"cut off":     func(path string) error { return os.Truncate(path, 5000) },
		"deleted":     os.Remove,
	} {
		t.Run(what, func(t *testing.T) {
			w, _ := lan(t, nil)
			c1, c2 := testenv.NewContainer(t), testenv.NewContainer(t)
			w.mustAttach("c1", c1, "network=web")
			first := w.record()
			must(t, damage(filepath.Join(wiring.PathsUnder(w.root).Run, "lanyard.db")))
			// Its address is not given out again, not even by name.
			o := w.attach("c2", c2, "network=web", "ip="+first.Addrs[0].Addr().String())
			if o.status != 1 || !strings.Contains(o.stderr, "is held by") {
				t.Fatalf("after the damage, the held address: %+v", o)
			}
			w.mustAttach("c2", c2, "network=web")
			if recs := w.records(); len(recs) != 2 || w.held("web") != 4 {
				t.Errorf("records are %+v, %d leases", recs, w.held("web"))
			}
			for _, a := range w.records() {
				if a.MAC == first.MAC && a.ID != first.ID {
					t.Errorf("the survivor has a new id: %+v", a)
				}
			}
			must(t, c1.Kill())
			c1.End(t)
			must(t, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
				swept, err := l.Sweep(ctx)
				if len(swept) != 1 || swept[0].MAC != first.MAC {
					t.Errorf("swept %+v", swept)
				}
				return err
			}))
		})
	}
}
