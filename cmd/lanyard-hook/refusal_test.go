package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/service"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestBadInput checks that wrong annotations give one line and status 1, and change
// nothing.
func TestBadInput(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) {
		d.Subnets[0].Aux = map[string]netip.Addr{"nas": netip.MustParseAddr("192.168.50.200")}
	})
	before := w.Links(w.Host)
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
		{"no pid", hooklab.State("c1", 0, "network=web"), []string{"no pid"}},
		{"pid is gone", hooklab.State("c1", gonePid, "network=web"), []string{fmt.Sprint(gonePid), "exited"}},
		{"the host's own namespace", hooklab.State("c1", host.Pid, "network=web"), []string{"the host's own"}},
		{"unknown key", hooklab.State("c1", c.Pid, "netwrok=web"), []string{`"io.lanyard.netwrok"`,
			`did you mean "io.lanyard.network"?`}},
		{"unknown network", hooklab.State("c1", c.Pid, "network=wbe"), []string{`"wbe"`, `did you mean "web"?`}},
		{"address outside", hooklab.State("c1", c.Pid, "network=web", "ip=10.0.0.9"),
			[]string{"10.0.0.9", "192.168.50.0/24"}},
		{"the gateway's", hooklab.State("c1", c.Pid, "network=web", "ip=192.168.50.1"),
			[]string{"192.168.50.1", "reserved", "gateway"}},
		{"reserved", hooklab.State("c1", c.Pid, "network=web", "ip=192.168.50.200"), []string{`aux-address "nas"`}},
		{"network address", hooklab.State("c1", c.Pid, "network=web", "ip=192.168.50.0"), []string{"network address"}},
		{"broadcast", hooklab.State("c1", c.Pid, "network=web", "ip=192.168.50.255"), []string{"broadcast address"}},
		{"anycast", hooklab.State("c1", c.Pid, "network=web", "ip6=fd50::"), []string{"anycast"}},
		{"interface of 16 bytes", hooklab.State("c1", c.Pid, "network=web", "interface=sixteen-bytes-xx"),
			[]string{"16 bytes", "15"}},
		{"interface that is there", hooklab.State("c1", c.Pid, "network=web", "interface=lo"), []string{"the loopback link"}},
		{"MTU over the parent's", hooklab.State("c1", c.Pid, "network=web", "mtu=9000"), []string{"9000", "1500", w.Trunk}},
		{"MTU too small for IPv6", hooklab.State("c1", c.Pid, "network=web", "mtu=1000"), []string{"1000", "1280"}},
		{"the parent's MAC", hooklab.State("c1", c.Pid, "network=web", "mac="+w.trunkMAC()), []string{w.trunkMAC(), w.Trunk}},
	} {
		w.Refused(bad.what, w.Run(bad.stdin, createRuntime), 1, bad.words...)
	}
	for what, args := range map[string][]string{
		"no stage":       {},
		"unknown stage":  {"createContainers"},
		"unknown flag":   {"--rot", "x", "createRuntime"},
		"bad timeout":    {"--timeout", "soon", "createRuntime"},
		"flag, no value": {"createRuntime", "--timeout"},
	} {
		w.Refused(what, w.Run(hooklab.State("c1", c.Pid, "network=web"), args), 2, "usage")
	}
	w.WantNothing("web", before)
	if links := w.Links(c.Namespace); fmt.Sprint(links) != "[lo]" {
		t.Errorf("links of the container: %v", links)
	}
	w.MustAttach("c1", c, "network=web", "ip=192.168.50.9")
	other := testenv.NewContainer(t)
	w.Refused("address in use", w.Attach("c2", other, "network=web", "ip=192.168.50.9"), 1, "192.168.50.9", "held by")
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
		if o := w.Run(hooklab.State("c1", c.Pid), []string{stage}); o.Status != 0 || o.Stderr != "" {
			t.Errorf("%s: %+v", stage, o)
		}
	}
	if _, err := os.Stat(w.root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}

// TestEscapedAnnotation checks that a container whose state has the annotation with escapes, as JSON
// allows, does not start off the network.
func TestEscapedAnnotation(t *testing.T) {
	w, _ := lan(t, nil)
	text := bytes.Replace(hooklab.State("c1", testenv.NewContainer(t).Pid, "network=web"), []byte("io.lanyard."),
		[]byte(`\u0069o.\u006canyard.`), 1)
	if o := w.Run(text, []string{"createRuntime"}); o.Status != 0 || o.Stderr != "" {
		t.Errorf("%+v", o)
	}
	w.Record()
}

// TestRequiredAnnotation checks that a container with Docker's device and without a network does not
// start off the LAN, whatever else its annotations mention.
func TestRequiredAnnotation(t *testing.T) {
	w, _ := lan(t, nil)
	t.Setenv("LANYARD_REQUIRED", "1")
	c := testenv.NewContainer(t)
	for what, annotations := range map[string]string{
		"no annotation":      `"x":"y"`,
		"an escape":          `"url":"http://x/?a=1\u0026b=2"`,
		"a key of that sort": `"io.lanyards.network":"web"`,
		"a value":            `"x":"\"io.lanyard.network\":"`,
	} {
		state := fmt.Sprintf(`{"ociVersion":"1.0.2","id":"c1","status":"creating","pid":%d,"annotations":{%s}}`,
			c.Pid, annotations)
		w.Refused(what, w.Run([]byte(state), []string{"createRuntime"}), 1, "asks for Lanyard's device")
	}
	if o := w.Run(hooklab.State("c1", c.Pid, "network=web"), []string{"createRuntime"}); o.Status != 0 {
		t.Errorf("with the annotation: %+v", o)
	}
}

// TestLargeState checks that a large state is read completely: otherwise crun dies of
// SIGPIPE.
func TestLargeState(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	state := string(hooklab.State("c1", c.Pid, "network=web"))
	big := strings.Replace(state, `{`, `{"x":"`+strings.Repeat("y", 200<<10)+`",`, 1)
	if o := w.Run([]byte(big), []string{"createRuntime"}); o.Status != 0 {
		t.Errorf("%+v", o)
	}
}

// TestDeadline checks that the hook's timeout ends it if the runtime has none.
func TestDeadline(t *testing.T) {
	w, gw := lan(t, func(d *network.Definition) { d.Deadline = network.Duration(time.Minute) })
	before := w.Links(w.Host)
	gw.RemoveAddr("192.168.50.1/24")
	c := testenv.NewContainer(t)
	o := w.Run(hooklab.State("c1", c.Pid, "network=web"), []string{"--timeout", "300ms", "createRuntime"})
	w.Refused("silent gateway", o, 1, "not done after 300ms")
	w.WantNothing("web", before)
}

// TestWatchdog checks that the timeout also ends a hook whose stdin is never closed.
func TestWatchdog(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	cmd, stderr := w.Command(nil, []string{"--timeout", "100ms", "createRuntime"})
	open, write, err := os.Pipe()
	must(t, err)
	defer write.Close()
	cmd.Stdin = open
	err = w.Host.Run(cmd)
	open.Close()
	if err == nil {
		t.Fatal("an unfinished state was taken")
	}
	w.Refused("open stdin", hooklab.Ended(cmd, stderr), 1, "not done after 100ms")
}

// TestLongLine checks that annotations of any size give one line of bounded length.
func TestLongLine(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	c := testenv.NewContainer(t)
	o := w.Attach("c1", c, strings.Repeat("\x1b", 100<<10)+"=1")
	w.Refused("a key of 100 KB", o, 1, "io.lanyard.")
	if len(o.Stderr) > 4<<10 || strings.Contains(o.Stderr, "\x1b") {
		t.Errorf("said %d bytes", len(o.Stderr))
	}
}

// TestUnprivileged checks that the hook reports a missing CAP_NET_ADMIN and leaves
// nothing.
func TestUnprivileged(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	cmd, stderr := w.Command(hooklab.State("c1", c.Pid, "network=web"), []string{"createRuntime"})
	cmd.Args = append([]string{"setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"},
		append([]string{selfExe(t)}, cmd.Args[1:]...)...)
	path, err := exec.LookPath("setpriv")
	must(t, err)
	cmd.Path = path
	err = w.Host.Run(cmd)
	if err == nil {
		t.Fatal("attached without CAP_NET_ADMIN")
	}
	w.Refused("unprivileged", hooklab.Ended(cmd, stderr), 1, "CAP_NET_ADMIN")
	if len(w.Records()) != 0 || w.Held("web") != 0 {
		t.Error("something is left")
	}
}

func selfExe(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	return path
}

// TestRootsFailures checks that the errors of root's containers are kept for "lanyard why",
// with and without a service.
func TestRootsFailures(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	for _, w := range []*world{worldOf(hooklab.NewPodLAN(t, nil)), b.world} {
		pod := testenv.NewContainer(t)
		if o := w.Run(hooklab.EngineState(t, "c1", pod.Pid, hooklab.CRIOPod("bank", "p2", "app"), "network=web"),
			[]string{"createRuntime"}); o.Status != 1 {
			t.Fatalf("%+v", o)
		}
		w.Attach("c2", pod, "netwrok=web")
		w.MustAttach("c3", testenv.NewContainer(t), "network="+map[bool]string{true: "web", false: "closed"}[w == b.world])
		kept, err := service.Kept(wiring.PathsUnder(w.root).Failures()).All()
		if err != nil || len(kept) != 2 || kept[0].Container != "c1" || kept[1].Container != "c2" ||
			!strings.Contains(kept[0].Error, `pods of the Kubernetes namespace "bank" may not use it`) ||
			!strings.Contains(kept[1].Error, "did you mean") {
			t.Errorf("kept is %+v, %v", kept, err)
		}
	}
}
