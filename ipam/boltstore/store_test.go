package boltstore_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/boltstore"
	"github.com/lanyard-net/lanyard/ipam/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) ipam.Store {
		db := boltstore.Open(filepath.Join(t.TempDir(), "run", "lanyard.db"))
		db.Now = now
		return db
	})
}
