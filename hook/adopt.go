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
	if err := l.adopt(ctx); err != nil {
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
func (l *Local) adopt(ctx context.Context) error {
	l.adopting.Lock()
	defer l.adopting.Unlock()
	return l.DB.Hold(ctx, func() error {
		done := false
		if err := l.DB.View(ctx, func(tx Tx) error {
			done = ready(tx) == nil
			return nil
		}); err != nil || done {
			return err
		}
		return l.adoptAll(ctx)
	})
}

func (l *Local) adoptAll(ctx context.Context) error {
	watched, err := l.Datapath.Endpoints()
	if err != nil {
		l.Log.Warn("the trunks' maps could not be read: attachments get new ids", "err", err)
	}
	// What is overlooked here has no lease any more: rather none may claim.
	var found []Attachment
	var missed error
	standing := sync.OnceValue(l.allStanding)
	err = l.Host.EachNetns(func(n *link.Netns) {
		some, err := l.survivors(n, standing, watched)
		found, missed = append(found, some...), errors.Join(missed, err)
	})
	if err = errors.Join(err, missed); err != nil {
		return err
	}
	if err := l.dropOrphans(found); err != nil {
		return err
	}
	l.forgetDead(watched, found)
	for i := range found {
		if err := l.watchAgain(found[i]); err != nil {
			l.Log.Warn("an adopted endpoint is not watched", "mac", found[i].MAC, "err", err)
		}
		if err := l.adoptOne(ctx, &found[i]); err != nil {
			return fmt.Errorf("adopt %s on network %q: %w", found[i].MAC, found[i].Network, err)
		}
	}
	return l.DB.Update(ctx, func(tx Tx) error {
		return tx.Put(bucketMeta, keyReady, []byte(time.Now().UTC().Format(time.RFC3339)))
	})
}

// standing is a network and the parent that it stands on now.
type standing struct {
	def    *network.Definition
	parent link.Parent
}

// allStanding finds the parents of all networks; those that have none carry
// nothing. With thousands of networks it takes its time, and is asked for only by
// a namespace that has something on a parent.
func (l *Local) allStanding() (all []standing) {
	defs, _ := network.LoadAll(l.Networks)
	for _, d := range defs {
		if p, err := l.Parent(d); err == nil {
			all = append(all, standing{d, p})
		}
	}
	return all
}

// survivors gives a record for each interface on one of our networks that the
// namespace has. Which containers it was for is not known any more: it lives on
// while anybody is in its namespace.
func (l *Local) survivors(n *link.Netns, standing func() []standing, watched []verify.Endpoint) (found []Attachment, err error) {
	links, err := n.Standing()
	if err != nil {
		return nil, err
	}
	id, err := netnsOf(n)
	if err != nil {
		return nil, err
	}
	for _, i := range links {
		addrs, err := n.Addrs(i.Index)
		if err != nil {
			return nil, err
		}
		for _, s := range standing() {
			if s.parent.Index != i.ParentIndex || s.def.Driver != i.Kind {
				continue
			}
			if a, whole := survivor(i, id, s, addrs, watched); whole {
				a.Defaults = defaultsBy(n, i.Index)
				found = append(found, a)
			}
		}
	}
	guarded, err := l.guardedSurvivors(n, id, standing, watched)
	return append(found, guarded...), err
}

// survivor is the record of an interface. It is not whole where the interface has
// none of the network's addresses: half made, by a hook that finds its record gone
// and undoes it, or another network's on the same parent.
func survivor(i link.Interface, id Netns, s standing, addrs []link.Addr, watched []verify.Endpoint) (a Attachment, whole bool) {
	a = recordOf(i, id, s)
	a.MAC = verify.MACOf(i.MAC)
	a.Verdict.Text = "found again by its interface: the database was lost"
	if a.recall(s.def, addrs); len(a.Addrs) == 0 && s.def.IPAM != network.IPAMNone {
		return a, false
	}
	a.Endpoint = endpointOf(a, s.parent, watched)
	a.Endpoint.Enforce = a.Mode != verify.Off && !s.def.SharesMAC()
	a.ID = a.Endpoint.Attachment
	return a, true
}

// recordOf is what of a record can be told from an interface and its network.
func recordOf(i link.Interface, id Netns, s standing) Attachment {
	def, parent := s.def, s.parent
	return Attachment{
		State: Attached, Network: def.Name, Generation: def.ID, Driver: def.Driver,
		Interface: i.Name, Index: i.Index, MTU: i.MTU,
		Parent: parent.Name, ParentIdx: parent.Index, Trunk: parent.Trunk, Netns: id,
		Quarantine: time.Duration(def.Quarantine), Mode: verify.Mode(def.VerifyMode()), Created: time.Now().UTC(),
		AtParent: def.GuardsParent(), HostLink: hostLinkOf(def),
		Verdict: verify.Verdict{Code: verify.Unverified},
	}
}

// recall reads a record's addresses, and what goes with them, from those that
// the interface has.
func (a *Attachment) recall(def *network.Definition, addrs []link.Addr) {
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

// defaultsBy reads what a record says of an interface's default routes. They are
// no reason to adopt nothing: whoever has the namespace may change its routes faster
// than they can be read.
func defaultsBy(n *link.Netns, index int) (via []netip.Addr) {
	routes, _ := n.Defaults()
	for _, r := range routes {
		if r.Index == index {
			via = append(via, r.Via())
		}
	}
	return via
}

// endpointOf is what the datapath shall watch of an interface, under the id that
// it knows it by. Gateways are those of the definition as it is now.
func endpointOf(a Attachment, parent link.Parent, watched []verify.Endpoint) verify.Endpoint {
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

// forgetDead ends the watch of endpoints whose interface nobody has.
func (l *Local) forgetDead(watched []verify.Endpoint, living []Attachment) {
	for _, e := range watched {
		if slices.ContainsFunc(living, func(a Attachment) bool { return a.ID == e.Attachment }) {
			continue
		}
		if err := l.Datapath.Forget(e); err != nil {
			l.Log.Warn("a dead endpoint is still watched", "mac", e.MAC, "err", err)
		}
	}
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

func (l *Local) adoptOne(ctx context.Context, a *Attachment) error {
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
