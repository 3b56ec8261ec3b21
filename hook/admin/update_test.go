package admin_test

import (
	"context"
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

	hooklab.IP(t, w.Host, "link add lan8 type veth peer name lan8p")
	hooklab.IP(t, w.Host, "link set lan8 up")
	hooklab.IP(t, w.Host, "link set lan8p up")
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
