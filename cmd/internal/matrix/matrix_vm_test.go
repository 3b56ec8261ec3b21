//go:build vm

package matrix

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
)

// whole says that every cell is wanted, not the part that "make test" has time for.
var whole = os.Getenv("LANYARD_MATRIX") == "whole"

// cells lists them. In the part every fault is met once by each family, on a VLAN
// where it can be; the whole has every place, mode and way of attaching. Cells of
// one setting stand together.
func cells(b *bench) (list []cell) {
	if whole {
		return wholeOf(b)
	}
	for _, fam := range families {
		for _, f := range faults {
			for _, p := range []*place{b.places[1], b.places[0], b.places[2]} {
				if c := (cell{place: p, family: fam, mode: network.ModeBridge, fault: f}); c.possible() {
					list = append(list, c)
					break
				}
			}
		}
	}
	return list
}

func (c cell) possible() bool { return c.fault.only == nil || c.fault.only(c) }

func wholeOf(b *bench) (list []cell) {
	for _, p := range b.places {
		for _, fam := range families {
			for _, mode := range []network.Mode{network.ModeBridge, network.ModePrivate, network.ModeVEPA, network.ModePassthru} {
				for _, f := range faults {
					if c := (cell{p, fam, mode, false, f}); c.possible() && (mode == network.ModeBridge || f.modes) {
						list = append(list, c)
					}
				}
			}
			for _, f := range faults {
				if c := (cell{p, fam, network.ModeBridge, true, f}); hasTCX() && c.possible() {
					list = append(list, c)
				}
			}
		}
	}
	return list
}

// hasTCX says whether clsact is the second choice of this kernel, and so a choice.
func hasTCX() bool { return !slices.Contains([]string{"5.10", "6.1"}, os.Getenv("LANYARD_VM")) }

func TestMatrix(t *testing.T) {
	b := newBench(t)
	var r report
	start := time.Now()
	for _, c := range cells(b) {
		r.add(t, c, c.fault.want(b, c), func() (outcome, error) { return b.attach(c) })
	}
	t.Logf("%d cells in %v", len(r.Rows), time.Since(start).Round(time.Second))
	r.write(t, "matrix")
}
