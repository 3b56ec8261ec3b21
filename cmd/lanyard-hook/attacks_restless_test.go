//go:build !vm

// An emulated machine is too slow for this test.

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/lanyard-net/lanyard/testenv"
)

// restless creates and deletes links in a namespace until calm is called, so that every
// list of them changes while it is read.
func restless(t *testing.T, n *testenv.Namespace) (calm func()) {
	t.Helper()
	wordy(t, n, 20, 4000)
	file := filepath.Join(t.TempDir(), "batch")
	must(t, os.WriteFile(file, []byte(strings.Repeat("link add x type veth peer name y\nlink del x\n", 1000)), 0o600))
	cmd := exec.Command("sh", "-c", `while :; do ip -force -batch "$0" 2>/dev/null; done`, file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, n.Start(cmd))
	calm = sync.OnceFunc(func() {
		must(t, unix.Kill(-cmd.Process.Pid, unix.SIGKILL))
		cmd.Wait() // "signal: killed" is expected
	})
	t.Cleanup(calm)
	testenv.Eventually(t, "a list to be interrupted", func() error {
		if _, err := n.Netlink().LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return errors.Join(errors.New("it was not"), err)
		}
		return nil
	})
	return calm
}

// TestAttackRebuildDuringChanges is TestAttackRebuild, with a time limit, and with links
// that change while they are read. They may be read completely by chance.
func TestAttackRebuildDuringChanges(t *testing.T) {
	testenv.Alone(t)
	b, _ := lanBrokered(t, direct)
	victim, next := testenv.NewRootless(t, bob), testenv.NewRootless(t, bob)
	b.mustAttachBy(bob, "victim", victim.Pid, "network=web")
	was := b.Record()
	calm := restless(t, testenv.NewRootless(t, mallory).Namespace)
	b.loseDatabase()
	b.mustAttachBy(bob, "next", next.Pid, "network=web")
	calm()
	recs := b.Records()
	if len(recs) != 2 || b.Held("web") != 4 {
		t.Errorf("there are %+v", recs)
	}
	for _, a := range recs {
		if len(a.Containers) == 0 && (a.ID != was.ID || a.Owner != bob || fmt.Sprint(a.Addrs) != fmt.Sprint(was.Addrs)) {
			t.Errorf("%+v was adopted as %+v", was, a)
		}
	}
}
