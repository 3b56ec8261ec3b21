// Package record keeps attachments in the database: their rows, the indexes that find them, and the
// marks of networks that are being removed.
package record

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/verify"
)

// DB is the local database. Opening it is cheap, but locks it for all other processes: transactions
// must be short, and none may be open while the caller waits for the network. Its methods return an
// error that wraps ipam.ErrCorrupt if the file is damaged.
//
// The DB and the host's own [ipam.Store] must be one file, and one value must have opened both: see
// Hold. TestRecordsAndLeasesAreOneFile in internal/wiring checks this. A store that hosts share
// is never called within Hold, View or Update. Therefore a record is written before its leases are
// claimed there, and its removal queues their release (QueueRelease): whatever process is killed,
// the record or the queue names every lease that the host may hold.
// TestSharedStoreIsCalledUnlocked in hook/attach checks this.
type DB interface {
	// Hold keeps the database open, and locked for other processes, while f runs several
	// transactions of it and calls methods of the host's own ipam.Store. With two files, another
	// process could visit one of them between a lease and its record, and take the lease for one
	// without an attachment. With one file that two values open, f would wait for the lock that it
	// holds.
	//
	// Each transaction within f is written by itself: if f returns an error, the earlier ones stay.
	Hold(ctx context.Context, f func() error) error
	// View runs f in a read-only transaction.
	View(ctx context.Context, f func(Tx) error) error
	// Update runs f in a transaction. It writes nothing if f returns an error.
	Update(ctx context.Context, f func(Tx) error) error
	// MoveAside renames the file for which a method of this DB, or of its ipam.Store, has returned
	// ipam.ErrCorrupt, and returns its new name. It returns "" if another process has already
	// renamed it.
	MoveAside(ctx context.Context) (string, error)
}

// Tx is one transaction. Values are valid until the transaction ends.
type Tx interface {
	Get(bucket, key string) ([]byte, bool)
	Put(bucket, key string, value []byte) error
	Delete(bucket, key string) error
	// Prefix iterates over the keys that begin with prefix, in order.
	Prefix(bucket, prefix string) iter.Seq2[string, []byte]
}

// Buckets of the database, with their keys and values.
const (
	bucketRecords    = "attachments" // ID → Attachment
	bucketContainers = "containers"  // container id, NUL, ID
	bucketNetns      = "namespaces"  // netnsKey, NUL, ID
	bucketNetworks   = "networks"    // network, NUL, ID → owner's uid
	bucketMACs       = "macs"        // trunk's ifindex, "/", MAC, NUL, ID → withAddrs or withoutAddrs
	bucketPods       = "pods"        // namespace, "/", name, NUL, ID
	bucketLeased     = "leased"      // "dhcp", NUL, ID
	bucketRemoving   = "removing"    // network → generation that is being removed
	bucketReleases   = "releases"    // number → Release
	bucketShares     = "shares"      // pool → Share
	bucketMeta       = "meta"        // facts about the database itself
)

// Rows of indexes have what a start asks about many records, so that it does not read a thousand of
// them. An earlier release wrote empty values.

// Values of bucketMACs: whether the record has addresses.
const (
	withAddrs    = "a"
	withoutAddrs = "-"
)

// keyReady is the key in bucketMeta of a database that has been rebuilt from kernel state. Without
// it, no address may be claimed: the file may have been deleted while containers ran.
const keyReady = "ready"

// keyDHCP is the key in bucketLeased of attachments with an address from a DHCP server.
const keyDHCP = "dhcp"

// keyLastRelease is the key in bucketMeta of the last release's number (8 bytes).
const keyLastRelease = "last release"

// netnsKey returns a namespace's key in bucketNetns.
func netnsKey(n hook.Netns) string { return fmt.Sprintf("%s/%x/%x", n.Boot, n.Cookie, n.Inode) }

// indexesOf returns the {bucket, key} pairs that a record is found by, besides its id, and the values
// of these rows.
func indexesOf(a *hook.Attachment) map[[2]string]string {
	rows := map[[2]string]string{
		{bucketNetns, netnsKey(a.Netns)}: "",
		{bucketNetworks, a.Network}:      strconv.FormatUint(uint64(a.Owner), 10),
	}
	if !a.MAC.IsZero() && a.Endpoint.Trunk != 0 {
		key := [2]string{bucketMACs, macKey(a.Endpoint.Trunk, a.MAC)}
		rows[key] = withoutAddrs
		if len(a.Addrs) > 0 {
			rows[key] = withAddrs
		}
	}
	for _, c := range a.Containers {
		rows[[2]string{bucketContainers, c.ID}] = ""
	}
	if a.DHCP != nil || a.DHCP6 != nil {
		rows[[2]string{bucketLeased, keyDHCP}] = ""
	}
	if a.OfPod() {
		rows[[2]string{bucketPods, a.Pod.String()}] = ""
	}
	return rows
}

// indexKey returns the key of a record's row in an index.
func indexKey(of string, id verify.ID) string { return of + "\x00" + id.String() }

// Put writes the record and its rows in the indexes.
func Put(tx Tx, a *hook.Attachment) error {
	old, err := Get(tx, a.ID)
	if errors.Is(err, hook.ErrGone) {
		return Write(tx, nil, a)
	}
	if err != nil {
		return err
	}
	return Write(tx, &old, a)
}

// Write is Put, but takes the record's row from the same transaction. old is that row; nil if
// the record is new.
func Write(tx Tx, old, a *hook.Attachment) error {
	now := indexesOf(a)
	if old != nil {
		for k, value := range indexesOf(old) {
			same, still := now[k]
			if still && same == value {
				delete(now, k)
			}
			if still {
				continue
			}
			if err := tx.Delete(k[0], indexKey(k[1], a.ID)); err != nil {
				return err
			}
		}
	}
	for k, value := range now {
		if err := tx.Put(k[0], indexKey(k[1], a.ID), []byte(value)); err != nil {
			return err
		}
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return tx.Put(bucketRecords, a.ID.String(), b)
}

// Replace writes the record if it still exists, with the containers of its row: others may have
// joined or left. It returns hook.ErrGone if a sweep has removed the record or is removing it: the
// resources that the record names may then belong to another attachment.
func Replace(tx Tx, a *hook.Attachment) error {
	row, err := Get(tx, a.ID)
	if err == nil && row.State == hook.Detaching {
		err = hook.ErrGone
	}
	if err != nil {
		return err
	}
	a.Containers = row.Containers
	return Write(tx, &row, a)
}

// Get returns the record with an id, or hook.ErrGone.
func Get(tx Tx, id verify.ID) (a hook.Attachment, err error) {
	b, ok := tx.Get(bucketRecords, id.String())
	if !ok {
		return a, hook.ErrGone
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("read attachment %s: %w", id, err)
	}
	return a, nil
}

// Remove deletes the record and its rows in the indexes. A missing record is not an error.
func Remove(tx Tx, id verify.ID) error {
	a, err := Get(tx, id)
	if errors.Is(err, hook.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	for k := range indexesOf(&a) {
		if err := tx.Delete(k[0], indexKey(k[1], id)); err != nil {
			return err
		}
	}
	return tx.Delete(bucketRecords, id.String())
}

// find returns the records that an index has under a key.
func find(tx Tx, bucket, key string) (found []hook.Attachment, err error) {
	for k := range tx.Prefix(bucket, key+"\x00") {
		a, err := byText(tx, k[len(key)+1:])
		if err != nil {
			return nil, err
		}
		found = append(found, a)
	}
	return found, nil
}

// byText returns the record with an id in text form, as in the keys of indexes.
func byText(tx Tx, text string) (a hook.Attachment, err error) {
	var id verify.ID
	if err := id.UnmarshalText([]byte(text)); err != nil {
		return a, err
	}
	return Get(tx, id)
}

// All returns all records.
func All(tx Tx) (found []hook.Attachment, err error) {
	for _, b := range tx.Prefix(bucketRecords, "") {
		var a hook.Attachment
		if err := json.Unmarshal(b, &a); err != nil {
			return nil, fmt.Errorf("read an attachment: %w", err)
		}
		found = append(found, a)
	}
	return found, nil
}

// ByContainer returns the records with a reference of the container. Like [Ready], it returns
// ErrNotReady for a new database.
func ByContainer(tx Tx, id string) ([]hook.Attachment, error) {
	if err := Ready(tx); err != nil {
		return nil, err
	}
	return find(tx, bucketContainers, id)
}

// ByNetns returns the records of the interfaces in a namespace.
func ByNetns(tx Tx, n hook.Netns) ([]hook.Attachment, error) {
	return find(tx, bucketNetns, netnsKey(n))
}

// ByNetwork returns the records of a network.
func ByNetwork(tx Tx, network string) ([]hook.Attachment, error) {
	return find(tx, bucketNetworks, network)
}

// CountOwned returns the number of a user's attachments to a network.
func CountOwned(tx Tx, network string, uid uint32) (n int, err error) {
	owner := strconv.FormatUint(uint64(uid), 10)
	prefix := network + "\x00"
	for k, value := range tx.Prefix(bucketNetworks, prefix) {
		if len(value) > 0 {
			if string(value) == owner {
				n++
			}
			continue
		}
		a, err := byText(tx, k[len(prefix):])
		if err != nil {
			return 0, err
		}
		if a.Owner == uid {
			n++
		}
	}
	return n, nil
}

// ByMAC returns the records with a MAC on a trunk, which is given by its ifindex.
func ByMAC(tx Tx, trunk int, mac ether.MAC) ([]hook.Attachment, error) {
	return find(tx, bucketMACs, macKey(trunk, mac))
}

// WithDHCP returns the attachments with an address from a DHCP server.
func WithDHCP(tx Tx) ([]hook.Attachment, error) { return find(tx, bucketLeased, keyDHCP) }

// MACsWithAddrs returns the MACs on a trunk, which is given by its ifindex, of the attachments that
// have addresses.
func MACsWithAddrs(tx Tx, trunk int) (macs map[ether.MAC]bool, err error) {
	macs = map[ether.MAC]bool{}
	prefix := fmt.Sprintf("%d/", trunk)
	for k, value := range tx.Prefix(bucketMACs, prefix) {
		text, id, _ := strings.Cut(k[len(prefix):], "\x00")
		var mac ether.MAC
		if err := mac.UnmarshalText([]byte(text)); err != nil {
			return nil, err
		}
		with := string(value) == withAddrs
		if len(value) == 0 {
			a, err := byText(tx, id)
			if err != nil {
				return nil, err
			}
			with = len(a.Addrs) > 0
		}
		if with {
			macs[mac] = true
		}
	}
	return macs, nil
}

// ByPod returns the attachments of a pod, including those of its earlier sandboxes. A pod that is
// recreated under its name, as by a StatefulSet, needs the lease of that name.
func ByPod(tx Tx, p hook.Pod) ([]hook.Attachment, error) {
	if p.Sandbox == "" || p.Name == "" {
		return nil, nil
	}
	return find(tx, bucketPods, p.String())
}

// MarkRemoving marks a generation of a network as being removed: no container can be attached to it.
func MarkRemoving(tx Tx, network, generation string) error {
	return tx.Put(bucketRemoving, network, []byte(generation))
}

// UnmarkRemoving deletes the mark of a network.
func UnmarkRemoving(tx Tx, network string) error { return tx.Delete(bucketRemoving, network) }

// IsRemoving reports whether a generation of a network is marked as being removed.
func IsRemoving(tx Tx, network, generation string) bool {
	marked, ok := tx.Get(bucketRemoving, network)
	return ok && string(marked) == generation
}

// ErrNotReady is returned for a database that has not been rebuilt from kernel state yet.
var ErrNotReady = errors.New("the database is new")

// Ready returns ErrNotReady unless MarkReady was called on the database.
func Ready(tx Tx) error {
	if _, ok := tx.Get(bucketMeta, keyReady); !ok {
		return ErrNotReady
	}
	return nil
}

// MarkReady marks a new database as rebuilt: all records are in it.
func MarkReady(tx Tx) error {
	return tx.Put(bucketMeta, keyReady, []byte(time.Now().UTC().Format(time.RFC3339)))
}

// macKey returns the key of a MAC in bucketMACs. trunk is an ifindex.
func macKey(trunk int, mac ether.MAC) string { return fmt.Sprintf("%d/%s", trunk, mac) }

// NewID returns the id of a new attachment. The first four bytes are the time in seconds since
// 1970, the other twelve are random. So the rows of attachments that start together are adjacent,
// and a start does not read pages all over a database with a million rows.
func NewID() (id verify.ID) {
	binary.BigEndian.PutUint32(id[:], uint32(time.Now().Unix()))
	rand.Read(id[4:]) // never fails: crypto/rand ends the process instead
	return id
}
