package hook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// CreateNetwork defines a network and makes its parent ready. blind says why the
// tags of its frames cannot be watched, "" if they can.
func (l *Local) CreateNetwork(ctx context.Context, def *network.Definition) (blind string, err error) {
	all, err := l.CreateNetworks(ctx, []*network.Definition{def})
	if err != nil {
		return "", err
	}
	return all[0], nil
}

// CreateNetworks defines several networks, or none of them: see CreateNetwork.
func (l *Local) CreateNetworks(ctx context.Context, defs []*network.Definition) (blind []string, err error) {
	unlock, err := network.Lock(l.Networks)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Where an identity has to be written, it is now: the service may not write to /etc.
	if _, err := l.HostID(); err != nil {
		return nil, err
	}
	there, _ := network.LoadAll(l.Networks) // a broken file stops its own network only
	n, trunks := siblingsOf(there), watchedTrunks{}
	for i, def := range defs {
		p, err := l.createNetwork(ctx, def, n)
		if err != nil {
			if len(defs) > 1 {
				err = fmt.Errorf("network %q: %w", def.Name, err)
			}
			_, left := l.removeNetworks(ctx, defs[:i], n)
			return nil, errors.Join(append([]error{err}, left...)...)
		}
		n.add(def)
		blind = append(blind, trunks.watch(l, def, p))
	}
	for _, def := range defs {
		err = errors.Join(err, network.Finish(l.Networks, def.Name))
	}
	return blind, err
}

// createNetwork writes the definition before the parent is made: a crash in between
// leaves a network whose parent the first attach makes, not a link that nobody
// knows. The same command given once more goes on from there.
func (l *Local) createNetwork(ctx context.Context, def *network.Definition, n *siblings) (p link.Parent, err error) {
	begun, err := network.Begun(l.Networks, def.Name)
	if err != nil {
		return p, err
	}
	if begun == nil {
		return l.beginNetwork(ctx, def, n)
	}
	if !def.Begins(begun) {
		return p, fmt.Errorf("network %q: %w in %s: its making was broken off, and it was another; \"lanyard network rm %s\" takes it away", def.Name, network.ErrExist, l.Networks, def.Name)
	}
	n.remove(begun)
	*def = *begun
	p, _, err = l.ensureLinks(ctx, def)
	return p, err
}

func (l *Local) beginNetwork(ctx context.Context, def *network.Definition, n *siblings) (p link.Parent, err error) {
	p, err = l.Host.Resolve(specOf(def))
	switch {
	case errors.Is(err, link.ErrNoLink):
		def.Managed = true
	case err != nil:
		return p, err
	default:
		// One that somebody was killed over while making it is ours, too.
		def.Managed = p.Ours || l.Host.Unfinished(def.Parent)
	}
	if err := def.Conflicts(l.withSameTags(def, p, n)); err != nil {
		return p, err
	}
	if err := def.HostConflicts(slices.Collect(maps.Values(n.byName))); err != nil {
		return p, err
	}
	if err := l.writeDefinition(def); err != nil {
		return p, err
	}
	failpoint("define")
	p, created, err := l.ensureLinks(ctx, def)
	if err != nil {
		err = errors.Join(err, network.Remove(l.Networks, def.Name))
		if def.HostAccess {
			err = errors.Join(err, l.Host.RemoveHostLink(def.HostLink()))
		}
		if created {
			err = errors.Join(err, l.Host.RemoveParent(ctx, def.Parent, n.hasParent))
		}
		return p, err
	}
	return p, nil
}

// write puts the definition in its place, where none is, and notes that its links are
// not made yet.
func (l *Local) writeDefinition(def *network.Definition) error {
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

// makeLinks makes what a network has on the host, or what of it is not there yet.
func (l *Local) ensureLinks(ctx context.Context, def *network.Definition) (p link.Parent, created bool, err error) {
	p, created, err = l.Host.EnsureParent(ctx, specOf(def), def.Managed)
	failpoint("make")
	if err == nil && def.MTU > p.MTU {
		err = fmt.Errorf("--mtu %d is over the %d of parent %q", def.MTU, p.MTU, p.Name)
	}
	if err == nil && def.HostAccess {
		err = l.createHostAccess(ctx, def, p)
	}
	return p, created, err
}

// RemoveNetwork removes a definition, and the parent if we made it. It refuses
// while anything is attached.
func (l *Local) RemoveNetwork(ctx context.Context, name string) error {
	_, errs := l.RemoveNetworks(ctx, []string{name})
	return errors.Join(errs...)
}

// RemoveNetworks removes several, and gives the names of those that are gone. One
// that cannot be removed does not stop the others.
func (l *Local) RemoveNetworks(ctx context.Context, names []string) (gone []string, errs []error) {
	unlock, err := network.Lock(l.Networks)
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
	if _, err := l.sweep(ctx, false, func(a *Attachment) bool { return wanted[a.Network] }); err != nil {
		return nil, append(errs, err)
	}
	there, _ := network.LoadAll(l.Networks)
	gone, more := l.removeNetworks(ctx, defs, siblingsOf(there))
	return gone, append(errs, more...)
}

// Prune removes every network that nothing is attached to, and returns their
// names. One that cannot be removed does not stop the others.
func (l *Local) Prune(ctx context.Context) (pruned []string, err error) {
	unlock, err := network.Lock(l.Networks)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := l.Sweep(ctx); err != nil {
		return nil, err
	}
	defs, _ := network.LoadAll(l.Networks) // who is broken is somebody's, and stays
	pruned, errs := l.removeNetworks(ctx, defs, siblingsOf(defs))
	errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, errInUse) })
	return pruned, errors.Join(errs...)
}

// together is how many networks are removed in one go: deleting a link waits for
// RCU, and many wait no longer than one. Each holds a descriptor meanwhile.
const removeBatchSize = 256

func (l *Local) removeNetworks(ctx context.Context, defs []*network.Definition, n *siblings) (gone []string, errs []error) {
	for some := range slices.Chunk(defs, removeBatchSize) {
		names, more := l.removeBatch(ctx, some, n)
		gone, errs = append(gone, names...), append(errs, more...)
	}
	return gone, errs
}

// leaving is a network that is being removed.
type removal struct {
	def    *network.Definition
	marked bool
	err    error // it stays
}

// removeSome marks the networks first, which keeps attaches out; whoever crashes
// after it finishes by removing the network again.
func (l *Local) removeBatch(ctx context.Context, defs []*network.Definition, n *siblings) (gone []string, errs []error) {
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

func (l *Local) markAll(ctx context.Context, defs []*network.Definition) (all []removal) {
	err := l.withDB(ctx, func() error {
		return l.DB.Update(ctx, func(tx Tx) error {
			all = nil
			if err := ready(tx); err != nil {
				return err
			}
			for _, def := range defs {
				err := markRemoving(tx, def)
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

// removeParents deletes those that nobody needs any more.
func (l *Local) removeParents(ctx context.Context, all []removal, n *siblings) {
	var names []string
	for i := range all {
		r := &all[i]
		if r.err != nil {
			continue
		}
		n.remove(r.def)
		goes := false
		if goes, r.err = l.releaseParent(r.def, n); goes {
			names = append(names, r.def.Parent)
		}
	}
	stay := l.Host.RemoveParents(ctx, names, n.hasParent)
	for i := range all {
		r := &all[i]
		if err := stay[r.def.Parent]; r.err == nil && !errors.Is(err, link.ErrForeign) {
			r.err = err
		}
		if r.marked && r.err != nil {
			n.add(r.def)
		}
	}
}

// removeDefinitions deletes the files last: until then, removing the networks again
// finishes it.
func (l *Local) removeDefinitions(ctx context.Context, all []removal) {
	var pools []string
	for _, r := range all {
		for _, s := range r.def.Subnets {
			if r.err == nil {
				pools = append(pools, poolName(r.def, s))
			}
		}
	}
	err := l.Leases.RemovePool(ctx, pools...)
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

// unmarkAll lets networks be used again that stay, and forgets those that do not.
func (l *Local) unmarkAll(ctx context.Context, all []removal) error {
	return l.DB.Update(ctx, func(tx Tx) (err error) {
		for _, r := range all {
			if r.marked {
				err = errors.Join(err, tx.Delete(bucketRemoving, r.def.Name))
			}
		}
		return err
	})
}

// errInUse is returned for a network that something is attached to.
var errInUse = errors.New("remove them first")

func markRemoving(tx Tx, def *network.Definition) error {
	held, err := findReady(tx, bucketNetworks, def.Name)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		return fmt.Errorf("network %q is in use by %s: %w", def.Name, users(held), errInUse)
	}
	return tx.Put(bucketRemoving, def.Name, []byte(def.ID))
}

// users names the containers of attachments, as their engine lists them.
func users(held []Attachment) string {
	var names []string
	for _, a := range held {
		for _, c := range a.Containers {
			names = append(names, fmt.Sprintf("container %q", c.ID))
		}
		switch {
		case len(a.Containers) > 0:
		case a.ofPod():
			names = append(names, fmt.Sprintf("pod %q", a.Pod.String()))
		default:
			names = append(names, fmt.Sprintf("attachment %s", a.ID))
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// poolName names the pool of leases of one subnet. The generation is in it:
// a network made anew under an old name begins with an empty pool.
func poolName(def *network.Definition, s network.Subnet) string {
	return def.Name + "/" + def.ID + "/" + s.Subnet.String()
}
