package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

func direct(d *network.Definition) { d.Brokered = network.BrokeredDirect }

// A user's container is on the LAN, with nothing configured but the network.
func TestBroker(t *testing.T) {
	b, gw := lanBrokered(t, direct)
	before := b.links(b.Host)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.9")
	a := b.record()
	if a.State != hook.Attached || a.Verdict.Code != verify.OK || a.Owner != alice || a.Addrs[0].String() != "192.168.50.9/24" {
		t.Errorf("record is %+v", a)
	}
	if len(a.Verdicts) != 2 || a.Verdicts[0].MAC != verify.MACOf(gw.MAC) {
		t.Errorf("verdicts are %+v", a.Verdicts)
	}
	pings(t, c.Namespace, "192.168.50.1")
	pings(t, c.Namespace, "fd50::1")
	// Only who attached it takes it back.
	must(t, c.Kill())
	b.mustDetachBy(bob, "c1")
	if len(b.records()) != 1 {
		t.Error("bob detached what alice holds")
	}
	b.mustDetachBy(alice, "c1")
	c.End(t)
	b.wantNothing("web", before)
	if lines := b.why(alice); len(lines) > 0 {
		t.Errorf("alice is told of %q", lines)
	}
}

// What another user may not have, each user is told in the same words.
func TestBrokerRefuses(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	c := testenv.NewRootless(t, alice)
	nested := testenv.NewRootless(t, alice, testenv.Unshare...)
	rootful := testenv.NewContainer(t)
	zombie := testenv.NewRootless(t, alice)
	must(t, zombie.Kill())
	gone := testenv.NewRootless(t, alice)
	must(t, gone.Kill())
	gone.Reap()
	for _, x := range []struct {
		what   string
		o      outcome
		reason string
	}{
		{"a user who is not allowed", b.attachBy(mallory, "m", testenv.NewRootless(t, mallory).Pid, "network=web"), `does not allow uid 1002`},
		{"no such network", b.attachBy(alice, "x", c.Pid, "network=nope"), `network \"nope\": not defined`},
		{"the host's namespace", b.attachBy(alice, "x", b.cmd.Process.Pid, "network=web"), "the host's own"},
		{"another user's container", b.attachBy(bob, "x", c.Pid, "network=web"), "belongs to uid 1000"},
		{"a nested one of another user", b.attachBy(bob, "x", nested.Pid, "network=web"), "[1000 1000 0]"},
		{"a rootful container", b.attachBy(alice, "x", rootful.Pid, "network=web"), "rootful"},
		{"a zombie", b.attachBy(alice, "x", zombie.Pid, "network=web"), "exited"},
		{"nobody", b.attachBy(alice, "x", gone.Pid, "network=web"), "exited"},
		{"no process can have it", b.attachBy(alice, "x", 1<<30, "network=web"), "process"},
	} {
		b.secret(x.what, x.o, x.reason)
	}
	for _, x := range []struct {
		what string
		o    outcome
		word string
	}{
		{"a MAC of its choice", b.attachBy(alice, "x", c.Pid, "network=web", "mac=02:00:00:00:00:77"), "cannot choose its MAC"},
		{"the gateway's address", b.attachBy(alice, "x", c.Pid, "network=web", "ip=192.168.50.1"), "gateway"},
		{"an address of no subnet", b.attachBy(alice, "x", c.Pid, "network=web", "ip=10.0.0.1"), "10.0.0.1"},
	} {
		b.refused(x.what, x.o, 1, x.word)
	}
	if recs := b.records(); len(recs) > 0 || b.held("web") > 0 {
		t.Errorf("refusals left %+v", recs)
	}
	if lines := b.why(alice); len(lines) != 8 || !strings.HasPrefix(lines[0], "x: refused") {
		t.Errorf("alice is told %d: %q", len(lines), lines)
	}
	// What went wrong before the broker was asked is there, too.
	b.refused("a typo", b.attachBy(mallory, "m", c.Pid, "nettwork=web"), 1, "did you mean")
	if lines := b.why(mallory); len(lines) != 2 || !strings.Contains(lines[1], "did you mean") {
		t.Errorf("mallory is told %q", lines)
	}
	if lines := b.why(bob); len(lines) != 2 || !strings.HasPrefix(lines[0], "x: refused") {
		t.Errorf("bob is told %q", lines)
	}
}

// Addresses outside of the ranges are the LAN's to give.
func TestBrokerRange(t *testing.T) {
	b, _ := lanBrokered(t, func(d *network.Definition) {
		direct(d)
		d.Subnets[0].Ranges = append(d.Subnets[0].Ranges, mustPrefix("192.168.50.128/25"))
	})
	c := testenv.NewRootless(t, alice)
	b.refused("an address outside of the ranges", b.attachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.9"), 1, "192.168.50.9", "outside")
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.200")
}

// However many hooks come at once, nobody gets more than the network allows.
func TestBrokerQuota(t *testing.T) {
	b, _ := lanBrokered(t, func(d *network.Definition) {
		direct(d)
		d.MaxPerUser = 3
	})
	const hooks = 64
	results := make(chan outcome, hooks)
	for i := range hooks {
		c := testenv.NewRootless(t, alice)
		go func() { results <- b.attachBy(alice, fmt.Sprintf("c%d", i), c.Pid, "network=web") }()
	}
	won := 0
	for range hooks {
		o := <-results
		if o.status == 0 {
			won++
			continue
		}
		b.refused("one too many", o, 1, "--max-per-user is 3")
	}
	if won != 3 || len(b.records()) != 3 || b.held("web") != 6 {
		t.Errorf("%d of %d hooks won; %d records, %d leases; want 3", won, hooks, len(b.records()), b.held("web"))
	}
	// Another user has a quota of their own.
	c := testenv.NewRootless(t, bob)
	b.mustAttachBy(bob, "bob1", c.Pid, "network=web")
}

// Containers that ended without a poststop do not count.
func TestBrokerQuotaFrees(t *testing.T) {
	b, _ := lanBrokered(t, func(d *network.Definition) {
		direct(d)
		d.MaxPerUser = 1
	})
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	c.End(t)
	next := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c2", next.Pid, "network=web")
	if a := b.record(); a.Containers[0].ID != "c2" {
		t.Errorf("record is %+v", a)
	}
}

// A broker that is killed in the middle loses nothing.
func TestBrokerRestart(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	before := b.links(b.Host)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	b.kill()
	pings(t, c.Namespace, "192.168.50.1")
	next := testenv.NewRootless(t, alice)
	b.refused("no broker", b.attachBy(alice, "c2", next.Pid, "network=web"), 1, "no broker listens", "systemctl enable --now lanyard.socket")
	b.start()
	pings(t, c.Namespace, "192.168.50.1")
	b.mustAttachBy(alice, "c2", next.Pid, "network=web")
	for id, c := range map[string]*testenv.Container{"c1": c, "c2": next} {
		must(t, c.Kill())
		b.mustDetachBy(alice, id)
		c.End(t)
	}
	b.wantNothing("web", before)
}
