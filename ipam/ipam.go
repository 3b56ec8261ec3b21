// Package ipam says who holds which address: pools, leases, and the seam to
// the stores that keep them.
//
// It knows nothing of networks, links or the wire. Which pool an address is
// taken from, and what is done when somebody on the LAN holds it already, is
// for the caller to decide.
package ipam

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Owner is who holds a lease: one interface of one attachment. It is
// comparable; two owners are the same only if all fields are.
type Owner struct {
	Attachment string `json:"attachment"` // the attachment's random id
	Network    string `json:"network"`
	Interface  string `json:"interface"`
}

// State is why an address cannot be given out.
type State string

const (
	Held        State = "held"        // somebody has it
	Quarantined State = "quarantined" // somebody had it until a moment ago; neighbours may still remember
	Declined    State = "declined"    // somebody else answered for it on the wire
)

// Lease is one address and what is known of its holder.
type Lease struct {
	Addr  netip.Addr `json:"addr"`
	Owner Owner      `json:"owner"`
	// Name is the holder's name that survives a restart, and MAC its interface's
	// in colon form. Whoever has both again takes its quarantined address back
	// at once: its neighbours remember nothing wrong.
	Name  string    `json:"name,omitempty"`
	MAC   string    `json:"mac,omitempty"`
	State State     `json:"state"`
	Until time.Time `json:"until,omitzero"` // when Quarantined or Declined ends
}

// Errors of stores.
var (
	// ErrTaken is returned by Claim when the address is not free; the error
	// around it names the holder.
	ErrTaken = errors.New("address is taken")
	// ErrPoolFull is returned by Next when no address is free; the error around
	// it says how many are held, and how many will be free again by themselves.
	ErrPoolFull = errors.New("no address is free")
	// ErrCorrupt is returned by any method when the store's own records cannot
	// be read. Nothing was changed.
	ErrCorrupt = errors.New("database is damaged")
)

// Counts says how full a pool is, without reading its leases.
type Counts struct {
	Held        int `json:"held"`
	Quarantined int `json:"quarantined"`
	Declined    int `json:"declined"`
}

// Store keeps leases. A pool is a name that the caller chooses; it needs no
// making. Every method is atomic, also against other processes, and safe for
// concurrent use. What has run out counts as free, whether or not its row is
// still there. ErrCorrupt apart, an error from a method means that nothing was
// changed.
type Store interface {
	// Claim takes l.Addr for l.Owner if it is free: ErrTaken if not. An address
	// that is quarantined is free for who has l.Name and l.MAC of its last
	// holder. The same owner again is nil, and changes nothing.
	Claim(ctx context.Context, pool string, l Lease) error
	// Next takes the next free address of p after the last one that Next gave
	// out, in the order of addresses, and begins again at the first: ErrPoolFull
	// when it has been around. l.Addr is ignored. An owner that holds an address
	// of the pool already gets that one.
	Next(ctx context.Context, pool string, p Pool, l Lease) (netip.Addr, error)
	// Release frees whatever the owner holds in the pool, after a quarantine if
	// that is not zero. Nothing held is nil.
	Release(ctx context.Context, pool string, o Owner, quarantine time.Duration) error
	// Decline takes the address from the owner, and from everybody else until
	// the time is over.
	Decline(ctx context.Context, pool string, a netip.Addr, o Owner, d time.Duration) error
	// Leases gives the leases of a pool in the order of addresses, those out of
	// quarantine left out.
	Leases(ctx context.Context, pool string) ([]Lease, error)
	// Count gives how many leases of each kind there are.
	Count(ctx context.Context, pool string) (Counts, error)
	// RemovePool forgets a pool and all that is in it; an unknown one is nil.
	RemovePool(ctx context.Context, pool string) error
}
