package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A DHCPServer is a real server on a station.
type DHCPServer struct {
	station *Station
	log     string // file
	args    []string
	env     []string // besides that of this process
	ready   string   // in the log of a server that listens
	cmd     *exec.Cmd
}

// ServeDHCP starts a dnsmasq on the station that leases addresses, such as
// "192.168.50.100,192.168.50.150,120" for a range with a lease time in seconds, which is at least 120; or
// IPv6 addresses by DHCPv6, such as "fd78::100,fd78::1ff,64,120".
// Options are dnsmasq's, such as "--dhcp-option=26,1400". The station has an address already.
func (s *Station) ServeDHCP(leases string, options ...string) *DHCPServer {
	s.lab.tb.Helper()
	dir := s.lab.tb.TempDir()
	args := []string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=root",
		"--group=root", "--log-facility=-", "--log-dhcp", "--dhcp-authoritative", "--no-ping", "--bind-dynamic",
		"--interface=" + s.Card, "--dhcp-range=" + leases, "--dhcp-leasefile=" + filepath.Join(dir, "leases")}
	args = append(args, options...)
	d := &DHCPServer{station: s, log: filepath.Join(dir, "log"), ready: "DHCP, sockets bound", args: args}
	d.Start()
	return d
}

// ServeISC starts an isc-dhcp-server on the station, which leases the addresses of a range for a minute
// that are to be renewed after one second. Others of its statements go into the subnet's block.
func (s *Station) ServeISC(subnet, mask, leases, statements string) *DHCPServer {
	s.lab.tb.Helper()
	conf := fmt.Sprintf("authoritative; ping-check false; dhcp-cache-threshold 0; min-lease-time 60; "+
		"default-lease-time 60; option dhcp-renewal-time 1; option dhcp-rebinding-time 30; "+
		"subnet %s netmask %s { range %s; %s }", subnet, mask, leases, statements)
	dir := s.confDir(conf)
	d := &DHCPServer{station: s, log: filepath.Join(dir, "log"), ready: "Server starting service", args: []string{
		"dhcpd", "-4", "-d", "--no-pid", "-cf", filepath.Join(dir, "conf"), "-lf", filepath.Join(dir, "leases"), s.Card}}
	d.Start()
	return d
}

// ServeKea starts a Kea on the station, which leases the addresses from first to last of a subnet for a
// minute that are to be renewed after one second.
func (s *Station) ServeKea(subnet, first, last, router string) *DHCPServer {
	s.lab.tb.Helper()
	const conf = `{"Dhcp4": {
		"interfaces-config": {"interfaces": [%q]}, "authoritative": true,
		"lease-database": {"type": "memfile", "name": "%s/leases"},
		"valid-lifetime": 60, "renew-timer": 1, "rebind-timer": 30,
		"subnet4": [{"id": 1, "subnet": %q, "pools": [{"pool": "%s - %s"}],
			"option-data": [{"name": "routers", "data": %q}]}],
		"loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}]}}`
	dir := s.confDir("")
	text := fmt.Appendf(nil, conf, s.Card, dir, subnet, first, last, router)
	must(s.lab.tb, os.WriteFile(filepath.Join(dir, "conf"), text, 0o600))
	d := &DHCPServer{station: s, log: filepath.Join(dir, "log"), ready: "DHCP4_STARTED",
		args: []string{"kea-dhcp4", "-c", filepath.Join(dir, "conf")},
		env:  []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=none", "KEA_DHCP_DATA_DIR=" + dir}}
	d.Start()
	return d
}

// ServeKea6 starts a Kea for DHCPv6 on the station, which leases the addresses of a pool, such as
// "fd78::100 - fd78::1ff", for a minute that are to be renewed after one second.
func (s *Station) ServeKea6(subnet, pool string) *DHCPServer {
	s.lab.tb.Helper()
	const conf = `{"Dhcp6": {
		"interfaces-config": {"interfaces": [%q]},
		"lease-database": {"type": "memfile", "name": "%s/leases"},
		"server-id": {"type": "LL", "persist": false},
		"preferred-lifetime": 40, "valid-lifetime": 60, "renew-timer": 1, "rebind-timer": 30,
		"subnet6": [{"id": 1, "interface": %q, "subnet": %q, "pools": [{"pool": %q}]}],
		"option-data": [{"name": "dns-servers", "data": "fd78::53"}],
		"loggers": [{"name": "kea-dhcp6", "severity": "INFO", "output_options": [{"output": "stdout"}]}]}}`
	dir := s.confDir("")
	text := fmt.Appendf(nil, conf, s.Card, dir, s.Card, subnet, pool)
	must(s.lab.tb, os.WriteFile(filepath.Join(dir, "conf"), text, 0o600))
	d := &DHCPServer{station: s, log: filepath.Join(dir, "log"), ready: "DHCP6_STARTED",
		args: []string{"kea-dhcp6", "-c", filepath.Join(dir, "conf")},
		env:  []string{"KEA_PIDFILE_DIR=" + dir, "KEA_LOCKFILE_DIR=none", "KEA_DHCP_DATA_DIR=" + dir}}
	d.Start()
	return d
}

// ServeISC6 starts an isc-dhcp-server for DHCPv6 on the station, which leases the addresses of a range, such
// as "fd78::100 fd78::1ff", for a minute that are to be renewed after one second.
func (s *Station) ServeISC6(subnet, leases string) *DHCPServer {
	s.lab.tb.Helper()
	dir := s.confDir(fmt.Sprintf("authoritative; server-duid LL; default-lease-time 60; preferred-lifetime 40; "+
		"option dhcp-renewal-time 1; option dhcp-rebinding-time 30; "+
		"subnet6 %s { range6 %s; option dhcp6.name-servers fd78::53; }", subnet, leases))
	d := &DHCPServer{station: s, log: filepath.Join(dir, "log"), ready: "Server starting service", args: []string{
		"dhcpd", "-6", "-d", "--no-pid", "-cf", filepath.Join(dir, "conf"), "-lf", filepath.Join(dir, "leases"), s.Card}}
	d.Start()
	return d
}

// ServeUdhcpd starts busybox's udhcpd on the station, which leases the addresses from first to last for
// the shortest time that the client takes.
func (s *Station) ServeUdhcpd(first, last, router string) *DHCPServer {
	s.lab.tb.Helper()
	dir := s.confDir("")
	conf := fmt.Sprintf("interface %s\nstart %s\nend %s\nmin_lease 10\noption lease 10\noption subnet 255.255.255.0\n"+
		"option router %s\nlease_file %s/leases\npidfile %s/pid\n", s.Card, first, last, router, dir, dir)
	must(s.lab.tb, os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600))
	d := &DHCPServer{station: s, log: filepath.Join(dir, "log"), ready: "started",
		args: []string{"busybox", "udhcpd", "-f", filepath.Join(dir, "conf")}}
	d.Start()
	return d
}

// confDir returns a directory with a server's configuration and its empty file of leases.
func (s *Station) confDir(conf string) string {
	dir := s.lab.tb.TempDir()
	for name, text := range map[string]string{"conf": conf, "leases": ""} {
		must(s.lab.tb, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// Change replaces text in the configuration of a server other than dnsmasq, and starts it again.
func (d *DHCPServer) Change(old, text string) {
	tb := d.station.lab.tb
	tb.Helper()
	d.Stop()
	file := filepath.Join(filepath.Dir(d.log), "conf")
	conf, err := os.ReadFile(file)
	must(tb, err)
	must(tb, os.WriteFile(file, []byte(strings.ReplaceAll(string(conf), old, text)), 0o600))
	d.Start()
}

// Forget starts the server again without the leases that it has given.
func (d *DHCPServer) Forget() {
	tb := d.station.lab.tb
	tb.Helper()
	d.Stop()
	must(tb, os.WriteFile(filepath.Join(filepath.Dir(d.log), "leases"), nil, 0o600))
	d.Start()
}

// Start starts the server, also again after Stop: it knows its leases then.
func (d *DHCPServer) Start() {
	tb := d.station.lab.tb
	tb.Helper()
	f, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(tb, err)
	defer f.Close()
	d.cmd = exec.Command(d.args[0], d.args[1:]...)
	d.cmd.Env = append(os.Environ(), d.env...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d.cmd.Stdout, d.cmd.Stderr = f, f
	must(tb, d.station.Start(d.cmd))
	tb.Cleanup(d.Stop)
	d.WantLog(d.ready)
}

// Stop kills the server.
func (d *DHCPServer) Stop() {
	if d.cmd == nil {
		return
	}
	unix.Kill(d.cmd.Process.Pid, unix.SIGKILL)
	d.cmd.Wait()
	d.cmd = nil
	if tb := d.station.lab.tb; tb.Failed() {
		tb.Logf("%s says: %s", d.args[0], d.Log())
	}
}

// Log returns what the server has logged.
func (d *DHCPServer) Log() string {
	d.station.lab.tb.Helper()
	text, err := os.ReadFile(d.log)
	must(d.station.lab.tb, err)
	return string(text)
}

// WantLog waits until the server has logged a text.
func (d *DHCPServer) WantLog(text string) {
	d.station.lab.tb.Helper()
	Eventually(d.station.lab.tb, "\""+text+"\" in the DHCP server's log", func() error {
		if log := d.Log(); !strings.Contains(log, text) {
			return &missing{log}
		}
		return nil
	})
}

// missing is the error of a log without the wanted text.
type missing struct{ log string }

func (m *missing) Error() string { return "it is: " + m.log }
