package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// privateRun runs lldpd with directories of its own in /run.
const privateRun = `mount -t tmpfs tmpfs /run && mkdir /run/lldpd && exec lldpd -d -I "$1"`

// SpeakLLDP makes the switch say what it is, on the trunk's port, by a real lldpd. Each line is a
// command of lldpcli(8), such as "configure system hostname sw-a". stop ends it; the end of the test
// does, too.
func (l *Lab) SpeakLLDP(lines ...string) (stop func()) {
	l.tb.Helper()
	log, err := os.Create(filepath.Join(l.tb.TempDir(), "lldpd.log"))
	must(l.tb, err)
	daemon := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", privateRun, "sh", l.port)
	daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	daemon.Stdout, daemon.Stderr = log, log
	must(l.tb, l.Switch.Start(daemon))
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		unix.Kill(daemon.Process.Pid, unix.SIGTERM) // it ends the process that it has started
		daemon.Wait()
		log.Close()
		if text, err := os.ReadFile(log.Name()); l.tb.Failed() {
			l.tb.Logf("lldpd says %s, %v", text, err)
		}
	}
	l.tb.Cleanup(stop)
	// lldpd starts paused, and its own lldpcli resumes it. Every command sends the whole configuration
	// back as it has read it, so no other one may run at that time.
	Eventually(l.tb, "lldpd's own lldpcli", func() error { return resumed(log.Name(), daemon.Process.Pid) })
	// A frame is valid for tx-hold times the interval: two minutes, as it is without these lines.
	for _, line := range append(lines, "configure lldp tx-hold 120", "configure lldp tx-interval 1") {
		args := append([]string{"--mount", "--target", strconv.Itoa(daemon.Process.Pid), "lldpcli"}, strings.Fields(line)...)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			l.tb.Fatalf("lldpcli %s: %v: %s", line, err, out)
		}
	}
	return stop
}

// resumed returns nil when the lldpcli that lldpd starts has ended.
func resumed(log string, pid int) error {
	text, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(text), "lldpd should resume operations") {
		return errors.Join(err, errors.New("lldpd is paused"))
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return err
	}
	for _, child := range strings.Fields(string(children)) {
		stat, err := os.ReadFile("/proc/" + child + "/stat")
		if err == nil && strings.Contains(string(stat), "(lldpcli)") && !strings.Contains(string(stat), ") Z ") {
			return errors.New("lldpcli is running")
		}
	}
	return nil
}
