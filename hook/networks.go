package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// CreateNetwork defines a network and makes its parent ready. The definition is
// written before the parent is made: a crash in between leaves a network whose
// parent the first attach makes, not a link that nobody knows. blind says why
// the tags of its frames cannot be watched, "" if they can.
func (l *Local) CreateNetwork(ctx context.Context, def *network.Definition) (blind string, err error) {
	unlock, err := network.Lock(l.Networks)
	if err != nil {
		return "", err
	}
	defer unlock()
	p, err := l.Host.Resolve(specOf(def))
	switch {
	case errors.Is(err, link.ErrNoLink):
		def.Managed = true
	case err != nil:
		return "", err
	default:
		// One that somebody was killed over while making it is ours, too.
		def.Managed = p.Ours || l.Host.Unfinished(def.Parent)
	}
	others, _ := network.LoadAll(l.Networks) // a broken file stops its own network only
	if err := def.Conflicts(l.beside(def, p, others)); err != nil {
		return "", err
	}
	if err := def.HostConflicts(others); err != nil {
		return "", err
	}
	if err := def.Create(l.Networks); err != nil {
		return "", err
	}
	p, created, err := l.Host.EnsureParent(ctx, specOf(def), def.Managed)
	if err == nil && def.MTU > p.MTU {
		err = fmt.Errorf("--mtu %d is over the %d of parent %q", def.MTU, p.MTU, p.Name)
	}
	if err == nil && def.HostAccess {
		err = l.createHost(ctx, def, p)
	}
	if err != nil {
		err = errors.Join(err, network.Remove(l.Networks, def.Name))
		if def.HostAccess {
			err = errors.Join(err, l.Host.RemoveHostLink(def.HostLink()))
		}
		if created {
			err = errors.Join(err, l.Host.RemoveParent(ctx, def.Parent))
		}
		return "", err
	}
	return l.watchFor(def, p), nil
}

// RemoveNetwork removes a definition, and the parent if we made it. It refuses
// while anything is attached. The mark that it sets first keeps attaches
// out; if we crash after it, removing the network again finishes the job.
func (l *Local) RemoveNetwork(ctx context.Context, name string) error {
	unlock, err := network.Lock(l.Networks)
	if err != nil {
		return err
	}
	defer unlock()
	def, err := network.Load(l.Networks, name)
	if err != nil {
		return err
	}
	if _, err := l.sweep(ctx, false, func(a *Attachment) bool { return a.Network == name }); err != nil {
		return err
	}
	others, _ := network.LoadAll(l.Networks)
	return l.removeNetwork(ctx, def, others)
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
	left := slices.Clone(defs)
	for _, def := range defs {
		switch rmErr := l.removeNetwork(ctx, def, left); {
		case rmErr == nil:
			pruned = append(pruned, def.Name)
			left = slices.DeleteFunc(left, func(o *network.Definition) bool { return o == def })
		case !errors.Is(rmErr, errInUse):
			err = errors.Join(err, fmt.Errorf("network %q: %w", def.Name, rmErr))
		}
	}
	return pruned, err
}

func (l *Local) removeNetwork(ctx context.Context, def *network.Definition, all []*network.Definition) error {
	if err := l.withDB(ctx, func() error {
		return l.DB.Update(ctx, func(tx Tx) error { return markRemoving(tx, def) })
	}); err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(all), func(o *network.Definition) bool { return o.Name == def.Name })
	if err := l.releaseParent(ctx, def, others); err != nil {
		// The network is whole: let it be used again.
		return errors.Join(err, l.DB.Update(ctx, func(tx Tx) error { return tx.Delete(bucketRemoving, def.Name) }))
	}
	if def.HostAccess {
		if err := l.Host.RemoveHostLink(def.HostLink()); err != nil {
			return err
		}
	}
	for _, s := range def.Subnets {
		if err := l.Leases.RemovePool(ctx, poolName(def, s)); err != nil {
			return err
		}
	}
	if err := network.Remove(l.Networks, def.Name); err != nil {
		return err
	}
	return l.DB.Update(ctx, func(tx Tx) error { return tx.Delete(bucketRemoving, def.Name) })
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
		if len(a.Containers) == 0 {
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
