package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/verify"
)

// maxCandidates is the number of addresses that one attach tries while each has a claimant.
const maxCandidates = 8

// attempt is the attach of one interface. Verify and host access use parts of it, too.
type attempt struct {
	*Local
	def *network.Definition
	// stamp is that of the file that def was read from.
	stamp network.Stamp
	r     hook.Request
	want  hook.Want
	ns    *link.Netns
	// caller is the user without privilege that the attach is for; nil: root.
	caller  *hook.Caller
	guarded bool // the attachment is guarded

	hostAddrs    []link.HostAddr  // the host's addresses, read when the addresses were claimed
	subnets      []network.Subnet // one of each family; rec.Addrs is in the same order
	usedNames    []string         // interface names that the namespace and the request have
	loopbackOnly bool             // the namespace had no link but its loopback

	noDefault map[hook.Family]bool // default routes that this interface does not get

	rec       hook.Attachment // what has been or will be acquired
	joined    bool            // the namespace already had the interface
	recorded  bool            // rec is in the database
	macBusy   bool            // another link of the parent has the MAC that belongs to the address
	ending    endingLink
	parent    link.Parent
	link      link.Interface
	unwatched string // why the trunk is not watched; "" if it is
	// askedAt is the time of the conflict question that was sent before the round; 0: none was.
	askedAt    verify.Instant
	configured bool // the addresses are set: the round is that of a later verification
	// conflicts is the number of rounds with a claimant.
	conflicts  int
	declinedTo []verify.MAC // the claimants of declined candidates
	pickRandom bool         // the search for the next candidate starts at a random address
	// hostIfindex is the ifindex of the host's own link on the network, 0 for none.
	hostIfindex int
	traceStart  int // number of steps in the trace before this attach

	hostState *hostState // read before the round, for its verdict; nil: read it again
	control   *control   // the one that runs now
	controls  map[netip.Addr]verify.Answer
	routers   []verify.Answer // advertisements of routers; nil: not asked
	proxies   []verify.MAC    // stations that answer for any address (proxy ARP)
	indirect  []netip.Addr    // gateways that have answered only to all nodes
}

// resolve reads what the attach depends on: subnets, parent and the names in the namespace. It
// changes nothing on the host.
func (t *attempt) resolve() (err error) {
	if t.subnets, err = chooseSubnets(t.def, t.want.Addrs); err != nil {
		return err
	}
	t.parent, err = t.Parent(t.def)
	if errors.Is(err, link.ErrNoLink) && t.def.Managed {
		err = nil // prepareLinks creates it, after the intent is recorded
	}
	if err == nil {
		err = t.checkMTU()
	}
	if err != nil || t.want.Interface != "" {
		return parts.ExplainMissingParent(t.def, err)
	}
	if t.usedNames, err = t.ns.Links(); err != nil {
		return err
	}
	t.loopbackOnly = len(t.usedNames) == 1
	for _, w := range t.r.Wants {
		t.usedNames = append(t.usedNames, w.Interface) // used by this request
	}
	return nil
}

// minMTU6 is the minimum MTU of IPv6, in bytes (RFC 8200 §5). Below it, the kernel silently turns
// IPv6 off on the interface.
const minMTU6 = 1280

// checkMTU returns an error if the MTU is too small for one of the subnets.
func (t *attempt) checkMTU() error {
	mtu := t.mtu()
	for _, s := range t.subnets {
		if s.Subnet.Addr().Is6() && mtu != 0 && mtu < minMTU6 {
			return fmt.Errorf("MTU %d is too small: IPv6 subnet %s needs at least %d", mtu, s.Subnet, minMTU6)
		}
	}
	return nil
}

// run acquires the resources that the intent names, step by step, and commits the attachment. It
// returns a *Refusal if the verdict is fatal. On an error, the caller undoes the record.
func (t *attempt) run(ctx context.Context) error {
	if err := t.prepareLinks(ctx); err != nil {
		return err
	}
	if err := t.checkNamedMAC(); err != nil {
		return err
	}
	if err := t.createWithFreeMAC(ctx); err != nil {
		return err
	}
	if err := t.verifyAndConfigure(ctx); err != nil {
		return err
	}
	if t.rec.Verdict.Code.Fatal(t.rec.Mode) {
		return &hook.Refusal{Verdict: t.rec.Verdict, Evidence: t.rec.Evidence}
	}
	if err := t.routeFromHost(); err != nil {
		return err
	}
	return t.commit(ctx)
}

// prepareLinks creates the parent and the host's own link if they are missing, and loads the
// trunk program. A managed parent is missing after a boot, and may be incomplete after its
// creator was killed.
func (t *attempt) prepareLinks(ctx context.Context) (err error) {
	if missing := t.parent.Index == 0; missing || t.def.Managed && !t.parent.Up {
		if t.parent, _, err = t.EnsureParent(ctx, t.def); err != nil {
			return err
		}
		if missing {
			if err := t.recordEndpoint(ctx); err != nil {
				return err
			}
		}
	}
	t.reached("parent")
	if t.hostIfindex, err = t.EnsureHostAccess(ctx, t.def, t.parent); err != nil {
		return err
	}
	t.unwatched = t.WatchNetwork(t.def, t.parent)
	t.r.Trace.Mark("watch")
	return nil
}

// WatchNetwork loads the trunk program for a network. It returns "", or the reason why the
// frames of the network's containers cannot be watched.
func (l *Local) WatchNetwork(def *network.Definition, p link.Parent) (unwatched string) {
	if why := driver.ForNetwork(l.Parts, def).Unwatchable(p.Name); why != "" {
		return why
	}
	return l.WatchTrunk(p.TrunkIndex)
}

// createWatched creates the interface in the namespace. Before that, it gives the guard the permit
// and tells the datapath which frames to expect, so that the first frame is covered, and asks
// the conflict question for the first time.
func (t *attempt) createWatched(ctx context.Context) (err error) {
	if err := t.permit(ctx); err != nil {
		return err
	}
	if err := t.expect(); err != nil {
		return err
	}
	if err := t.openWindow(); err != nil {
		return err
	}
	created, err := t.driver().Create(ctx, t.ns, t.spec())
	t.keep(created)
	t.reached("link")
	return err
}

// driver returns the driver of the interface.
func (t *attempt) driver() driver.Driver { return driver.Of(t.Parts, &t.rec) }

// spec returns the description of the interface for its driver.
func (t *attempt) spec() driver.Spec {
	return driver.Spec{Attachment: t.rec, Network: t.def, Parent: t.parent}
}

// keep stores the interface and its guard in the record: undo needs them, also after an error.
func (t *attempt) keep(c driver.Created) {
	if c.Index != 0 {
		t.link, t.rec.Index, t.rec.MTU = c.Interface, c.Index, c.MTU
	}
	if c.Guard != nil {
		t.rec.Guard = c.Guard
	}
}

// busyMACTimeout is how long an attach waits for a derived MAC that another macvlan of the parent
// has. The kernel frees the MAC of an ended container within milliseconds. The MAC of a link that
// Lanyard did not create stays in use.
const busyMACTimeout = time.Second

// createWithFreeMAC creates the interface. If the derived MAC stays in use on the parent, it
// creates the interface with another one: Docker derives the MACs of containers on the same
// parent in the same way. A MAC that the container requested is not replaced.
func (t *attempt) createWithFreeMAC(ctx context.Context) error {
	if !t.want.MAC.IsZero() || t.def.SharesMAC() || t.rec.Guard != nil {
		return t.createWatched(ctx)
	}
	soon, cancel := context.WithTimeout(ctx, busyMACTimeout)
	defer cancel()
	err := t.createWatched(soon)
	if !errors.Is(err, link.ErrMACBusy) || ctx.Err() != nil {
		return err
	}
	old := t.rec.Endpoint
	t.macBusy, t.ending.busyMAC, t.rec.Former = true, old.MAC, &old
	if err := t.recordEndpoint(ctx); err != nil {
		return err
	}
	if err := t.createWatched(ctx); err != nil {
		return err
	}
	t.rec.Former = nil
	return t.forget(old)
}

// recordEndpoint sets the fields of the record that depend on the parent and the addresses: MAC
// and endpoint. It writes the record, so that they are in the database before they are used. It
// returns hook.ErrGone if a sweep removed the record.
func (t *attempt) recordEndpoint(ctx context.Context) error {
	t.rec.Parent, t.rec.ParentIdx, t.rec.Trunk = t.parent.Name, t.parent.Index, t.parent.Trunk
	if err := t.DB.Update(ctx, func(tx record.Tx) error {
		if err := t.chooseMAC(tx); err != nil {
			return err
		}
		t.rec.Endpoint = verify.Endpoint{
			Trunk: t.parent.TrunkIndex, Tags: parts.TagsOf(t.parent), MAC: t.rec.MAC,
			Addrs: t.addrs(), Gateways: t.targets(),
			Attachment: t.rec.ID, Netns: t.rec.Netns.Cookie,
			// If the MAC is the parent's, frames of the host with other tags carry it, too.
			Enforce: t.rec.Mode != verify.Off && !t.def.SharesMAC(),
		}
		return record.Replace(tx, &t.rec)
	}); err != nil {
		return err
	}
	t.reached("record")
	return nil
}

// expect tells the datapath which frames to expect from the endpoint, if the trunk is watched.
func (t *attempt) expect() error {
	if t.unwatched != "" {
		return nil
	}
	if err := t.Datapath.Expect(t.rec.Endpoint); err != nil {
		return fmt.Errorf("watch trunk %q: %w", t.parent.Trunk, err)
	}
	t.reached("expect")
	return nil
}

// verifyAndConfigure probes the LAN, sets addresses and routes, and judges the answers. If a
// candidate address has a claimant, it declines the address and tries the next one, unless the
// address was requested. The verdict is in the record. A late conflict over an address that was
// not requested is a *lateConflict.
func (t *attempt) verifyAndConfigure(ctx context.Context) error {
	unverified := func(text string) verify.Verdict { return verify.Verdict{Code: verify.Unverified, Text: text} }
	switch {
	case t.rec.Mode == verify.Off:
		t.rec.Verdict = unverified("verification is off")
		return t.ns.Do(t.configure)
	case len(t.rec.Addrs) == 0:
		t.rec.Verdict = unverified("the network assigns no addresses: the workload configures its own")
		return nil
	case t.def.Routed():
		t.rec.Verdict = unverified(fmt.Sprintf("mode %s has no gateway to probe: the host routes", t.def.Mode))
		return t.ns.Do(t.configure)
	}
	for {
		f, err := t.probeAndConfigure(ctx)
		if err != nil {
			return err
		}
		if len(f.Claimants) > 0 {
			excused, err := t.excused(ctx, f)
			if err != nil {
				return err
			}
			if excused {
				continue
			}
			t.conflicts++
		}
		if len(f.Claimants) == 0 || t.conflicts == maxCandidates || t.claimsRequested(f.Claimants[0]) {
			if err := t.judge(ctx, f); err != nil {
				return err
			}
			return t.confirm(ctx, f)
		}
		if err := t.decline(ctx, f.Claimants[0]); err != nil {
			return err
		}
	}
}

// isRequested reports whether the container requested the address.
func (t *attempt) isRequested(a netip.Addr) bool { return slices.Contains(t.want.Addrs, a) }

// pickRandomAfter is the number of candidates with a claimant after which the search continues at
// a random address: another host may assign addresses of the same range in order.
const pickRandomAfter = 3

// decline declines the address that a claimant has, claims the next one, and changes record,
// guard, datapath and interface to it.
func (t *attempt) decline(ctx context.Context, c verify.Claimant) error {
	old := t.rec.Endpoint
	t.rec.Former = &old // undo needs it until the interface has changed and the old endpoint is removed
	// If two hosts probe at the same time, both decline. In the same order, they would choose
	// the same address again.
	t.pickRandom = c.Probing || t.conflicts >= pickRandomAfter
	if err := t.DB.Hold(ctx, func() error { return t.replaceAddr(ctx, t.addrToDecline(c)) }); err != nil {
		return err
	}
	if err := t.recordEndpoint(ctx); err != nil {
		return err
	}
	failpoint.At("decline")
	if err := t.permit(ctx); err != nil {
		return err
	}
	if err := t.expect(); err != nil {
		return err
	}
	if err := t.openWindow(); err != nil {
		return err
	}
	created, err := t.driver().Readdress(ctx, t.ns, t.link, t.spec())
	t.keep(created)
	if err != nil {
		return err
	}
	if t.rec.MAC != old.MAC && t.rec.AtParent {
		if err := t.Guards.Unlease(t.parent.Index, old.MAC); err != nil {
			return err
		}
	}
	if t.rec.MAC != old.MAC && t.unwatched == "" {
		if err := t.Datapath.Forget(old); err != nil {
			return err
		}
	}
	t.rec.Former = nil
	return nil
}

// configure sets addresses and routes. It must run inside the namespace.
func (t *attempt) configure() error {
	for _, p := range t.rec.Addrs {
		// The round has just probed the address, so the kernel does not: its own check would
		// leave an IPv6 address unusable for a second (RFC 4862 §5.4).
		if err := t.ns.AddAddr(t.link.Index, link.Addr{Prefix: p}); err != nil {
			return err
		}
	}
	if err := t.addRoutes(); err != nil {
		return err
	}
	t.reached("address")
	return nil
}

// commit changes the record from intent to attachment. It returns hook.ErrGone if a sweep removed the
// record, and an error if the container has exited: the runtime may have been killed during the
// attach.
func (t *attempt) commit(ctx context.Context) error {
	if err := t.checkNotHosts(); err != nil {
		return err
	}
	if t.unwatched == "" {
		if err := t.Datapath.MarkInUse(t.rec.Endpoint); err != nil {
			return err
		}
	}
	was := t.rec
	t.rec.State, t.rec.Former, t.rec.Timing = hook.Attached, nil, t.r.Trace.Since(t.traceStart)
	err := t.DB.Update(ctx, func(tx record.Tx) error {
		// Inside the transaction: a poststop before it leaves the record to this process, and
		// a poststop after it finds the attachment.
		if !t.ns.Alive() {
			return fmt.Errorf("container %q exited during the attach", t.r.Container)
		}
		return record.Replace(tx, &t.rec)
	})
	if err != nil {
		t.rec = was
		return err
	}
	t.reached("commit")
	return nil
}
