package boltstore

import (
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

// ownerKey quotes, so that no owner's key is the beginning of another's,
// whatever a hostile name has in it.
func ownerKey(o ipam.Owner, addr []byte) []byte {
	k := make([]byte, 0, 96)
	for _, field := range [...]string{o.Attachment, o.Network, o.Interface} {
		k = strconv.AppendQuote(k, field)
	}
	return append(k, addr...)
}

func endKey(until time.Time, addr []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(until.UnixNano())), addr...)
}

// endOf is the time of an endKey.
func endOf(k []byte) time.Time { return time.Unix(0, int64(binary.BigEndian.Uint64(k))) }
