package boltstore

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"strconv"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
)

// encode gives a lease's row: JSON, to be read by people with any bbolt tool.
// Against a binary form it costs a microsecond in a claim of a hundred.
func encode(l ipam.Lease) ([]byte, error) { return json.Marshal(l) }

func decode(key, row []byte) (l ipam.Lease, err error) {
	if err := json.Unmarshal(row, &l); err != nil {
		return l, damaged("row %x: %w", key, err)
	}
	if a, ok := netip.AddrFromSlice(key); !ok || a != l.Addr {
		return l, damaged("row %x is a lease of %s", key, l.Addr)
	}
	return l, nil
}

// ownerKey begins as the owner's attachment does: ids come in the order of time, so
// that starts, one after the other, write the same few pages however many there are.
// Then comes a hash of the whole, since short keys make a low tree; the fields are
// quoted, so that no owner is another, whatever a hostile name has in it. Where two
// come to the same all the same, the lease says whose it is.
func ownerKey(o ipam.Owner, addr []byte) []byte {
	whole := make([]byte, 0, 96)
	for _, field := range [...]string{o.Attachment, o.Network, o.Interface} {
		whole = strconv.AppendQuote(whole, field)
	}
	sum := sha256.Sum256(whole)
	k := make([]byte, 16, 32)
	copy(k, o.Attachment[:min(8, len(o.Attachment))])
	copy(k[8:], sum[:])
	return append(k, addr...)
}

func endKey(until time.Time, addr []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(until.UnixNano())), addr...)
}

// endOf is the time of an endKey.
func endOf(k []byte) time.Time { return time.Unix(0, int64(binary.BigEndian.Uint64(k))) }
