package attach_test

import (
	"context"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestBusyMACHasNoPermit checks that a MAC that another program's macvlan has keeps no permit in the
// guard of the parent: its frames would pass with the container's address.
func TestBusyMACHasNoPermit(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) {
		hooklab.MACFromAddress(d)
		d.Guard = network.On
	})
	const busy = "02:42:c0:a8:32:09"
	hooklab.IP(t, w.Host, "link add m0 link "+w.Trunk+" address "+busy+" type macvlan mode bridge")
	hooklab.IP(t, w.Host, "link set m0 up")
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "ip=192.168.50.9")
	a := w.Record()
	if a.MAC.String() == busy || a.Former != nil {
		t.Fatalf("the record is %+v", a)
	}
	must(t, w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
		if n, err := l.Guards.Permitted(a.ParentIdx, ether.MAC{2, 0x42, 0xc0, 0xa8, 0x32, 9}); err == nil {
			t.Errorf("%s has a permit: %+v", busy, n)
		}
		_, err := l.Guards.Permitted(a.ParentIdx, a.MAC)
		return err
	}))
	w.DetachAndEnd("c1", c)
}

// TestPassthruFollowsParent changes the MAC of a parent, as a bond with fail_over_mac does. The kernel
// then changes that of a passthru macvlan, which is no change in the container.
func TestPassthruFollowsParent(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) { d.Mode = network.ModePassthru })
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	hooklab.IP(t, w.Host, "link set "+w.Trunk+" address 02:00:00:00:00:77")
	if list := w.changes(); len(list) > 0 {
		t.Errorf("changes are %+v", list)
	}
	w.DetachAndEnd("c1", c)
}
