package etcdstore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/lanyard-net/lanyard/ipam"
)

// Keys below the prefix. POOL is a pool's name, see poolKey; ADDRESS is an address in hexadecimal
// digits, so that keys of one family have the order of addresses.
//
//	host/HOST                     the session of a host: hostRow
//	next/POOL                     the address that Next leased last
//	held/POOL/ADDRESS             a lease that is held: row
//	owner/POOL/OWNER/ADDRESS      the same lease by its owner, see ownerKey; empty
//	idle/POOL/ADDRESS             a lease that is quarantined or declined: row
//	share/POOL/MACHINE            the share of a host: shareRow
//
// host, held and owner are attached to the host's etcd lease, and end with it.
const (
	kindHost  = "host/"
	kindNext  = "next/"
	kindHeld  = "held/"
	kindOwner = "owner/"
	kindIdle  = "idle/"
	kindShare = "share/"
)

// keys builds the keys of one pool.
type keys struct{ prefix, pool, name string }

func (s *Store) keys(pool string) keys { return keys{s.prefix, poolKey(pool), pool} }

func (k keys) next() string                { return k.prefix + kindNext + k.pool }
func (k keys) allHeld() string             { return k.prefix + kindHeld + k.pool + "/" }
func (k keys) allIdle() string             { return k.prefix + kindIdle + k.pool + "/" }
func (k keys) held(a netip.Addr) string    { return k.allHeld() + addrKey(a) }
func (k keys) idle(a netip.Addr) string    { return k.allIdle() + addrKey(a) }
func (k keys) allOwners() string           { return k.prefix + kindOwner + k.pool + "/" }
func (k keys) ownedBy(o ipam.Owner) string { return k.allOwners() + ownerKey(o) + "/" }
func (k keys) owner(l *ipam.Lease) string  { return k.ownedBy(l.Owner) + addrKey(l.Addr) }
func (k keys) allShares() string           { return k.prefix + kindShare + k.pool + "/" }
func (s *Store) hostKey() string           { return s.prefix + kindHost + s.host.ID }
func addrKey(a netip.Addr) string          { return hex.EncodeToString(a.AsSlice()) }
func damaged(key []byte, value []byte) error {
	return fmt.Errorf("key %q has the value %q", key, value)
}

// maxPoolKey is the maximum length of a pool's name that is readable in its keys.
const maxPoolKey = 200

// poolKey returns a pool's name as a part of a key: without "/", and different for different names.
func poolKey(name string) string {
	if k := url.QueryEscape(name); len(k) <= maxPoolKey {
		return k
	}
	sum := sha256.Sum256([]byte(name))
	return "sha256:" + hex.EncodeToString(sum[:]) // QueryEscape escapes a colon
}

// ownerKey returns a hash of an owner. The fields are quoted, so that no two owners are equal.
func ownerKey(o ipam.Owner) string {
	var whole []byte
	for _, field := range [...]string{o.Attachment, o.Network, o.Interface} {
		whole = strconv.AppendQuote(whole, field)
	}
	sum := sha256.Sum256(whole)
	return hex.EncodeToString(sum[:16])
}

// addrOf returns the address at the end of a key.
func addrOf(key []byte) (netip.Addr, error) {
	b, err := hex.DecodeString(string(key[strings.LastIndexByte(string(key), '/')+1:]))
	a, ok := netip.AddrFromSlice(b)
	if err != nil || !ok {
		return a, fmt.Errorf("key %q ends with no address", key)
	}
	return a, nil
}

// row is a lease as it is stored, with the revision of its last change and its etcd lease.
type row struct {
	ipam.Lease
	Pool      []byte `json:"pool"` // its name, which need not be UTF-8
	revision  int64
	etcdLease int64
}

func (k keys) encode(l ipam.Lease) (string, error) {
	b, err := json.Marshal(row{Lease: l, Pool: []byte(k.name)})
	return string(b), err
}

func decode(kv *mvccpb.KeyValue) (r row, err error) {
	a, err := addrOf(kv.Key)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(kv.Value, &r); err != nil || r.Addr != a || r.Validate() != nil {
		return r, damaged(kv.Key, kv.Value)
	}
	r.revision, r.etcdLease = kv.ModRevision, kv.Lease
	return r, nil
}

// decodeOne returns the row of a read that has one key or none, and nil for none.
func decodeOne(kvs []*mvccpb.KeyValue) (*row, error) {
	if len(kvs) == 0 {
		return nil, nil
	}
	r, err := decode(kvs[0])
	return &r, err
}

// hostRow is the value of a host's session.
type hostRow struct {
	Name string `json:"name"`
}
