package testenv

import (
	"errors"
	"os/exec"
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
	daemon := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", privateRun, "sh", l.port)
	daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var log strings.Builder
	daemon.Stdout, daemon.Stderr = &log, &log
	must(l.tb, l.Switch.Start(daemon))
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		unix.Kill(daemon.Process.Pid, unix.SIGTERM) // it ends the process that it has started
		daemon.Wait()
		if l.tb.Failed() {
			l.tb.Log(log.String())
		}
	}
	l.tb.Cleanup(stop)
	for _, line := range append(lines, "configure lldp tx-interval 1") {
		Eventually(l.tb, "lldpcli "+line, func() error {
			args := append([]string{"--mount", "--target", strconv.Itoa(daemon.Process.Pid), "lldpcli"}, strings.Fields(line)...)
			out, err := exec.Command("nsenter", args...).CombinedOutput()
			if err != nil {
				return errors.New(string(out))
			}
			return nil
		})
	}
	return stop
}
