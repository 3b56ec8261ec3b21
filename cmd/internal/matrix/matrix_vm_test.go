//go:build vm

package matrix

import (
	"cmp"
	"flag"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// whole says that every cell is wanted, not the part that "make test" has time for.
var whole = os.Getenv("LANYARD_MATRIX") == "whole"

// cells lists them. In the part every verdict is met by each family, and every fault
// by one, on a VLAN where it can be; the whole has every place, mode and way of
// attaching. Cells of one setting stand together.
func cells(b *bench) (list []cell) {
	if whole {
		return wholeOf(b)
	}
	for n, fam := range families {
		had := map[verify.Code]bool{}
		for i, f := range inOrder {
			for _, p := range []*place{b.places[1], b.places[0], b.places[2]} {
				c := cell{place: p, family: fam, mode: network.ModeBridge, fault: f}
				if !c.possible() {
					continue
				}
				if code := c.want(b).code; i%2 == n || !had[code] || f.only != nil {
					list, had[code] = append(list, c), true
				}
				break
			}
		}
	}
	return list
}

// chosen leaves out all faults but those with these words in their names, for whoever
// works on one of them.
var chosen = os.Getenv("LANYARD_FAULT")

func (c cell) possible() bool {
	return strings.Contains(c.fault.name, chosen) && (c.fault.only == nil || c.fault.only(c))
}

func wholeOf(b *bench) (list []cell) {
	for _, p := range b.places {
		for _, fam := range families {
			for _, mode := range []network.Mode{network.ModeBridge, network.ModePrivate, network.ModeVEPA, network.ModePassthru, network.ModeL2} {
				for _, f := range inOrder {
					if c := (cell{p, fam, mode, false, f}); c.possible() && (mode == network.ModeBridge || f.modes) {
						list = append(list, c)
					}
				}
			}
			for _, f := range inOrder {
				if c := (cell{p, fam, network.ModeBridge, true, f}); hasTCX() && c.possible() {
					list = append(list, c)
				}
			}
		}
	}
	return list
}

// inOrder are the faults with those together that one network does for.
var inOrder = slices.SortedStableFunc(slices.Values(faults), func(a, b *fault) int {
	return cmp.Or(
		cmp.Compare(rank(a.fresh), rank(b.fresh)), cmp.Compare(rank(a.blind), rank(b.blind)),
		cmp.Compare(a.deadline, b.deadline), cmp.Compare(a.window, b.window),
	)
})

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// hasTCX says whether clsact is the second choice of this kernel, and so a choice.
func hasTCX() bool { return !slices.Contains([]string{"5.10", "6.1"}, os.Getenv("LANYARD_VM")) }

// benches work side by side: while one waits for silence, others use the processor.
func benches() int {
	if whole {
		return 4
	}
	return 2
}

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	go watchStalls()
	os.Exit(m.Run())
}

// sideBySide has benches of their own do a work in parts.
func sideBySide(t *testing.T, work func(*testing.T, *bench)) {
	t.Run("benches", func(t *testing.T) {
		for i := range benches() {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				work(t, newBench(t))
			})
		}
	})
}

func TestMatrix(t *testing.T) {
	start := time.Now()
	var q queue
	sideBySide(t, func(t *testing.T, b *bench) {
		list := cells(b)
		for part := range q.parts(list) {
			for i := part.from; i < part.to; i++ {
				q.done(i, list[i].run(t, b))
			}
		}
	})
	r := q.report()
	t.Logf("%d cells in %v", len(r.Rows), time.Since(start).Round(time.Second))
	r.write(t, "matrix")
}

// A queue hands cells out to benches, which all have the same list of them: those of
// one setting together.
type queue struct {
	mu   sync.Mutex
	next int
	rows map[int]row
}

type part struct{ from, to int }

func (q *queue) parts(list []cell) iter.Seq[part] {
	return func(yield func(part) bool) {
		for {
			q.mu.Lock()
			p := part{q.next, q.next}
			for p.to < len(list) && list[p.from].setting() == list[p.to].setting() {
				p.to++
			}
			q.next = p.to
			q.mu.Unlock()
			if p.from == p.to || !yield(p) {
				return
			}
		}
	}
}

func (q *queue) done(i int, r row) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rows == nil {
		q.rows = map[int]row{}
	}
	q.rows[i] = r
}

func (q *queue) report() (r report) {
	for i := range len(q.rows) {
		r.Rows = append(r.Rows, q.rows[i])
	}
	return r
}
