package pin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// mustRoot returns a root on a new bpffs, and a lock on it.
func mustRoot(t *testing.T) (Root, *os.File) {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("bpf", dir, "bpf", 0, "mode=0700"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	r := Root(filepath.Join(dir, "lanyard"))
	lock, err := r.Lock(true)
	must(t, err)
	t.Cleanup(func() { lock.Close() })
	return r, lock
}

// mustTrunk builds the directory of a trunk, with one mark.
func mustTrunk(t *testing.T, r Root, ifindex, layout int) string {
	t.Helper()
	path := r.TrunkDir(ifindex, layout)
	must(t, r.Build(path, func(dir string) error { return MarkEdition(dir, 1) }))
	return path
}

// TestBuild checks that a directory is complete or does not exist, and contains nothing that a killed
// process left.
func TestBuild(t *testing.T) {
	r, _ := mustRoot(t)
	path, failed := r.TrunkDir(7, 1), errors.New("failed")
	err := r.Build(path, func(dir string) error { return errors.Join(MarkEdition(dir, 1), failed) })
	if !errors.Is(err, failed) || Exists(path) || Exists(r.aside()) {
		t.Errorf("after %v: %q exists: %t, %q: %t", err, path, Exists(path), r.aside(), Exists(r.aside()))
	}
	must(t, os.MkdirAll(filepath.Join(r.aside(), "edition-9"), 0o700))
	mustTrunk(t, r, 7, 1)
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 1 || !HasEdition(path, 1) {
		t.Errorf("%q contains %v, %v, want edition 1 only", path, entries, err)
	}
}

// TestRemoveTrunk checks that all layouts of a trunk are removed, and the root with the last trunk.
func TestRemoveTrunk(t *testing.T) {
	r, _ := mustRoot(t)
	mustTrunk(t, r, 7, 1)
	mustTrunk(t, r, 7, 2)
	other := mustTrunk(t, r, 77, 1)
	must(t, r.RemoveTrunk(7))
	all, err := r.List()
	if want := fmt.Sprint([]Dir{{other, 77, 1}}); err != nil || fmt.Sprint(all) != want {
		t.Errorf("remaining: %v, %v, want %s", all, err, want)
	}
	must(t, r.RemoveTrunk(77))
	if Exists(string(r)) {
		t.Errorf("%q remains without trunks", r)
	}
	if all, err := r.List(); err != nil || len(all) != 0 {
		t.Errorf("without a root: %v, %v", all, err)
	}
}

// mustWait returns when a lock is waited for: /proc/locks then has a line with an arrow.
func mustWait(t *testing.T, lock *os.File) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(int(lock.Fd()), &st))
	waits := regexp.MustCompile(fmt.Sprintf(`-> FLOCK .*:%d `, st.Ino))
	for range 1000 {
		locks, err := os.ReadFile("/proc/locks")
		must(t, err)
		if waits.Match(locks) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("nothing waits for the lock")
}

// TestLockRemoved checks that a lock on a root that was removed during the wait is not used.
func TestLockRemoved(t *testing.T) {
	r, lock := mustRoot(t)
	locked := make(chan *os.File)
	go func() {
		f, err := r.Lock(true)
		if err != nil {
			t.Error(err)
		}
		locked <- f
	}()
	mustWait(t, lock)
	must(t, r.RemoveEmpty())
	must(t, lock.Close())
	f := <-locked
	defer f.Close()
	if f == nil || !IsAt(f, string(r)) {
		t.Error("the lock is on a removed directory")
	}
	must(t, r.RemoveEmpty())
	if f, err := r.Lock(false); f != nil || err != nil {
		t.Errorf("without a root: lock %v, %v", f, err)
	}
}

// TestEdition checks the marks of editions while they change.
func TestEdition(t *testing.T) {
	r, _ := mustRoot(t)
	path := mustTrunk(t, r, 7, 1)
	must(t, MarkEdition(path, 2)) // killed before the old mark was removed
	if n, err := Edition(path); n != 2 || err != nil {
		t.Errorf("edition %d, %v, want the later one", n, err)
	}
	must(t, errors.Join(UnmarkEdition(path, 1), UnmarkEdition(path, 1)))
	if HasEdition(path, 1) || !HasEdition(path, 2) {
		t.Error("the old mark remains, or the new one does not")
	}
	if _, err := Edition(r.TrunkDir(8, 1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("edition of a trunk without pins: %v", err)
	}
}
