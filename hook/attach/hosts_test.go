package attach_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
	"github.com/lanyard-net/lanyard/verify/arp"
	"github.com/lanyard-net/lanyard/verify/ndp"
)

const otherIdentity = "00112233445566778899aabbccddeeff"

// twoHosts is a LAN with two hosts that have the same definition. Clones have the same
// identity as well, as virtual machines that were copied with their machine id.
func twoHosts(t *testing.T, clones bool, edit func(*network.Definition), subnets ...string) (a, b *world) {
	t.Helper()
	a = newWorld(t, testenv.Config{})
	identity := otherIdentity
	if clones {
		identity = ""
	}
	b = &world{a.AddHost(identity)}
	a.AddGateway(0, "192.168.50.1/24", "fd50::1/64")
	for _, w := range []*world{a, b} {
		w.Define("web", w.Trunk, func(d *network.Definition) {
			d.Verify = verify.Strict
			// The window that adapts is a few milliseconds, and a busy machine may take longer.
			d.ConflictWindow = network.Duration(300 * time.Millisecond)
			if edit != nil {
				edit(d)
			}
		}, subnets...)
	}
	return a, b
}

// verdicts verifies the one attachment that there is.
func (w *world) verdicts() (list []verify.Verdict) {
	w.TB.Helper()
	a := w.Record()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		list, err = l.Verify(ctx, a)
		return err
	}))
	return list
}

// kinds counts the anomalies of the one attachment since its start.
func (w *world) kinds() map[verify.Kind]uint64 {
	w.TB.Helper()
	a, kinds := w.Record(), map[verify.Kind]uint64{}
	for _, x := range verify.Anomalies(*a.Evidence, w.Evidence(a)) {
		kinds[x.Kind] += x.Count
	}
	return kinds
}

// events counts those of each kind on the host's trunks.
func (w *world) events() map[verify.Kind]int {
	w.TB.Helper()
	kinds := map[verify.Kind]int{}
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		list, err := l.History(ctx)
		for _, h := range list {
			kinds[h.Kind]++
		}
		return err
	}))
	return kinds
}

// Two hosts with the same definition, one after the other: the second takes the next
// address, with another MAC, and neither sees anything wrong.
func TestTwoHosts(t *testing.T) {
	both := []string{"192.168.50.0/24", "fd50::/64"}
	for _, x := range []struct {
		clones  bool
		mode    network.Mode
		subnets []string
	}{
		{false, network.ModeBridge, both}, {true, network.ModeBridge, both},
		{true, network.ModePrivate, both[:1]}, {true, network.ModeBridge, both[1:]},
	} {
		t.Run(fmt.Sprintf("%s, clones %v, %s", x.subnets, x.clones, x.mode), func(t *testing.T) {
			a, b := twoHosts(t, x.clones, func(d *network.Definition) { d.Mode = x.mode }, x.subnets...)
			a.MustAttach("a1", testenv.NewContainer(t), "network=web")
			b.MustAttach("b1", testenv.NewContainer(t), "network=web")
			first, second := a.Record(), b.Record()
			if first.MAC == second.MAC {
				t.Errorf("both have MAC %s", first.MAC)
			}
			for i, p := range second.Addrs {
				if want := first.Addrs[i].Addr().Next(); p.Addr() != want {
					t.Errorf("the second host has %s, want %s", p.Addr(), want)
				}
			}
			for _, w := range []*world{a, b} {
				for _, v := range w.verdicts() {
					// A clone is seen while it learns that it has to take another MAC.
					if v.Code != verify.OK && (!x.clones || v.Code != verify.DuplicateMAC) {
						t.Errorf("verdict is %+v", v)
					}
				}
				if k := w.kinds(); len(k) != 0 && !x.clones {
					t.Errorf("anomalies are %v", k)
				}
				if k := w.events(); len(k) != 0 && !x.clones {
					t.Errorf("events are %v", k)
				}
			}
		})
	}
}

// Two containers have the same MAC, and a third machine does: the start is refused or
// goes on with another, and both sides say it where it happens all the same.
func TestDuplicateMAC(t *testing.T) {
	a, b := twoHosts(t, false, nil, "192.168.50.0/24")
	const mac = "02:00:00:00:00:77"
	one := testenv.NewContainer(t)
	a.MustAttach("a1", one, "network=web", "mac="+mac)
	// The same address: the question finds the station although its MAC is ours.
	addr := a.Record().Addrs[0].Addr().String()
	b.Refused("the same MAC and address", b.Attach("b1", testenv.NewContainer(t), "network=web", "mac="+mac, "ip="+addr),
		1, "duplicate-mac", mac)
	// Another address: what it announces is the first frame of its that the other sees.
	b.MustAttach("b1", testenv.NewContainer(t), "network=web", "mac="+mac, "ip=192.168.50.99")
	testenv.Eventually(t, "the first host to notice", func() error {
		if k := a.kinds(); k[verify.SameMAC] == 0 {
			return fmt.Errorf("anomalies are %v", k)
		}
		return nil
	})
	if v := a.verdicts(); len(v) != 1 || v[0].Code != verify.DuplicateMAC || !strings.Contains(v[0].Text, mac) {
		t.Errorf("verdicts are %+v", v)
	}
	if k := a.events(); k[verify.SameMAC] == 0 {
		t.Errorf("events are %v", k)
	}
	// The second host has told the switch that the MAC is there: what the first one says
	// next to all goes to it.
	_, err := one.Exec("ping", "-n", "-c1", "-W1", "192.168.50.200")
	if err == nil {
		t.Error("192.168.50.200 answers")
	}
	testenv.Eventually(t, "the second host to notice", func() error {
		if k := b.kinds(); k[verify.SameMAC] == 0 {
			return fmt.Errorf("anomalies are %v", k)
		}
		return nil
	})
}

// Hosts that start at the same instant never keep one address between them.
func TestSameInstant(t *testing.T) {
	a, b := twoHosts(t, true, nil, "192.168.50.0/24", "fd50::/64")
	for round := range 4 {
		var group sync.WaitGroup
		boxes := []*testenv.Container{testenv.NewContainer(t), testenv.NewContainer(t)}
		outcomes := make([]hooklab.Outcome, 2)
		id := fmt.Sprintf("c%d", round)
		for i, w := range []*world{a, b} {
			group.Go(func() { outcomes[i] = w.Attach(id, boxes[i], "network=web") })
		}
		group.Wait()
		for _, o := range outcomes {
			if o.Status != 0 {
				t.Errorf("round %d: %+v", round, o)
			}
		}
	}
	held := map[string]string{}
	for host, w := range map[string]*world{"a": a, "b": b} {
		for _, r := range w.Records() {
			for _, x := range append(hooklab.Addresses(r), r.MAC.String()) {
				if other := held[x]; other != "" {
					t.Errorf("%s is held by host %s and host %s", x, other, host)
				}
				held[x] = host
			}
		}
	}
}

// The host is a station: none of its addresses is given out, on whatever link it is.
func TestHostsOwnAddress(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) { d.Verify = verify.Strict })
	ip := func(args string) {
		t.Helper()
		_, err := w.Host.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	ip("addr add 192.168.50.2/24 dev " + w.Trunk)
	ip("addr add fd50::2/64 dev " + w.Trunk + " nodad")
	ip("link add lan51 type veth peer name peer51")
	ip("addr add 192.168.50.3/32 dev lan51")
	w.Refused("by name", w.Attach("c0", testenv.NewContainer(t), "network=web", "ip=192.168.50.2"), 1, "192.168.50.2",
		`host's own, on "`+w.Trunk+`"`)
	w.Refused("by name", w.Attach("c0", testenv.NewContainer(t), "network=web", "ip6=fd50::2"), 1, "fd50::2",
		`host's own, on "`+w.Trunk+`"`)
	w.Refused("by name, on another link", w.Attach("c0", testenv.NewContainer(t), "network=web", "ip=192.168.50.3"), 1,
		`host's own, on "lan51"`)
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	a := w.Record()
	if got := hooklab.Addresses(a); !slices.Equal(got, []string{"192.168.50.4", "fd50::3"}) {
		t.Errorf("got %v", got)
	}
	// It takes one later.
	ip("addr add 192.168.50.4/24 dev lan51")
	v := w.verdicts()
	if i := slices.IndexFunc(v, func(v verify.Verdict) bool { return v.Code == verify.AddressConflict }); i < 0 ||
		!strings.Contains(v[i].Text, `belongs to this host, on link "lan51"`) {
		t.Errorf("verdicts are %+v", v)
	}
	if k := w.kinds(); k[verify.Conflict] != 1 {
		t.Errorf("anomalies are %v", k)
	}
	ip("addr del 192.168.50.4/24 dev lan51")
	for _, v := range w.verdicts() {
		if v.Code != verify.OK {
			t.Errorf("verdict is %+v", v)
		}
	}
	if k := w.kinds(); len(k) != 0 {
		t.Errorf("anomalies are %v", k)
	}
}

// TestHostIsGateway has gateways that are addresses of the host, on the parent and on another link,
// in both families.
func TestHostIsGateway(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddClaimant(0, "192.168.50.77/24") // the wire is alive
	for _, args := range []string{
		"addr add 192.168.50.1/24 dev " + w.Trunk, "link add lan51 type veth peer name peer51",
		"addr add fd50::1/128 dev lan51 nodad",
	} {
		_, err := w.Host.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Deadline = network.Duration(200 * time.Millisecond) },
		"192.168.50.0/24", "fd50::/64")
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	for what, list := range map[string][]verify.Verdict{"start": w.Record().Verdicts, "verify": w.verdicts()} {
		if len(list) != 2 {
			t.Fatalf("%s: verdicts are %+v", what, list)
		}
		for i, text := range []string{
			`gateway 192.168.50.1 is this host's own address on "` + w.Trunk + `", ` +
				`which no macvlan or ipvlan on "` + w.Trunk + `" can reach`,
			`gateway fd50::1 is this host's own address on "lan51", which no macvlan or ipvlan on "` + w.Trunk + `" can reach`,
		} {
			if list[i].Code != verify.GatewaySilent || !strings.Contains(list[i].Text, text) {
				t.Errorf("%s: verdict is %+v, want %q", what, list[i], text)
			}
		}
	}
}

// A switch port that sends frames back makes neither a conflict nor a duplicate of a
// container; another station with the MAC is found behind it all the same.
func TestHairpinPort(t *testing.T) {
	for _, mode := range []network.Mode{network.ModeBridge, network.ModePrivate, network.ModeVEPA} {
		t.Run(string(mode), func(t *testing.T) {
			a, b := twoHosts(t, false, func(d *network.Definition) { d.Mode = mode }, "192.168.50.0/24", "fd50::/64")
			a.SetHairpin(true)
			const mac = "02:00:00:00:00:77"
			a.MustAttach("a1", testenv.NewContainer(t), "network=web", "mac="+mac)
			for _, v := range a.verdicts() {
				if v.Code != verify.OK {
					t.Errorf("verdict is %+v", v)
				}
			}
			rec := a.Record()
			e := a.Evidence(rec)
			if len(e.Claimants) != 0 || e.Returned.Count == 0 {
				t.Errorf("evidence is %+v", e)
			}
			k := a.events()
			if k[verify.SameMAC]+k[verify.Conflict] != 0 || (k[verify.Returned] == 0) != (mode == network.ModeVEPA) {
				t.Errorf("events are %v", k)
			}
			b.SetHairpin(true)
			b.Refused("the same MAC", b.Attach("b1", testenv.NewContainer(t), "network=web", "mac="+mac,
				"ip="+hooklab.Addresses(rec)[0]), 1, "duplicate-mac")
			b.Refused("the same MAC, IPv6", b.Attach("b1", testenv.NewContainer(t), "network=web", "mac="+mac,
				"ip6="+hooklab.Addresses(rec)[1]), 1, "duplicate-mac")
		})
	}
}

// A macvlan on the parent that is not Lanyard's is asked as well: the parent's own
// question does not reach it.
func TestForeignMacvlan(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) { d.ConflictWindow = network.Duration(300 * time.Millisecond) })
	first := testenv.NewContainer(t) // and there is a database, which takes no link for a lost container's
	w.MustAttach("c0", first, "network=web")
	w.DetachAndEnd("c0", first)
	other := testenv.NewContainer(t)
	_, err := w.Host.Exec("ip", strings.Fields("link add link "+w.Trunk+" name lan0 netns "+other.Path()+" type macvlan "+
		"mode bridge")...)
	must(t, err)
	for _, args := range []string{"addr add 192.168.50.3/24 dev lan0", "addr add fd50::3/64 dev lan0 nodad",
		"link set lan0 up"} {
		_, err := other.Exec("ip", strings.Fields(args)...)
		must(t, err)
	}
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	if got := hooklab.Addresses(w.Record()); !slices.Equal(got, []string{"192.168.50.4", "fd50::4"}) {
		t.Errorf("got %v", got)
	}
	w.Refused("by name", w.Attach("c2", testenv.NewContainer(t), "network=web", "ip=192.168.50.3"), 1, "192.168.50.3")
}

// Two uplinks of one host that are one LAN: a container on the other is a station.
func TestTwoUplinks(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) { d.ConflictWindow = network.Duration(300 * time.Millisecond) })
	w.AddUplink("eth8")
	w.Define("same", "eth8", func(d *network.Definition) {
		d.ConflictWindow = network.Duration(300 * time.Millisecond)
		d.Verify = verify.Strict
	}, "192.168.50.0/24", "fd50::/64")
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	w.MustAttach("c2", testenv.NewContainer(t), "network=same")
	held := map[string]bool{}
	for _, r := range w.Records() {
		for _, x := range append(hooklab.Addresses(r), r.MAC.String()) {
			if held[x] {
				t.Errorf("%s is held twice", x)
			}
			held[x] = true
		}
	}
}

// TestMovesToAnotherTrunk starts a container again on another trunk of its host, with the same MAC: the
// last frames of its predecessor are not taken for another station's.
func TestMovesToAnotherTrunk(t *testing.T) {
	w, _ := lan(t, nil)
	w.AddUplink("eth8")
	const mac = "02:00:00:00:00:77"
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web", "mac="+mac, "ip=192.168.50.9")
	must(t, c.Kill())
	w.MustDetach("c1")
	w.RemoveNetwork("web")
	w.Define("web", "eth8", func(d *network.Definition) { d.Verify = verify.Strict }, "192.168.50.0/24",
		"fd50::/64")
	// The kernel takes the first container's namespace down in its own time: until then the
	// container answers for its address, with the MAC.
	next, done := testenv.NewContainer(t), make(chan hooklab.Outcome, 1)
	go func() { done <- w.Attach("c1", next, "network=web", "mac="+mac, "ip=192.168.50.9") }()
	time.Sleep(time.Second)
	select {
	case o := <-done:
		t.Fatalf("the attach has not waited for the first container's end: %+v", o)
	default:
	}
	c.End(t)
	if o := <-done; o.Status != 0 {
		t.Fatalf("after the first container is gone: %+v", o)
	}
	if v := w.Record().Verdict; v.Code != verify.OK {
		t.Errorf("verdict is %+v", v)
	}
}

// TestSiblingsOnDeadWire checks that frames between siblings on an untagged network do not count as life on
// the wire.
func TestSiblingsOnDeadWire(t *testing.T) {
	w := newWorld(t, testenv.Config{}) // with no other station
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Deadline = network.Duration(400 * time.Millisecond) },
		"192.168.50.0/24", "fd50::/64")
	one, two := testenv.NewContainer(t), testenv.NewContainer(t)
	w.MustAttach("c1", one, "network=web")
	w.MustAttach("c2", two, "network=web")
	for _, a := range w.Records() {
		if a.Verdict.Code != verify.VLANSilent {
			t.Errorf("verdict is %+v", a.Verdict)
		}
	}
	for _, addr := range []string{"192.168.50.2", "192.168.50.3"} {
		for _, c := range []*testenv.Container{one, two} {
			hooklab.Pings(t, c.Namespace, addr)
		}
	}
	for _, a := range w.Records() {
		if e := w.Evidence(a); e.Counters.InFrames != 0 || len(e.VLANs) != 0 {
			t.Errorf("evidence is %+v", e)
		}
		var v []verify.Verdict
		must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
			v, err = l.Verify(ctx, a)
			return err
		}))
		for _, v := range v {
			if v.Code != verify.VLANSilent {
				t.Errorf("verdict is %+v", v)
			}
		}
	}
}

// A MAC that a station has which the host has talked to is refused in mode strict, and
// warned of else. That station does not answer for the container's address.
func TestMACOfAStation(t *testing.T) {
	w, _ := lan(t, nil)
	_, err := w.Host.Exec("ip", "addr", "add", "192.168.50.250/24", "dev", w.Trunk)
	must(t, err)
	printer := w.AddGateway(0, "192.168.50.77/24")
	hooklab.Pings(t, w.Host, "192.168.50.77")
	printer.SetPort(false) // any frame of its own during an attach is a duplicate MAC, which is fatal
	mac := "mac=" + printer.MAC.String()
	w.Refused("strict", w.Attach("c1", testenv.NewContainer(t), "network=web", mac, "verify=strict"), 1,
		"cannot use MAC "+printer.MAC.String(), "192.168.50.77", "io.lanyard.mac")
	if o := w.Attach("c1", testenv.NewContainer(t), "network=web", mac); o.Status != 0 ||
		!strings.Contains(o.Stderr, "192.168.50.77") {
		t.Errorf("warn: %+v", o)
	}
}

// afterRound runs a function once, when the prober of the first round is closed.
type afterRound struct {
	hook.Probers
	once *sync.Once
	f    func()
}

func (p afterRound) Quick(ifindex int, mac ether.MAC, watched bool) (verify.Prober, error) {
	q, err := p.Probers.Quick(ifindex, mac, watched)
	return closing{q, p}, err
}

type closing struct {
	verify.Prober
	round afterRound
}

func (c closing) Close() error {
	err := c.Prober.Close()
	c.round.once.Do(c.round.f)
	return err
}

// A host finds no claimant, and is then so busy that another host attaches a container with the
// same address before the first has set it. The first takes the next address and never announces
// the other's: the second host has nothing to report.
func TestOvertakenByAnotherHost(t *testing.T) {
	a, b := twoHosts(t, false, nil, "192.168.50.0/24", "fd50::/64")
	first, second := testenv.NewContainer(t), testenv.NewContainer(t)
	must(t, a.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		l.Probers = afterRound{l.Probers, new(sync.Once), func() {
			done := make(chan hooklab.Outcome)
			go func() { done <- b.Attach("b1", second, "network=web") }()
			if o := <-done; o.Status != 0 {
				t.Errorf("attach on the second host: %+v", o)
			}
		}}
		_, err := l.Attach(ctx, hook.Request{Container: "a1", Pid: first.Pid, Wants: []hook.Want{{Network: "web"}}})
		return err
	}))
	wanted := b.Record().Addrs[0].Addr()
	if got := a.Record().Addrs[0].Addr(); got == wanted || wanted != netip.MustParseAddr("192.168.50.2") {
		t.Errorf("the hosts gave out %s and %s", got, wanted)
	}
	if k := b.events(); len(k) != 0 {
		t.Errorf("the second host's events are %v", k)
	}
	for _, w := range []*world{a, b} {
		for _, v := range w.verdicts() {
			if v.Code != verify.OK {
				t.Errorf("verdict is %+v", v)
			}
		}
	}
}

// TestExcusedClaimantHidesNoOther checks that an ending container of this host, which has one of the
// addresses, does not excuse another station, which has the other one.
func TestExcusedClaimantHidesNoOther(t *testing.T) {
	w, _ := lan(t, nil)
	before := w.Links(w.Host)
	station := w.AddClaimant(0, "192.168.50.77/24").Respond(func(testenv.Asked) []testenv.Reply { return nil })
	defer station.Stop()
	ip4, ip6 := netip.MustParseAddr("192.168.50.9"), netip.MustParseAddr("fd50::9")
	ending, other := ether.MAC{2, 0, 0, 0, 0, 0x66}, ether.MAC{2, 0, 0, 0, 0, 0x77}
	box := testenv.NewContainer(t)
	err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		l.Probers = afterRound{l.Probers, new(sync.Once), func() {
			hooklab.IP(t, w.Host, fmt.Sprintf("link add link %s name ending0 address %s type macvlan", w.Trunk, ending))
			hooklab.IP(t, w.Host, "link set ending0 up")
			for _, frame := range [][]byte{frameOf(t)(arp.Announce(ending, ip4)), frameOf(t)(ndp.Announce(other, ip6))} {
				must(t, station.Send(frame))
			}
			time.AfterFunc(time.Second, func() { hooklab.IP(t, w.Host, "link del ending0") })
		}}
		_, err := l.Attach(ctx, hook.Request{Container: "c1", Pid: box.Pid, Wants: []hook.Want{
			{Network: "web", Addrs: []netip.Addr{ip4, ip6}},
		}})
		return err
	})
	var refusal *hook.Refusal
	if !errors.As(err, &refusal) || refusal.Verdict.Code != verify.AddressConflict ||
		!strings.Contains(refusal.Verdict.Text, other.String()) {
		t.Errorf("the attach returned %v", err)
	}
	w.WantNothing("web", before)
}

// frameOf returns a function that returns its first argument, or ends the test.
func frameOf(t *testing.T) func([]byte, error) []byte {
	return func(frame []byte, err error) []byte {
		t.Helper()
		must(t, err)
		return frame
	}
}

// The host takes the container's address while it is attached: the start fails with the reason, and
// nothing is left.
func TestHostTakesAddressDuringAttach(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) { d.ConflictWindow = network.Duration(2 * time.Second) })
	before := w.Links(w.Host)
	c, done := testenv.NewContainer(t), make(chan hooklab.Outcome, 1)
	go func() { done <- w.Attach("c1", c, "network=web") }()
	testenv.Eventually(t, "the address to be claimed", func() error {
		if n := w.Held("web"); n == 0 {
			return errors.New("no lease is held")
		}
		return nil
	})
	_, err := w.Host.Exec("ip", "addr", "add", "192.168.50.2/32", "dev", "lo")
	must(t, err)
	w.Refused("taken by the host", <-done, 1, "192.168.50.2", `"lo"`, "start the container again")
	w.WantNothing("web", before)
}
