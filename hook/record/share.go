package record

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/ipam/boottime"
)

// Share is what this host knows of its share of a pool in a store that hosts share. It is written
// before the store is asked for the share, and removed before the share is given back: a process that
// gets the store's answer after that finds another Attempt, or none.
type Share struct {
	Pool    string         `json:"pool"`
	Network string         `json:"network"`
	Ranges  []netip.Prefix `json:"ranges"`
	Attempt string         `json:"attempt"`
	// Except, Cluster, Revision and Place are those of the store's answer, see ipam.Share.
	Except   []netip.Addr `json:"except,omitempty"`
	Cluster  uint64       `json:"cluster"`
	Revision int64        `json:"revision"`
	Place    string       `json:"place,omitempty"`
	// Confirmed reports whether the store has the share: only then may it be used. Why is why not, ""
	// if the store was not asked yet.
	Confirmed bool   `json:"confirmed"`
	Why       string `json:"why,omitempty"`
	// Declined are the addresses that another station used, with the end of their time.
	Declined map[netip.Addr]boottime.Instant `json:"declined,omitempty"`
}

// WhyNot returns why the host may not use the ranges as its share of a pool in the store at a place, "" if it
// may. s is what it knows of the pool, or nil.
func (s *Share) WhyNot(ranges []netip.Prefix, place string) string {
	switch {
	case s == nil:
		return "the store has not answered yet"
	case !slices.Equal(s.Ranges, ranges):
		return "the host still has another one, of which containers may have pending addresses"
	case s.Confirmed && s.Place != place:
		return "the store has not answered since leases.json has other endpoints or another prefix"
	case s.Confirmed:
		return ""
	case s.Why == "":
		return "the store has not answered yet"
	}
	return s.Why
}

// ShareOf returns the share of a pool, or nil.
func ShareOf(tx Tx, pool string) (*Share, error) {
	b, ok := tx.Get(bucketShares, pool)
	if !ok {
		return nil, nil
	}
	s := &Share{}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read the share of pool %s: %w", pool, err)
	}
	return s, nil
}

// Shares returns all shares.
func Shares(tx Tx) (all []Share, err error) {
	for pool, b := range tx.Prefix(bucketShares, "") {
		var s Share
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, fmt.Errorf("read the share of pool %s: %w", pool, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// PutShare writes a share.
func PutShare(tx Tx, s *Share) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return tx.Put(bucketShares, s.Pool, b)
}

// RemoveShare removes the share of a pool. A missing one is not an error.
func RemoveShare(tx Tx, pool string) error { return tx.Delete(bucketShares, pool) }
