package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/lanyard-net/lanyard/verify"
)

// DB is the local database, as far as records need it. Opening it is cheap
// and locks everybody else out: keep transactions short, and none open
// while the network is waited for.
type DB interface {
	// Hold keeps the database open over several transactions.
	Hold(ctx context.Context, f func() error) error
	View(ctx context.Context, f func(Tx) error) error
	Update(ctx context.Context, f func(Tx) error) error
	// MoveAside puts a damaged file out of the way and gives its new name.
	MoveAside(ctx context.Context) (string, error)
}

// Tx is one transaction. Values are valid until it ends.
type Tx interface {
	Get(bucket, key string) ([]byte, bool)
	Put(bucket, key string, value []byte) error
	Delete(bucket, key string) error
	// Prefix gives the keys that begin with prefix, in order.
	Prefix(bucket, prefix string) iter.Seq2[string, []byte]
}

// Buckets of the database, and what their keys are made of.
const (
	bucketRecords    = "attachments" // ID → Attachment
	bucketContainers = "containers"  // container id, NUL, ID: who refers to what
	bucketNetns      = "namespaces"  // Netns.key, NUL, ID
	bucketNetworks   = "networks"    // network, NUL, ID
	bucketRemoving   = "removing"    // network → generation that is being removed
)

// ErrGone is returned when a record that was to be changed is no longer there:
// somebody swept it.
var ErrGone = errors.New("attachment is gone from the database")

func (n Netns) key() string { return fmt.Sprintf("%s/%x/%x", n.Boot, n.Cookie, n.Inode) }

// indexes are the keys under which a record is found besides its own.
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

func indexKey(of string, id verify.ID) string { return of + "\x00" + id.String() }

// put writes the record and whatever finds it.
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

// write puts the record in the place of the row that was read in the same
// transaction; nil where there is none.
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

// replace writes the record only if it is still there: whoever swept it has
// given away what it named.
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

// remove deletes the record and whatever finds it; an absent one is nil.
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

// find gives the records that an index has under one key.
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

// all gives every record.
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
