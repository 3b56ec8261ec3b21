package attach_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

func TestAttach(t *testing.T) {
	w, gw := lan(t, hooklab.MACFromAddress)
	before := w.Links(w.Host)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "ip=192.168.50.9")

	a := w.Record()
	if a.State != hook.Attached || a.Verdict.Code != verify.OK || len(a.Verdicts) != 2 {
		t.Errorf("record is %+v", a)
	}
	for _, v := range a.Verdicts {
		if v.Code != verify.OK || v.MAC != gw.MAC || v.RTT <= 0 {
			t.Errorf("verdict is %+v, want ok from %s", v, gw.MAC)
		}
	}
	if a.Interface != "eth0" || a.MAC.String() != "02:42:c0:a8:32:09" || a.Addrs[0].String() != "192.168.50.9/24" ||
		a.Addrs[1].String() != "fd50::2/64" {
		t.Errorf("got %s %s %v", a.Interface, a.MAC, a.Addrs)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	hooklab.Pings(t, c.Namespace, "fd50::1")
	for _, family := range []string{"-4", "-6"} {
		if out, err := c.Exec("ip", family, "route", "show", "default"); err != nil || !strings.Contains(out, "dev eth0") {
			t.Errorf("default route %s: %q, %v", family, out, err)
		}
	}
	w.DetachAndEnd("c1", c)
	w.WantNothing("web", before)
	w.MustDetach("c1") // a second poststop has nothing to do
}

// TestAttachTwice checks that a second attach of a container, as prestart after
// createRuntime does, returns the same attachment.
func TestAttachTwice(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	first := w.Record()
	if o := w.Run(hooklab.State("c1", c.Pid, "network=web"), []string{"prestart"}); o.Status != 0 {
		t.Fatalf("prestart after createRuntime: %+v", o)
	}
	if again := w.Record(); again.ID != first.ID || len(again.Containers) != 1 || w.Held("web") != 2 {
		t.Errorf("the second call made %+v of %+v", again, first)
	}
	w.Refused("another address", w.Attach("c1", c, "network=web", "ip=192.168.50.77"), 1, "192.168.50.77",
		first.Addrs[0].String())
	w.Refused("another network", w.Attach("c1", c, "network=db", "interface=eth0"), 1, `network "db"`)
}

// TestPod checks that containers of one pod share the interface, and that the last one
// removes it.
func TestPod(t *testing.T) {
	w, _ := lan(t, nil)
	before := w.Links(w.Host)
	pod := testenv.NewContainer(t)
	pod.Pin(t)
	w.MustAttach("infra", pod, "network=web")
	app := testenv.JoinNamespace(t, pod.Namespace)
	if o := w.Run(hooklab.State("app", app.Pid, "network=web"), []string{"createRuntime"}); o.Status != 0 {
		t.Fatalf("second container: %+v", o)
	}
	if a := w.Record(); len(a.Containers) != 2 {
		t.Errorf("containers are %+v", a.Containers)
	}
	// CRI-O runs poststop of an old attempt while the new one runs.
	w.MustDetach("app")
	if a := w.Record(); len(a.Containers) != 2 {
		t.Errorf("a poststop took a container that lives: %+v", a.Containers)
	}
	must(t, app.Kill())
	w.MustDetach("app")
	if a := w.Record(); len(a.Containers) != 1 || a.Containers[0].ID != "infra" {
		t.Errorf("after the app's end: %+v", a.Containers)
	}
	hooklab.Pings(t, pod.Namespace, "192.168.50.1")
	app.Reap()
	must(t, pod.Kill())
	w.MustDetach("infra")
	if links := w.Links(pod.Namespace); fmt.Sprint(links) != "[lo]" {
		t.Errorf("a namespace that lives on has %v", links)
	}
	w.WantNothing("web", before)
}

// TestRestart runs poststop of the old run after the new one was attached, with the same
// id, as some engines do.
func TestRestart(t *testing.T) {
	w, _ := lan(t, nil)
	old := testenv.NewContainer(t)
	w.MustAttach("c1", old, "network=web")
	must(t, old.Kill())
	fresh := testenv.NewContainer(t)
	w.MustAttach("c1", fresh, "network=web")
	w.MustDetach("c1")
	a := w.Record()
	if a.State != hook.Attached || a.Containers[0].Process.Pid != fresh.Pid {
		t.Errorf("after a late poststop: %+v", a)
	}
	hooklab.Pings(t, fresh.Namespace, "192.168.50.1")
}

func TestModes(t *testing.T) {
	for _, mode := range []network.Mode{network.ModeBridge, network.ModePrivate, network.ModeVEPA, network.ModePassthru} {
		t.Run(string(mode), func(t *testing.T) {
			w, _ := lan(t, func(d *network.Definition) { d.Mode = mode })
			c := testenv.NewContainer(t)
			w.MustAttach("c1", c, "network=web")
			if a := w.Record(); a.Verdict.Code != verify.OK {
				t.Errorf("verdict is %+v", a.Verdict)
			}
			hooklab.Pings(t, c.Namespace, "192.168.50.1")
			hooklab.Pings(t, c.Namespace, "fd50::1")
			w.DetachAndEnd("c1", c)
			w.RemoveNetwork("web")
		})
	}
}

// TestConflict checks that an address that another station uses is declined, and that a
// request for it by name is refused.
func TestConflict(t *testing.T) {
	// The adaptive window is a few milliseconds. On a busy machine the claimant may answer
	// later, and would be seen after the start only.
	w, _ := lan(t, func(d *network.Definition) {
		d.ConflictWindow = network.Duration(time.Second)
		hooklab.MACFromAddress(d)
	})
	claimant := w.AddClaimant(0, "192.168.50.2/24")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	a := w.Record()
	if a.Addrs[0].String() != "192.168.50.3/24" || a.MAC.String() != "02:42:c0:a8:32:03" || a.Verdict.Code != verify.OK {
		t.Errorf("got %v %s, %+v", a.Addrs, a.MAC, a.Verdict)
	}
	if n := w.Watched(); n != 1 {
		t.Errorf("%d endpoints are watched: the one that was passed over is still there", n)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	other := testenv.NewContainer(t)
	w.Refused("by name, declined a moment ago", w.Attach("c2", other, "network=web", "ip=192.168.50.2"), 1, "192.168.50.2",
		"held by another station on the LAN")
	claimant.AddAddr("192.168.50.77/24")
	w.Refused("by name", w.Attach("c2", other, "network=web", "ip=192.168.50.77"), 1, "address-conflict",
		claimant.MAC.String(), "192.168.50.77")
	claimant.AddAddr("fd50::77/64")
	w.Refused("by name, IPv6", w.Attach("c2", other, "network=web", "ip6=fd50::77"), 1, "address-conflict",
		claimant.MAC.String(), "fd50::77")
	if w.Held("web") != 2 || len(w.Records()) != 1 {
		t.Errorf("refusals left %d leases, %d records", w.Held("web"), len(w.Records()))
	}
	if links := w.Links(other.Namespace); fmt.Sprint(links) != "[lo]" {
		t.Errorf("refusals left links %v", links)
	}
}

// TestConflictWindow checks that --conflict-window is effective with a shorter deadline
// too. The trunk program sees a claimant that answers even later, after the start.
func TestConflictWindow(t *testing.T) {
	for window, conflict := range map[time.Duration]bool{2 * time.Second: true, 20 * time.Millisecond: false} {
		t.Run(window.String(), func(t *testing.T) {
			w, _ := lan(t, func(d *network.Definition) {
				d.Deadline, d.ConflictWindow = network.Duration(100*time.Millisecond), network.Duration(window)
			})
			addr := netip.MustParseAddr("192.168.50.77")
			slow := w.AddClaimant(0)
			r := slow.Respond(func(q testenv.Asked) []testenv.Reply {
				if q.Addr != addr {
					return nil
				}
				return []testenv.Reply{{MAC: slow.MAC, After: 400 * time.Millisecond}}
			})
			t.Cleanup(r.Stop)
			o := w.Attach("c1", testenv.NewContainer(t), "network=web", "ip="+addr.String())
			if conflict {
				w.Refused("within the window", o, 1, "address-conflict", slow.MAC.String())
				return
			}
			if o.Status != 0 {
				t.Fatalf("beyond the window: %+v", o)
			}
			testenv.Eventually(t, "the trunk to see the claimant", func() error {
				if rivals := w.Evidence(w.Record()).Claimants; len(rivals) != 1 || rivals[0].MAC != slow.MAC {
					return fmt.Errorf("rivals are %+v", rivals)
				}
				return nil
			})
		})
	}
}

// TestSiblings checks that containers of one host reach each other, and that one may be
// the gateway of the other.
func TestSiblings(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.Subnets[0].Gateway = d.Subnets[0].Subnet.Addr().Next().Next()
	}, "192.168.50.0/24")
	router, c := testenv.NewContainer(t), testenv.NewContainer(t)
	// The router itself has the gateway's address, so no other station answers for it.
	w.MustAttach("router", router, "network=web")
	_, err := router.Exec("ip", "addr", "add", "192.168.50.2/24", "dev", "eth0")
	must(t, err)
	w.MustAttach("c1", c, "network=web")
	var code verify.Code
	for _, a := range w.Records() {
		if a.Containers[0].ID == "c1" {
			code = a.Verdict.Code
		}
	}
	if code != verify.OKLocal {
		t.Errorf("the gateway is a sibling: verdict %q, want %q", code, verify.OKLocal)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.2")
}

// TestAltName attaches to a network with an alternative name of a link as its parent. Such a name
// may be longer than a link's name.
func TestAltName(t *testing.T) {
	const name = "uplink-to-core-switch-1"
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	_, err := w.Host.Exec("ip", "link", "property", "add", "dev", "eth9", "altname", name)
	must(t, err)
	w.Define("web", name, nil, "192.168.50.0/24")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	if a := w.Record(); a.Trunk != "eth9" || a.Verdict.Code != verify.OK {
		t.Errorf("record is %+v", a)
	}
	// The VLAN's link would need a name of at most 15 bytes.
	if err := w.TryDefine("vlan", name+".50", nil, "192.168.51.0/24"); err == nil ||
		!strings.Contains(err.Error(), "Linux allows 15 for a VLAN link's name") {
		t.Errorf("a VLAN on it: %v", err)
	}
}

// attachUnobserved attaches a container to network "web" without bpffs.
func (w *world) attachUnobserved(c *testenv.Container) {
	w.TB.Helper()
	self, err := os.Executable()
	must(w.TB, err)
	cmd, stderr := w.Command(hooklab.State("c1", c.Pid, "network=web"), []string{"createRuntime"})
	cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /sys/fs/bpf && exec "$0" "$@"`,
		self}, cmd.Args[1:]...)
	cmd.Path, err = exec.LookPath("unshare")
	must(w.TB, err)
	if err := w.Host.Run(cmd); err != nil {
		w.TB.Fatalf("%v: %s", err, stderr)
	}
}

// TestUnobserved checks that a container starts without bpffs, verified by ARP only, and
// that the verdict says why.
func TestUnobserved(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	w.attachUnobserved(c)
	a := w.Record()
	if a.Verdict.Code != verify.Unobserved || !strings.Contains(a.Verdict.Text, "bpf") {
		t.Errorf("verdict is %+v", a.Verdict)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
}
