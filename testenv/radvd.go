package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Radvd is a real radvd on a station.
type Radvd struct {
	station *Station
	conf    string // file
	log     string // file
	cmd     *exec.Cmd
}

// ServeRadvd starts a radvd on the station that advertises itself several times a second, which RFC 6275
// §7.5 allows. Its statements, such as "AdvDefaultLifetime 60; prefix fd77::/64 { };", go into the
// interface's block.
func (s *Station) ServeRadvd(statements string) *Radvd {
	tb := s.lab.tb
	tb.Helper()
	must(tb, s.Sysctl("net/ipv6/conf/all/forwarding", "1"))
	dir := tb.TempDir()
	r := &Radvd{station: s, conf: filepath.Join(dir, "conf"), log: filepath.Join(dir, "log")}
	r.write(statements)
	r.cmd = exec.Command("radvd", "--nodaemon", "--config", r.conf, "--pidfile", filepath.Join(dir, "pid"),
		"--logmethod", "stderr")
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(r.log)
	must(tb, err)
	defer log.Close()
	r.cmd.Stdout, r.cmd.Stderr = log, log
	must(tb, s.Start(r.cmd))
	tb.Cleanup(r.Stop)
	return r
}

// Stop kills it: it does not say that it ends. The station still forwards packets.
func (r *Radvd) Stop() {
	if r.cmd == nil {
		return
	}
	unix.Kill(-r.cmd.Process.Pid, unix.SIGKILL) // it is two processes
	r.cmd.Wait()
	r.cmd = nil
	tb := r.station.lab.tb
	if text, err := os.ReadFile(r.log); err == nil && tb.Failed() {
		tb.Logf("radvd says: %s", text)
	}
}

// Change makes it advertise something else.
func (r *Radvd) Change(statements string) {
	r.station.lab.tb.Helper()
	r.write(statements)
	must(r.station.lab.tb, unix.Kill(r.cmd.Process.Pid, unix.SIGHUP))
}

func (r *Radvd) write(statements string) {
	r.station.lab.tb.Helper()
	text := fmt.Sprintf("interface %s { AdvSendAdvert on; AdvIntervalOpt on; MinRtrAdvInterval 0.2; "+
		"MaxRtrAdvInterval 0.4; MinDelayBetweenRAs 0.1; %s };\n", r.station.Card, statements)
	must(r.station.lab.tb, os.WriteFile(r.conf, []byte(text), 0o600))
}
