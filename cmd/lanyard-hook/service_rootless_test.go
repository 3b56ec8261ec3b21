package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

func direct(d *network.Definition) { d.Brokered = network.BrokeredDirect }

// TestServiceRootless attaches a user's container with no configuration except the network.
func TestServiceRootless(t *testing.T) {
	b, gw := lanBrokered(t, direct)
	before := b.Links(b.Host)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.9")
	a := b.Record()
	if a.State != hook.Attached || a.Verdict.Code != verify.OK || a.Owner != alice ||
		a.Addrs[0].String() != "192.168.50.9/24" {
		t.Errorf("record is %+v", a)
	}
	if len(a.Verdicts) != 2 || a.Verdicts[0].MAC != gw.MAC {
		t.Errorf("verdicts are %+v", a.Verdicts)
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	hooklab.Pings(t, c.Namespace, "fd50::1")
	// Only the user who attached it can detach it.
	must(t, c.Kill())
	b.mustDetachBy(bob, "c1")
	if len(b.Records()) != 1 {
		t.Error("bob detached what alice holds")
	}
	b.mustDetachBy(alice, "c1")
	c.End(t)
	b.WantNothing("web", before)
	if lines := b.why(alice); len(lines) > 0 {
		t.Errorf("alice is told of %q", lines)
	}
}

// TestServiceTakesOver checks that a user who starts a container again with its address, after an end
// without poststop, gets the address at once, and no other user does.
func TestServiceTakesOver(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	c, other := testenv.NewRootless(t, alice), testenv.NewRootless(t, bob)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.9")
	b.Refused("bob's", b.attachBy(bob, "c2", other.Pid, "network=web", "ip=192.168.50.9"), 1, "192.168.50.9 is in use")
	c.End(t)
	again := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c3", again.Pid, "network=web", "ip=192.168.50.9")
	if recs := b.Records(); len(recs) != 1 || recs[0].Containers[0].ID != "c3" {
		t.Errorf("records are %+v", recs)
	}
}

// TestServiceJoins checks that a user's container joins no interface that another uid holds in the
// user's namespace, and that 64 containers at most share one: a caller chooses their names freely.
func TestServiceJoins(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	c := testenv.NewRootless(t, alice)
	b.MustAttach("r", c, "network=web", "interface=eth0")
	b.secret("root's interface", b.attachBy(alice, "x", c.Pid, "network=web", "interface=eth0"), "held by uid 0")
	own := testenv.NewRootless(t, alice)
	for i := range 64 {
		b.mustAttachBy(alice, fmt.Sprint("x", i), own.Pid, "network=web")
	}
	b.Refused("one more", b.attachBy(alice, "y", own.Pid, "network=web"), 1, "shared by 64 containers already")
	if recs := b.Records(); len(recs) != 2 || len(recs[0].Containers)+len(recs[1].Containers) != 65 {
		t.Errorf("records are %+v", recs)
	}
}

// TestServiceRefusesCallers checks that all refusals have the same text.
func TestServiceRefusesCallers(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	c := testenv.NewRootless(t, alice)
	nested := testenv.NewRootless(t, alice, testenv.Unshare...)
	rootful := testenv.NewContainer(t)
	rootfulPod := testenv.JoinNamespace(t, rootful.Namespace)
	zombie := testenv.NewRootless(t, alice)
	must(t, zombie.Kill())
	gone := testenv.NewRootless(t, alice)
	must(t, gone.Kill())
	gone.Reap()
	for _, x := range []struct {
		what    string
		uid     int
		pid     int
		network string
		reason  string // in the log
	}{
		{"a user who is not allowed", mallory, testenv.NewRootless(t, mallory).Pid, "web", `does not allow uid 1002`},
		{"no such network", alice, c.Pid, "nope", `network \"nope\": not defined`},
		{"the service's own process", alice, b.cmd.Process.Pid, "web", "the host's own"},
		{"process 1", alice, 1, "web", "network namespace"},
		{"the calling user's process on the host", alice, b.mustSleepBy(alice), "web", "the host's own"},
		{"another user's container", bob, c.Pid, "web", "belongs to uid 1000"},
		{"a nested one of another user", bob, nested.Pid, "web", "[1000 1000 0]"},
		{"a rootful container", alice, rootful.Pid, "web", "rootful"},
		{"a second process in a rootful container", alice, rootfulPod.Pid, "web", "rootful"},
		{"a zombie", alice, zombie.Pid, "web", "exited"},
		{"a process that exited", alice, gone.Pid, "web", "exited"},
		{"no process can have it", alice, 1 << 30, "web", "process"},
	} {
		t.Run(x.what, func(t *testing.T) {
			b := b.on(t)
			b.secret(x.what, b.attachBy(x.uid, "x", x.pid, "network="+x.network), x.reason)
		})
	}
	for _, x := range []struct {
		what, annotation, word string
	}{
		{"a MAC of its choice", "mac=02:00:00:00:00:77", "cannot choose its MAC"},
		{"the gateway's address", "ip=192.168.50.1", "gateway"},
		{"the gateway's address of IPv6", "ip6=fd50::1", "gateway"},
		{"an address of no subnet", "ip=10.0.0.1", "10.0.0.1"},
		{"the network's own address", "ip=192.168.50.0", "192.168.50.0"},
		{"the broadcast address", "ip=192.168.50.255", "192.168.50.255"},
	} {
		t.Run(x.what, func(t *testing.T) {
			b := b.on(t)
			b.Refused(x.what, b.attachBy(alice, "x", c.Pid, "network=web", x.annotation), 1, x.word)
		})
	}
	if recs := b.Records(); len(recs) > 0 || b.Held("web") > 0 {
		t.Errorf("refusals left %+v", recs)
	}
	if lines := b.why(alice); len(lines) != 8 || !strings.HasPrefix(lines[7], "x: ") {
		t.Errorf("alice is told %d: %q", len(lines), lines)
	}
	// Failures before the request to the service are shown too.
	b.Refused("a typo", b.attachBy(mallory, "m", c.Pid, "nettwork=web"), 1, "did you mean")
	if lines := b.why(mallory); len(lines) != 2 || !strings.Contains(lines[1], "did you mean") {
		t.Errorf("mallory is told %q", lines)
	}
	if lines := b.why(bob); len(lines) != 2 || !strings.HasPrefix(lines[0], "x: refused") {
		t.Errorf("bob is told %q", lines)
	}
}

// TestGuardedParentChangesMAC checks that a guarded parent passes the host's frames after the administrator, or
// a bond that fails over, has changed its MAC, and no frames with the former MAC.
func TestGuardedParentChangesMAC(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	_, err := b.Host.Exec("ip", "addr", "add", "192.168.50.250/24", "dev", b.Trunk)
	must(t, err)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	hooklab.Pings(t, b.Host, "192.168.50.1")
	parent, err := b.Host.Netlink().LinkByName(b.Trunk)
	must(t, err)
	former := ether.MACOf(parent.Attrs().HardwareAddr)
	_, err = b.Host.Exec("ip", "link", "set", b.Trunk, "address", "02:00:00:00:00:88")
	must(t, err)
	hooklab.Pings(t, b.Host, "192.168.50.1")
	hooklab.Pings(t, c.Namespace, "192.168.50.1")

	tap, raw := mustTap(t, b.Switch), mustRaw(t, b.Host, b.Trunk)
	raw.mustSend(t, toAll(former, []byte("former")))
	raw.mustSend(t, toAll(ether.MAC{2, 0, 0, 0, 0, 0x88}, []byte("current")))
	for _, f := range tap.until(t, []byte("current")) {
		if bytes.Contains(f, []byte("former")) {
			t.Errorf("the guard passes the MAC that the parent had: %x", f)
		}
	}
}

// TestServiceRange checks that users cannot ask for addresses outside of the ranges.
func TestServiceRange(t *testing.T) {
	b, _ := lanBrokered(t, func(d *network.Definition) {
		direct(d)
		d.Subnets[0].Ranges = append(d.Subnets[0].Ranges, mustPrefix("192.168.50.128/25"))
	})
	c := testenv.NewRootless(t, alice)
	b.Refused("an address outside of the ranges", b.attachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.9"), 1,
		"192.168.50.9", "outside")
	b.mustAttachBy(alice, "c1", c.Pid, "network=web", "ip=192.168.50.200")
}

// TestServiceQuota checks that no user gets more than --max-per-user, with many hooks at
// once.
func TestServiceQuota(t *testing.T) {
	testenv.OnOneKernel(t, "6.12")
	b, _ := lanBrokered(t, func(d *network.Definition) {
		direct(d)
		d.MaxPerUser = 3
	})
	const hooks = 64
	results := make(chan hooklab.Outcome, hooks)
	for i := range hooks {
		c := testenv.NewRootless(t, alice)
		go func() { results <- b.attachBy(alice, fmt.Sprintf("c%d", i), c.Pid, "network=web") }()
	}
	won := 0
	for range hooks {
		o := <-results
		if o.Status == 0 {
			won++
			continue
		}
		b.Refused("one too many", o, 1, "--max-per-user is 3")
	}
	if won != 3 || len(b.Records()) != 3 || b.Held("web") != 6 {
		t.Errorf("%d of %d hooks won; %d records, %d leases; want 3", won, hooks, len(b.Records()), b.Held("web"))
	}
	// Another user has a separate quota.
	c := testenv.NewRootless(t, bob)
	b.mustAttachBy(bob, "bob1", c.Pid, "network=web")
}

// TestServiceQuotaFrees checks that containers that ended without poststop do not count.
func TestServiceQuotaFrees(t *testing.T) {
	b, _ := lanBrokered(t, func(d *network.Definition) {
		direct(d)
		d.MaxPerUser = 1
	})
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	c.End(t)
	next := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c2", next.Pid, "network=web")
	if a := b.Record(); a.Containers[0].ID != "c2" {
		t.Errorf("record is %+v", a)
	}
}

// TestServiceRestart kills the service during an attach: nothing is lost.
func TestServiceRestart(t *testing.T) {
	b, _ := lanBrokered(t, direct)
	before := b.Links(b.Host)
	c := testenv.NewRootless(t, alice)
	b.mustAttachBy(alice, "c1", c.Pid, "network=web")
	b.kill()
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	next := testenv.NewRootless(t, alice)
	b.Refused("no service", b.attachBy(alice, "c2", next.Pid, "network=web"), 1, "no service listens",
		"systemctl enable --now lanyard.socket")
	b.start()
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
	b.mustAttachBy(alice, "c2", next.Pid, "network=web")
	for id, c := range map[string]*testenv.Container{"c1": c, "c2": next} {
		b.detachAndEndBy(t, alice, id, c)
	}
	b.WantNothing("web", before)
}
