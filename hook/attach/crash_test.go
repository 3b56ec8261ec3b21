//go:build failpoint

package attach_test

import (
	"fmt"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestKilled kills the hook at each step: the next attach of the same container, or the
// sweep, removes what was left.
func TestKilled(t *testing.T) {
	w, _ := lan(t, nil)
	killAtEachStep(t, w)
}

func killAtEachStep(t *testing.T, w *world) {
	t.Helper()
	before := w.Links(w.Host)
	for _, step := range hooklab.Failpoints {
		for _, by := range []string{"next attach", "sweep", "sweep of a dead container"} {
			t.Run(step+", "+by, func(t *testing.T) {
				w.TB = t
				c := testenv.NewContainer(t)
				kill(t, w, c, step)
				switch by {
				case "next attach":
					w.MustAttach("c1", c, "network=web")
					if w.Held("web") != 2 || w.Watched() != 1 || len(w.Records()) != 1 {
						t.Errorf("after the next attach: %d leases, %d endpoints, %d records", w.Held("web"), w.Watched(),
							len(w.Records()))
					}
					if name := w.Record().Interface; name != "eth0" {
						t.Errorf("the next attach made %s", name)
					}
					hooklab.Pings(t, c.Namespace, "192.168.50.1")
					w.DetachAndEnd("c1", c)
				case "sweep of a dead container":
					must(t, c.Kill())
					c.End(t)
					sweep(t, w)
				case "sweep":
					sweep(t, w)
					if step == "commit" { // the attach was finished: the container has its network
						if len(w.Records()) != 1 {
							t.Error("the sweep released a running container")
						}
						must(t, c.Kill())
						c.End(t)
						sweep(t, w)
						break
					}
					if links := w.Links(c.Namespace); fmt.Sprint(links) != "[lo]" {
						t.Errorf("links of the container: %v", links)
					}
				}
				w.WantNothing("web", before)
			})
		}
	}
}

// TestKilledShared kills the hook at each step, as TestKilled does, with leases in a shared store.
func TestKilledShared(t *testing.T) {
	testenv.OutsideOfVM(t)
	w, _ := lanShared(t, "10s")
	w.keepSession(t)
	killAtEachStep(t, w)
}

// TestKilledInOutage kills the hook after it has got an address of the host's share: the sweep, or the
// next attach of the container, removes what was left. It runs by name: each start waits for the store.
func TestKilledInOutage(t *testing.T) {
	testenv.ByName(t)
	w, e := lanSharedWith(t, "10s", sliced(2, 128)) // two addresses
	stop := w.keepSession(t)
	w.awaitShares(t)
	before := w.Links(w.Host)
	stop()
	e.Kill()
	for _, step := range []string{"share", "record", "commit"} {
		c := testenv.NewContainer(t)
		kill(t, w, c, step)
		if step == "commit" {
			must(t, c.Kill())
			c.End(t)
			c = testenv.NewContainer(t)
		}
		w.MustAttach("c1", c, "network=web")
		if a := w.Record(); len(a.Pending) != 2 || len(a.Addrs) != 2 {
			t.Errorf("%s: the next attach has %v, pending %v", step, a.Addrs, a.Pending)
		}
		w.DetachAndEnd("c1", c)
	}
	c := testenv.NewContainer(t)
	kill(t, w, c, "share")
	must(t, c.Kill())
	c.End(t)
	e.Start()
	sweep(t, w)
	if w.queued() != 0 || len(w.Records()) != 0 {
		t.Errorf("%d releases wait, %d records", w.queued(), len(w.Records()))
	}
	w.WantNothing("web", before)
}

// TestKilledHostAccess checks that the host's routes to a container are removed at
// whatever step its hook was killed, also if the next hook of that container finds them.
func TestKilledHostAccess(t *testing.T) {
	testenv.OnOneKernel(t, "6.1")
	w, _ := lan(t, func(d *network.Definition) { d.HostAccess = true })
	before, link := w.Links(w.Host), w.Definition("web").HostLink()
	for _, step := range []string{"parent", "address", "host", "commit"} {
		t.Run(step, func(t *testing.T) {
			w.TB = t
			c := testenv.NewContainer(t)
			kill(t, w, c, step)
			if step == "host" && len(w.HostRoutes(link)) != 2 {
				t.Errorf("killed too early: the host's routes are %q", w.HostRoutes(link))
			}
			w.MustAttach("c1", c, "network=web")
			hooklab.Pings(t, w.Host, w.Record().Addrs[0].Addr().String())
			must(t, c.Kill())
			c.End(t)
			sweep(t, w)
			w.WantHostRoutes(link)

			c = testenv.NewContainer(t)
			kill(t, w, c, step)
			must(t, c.Kill())
			c.End(t)
			sweep(t, w)
			w.WantHostRoutes(link)
			w.WantNothing("web", before)
		})
	}
}

func kill(t *testing.T, w *world, c *testenv.Container, step string) {
	t.Helper()
	o := w.Run(hooklab.State("c1", c.Pid, "network=web"), []string{"createRuntime"}, "LANYARD_FAILPOINT="+step)
	if o.Status != -1 {
		t.Fatalf("the hook was not killed at %q: status %d: %s", step, o.Status, o.Stderr)
	}
}
