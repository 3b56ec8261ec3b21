package hook

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/verify"
)

// bucketMeta says what the database knows of itself.
const bucketMeta = "meta"

// keyReady is set once a new database holds whatever lives. Without it nothing
// may be claimed: somebody may have deleted the file while containers ran.
const keyReady = "ready"

// errNotReady is returned by ready.
var errNotReady = errors.New("the database is new")

// ready is errNotReady for a database that nobody has made ready.
func ready(tx Tx) error {
	if _, ok := tx.Get(bucketMeta, keyReady); !ok {
		return errNotReady
	}
	return nil
}

// findReady finds records as find does, in a database that is ready.
func findReady(tx Tx, bucket, key string) ([]Attachment, error) {
	if err := ready(tx); err != nil {
		return nil, err
	}
	return find(tx, bucket, key)
}

// withDB runs f, and where the database turns out to be damaged or new, makes
// it whole from what the kernel shows and runs f once more.
func (l *Local) withDB(ctx context.Context, f func() error) error {
	err := f()
	switch {
	case errors.Is(err, ipam.ErrCorrupt):
		aside, merr := l.DB.MoveAside(ctx)
		if merr != nil {
			return errors.Join(err, merr)
		}
		l.Log.Warn("the database was damaged: moved aside, and made anew from what lives", "file", aside, "err", err)
	case !errors.Is(err, errNotReady):
		return err
	}
	if err := l.rebuild(ctx); err != nil {
		return fmt.Errorf("make the database anew: %w", err)
	}
	return f()
}

// adopt fills a new database with what lives: the macvlans on the parents of our
// networks, in whichever namespace, and the addresses that they have there. The
// datapath's maps, which outlive the database's file, say which attachment each
// was. After a boot there is nothing, and this costs a look into /proc.
//
// Many may find a new database at once, and whoever is not the first must not
// adopt what the first has attached by then: others wait meanwhile.
func (l *Local) rebuild(ctx context.Context) error {
	l.rebuilding.Lock()
	defer l.rebuilding.Unlock()
	return l.DB.Hold(ctx, func() error {
		done := false
		if err := l.DB.View(ctx, func(tx Tx) error {
			done = ready(tx) == nil
			return nil
		}); err != nil || done {
			return err
		}
		return l.rebuildAll(ctx)
	})
}

// adoptAll reads every namespace, and passes over those that cannot be read and are
// not root's: their owner need only change links without a pause, or make one that is
// too long to be told of, to keep the database of all from being made anew.
//
// What they had is lost with that, to them: the links of a guarded attachment whose
// other end is not found are deleted (dropOrphans), and nothing of a macvlan that they
// were given leaves by a guarded parent any more (forgetDead). Where nothing guards
// the parent they can go on to use its address, as they can with any that they make
// up; whoever is given it next meets them as a rival on the wire, and gets another.
func (l *Local) rebuildAll(ctx context.Context) error {
	watched, err := l.Datapath.Endpoints()
	if err != nil {
		l.Log.Warn("the trunks' maps could not be read: attachments get new ids", "err", err)
	}
	// What is overlooked here has no lease any more: rather none may claim.
	var found []Attachment
	var missed error
	standing := sync.OnceValue(l.networkParents)
	passed := map[uint32]bool{} // whose namespaces
	err = l.Host.EachNetns(func(n *link.Netns) {
		owner, err := ownerOf(n)
		var some []Attachment
		if err == nil {
			n.Tries = triesFor(owner, passed[owner])
			some, err = l.recordsIn(n, owner, standing, watched)
		}
		switch {
		case err == nil:
			found = append(found, some...)
		case owner == 0:
			missed = errors.Join(missed, fmt.Errorf("network namespace %d, which is root's (\"lsns -t net\" shows who is in it): %w", n.Inode, err))
		default:
			passed[owner] = true
			l.Log.Warn("a network namespace was passed over: it could not be read, and what its owner had is lost", "inode", n.Inode, "uid", owner, "err", err)
		}
	})
	if err = errors.Join(err, missed); err != nil {
		return err
	}
	if err := l.dropOrphans(found); err != nil {
		return err
	}
	l.forgetDead(watched, found, standing)
	for i := range found {
		if err := l.watchAgain(found[i]); err != nil {
			l.Log.Warn("an adopted endpoint is not watched", "mac", found[i].MAC, "err", err)
		}
		if err := l.restoreRecord(ctx, &found[i]); err != nil {
			return fmt.Errorf("adopt %s on network %q: %w", found[i].MAC, found[i].Network, err)
		}
	}
	return l.DB.Update(ctx, func(tx Tx) error {
		return tx.Put(bucketMeta, keyReady, []byte(time.Now().UTC().Format(time.RFC3339)))
	})
}

// triesFor is how often a list of a namespace's is read that changes meanwhile. A user
// can have any number of namespaces, and starts wait for all of them.
func triesFor(owner uint32, passed bool) int {
	switch {
	case owner == 0:
		return 0
	case passed:
		return 1
	}
	return 3
}

// ownerOf is the uid that a namespace belongs to, as owns has it; 0 for root's.
func ownerOf(n *link.Netns) (uint32, error) {
	owners, err := n.Owners()
	if err != nil {
		return 0, err
	}
	return owners[max(len(owners)-2, 0)], nil
}

// standing is a network and the parent that it stands on now.
type networkParent struct {
	def    *network.Definition
	parent link.Parent
}

// carries says whether an endpoint is one of those on its parent.
func (s networkParent) carries(e verify.Endpoint) bool {
	return e.Trunk == s.parent.TrunkIndex && e.Tags.Equal(tagsOf(s.parent))
}

// allStanding finds the parents of all networks; those that have none carry
// nothing. With thousands of networks it takes its time, and is asked for only by
// a namespace that has something on a parent.
func (l *Local) networkParents() (all []networkParent) {
	defs, _ := network.LoadAll(l.Networks)
	for _, d := range defs {
		if p, err := l.Parent(d); err == nil {
			all = append(all, networkParent{d, p})
		}
	}
	return all
}

// survivors gives a record for each interface on one of our networks that the
// namespace has. Which containers it was for is not known any more: it lives on
// while anybody is in its namespace.
func (l *Local) recordsIn(n *link.Netns, owner uint32, standing func() []networkParent, watched []verify.Endpoint) (found []Attachment, err error) {
	links, err := n.Standing()
	if err != nil {
		return nil, err
	}
	id, err := netnsOf(n)
	if err != nil {
		return nil, err
	}
	routes := lazyDefaults(n)
	for _, i := range links {
		addrs, err := n.Addrs(i.Index)
		if err != nil {
			return nil, err
		}
		for _, s := range standing() {
			if s.parent.Index != i.ParentIndex || s.def.Driver != i.Kind {
				continue
			}
			if a, whole := recordFromLink(i, id, s, addrs, watched); whole {
				a.Owner, a.Defaults = owner, defaultsVia(routes(), i.Index)
				found = append(found, a)
			}
		}
	}
	guarded, err := l.guardedRecordsIn(n, id, standing, watched)
	return append(found, guarded...), err
}

// survivor is the record of an interface. It is not whole where the interface has
// none of the network's addresses: half made, by a hook that finds its record gone
// and undoes it, or another network's on the same parent.
func recordFromLink(i link.Interface, id Netns, s networkParent, addrs []link.Addr, watched []verify.Endpoint) (a Attachment, whole bool) {
	a = baseRecord(i, id, s)
	a.MAC = verify.MACOf(i.MAC)
	a.Verdict.Text = "found again by its interface: the database was lost"
	if a.setAddrs(s.def, addrs); len(a.Addrs) == 0 && s.def.IPAM != network.IPAMNone {
		return a, false
	}
	a.Endpoint = endpointFor(a, s.parent, watched)
	a.Endpoint.Enforce = a.Mode != verify.Off && !s.def.SharesMAC()
	a.ID = a.Endpoint.Attachment
	return a, true
}

// recordOf is what of a record can be told from an interface and its network.
func baseRecord(i link.Interface, id Netns, s networkParent) Attachment {
	def, parent := s.def, s.parent
	return Attachment{
		State: Attached, Network: def.Name, Generation: def.ID, Driver: def.Driver,
		Interface: i.Name, Index: i.Index, MTU: i.MTU,
		Parent: parent.Name, ParentIdx: parent.Index, Trunk: parent.Trunk, Netns: id,
		Quarantine: time.Duration(def.Quarantine), Mode: verify.Mode(def.VerifyMode()), Created: time.Now().UTC(),
		AtParent: def.GuardsParent(), HostLink: hostLinkName(def),
		Verdict: verify.Verdict{Code: verify.Unverified},
	}
}

// recall reads a record's addresses, and what goes with them, from those that
// the interface has.
func (a *Attachment) setAddrs(def *network.Definition, addrs []link.Addr) {
	for _, has := range addrs {
		for _, s := range def.Subnets {
			if !s.Subnet.Contains(has.Prefix.Addr()) {
				continue
			}
			a.Addrs = append(a.Addrs, netip.PrefixFrom(has.Prefix.Addr(), s.Subnet.Bits()))
			a.Pools = append(a.Pools, poolName(def, s))
			if s.Gateway.IsValid() && !def.Internal {
				a.Gateways = append(a.Gateways, s.Gateway)
			}
		}
	}
}

// defaultsOf reads the default routes of a namespace, when they are first asked for.
// They are no reason to adopt nothing: whoever has the namespace may change its routes
// faster than they can be read, and may have tens of thousands.
func lazyDefaults(n *link.Netns) func() []link.Route {
	return sync.OnceValue(func() []link.Route {
		hasty := *n
		hasty.Tries = 1
		routes, _ := hasty.Defaults()
		return routes
	})
}

// defaultsBy is what a record says of an interface's default routes.
func defaultsVia(routes []link.Route, index int) (via []netip.Addr) {
	for _, r := range routes {
		if r.Index == index {
			via = append(via, r.Via())
		}
	}
	return via
}

// endpointOf is what the datapath shall watch of an interface, under the id that
// it knows it by. Gateways are those of the definition as it is now.
func endpointFor(a Attachment, parent link.Parent, watched []verify.Endpoint) verify.Endpoint {
	want := verify.Endpoint{Trunk: parent.TrunkIndex, Tags: tagsOf(parent), MAC: a.MAC, Gateways: a.Gateways, Attachment: newID(), Netns: a.Netns.Cookie}
	for _, p := range a.Addrs {
		want.Addrs = append(want.Addrs, p.Addr())
	}
	if len(want.Gateways) == 0 {
		want.Gateways = want.Addrs // as targets has it
	}
	for _, e := range watched {
		if e.Trunk == want.Trunk && e.MAC == want.MAC && e.Tags.Equal(want.Tags) {
			want.Attachment = e.Attachment
		}
	}
	return want
}

// forgetDead ends the watch of endpoints whose interface nobody has, and what guards
// of parents let these send.
func (l *Local) forgetDead(watched []verify.Endpoint, living []Attachment, standing func() []networkParent) {
	for _, e := range watched {
		if slices.ContainsFunc(living, func(a Attachment) bool { return a.ID == e.Attachment }) {
			continue
		}
		if err := l.Datapath.Forget(e); err != nil {
			l.Log.Warn("a dead endpoint is still watched", "mac", e.MAC, "err", err)
		}
		if err := l.revokeDead(e, standing()); err != nil {
			l.Log.Warn("a dead endpoint may still send", "mac", e.MAC, "err", err)
		}
	}
}

// unleaseDead ends what the guard of an endpoint's parent lets it send. A MAC that it
// had from its parent is the host's own there.
func (l *Local) revokeDead(e verify.Endpoint, all []networkParent) (err error) {
	for _, s := range all {
		if l.Guards != nil && s.carries(e) && e.MAC != verify.MACOf(s.parent.MAC) {
			err = errors.Join(err, l.Guards.Unlease(s.parent.Index, e.MAC))
		}
	}
	return err
}

// watchAgain has the datapath watch what lives, where its maps are lost, too.
// An ipvlan's frames are the host's and never were watched.
func (l *Local) watchAgain(a Attachment) error {
	if a.Driver == network.DriverIPvlan {
		return nil
	}
	if err := l.Datapath.Prepare(a.Endpoint.Trunk); err != nil {
		return err
	}
	return l.Datapath.Expect(a.Endpoint)
}

func (l *Local) restoreRecord(ctx context.Context, a *Attachment) error {
	if err := l.DB.Update(ctx, func(tx Tx) error { return put(tx, a) }); err != nil {
		return err
	}
	owner := ipam.Owner{Attachment: a.ID.String(), Network: a.Network, Interface: a.Interface}
	for i, p := range a.Addrs {
		// Somebody else's already: the container gave itself an address that
		// was never its own, and gets no lease for it.
		err := l.Leases.Claim(ctx, a.Pools[i], ipam.Lease{Addr: p.Addr(), Owner: owner, MAC: a.MAC.String()})
		if err != nil && !errors.Is(err, ipam.ErrTaken) {
			return err
		}
	}
	return nil
}
