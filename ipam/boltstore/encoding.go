package boltstore

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"net/netip"
	"strconv"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
)

// Rows are JSON, to be read by people with any bbolt tool: against a binary
// form it costs a microsecond in a claim of a hundred. A checksum follows, over
// value, key and the name of the bucket or pool: one bit of a name that is
// another makes a whole bucket another's.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumBytes = 4

func checksum(bucket string, key, value []byte) uint32 {
	sum := crc32.Checksum([]byte(bucket), castagnoli)
	sum = crc32.Update(sum, castagnoli, key)
	return crc32.Update(sum, castagnoli, value)
}

// summed adds the checksum to a value.
func summed(bucket string, key, value []byte) []byte {
	row := make([]byte, 0, len(value)+sumBytes)
	return binary.BigEndian.AppendUint32(append(row, value...), checksum(bucket, key, value))
}

// opened gives the value without its checksum, if that is right.
func opened(bucket string, key, row []byte) ([]byte, error) {
	n := len(row) - sumBytes
	if n < 0 || binary.BigEndian.Uint32(row[n:]) != checksum(bucket, key, row[:n]) {
		return nil, damaged("row %q: bad checksum", key)
	}
	return row[:n:n], nil
}

func encode(pool string, l ipam.Lease) ([]byte, error) {
	v, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return summed(pool, l.Addr.AsSlice(), v), nil
}

func decode(pool string, key, row []byte) (l ipam.Lease, err error) {
	v, err := opened(pool, key, row)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(v, &l); err != nil {
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
