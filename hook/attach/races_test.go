//go:build failpoint

package attach_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
	"github.com/lanyard-net/lanyard/verify"
)

// interposed is a datapath that runs a function once, in the middle of a call.
type interposed struct {
	verify.Datapath
	forget, endpoints, evidence func()
	once                        *sync.Once
}

func (m interposed) Evidence(e verify.Endpoint) (verify.Evidence, error) {
	if m.evidence != nil {
		m.once.Do(m.evidence)
	}
	return m.Datapath.Evidence(e)
}

func (m interposed) Forget(e verify.Endpoint) error {
	if m.forget != nil {
		m.once.Do(m.forget)
	}
	return m.Datapath.Forget(e)
}

func (m interposed) Endpoints() ([]verify.Endpoint, error) {
	if m.endpoints != nil {
		m.once.Do(m.endpoints)
	}
	return m.Datapath.Endpoints()
}

// TestJoinDuringRelease attaches a pod's next container while the sweep or poststop
// releases the last one: it gets an interface.
func TestJoinDuringRelease(t *testing.T) {
	for _, how := range []string{"sweep", "poststop"} {
		t.Run(how, func(t *testing.T) {
			w, _ := lan(t, nil)
			pod := testenv.NewContainer(t)
			pod.Pin(t)
			old := testenv.JoinNamespace(t, pod.Namespace)
			w.MustAttach("try0", old, "network=web")
			must(t, old.Kill())
			fresh := testenv.JoinNamespace(t, pod.Namespace)
			var joined sync.WaitGroup
			must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
				l.Datapath = interposed{Datapath: l.Datapath, once: new(sync.Once), forget: func() {
					joined.Go(func() {
						if o := w.Attach("try1", fresh, "network=web"); o.Status != 0 {
							t.Errorf("attach during the call: %+v", o)
						}
					})
				}}
				if how == "poststop" {
					return l.Detach(ctx, "try0")
				}
				_, err := l.Sweep(ctx)
				return err
			}))
			joined.Wait()
			if a := w.Record(); a.State != hook.Attached || a.Containers[0].ID != "try1" || w.Held("web") != 2 ||
				w.Watched() != 1 {
				t.Errorf("record %+v, %d leases, %d endpoints", a, w.Held("web"), w.Watched())
			}
			hooklab.Pings(t, pod.Namespace, "192.168.50.1")
		})
	}
}

// TestDetachDuringVerify detaches an attachment while "lanyard verify" looks for its endpoint. The
// namespace stays, as with a pod. The endpoint does not come back.
func TestDetachDuringVerify(t *testing.T) {
	w, _ := lan(t, nil)
	pod := testenv.NewContainer(t)
	pod.Pin(t)
	w.MustAttach("c1", pod, "network=web")
	a := w.Record()
	err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		l.Datapath = interposed{Datapath: l.Datapath, once: new(sync.Once), evidence: func() { w.DetachAndEnd("c1", pod) }}
		_, err := l.Verify(ctx, a)
		return err
	})
	if !errors.Is(err, hook.ErrGone) {
		t.Errorf("got %v, want an error that the attachment is gone", err)
	}
	if n := w.Watched(); n != 0 {
		t.Errorf("%d endpoints are watched, want none", n)
	}
}

// TestDetachDuringReattach detaches an attachment during Reattach, before and after the interface is
// created. The namespace stays. Nothing is left, and what another container has got by then stays.
func TestDetachDuringReattach(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			w, _ := lan(t, func(d *network.Definition) { d.HostAccess, d.Guard = true, network.On })
			before, host := w.Links(w.Host), w.Definition("web").HostLink()
			pod, next := testenv.NewContainer(t), testenv.NewContainer(t)
			pod.Pin(t)
			w.MustAttach("c1", pod, "network=web", "ip=192.168.50.9")
			w.replugged()
			a := w.Record()
			detach := func() {
				ended := pod.Kill()
				o := w.Run(hooklab.State("c1", 0, "network=web"), []string{"poststop"})
				then := w.Attach("c2", next, "network=web", "ip=192.168.50.9", "mac="+a.MAC.String())
				if ended != nil || o.Status+then.Status != 0 {
					t.Errorf("the containers: %v, %+v, %+v", ended, o, then)
				}
			}
			err := w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
				if when == "before" {
					l.Datapath = interposed{Datapath: l.Datapath, once: new(sync.Once), forget: detach}
				} else {
					l.Probers = afterRound{l.Probers, new(sync.Once), detach}
				}
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second) // it waits for a MAC that is in use
				defer cancel()
				_, err := l.Reattach(ctx, a.ID)
				return err
			})
			if !errors.Is(err, hook.ErrGone) {
				t.Errorf("got %v, want an error that the attachment is gone", err)
			}
			if links := w.Links(pod.Namespace); fmt.Sprint(links) != "[lo]" {
				t.Errorf("links of the container: %v", links)
			}
			now := w.Record()
			w.WantHostRoutes(host, hooklab.Addresses(now)...)
			must(t, w.Admin(func(_ context.Context, l *wiring.Lanyard) error {
				_, err := l.Guards.Permitted(now.ParentIdx, now.MAC)
				if found, eerr := l.Datapath.Endpoints(); len(found) != 1 || found[0].Attachment != now.ID {
					t.Errorf("the endpoints are %+v, %v", found, eerr)
				}
				return err
			}))
			hooklab.Pings(t, next.Namespace, "192.168.50.1")
			w.DetachAndEnd("c2", next)
			w.WantHostRoutes(host)
			w.WantNothing("web", before)
		})
	}
}

// TestOrphanedHook deletes the container while its hook still runs. poststop does not
// touch what that hook works with, and the hook undoes it itself.
func TestOrphanedHook(t *testing.T) {
	w, gw := lan(t, func(d *network.Definition) { d.Deadline = network.Duration(2 * time.Second) })
	w.MustAttach("first", testenv.NewContainer(t), "network=web", "ip=192.168.50.200")
	gw.RemoveAddr("192.168.50.1/24") // the hook waits for its gateway
	c1, c2 := testenv.NewContainer(t), testenv.NewContainer(t)
	var done sync.WaitGroup
	done.Go(func() {
		w.Refused("orphan", w.Attach("c1", c1, "network=web", "ip=192.168.50.9"), 1, `"c1" exited`)
	})
	testenv.Eventually(t, "the orphan to be at it", func() error {
		if n := w.Watched(); n != 2 {
			return fmt.Errorf("%d endpoints", n)
		}
		return nil
	})
	must(t, c1.Kill())
	w.MustDetach("c1")
	w.Refused("its address", w.Attach("c2", c2, "network=web", "ip=192.168.50.9"), 1, "is held by")
	done.Wait()
	if w.Held("web") != 2 || w.Watched() != 1 || len(w.Records()) != 1 {
		t.Errorf("%d leases, %d endpoints, %d records are left", w.Held("web"), w.Watched(), len(w.Records()))
	}
}

// TestDeadHolder checks that a container gets the address or MAC that it asks for if its
// holder ended without poststop, also if the two ask for different MACs.
func TestDeadHolder(t *testing.T) {
	const ip = "ip=192.168.50.9"
	for name, test := range map[string]struct{ before, after []string }{
		"address":   {[]string{ip}, []string{ip}},
		"MAC":       {[]string{"mac=02:00:00:00:00:09"}, []string{"mac=02:00:00:00:00:09"}},
		"other MAC": {[]string{ip, "mac=02:00:00:00:00:09"}, []string{ip, "mac=02:00:00:00:00:0a"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := lan(t, func(d *network.Definition) { d.Quarantine = network.Duration(30 * time.Second) })
			dead := testenv.NewContainer(t)
			w.MustAttach("dead", dead, append(test.before, "network=web")...)
			dead.End(t)
			w.MustAttach("next", testenv.NewContainer(t), append(test.after, "network=web")...)
			if a := w.Record(); a.Containers[0].ID != "next" {
				t.Errorf("the record is %+v", a)
			}
		})
	}
}

// TestRestartInQuarantine checks that the same container, or another one, gets a
// quarantined address at once if it asks for it by name.
func TestRestartInQuarantine(t *testing.T) {
	w, _ := lan(t, func(d *network.Definition) { d.Quarantine = network.Duration(30 * time.Second) })
	first := testenv.NewContainer(t)
	w.MustAttach("c1", first, "network=web", "ip=192.168.50.9")
	w.DetachAndEnd("c1", first)
	second := testenv.NewContainer(t)
	w.MustAttach("c2", second, "network=web", "ip=192.168.50.9")
	w.DetachAndEnd("c2", second)
	w.MustAttach("c1", testenv.NewContainer(t), "network=web", "ip=192.168.50.9")
}

// TestRangeOfOneAddress checks that one address is enough for a container that is recreated under
// another id, and that it is announced.
func TestRangeOfOneAddress(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, func(d *network.Definition) {
		d.Quarantine = network.Duration(30 * time.Second)
		d.Subnets[0].Ranges = []netip.Prefix{netip.MustParsePrefix("192.168.50.9/32")}
	}, "192.168.50.0/24")
	neighbour := w.AddClaimant(0, "192.168.50.77/24")
	for _, id := range []string{"c1", "c2", "c3"} {
		c := testenv.NewContainer(t)
		w.MustAttach(id, c, "network=web")
		a := w.Record()
		if got := hooklab.Addresses(a); !slices.Equal(got, []string{"192.168.50.9"}) {
			t.Errorf("%s has %v", id, got)
		}
		hooklab.Pings(t, neighbour.Namespace, "192.168.50.9") // an old entry of its cache would fail
		w.DetachAndEnd(id, c)
	}
}

// TestPoolFullOfDeadHolders checks that leases of ended containers are released when the
// pool is full, and that those of another network keep their quarantine.
func TestPoolFullOfDeadHolders(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24")
	w.Define("web", w.Trunk, func(d *network.Definition) { d.Quarantine = network.Duration(30 * time.Second) },
		"192.168.50.0/30")
	w.Define("db", w.Trunk, func(d *network.Definition) {
		d.Quarantine, d.ShareParent, d.Verify = network.Duration(30*time.Second), true, verify.Off
	}, "192.168.60.0/24")
	for _, name := range []string{"web", "db"} {
		dead := testenv.NewContainer(t)
		w.MustAttach("dead-"+name, dead, "network="+name)
		must(t, dead.Kill())
		dead.End(t)
	}
	w.MustAttach("next", testenv.NewContainer(t), "network=web")
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		usage, err := l.Usage(ctx, w.Definition("db"))
		if c := usage[0].Counts; c.Held != 0 || c.Quarantined != 1 {
			t.Errorf("the other network's addresses are %+v", c)
		}
		return err
	}))
}

// TestMACOnForeignLink has a foreign link on the parent with the MAC that belongs to the
// address, as containers of Docker's older releases have.
func TestMACOnForeignLink(t *testing.T) {
	w, _ := lan(t, hooklab.MACFromAddress)
	_, err := w.Host.Exec("ip", "link", "add", "dk", "link", w.Trunk, "address", "02:42:c0:a8:32:02", "type", "macvlan",
		"mode", "bridge")
	must(t, err)
	_, err = w.Host.Exec("ip", "link", "set", "dk", "up")
	must(t, err)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	if a := w.Record(); a.MAC.String() == "02:42:c0:a8:32:02" || a.Former != nil || w.Watched() != 1 {
		t.Errorf("record is %+v, %d endpoints", a, w.Watched())
	}
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
}

// TestNamedMACOnForeignLink requests the MAC of a link that Lanyard did not create, in the host's
// namespace and in another one, as containers of an engine that were not cleaned up have
// (containers/netavark#1308, lxc/lxc#4694).
func TestNamedMACOnForeignLink(t *testing.T) {
	w, _ := lan(t, nil)
	const mac = "02:00:00:00:00:30"
	hooklab.IP(t, w.Host, "link add mv0 link "+w.Trunk+" address "+mac+" type macvlan mode bridge")
	hooklab.IP(t, w.Host, "link set mv0 up")
	c := testenv.NewContainer(t)
	w.Refused("on the host", w.Attach("c1", c, "network=web", "mac="+mac), 1, "cannot use MAC "+mac,
		`link "mv0" of this host has it`, "io.lanyard.mac")

	left := testenv.NewContainer(t)
	hooklab.IP(t, w.Host, "link set mv0 netns "+strconv.Itoa(left.Pid))
	hooklab.IP(t, left.Namespace, "link set mv0 up")
	o := w.Run(hooklab.State("c1", c.Pid, "network=web", "mac="+mac), []string{"--timeout", "2s", "createRuntime"})
	w.Refused("in a namespace", o, 1, "cannot use MAC "+mac, "in another network namespace has it", "io.lanyard.mac")
	left.End(t)
	w.MustAttach("c1", c, "network=web", "mac="+mac)
	w.DetachAndEnd("c1", c)
}

// TestJoinIsJudged checks that a container that joins an interface has its own verify
// mode, and that the interface must exist.
func TestJoinIsJudged(t *testing.T) {
	w, gw := lan(t, func(d *network.Definition) { d.Deadline = network.Duration(300 * time.Millisecond) })
	gw.RemoveAddr("192.168.50.1/24")
	pod := testenv.NewContainer(t)
	w.MustAttach("first", pod, "network=web")
	next := testenv.JoinNamespace(t, pod.Namespace)
	w.Refused("strict", w.Attach("strict", next, "network=web", "verify=strict"), 1, "verify mode strict", "silent")
	_, err := pod.Exec("ip", "link", "del", "eth0")
	must(t, err)
	w.Refused("deleted", w.Attach("late", next, "network=web"), 1, `"eth0"`, "is gone")
}

// TestGatewayMACRefused checks that a container cannot ask for the MAC of a gateway.
func TestGatewayMACRefused(t *testing.T) {
	w, gw := lan(t, nil)
	c := testenv.NewContainer(t)
	w.MustAttach("c1", c, "network=web")
	w.Refused("by name", w.Attach("evil", testenv.NewContainer(t), "network=web", "mac="+gw.MAC.String()), 1, "gateway",
		gw.MAC.String())
	hooklab.Pings(t, c.Namespace, "192.168.50.1")
}

// TestRemoveRefusedParent checks that a network can be removed if its parent was replaced
// by another kind of link.
func TestRemoveRefusedParent(t *testing.T) {
	w, _ := lan(t, nil)
	for _, args := range [][]string{{"link", "add", "br7", "type", "bridge"}, {"link", "set", w.Trunk, "master", "br7"}} {
		_, err := w.Host.Exec("ip", args...)
		must(t, err)
	}
	w.RemoveNetwork("web")
}

// TestKilledWhileDeclining kills a hook while it changes to the next address, which
// leaves two MACs.
func TestKilledWhileDeclining(t *testing.T) {
	for _, step := range []string{"decline", "remac"} {
		t.Run(step, func(t *testing.T) {
			w, _ := lan(t, func(d *network.Definition) { d.ConflictWindow = network.Duration(time.Second) })
			before := w.Links(w.Host)
			w.AddClaimant(0, "192.168.50.2/24")
			pod := testenv.NewContainer(t)
			pod.Pin(t)
			kill(t, w, pod, step)
			sweep(t, w)
			if links := w.Links(pod.Namespace); fmt.Sprint(links) != "[lo]" {
				t.Errorf("links of the pod: %v", links)
			}
			w.WantNothing("web", before)
		})
	}
}
