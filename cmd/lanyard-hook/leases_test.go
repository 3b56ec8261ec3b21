package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// queued returns the number of releases that wait on the host for the store of leases.
func (b *brokered) queued() (n int) {
	b.tb.Helper()
	must(b.tb, b.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		return l.DB.View(ctx, func(tx record.Tx) error {
			list, err := record.Releases(tx, 100)
			n = len(list)
			return err
		})
	}))
	return n
}

// TestLeasesInEtcd checks a network whose leases are in etcd with the hook: the service attaches, also
// right after it has started, and also if the state is longer than its messages may be. Without a
// service the hook refuses a container in one line, and the end of one queues its release, which the
// next service delivers.
func TestLeasesInEtcd(t *testing.T) {
	testenv.OutsideOfVM(t)
	b, _ := lanBrokered(t, func(d *network.Definition) { d.Leases, d.Quarantine = network.LeasesEtcd, 0 })
	before := b.Links(b.Host)
	b.stop()
	e := testenv.StartEtcd(t)
	config := fmt.Appendf(nil, `{"endpoints": [%q], "ttl": "10s"}`, e.Endpoint)
	must(t, os.WriteFile(b.Paths().Leases, config, 0o600))
	b.start()
	c := testenv.NewContainer(t)
	b.MustAttach("c1", c, "network=web") // while the session begins
	b.byService(true)
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	if n := b.Held("web"); n != 2 {
		t.Errorf("%d leases, want 2", n)
	}

	// CRI-O copies all annotations of a pod. The request is longer than a message of the service.
	long, other := map[string]string{"example.com/notes": strings.Repeat("x", 70<<10)}, testenv.NewContainer(t)
	o := b.Run(hooklab.EngineState(t, "c0", other.Pid, long, "network=web"), []string{"createRuntime"})
	if o != (hooklab.Outcome{}) || b.Held("web") != 4 {
		t.Errorf("with long annotations: %+v, %d leases", o, b.Held("web"))
	}
	hooklab.Pings(t, other.Namespace, "192.168.50.1")
	b.Refused("a taken address with long annotations", b.Run(hooklab.EngineState(t, "c0", c.Pid, long,
		"network=web", "ip=192.168.50.3", "interface=lan0"), []string{"createRuntime"}), 1, "192.168.50.3 is held by")
	must(t, other.Kill())
	if o := b.Run(hooklab.EngineState(t, "c0", 0, long, "network=web"), []string{"poststop"}); o != (hooklab.Outcome{}) {
		t.Errorf("the end with long annotations: %+v", o)
	}
	other.End(t)

	b.stop()
	b.Refused("an attach without a service", b.Attach("c2", testenv.NewContainer(t), "network=web"), 1,
		`network "web": its leases are in etcd: `, `run "systemctl enable --now lanyard.socket"`)
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.DetachAndEnd("c1", c)
	if len(b.Records()) != 0 || b.queued() != 2 || b.Held("web") != 4 { // that of c0, too
		t.Errorf("after an end without a service: %d records, %d releases wait, %d leases", len(b.Records()), b.queued(),
			b.Held("web"))
	}

	b.start()
	testenv.Eventually(t, "the release", func() error {
		if n := b.queued(); n > 0 {
			return fmt.Errorf("%d releases wait", n)
		}
		return nil
	})
	b.WantNothing("web", before)
	e.Kill()
	o = b.Attach("c3", testenv.NewContainer(t), "network=web")
	b.Refused("an attach without etcd", o, 1, `network "web"`, "etcd at "+e.Endpoint, "connection refused")
	if strings.Contains(o.Stderr, "systemctl") {
		t.Errorf("the refusal names the service: %s", o.Stderr)
	}
}
