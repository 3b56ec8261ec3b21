package attach_test

import (
	"context"
	"errors"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// TestTrunkFull fills the trunk's endpoints. The next start is refused in every mode,
// because a container that is not watched could send VLAN tags of its choice.
func TestTrunkFull(t *testing.T) {
	const most = 8192 // of the map "endpoints"
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, nil, "192.168.50.0/24")
	before := w.Links(w.Host)
	each := func(f func(*wiring.Lanyard, verify.Endpoint) error) {
		t.Helper()
		must(t, w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
			p, err := l.Parent(w.Definition("web"))
			if err == nil {
				err = l.Datapath.Prepare(p.TrunkIndex)
			}
			for i := range most {
				e := verify.Endpoint{Trunk: p.TrunkIndex, MAC: ether.MAC{0x0e, 0, 0, 0, byte(i >> 8), byte(i)},
					Attachment: verify.ID{1}}
				err = errors.Join(err, f(l, e))
			}
			return err
		}))
	}
	// The first use of a database rebuilds it from kernel state, and forgets endpoints
	// without a container. So the first attach comes before these endpoints.
	first := testenv.NewContainer(t)
	w.MustAttach("c0", first, "network=web")
	must(t, first.Kill())
	w.MustDetach("c0")
	each(func(l *wiring.Lanyard, e verify.Endpoint) error { return l.Datapath.Expect(e) })
	for _, mode := range []verify.Mode{verify.Warn, verify.Strict} {
		w.Refused("a MAC too many", w.Attach("c1", testenv.NewContainer(t), "network=web", "verify="+string(mode)), 1,
			`watch trunk "`+w.Trunk+`"`, "8192 MACs are watched already, which is the maximum")
	}
	each(func(l *wiring.Lanyard, e verify.Endpoint) error { return l.Datapath.Forget(e) })
	w.WantNothing("web", before)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
}
