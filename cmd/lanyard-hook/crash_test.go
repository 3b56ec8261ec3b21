//go:build failpoint

package main

import (
	"context"
	"fmt"
	"testing"

	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
)

// failpoints are the steps of an attach after which the hook is killed.
var failpoints = []string{"intent", "lease", "record", "parent", "expect", "ask", "link", "probe", "address", "commit"}

// TestKilled kills the hook at each step: the next attach of the same container, or the
// sweep, removes what was left.
func TestKilled(t *testing.T) {
	w, _ := lan(t, nil)
	before := w.links(w.Host)
	for _, step := range failpoints {
		for _, by := range []string{"next attach", "sweep", "sweep of a dead container"} {
			t.Run(step+", "+by, func(t *testing.T) {
				w.tb = t
				c := testenv.NewContainer(t)
				kill(t, w, c, step)
				switch by {
				case "next attach":
					w.mustAttach("c1", c, "network=web")
					if w.held("web") != 2 || w.watched() != 1 || len(w.records()) != 1 {
						t.Errorf("after the next attach: %d leases, %d endpoints, %d records", w.held("web"), w.watched(),
							len(w.records()))
					}
					pings(t, c.Namespace, "192.168.50.1")
					w.detachAndEnd(t, "c1", c)
				case "sweep of a dead container":
					must(t, c.Kill())
					c.End(t)
					sweep(t, w)
				case "sweep":
					sweep(t, w)
					if step == "commit" { // the attach was finished: the container has its network
						if len(w.records()) != 1 {
							t.Error("the sweeper took what lives")
						}
						must(t, c.Kill())
						c.End(t)
						sweep(t, w)
						break
					}
					if links := w.links(c.Namespace); fmt.Sprint(links) != "[lo]" {
						t.Errorf("links of the container: %v", links)
					}
				}
				w.wantNothing("web", before)
			})
		}
	}
}

// TestKilledHostAccess checks that the host's routes to a container are removed at
// whatever step its hook was killed, also if the next hook of that container finds them.
func TestKilledHostAccess(t *testing.T) {
	testenv.OnOneKernel(t, "6.1")
	w, _ := lan(t, hostAccess)
	before, link := w.links(w.Host), w.definition("web").HostLink()
	for _, step := range []string{"parent", "address", "host", "commit"} {
		t.Run(step, func(t *testing.T) {
			w.tb = t
			c := testenv.NewContainer(t)
			kill(t, w, c, step)
			if step == "host" && len(w.hostRoutes(link)) != 2 {
				t.Errorf("killed too early: the host's routes are %q", w.hostRoutes(link))
			}
			w.mustAttach("c1", c, "network=web")
			pings(t, w.Host, w.record().Addrs[0].Addr().String())
			must(t, c.Kill())
			c.End(t)
			sweep(t, w)
			w.wantHostRoutes(link)

			c = testenv.NewContainer(t)
			kill(t, w, c, step)
			must(t, c.Kill())
			c.End(t)
			sweep(t, w)
			w.wantHostRoutes(link)
			w.wantNothing("web", before)
		})
	}
}

func kill(t *testing.T, w *world, c *testenv.Container, step string) {
	t.Helper()
	o := w.run(state("c1", c.Pid, "network=web"), []string{"createRuntime"}, "LANYARD_FAILPOINT="+step)
	if o.status != -1 {
		t.Fatalf("the hook was not killed at %q: status %d: %s", step, o.status, o.stderr)
	}
}

func sweep(t *testing.T, w *world) {
	t.Helper()
	must(t, w.admin(func(ctx context.Context, l *wiring.Lanyard) error {
		_, err := l.Sweep(ctx)
		return err
	}))
}
