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
	others, _ := network.LoadAll(l.Networks) // a broken file stops its own network only
	if err := def.Conflicts(others); err != nil {
		return "", err
	}
	p, err := l.Host.Resolve(def.Parent)
	switch {
	case errors.Is(err, link.ErrNoLink):
		def.Managed = true
	case err != nil:
		return "", err
	default:
		def.Managed = p.Ours
	}
	if err := def.Create(l.Networks); err != nil {
		return "", err
	}
	p, created, err := l.Host.EnsureParent(ctx, def.Parent, def.Managed)
	if err == nil && def.MTU > p.MTU {
		err = fmt.Errorf("--mtu %d is over the %d of parent %q", def.MTU, p.MTU, p.Name)
	}
	if err != nil {
		err = errors.Join(err, network.Remove(l.Networks, def.Name))
		if created {
			err = errors.Join(err, l.Host.RemoveParent(ctx, def.Parent))
		}
		return "", err
	}
	if err := l.Datapath.Prepare(p.TrunkIndex); err != nil {
		blind = err.Error()
	}
	return blind, nil
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
	if _, err := l.Sweep(ctx); err != nil {
		return err
	}
	if err := l.DB.Update(ctx, func(tx Tx) error { return markRemoving(tx, def) }); err != nil {
		return err
	}
	others, _ := network.LoadAll(l.Networks)
	others = slices.DeleteFunc(others, func(o *network.Definition) bool { return o.Name == name })
	if err := l.releaseParent(ctx, def, others); err != nil {
		return err
	}
	for _, s := range def.Subnets {
		if err := l.Leases.RemovePool(ctx, poolName(def, s)); err != nil {
			return err
		}
	}
	if err := network.Remove(l.Networks, name); err != nil {
		return err
	}
	return l.DB.Update(ctx, func(tx Tx) error { return tx.Delete(bucketRemoving, name) })
}

func markRemoving(tx Tx, def *network.Definition) error {
	held, err := find(tx, bucketNetworks, def.Name)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		return fmt.Errorf("network %q is in use by %s: remove them first", def.Name, users(held))
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

// releaseParent takes the program off a trunk that no other network is on, and
// deletes the parent if we made it and no other network needs it.
func (l *Local) releaseParent(ctx context.Context, def *network.Definition, others []*network.Definition) error {
	p, err := l.Host.Resolve(def.Parent)
	if errors.Is(err, link.ErrNoLink) {
		return nil // the administrator was quicker
	}
	if err != nil {
		return err
	}
	sameTrunk, sameParent := false, false
	for _, o := range others {
		if q, err := l.Host.Resolve(o.Parent); err == nil && q.TrunkIndex == p.TrunkIndex {
			sameTrunk = true
			sameParent = sameParent || q.Index == p.Index
		}
	}
	if !sameTrunk {
		if err := l.Datapath.Release(p.TrunkIndex); err != nil {
			return err
		}
	}
	if !def.Managed || sameParent {
		return nil
	}
	if err := l.Host.RemoveParent(ctx, def.Parent); err != nil && !errors.Is(err, link.ErrForeign) {
		return err
	}
	return nil
}

// poolName names the pool of leases of one subnet. The generation is in it:
// a network made anew under an old name begins with an empty pool.
func poolName(def *network.Definition, s network.Subnet) string {
	return def.Name + "/" + def.ID + "/" + s.Subnet.String()
}
