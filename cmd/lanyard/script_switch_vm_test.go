//go:build vm

package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lanyard-net/lanyard/testenv"
)

// What is outside of the host, for scripts with real containers:
//
//	nested OUTER.INNER PREFIX…    a station that tags its frames twice, by 802.1Q
//	nested-ad OUTER.INNER PREFIX… the same, by 802.1ad outside
//	router PREFIX@VLAN…           a router that hangs on the switch by one port, which carries these VLANs
//	forwarding on|off             whether the router passes packets on
//	hairpin on|off                whether the switch sends frames back to where they came from
//	autoconf VLAN PREFIX LEASE SIX a router that leases one address by DHCP, and advertises a prefix
//	pod NAME                      a namespace with a default route of its cluster's, pinned as CRI-O's are
var switchCmds = map[string]scriptCmd{
	"nested": cmdNested, "nested-ad": cmdNestedAD, "router": cmdRouter, "forwarding": cmdForwarding, "hairpin": cmdHairpin, "autoconf": cmdAutoconf, "pod": cmdPod,
}

// vids reads OUTER.INNER.
func vids(ts *testscript.TestScript, word string) (outer, inner uint16) {
	_, err := fmt.Sscanf(word, "%d.%d", &outer, &inner)
	ts.Check(err)
	return outer, inner
}

func addAddrs(s *testenv.Station, prefixes []string) {
	for _, p := range prefixes {
		s.AddAddr(p)
	}
}

func cmdNested(ts *testscript.TestScript, neg bool, args []string) {
	outer, inner := vids(ts, args[0])
	s := worldOf(ts).lab.AddGateway(outer)
	s.Nest(inner)
	addAddrs(s, args[1:])
}

// To the switch, which does not know such tags, the frames have none.
func cmdNestedAD(ts *testscript.TestScript, neg bool, args []string) {
	outer, inner := vids(ts, args[0])
	s := worldOf(ts).lab.AddGateway(0)
	s.NestAD(outer, inner)
	addAddrs(s, args[1:])
}

// A packet from one VLAN to another goes in and out at the same port.
func cmdRouter(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	var r *testenv.Station
	made := map[string]bool{}
	for _, a := range args {
		prefix, vlan, _ := strings.Cut(a, "@")
		vid, err := strconv.ParseUint(vlan, 10, 12)
		ts.Check(err)
		if r == nil {
			r = w.lab.AddGateway(uint16(vid))
		}
		card := "eth0." + vlan
		if !made[vlan] {
			made[vlan] = true
			_, err := w.lab.Switch.Exec("bridge", "vlan", "add", "dev", r.Port, "vid", vlan)
			ts.Check(err)
			ip(ts, r.Namespace, "link add link eth0 name "+card+" type vlan id "+vlan)
			ip(ts, r.Namespace, "link set "+card+" up")
			// A host that is told of a shorter way would find none here.
			ts.Check(r.Sysctl("net/ipv4/conf/"+card+"/send_redirects", "0"))
		}
		r.Card = card
		r.AddAddr(prefix)
	}
	ts.Check(r.Sysctl("net/ipv4/conf/all/send_redirects", "0"))
	w.others["router"] = r.Namespace
}

func cmdForwarding(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		ts.Check(worldOf(ts).others["router"].Sysctl(name, map[string]string{"on": "1", "off": "0"}[args[0]]))
	}
}

func cmdHairpin(ts *testscript.TestScript, neg bool, args []string) {
	_, err := worldOf(ts).lab.Switch.Exec("bridge", "link", "set", "dev", "trunk", "hairpin", args[0])
	ts.Check(err)
}

func cmdAutoconf(ts *testscript.TestScript, neg bool, args []string) {
	vid, err := strconv.ParseUint(args[0], 10, 12)
	ts.Check(err)
	s := worldOf(ts).lab.AddGateway(uint16(vid), args[1])
	conf, six := ts.MkAbs("udhcpd.conf"), netip.MustParsePrefix(args[3])
	ts.Check(os.WriteFile(ts.MkAbs("leases"), nil, 0o600))
	ts.Check(os.WriteFile(conf, fmt.Appendf(nil, "interface %s\nstart %s\nend %[2]s\nlease_file %s\npidfile %s\nopt subnet 255.255.255.0\n",
		s.Card, args[2], ts.MkAbs("leases"), ts.MkAbs("pid")), 0o600))
	serve := exec.Command("busybox", "udhcpd", "-f", conf)
	ts.Check(s.Start(serve))
	ticker, end := time.NewTicker(500*time.Millisecond), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case <-ticker.C:
				_ = s.Advertise(six) // whoever waits for one says that none came
			case <-end:
				return
			}
		}
	})
	ts.Defer(func() {
		ticker.Stop()
		close(end)
		done.Wait()
		serve.Process.Kill()
		serve.Wait() // "signal: killed" is no news
	})
}

func cmdPod(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	pod := testenv.NewNamespace(w.tb, "pod "+args[0])
	pod.Pin(w.tb)
	for _, line := range []string{
		"link add cluster type veth peer name node", "link set cluster up", "link set node up", "route add default dev cluster",
	} {
		ip(ts, pod, line)
	}
	w.others["pod "+args[0]] = pod
}

// ip runs ip(8) in a namespace, with the words of one line.
func ip(ts *testscript.TestScript, n *testenv.Namespace, line string) {
	_, err := n.Exec("ip", strings.Fields(line)...)
	ts.Check(err)
}
