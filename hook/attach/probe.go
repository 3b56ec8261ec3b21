package attach

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// A verification asks the LAN about one attachment and judges the answers: at its start, as a part
// of an [attempt], and later. Its record has the evidence and the verdicts.
type verification struct {
	*Local
	def    *network.Definition
	ns     *link.Netns
	parent link.Parent
	rec    hook.Attachment
	trace  *hook.Trace

	configured bool   // the addresses are set: the round is that of a later verification
	unwatched  string // why the trunk is not watched; "" if it is
	// askedAt is the time of the conflict question that was sent before the round; 0: none was.
	askedAt     verify.Instant
	ignoreUntil verify.Instant // claims that the trunk saw up to then are ignored
	// excused has the time up to which the claims of a station are ignored.
	excused map[ether.MAC]verify.Instant

	hostState *hostState // read before the round, for its verdict; nil: read it again
	control   *control   // the one that runs now
	controls  map[netip.Addr]verify.Answer
	routers   []verify.Answer // advertisements of routers; nil: not asked
	proxies   []ether.MAC     // stations that answer for any address (proxy ARP)
	indirect  []netip.Addr    // gateways that have answered only to all nodes

	kept []netip.Addr // addresses of the interface that the verification is not about
}

// isKept reports whether the verification is not about the address.
func (v *verification) isKept(a netip.Addr) bool { return slices.Contains(v.kept, a) }

// driver returns the driver of the interface.
func (v *verification) driver() driver.Driver { return driver.Of(v.Parts, &v.rec) }

// probe runs one round: it asks whether another station has the addresses, and asks the gateways.
func (v *verification) probe(ctx context.Context) (f verify.Findings, err error) {
	err = v.onProbeLink(func(index int, name string) error {
		p, err := v.Probers.Quick(index, v.rec.MAC, v.unwatched == "")
		if err != nil {
			return fmt.Errorf("open a prober on %q: %w", name, err)
		}
		// Close deletes the candidates' entries in the neighbour table, which must happen
		// before the addresses are set.
		plan := v.plan()
		plan.Asked, v.askedAt = v.askedAt, 0
		plan.OnSilence, plan.Direct = v.startControl(ctx), v.directAddr()
		f, err = verify.Round(ctx, p, plan)
		v.finishControl(f, plan)
		closeErr := p.Close()
		if err != nil {
			return err
		}
		return closeErr
	})
	if err != nil || len(f.Claimants) > 0 || v.unwatched == "" || v.sharesMAC() {
		return f, err
	}
	return f, v.askBlind(ctx, &f)
}

// askBlind asks for conflicts from the parent, through a packet socket, for a trunk that is not
// watched.
func (v *verification) askBlind(ctx context.Context, f *verify.Findings) error {
	plan := v.plan()
	plan.Gateways = nil
	g, err := v.askAsParent(ctx, v.parent, plan)
	for i := range g.Claimants {
		g.Claimants[i].SameMAC = g.Claimants[i].MAC == v.rec.MAC
	}
	f.Claimants = g.Claimants
	return err
}

// onProbeLink runs f in the namespace of the link that sends probes, with the link's ifindex and
// name: the new interface in the container's namespace, or the parent if the driver asks from there.
func (v *verification) onProbeLink(f func(index int, name string) error) error {
	if v.driver().AsksFromParent() {
		return v.Host.Do(func() error { return f(v.parent.Index, v.parent.Name) })
	}
	return v.ns.Do(func() error { return f(v.rec.Index, v.rec.Interface) })
}

// plan returns the plan of a round for the addresses and gateways of the record.
func (v *verification) plan() verify.Plan {
	p := verify.Plan{
		Addrs:    slices.DeleteFunc(v.addrs(), v.isKept),
		Held:     v.configured,
		Gateways: v.rec.Gateways,
		Window:   time.Duration(v.def.ConflictWindow),
		Deadline: time.Duration(v.def.Deadline),
		Proxies:  v.proxies,
	}
	if v.unwatched == "" {
		p.Observed, p.Ask = v.claimants, v.askConflict
		// Without a gateway, the trunk watches for the question for an address. An announcement is one for
		// IPv4 only.
		noQuestion := len(v.rec.Gateways) == 0 && !slices.ContainsFunc(p.Addrs, netip.Addr.Is4)
		p.FromContainer = noQuestion || v.hostState == nil || len(v.hostState.unrecorded) > 0
	}
	return p
}
