package parts

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// WatchTrunk loads the program of a trunk, given by its ifindex. It returns "", or the reason why
// the trunk cannot be watched.
func (p *Parts) WatchTrunk(trunk int) (unwatched string) {
	if err := p.Datapath.Prepare(trunk); err != nil {
		return err.Error()
	}
	return ""
}

// SpecOf returns the description of a network's parent for hook/link.
func SpecOf(def *network.Definition) link.ParentSpec {
	s := link.ParentSpec{Name: def.Parent, Dummy: def.Managed && def.Dummy(), GVRP: def.GVRP, MVRP: def.MVRP}
	if def.VLANProto != "" {
		s.Outer = def.VLANProto.TPID()
	}
	return s
}

// Parent returns the parent of a network. It changes nothing. It returns an error that wraps
// link.ErrNoLink if the link does not exist.
func (p *Parts) Parent(def *network.Definition) (link.Parent, error) {
	return p.Host.Resolve(SpecOf(def))
}

// EnsureParent creates the parent if it is missing and managed, as after a boot. It never creates
// one of the administrator's.
func (p *Parts) EnsureParent(
	ctx context.Context, def *network.Definition,
) (parent link.Parent, created bool, err error) {
	parent, created, err = p.Host.EnsureParent(ctx, SpecOf(def), def.Managed)
	return parent, created, ExplainMissingParent(def, err)
}

// ExplainMissingParent adds to link.ErrNoLink that the administrator has to create a parent that is
// not managed.
func ExplainMissingParent(def *network.Definition, err error) error {
	if errors.Is(err, link.ErrNoLink) && !def.Managed {
		return fmt.Errorf("%w: it is not managed by Lanyard: create it again", err)
	}
	return err
}
