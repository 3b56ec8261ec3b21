//go:build vm

package matrix

import (
	"cmp"
	"flag"
	"fmt"
	"iter"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// wholeMatrix selects every cell, not just the part that "make test" has time for.
var wholeMatrix = os.Getenv("LANYARD_MATRIX") == "whole"

// cells returns the cells to run. In the part, each family meets every verdict, and one family
// every fault, on a VLAN if possible; of the faults of servers and routers, which take seconds each,
// it has the first of a verdict. The whole matrix has every segment, mode and way of attaching. Cells
// of one setting are adjacent.
func cells(b *bench) (list []cell) {
	if wholeMatrix {
		return wholeOf(b)
	}
	for n, fam := range families {
		had := map[verify.Code]bool{}
		for i, f := range orderedFaults {
			for _, p := range []*segment{b.segments[1], b.segments[0], b.segments[2]} {
				c := cell{segment: p, family: fam, mode: network.ModeBridge, fault: f}
				if !c.isPossible() {
					continue
				}
				code := c.want(b).code
				if !had[code] || f.from == fromDatabase && (i%2 == n || f.only != nil) {
					list, had[code] = append(list, c), true
				}
				break
			}
		}
	}
	return list
}

// nameFilter selects the faults with matching names, for work on a few of them.
var nameFilter = regexp.MustCompile(os.Getenv("LANYARD_FAULT"))

func (c cell) isPossible() bool {
	return nameFilter.MatchString(c.fault.name) && (c.fault.only == nil || c.fault.only(c))
}

func wholeOf(b *bench) (list []cell) {
	for _, p := range b.segments {
		for _, fam := range families {
			for _, mode := range []network.Mode{network.ModeBridge, network.ModePrivate, network.ModeVEPA,
				network.ModePassthru, network.ModeL2} {
				for _, f := range orderedFaults {
					if c := (cell{p, fam, mode, false, f}); c.isPossible() && (mode == network.ModeBridge || f.allModes) {
						list = append(list, c)
					}
				}
			}
			for _, f := range orderedFaults {
				if c := (cell{p, fam, network.ModeBridge, true, f}); hasTCX() && c.isPossible() {
					list = append(list, c)
				}
			}
		}
	}
	return list
}

// orderedFaults contains the faults, ordered so that those that can share a network are adjacent.
var orderedFaults = slices.SortedStableFunc(slices.Values(faults), func(a, b *fault) int {
	return cmp.Or(
		cmp.Compare(rank(a.newNetwork), rank(b.newNetwork)), cmp.Compare(rank(a.noBPF), rank(b.noBPF)),
		cmp.Compare(a.deadline, b.deadline), cmp.Compare(a.window, b.window), cmp.Compare(a.from, b.from),
	)
})

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// hasTCX reports whether the kernel supports TCX, so that clsact is an alternative.
func hasTCX() bool { return !slices.Contains([]string{"5.10", "6.1"}, os.Getenv("LANYARD_VM")) }

// benches returns the number of benches that run in parallel: while one waits for the end of a
// silence, the others use the processor.
func benches() int {
	if wholeMatrix {
		return 4
	}
	return 2
}

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	go recordStalls()
	os.Exit(m.Run())
}

// runParallel runs a function on several benches in parallel.
func runParallel(t *testing.T, work func(*testing.T, *bench)) {
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
	runParallel(t, func(t *testing.T, b *bench) {
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

// A queue distributes cells to benches, which all have the same list. Cells of one setting go to
// the same bench.
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
