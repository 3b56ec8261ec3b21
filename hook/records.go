package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/lanyard-net/lanyard/verify"
)

// DB is the local database. Opening it is cheap, but locks it for all other processes: transactions
// must be short, and none may be open while the caller waits for the network. Its methods return an
// error that wraps ipam.ErrCorrupt if the file is damaged.
//
// It must be the same file as that of [ipam.Store], because f of Hold also calls the store.
type DB interface {
	// Hold keeps the database open while f runs, over several transactions.
	Hold(ctx context.Context, f func() error) error
	// View runs f in a read-only transaction.
	View(ctx context.Context, f func(Tx) error) error
	// Update runs f in a transaction. It writes nothing if f returns an error.
	Update(ctx context.Context, f func(Tx) error) error
	// MoveAside renames a damaged file and returns its new name.
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
	bucketNetns      = "namespaces"  // Netns.key, NUL, ID
	bucketNetworks   = "networks"    // network, NUL, ID
	bucketRemoving   = "removing"    // network → generation that is being removed
)

// ErrGone is returned if the record to change does not exist any more, because a sweep has removed
// it.
var ErrGone = errors.New("attachment is gone from the database")

// key returns the namespace's key in bucketNetns.
func (n Netns) key() string { return fmt.Sprintf("%s/%x/%x", n.Boot, n.Cookie, n.Inode) }

// indexes returns the {bucket, key} pairs that the record is found by, besides its id.
func (a *Attachment) indexes() map[[2]string]bool {
	keys := map[[2]string]bool{
		{bucketNetns, a.Netns.key()}: true,
		{bucketNetworks, a.Network}:  true,
	}
	if !a.MAC.IsZero() && a.Endpoint.Trunk != 0 {
		keys[[2]string{bucketMACs, macKey(a.Endpoint.Trunk, a.MAC)}] = true
	}
	for _, c := range a.Containers {
		keys[[2]string{bucketContainers, c.ID}] = true
	}
	if a.ofPod() {
		keys[[2]string{bucketPods, a.Pod.String()}] = true
	}
	return keys
}

// indexKey returns the key of a record's row in an index.
func indexKey(of string, id verify.ID) string { return of + "\x00" + id.String() }

// put writes the record and its rows in the indexes.
func put(tx Tx, a *Attachment) error {
	old, err := get(tx, a.ID)
	if errors.Is(err, ErrGone) {
		return write(tx, nil, a)
	}
	if err != nil {
		return err
	}
	return write(tx, &old, a)
}

// write is put, but takes the record's row from the same transaction. old is that row; nil if
// the record is new.
func write(tx Tx, old, a *Attachment) error {
	now := a.indexes()
	if old != nil {
		for k := range old.indexes() {
			if now[k] {
				delete(now, k)
				continue
			}
			if err := tx.Delete(k[0], indexKey(k[1], a.ID)); err != nil {
				return err
			}
		}
	}
	for k := range now {
		if err := tx.Put(k[0], indexKey(k[1], a.ID), nil); err != nil {
			return err
		}
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return tx.Put(bucketRecords, a.ID.String(), b)
}

// replace writes the record if it still exists. It returns ErrGone if a sweep has removed the
// record or is removing it: the resources that the record names may then belong to another
// attachment.
func replace(tx Tx, a *Attachment) error {
	row, err := get(tx, a.ID)
	if err == nil && row.State == Detaching {
		err = ErrGone
	}
	if err != nil {
		return err
	}
	return write(tx, &row, a)
}

// get returns the record with an id, or ErrGone.
func get(tx Tx, id verify.ID) (a Attachment, err error) {
	b, ok := tx.Get(bucketRecords, id.String())
	if !ok {
		return a, ErrGone
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("read attachment %s: %w", id, err)
	}
	return a, nil
}

// remove deletes the record and its rows in the indexes. A missing record is not an error.
func remove(tx Tx, id verify.ID) error {
	a, err := get(tx, id)
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	for k := range a.indexes() {
		if err := tx.Delete(k[0], indexKey(k[1], id)); err != nil {
			return err
		}
	}
	return tx.Delete(bucketRecords, id.String())
}

// find returns the records that an index has under a key.
func find(tx Tx, bucket, key string) (found []Attachment, err error) {
	for k := range tx.Prefix(bucket, key+"\x00") {
		var id verify.ID
		if err := id.UnmarshalText([]byte(k[len(key)+1:])); err != nil {
			return nil, err
		}
		a, err := get(tx, id)
		if err != nil {
			return nil, err
		}
		found = append(found, a)
	}
	return found, nil
}

// all returns all records.
func all(tx Tx) (found []Attachment, err error) {
	for _, b := range tx.Prefix(bucketRecords, "") {
		var a Attachment
		if err := json.Unmarshal(b, &a); err != nil {
			return nil, fmt.Errorf("read an attachment: %w", err)
		}
		found = append(found, a)
	}
	return found, nil
}
