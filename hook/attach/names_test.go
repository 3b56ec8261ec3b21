package attach_test

import (
	"context"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// sweptDB is a database with a sweep of a killed attach at a bad time: the first View also removes the
// interface, and the next Hold removes the record.
type sweptDB struct {
	record.DB
	removeLink, removeRecord func()
}

func (d *sweptDB) View(ctx context.Context, f func(record.Tx) error) error {
	err := d.DB.View(ctx, f)
	if remove := d.removeLink; remove != nil && ctx.Value(inAttach{}) != nil {
		d.removeLink = nil
		remove()
	}
	return err
}

func (d *sweptDB) Hold(ctx context.Context, f func() error) error {
	if remove := d.removeRecord; remove != nil && d.removeLink == nil {
		d.removeRecord = nil
		remove()
	}
	return d.DB.Hold(ctx, f)
}

// inAttach marks the context of the attach that is tested.
type inAttach struct{}

// TestSweptDuringAttach checks that an attach ends when a sweep removes the interface of an earlier
// attachment of the namespace, and then its record, while the attach reads both.
func TestSweptDuringAttach(t *testing.T) {
	w, _ := lan(t, nil)
	c := testenv.NewContainer(t)
	w.MustAttach("killed", c, "network=web")
	old := w.Record()
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		db := &sweptDB{DB: l.DB}
		db.removeLink = func() { hooklab.IP(t, c.Namespace, "link del eth0") }
		db.removeRecord = func() {
			must(t, db.Update(ctx, func(tx record.Tx) error { return record.Remove(tx, old.ID) }))
		}
		l.DB = db
		_, err := l.Attach(context.WithValue(ctx, inAttach{}, true),
			hook.Request{Container: "again", Pid: c.Pid, Wants: []hook.Want{{Network: "web"}}})
		return err
	}))
	if r := w.Records(); len(r) != 1 || r[0].Containers[0].ID != "again" {
		t.Errorf("records are %+v", r)
	}
}
