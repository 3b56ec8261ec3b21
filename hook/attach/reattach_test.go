package attach_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/attach"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// reattach does what "lanyard reattach" does for one attachment.
func (w *world) reattach(a hook.Attachment) (now hook.Attachment, err error) {
	w.TB.Helper()
	err = w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		now, err = l.Reattach(ctx, a.ID)
		return err
	})
	return now, err
}

// replugged removes the network card and adds it again.
func (w *world) replugged() {
	w.TB.Helper()
	w.Unplug()
	w.wantChange(verify.InterfaceGone, `parent "eth9" was removed from this host`, "add", "start the container again")
	w.Replug()
	w.wantChange(verify.InterfaceGone, `parent "eth9" was removed from this host and added again`, "lanyard reattach")
}

// TestReattach checks that an interface that went with its parent is created again as it was: name,
// MAC, MTU, addresses, routes, and an open connection.
func TestReattach(t *testing.T) {
	for what, c := range map[string]struct {
		edit        func(*network.Definition)
		annotations []string
	}{
		"as the network has it": {nil, nil},
		"as requested": {nil, []string{"interface=lan0", "mac=02:00:00:00:00:55", "ip=192.168.50.77", "mtu=1400",
			"verify=strict"}},
		"host access, guard and source routing": {func(d *network.Definition) {
			d.HostAccess, d.Guard, d.SourceRouting = true, network.On, true
		}, nil},
		"private":              {func(d *network.Definition) { d.Mode = network.ModePrivate }, nil},
		"passthru":             {func(d *network.Definition) { d.Mode = network.ModePassthru }, nil},
		"without verification": {func(d *network.Definition) { d.Verify = verify.Off }, nil},
	} {
		t.Run(what, func(t *testing.T) {
			w, gw := lan(t, c.edit)
			ns := testenv.NewContainer(t)
			w.MustAttach("c1", ns, append([]string{"network=web"}, c.annotations...)...)
			first := w.Record()
			conn := connect(t, ns, gw)
			had := interfaceIn(t, ns, first.Interface)
			w.replugged()

			again, err := w.reattach(first)
			must(t, err)
			if want := first.Verdict.Code; again.Verdict.Code != want {
				t.Errorf("verdict %+v, want %q", again.Verdict, want)
			}
			now := interfaceIn(t, ns, first.Interface)
			if now != had && again.MAC == first.MAC { // in passthru it is that of the new card
				t.Errorf("the interface is\n%s\nand was\n%s", now, had)
			}
			if list := w.changes(); len(list) != 0 {
				t.Errorf("changes are %+v", list)
			}
			for _, v := range w.verdicts() {
				if v.Code != verify.OK {
					t.Errorf("verify: %+v", v)
				}
			}
			conn.echo(t)
			hooklab.Pings(t, ns.Namespace, "192.168.50.1")
			hooklab.Pings(t, ns.Namespace, "fd50::1")
			if _, err := w.reattach(again); !errors.Is(err, attach.ErrNotGone) {
				t.Errorf("a second time: %v", err)
			}
			second := testenv.JoinNamespace(t, ns.Namespace)
			w.MustAttach("c2", second, "network=web")
			must(t, second.Kill())
			w.MustDetach("c2")
			second.Reap()
			conn.Close()
			w.DetachAndEnd("c1", ns)
			if recs := w.Records(); len(recs) > 0 || w.Held("web") > 0 || w.Watched() > 0 {
				t.Errorf("left: %+v, %d leases, %d endpoints", recs, w.Held("web"), w.Watched())
			}
			w.RemoveNetwork("web")
			if links := w.Links(w.Host); fmt.Sprint(links) != "[eth9 lo]" {
				t.Errorf("links of the host: %q", links)
			}
		})
	}
}

// interfaceIn returns an interface with its addresses and routes, as ip(8) shows them, without
// numbers that the kernel assigns.
func interfaceIn(t *testing.T, c *testenv.Container, name string) string {
	t.Helper()
	var all strings.Builder
	for _, args := range []string{"-4 route show", "-6 route show", "-o addr show dev " + name, "rule show"} {
		out, err := c.Exec("ip", strings.Fields(args)...)
		must(t, err)
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "lookup 1") { // the table of an ifindex
				_, rest, _ := strings.Cut(line, ": ")
				all.WriteString(rest)
			}
		}
	}
	l, err := c.Netlink().LinkByName(name)
	must(t, err)
	return fmt.Sprintf("%s%s %d %s", all.String(), l.Attrs().HardwareAddr, l.Attrs().MTU, l.Attrs().Flags)
}

// connection is a TCP connection from a container to a server that returns each byte.
type connection struct{ net.Conn }

func connect(t *testing.T, c *testenv.Container, gw *testenv.Station) connection {
	t.Helper()
	var server net.Listener
	must(t, gw.Do(func() (err error) {
		server, err = net.Listen("tcp", "192.168.50.1:7")
		return err
	}))
	t.Cleanup(func() { server.Close() })
	go func() {
		s, err := server.Accept()
		if err != nil {
			return
		}
		defer s.Close()
		b := make([]byte, 1)
		for {
			if _, err := s.Read(b); err != nil {
				return
			}
			if _, err := s.Write(b); err != nil {
				return
			}
		}
	}()
	var conn connection
	must(t, c.Do(func() (err error) {
		conn.Conn, err = net.DialTimeout("tcp", "192.168.50.1:7", 5*time.Second)
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	conn.echo(t)
	return conn
}

// echo checks that the connection works.
func (c connection) echo(t *testing.T) {
	t.Helper()
	b := []byte{1}
	must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	_, err := c.Write(b)
	if err == nil {
		_, err = c.Read(b)
	}
	if err != nil {
		t.Errorf("the connection ended: %v", err)
	}
}

// TestReattachDeleted creates an interface again that a process in the container has deleted.
func TestReattachDeleted(t *testing.T) {
	w, _ := lan(t, nil)
	ns := testenv.NewContainer(t)
	w.MustAttach("c1", ns, "network=web")
	w.change(ns, "link del eth0")
	_, err := w.reattach(w.Record())
	must(t, err)
	hooklab.Pings(t, ns.Namespace, "192.168.50.1")
}

// TestReattachOutlivesExec ends another process in the namespace, such as one of podman exec, by which
// the namespace was found, while the interface is created again.
func TestReattachOutlivesExec(t *testing.T) {
	w, _ := lan(t, nil)
	exec := testenv.NewContainer(t) // has the lower pid
	w.MustAttach("c1", testenv.JoinNamespace(t, exec.Namespace), "network=web")
	w.change(exec, "link del eth0")
	a := w.Record()
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		l.Probers = afterRound{l.Probers, new(sync.Once), func() {
			must(t, exec.Kill())
			exec.Reap()
		}}
		_, err := l.Reattach(ctx, a.ID)
		return err
	}))
	hooklab.Pings(t, exec.Namespace, "192.168.50.1")
}

// TestReattachFails checks that an error leaves the record and the lease, and nothing else, so that
// the next call can succeed.
func TestReattachFails(t *testing.T) {
	w, gw := lan(t, nil)
	ns := testenv.NewContainer(t)
	w.MustAttach("c1", ns, "network=web", "ip=192.168.50.77", "verify=strict")
	first := w.Record()
	fails := func(what string, words ...string) {
		t.Helper()
		_, err := w.reattach(first)
		if err == nil {
			t.Fatalf("%s: no error", what)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q lacks %q", what, err, word)
			}
		}
		if a := w.Record(); a.ID != first.ID || a.State != hook.Attached || a.Former != nil || w.Held("web") != 2 {
			t.Errorf("%s: the record is %+v", what, a)
		}
		if links := w.Links(ns.Namespace); fmt.Sprint(links) != "[lo]" || w.Watched() != 0 {
			t.Errorf("%s: the container has %q, and %d endpoints are watched", what, links, w.Watched())
		}
	}
	w.Unplug()
	fails("without a parent", `parent "eth9": no such link`)
	w.Replug()
	claimant := w.AddClaimant(0, "192.168.50.77/24")
	fails("another station has the address", "address-conflict", "192.168.50.77", claimant.MAC.String())
	claimant.SetPort(false)
	gw.SetPort(false)
	fails("strict without a gateway", "silent")
	gw.SetPort(true)
	hooklab.IP(t, w.Host, "addr add 192.168.50.77/32 dev lo")
	fails("the host has the address", `192.168.50.77 was added to "lo" of this host: remove it there`)
	hooklab.IP(t, w.Host, "addr del 192.168.50.77/32 dev lo")
	w.change(ns, "link add eth0 type veth peer name other")
	_, err := w.reattach(first)
	if err == nil || !strings.Contains(err.Error(), `the container has a "eth0" already`) {
		t.Errorf("the name is taken: %v", err)
	}
	w.change(ns, "link del eth0")
	again, err := w.reattach(first)
	must(t, err)
	if again.Verdict.Code != verify.OK {
		t.Errorf("verdict %+v", again.Verdict)
	}
}

// TestReattachByPath removes the parent of an attachment in a namespace that the runtime names by its
// path, as CNI and netavark do: sweeps keep the record, also during and after a Reattach, and release
// it when the namespace is gone.
func TestReattachByPath(t *testing.T) {
	w, gw := lan(t, func(d *network.Definition) { d.Verify = verify.Strict })
	before := w.Links(w.Host)
	ns := testenv.NewNamespace(t, "sandbox")
	path, unpin := ns.PinAt(t)
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Attach(ctx, hook.Request{Container: "c1:eth0:lan", Netns: path, Wants: []hook.Want{{Network: "web"}}})
		return err
	}))
	first := w.Record()
	kept := func(when string) {
		t.Helper()
		if n := w.sweep(); n != 0 {
			t.Fatalf("%s: swept %d attachments", when, n)
		}
	}
	w.Unplug()
	kept("without a parent")
	w.wantChange(verify.InterfaceGone, `parent "eth9" was removed from this host`, "lanyard reattach")
	w.Replug()
	kept("with another parent")
	gw.SetPort(false)
	if _, err := w.reattach(first); err == nil || !strings.Contains(err.Error(), "silent") {
		t.Errorf("strict without a gateway: %v", err)
	}
	kept("after an error")
	w.wantChange(verify.InterfaceGone, `parent "eth9" was removed from this host and added again`)
	gw.SetPort(true)
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		l.Probers = afterRound{l.Probers, new(sync.Once), func() { kept("during Reattach") }}
		_, err := l.Reattach(ctx, first.ID)
		return err
	}))
	hooklab.Pings(t, ns, "192.168.50.1")
	kept("after Reattach")
	if a := w.Record(); a.ID != first.ID || fmt.Sprint(a.Addrs) != fmt.Sprint(first.Addrs) || w.Held("web") != 2 {
		t.Errorf("the record is %+v", a)
	}
	w.Unplug()
	unpin()
	ns.Release(t)
	w.eventuallySwept(t)
	w.Replug()
	w.WantNothing("web", before)
}

// TestAttachBesideLostInterface attaches a container to another network while the parent of its first one is
// gone: the first attachment and its address stay.
func TestAttachBesideLostInterface(t *testing.T) {
	w, _ := lan(t, nil)
	w.AddUplink("eth8")
	w.Define("db", "eth8", nil, "192.168.60.0/24")
	path, _ := testenv.NewNamespace(t, "sandbox").PinAt(t)
	attach := func(id string, want hook.Want) {
		t.Helper()
		must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
			_, err := l.Attach(ctx, hook.Request{Container: id, Netns: path, Wants: []hook.Want{want}})
			return err
		}))
	}
	attach("c1:eth0:lan", hook.Want{Network: "web", Interface: "eth0"})
	first := w.Record()
	w.Unplug()
	attach("c1:eth1:lan", hook.Want{Network: "db", Interface: "eth1"})
	recs := w.Records()
	kept := slices.ContainsFunc(recs, func(a hook.Attachment) bool { return a.ID == first.ID })
	if len(recs) != 2 || !kept || w.Held("web") != 2 {
		t.Errorf("the records are %+v", recs)
	}
}

// TestReattachMACInUse checks that Reattach ends if another link of the parent has the MAC. It runs by
// name: it waits for the MAC.
func TestReattachMACInUse(t *testing.T) {
	testenv.ByName(t)
	w, _ := lan(t, nil)
	ns, other := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("c1", ns, "network=web")
	a := w.Record()
	w.replugged()
	hooklab.IP(t, w.Host, fmt.Sprintf("link add mv0 link %s address %s type macvlan mode bridge", w.Trunk, a.MAC))
	hooklab.IP(t, w.Host, fmt.Sprintf("link set mv0 netns %d", other.Pid))
	hooklab.IP(t, other.Namespace, "link set mv0 up")
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		_, err := l.Reattach(ctx, a.ID)
		if err == nil || !strings.Contains(err.Error(), "in another network namespace has it") || ctx.Err() != nil {
			t.Errorf("got %v, %v", err, ctx.Err())
		}
		return nil
	}))
}
