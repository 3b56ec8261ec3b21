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
// form it costs a microsecond in a claim of a hundred. A checksum over key and
// value follows.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumBytes = 4

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// summed adds the checksum to a value.
func summed(key, value []byte) []byte {
	row := make([]byte, 0, len(value)+sumBytes)
	return binary.BigEndian.AppendUint32(append(row, value...), checksum(key, value))
}

// opened gives the value without its checksum, if that is right.
func opened(key, row []byte) ([]byte, error) {
	n := len(row) - sumBytes
	if n < 0 || binary.BigEndian.Uint32(row[n:]) != checksum(key, row[:n]) {
		return nil, damaged("row %q: bad checksum", key)
	}
	return row[:n:n], nil
}

func encode(l ipam.Lease) ([]byte, error) {
	v, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	return summed(l.Addr.AsSlice(), v), nil
}

func decode(key, row []byte) (l ipam.Lease, err error) {
	v, err := opened(key, row)
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
