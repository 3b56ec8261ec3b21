package service

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func mustKeep(t *testing.T, k Kept, container, text string) {
	t.Helper()
	if err := k.Add(container, text); err != nil {
		t.Fatal(err)
	}
}

// TestKept checks that the failures of root's containers are limited in number and size, in
// order, and readable by root only.
func TestKept(t *testing.T) {
	k := Kept(filepath.Join(t.TempDir(), "run", "failures"))
	if all, err := k.All(); all != nil || err != nil {
		t.Errorf("before the first: %+v, %v", all, err)
	}
	mustKeep(t, k, "c0", "first")
	if err := os.WriteFile(filepath.Join(string(k), "00000000000000000001-1.new"), []byte("{"), 0o600); err != nil {
		t.Fatal(err) // a hook was killed while it wrote
	}
	for i := range 2 * maxKept {
		mustKeep(t, k, "c", fmt.Sprint(i, strings.Repeat("x\n", maxText)))
	}
	mustKeep(t, k, "last", "the same")
	mustKeep(t, k, "last", "the same")
	all, err := k.All()
	if err != nil || len(all) != maxKept || all[maxKept-1].Container != "last" || all[maxKept-2].Container != "c" {
		t.Fatalf("%d are kept, %v; the last is %+v", len(all), err, all[len(all)-1])
	}
	if e := all[0].Error; len(e) > maxText || strings.Contains(e, "\n") {
		t.Errorf("a failure of %d bytes: %q", len(e), e)
	}
	entries, err := os.ReadDir(string(k))
	if err != nil || len(entries) != maxKept {
		t.Errorf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 || info.Size() > 4096 {
			t.Errorf("%s: %v, %v", e.Name(), info, err)
		}
	}
	if info, err := os.Stat(string(k)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Dir(string(k))); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the directory above, where the socket is: %v, %v", info, err)
	}
}

// TestKeptAtOnce checks that hooks can fail at the same time.
func TestKeptAtOnce(t *testing.T) {
	k := Kept(filepath.Join(t.TempDir(), "failures"))
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			for j := range 8 {
				if err := k.Add(fmt.Sprint(i), fmt.Sprint(j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	mustKeep(t, k, "one", "more")
	if got, err := k.All(); err != nil || len(got) < maxKept/2 || len(got) > maxKept {
		t.Errorf("%d are kept, %v", len(got), err)
	}
}
