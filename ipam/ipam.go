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
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"
)

// Owner is who holds a lease: one interface of one attachment. It is
// comparable; two owners are the same only if all fields are.
type Owner struct {
	Attachment string `json:"attachment"` // the attachment's id: unique, and of any form
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
	// Addr has no zone, and is not an IPv4 address in IPv6's clothes: an address
	// has one spelling, or it could be held twice.
	Addr  netip.Addr `json:"addr"`
	Owner Owner      `json:"owner"` // for Quarantined and Declined: who had it
	// Name is the holder's name that survives a restart, and MAC its interface's
	// in colon form, "" where it is not known. Next gives a quarantined address back at
	// once to a holder that has both again.
	Name  string    `json:"name,omitempty"`
	MAC   string    `json:"mac,omitempty"`
	State State     `json:"state"`
	Until time.Time `json:"until,omitzero"` // when Quarantined or Declined ends
}

// Validate says what of a lease no store could keep, or nil: text that is not
// UTF-8, of which JSON makes another, and an address that has a second
// spelling. No address is none of its business.
func (l Lease) Validate() error {
	if l.Addr.Is4In6() || l.Addr.Zone() != "" {
		return fmt.Errorf("address %q has a second spelling", l.Addr)
	}
	for _, s := range []string{l.Owner.Attachment, l.Owner.Network, l.Owner.Interface, l.Name, l.MAC} {
		if !utf8.ValidString(s) {
			return fmt.Errorf("holder of %s: %q is not UTF-8", l.Addr, s)
		}
	}
	return nil
}

// Over says whether the address is free again although its row is still there.
// It is from Until on.
func (l Lease) Over(now time.Time) bool { return l.State != Held && !now.Before(l.Until) }

// BarsClaim returns an error that wraps ErrTaken and says why an address that is asked
// for by name is not free, and nil if it is. Quarantine does not bar it: engines give a
// recreated container another id, and whoever names an address means that address. The
// row of the same owner bars; the store looks for that first.
func (l Lease) BarsClaim(now time.Time) error {
	switch {
	case l.Over(now) || l.State == Quarantined:
		return nil
	case l.State == Declined:
		return fmt.Errorf("%w: %s is held by another station on the LAN; it is tried again after %s UTC", ErrTaken, l.Addr, l.Until.UTC().Format(time.TimeOnly))
	}
	return fmt.Errorf("%w: %s is held by %s", ErrTaken, l.Addr, l.holder())
}

// FreeFor reports whether Next may give l's address to the holder in asks: what has run
// out, and what that holder, by name and MAC, had until a moment ago.
func (l Lease) FreeFor(asks Lease, now time.Time) bool {
	return l.Over(now) || l.State == Quarantined && l.Name != "" && l.Name == asks.Name && l.MAC == asks.MAC
}

func (l Lease) holder() string {
	if l.Name != "" {
		return fmt.Sprintf("%q (attachment %s)", l.Name, l.Owner.Attachment)
	}
	return "attachment " + l.Owner.Attachment
}

// Errors of stores.
var (
	// ErrTaken is returned by Claim when the address is not free; the error
	// around it names the holder, as [Lease.BarsClaim] does.
	ErrTaken = errors.New("address is taken")
	// ErrPoolFull is returned by Next when no address is free; the error around
	// it is that of [Counts.Full].
	ErrPoolFull = errors.New("no address is free")
	// ErrCorrupt is returned by any method when the store's own records cannot
	// be read, or contradict each other. Nothing was changed.
	ErrCorrupt = errors.New("database is damaged")
)

// Counts says how full a pool is, without reading its leases.
type Counts struct {
	Held        int `json:"held"`
	Quarantined int `json:"quarantined"`
	Declined    int `json:"declined"`
}

// Add counts n more leases of a state.
func (c *Counts) Add(s State, n int) {
	switch s {
	case Held:
		c.Held += n
	case Quarantined:
		c.Quarantined += n
	case Declined:
		c.Declined += n
	}
}

// Full is ErrPoolFull with how many addresses are held, and how many will be
// free again by themselves.
func (c Counts) Full(p Pool) error {
	return fmt.Errorf("%w in %s: %d held, %d in quarantine, %d held by others on the LAN", ErrPoolFull, p, c.Held, c.Quarantined, c.Declined)
}

// Store keeps leases. A pool is a name that the caller chooses; it needs no
// making. Names and the fields of an Owner are opaque: any string, also a
// hostile one, stands for itself alone. Claim and Next refuse a lease that is
// not valid: [Lease.Validate].
//
// Every method is atomic, also against other processes and hosts that share
// the store, and safe for concurrent use. A method that cannot get its turn
// before ctx ends returns an error that wraps ctx's. An error means that
// nothing was changed, unless the store cannot know (a network broke): every
// method may therefore be called again with the same arguments, and then does
// what is left.
//
// What has run out (see [Lease.Over]) counts as free everywhere, whether or not
// the store still has its row.
type Store interface {
	// Claim takes l.Addr for l.Owner if it is free: ErrTaken if not. An address
	// that is quarantined is free. The same owner again is nil, and changes nothing. An owner may
	// claim several addresses, one by one. l.State and l.Until are ignored.
	//
	// Whether the address is one of the subnet's is not looked at: [Pool.Check].
	Claim(ctx context.Context, pool string, l Lease) error
	// Next takes the next free address of p after the last one that Next gave
	// out from there, in the order of addresses ([Pool.Spans]), and begins again
	// at the first: ErrPoolFull when it has been around. It never gives one
	// that [Pool.Check] refuses. An owner that holds an address of the pool
	// already gets that one, the lowest if several.
	//
	// A valid l.Addr is where to begin instead, itself included, whatever was
	// given last: it is how a caller gives the same name the same address when
	// it can. The next who does not say is not sent there. All other fields are
	// as for Claim.
	Next(ctx context.Context, pool string, p Pool, l Lease) (netip.Addr, error)
	// Release frees whatever the owner holds in the pool, after a quarantine if
	// that is not zero. Nothing held is nil: what is quarantined or declined
	// is not held, and stays as it is.
	Release(ctx context.Context, pool string, o Owner, quarantine time.Duration) error
	// Decline takes the address from the owner, and keeps it from everybody for
	// d. It is an error, and changes nothing, if the owner does not hold it,
	// unless it is the owner's declined one already.
	Decline(ctx context.Context, pool string, a netip.Addr, o Owner, d time.Duration) error
	// Leases gives the leases of a pool in the order of addresses, those that
	// have run out left out. It is a copy: a reader who takes his time must not
	// hold up others.
	Leases(ctx context.Context, pool string) ([]Lease, error)
	// Count gives how many leases of each state there are. Its cost does not
	// grow with those held.
	Count(ctx context.Context, pool string) (Counts, error)
	// RemovePool forgets pools and all that is in them; an unknown one is nil.
	RemovePool(ctx context.Context, pools ...string) error
}
