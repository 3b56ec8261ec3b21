package hook

import (
	"context"
	"errors"
	"fmt"

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
	return p, created, explainMissingParent(def, err)
}

// whosParent says of a missing parent whose it was.
func explainMissingParent(def *network.Definition, err error) error {
	if errors.Is(err, link.ErrNoLink) && !def.Managed {
		return fmt.Errorf("%w: it was there before the network, and is yours to make again", err)
	}
	return err
}

// releaseParent takes the program off a trunk that no other network is on, and
// says whether the parent goes with the network: we made it, and no other network
// needs it.
func (l *Local) releaseParent(def *network.Definition, n *siblings) (goes bool, err error) {
	p, missing := l.Parent(def)
	if err := l.releaseTrunks(p, missing != nil, n); err != nil {
		return false, err
	}
	if missing != nil {
		return false, nil // gone, or made something else of: not ours to delete any more
	}
	if def.GuardsParent() && l.Guards != nil {
		if err := l.Guards.Free(p.Index); err != nil {
			return false, err
		}
	}
	// Where a network's VLAN stands on it, it goes with that.
	goes = def.Managed && len(l.withSameTags(def, p, n)) == 0 && !n.hasVLANOn(def.Parent)
	if def.HostAccess && !goes {
		err = l.Host.RemoveHostLink(def.HostLink())
	}
	return goes, err
}

// releaseTrunks takes the program off a parent's trunk, if no other network is on it
// and no endpoint is left. Which trunk the parent stood on cannot be told where it is
// missing: then it is whichever nobody needs.
func (l *Local) releaseTrunks(p link.Parent, missing bool, n *siblings) (err error) {
	trunks := []int{p.TrunkIndex}
	if missing {
		if trunks, err = l.Datapath.Trunks(); err != nil {
			return err
		}
	}
	for _, trunk := range trunks {
		if !l.anyOnTrunk(trunk, n) {
			err = errors.Join(err, l.Datapath.Release(trunk))
		}
	}
	return err
}

func (l *Local) anyOnTrunk(trunk int, n *siblings) bool {
	for _, o := range n.byName {
		if q, err := l.Parent(o); err == nil && q.TrunkIndex == trunk {
			return true
		}
	}
	return false
}

// Restored is a network whose parent was made sure of.
type Restored struct {
	Network string
	Parent  string
	Made    bool   // it was missing
	Blind   string // why the trunk is not watched, "" if it is
	Err     error  // why the network cannot be used; the other fields say less then
}

// watched are the trunks that a command has made sure of already, and why they
// cannot be watched.
type watchedTrunks map[trunkKey]string

type trunkKey struct {
	index  int
	driver string
}

func (w watchedTrunks) watch(l *Local, def *network.Definition, p link.Parent) (blind string) {
	key := trunkKey{p.TrunkIndex, def.Driver}
	if _, done := w[key]; !done {
		w[key] = l.watchNetwork(def, p)
	}
	return w[key]
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
	if _, err := l.HostID(); err != nil {
		return nil, err
	}
	defs, broken := network.LoadAll(l.Networks)
	watched := watchedTrunks{}
	for _, def := range defs {
		r := Restored{Network: def.Name, Parent: def.Parent}
		var p link.Parent
		if p, r.Made, r.Err = l.ensureParent(ctx, def); r.Err == nil {
			_, r.Err = l.ensureHostAccess(ctx, def, p)
			r.Blind = watched.watch(l, def, p)
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
