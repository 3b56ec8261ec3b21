//go:build vm

package main

import (
	"strings"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
	"github.com/lanyard-net/lanyard/testenv/hooklab"
)

// TestOneSubnetTwice checks what docs/troubleshooting.md says of a container with two interfaces in
// one subnet, on two VLANs: a station of the second VLAN gets a reply only with source routing.
func TestOneSubnetTwice(t *testing.T) {
	for what, on := range map[string]bool{"plain": false, "source routing": true} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, testenv.Config{VLANs: []uint16{50, 60}})
			edit := func(d *network.Definition) { d.SourceRouting = on }
			for vlan, name := range map[uint16]string{50: "web", 60: "db"} {
				w.AddGateway(vlan, "192.168.50.1/24")
				w.Define(name, map[uint16]string{50: "eth9.50", 60: "eth9.60"}[vlan], edit, "192.168.50.0/24")
			}
			near, far := w.AddGateway(50, "192.168.50.8/24"), w.AddGateway(60, "192.168.50.9/24")
			c := testenv.NewContainer(t)
			w.MustAttach("c1", c, `networks=[{"name":"web"},{"name":"db","ips":["192.168.50.99"]}]`)
			hooklab.Pings(t, near.Namespace, "192.168.50.2")
			out, err := far.Exec("ping", "-n", "-c1", "-W2", "192.168.50.99")
			if answered := strings.Contains(out, "1 received"); answered != on {
				t.Errorf("a ping to the second interface: %v: %s", err, out)
			}
		})
	}
}
