package testenv

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Tests of several packages run at the same time. A lost database is rebuilt from all network
// namespaces of the machine, so a test that makes namespaces which cannot be read disturbs the labs
// of all packages. It calls Alone; every lab shares the machine with others.
//
// Two files are locked, so that a test that waits to be alone does not wait for labs that are made
// after it has begun to wait.
var machine struct {
	sync.Mutex
	labs  int  // of this process
	alone bool // a test of this process is alone
	held  *os.File
}

// Alone waits until no lab is on the machine, and keeps others from being made until the test ends.
// It is called before the test makes its own lab.
func Alone(tb testing.TB) {
	tb.Helper()
	queue := mustLock(tb, "lanyard-test-queue.lock", unix.LOCK_EX)
	held := mustLock(tb, "lanyard-test.lock", unix.LOCK_EX)
	setAlone(true)
	tb.Cleanup(func() {
		setAlone(false)
		held.Close()
		queue.Close()
	})
}

func setAlone(alone bool) {
	machine.Lock()
	defer machine.Unlock()
	machine.alone = alone
}

// shareMachine waits for a test that is alone, or wants to be, until the test ends.
func shareMachine(tb testing.TB) {
	tb.Helper()
	machine.Lock()
	defer machine.Unlock()
	if machine.alone {
		return
	}
	if machine.labs == 0 {
		queue := mustLock(tb, "lanyard-test-queue.lock", unix.LOCK_SH)
		machine.held = mustLock(tb, "lanyard-test.lock", unix.LOCK_SH)
		queue.Close()
	}
	machine.labs++
	tb.Cleanup(func() {
		machine.Lock()
		defer machine.Unlock()
		machine.labs--
		if machine.labs == 0 {
			machine.held.Close()
		}
	})
}

// mustLock opens and locks a file. Closing it, also at the end of the process, unlocks it.
func mustLock(tb testing.TB, name string, how int) *os.File {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(os.TempDir(), name), os.O_RDWR|os.O_CREATE, 0o600)
	must(tb, err)
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(f.Fd()), how)
	}
	must(tb, err)
	return f
}
