package record

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// Release is the release of an attachment's leases in a store that hosts share. The store is asked
// over the network, so that the release is delivered after the record is removed, perhaps much
// later.
type Release struct {
	// Attachment is what the release needs of the record that was removed: see released.
	Attachment hook.Attachment  `json:"attachment"`
	Quarantine time.Duration    `json:"quarantine_ns,omitzero"` // from At on
	At         boottime.Instant `json:"at_boottime_ns"`

	key string
}

// Left returns the part of the quarantine that is not over at a time.
func (r Release) Left(now boottime.Instant) time.Duration {
	return max(0, r.Quarantine-now.Sub(r.At))
}

// QueueRelease adds a release to those that are not delivered. first reports whether there is no
// earlier one. Call it in the transaction that removes the record: then at any moment either the
// record names the leases, or the release does.
func QueueRelease(tx Tx, r Release) (first bool, err error) {
	waiting, err := Releases(tx, 1)
	if err != nil {
		return false, err
	}
	// The number is never used again: a process that still delivers an earlier release removes that
	// one only.
	n := uint64(0)
	if b, ok := tx.Get(bucketMeta, keyLastRelease); ok {
		n = binary.BigEndian.Uint64(b)
	}
	n++
	if err := tx.Put(bucketMeta, keyLastRelease, binary.BigEndian.AppendUint64(nil, n)); err != nil {
		return false, err
	}
	r.Attachment = released(r.Attachment)
	b, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	return len(waiting) == 0, tx.Put(bucketReleases, fmt.Sprintf("%016x", n), b)
}

// released returns what the release of an attachment's leases needs of its record: the store, the pools,
// the owner and the addresses. While a store is out of reach, each container that ends adds a release,
// and each start reads them all.
func released(a hook.Attachment) hook.Attachment {
	return hook.Attachment{
		ID: a.ID, Network: a.Network, Interface: a.Interface, Addrs: a.Addrs, Pools: a.Pools, Leases: a.Leases,
		Pending: a.Pending,
	}
}

// Releases returns the releases that are not delivered, oldest first, and at most n.
func Releases(tx Tx, n int) ([]Release, error) { return ReleasesAfter(tx, Release{}, n) }

// ReleasesAfter is Releases for those after last.
func ReleasesAfter(tx Tx, last Release, n int) (list []Release, err error) {
	for k, b := range tx.Prefix(bucketReleases, "") {
		if len(list) == n {
			break
		}
		if k <= last.key {
			continue
		}
		r := Release{key: k}
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, fmt.Errorf("read the release %s: %w", k, err)
		}
		list = append(list, r)
	}
	return list, nil
}

// RemoveRelease removes a release that was delivered. A missing one is not an error.
func RemoveRelease(tx Tx, r Release) error { return tx.Delete(bucketReleases, r.key) }
