package hook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// specOf is what hook/link has to know of a network's parent.
func specOf(def *network.Definition) link.ParentSpec {
	s := link.ParentSpec{Name: def.Parent, Dummy: def.Managed && def.Dummy()}
	if def.VLANProto != "" {
		s.Outer = def.VLANProto.TPID()
	}
	return s
}

// Parent finds the link that a network stands on, changing nothing.
func (l *Local) Parent(def *network.Definition) (link.Parent, error) {
	return l.Host.Resolve(specOf(def))
}

// ensureParent makes the parent again where it was ours: after a boot it is not
// there. One that is the administrator's is not ours to make.
func (l *Local) ensureParent(ctx context.Context, def *network.Definition) (p link.Parent, created bool, err error) {
	p, created, err = l.Host.EnsureParent(ctx, specOf(def), def.Managed)
	return p, created, whosParent(def, err)
}

// whosParent says of a missing parent whose it was.
func whosParent(def *network.Definition, err error) error {
	if errors.Is(err, link.ErrNoLink) && !def.Managed {
		return fmt.Errorf("%w: it was there before the network, and is yours to make again", err)
	}
	return err
}

// beside gives the networks whose frames are on p's trunk with the same tags:
// those that name the same parent, and those whose parent is another name of
// the same link. p is zero where the parent is not made yet.
func (l *Local) beside(def *network.Definition, p link.Parent, others []*network.Definition) []*network.Definition {
	return slices.DeleteFunc(slices.Clone(others), func(o *network.Definition) bool { return !l.sameParent(def, p, o) })
}

func (l *Local) sameParent(def *network.Definition, p link.Parent, o *network.Definition) bool {
	if o.Parent == def.Parent {
		return true
	}
	if p.Index == 0 || isVLANName(def.Parent) && isVLANName(o.Parent) {
		// Two links of such names are two VLANs: the kernel has each VLAN of a
		// link once. Thousands of them need not be asked for.
		return false
	}
	q, err := l.Parent(o)
	return err == nil && q.TrunkIndex == p.TrunkIndex && slices.Equal(q.Tags, p.Tags)
}

func isVLANName(name string) bool {
	_, vid, err := link.ParseParent(name)
	return err == nil && vid != 0
}

// releaseParent takes the program off a trunk that no other network is on, and
// deletes the parent if we made it and no other network needs it.
func (l *Local) releaseParent(ctx context.Context, def *network.Definition, others []*network.Definition) error {
	p, err := l.Parent(def)
	if err != nil {
		return nil // gone, or made something else of: not ours to release any more
	}
	sameTrunk := slices.ContainsFunc(others, func(o *network.Definition) bool {
		q, err := l.Parent(o)
		return err == nil && q.TrunkIndex == p.TrunkIndex
	})
	if !sameTrunk {
		if err := l.Datapath.Release(p.TrunkIndex); err != nil {
			return err
		}
	}
	if def.GuardsParent() && l.Guards != nil {
		if err := l.Guards.Free(p.Index); err != nil {
			return err
		}
	}
	if !def.Managed || slices.ContainsFunc(others, func(o *network.Definition) bool { return l.sameParent(def, p, o) }) {
		return nil
	}
	var keep []string
	for _, o := range others {
		if strings.HasPrefix(o.Parent, def.Parent+".") {
			return nil // a network's VLAN stands on it; it goes with that
		}
		keep = append(keep, o.Parent)
	}
	if err := l.Host.RemoveParent(ctx, def.Parent, keep...); err != nil && !errors.Is(err, link.ErrForeign) {
		return err
	}
	return nil
}

// Restored is a network whose parent was made sure of.
type Restored struct {
	Network string
	Parent  string
	Made    bool   // it was missing
	Blind   string // why the trunk is not watched, "" if it is
	Err     error  // why the network cannot be used; the other fields say less then
}

// Restore makes the links again that we made before, as they are gone after a
// boot, and has the trunks watched. It never makes what was the administrator's.
// What a network lacks is in its own row, and stops no other.
func (l *Local) Restore(ctx context.Context) (all []Restored, err error) {
	unlock, err := network.Lock(l.Networks)
	if err != nil {
		return nil, err
	}
	defer unlock()
	defs, broken := network.LoadAll(l.Networks)
	type trunkOf struct {
		index  int
		driver string
	}
	watched := map[trunkOf]string{} // → why not
	for _, def := range defs {
		r := Restored{Network: def.Name, Parent: def.Parent}
		var p link.Parent
		if p, r.Made, r.Err = l.ensureParent(ctx, def); r.Err == nil {
			_, r.Err = l.ensureHost(ctx, def, p)
			key := trunkOf{p.TrunkIndex, def.Driver}
			if _, done := watched[key]; !done {
				watched[key] = l.watchFor(def, p)
			}
			r.Blind = watched[key]
		}
		all = append(all, r)
	}
	return all, errors.Join(broken...)
}

func tagsOf(p link.Parent) verify.Tags {
	tags := make(verify.Tags, len(p.Tags))
	for i, t := range p.Tags {
		tags[i] = verify.Tag{TPID: t.Proto, VID: t.VID}
	}
	return tags
}
