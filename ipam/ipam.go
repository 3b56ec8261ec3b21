// Package ipam defines address pools, leases and [Store], the interface of the databases that keep
// leases.
//
// It knows nothing of networks, links or the wire. The caller decides which pool an address is
// taken from, and what to do when a station on the LAN already uses the address.
package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"
	"unicode/utf8"
)

// Owner identifies the holder of a lease: one interface of one attachment. It is comparable; two
// owners are the same only if all fields are equal.
type Owner struct {
	Attachment string `json:"attachment"` // the attachment's id: unique, in any format
	Network    string `json:"network"`
	Interface  string `json:"interface"`
}

// State is the reason why an address is not free.
type State string

const (
	Held        State = "held"        // an owner uses it
	Quarantined State = "quarantined" // an owner released it recently; its neighbours may still have it in their caches
	Declined    State = "declined"    // another station answered for it on the wire
)

// Lease is one address and what is known of its holder.
type Lease struct {
	// Addr has no zone and is not IPv4-mapped (::ffff:a.b.c.d). Otherwise an address would have two
	// spellings and could be leased twice.
	Addr  netip.Addr `json:"addr"`
	Owner Owner      `json:"owner"` // for Quarantined and Declined: the last owner
	// Name is the holder's name, which survives a restart. MAC is the MAC that it requested, in colon
	// form. Both are "" for none, and where they are not known, as after a rebuild of a lost store. Next
	// gives a quarantined address back at once to a holder with the same name and the same MAC.
	Name string `json:"name,omitempty"`
	MAC  string `json:"mac,omitempty"`
	// Host is the name of the host that claimed the address. A store that hosts share sets it, and
	// ignores it in a claim. It is "" in a host's own store.
	Host  string    `json:"host,omitempty"`
	State State     `json:"state"`
	Until time.Time `json:"until,omitzero"` // when Quarantined or Declined ends; zero if Held
}

// Validate returns an error if no store can keep the lease: its text is not UTF-8 (JSON would
// change it), or its address has a second spelling. A lease without an address is valid.
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

// Over reports whether the address is free again although its row still exists: from Until on, or if
// Until is more than maxIdle ahead.
func (l Lease) Over(now time.Time) bool {
	return l.State != Held && (!now.Before(l.Until) || l.Until.Sub(now) > maxIdle)
}

// maxIdle is longer than any quarantine, which is at most a day, and than any other time for which an
// address is out. Hosts that share a store have no other clock in common than the wall clock: a row that
// ends later was written by a host with a wrong one, and would be out for as long.
const maxIdle = 48 * time.Hour

// BarsClaim returns why an address that is claimed explicitly is not free, as an error that wraps
// ErrTaken, or nil if it is free. Quarantine does not bar it: engines give a recreated container
// another id, and a user who names an address means that address. BarsClaim also refuses a row of
// the same owner: the store handles that case before it calls BarsClaim.
func (l Lease) BarsClaim(now time.Time) error {
	switch {
	case l.Over(now) || l.State == Quarantined:
		return nil
	case l.State == Declined:
		return fmt.Errorf("%w: %s is held by another station on the LAN; it is not leased again before %s UTC",
			ErrTaken, l.Addr, l.Until.UTC().Format(time.TimeOnly))
	}
	return fmt.Errorf("%w: %s is held by %s", ErrTaken, l.Addr, l.holder())
}

// FreeFor reports whether Next may lease l's address to the holder in asks: the lease has run out,
// or is the quarantined one of the same holder, by name and MAC.
func (l Lease) FreeFor(asks Lease, now time.Time) bool {
	return l.Over(now) || l.State == Quarantined && l.Name != "" && l.Name == asks.Name && l.MAC == asks.MAC
}

func (l Lease) holder() string {
	holder := "attachment " + l.Owner.Attachment
	if l.Name != "" {
		holder = fmt.Sprintf("%q (%s)", l.Name, holder)
	}
	if l.Host != "" {
		holder += fmt.Sprintf(" on host %q", l.Host)
	}
	return holder
}

// Errors that stores return.
var (
	// ErrTaken is returned by Claim when the address is not free. The error around it names the
	// holder, as that of [Lease.BarsClaim] does.
	ErrTaken = errors.New("address is taken")
	// ErrPoolFull is returned by Next when no address is free or in quarantine. The error around it
	// is that of [Counts.Full].
	ErrPoolFull = errors.New("no address is free")
	// ErrCorrupt is returned by any method of a host's own store when its records cannot be read, or
	// contradict each other. Nothing was changed.
	ErrCorrupt = errors.New("database is damaged")
)

// Counts is the number of leases of each state in a pool. Stores keep it, so that no lease has to
// be read for it.
type Counts struct {
	Held        int `json:"held"`
	Quarantined int `json:"quarantined"`
	Declined    int `json:"declined"`
}

// Add adds n leases of state s; n may be negative.
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

// Full returns an error that wraps ErrPoolFull and names the pool p, the number of held addresses,
// and the number of addresses that become free without a release.
func (c Counts) Full(p Pool) error {
	return fmt.Errorf("%w in %s: %d held, %d in quarantine, %d held by other stations on the LAN",
		ErrPoolFull, p, c.Held, c.Quarantined, c.Declined)
}

// Store keeps leases. A pool is identified by a name that the caller chooses, and need not be
// created first. Names and the fields of an Owner are opaque: two different strings, even hostile
// ones, never denote the same pool or owner. Claim and Next refuse a lease for which
// [Lease.Validate] returns an error.
//
// Every method is atomic, also with respect to other processes and hosts that share the store, and
// is safe for concurrent use. If ctx ends before the method gets access to the store, it returns an
// error that wraps that of ctx. An error means that nothing was changed, unless the store cannot
// know (a network failed). Every method may therefore be called again with the same arguments, and
// then does what is left to do.
//
// A lease that has run out (see [Lease.Over]) counts as free in every method, whether or not the
// store still has its row.
//
// The attachment that holds a lease has a record in a second database, DB of package hook/record,
// which is local. A Store is of one of two kinds:
//
//   - The host's own Store is the same file as its DB, and one value has opened both. f of DB.Hold
//     calls methods of the Store, and no other process sees a lease without its record, or the
//     reverse. This Store accepts calls from within a Hold.
//   - A Store that hosts share is asked over the network. It is never called while the DB is held or
//     a transaction of it is open. Its methods return within seconds also if ctx has no deadline and
//     the Store is out of reach. For some moments a record has no lease yet, or a lease that is to be
//     released has no record: only the DB knows which attachments exist.
//
// Method WithStore of package hook/parts calls each kind in this way.
type Store interface {
	// Claim leases l.Addr to l.Owner, or returns an error that wraps ErrTaken if the address is not
	// free. A quarantined address is free. If the same owner already holds the address, Claim
	// returns nil and changes nothing. An owner may claim several addresses, one by one. l.State and
	// l.Until are ignored. An address in the [Share] of another host is not free.
	//
	// Claim does not check whether the address belongs to the subnet: see [Pool.Check].
	Claim(ctx context.Context, pool string, l Lease) error
	// Next leases the next free address of p, in the order of addresses ([Pool.Spans]), and returns
	// it. It starts after the last address that Next leased from the pool and continues at the
	// first after the end. It never leases an address that [Pool.Check] refuses. If the owner
	// already holds an address of the pool, Next returns that one, or the lowest of several. If
	// hosts call it at the same time, it may pass over addresses, which later calls lease.
	//
	// If no address is free, Next ends a quarantine: that of an address with the same last holder
	// ([Lease.FreeFor]), else the one that ends first. It never leases a held or a declined
	// address. If there is no other, it returns an error that wraps ErrPoolFull.
	//
	// A valid l.Addr is the address to start at, itself included, instead of the one after the
	// last: with it a caller can give the same name the same address again. It does not change
	// where a Next without l.Addr starts. All other fields are as for Claim.
	Next(ctx context.Context, pool string, p Pool, l Lease) (netip.Addr, error)
	// Release frees all addresses that the owner holds in the pool. If quarantine is not zero, they
	// stay quarantined for that long. Release returns nil if the owner holds nothing: quarantined
	// and declined addresses are not held, and stay as they are.
	Release(ctx context.Context, pool string, o Owner, quarantine time.Duration) error
	// Decline takes the address from the owner and keeps it from every owner for d. It returns an
	// error, and changes nothing, if the owner does not hold the address. It returns nil if the
	// address is already declined by the same owner.
	Decline(ctx context.Context, pool string, a netip.Addr, o Owner, d time.Duration) error
	// Leases returns the leases of a pool in the order of addresses, without those that have run
	// out. The result is a copy, so that a slow reader does not block the store.
	Leases(ctx context.Context, pool string) ([]Lease, error)
	// Count returns the number of leases of each state. Its cost does not grow with the number of
	// held addresses.
	Count(ctx context.Context, pool string) (Counts, error)
	// RemovePool deletes pools with all their leases. It returns nil for an unknown pool.
	RemovePool(ctx context.Context, pools ...string) error
}

// Shared is a Store that several hosts use. A host's leases end with its session, one time to live after
// the session's last keepalive, and are then free for other hosts.
type Shared interface {
	Store
	Shares
	// Keep begins the host's session, keeps it until ctx ends, and begins another one whenever it
	// has ended. One process of a host calls it. Without a session, Claim and Next return an error
	// that wraps ErrNoSession; all other methods work.
	//
	// Before a new session allows the first claim of the host, and from then on regularly, Keep
	// calls renew with a Shared that may claim already. renew claims the addresses that the host's
	// containers have, and so learns which of them other hosts have got since the last session
	// ended. If renew returns an error, Keep begins the session again.
	Keep(ctx context.Context, log *slog.Logger, renew func(context.Context, Shared) error)
	// Mine returns the leases that end with the host's session, by pool.
	Mine(ctx context.Context) (map[string][]Lease, error)
	// Close closes the connection. The session outlives it for its time to live.
	Close() error
}

// ErrNoSession is returned by Claim and Next of a [Shared] store on a host without a session.
var ErrNoSession = errors.New("this host has no session in the store of leases")
