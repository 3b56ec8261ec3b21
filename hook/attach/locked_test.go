package attach_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// watchedDB is a database that calls locked at its first hold, and measures the longest one.
type watchedDB struct {
	record.DB
	locked  func()
	once    sync.Once
	longest time.Duration
}

func (d *watchedDB) Hold(ctx context.Context, f func() error) error {
	return d.DB.Hold(ctx, func() error {
		d.once.Do(d.locked)
		start := time.Now()
		defer func() { d.longest = max(d.longest, time.Since(start)) }()
		return f()
	})
}

// TestHostileNamespaceIsReadUnlocked checks that a container with thousands of links, which change
// without end, does not keep the database of the host locked while the kernel lists them. It runs by
// name: a rebuild in a test of another package would report that namespace.
func TestHostileNamespaceIsReadUnlocked(t *testing.T) {
	testenv.ByName(t)
	const links = 1000
	w, _ := lan(t, nil)
	w.Records() // creates the database: its rebuild would list all links, too
	c := testenv.NewContainer(t)
	for i := range links / 2 {
		must(t, c.Netlink().LinkAdd(pair(fmt.Sprint("d", i))))
	}
	for _, id := range []string{"first", "joining"} {
		stop := make(chan struct{})
		var churn sync.WaitGroup
		var list time.Duration // of one list of the links, while they change
		db := &watchedDB{locked: func() {
			started := make(chan struct{})
			churn.Go(func() { churnLinks(t, c, id[:1], started, stop) })
			<-started
			start := time.Now()
			_, _ = c.Netlink().LinkList() // netlink.ErrDumpInterrupted is expected
			list = time.Since(start)
		}}
		err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
			db.DB, l.DB = l.DB, db
			_, err := l.Attach(ctx, hook.Request{Container: id, Pid: c.Pid, Wants: []hook.Want{{Network: "web"}}})
			return err
		})
		close(stop)
		churn.Wait()
		if list == 0 {
			t.Fatalf("%s: the database was not locked: %v", id, err)
		}
		if db.longest > 10*list {
			t.Errorf("%s: the database was locked for %s, and one list takes %s (%v)", id, db.longest, list, err)
		}
	}
}

func pair(name string) netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return &netlink.Veth{LinkAttrs: attrs, PeerName: "p" + name}
}

// churnLinks adds links to a namespace until stop is closed.
func churnLinks(t *testing.T, c *testenv.Container, name string, started, stop chan struct{}) {
	begun := sync.OnceFunc(func() { close(started) })
	defer begun()
	for i := range 20000 {
		if err := c.Netlink().LinkAdd(pair(fmt.Sprint(name, i))); err != nil {
			t.Error(err)
			return
		}
		begun()
		select {
		case <-stop:
			return
		default:
		}
	}
}
