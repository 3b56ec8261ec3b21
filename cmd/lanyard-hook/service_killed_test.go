//go:build failpoint

package main

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestServiceKilled kills the service at each step: the hook then attaches by itself, once.
func TestServiceKilled(t *testing.T) {
	b, _ := lanBrokered(t, nil)
	before := b.Links(b.Host)
	for _, step := range hooklab.Failpoints {
		t.Run(step, func(t *testing.T) {
			b := b.on(t)
			b.stop()
			b.start("LANYARD_FAILPOINT=" + step)
			c := testenv.NewContainer(t)
			o := b.Attach("c1", c, "network=web")
			if o.Status != 0 || !strings.Contains(o.Stderr, "the service ended before it replied") {
				t.Errorf("%+v", o)
			}
			if err := b.cmd.Wait(); err == nil {
				t.Error("the service was not killed")
			}
			if b.Held("web") != 2 || b.Watched() != 1 || len(b.Records()) != 1 {
				t.Errorf("%d leases, %d endpoints, %d records", b.Held("web"), b.Watched(), len(b.Records()))
			}
			hooklab.Pings(t, c.Namespace, "192.168.50.1")
			b.DetachAndEnd("c1", c)
			b.WantNothing("web", before)
		})
	}
}
