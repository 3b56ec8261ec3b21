package boltstore_test

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/ipam/boltstore"
)

// million are pools of 10.32.0.0/12: before the first start, after a million starts without a gap,
// and with every second address free again.
var million = []struct {
	name    string
	n, step int
}{{"empty", 0, 1}, {"full", 1_000_000, 1}, {"fragmented", 500_000, 2}}

// BenchmarkMillion measures what a claim costs in these pools, as a visit of one process and as
// whole processes. Each measurement alternates with the same one in an empty pool, so that both are
// affected alike by the machine's other load. A summary counts without reading the leases. The
// files are on a tmpfs, as /run is.
func BenchmarkMillion(b *testing.B) {
	type files struct {
		db   *boltstore.DB
		path string
	}
	var all []files
	for _, m := range million {
		dir, err := os.MkdirTemp("/dev/shm", "million")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
		path := filepath.Join(dir, "lanyard.db")
		db := boltstore.Open(path)
		if err := boltstore.FillFast(b.Context(), db, poolName, pool12, m.n, m.step); err != nil {
			b.Fatal(err)
		}
		mustNext(b, db, "first")
		all = append(all, files{db, path})
	}
	measures := []struct {
		name string
		run  func(f files, name string)
	}{
		{"visit", func(f files, name string) { mustNext(b, f.db, name) }},
		{"process", func(f files, name string) {
			if err := command("once", f.path, name).Run(); err != nil {
				b.Fatal(err)
			}
		}},
		{"summary", func(f files, _ string) {
			if _, err := f.db.Count(b.Context(), poolName); err != nil {
				b.Fatal(err)
			}
		}},
	}
	starts := 1_000_000
	for _, what := range measures {
		b.Run(what.name, func(b *testing.B) {
			took := make([][]time.Duration, len(all))
			for range max(b.N, 30) {
				starts++
				for j, f := range all {
					began := time.Now()
					what.run(f, boltstore.StartID(starts))
					took[j] = append(took[j], time.Since(began))
				}
			}
			for _, t := range took {
				slices.Sort(t)
			}
			empty := took[0][len(took[0])/2]
			for j, m := range million[1:] {
				if what.name == "process" {
					b.ReportMetric(float64(mustWeigh(b, all[j+1].path)), m.name+"-KB")
				}
				b.ReportMetric(float64(took[j+1][len(took[j+1])/2])/float64(empty), m.name+"/empty")
			}
		})
	}
}

// TestClaimCost checks that a claim takes no more memory in a large pool than in an empty one,
// however the free addresses lie. That is far below 16 MB; the test has no absolute limit since the
// race detector alone takes that much.
func TestClaimCost(t *testing.T) {
	empty := 0
	for _, m := range million {
		db, path := tempDB(t)
		if err := boltstore.FillFast(t.Context(), db, poolName, pool12, m.n/10, m.step); err != nil {
			t.Fatal(err)
		}
		a := mustNext(t, db, "first")
		if next := mustNext(t, db, "second"); m.step == 2 && new(big.Int).Sub(number(next), number(a)).Int64() != 2 {
			t.Errorf("%s: %s comes after %s", m.name, next, a)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range 10 {
			mustNext(t, db, fmt.Sprint("new", i))
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / 10; each > 1<<20 {
			t.Errorf("%s: a claim allocates %d bytes", m.name, each)
		}
		weight := mustWeigh(t, path)
		if empty == 0 {
			empty = weight
		}
		t.Logf("%s: a process takes %d KB", m.name, weight)
		if weight > empty+2<<10 {
			t.Errorf("%s: a process takes %d KB, and %d with an empty pool", m.name, weight, empty)
		}
	}
}

// weigh claims an address, and prints the process's peak memory in KB. Rusage would include what
// its parent had when it was forked.
func weigh(db *boltstore.DB, name string) error {
	if err := claimOnce(db, name); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Println(strings.Fields(rest)[0])
		}
	}
	return err
}

// mustWeigh returns the peak memory, in KB, of a process that makes a claim.
func mustWeigh(tb testing.TB, path string) int {
	tb.Helper()
	out, err := command("weigh", path, "weighed").Output()
	if err != nil {
		tb.Fatal(err)
	}
	kb, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		tb.Fatal(err)
	}
	return kb
}

func number(a interface{ AsSlice() []byte }) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }
