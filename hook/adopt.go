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
	// After a boot nothing lives, and thousands of networks need not be looked at.
	grounds := sync.OnceValue(l.grounds)
	// What is overlooked here has no lease any more: rather none may claim.
	var found []Attachment
	var missed error
	err = l.Host.EachNetns(func(n *link.Netns) {
		links, err := l.Host.Tenants(n)
		missed = errors.Join(missed, err)
		for _, i := range links {
			a, err := survivor(n, i, grounds()[i.ParentIndex], watched)
			missed = errors.Join(missed, err)
			if a != nil {
				found = append(found, *a)
			}
		}
	})
	if err = errors.Join(err, missed); err != nil {
		return err
	}
	if err := l.dropOrphans(found); err != nil {
		return err
	}
	l.forgetDead(watched, found)
	for i := range found {
		if found[i].Driver == network.DriverIPvlan {
			// Its MAC is the host's: there was no watch.
		} else if err := l.watchAgain(found[i].Endpoint); err != nil {
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

// ground is a network and the link that it stands on.
type ground struct {
	def    *network.Definition
	parent link.Parent
}

// grounds gives the networks by the ifindex of their parents. Without its
// parent, a network has nothing on it.
func (l *Local) grounds() map[int][]ground {
	all := map[int][]ground{}
	defs, _ := network.LoadAll(l.Networks)
	for _, d := range defs {
		if p, err := l.Parent(d); err == nil {
			all[p.Index] = append(all[p.Index], ground{d, p})
		}
	}
	return all
}

// survivor gives a record for an interface on one of the networks that share its
// parent: the one whose addresses it has, or one that gives none; nil where it is
// on none. Which containers it was for is not known any more: it lives on while
// anybody is in its namespace.
func survivor(n *link.Netns, i link.Interface, on []ground, watched []verify.Endpoint) (*Attachment, error) {
	if len(on) == 0 {
		return nil, nil
	}
	addrs, err := n.Addrs(i.Index)
	if err != nil {
		return nil, err
	}
	id, err := netnsOf(n)
	if err != nil {
		return nil, err
	}
	var found *Attachment
	for _, g := range on {
		a := Attachment{
			State: Attached, Network: g.def.Name, Generation: g.def.ID, Driver: g.def.Driver,
			Interface: i.Name, Index: i.Index, MAC: verify.MACOf(i.MAC), MTU: i.MTU,
			Parent: g.parent.Name, ParentIdx: g.parent.Index, Trunk: g.parent.Trunk, Netns: id,
			Quarantine: time.Duration(g.def.Quarantine), Mode: verify.Mode(g.def.VerifyMode()), Created: time.Now().UTC(),
			AtParent: g.def.GuardsParent(),
			Verdict:  verify.Verdict{Code: verify.Unverified, Text: "found again by its interface: the database was lost"},
		}
		// One with no address is half made, by a hook that finds its record
		// gone and undoes it, unless its network gives none.
		a.recall(g.def, addrs)
		if len(a.Addrs) > 0 || g.def.IPAM == network.IPAMNone && found == nil {
			a.Endpoint = endpointOf(a, g.parent, watched)
			a.Endpoint.Enforce = a.Mode != verify.Off && !g.def.SharesMAC()
			a.ID = a.Endpoint.Attachment
			found = &a
		}
		if len(a.Addrs) > 0 {
			break
		}
	}
	guarded, err := l.guardedSurvivors(n, id, def, parent, watched)
	return append(found, guarded...), err
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

// endpointOf is what the datapath watches of an interface, or what it would.
func endpointOf(a Attachment, parent link.Parent, watched []verify.Endpoint) verify.Endpoint {
	want := verify.Endpoint{Trunk: parent.TrunkIndex, Tags: tagsOf(parent), MAC: a.MAC, Gateways: a.Gateways, Attachment: newID(), Netns: a.Netns.Cookie}
	for _, p := range a.Addrs {
		want.Addrs = append(want.Addrs, p.Addr())
	}
	for _, e := range watched {
		if e.Trunk == want.Trunk && e.MAC == want.MAC && e.Tags.Equal(want.Tags) {
			return e
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
func (l *Local) watchAgain(e verify.Endpoint) error {
	if err := l.Datapath.Prepare(e.Trunk); err != nil {
		return err
	}
	return l.Datapath.Expect(e)
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
