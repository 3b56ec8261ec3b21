package parts

import (
	"context"
	"fmt"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// Stores are the stores of leases that networks choose from. [Parts.WithStore] calls each kind as
// its contract says (see [ipam.Store]).
type Stores struct {
	// Own is in the file of the record database.
	Own ipam.Store
	// Shared returns a store that hosts share over the network. nil: this program has no client.
	Shared func(network.LeaseStore) (ipam.Shared, error)
}

// WithStore runs f with the store of a network's leases. f may run transactions of p.DB.
//
// If that is the host's own store, WithStore holds p.DB during f: all that f does is one visit of
// the file, and no other process sees a part of it. A shared store is called without a hold, and f
// must not call it within a transaction: all other attaches of the host would wait for the network.
func (p *Parts) WithStore(ctx context.Context, in network.LeaseStore, f func(ipam.Store) error) error {
	if in == "" {
		return p.DB.Hold(ctx, func() error { return f(p.Leases.Own) })
	}
	if p.Leases.Shared == nil {
		return fmt.Errorf("its leases are in %s, for which this program has no client", in)
	}
	store, err := p.Leases.Shared(in)
	if err != nil {
		return err
	}
	return f(store)
}
