package boltstore

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
)

// encode returns a lease's row; its key is the address. The row has the first letter of the state;
// unless the lease is held, the time at which it ends, in ns of the clock boottime (8 bytes); then five texts
// (see appendText). JSON would be three times as long. The length decides how much memory a million
// leases take, and how many pages a claim reads.
func encode(l ipam.Lease) []byte {
	row := append(make([]byte, 0, 128), l.State[0])
	if l.State != ipam.Held {
		row = binary.BigEndian.AppendUint64(row, uint64(l.Until.UnixNano()))
	}
	for _, text := range texts(&l) {
		row = appendText(row, *text)
	}
	return row
}

func texts(l *ipam.Lease) [5]*string {
	return [...]*string{&l.Owner.Attachment, &l.Owner.Network, &l.Owner.Interface, &l.Name, &l.MAC}
}

// decode is the opposite of encode. A row that encode cannot have written is damage.
func decode(key, row []byte) (l ipam.Lease, err error) {
	if l, ok := read(key, row); ok {
		return l, nil
	}
	return l, damaged("row %x: %x", key, row)
}

// read is decode without an error text.
func read(key, row []byte) (l ipam.Lease, ok bool) {
	if l.Addr, ok = netip.AddrFromSlice(key); !ok || len(row) == 0 {
		return l, false
	}
	for _, state := range [...]ipam.State{ipam.Held, ipam.Quarantined, ipam.Declined} {
		if row[0] == state[0] {
			l.State = state
		}
	}
	row = row[1:]
	if l.State != ipam.Held {
		if l.State == "" || len(row) < 8 {
			return l, false
		}
		l.Until, row = time.Unix(0, int64(binary.BigEndian.Uint64(row))), row[8:]
	}
	for _, text := range texts(&l) {
		if *text, row, ok = cutText(row); !ok {
			return l, false
		}
	}
	return l, len(row) == 0
}

// Formats of a text in a row: its bytes, or the bytes that its hexadecimal or colon form stands
// for.
const (
	plain = iota
	hexadecimal
	mac
	kinds
)

// appendText appends a text: a uvarint of the number of its bytes, times kinds, plus its kind; then
// the bytes.
func appendText(row []byte, text string) []byte {
	bytes, kind := []byte(text), plain
	if b, err := hex.DecodeString(text); err == nil && hex.EncodeToString(b) == text {
		bytes, kind = b, hexadecimal
	} else if b, err := net.ParseMAC(text); err == nil && b.String() == text {
		bytes, kind = b, mac
	}
	return append(binary.AppendUvarint(row, uint64(len(bytes)*kinds+kind)), bytes...)
}

// cutText is the opposite of appendText. It returns the text and the rest of the row.
func cutText(row []byte) (text string, rest []byte, ok bool) {
	head, size := binary.Uvarint(row)
	n := head / kinds
	if size <= 0 || n > uint64(len(row)-size) {
		return "", nil, false
	}
	row = row[size:]
	switch b := row[:n]; head % kinds {
	case plain:
		text = string(b)
	case hexadecimal:
		text = hex.EncodeToString(b)
	case mac:
		text = net.HardwareAddr(b).String()
	}
	return text, row[n:], true
}

// encodeCounts returns the row of a pool's counts: three numbers (varint).
func encodeCounts(c ipam.Counts) (row []byte) {
	for _, n := range numbers(&c) {
		row = binary.AppendVarint(row, int64(*n))
	}
	return row
}

func numbers(c *ipam.Counts) [3]*int { return [...]*int{&c.Held, &c.Quarantined, &c.Declined} }

// decodeCounts is the opposite of encodeCounts.
func decodeCounts(row []byte) (c ipam.Counts, err error) {
	rest := row
	for _, number := range numbers(&c) {
		n, size := binary.Varint(rest)
		if size <= 0 {
			return c, damaged("counts %x", row)
		}
		*number, rest = int(n), rest[size:]
	}
	if len(rest) > 0 {
		return c, damaged("counts %x", row)
	}
	return c, nil
}

// ownerKey returns the key of an address in owners. It begins as the id of the attachment does: ids
// are ordered by time, so that consecutive starts write the same few pages, however many there are.
// Then comes a hash of all fields, which are quoted so that no hostile name can make two owners
// equal. Both parts are short, since short keys make a low tree. Two owners may therefore have the
// same key: the lease says which of them holds the address.
func ownerKey(o ipam.Owner, addr []byte) []byte {
	whole := make([]byte, 0, 96)
	for _, field := range [...]string{o.Attachment, o.Network, o.Interface} {
		whole = strconv.AppendQuote(whole, field)
	}
	sum := sha256.Sum256(whole)
	k := make([]byte, ownerBytes, 24)
	begin := o.Attachment[:min(8, len(o.Attachment))]
	if n, err := hex.Decode(k, []byte(begin)); err != nil || n < 4 {
		copy(k, begin)
	}
	copy(k[4:], sum[:])
	return append(k, addr...)
}

// ownerBytes is the number of bytes of an ownerKey before the address.
const ownerBytes = 8

func endKey(until time.Time, addr []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(until.UnixNano())), addr...)
}

// endOf returns the time in an endKey, and the address.
func endOf(k []byte) (time.Time, netip.Addr, error) {
	if len(k) > 8 {
		if a, ok := netip.AddrFromSlice(k[8:]); ok {
			return time.Unix(0, int64(binary.BigEndian.Uint64(k))), a, nil
		}
	}
	return time.Time{}, netip.Addr{}, damaged("end of a quarantine %x", k)
}
