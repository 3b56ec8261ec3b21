package hook

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// maxCandidates bounds how many addresses one attach tries when the wire says
// that others hold them.
const maxCandidates = 8

// attempt is the attach of one interface under way.
type attempt struct {
	*Local
	def *network.Definition
	// stamp is of the file that def was read from.
	stamp network.Stamp
	r     Request
	want  Want
	ns    *link.Netns
	// caller is who asked, where that was not root.
	caller  *Caller
	guarded bool // its frames are held to its lease

	hostAddrs    []link.HostAddr  // the host's own, when the addresses were claimed
	subnets      []network.Subnet // one of each family; rec.Addrs is in the same order
	usedNames    []string         // names that the namespace had before
	loopbackOnly bool             // it had its loopback, and nothing else

	noDefault map[bool]bool // by Is4: the default routes that are not for this interface

	rec       Attachment // what has been or is about to be acquired
	joined    bool       // the namespace had it already: nothing to do
	recorded  bool       // rec is on record
	macBusy   bool       // the MAC that goes with the address is somebody else's on the parent
	ending    endingLink
	parent    link.Parent
	link      link.Interface
	unwatched string // why the trunk is not watched, "" if it is
	// asked is when the conflict question was sent for a round to come; 0: it was not.
	askedAt    verify.Instant
	configured bool // the addresses are on: the round is of a later verification
	// conflicts is how many candidates were declined.
	conflicts  int
	declinedTo []verify.MAC // that claimed one
	pickRandom bool         // the next candidate is to be looked for at random
	// hostLink is the index of the host's own link on the network, 0 for none.
	hostIfindex int
	traceStart  int // steps of the trace that are not of this attach

	hostState *hostState // read while the round had time, for the verdict after it
	control   *control   // under way
	controls  map[netip.Addr]verify.Answer
	routers   []verify.Answer // that have advertised themselves; nil: not asked
	proxies   []verify.MAC    // that answer for any address
	indirect  []netip.Addr    // gateways that have answered to all nodes only
}

// prepare finds out, changing nothing, what the attach will stand on.
func (t *attempt) resolve() (err error) {
	if t.subnets, err = chooseSubnets(t.def, t.want.Addrs); err != nil {
		return err
	}
	t.parent, err = t.Parent(t.def)
	if errors.Is(err, link.ErrNoLink) && t.def.Managed {
		err = nil // ready makes it, once the intent is on record
	}
	if err == nil {
		err = t.checkMTU()
	}
	if err != nil || t.want.Interface != "" {
		return explainMissingParent(t.def, err)
	}
	if t.usedNames, err = t.ns.Links(); err != nil {
		return err
	}
	t.loopbackOnly = len(t.usedNames) == 1
	for _, w := range t.r.Wants {
		t.usedNames = append(t.usedNames, w.Interface) // spoken for
	}
	return nil
}

// minMTU6 is the least that IPv6 runs on (RFC 8200 §5): below it the kernel
// turns it off on the interface without a word.
const minMTU6 = 1280

// fits refuses an MTU that some of the addresses could not live with.
func (t *attempt) checkMTU() error {
	mtu := t.mtu()
	for _, s := range t.subnets {
		if s.Subnet.Addr().Is6() && mtu != 0 && mtu < minMTU6 {
			return fmt.Errorf("MTU %d is under the %d that IPv6 needs, and subnet %s is IPv6", mtu, minMTU6, s.Subnet)
		}
	}
	return nil
}

// run acquires what the intent names, step by step, and commits it. Whoever
// calls it undoes the record when it fails.
func (t *attempt) run(ctx context.Context) error {
	if err := t.ensureLinks(ctx); err != nil {
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
		return &Refusal{t.rec.Verdict, t.rec.Evidence}
	}
	if err := t.addHostRoutesToIt(); err != nil {
		return err
	}
	return t.commit(ctx)
}

// Refusal is the error of an attach whose verdict was fatal.
type Refusal struct {
	Verdict  verify.Verdict
	Evidence *verify.Evidence // nil where the trunk was not watched
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Verdict.Code, r.Verdict.Text) }

// ready makes sure of the parent and of the watch on its trunk. One of ours may
// be missing after a boot, or half made by somebody who was killed.
func (t *attempt) ensureLinks(ctx context.Context) (err error) {
	if missing := t.parent.Index == 0; missing || t.def.Managed && !t.parent.Up {
		if t.parent, _, err = t.ensureParent(ctx, t.def); err != nil {
			return err
		}
		if missing {
			if err := t.recordEndpoint(ctx); err != nil {
				return err
			}
		}
	}
	t.reached("parent")
	if t.hostIfindex, err = t.ensureHostAccess(ctx, t.def, t.parent); err != nil {
		return err
	}
	t.unwatched = t.watchNetwork(t.def, t.parent)
	t.r.Trace.Mark("watch")
	return nil
}

// watchFor makes sure that a network's trunk is watched, or says why its
// containers cannot be. Endpoints are told apart by their MAC, and an ipvlan's
// frames are the host's.
func (l *Local) watchNetwork(def *network.Definition, p link.Parent) (blind string) {
	if def.Driver == network.DriverIPvlan {
		return fmt.Sprintf("driver ipvlan sends with the MAC of parent %q, which is the host's, too", p.Name)
	}
	return l.watchTrunk(p.TrunkIndex)
}

// watch makes sure that a trunk is watched, or says why it cannot be.
func (l *Local) watchTrunk(trunk int) (blind string) {
	if err := l.Datapath.Prepare(trunk); err != nil {
		return err.Error()
	}
	return ""
}

// make places the interface in the namespace, its frames expected before the
// first of them can leave.
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
	t.link, err = t.createInterface(ctx)
	t.rec.Index, t.rec.MTU = t.link.Index, t.link.MTU
	t.reached("link")
	return err
}

// busyMAC is how long a MAC that is derived is waited for, while another macvlan
// on the parent has it. That of a container that has just ended is free within
// milliseconds; that of a link which is somebody else's never is.
const busyMACTimeout = time.Second

// makeAnyhow makes the interface, with another MAC where the first is busy and
// nobody asked for it: Docker's containers on the same parent have MACs derived
// in the same way.
func (t *attempt) createWithFreeMAC(ctx context.Context) error {
	if !t.want.MAC.IsZero() || t.def.SharesMAC() || t.guarded {
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

// passing is a name that an attachment's interface alone can have.
func temporaryName(id verify.ID) string { return id.String()[17:] }

// name settles everything that depends on the parent and on the addresses, and
// puts it on record before any of it is used.
func (t *attempt) recordEndpoint(ctx context.Context) error {
	t.rec.Parent, t.rec.ParentIdx, t.rec.Trunk = t.parent.Name, t.parent.Index, t.parent.Trunk
	if err := t.DB.Update(ctx, func(tx Tx) error {
		if err := t.chooseMAC(tx); err != nil {
			return err
		}
		t.rec.Endpoint = verify.Endpoint{
			Trunk: t.parent.TrunkIndex, Tags: tagsOf(t.parent), MAC: t.rec.MAC,
			Addrs: t.addrs(), Gateways: t.targets(),
			Attachment: t.rec.ID, Netns: t.rec.Netns.Cookie,
			// A MAC that is the parent's own may carry other tags on the trunk
			// in the host's own frames.
			Enforce: t.rec.Mode != verify.Off && !t.def.SharesMAC(),
		}
		return replace(tx, &t.rec)
	}); err != nil {
		return err
	}
	t.reached("record")
	return nil
}

// expect tells the datapath, if there is one.
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

// settle asks the wire, and takes the next address where somebody else holds
// the one that was to be given, unless it was asked for by name.
func (t *attempt) verifyAndConfigure(ctx context.Context) error {
	switch {
	case t.rec.Mode == verify.Off:
		t.rec.Verdict = verify.Verdict{Code: verify.Unverified, Text: "verification is off"}
		return t.ns.Do(t.configure)
	case len(t.rec.Addrs) == 0:
		t.rec.Verdict = verify.Verdict{Code: verify.Unverified, Text: "the network gives no addresses: the workload asks for its own"}
		return nil
	case t.def.Routed():
		t.rec.Verdict = verify.Verdict{Code: verify.Unverified, Text: fmt.Sprintf("mode %s has no gateway to ask: the host routes", t.def.Mode)}
		return t.ns.Do(t.configure)
	}
	for {
		f, err := t.probeAndConfigure(ctx)
		if err != nil {
			return err
		}
		if len(f.Claimants) > 0 {
			none, err := t.excused(ctx, f)
			if err != nil {
				return err
			}
			if none {
				continue
			}
		}
		if t.conflicts++; len(f.Claimants) == 0 || t.conflicts == maxCandidates || t.claimsRequested(f.Claimants[0]) {
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

// named reports whether the container named the address itself.
func (t *attempt) isRequested(a netip.Addr) bool { return slices.Contains(t.want.Addrs, a) }

// scatterAfter is after how many candidates that others have the next one is looked for
// at random: another host gives out addresses from the same range in their order.
const pickRandomAfter = 3

// decline gives up the address that a rival holds, and moves record, datapath
// and interface to the next one.
func (t *attempt) decline(ctx context.Context, r verify.Claimant) error {
	old := t.rec.Endpoint
	t.rec.Former = &old // until it is forgotten, and the interface is no longer that
	// Of two hosts that ask at the same time both give way: in the same order they would
	// meet again.
	t.pickRandom = r.Probing || t.conflicts >= pickRandomAfter
	if err := t.DB.Hold(ctx, func() error { return t.replaceAddr(ctx, t.addrToDecline(r)) }); err != nil {
		return err
	}
	if err := t.recordEndpoint(ctx); err != nil {
		return err
	}
	failpoint("decline")
	if err := t.permit(ctx); err != nil {
		return err
	}
	if err := t.expect(); err != nil {
		return err
	}
	if err := t.openWindow(); err != nil {
		return err
	}
	if t.rec.Guard != nil {
		if err := t.recreateGuarded(ctx); err != nil {
			return err
		}
	} else if t.rec.MAC != old.MAC {
		i, err := t.ns.SetMAC(ctx, t.link, t.rec.MAC.Hardware())
		if err != nil {
			return err
		}
		t.link = i
		failpoint("remac")
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

// configure puts addresses and routes on. It runs inside the namespace.
func (t *attempt) configure() error {
	for _, p := range t.rec.Addrs {
		// The round has just asked who holds it: the kernel need not ask again,
		// which would leave an IPv6 address unusable for a second (RFC 4862 §5.4).
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

// commit makes the intent an attachment, if it is still there and its
// container, too: the runtime may have been killed while we waited.
func (t *attempt) commit(ctx context.Context) error {
	if err := t.checkNotHosts(); err != nil {
		return err
	}
	if t.unwatched == "" {
		if err := t.Datapath.Settle(t.rec.Endpoint); err != nil {
			return err
		}
	}
	was := t.rec
	t.rec.State, t.rec.Former, t.rec.Timing = Attached, nil, t.r.Trace.since(t.traceStart)
	err := t.DB.Update(ctx, func(tx Tx) error {
		// Within the transaction: a poststop that comes before it leaves the
		// record to us, and one that comes after finds it.
		if !t.ns.Alive() {
			return fmt.Errorf("container %q exited while it was attached", t.r.Container)
		}
		return replace(tx, &t.rec)
	})
	if err != nil {
		t.rec = was
		return err
	}
	t.reached("commit")
	return nil
}

// newID names an attachment. Its first four bytes are the time in seconds: rows of
// those that start together lie together, and a database of a million is not read all
// over. The others are random.
func newID() (id verify.ID) {
	binary.BigEndian.PutUint32(id[:], uint32(time.Now().Unix()))
	rand.Read(id[4:]) // never fails: crypto/rand ends the process instead
	return id
}
