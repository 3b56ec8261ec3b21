package admin

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/ipam"
)

// Ready returns an error if an attach to a network would fail: the network is not defined, its parent
// is missing or set down, or no address is free. It changes nothing and asks nothing on the wire.
func (l *Admin) Ready(ctx context.Context, name string) error {
	def, err := network.Load(l.Networks, name)
	if err != nil {
		return err
	}
	switch parent, err := l.Parent(def); {
	case errors.Is(err, link.ErrNoLink) && def.Managed: // the attach creates it
	case err != nil:
		return fmt.Errorf("network %q: %w", name, parts.ExplainMissingParent(def, err))
	case !parent.Up:
		return fmt.Errorf("network %q: parent %q is set down: run \"ip link set %s up\"", name, parent.Name, parent.Name)
	}
	full, err := l.FullSubnets(ctx, def)
	if err != nil {
		return fmt.Errorf("network %q: %w", name, err)
	}
	for _, subnet := range full {
		err = errors.Join(err, fmt.Errorf("network %q: subnet %s: %w", name, subnet, ipam.ErrPoolFull))
	}
	return err
}
