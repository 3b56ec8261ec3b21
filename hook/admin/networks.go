// Package admin creates and removes networks, with their parents and the host's access to them, and
// reports what happens on their trunks.
package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/attach"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
)

// Admin changes and reports the networks of one host.
type Admin struct {
	*attach.Local
}

// New returns an Admin for the host of p.
func New(p *parts.Parts) *Admin { return &Admin{attach.New(p)} }

// CreateNetwork writes a definition and creates the network's parent if it does not exist. It sets
// Managed and the host's addresses in def. blind is the reason why the tags of the network's frames
// cannot be watched; "" if they can.
func (l *Admin) CreateNetwork(ctx context.Context, def *network.Definition) (blind string, err error) {
	all, err := l.CreateNetworks(ctx, []*network.Definition{def})
	if err != nil {
		return "", err
	}
	return all[0], nil
}

// CreateNetworks creates several networks as CreateNetwork does, or none of them.
func (l *Admin) CreateNetworks(ctx context.Context, defs []*network.Definition) (blind []string, err error) {
	unlock, err := l.lockDefinitions(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	existing, _ := network.LoadAll(l.Networks) // an invalid file prevents only the use of its own network
	n, trunks := siblingsOf(existing), watchedTrunks{}
	for i, def := range defs {
		p, err := l.createNetwork(ctx, def, n)
		if err != nil {
			if len(defs) > 1 {
				err = fmt.Errorf("network %q: %w", def.Name, err)
			}
			return nil, errors.Join(err, l.undoCreate(ctx, defs[:i], n))
		}
		n.add(def)
		blind = append(blind, trunks.watch(l, def, p))
	}
	if err := l.ReserveShares(ctx, defs); err != nil && !errors.Is(err, ipam.ErrOutOfReach) {
		err = errors.Join(err, l.undoCreate(ctx, defs, n))
		l.giveBackSoon(ctx, defs)
		return nil, err
	}
	for _, def := range defs {
		err = errors.Join(err, network.Finish(l.Networks, def.Name))
	}
	return blind, err
}

// lockDefinitions locks the definitions for changes of the host's links. If the host has no
// identity, lockDefinitions writes it, because the service cannot write to /etc later.
func (l *Admin) lockDefinitions(ctx context.Context) (unlock func(), err error) {
	if _, err := l.HostID(); err != nil {
		return nil, err
	}
	return network.Lock(ctx, l.Networks)
}

// createNetwork creates one network. It writes the definition before it creates the parent: a crash
// in between leaves a network, and the first attach creates its parent, instead of an unknown link.
// The same command, run again, continues from there.
func (l *Admin) createNetwork(ctx context.Context, def *network.Definition, n *siblings) (p link.Parent, err error) {
	begun, err := network.Begun(l.Networks, def.Name)
	if err != nil {
		return p, err
	}
	if begun == nil {
		return l.beginNetwork(ctx, def, n)
	}
	if !def.Begins(begun) {
		return p, fmt.Errorf("network %q: %w in %s: an earlier create was interrupted and used a different definition: "+
			"remove it with \"lanyard network rm %s\"", def.Name, network.ErrExist, l.Networks, def.Name)
	}
	n.remove(begun)
	*def = *begun
	p, err = l.ensureLinks(ctx, def)
	return p, err
}

// undoTimeout limits the removal of a batch of networks that a failed command has created.
const undoTimeout = 10 * time.Second

// undoCreate removes networks that a failed command has created, also if the command was interrupted.
func (l *Admin) undoCreate(ctx context.Context, defs []*network.Definition, n *siblings) error {
	batches := 1 + len(defs)/removeBatchSize
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(batches)*undoTimeout)
	defer cancel()
	_, errs := l.removeNetworks(ctx, defs, n)
	return errors.Join(errs...)
}

// beginNetwork writes the definition of a network that has none, and creates its links. On an error, it
// removes the network, unless a container has been attached to it already.
func (l *Admin) beginNetwork(ctx context.Context, def *network.Definition, n *siblings) (p link.Parent, err error) {
	if p, err = l.resolveParent(def, n); err != nil {
		return p, err
	}
	if err := l.writeDefinition(def); err != nil {
		return p, err
	}
	failpoint.At("define")
	if p, err = l.ensureLinks(ctx, def); err != nil {
		n.add(def)
		return p, errors.Join(err, l.undoCreate(ctx, []*network.Definition{def}, n))
	}
	return p, nil
}

// resolveParent finds the parent of a definition, and sets Managed in def. It returns a zero parent
// if Lanyard is to create it, and an error if the network conflicts with others.
func (l *Admin) resolveParent(def *network.Definition, n *siblings) (p link.Parent, err error) {
	p, err = l.Host.Resolve(parts.SpecOf(def))
	switch {
	case errors.Is(err, link.ErrNoLink):
		def.Managed = true
	case err != nil:
		return p, err
	default:
		// A parent that Lanyard was interrupted in creating is managed, too.
		def.Managed = p.Ours || l.Host.Unfinished(def.Parent)
	}
	if err := checkAnnounced(def); err != nil {
		return p, err
	}
	if err := def.Conflicts(l.withSameTags(def, p, n)); err != nil {
		return p, err
	}
	if err := checkAnnounces(def, p); err != nil {
		return p, err
	}
	return p, def.HostConflicts(slices.Collect(maps.Values(n.byName)))
}

// checkAnnounced returns an error if the network's VLAN shall be announced to the switch and cannot be.
func checkAnnounced(def *network.Definition) error {
	if !def.GVRP && !def.MVRP {
		return nil
	}
	flag := "gvrp"
	if def.MVRP {
		flag = "mvrp"
	}
	base, vid, err := link.ParseParent(def.Parent)
	if err != nil {
		return err
	}
	if _, outer, err := link.ParseParent(base); vid == 0 || err != nil || outer != 0 {
		return fmt.Errorf("--%s is for a parent with one tag, such as eth0.50, not %q", flag, def.Parent)
	}
	if !def.Managed {
		return fmt.Errorf("--%s is for a parent that Lanyard creates, and %q exists: "+
			"run \"ip link set dev %s type vlan %s on\"", flag, def.Parent, def.Parent, flag)
	}
	return nil
}

// checkAnnounces returns an error if the network's VLAN shall be announced to the switch, and Lanyard
// has already created p without that, such as the VLAN below another network's VLAN. p is zero if
// Lanyard is to create it.
func checkAnnounces(def *network.Definition, p link.Parent) error {
	flag := ""
	switch {
	case p.Index == 0:
	case def.GVRP && !p.GVRP:
		flag = "gvrp"
	case def.MVRP && !p.MVRP:
		flag = "mvrp"
	}
	if flag == "" {
		return nil
	}
	return fmt.Errorf("parent %q: exists without %s: run \"ip link set dev %s type vlan %s on\"",
		p.Name, flag, p.Name, flag)
}

// writeDefinition writes the definition, and a note that its links do not exist yet. It returns an
// error that wraps network.ErrExist if the network exists.
func (l *Admin) writeDefinition(def *network.Definition) error {
	if _, err := network.Load(l.Networks, def.Name); !errors.Is(err, network.ErrNotExist) {
		return fmt.Errorf("network %q: %w in %s", def.Name, network.ErrExist, l.Networks)
	}
	if err := network.Begin(l.Networks, def.Name); err != nil {
		return err
	}
	if err := def.Create(l.Networks); err != nil {
		return errors.Join(err, network.Finish(l.Networks, def.Name))
	}
	return nil
}

// ensureLinks creates the links of a network on the host that do not exist: its parent and the
// host's own link.
func (l *Admin) ensureLinks(ctx context.Context, def *network.Definition) (p link.Parent, err error) {
	p, _, err = l.ensureParent(ctx, def)
	if err == nil && def.HostAccess {
		err = l.createHostAccess(ctx, def, p)
	}
	return p, err
}

// ensureParent creates the parent of a network if it is managed and does not exist.
func (l *Admin) ensureParent(ctx context.Context, def *network.Definition) (p link.Parent, created bool, err error) {
	p, created, err = l.Host.EnsureParent(ctx, parts.SpecOf(def), def.Managed)
	failpoint.At("make")
	if err == nil && def.MTU > p.MTU {
		err = fmt.Errorf("--mtu %d is larger than the MTU of parent %q, %d", def.MTU, p.Name, p.MTU)
	}
	return p, created, err
}

// RemoveNetwork removes a network: its definition, and its parent if Lanyard has created it. It
// returns an error while the network has attachments.
func (l *Admin) RemoveNetwork(ctx context.Context, name string) error {
	_, errs := l.RemoveNetworks(ctx, []string{name})
	return errors.Join(errs...)
}

// RemoveNetworks removes several networks, and returns the names of those that it removed. An error
// of one network does not prevent the removal of the others.
func (l *Admin) RemoveNetworks(ctx context.Context, names []string) (gone []string, errs []error) {
	unlock, err := network.Lock(ctx, l.Networks)
	if err != nil {
		return nil, []error{err}
	}
	defer unlock()
	var defs []*network.Definition
	wanted := map[string]bool{}
	for _, name := range names {
		if wanted[name] {
			continue
		}
		wanted[name] = true
		def, err := network.Load(l.Networks, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defs = append(defs, def)
	}
	if len(defs) == 0 {
		return nil, errs
	}
	// A record that cannot be released keeps its own network only.
	if _, err := l.SweepSelected(ctx, func(a *hook.Attachment) bool { return wanted[a.Network] }); err != nil {
		errs = append(errs, err)
	}
	existing, _ := network.LoadAll(l.Networks)
	gone, more := l.removeNetworks(ctx, defs, siblingsOf(existing))
	l.giveBackSoon(ctx, defs)
	return gone, append(errs, more...)
}

// giveBackTimeout is how long a removal waits for a store that hosts share. If it is out of reach, the
// service gives the shares of removed networks back later.
const giveBackTimeout = time.Second

// giveBackSoon gives back the shares of those of defs that were removed.
func (l *Admin) giveBackSoon(ctx context.Context, defs []*network.Definition) {
	i := slices.IndexFunc(defs, func(d *network.Definition) bool { return d.OnOutage == network.OnOutageSlice })
	if i < 0 {
		return
	}
	store, err := l.Leases.Shared(defs[i].Leases)
	if err != nil {
		return
	}
	soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	_ = l.RenewShares(soon, defs[i].Leases, store) // the service repeats it
}

// Prune removes all networks without attachments, and returns their names. An error of one network
// does not prevent the removal of the others.
func (l *Admin) Prune(ctx context.Context) (pruned []string, err error) {
	unlock, err := network.Lock(ctx, l.Networks)
	if err != nil {
		return nil, err
	}
	defer unlock()
	_, swept := l.Sweep(ctx)               // a record that cannot be released keeps its own network only
	defs, _ := network.LoadAll(l.Networks) // networks with an invalid file stay
	pruned, errs := l.removeNetworks(ctx, defs, siblingsOf(defs))
	l.giveBackSoon(ctx, defs)
	errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, errInUse) })
	return pruned, errors.Join(append(errs, swept)...)
}

// removeBatchSize is the number of networks that are removed together: deleting a link waits for
// RCU, and the deletion of many links together waits no longer than that of one. Each link has an
// open descriptor during that time.
const removeBatchSize = 256

// removeNetworks removes networks in batches.
func (l *Admin) removeNetworks(
	ctx context.Context, defs []*network.Definition, n *siblings,
) (gone []string, errs []error) {
	for batch := range slices.Chunk(defs, removeBatchSize) {
		names, more := l.removeBatch(ctx, batch, n)
		gone, errs = append(gone, names...), append(errs, more...)
	}
	return gone, errs
}

// removal is the state of the removal of one network.
type removal struct {
	def    *network.Definition
	marked bool  // in the database
	err    error // why the network stays
}

// removeBatch removes networks. It marks them first, so that no container can attach to them. After
// a crash, removing a marked network again completes the removal.
func (l *Admin) removeBatch(
	ctx context.Context, defs []*network.Definition, n *siblings,
) (gone []string, errs []error) {
	all := l.markAll(ctx, defs)
	l.removeParents(ctx, all, n)
	l.removeDefinitions(ctx, all)
	err := l.unmarkAll(ctx, all)
	for _, r := range all {
		switch {
		case r.err == nil:
			gone = append(gone, r.def.Name)
		case errors.Is(r.err, errInUse):
			errs = append(errs, r.err)
		default:
			errs = append(errs, fmt.Errorf("network %q: %w", r.def.Name, r.err))
		}
	}
	if err != nil {
		errs = append(errs, err)
	}
	return gone, errs
}

// markAll marks the networks as being removed. The err of each removal is set if the network is in
// use, or if the database failed.
func (l *Admin) markAll(ctx context.Context, defs []*network.Definition) (all []removal) {
	err := l.WithDB(ctx, func() error {
		return l.DB.Update(ctx, func(tx record.Tx) error {
			all = nil
			if err := record.Ready(tx); err != nil {
				return err
			}
			for _, def := range defs {
				err := markIfUnused(tx, def)
				all = append(all, removal{def, err == nil, err})
			}
			return nil
		})
	})
	if err == nil {
		return all
	}
	all = nil
	for _, def := range defs {
		all = append(all, removal{def, false, err})
	}
	return all
}

// removeParents deletes the managed parents that no remaining network and no container needs.
func (l *Admin) removeParents(ctx context.Context, all []removal, n *siblings) {
	names := make([]string, len(all)) // of the links to delete, "" for none
	unknown := l.findLinksInUse(ctx, n)
	for i := range all {
		r := &all[i]
		if r.err == nil {
			r.err = unknown
		}
		if r.err != nil {
			continue
		}
		n.remove(r.def)
		names[i], r.err = l.releaseParent(r.def, n)
	}
	unneeded := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "" })
	failed := l.Host.RemoveParents(ctx, unneeded, n.hasParent)
	for i := range all {
		r := &all[i]
		if err := failed[names[i]]; r.err == nil && !errors.Is(err, link.ErrForeign) {
			r.err = err
		}
		if r.marked && r.err != nil {
			n.add(r.def)
		}
	}
}

// removeDefinitions removes the pools and deletes the files of the definitions last: until then,
// removing the networks again completes the removal. A pool that hosts share stays: others use it.
func (l *Admin) removeDefinitions(ctx context.Context, all []removal) {
	var pools []string
	for _, r := range all {
		if r.err == nil && r.def.Leases == "" {
			pools = append(pools, parts.PoolNames(r.def)...)
		}
	}
	err := l.Leases.Own.RemovePool(ctx, pools...)
	for i := range all {
		r := &all[i]
		if r.err == nil {
			r.err = err
		}
		if r.err == nil {
			r.err = network.Remove(l.Networks, r.def.Name)
		}
	}
}

// unmarkAll deletes the marks: those of networks that stay, so that containers can attach again,
// and those of removed networks.
func (l *Admin) unmarkAll(ctx context.Context, all []removal) error {
	return l.DB.Update(ctx, func(tx record.Tx) (err error) {
		for _, r := range all {
			if r.marked {
				err = errors.Join(err, record.UnmarkRemoving(tx, r.def.Name))
			}
		}
		return err
	})
}

// errInUse is returned for a network with attachments.
var errInUse = errors.New("remove them first")

// markIfUnused marks a network as being removed. It returns an error that wraps errInUse if the
// network has attachments.
func markIfUnused(tx record.Tx, def *network.Definition) error {
	if err := record.Ready(tx); err != nil {
		return err
	}
	held, err := record.ByNetwork(tx, def.Name)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		return fmt.Errorf("network %q is in use by %s: %w", def.Name, record.Users(held), errInUse)
	}
	return record.MarkRemoving(tx, def.Name, def.ID)
}
