package ipam

import (
	"context"
	"errors"
	"net/netip"
	"slices"
)

// Share is a part of a pool in a store that hosts share. The store keeps it for one host: no other
// host can claim an address in it, so that the host may use the addresses while the store is out of
// reach. A share does not depend on the host's session, and lasts until the host gives it back.
type Share struct {
	Ranges []netip.Prefix `json:"ranges"`
	// Except are the addresses that other hosts have claimed before the share existed. They may hold
	// them still.
	Except []netip.Addr `json:"except,omitempty"`
	// Cluster and Revision are the state of the store that has confirmed the share, and Place is where
	// that is.
	Cluster  uint64 `json:"cluster"`
	Revision int64  `json:"revision"`
	Place    string `json:"place"`
}

// Contains reports whether the host may use the address.
func (s Share) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(s.Ranges, func(r netip.Prefix) bool { return r.Contains(a) }) &&
		!slices.Contains(s.Except, a)
}

// Reserved is a share of this host in the store.
type Reserved struct {
	Pool     string
	Ranges   []netip.Prefix
	Revision int64 // of its last change
}

// Shares are the methods of a [Shared] store for hosts that go on while it is out of reach.
//
// A host records a share before it uses it, and forgets it before it gives it back: then every share
// that it uses is in the store.
type Shares interface {
	// Reserve keeps ranges of a pool for this host, or returns the share that it has, as it is now. Its
	// error names the other host if that has a share with addresses of the ranges.
	Reserve(ctx context.Context, pool string, ranges []netip.Prefix) (Share, error)
	// GiveBack ends a share that Reserved has returned. It does nothing if the share has changed since.
	GiveBack(ctx context.Context, r Reserved) error
	// Reserved returns the shares that this host has.
	Reserved(ctx context.Context) ([]Reserved, error)
	// Place identifies where the configuration says that the store is: two places are not known to be one
	// store. It asks no server.
	Place() string
	// Confirm is Claim for an address that the owner uses already, which the host has chosen in its
	// share. It replaces a lease of the address that another owner of this host has by a claim with an
	// unknown end, and leases of other addresses of the pool that the owner has by such claims. It also
	// takes an address that is declined.
	Confirm(ctx context.Context, pool string, l Lease) error
}

// ErrOutOfReach is returned by the methods of a [Shared] store that get no answer.
var ErrOutOfReach = errors.New("the store of leases is out of reach")
