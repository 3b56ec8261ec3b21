// Package rebuild restores the records from kernel state if the database is new or damaged.
package rebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boottime"
	"github.com/lanyard-net/lanyard/ipam/dhcp"
	"github.com/lanyard-net/lanyard/verify"
)

// Rebuilder opens the database for [Rebuilder.WithDB].
type Rebuilder struct {
	*parts.Parts
	rebuilding sync.Mutex
}

// WithDB runs f. If f returns ipam.ErrCorrupt or record.ErrNotReady, WithDB rebuilds the database from
// kernel state and runs f once more.
func (r *Rebuilder) WithDB(ctx context.Context, f func() error) error {
	err := f()
	switch {
	case errors.Is(err, ipam.ErrCorrupt):
		aside, merr := r.DB.MoveAside(ctx)
		if merr != nil {
			return errors.Join(err, merr)
		}
		r.Log.Warn("the database is damaged: it was moved aside, and is rebuilt from kernel state", "file", aside, "err", err)
	case !errors.Is(err, record.ErrNotReady):
		return err
	}
	if err := r.rebuild(ctx); err != nil {
		return fmt.Errorf("rebuild the database: %w", err)
	}
	return f()
}

// rebuild restores records from kernel state into an empty database: the interfaces that Lanyard
// created on the parents of the networks, in all namespaces, with their addresses. The ids of the
// attachments come from the datapath's maps, which outlive the database's file. After a boot there
// is nothing to restore, and rebuild only lists /proc.
//
// Several processes may find an empty database at the same time. All but the first one wait, and
// then find it ready: they must not restore interfaces that the first one has attached by then.
func (r *Rebuilder) rebuild(ctx context.Context) error {
	r.rebuilding.Lock()
	defer r.rebuilding.Unlock()
	var restored []hook.Attachment
	if err := r.DB.Hold(ctx, func() error {
		done := false
		if err := r.DB.View(ctx, func(tx record.Tx) error {
			done = record.Ready(tx) == nil
			return nil
		}); err != nil || done {
			return err
		}
		var err error
		restored, err = r.rebuildAll(ctx)
		return err
	}); err != nil {
		return err
	}
	r.claimShared(ctx, restored)
	return nil
}

// claimShared claims the leases of restored records in a store that hosts share. The store still has
// those that the host held when the database was lost. It stops at the first error: each claim would
// wait for a store that is out of reach, and the service claims again when it renews its session.
func (r *Rebuilder) claimShared(ctx context.Context, restored []hook.Attachment) {
	for i := range restored {
		a := &restored[i]
		if a.Leases == "" {
			continue
		}
		if err := r.WithStore(ctx, a.Leases, func(in ipam.Store) error { return claimAll(ctx, in, a) }); err != nil {
			r.Log.Warn("could not claim the leases of restored attachments", "network", a.Network, "addresses", a.Addrs,
				"err", err)
			return
		}
	}
}

// rebuildAll reads all namespaces. It skips those of unprivileged users that it cannot read:
// otherwise such a user could prevent the rebuild for all, by changing links continuously
// (interrupted dumps) or by creating one with a netlink message that is too large.
//
// The attachments in a skipped namespace are lost: driver.RemoveOrphans deletes the links of a guarded
// attachment if the container's end is not found, and forgetDead removes the permit of a macvlan,
// so that a guarded parent drops its frames. On a parent without a guard, the container can still
// use the address, as it can use any other. The next container that is assigned the address finds a
// claimant and gets another one.
func (r *Rebuilder) rebuildAll(ctx context.Context) (found []hook.Attachment, err error) {
	watched, err := r.Datapath.Endpoints()
	if err != nil {
		r.Log.Warn("could not read the trunks' maps: attachments get new ids", "err", err)
	}
	// An interface that is not found loses its lease. So an error here fails the rebuild, and no
	// address can be claimed.
	var missed error
	parents := sync.OnceValue(r.networkParents)
	skipped := map[uint32]bool{} // by the namespace's owner
	err = r.Host.EachNetns(func(n *link.Netns) {
		owner, err := ownerOf(n)
		var some []hook.Attachment
		if err == nil {
			n.Tries = triesFor(owner, skipped[owner])
			some, err = r.recordsIn(n, owner, parents, watched)
		}
		switch {
		case err == nil:
			found = append(found, some...)
		case owner == 0:
			err = fmt.Errorf("network namespace %d of root (\"lsns -t net\" lists its processes): %w", n.Inode, err)
			missed = errors.Join(missed, err)
		default:
			skipped[owner] = true
			r.Log.Warn("skipped a network namespace that could not be read: its attachments are lost",
				"inode", n.Inode, "uid", owner, "err", err)
		}
	})
	if err = errors.Join(err, missed); err != nil {
		return nil, err
	}
	if err := driver.RemoveOrphans(r.Parts, found); err != nil {
		return nil, err
	}
	if err := driver.FindGuards(r.Parts, found); err != nil {
		return nil, err
	}
	r.forgetDead(watched, found, parents)
	for i := range found {
		if err := r.watchAgain(found[i]); err != nil {
			r.Log.Warn("could not watch a restored endpoint", "mac", found[i].MAC, "err", err)
		}
		if err := r.restoreRecord(ctx, &found[i]); err != nil {
			return nil, fmt.Errorf("restore %s on network %q: %w", found[i].MAC, found[i].Network, err)
		}
	}
	return found, r.DB.Update(ctx, record.MarkReady)
}

// triesFor returns the number of reads of a list that changes during each read (link.Netns.Tries).
// skipped reports whether a namespace of the owner was skipped before. A user can have any number
// of namespaces, and starts wait for all of them.
func triesFor(owner uint32, skipped bool) int {
	switch {
	case owner == 0:
		return 0
	case skipped:
		return 1
	}
	return 3
}

// ownerOf returns the uid that owns a namespace; 0 for root.
func ownerOf(n *link.Netns) (uint32, error) {
	owners, err := n.Owners()
	uid, _ := netns.OwnerOf(owners)
	return uid, err
}

// networkParent is a network and its parent as it is now.
type networkParent struct {
	def    *network.Definition
	parent link.Parent
}

// carries reports whether the endpoint is on the network's parent.
func (s networkParent) carries(e verify.Endpoint) bool {
	return e.Trunk == s.parent.TrunkIndex && e.Tags.Equal(s.parent.Tags)
}

// possible returns those of an interface's addresses that can be the network's. Lanyard sets a lifetime
// for the addresses of DHCP servers only. One without a lifetime can be a lease that does not end, if it
// is in no subnet of another network on the parent. If a network there has SLAAC, those that the kernel
// has made from the interface's MAC or from a secret are no leases, whatever subnet they are in.
func (s networkParent) possible(addrs []link.Addr, mac ether.MAC, all []networkParent) (some []link.Addr) {
	slaac := slices.ContainsFunc(all, func(o networkParent) bool {
		return o.parent.Index == s.parent.Index && o.def.SLAAC()
	})
	for _, a := range addrs {
		family := int(hook.FamilyOf(a.Prefix.Addr()))
		isStatic := func(o networkParent) bool {
			return o.parent.Index == s.parent.Index && !o.def.FromServers(family) && inSubnets(o.def, a)
		}
		isLeased := func(o networkParent) bool {
			return o.parent.Index == s.parent.Index && o.def.FromServers(family) &&
				(family == 6 || len(o.def.Subnets) == 0 || inSubnets(o.def, a))
		}
		served := s.def.FromServers(family)
		switch {
		case slaac && isFromRouter(a, mac):
		// Without such a network, a container's root could free its address by a lifetime, and use it on.
		case !served && a.Valid != 0 && slices.ContainsFunc(all, isLeased):
		case served && family == 4 && len(s.def.Subnets) > 0 && !inSubnets(s.def, a):
		case served && a.Valid == 0 && slices.ContainsFunc(all, isStatic):
		default:
			some = append(some, a)
		}
	}
	return some
}

// inSubnets reports whether an address is in a subnet of the network.
func inSubnets(def *network.Definition, a link.Addr) bool {
	return slices.ContainsFunc(def.Subnets, func(s network.Subnet) bool { return s.Subnet.Contains(a.Prefix.Addr()) })
}

// networkParents returns all networks with an existing parent. With thousands of networks it is
// slow, so it is called only for a namespace with an interface on a parent.
func (r *Rebuilder) networkParents() (all []networkParent) {
	defs, _ := network.LoadAll(r.Networks)
	for _, d := range defs {
		if p, err := r.Parent(d); err == nil {
			all = append(all, networkParent{d, p})
		}
	}
	return all
}

// recordsIn returns a record for each of our interfaces in the namespace that is on a network. Its
// containers are unknown, so it is live while its namespace exists.
func (r *Rebuilder) recordsIn(
	n *link.Netns, owner uint32, parents func() []networkParent, watched []verify.Endpoint,
) (found []hook.Attachment, err error) {
	links, err := n.OnHostParents()
	if err != nil {
		return nil, err
	}
	id, err := parts.NetnsOf(n)
	if err != nil {
		return nil, err
	}
	routes := lazyDefaults(n)
	for _, i := range links {
		addrs, err := n.Addrs(i.Index)
		if err != nil {
			return nil, err
		}
		for _, s := range parents() {
			if s.parent.Index != i.ParentIndex || s.def.Driver != i.Kind || !r.isOurs(i, id, owner, s, watched) {
				continue
			}
			if a, complete := recordFromLink(i, id, s, s.possible(addrs, i.MAC, parents()), watched); complete {
				a.Owner, a.Defaults = owner, defaultsVia(routes(), i.Index)
				setRouters(n, &a)
				found = append(found, a)
			}
		}
	}
	guarded, err := r.guardedRecordsIn(n, id, owner, parents, watched)
	return append(found, guarded...), err
}

// isOurs reports whether Lanyard created an interface on a network's parent. There are two proofs:
//
//   - The datapath has an endpoint with its MAC for its namespace. No container can write the maps.
//     Interfaces that were created before there were marks have this proof only.
//   - It carries the mark of hook/link. This proof is for trunks that are not watched. It keeps out
//     the macvlans of administrators and other programs. It does not stop a container's root with
//     CAP_NET_ADMIN, which can create a second macvlan and copy the mark: that gets a lease of a
//     free address, which the container can use without a lease, too.
//
// The mark does not count in the namespace of an unprivileged user on a trunk with endpoints: there
// the user is the attacker, and could take leases beyond --max-per-user.
func (r *Rebuilder) isOurs(
	i link.Interface, id hook.Netns, owner uint32, s networkParent, watched []verify.Endpoint,
) bool {
	if slices.ContainsFunc(watched, func(e verify.Endpoint) bool {
		return s.carries(e) && e.MAC == i.MAC && (e.Netns == id.Cookie || e.Netns == 0)
	}) {
		return true
	}
	onTrunk := func(e verify.Endpoint) bool { return e.Trunk == s.parent.TrunkIndex }
	unwatched := driver.ForNetwork(r.Parts, s.def).WhyUnwatchable(s.def.Parent) != "" ||
		!slices.ContainsFunc(watched, onTrunk)
	return i.Marked && (owner == 0 || unwatched)
}

// recordFromLink returns the record of an interface on a network. complete is false if the
// interface has none of the network's addresses: it belongs to another network on the same parent,
// or to an attach that has not finished, which finds its record gone and undoes its steps.
func recordFromLink(
	i link.Interface, id hook.Netns, s networkParent, addrs []link.Addr, watched []verify.Endpoint,
) (a hook.Attachment, complete bool) {
	a = baseRecord(i, id, s)
	a.MAC = i.MAC
	a.Verdict.Text = "restored from its interface: the database was lost"
	setAddrs(&a, s.def, addrs)
	if len(a.Addrs) == 0 && s.def.IPAM != network.IPAMNone {
		return a, false
	}
	a.Endpoint = endpointFor(a, s.parent, watched)
	a.Endpoint.Enforce = a.Mode != verify.Off && !s.def.SharesMAC()
	a.ID = a.Endpoint.Attachment
	return a, true
}

// baseRecord returns the fields of a record that are known from an interface and its network.
func baseRecord(i link.Interface, id hook.Netns, s networkParent) hook.Attachment {
	def, parent := s.def, s.parent
	var slaac *hook.SLAAC
	if def.TakesRouters() {
		slaac = &hook.SLAAC{Managed: def.FromServers(6)}
	}
	return hook.Attachment{
		State: hook.Attached, Network: def.Name, Generation: def.ID, Driver: def.Driver,
		Interface: i.Name, Index: i.Index, MTU: i.MTU, MTURequested: def.MTU,
		Parent: parent.Name, ParentIdx: parent.Index, Trunk: parent.Trunk, Netns: id,
		Quarantine: time.Duration(def.Quarantine), Mode: def.VerifyMode(), Created: time.Now().UTC(),
		SLAAC: slaac, AtParent: def.GuardsParent(), HostLink: parts.HostLinkName(def), Leases: def.Leases,
		Verdict: verify.Verdict{Code: verify.Unverified},
	}
}

// setAddrs sets a record's addresses, pools and gateways from the addresses of the interface.
func setAddrs(a *hook.Attachment, def *network.Definition, addrs []link.Addr) {
	for _, has := range addrs {
		for _, s := range def.Subnets {
			if !s.Subnet.Contains(has.Prefix.Addr()) || def.FromServers(4) {
				continue
			}
			a.Addrs = append(a.Addrs, netip.PrefixFrom(has.Prefix.Addr(), s.Subnet.Bits()))
			a.Pools = append(a.Pools, parts.PoolName(def, s))
			if s.Gateway.IsValid() && !def.Internal {
				a.Gateways = append(a.Gateways, s.Gateway)
			}
		}
	}
	for _, f := range hook.Families {
		if def.FromServers(int(f)) {
			setLease(a, def, f, addrs)
		}
	}
}

// isFromRouter reports whether the kernel has made an address from the prefix of a router, and the MAC or a secret:
// it is no lease. A container's root can set the flag of its leased address, too, but not its end.
func isFromRouter(has link.Addr, mac ether.MAC) bool {
	a, own := has.Prefix.Addr().As16(), mac.LinkLocal().As16()
	return has.Autoconf && has.Prefix.Addr().Is6() && (has.StablePrivacy || bytes.Equal(a[8:], own[8:]))
}

// setLease sets the address that a DHCP server has leased. The server is unknown: the service asks all of
// them to extend the lease, and learns the rest from the answer. If a container with another address has
// none for IPv6, the service asks for one.
func setLease(a *hook.Attachment, def *network.Definition, f hook.Family, addrs []link.Addr) {
	i := slices.IndexFunc(addrs, func(has link.Addr) bool {
		own := has.Prefix.Addr()
		return hook.FamilyOf(own) == f && (f == hook.IPv4 || own.IsGlobalUnicast() && !has.Autoconf)
	})
	if i < 0 {
		if f == hook.IPv6 {
			a.DHCP6 = &dhcp.Lease{Lost: "the database was lost, and the interface had none", Returned: true}
		}
		return
	}
	now := boottime.Now()
	a.Addrs, a.Pools = append(a.Addrs, addrs[i].Prefix), append(a.Pools, parts.ServerPool(def, int(f)))
	ends := now.Add(max(addrs[i].Valid, time.Minute))
	a.SetServerLease(f, &dhcp.Lease{Addr: addrs[i].Prefix, Renew: now, Rebind: now, Expires: ends})
}

// lazyDefaults returns a function that reads the default routes of a namespace at its first call.
// It ignores errors and reads once: the owner of the namespace may change the routes faster than
// they can be read, and may have tens of thousands, and this must not prevent the rebuild.
func lazyDefaults(n *link.Netns) func() []link.Route {
	return sync.OnceValue(func() []link.Route {
		once := *n
		once.Tries = 1
		routes, _ := once.Defaults()
		return routes
	})
}

// defaultsVia returns the next hops of the default routes through the interface with an ifindex.
func defaultsVia(routes []link.Route, index int) (via []netip.Addr) {
	for _, r := range routes {
		if r.Index == index && !r.RA {
			via = append(via, r.Via())
		}
	}
	return via
}

// setRouters sets whether an interface takes the default route of routers. The route itself comes and
// goes, so that its next hop is not recorded. The name of the interface can be another one by now: then
// it does not, and this must not prevent the rebuild.
func setRouters(n *link.Netns, a *hook.Attachment) {
	if a.SLAAC == nil {
		return
	}
	_ = n.Do(func() (err error) {
		a.SLAAC.Default, err = link.TakesRouters(a.Interface)
		return err
	})
}

// endpointFor returns the endpoint of a restored record. Its id is that of the endpoint with the
// same MAC and tags in the datapath's maps, else a new one. Gateways are those of the current
// definition.
func endpointFor(a hook.Attachment, parent link.Parent, watched []verify.Endpoint) verify.Endpoint {
	want := verify.Endpoint{
		Trunk: parent.TrunkIndex, Tags: parent.Tags, MAC: a.MAC, Gateways: a.Gateways,
		Attachment: record.NewID(), Netns: a.Netns.Cookie,
	}
	want.Addrs = a.Addresses()
	if len(want.Gateways) == 0 {
		want.Gateways = want.Addrs // as in targets
	}
	for _, e := range watched {
		if e.Trunk == want.Trunk && e.MAC == want.MAC && e.Tags.Equal(want.Tags) {
			want.Attachment = e.Attachment
		}
	}
	return want
}

// forgetDead removes the endpoints without a found interface, and their permits at the parents.
func (r *Rebuilder) forgetDead(watched []verify.Endpoint, found []hook.Attachment, parents func() []networkParent) {
	for _, e := range watched {
		if slices.ContainsFunc(found, func(a hook.Attachment) bool { return a.ID == e.Attachment }) {
			continue
		}
		if err := r.Datapath.Forget(e); err != nil {
			r.Log.Warn("could not remove the endpoint of an interface that is gone", "mac", e.MAC, "err", err)
		}
		if err := r.revokeDead(e, parents()); err != nil {
			r.Log.Warn("could not remove the permit of an interface that is gone", "mac", e.MAC, "err", err)
		}
	}
}

// revokeDead removes the permits of an endpoint at the guards of its parent. It keeps the MAC of
// the parent itself, which the host sends with, too.
func (r *Rebuilder) revokeDead(e verify.Endpoint, all []networkParent) (err error) {
	for _, s := range all {
		if s.carries(e) && e.MAC != s.parent.MAC {
			err = errors.Join(err, r.Guards.Revoke(s.parent.Index, e.MAC))
		}
	}
	return err
}

// watchAgain makes the datapath watch a restored endpoint, also if the maps were lost.
func (r *Rebuilder) watchAgain(a hook.Attachment) error {
	if driver.Of(r.Parts, &a).WhyUnwatchable(a.Parent) != "" {
		return nil
	}
	if err := r.Datapath.Prepare(a.Endpoint.Trunk); err != nil {
		return err
	}
	return r.Datapath.Expect(a.Endpoint)
}

// restoreRecord writes a record, and claims its leases if they are in the same file.
func (r *Rebuilder) restoreRecord(ctx context.Context, a *hook.Attachment) error {
	if err := r.DB.Update(ctx, func(tx record.Tx) error { return record.Put(tx, a) }); err != nil {
		return err
	}
	if a.Leases != "" {
		return nil // see claimShared
	}
	return claimAll(ctx, r.Leases.Own, a)
}

// claimAll claims the leases of a restored record.
func claimAll(ctx context.Context, in ipam.Store, a *hook.Attachment) error {
	owner := ipam.Owner{Attachment: a.ID.String(), Network: a.Network, Interface: a.Interface}
	for i, p := range a.Addrs {
		// ErrTaken: the container has set an address that is not its own. It gets no lease.
		err := in.Claim(ctx, a.Pools[i], ipam.Lease{Addr: p.Addr(), Owner: owner})
		if err != nil && !errors.Is(err, ipam.ErrTaken) {
			return err
		}
	}
	return nil
}
