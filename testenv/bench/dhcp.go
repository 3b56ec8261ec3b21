package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
)

// Names of the series of attaches with an address from a DHCP server.
const (
	subjDHCP     = "attach by DHCP"
	cniDHCP      = "CNI macvlan + dhcp"
	netavarkDHCP = "netavark + dhcp-proxy"
)

// dhcpLAN returns the name of the lan on which a contender uses DHCP.
func dhcpLAN(name string) string { return name + " by DHCP" }

// dhcps measures attach and detach with an address from one dnsmasq, which serves the lans of all
// contenders. CNI's and netavark's daemons hold the leases, as lanyard's service does.
func dhcps(w *world, o options, r *results) (err error) {
	batches := 10
	if o.quick {
		batches = 3
	}
	if err := w.plugIn(dhcpLAN(ours), dhcpLAN(cni), dhcpLAN(netavark)); err != nil {
		return err
	}
	if err := w.define(w.lans[dhcpLAN(ours)], func(d *network.Definition) {
		d.IPAM, d.Subnets = network.IPAMDHCP, nil
	}); err != nil {
		return err
	}
	stop, err := w.startDHCP()
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	all := []contender{
		w.hookOn(ours, w.lans[dhcpLAN(ours)]),
		w.cni(cniDHCP, w.lans[dhcpLAN(cni)], map[string]any{"type": "dhcp", "daemonSocketPath": cniSocket}),
		w.netavark(netavarkDHCP, w.lans[dhcpLAN(netavark)], w.peer(netavarkFile), "dhcp"),
	}
	if err := w.inTurns(all, batches, r, subjDHCP, "detach by DHCP"); err != nil {
		return err
	}
	r.compare(subjDHCP, ours, cniDHCP, 0.7)
	r.compare(subjDHCP, ours, netavarkDHCP, 0.7)
	return nil
}

// cniSocket is the socket of CNI's DHCP daemon, and netavarkRun the directory of netavark's, which is
// fixed.
const (
	cniSocket   = state + "/cni-dhcp.sock"
	netavarkRun = "/run/podman"
)

// startDHCP starts the server, and the daemons of the contenders. stop ends those that were started,
// also after an error.
func (w *world) startDHCP() (stop func() error, err error) {
	var started []*daemon
	stop = func() (err error) {
		for _, d := range started {
			_ = d.stop() // CNI's and netavark's report their end by a signal as an error
		}
		return nil
	}
	args := []string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--user=root", "--group=root",
		"--log-facility=-", "--dhcp-authoritative", "--no-ping", "--bind-interfaces", "--dhcp-lease-max=10000",
		"--dhcp-leasefile=" + filepath.Join(state, "dnsmasq.leases"),
	}
	for _, name := range []string{ours, cni, netavark} {
		l := w.lans[dhcpLAN(name)]
		args = append(args, "--interface="+l.nic(), fmt.Sprintf("--dhcp-range=%s,%s,1h", l.at(64, 1), l.at(127, 254)))
	}
	proxy := w.peer(netavarkFile)
	for _, d := range []struct {
		cmd *exec.Cmd
		ask func() error
	}{
		{w.gateway.in("dnsmasq", args...), logged("nsenter", "DHCP, IP range")},
		{exec.Command(filepath.Join(w.cniDir, "dhcp"), "daemon", "-socketpath", cniSocket), dialed("unix", cniSocket)},
		{exec.Command(proxy, "dhcp-proxy", "--dir", netavarkRun),
			dialed("unix", filepath.Join(netavarkRun, "nv-proxy.sock"))},
	} {
		one, err := startDaemon(d.cmd, 5*time.Second, d.ask)
		if err != nil {
			return stop, err
		}
		started = append(started, one)
	}
	return stop, nil
}
