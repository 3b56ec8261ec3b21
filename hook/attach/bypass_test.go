package attach_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/verify"
)

// verifyAgain is "lanyard verify" of the only attachment.
func (w *world) verifyAgain() (verdicts []verify.Verdict) {
	w.TB.Helper()
	must(w.TB, w.Admin(func(ctx context.Context, l *wiring.Lanyard) (err error) {
		verdicts, err = l.Verify(ctx, w.Record())
		return err
	}))
	return verdicts
}

// TestBypassed has another project attach its program before Lanyard's, after the trunk
// program was loaded. Lanyard's program does not see frames that it passes, and no
// station sees frames that it drops.
func TestBypassed(t *testing.T) {
	const pass, drop, next = 0, 2, -1
	for _, c := range []struct {
		name, direction string
		answer          int32
		want            verify.Code
		words           []string
	}{
		{"it hands on, out", testenv.Out, next, verify.OK, nil},
		{"it hands on, in", testenv.In, next, verify.OK, nil},
		{"it lets pass, out", testenv.Out, pass, verify.Unobserved,
			[]string{"bypassed by", `"foreign" (id `, "egress", "answered"}},
		{"it lets pass, in", testenv.In, pass, verify.Unobserved,
			[]string{"bypassed by", `"foreign" (id `, "ingress", "answered"}},
		{"it drops, out", testenv.Out, drop, verify.NotSent, []string{"look at", `"foreign" (id `}},
		{"it drops, in", testenv.In, drop, verify.GatewaySilent,
			[]string{"answers \"eth9\"", "look at", `"foreign" (id `, "ingress"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, _ := lan(t, nil)
			w.MustAttach("c1", testenv.NewContainer(t), "network=web")
			if got := w.Record().Verdict; got.Code != verify.OK {
				t.Fatalf("before it came: %+v", got)
			}
			check := func(what string, verdicts []verify.Verdict) {
				t.Helper()
				if len(verdicts) != 2 {
					t.Fatalf("%s: %+v, want one for each gateway", what, verdicts)
				}
				for _, v := range verdicts {
					if v.Code != c.want {
						t.Errorf("%s: %+v, want %s", what, v, c.want)
					}
					for _, word := range c.words {
						if !strings.Contains(v.Text, word) {
							t.Errorf("%s: %q does not say %q", what, v.Text, word)
						}
					}
				}
			}
			undo := w.Foreign(w.Host, w.Trunk, c.direction, c.answer)
			check("verified again", w.verifyAgain())
			c2 := testenv.NewContainer(t)
			w.MustAttach("c2", c2, "network=web")
			for _, a := range w.Records() {
				if a.Containers[0].ID == "c2" {
					check("attached", a.Verdicts)
				}
			}
			must(t, c2.Kill())
			w.MustDetach("c2")
			undo()
			for _, v := range w.verifyAgain() {
				if v.Code != verify.OK {
					t.Errorf("after it has gone: %+v", v)
				}
			}
		})
	}
}

// TestProgramDetached detaches Lanyard's program from outside. The next verification
// attaches it again.
func TestProgramDetached(t *testing.T) {
	w, _ := lan(t, nil)
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	links, err := filepath.Glob(filepath.Join(w.Paths().BPF, "*", "link-*"))
	must(t, err)
	for _, link := range links { // the kernel detaches a link without references
		must(t, os.Remove(link))
	}
	if len(links) == 0 {
		_, err := w.Host.Exec("tc", "qdisc", "del", "dev", w.Trunk, "clsact")
		must(t, err)
	}
	testenv.Eventually(t, "the program to be missed", func() error {
		return w.Admin(func(ctx context.Context, l *wiring.Lanyard) error {
			_, err := l.Datapath.Ahead(w.Record().Endpoint.Trunk)
			if err == nil {
				return errors.New("it is there")
			}
			if !strings.Contains(err.Error(), "no longer on its") {
				return fmt.Errorf("programs ahead of ours: %w", err)
			}
			return nil
		})
	})
	for _, v := range w.verifyAgain() {
		if v.Code != verify.OK {
			t.Errorf("verified: %+v", v)
		}
	}
	if a := w.Record(); a.State != hook.Attached {
		t.Errorf("record is %+v", a)
	}
}

// TestPinsRemoved removes the pins of a trunk with a container on it. The next verification
// watches the container again.
func TestPinsRemoved(t *testing.T) {
	w, _ := lan(t, nil)
	w.MustAttach("c1", testenv.NewContainer(t), "network=web")
	must(t, os.RemoveAll(w.Paths().BPF))
	for _, v := range w.verifyAgain() {
		if v.Code != verify.OK {
			t.Errorf("verified: %+v", v)
		}
	}
	if e := w.Evidence(w.Record()); e.Counters.OutFrames == 0 {
		t.Errorf("evidence is %+v, want frames", e)
	}
}
