package parts

import (
	"context"
	"errors"
	"fmt"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// Stores are the stores of leases that networks choose from. [Parts.WithStore] calls each kind as
// its contract says (see [ipam.Store]).
type Stores struct {
	// Own is in the file of the record database.
	Own ipam.Store
	// Shared returns a store that hosts share over the network. Its error wraps ErrNoClient if this
	// program does not link the store's client.
	Shared func(network.LeaseStore) (ipam.Shared, error)
}

// ErrNoClient is returned by Stores.Shared in programs other than "lanyard": the clients would double
// the time that they take to start. The error around it says what to do.
var ErrNoClient = errors.New("only the service reaches it")

// WithStore runs f with the store of a network's leases. f may run transactions of p.DB.
//
// If that is the host's own store, WithStore holds p.DB during f: all that f does is one visit of
// the file, and no other process sees a part of it. A shared store is called without a hold, and f
// must not call it within a transaction: all other attaches of the host would wait for the network.
func (p *Parts) WithStore(ctx context.Context, in network.LeaseStore, f func(ipam.Store) error) error {
	if in == "" {
		return p.DB.Hold(ctx, func() error { return f(p.Leases.Own) })
	}
	store, err := p.Leases.Shared(in)
	if err != nil {
		return fmt.Errorf("its leases are in %s: %w", in, err)
	}
	return f(store)
}
