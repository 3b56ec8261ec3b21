package admin_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// updateParent runs "network update --parent".
func updateParent(w *hooklab.Lab, name, parent string) error {
	return w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.UpdateParent(ctx, name, parent)
		return err
	})
}

// TestUpdateParent checks that a network with a host's link, a guard and a container stays as it is
// when its renamed parent gets its new name in the definition, and that all of it moves to another
// link when no container is left.
func TestUpdateParent(t *testing.T) {
	w, _ := hooklab.NewLAN(t, func(d *network.Definition) { d.HostAccess, d.Guard = true, network.On })
	before := w.Links(w.Host)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "ip=192.168.50.9")
	for _, change := range []string{"down", "name lan9"} {
		hooklab.IP(t, w.Host, "link set eth9 "+change)
	}
	hooklab.IP(t, w.Host, "link set lan9 up")
	must(t, updateParent(w, "web", "lan9"))
	if d := w.Definition("web"); d.Parent != "lan9" || d.Managed {
		t.Errorf("the definition is %+v", d)
	}
	hooklab.Pings(t, w.Host, "192.168.50.9")
	other := testenv.NewContainer(t)
	w.MustAttach("c2", other, "network=web", "ip=192.168.50.10")
	hooklab.Pings(t, w.Host, "192.168.50.10")
	hooklab.Pings(t, other.Namespace, "192.168.50.1")

	addLink(t, w, "lan8")
	if err := updateParent(w, "web", "lan8"); err == nil ||
		!strings.Contains(err.Error(), `on "lan9", which is another link`) {
		t.Errorf("moved with containers: %v", err)
	}
	w.DetachAndEnd("c1", c)
	w.DetachAndEnd("c2", other)
	must(t, updateParent(w, "web", "lan8"))
	out, err := w.Host.Exec("tc", "filter", "show", "dev", "lan9", "egress")
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("filters on the earlier parent: %q, %v", out, err)
	}
	out, err = w.Host.Exec("ip", "-o", "link", "show", "type", "macvlan")
	if err != nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, "@lan8:") {
		t.Errorf("the host's link is %q, %v", out, err)
	}
	w.RemoveNetwork("web")
	links := w.Links(w.Host)
	if len(links) != len(before)+1 ||
		slices.ContainsFunc(links, func(l string) bool { return strings.HasPrefix(l, "ly-") }) {
		t.Errorf("links are %q, and were %q", links, before)
	}
}

// TestUpdateParentAgain checks that the same call completes an update that was interrupted after it
// had written the definition: the earlier parent has no program and no host's link any more, and the
// guard of the new parent stays.
func TestUpdateParentAgain(t *testing.T) {
	for _, access := range []bool{false, true} {
		w, _ := hooklab.NewLAN(t, func(d *network.Definition) { d.HostAccess, d.Guard = access, network.On })
		addLink(t, w, "lan8")
		c := testenv.NewContainer(t)
		w.MustAttach("c1", c, "network=web", "ip=192.168.50.9")
		w.DetachAndEnd("c1", c)
		if filters(t, w, "eth9") == "" {
			t.Fatal("the parent has no guard")
		}
		d := w.Definition("web")
		d.Parent = "lan8"
		must(t, d.Save(w.Paths().Networks))
		if !access { // with host access, containers cannot start before the update is complete
			w.MustAttach("c2", testenv.NewContainer(t), "network=web", "ip=192.168.50.10")
		}
		guarded := filters(t, w, "lan8")
		must(t, updateParent(w, "web", "lan8"))
		if f := filters(t, w, "eth9"); f != "" {
			t.Errorf("host access %v: filters on the earlier parent: %q", access, f)
		}
		if f := filters(t, w, "lan8"); !access && (guarded == "" || f != guarded) {
			t.Errorf("filters on the new parent: %q, and were %q", f, guarded)
		}
		out, err := w.Host.Exec("ip", "-o", "link", "show", "type", "macvlan")
		if err != nil || strings.Contains(out, "@lan8:") != access || strings.Contains(out, "@eth9:") {
			t.Errorf("host access %v: the host's links are %q, %v", access, out, err)
		}
	}
}

// TestUpdateParentHostAddress checks that a parent is refused, and nothing changed, if a station on its
// LAN has the host's address, and that a lost link of the host is created with the routes to running
// containers.
func TestUpdateParentHostAddress(t *testing.T) {
	w, _ := hooklab.NewLAN(t, hostAccess)
	addLink(t, w, "lan8")
	peer := testenv.NewContainer(t)
	hooklab.IP(t, w.Host, fmt.Sprintf("link set lan8p netns %d", peer.Pid))
	host := w.Definition("web").HostAddresses[0]
	hooklab.IP(t, peer.Namespace, "addr add "+host.String()+"/24 dev lan8p")
	hooklab.IP(t, peer.Namespace, "link set lan8p up")
	err := updateParent(w, "web", "lan8")
	if err == nil || !strings.Contains(err.Error(), "recreate the network with another --host-address") {
		t.Errorf("moved to where a station has the host's address: %v", err)
	}
	if d := w.Definition("web"); d.Parent != "eth9" {
		t.Errorf("the parent is %q", d.Parent)
	}
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "ip=192.168.50.9")
	hooklab.IP(t, w.Host, "link del "+w.Definition("web").HostLink())
	must(t, updateParent(w, "web", "eth9"))
	hooklab.Pings(t, w.Host, "192.168.50.9")
}

// addLink adds a veth pair to the host, both ends up. The peer's name ends with "p".
func addLink(t *testing.T, w *hooklab.Lab, name string) {
	hooklab.IP(t, w.Host, "link add "+name+" type veth peer name "+name+"p")
	hooklab.IP(t, w.Host, "link set "+name+" up")
	hooklab.IP(t, w.Host, "link set "+name+"p up")
}

// filters returns tc's list of the filters on a link's egress.
func filters(t *testing.T, w *hooklab.Lab, name string) string {
	out, err := w.Host.Exec("tc", "filter", "show", "dev", name, "egress")
	must(t, err)
	return strings.TrimSpace(out)
}
