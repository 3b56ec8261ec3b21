package main

import (
	"fmt"
	"testing"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
)

// TestNamesOfServers checks that podman gets the name servers and search domains of a DHCP server.
func TestNamesOfServers(t *testing.T) {
	w := newWorld(t, testenv.Config{})
	w.AddGateway(0, "192.168.50.1/24").ServeDHCP("192.168.50.100,192.168.50.150,120",
		"--dhcp-option=option:dns-server,192.168.50.53", "--dhcp-option=option:domain-search,leased.example")
	w.Define("web", w.Trunk, func(d *network.Definition) { d.IPAM = network.IPAMDHCP })
	w.StartService()
	path, _ := testenv.NewNamespace(t, "container").PinAt(t)
	in := executed("c1", object{}, nil)
	out, err := w.plugin(in, "setup", path)
	must(t, err)
	got := asObject(t, out)
	if names := fmt.Sprint(got["dns_server_ips"], got["dns_search_domains"]); names != "[192.168.50.53] [leased.example]" {
		t.Errorf("the status block has %s", names)
	}
	if _, err := w.plugin(in, "teardown", path); err != nil {
		t.Error(err)
	}
}
