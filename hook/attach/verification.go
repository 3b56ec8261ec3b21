package attach

import (
	"fmt"
	"net/netip"
	"slices"

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

	outage     *error // why the store of leases is out of reach, for all networks of the request: see outageOf
	configured bool   // the addresses are set: the round is that of a later verification
	unwatched  string // why the trunk is not watched; "" if it is
	// askedAt is the time of the conflict question that was sent before the round; 0: none was.
	askedAt     verify.Instant
	ignoreUntil verify.Instant // claims that the trunk saw up to then are ignored
	// excused has the time up to which the claims of a station are ignored.
	excused map[ether.MAC]verify.Instant

	hostState *hostState // read before the round, for its verdict; nil: read it again
	control   *control   // the control question in progress; nil: none
	controls  map[netip.Addr]verify.Answer
	routers   []verify.Answer // advertisements of routers; nil: not asked
	proxies   []ether.MAC     // stations that answer for any address (proxy ARP)
	indirect  []netip.Addr    // gateways that have answered only to all nodes

	undelivered []netip.Addr // gateways with an answer that only the trunk saw

	kept []netip.Addr // addresses of the interface that the verification is not about
}

// isKept reports whether the verification is not about the address.
func (v *verification) isKept(a netip.Addr) bool { return slices.Contains(v.kept, a) }

// driver returns the driver of the interface.
func (v *verification) driver() driver.Driver { return driver.Of(v.Parts, &v.rec) }

// addrs returns the addresses of the record.
func (v *verification) addrs() []netip.Addr { return v.rec.Addresses() }

// targets returns the addresses that the datapath watches the questions for: the gateways or,
// without any, the container's own addresses.
func (v *verification) targets() []netip.Addr {
	if len(v.rec.Gateways) > 0 {
		return v.rec.Gateways
	}
	return slices.DeleteFunc(v.addrs(), v.isKept)
}

// sharesMAC reports whether the container has the parent's MAC, as in mode passthru and with
// ipvlan: no filter for MACs can then distinguish them.
func (v *verification) sharesMAC() bool { return v.rec.MAC == v.parent.MAC }

// directAddr returns the address to ask IPv6 gateways from, to find out whether their answer goes
// to the container's MAC only. It is not valid if the trunk program cannot observe that: plan has the
// gateways asked from that address alone then.
func (v *verification) directAddr() netip.Addr {
	if v.unwatched != "" {
		return netip.Addr{}
	}
	return v.rec.MAC.LinkLocal()
}

// hostState is the state of this host that a round and its verdict depend on.
type hostState struct {
	down       string      // why no frame can pass through the parent; "" if they can
	macs       []ether.MAC // of the links on the parent
	unrecorded []ether.MAC // those of macs with addresses that are not in the database
}

// isLocal reports whether a MAC is that of the parent or of a link on it.
func (v *verification) isLocal(state *hostState, mac ether.MAC) bool {
	return mac == v.parent.MAC || slices.Contains(state.macs, mac)
}

// counters returns what the trunk has counted for the endpoint, or nil if it is not watched.
func (v *verification) counters() *verify.Counters {
	if v.unwatched != "" {
		return nil
	}
	e, err := v.Datapath.Evidence(v.rec.Endpoint)
	if err != nil {
		v.unwatched = err.Error()
		return nil
	}
	return &e.Counters
}

// seenSince returns what the trunk has counted for the endpoint since before, and its evidence; nil if
// it is not watched.
func (v *verification) seenSince(before *verify.Counters) (*verify.Counters, *verify.Evidence, error) {
	if before == nil || v.unwatched != "" {
		return nil, nil, nil
	}
	e, err := v.Datapath.Evidence(v.rec.Endpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("read evidence from trunk %q: %w", v.parent.Trunk, err)
	}
	return &verify.Counters{
		OutFrames: e.Counters.OutFrames - before.OutFrames, OutWrong: e.Counters.OutWrong - before.OutWrong,
		InFrames: e.Counters.InFrames - before.InFrames, InWrong: e.Counters.InWrong - before.InWrong,
	}, &e, nil
}
