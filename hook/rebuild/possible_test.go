package rebuild

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
)

// TestPossible checks which addresses can be those of a static network and of one with DHCP, if they
// share a parent.
func TestPossible(t *testing.T) {
	static := networkParent{def: &network.Definition{Subnets: []network.Subnet{
		{Subnet: netip.MustParsePrefix("192.168.50.0/24")}}}}
	leased := networkParent{def: &network.Definition{IPAM: network.IPAMDHCP}}
	inSubnet := networkParent{def: &network.Definition{IPAM: network.IPAMDHCP, Subnets: static.def.Subnets}}
	addr := func(text string, valid time.Duration) link.Addr {
		return link.Addr{Prefix: netip.MustParsePrefix(text), Valid: valid}
	}
	addrs := []link.Addr{addr("192.168.50.2/24", 0), addr("192.168.50.3/24", time.Minute),
		addr("10.0.0.2/8", 0), addr("10.0.0.3/8", time.Minute)}
	for _, test := range []struct {
		of   networkParent
		all  []networkParent
		want []link.Addr
	}{
		{static, []networkParent{static, leased}, []link.Addr{addrs[0], addrs[2]}},
		{static, []networkParent{static, inSubnet}, []link.Addr{addrs[0], addrs[2], addrs[3]}},
		{static, []networkParent{static}, addrs},
		{leased, []networkParent{static, leased}, []link.Addr{addrs[1], addrs[2], addrs[3]}},
		{leased, []networkParent{leased}, addrs},
		{inSubnet, []networkParent{static, inSubnet}, []link.Addr{addrs[1]}},
	} {
		if got := test.of.possible(addrs, ether.MAC{}, test.all); fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%q of %d: got %v, want %v", test.of.def.IPAM, len(test.all), got, test.want)
		}
	}
}

// TestPossibleSLAAC checks that an address from a router is no lease of another network on the parent.
func TestPossibleSLAAC(t *testing.T) {
	mac := ether.MAC{2, 0, 0, 0, 0, 9}
	slaac := networkParent{def: &network.Definition{IPv6Mode: network.IPv6SLAAC}}
	leased := networkParent{def: &network.Definition{Subnets: []network.Subnet{
		{Subnet: netip.MustParsePrefix("fd77::/64")}}}}
	addr := func(text string, autoconf bool) link.Addr {
		return link.Addr{Prefix: netip.MustParsePrefix(text), Autoconf: autoconf, Valid: time.Minute}
	}
	addrs := []link.Addr{
		addr("fd77::ff:fe00:9/64", true), addr("fd77::ff:fe00:9/64", false), addr("fd77::8/64", true),
	}
	if got := leased.possible(addrs, mac, []networkParent{leased}); len(got) != 3 {
		t.Errorf("without SLAAC: %v", got)
	}
	for _, of := range []networkParent{leased, slaac} {
		got := of.possible(addrs, mac, []networkParent{leased, slaac})
		if fmt.Sprint(got) != fmt.Sprint(addrs[1:]) {
			t.Errorf("%q: got %v, want %v", of.def.IPv6Mode, got, addrs[1:])
		}
	}
}
