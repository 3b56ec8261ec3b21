package admin_test

import (
	"context"
	"os/exec"
	"testing"

	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestNoUnleasedMACs kills a container while it sends: neither its frames nor the host's
// are counted as frames of an unleased MAC.
func TestNoUnleasedMACs(t *testing.T) {
	w, _ := hooklab.NewLAN(t, nil)
	w.MustAttach("other", testenv.NewContainer(t), "network=web") // the trunk stays watched
	for range 5 {
		c := testenv.NewContainer(t)
		w.MustAttach("c1", c, "network=web")
		flood := exec.Command("ping", "-q", "-f", "-c", "100000", "192.168.50.1")
		must(t, c.Start(flood))
		hooklab.Pings(t, c.Namespace, "fd50::1")
		must(t, flood.Process.Kill())
		_ = flood.Wait() // killed
		w.DetachAndEnd("c1", c)
	}
	must(t, w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
		history, err := l.History(ctx)
		for _, h := range history {
			t.Errorf("%s: %s (%d)", h.Kind, h, h.Frames)
		}
		return err
	}))
}
