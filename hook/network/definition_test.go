package network

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/verify"
)

// fullDefinition returns a valid definition that uses every field.
func fullDefinition() *Definition {
	return &Definition{
		Name: "web50", ID: "0123456789abcdef", Driver: DriverMacvlan, Parent: "eth0.50", VLANProto: VLANProto8021AD,
		Mode: ModeBridge, Managed: true,
		ShareParent: true, Allocate: AllocateStable, OnLink: true, SourceRouting: true,
		Routes:               []Route{{Dst: netip.MustParsePrefix("10.0.0.0/8"), Via: netip.MustParseAddr("192.168.50.254")}},
		KubernetesNamespaces: []string{"shop"}, PodDefaultRoute: true,
		Subnets: []Subnet{{
			Subnet:  netip.MustParsePrefix("192.168.50.0/24"),
			Gateway: netip.MustParseAddr("192.168.50.1"),
			Ranges:  []netip.Prefix{netip.MustParsePrefix("192.168.50.128/25"), netip.MustParsePrefix("192.168.50.64/26")},
			Aux: map[string]netip.Addr{"printer": netip.MustParseAddr("192.168.50.200"),
				"nas": netip.MustParseAddr("192.168.50.201")},
		}, {
			Subnet: netip.MustParsePrefix("fd50::/64"),
		}},
		HostAccess: true, HostAddresses: []netip.Addr{netip.MustParseAddr("192.168.50.5"), netip.MustParseAddr("fd50::5")},
		MTU: 1400, Verify: verify.Strict,
		Deadline: Duration(1500 * time.Millisecond), ConflictWindow: Duration(20 * time.Millisecond),
		Quarantine: Duration(30 * time.Second),
		DNS:        []netip.Addr{netip.MustParseAddr("192.168.50.1")}, DNSSearch: []string{"lab.example"},
		AllowUsers: []string{"root"}, AllowGroups: []string{"1000"}, MaxPerUser: 3, Brokered: BrokeredDirect,
		Labels: map[string]string{"site": "north"}, Created: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC),
	}
}

func TestValidName(t *testing.T) {
	for _, name := range []string{"a", "web50", "0", "A.b_c-d", strings.Repeat("x", 64)} {
		if err := ValidName(name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "../x", "a/b", "/etc/passwd", "-a", ".a", "_a", "a b", "a\x00b", "a\n",
		"ä", strings.Repeat("x", 65), strings.Repeat("x", 1<<20)} {
		err := ValidName(name)
		if err == nil {
			t.Errorf("%.80q is allowed", name)
		} else if strings.Contains(err.Error(), "\n") || len(err.Error()) > 500 {
			t.Errorf("%.80q: not one short line: %v", name, err)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := fullDefinition().Validate(); err != nil {
		t.Fatalf("a full definition is refused: %v", err)
	}
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	for _, test := range []struct {
		want string // the start of the error
		edit func(*Definition)
	}{
		{"name: ", func(d *Definition) { d.Name = "../x" }},
		{"id: ", func(d *Definition) { d.ID = "0123456789ABCDEF" }},
		{"id: ", func(d *Definition) { d.ID = "" }},
		{`driver: "bridge" is not one of macvlan, ipvlan`, func(d *Definition) { d.Driver = "bridge" }},
		{`mode: "bridge" is for driver macvlan, and the driver is ipvlan`, func(d *Definition) { d.Driver = DriverIPvlan }},
		{`flag: "vepa" is for driver ipvlan`, func(d *Definition) { d.Flag = ModeVEPA }},
		{`flag: "passthru" is not one of bridge, private, vepa`,
			func(d *Definition) { d.Driver, d.Mode, d.Flag = DriverIPvlan, ModeL2, ModePassthru }},
		{"subnets[0].gateway: mode l3 has no gateway, because the host routes",
			func(d *Definition) { d.Driver, d.Mode = DriverIPvlan, ModeL3 }},
		{"routes: mode l3s has no routers", func(d *Definition) {
			d.Driver, d.Mode, d.Subnets = DriverIPvlan, ModeL3S, []Subnet{{Subnet: prefix("192.168.50.0/24")}}
		}},
		{"parent: is missing", func(d *Definition) { d.Parent = "" }},
		{`on-outage: "slcie" is not one of refuse, slice; did you mean "slice"?`,
			func(d *Definition) { d.Leases, d.OnOutage = LeasesEtcd, "slcie" }},
		{`on-outage: "slice" needs leases "etcd"`,
			func(d *Definition) { d.OnOutage, d.HostSlice = OnOutageSlice, HostSlice{2, 8} }},
		{`on-outage: "slice" needs a host-slice`, func(d *Definition) { d.Leases, d.OnOutage = LeasesEtcd, OnOutageSlice }},
		{`host-slice: needs on-outage "slice"`,
			func(d *Definition) { d.Leases, d.HostSlice = LeasesEtcd, HostSlice{2, 8} }},
		{"subnets[0]: host-slice 1/100: 192.168.50.64/26 has fewer than 100 addresses", func(d *Definition) {
			d.Leases, d.OnOutage, d.HostSlice = LeasesEtcd, OnOutageSlice, HostSlice{1, 100}
		}},
		{`parent: "` + strings.Repeat("x", 80) + `"… has 128 bytes: Linux allows 127`,
			func(d *Definition) { d.Parent = strings.Repeat("x", 128) }},
		{"parent: ", func(d *Definition) { d.Parent = "a/b" }},
		{"dns: 4 name servers", func(d *Definition) { d.DNS = make([]netip.Addr, 4) }},
		{`dns[0]: "0.0.0.0"`, func(d *Definition) { d.DNS = []netip.Addr{addr("0.0.0.0")} }},
		{`dns[0]: "fe80::1%eth0"`, func(d *Definition) { d.DNS = []netip.Addr{addr("fe80::1%eth0")} }},
		{`dns-search[0]: "lab\nnameserver 10.0.0.1"`,
			func(d *Definition) { d.DNSSearch = []string{"lab\nnameserver 10.0.0.1"} }},
		{`dns-search[0]: "a..b"`, func(d *Definition) { d.DNSSearch = []string{"a..b"} }},
		{"dns-search: 7 domains", func(d *Definition) { d.DNSSearch = make([]string, 7) }},
		{`allow-user[1]: "-x"`, func(d *Definition) { d.AllowUsers = []string{"alice", "-x"} }},
		{`allow-user[0]: ""`, func(d *Definition) { d.AllowUsers = []string{""} }},
		{`allow-group[0]: "4294967295"`, func(d *Definition) { d.AllowGroups = []string{"4294967295"} }},
		{"max-per-user: -1", func(d *Definition) { d.MaxPerUser = -1 }},
		{`brokered: "gaurded" is not one of guarded, direct; did you mean "guarded"?`,
			func(d *Definition) { d.Brokered = "gaurded" }},
		{"parent: ", func(d *Definition) { d.Parent = "eth%d" }},
		{`mode: "brigde" is not one of bridge, private, vepa, passthru; did you mean "bridge"?`,
			func(d *Definition) { d.Mode = "brigde" }},
		{"verify: ", func(d *Definition) { d.Verify = "strickt" }},
		{"subnets: is empty", func(d *Definition) { d.Subnets = nil }},
		{"subnets[0].subnet: is missing", func(d *Definition) { d.Subnets[0] = Subnet{} }},
		{"subnets[0].subnet: 192.168.50.1/24 has host bits set: write 192.168.50.0/24",
			func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("192.168.50.1/24")} }},
		{"subnets[0].subnet: 0.0.0.0/0 is not", func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("0.0.0.0/0")} }},
		{"subnets[0].subnet: 224.0.0.0/8 is not usable for hosts: it overlaps 224.0.0.0/4",
			func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("224.0.0.0/8")} }},
		{"subnets[0].subnet: 127.0.0.0/8 is not",
			func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("127.0.0.0/8")} }},
		{"subnets[0].subnet: 126.0.0.0/7 is not usable for hosts: it overlaps 127.0.0.0/8",
			func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("126.0.0.0/7")} }},
		{"subnets[0].subnet: 128.0.0.0/1 is not",
			func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("128.0.0.0/1")} }},
		{"subnets[0].subnet: fe00::/8 is not", func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("fe00::/8")} }},
		{"subnets[0].subnet: ::1/128 is not", func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("::1/128")} }},
		{"subnets[0].subnet: 255.255.255.255/32 is not",
			func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("255.255.255.255/32")} }},
		{"subnets[0].subnet: 255.255.255.254/31 is not",
			func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("255.255.255.254/31")} }},
		{"subnets[0].subnet: fe80::/64 is not", func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("fe80::/64")} }},
		{"subnets[0].subnet: ::ffff:10.0.0.0/104 is an IPv4-mapped prefix",
			func(d *Definition) { d.Subnets[0] = Subnet{Subnet: prefix("::ffff:10.0.0.0/104")} }},
		{"subnets[0].gateway: 192.168.60.1 is not in 192.168.50.0/24: set onlink",
			func(d *Definition) { d.Subnets[0].Gateway, d.OnLink = addr("192.168.60.1"), false }},
		{"subnets[0].gateway: fd60::1 cannot be a router for 192.168.50.0/24",
			func(d *Definition) { d.Subnets[0].Gateway = addr("fd60::1") }},
		{"subnets[1].gateway: ff02::1 is not a host address", func(d *Definition) { d.Subnets[1].Gateway = addr("ff02::1") }},
		{`vlan-proto: "802.1Q" is not one of 802.1q, 802.1ad; did you mean "802.1q"?`,
			func(d *Definition) { d.VLANProto = "802.1Q" }},
		{"vlan-proto: 802.1ad cannot be announced with gvrp or mvrp, only 802.1q", func(d *Definition) { d.GVRP = true }},
		{`allocate: "stabel" is not one of sequential, stable; did you mean "stable"?`,
			func(d *Definition) { d.Allocate = "stabel" }},
		{`ipam: "dchp" is not one of none, dhcp; did you mean`, func(d *Definition) { d.IPAM = "dchp" }},
		{`ipv6-mode: "slac" is not one of leased, slaac, both, dhcp; did you mean`,
			func(d *Definition) { d.IPv6Mode = "slac" }},
		{`ipv6-mode: "both" is not possible with ipvlan, mode l2: the containers have the parent's MAC`, func(d *Definition) {
			d.IPv6Mode, d.Driver, d.Mode, d.Flag, d.MACFrom = IPv6Both, DriverIPvlan, ModeL2, "", ""
		}},
		{`ipv6-mode: "slaac" needs a parent that leads to a router`, func(d *Definition) {
			d.IPv6Mode, d.Parent = IPv6SLAAC, DummyParent(d.ID)
		}},
		{`ipv6-mode: "slaac" takes IPv6 addresses from routers only: omit subnet fd50::/64, or use "both"`,
			func(d *Definition) { d.IPv6Mode = IPv6SLAAC }},
		{`ipv6-mode: "both" also leases an IPv6 address: add an IPv6 subnet, or use "slaac"`,
			func(d *Definition) { d.IPv6Mode, d.Subnets = IPv6Both, d.Subnets[:1] }},
		{`ipv6-mode: "dhcp" takes IPv6 addresses from DHCPv6 servers only: omit subnet fd50::/64`,
			func(d *Definition) { d.IPv6Mode = IPv6DHCP }},
		{`ipv6-mode: "dhcp" leaves IPv6 leases to the servers: omit leases "etcd"`, func(d *Definition) {
			d.IPv6Mode, d.Subnets, d.Leases = IPv6DHCP, d.Subnets[:1], LeasesEtcd
		}},
		{`ipv6-mode: "dhcp" is not possible with ipvlan, mode l2: the containers have the parent's MAC`, func(d *Definition) {
			d.IPv6Mode, d.Driver, d.Mode, d.Flag, d.MACFrom = IPv6DHCP, DriverIPvlan, ModeL2, "", ""
		}},
		{`ipv6-addresses: "stable-private" is not one of eui64, stable-privacy; did you mean`,
			func(d *Definition) { d.IPv6Addresses = "stable-private" }},
		{`ipv6-addresses: "stable-privacy" is a form of addresses from routers`,
			func(d *Definition) { d.IPv6Addresses = IPv6StablePrivacy }},
		{`ipv6-addresses: "stable-privacy" is not possible for rootless containers, which are guarded`, func(d *Definition) {
			d.IPv6Mode, d.SourceRouting, d.Brokered, d.AllowUsers = IPv6Both, false, "", []string{"alice"}
			d.IPv6Addresses = IPv6StablePrivacy
		}},
		{`guard: cannot be on: the guard recognizes addresses from routers by the MAC`, func(d *Definition) {
			d.IPv6Mode, d.SourceRouting, d.AllowUsers, d.AllowGroups = IPv6Both, false, nil, nil
			d.IPv6Addresses, d.Guard, d.ShareParent = IPv6StablePrivacy, On, false
			d.HostAccess, d.HostAddresses = false, nil
		}},
		{`ipv6-mode: "both" has no rules for packets`, func(d *Definition) { d.IPv6Mode, d.SourceRouting = IPv6Both, true }},
		{`host-access: is not possible: with ipv6-mode "both"`, func(d *Definition) {
			d.IPv6Mode, d.SourceRouting, d.AllowUsers, d.AllowGroups, d.HostAccess = IPv6Both, false, nil, nil, true
		}},
		{`ipam: "dhcp" needs driver macvlan`, func(d *Definition) {
			d.IPAM, d.Driver, d.Mode, d.Subnets = IPAMDHCP, DriverIPvlan, ModeL2, nil
		}},
		{`subnets: ipam "dhcp" assigns one address`, func(d *Definition) {
			d.IPAM, d.Subnets = IPAMDHCP, []Subnet{{Subnet: prefix("10.0.0.0/24")}, {Subnet: prefix("10.1.0.0/24")}}
		}},
		{`subnets: ipam "dhcp" assigns IPv4 addresses, and fd50::/64 is IPv6`, func(d *Definition) {
			d.IPAM, d.Allocate, d.Subnets = IPAMDHCP, "", []Subnet{{Subnet: prefix("fd50::/64")}}
		}},
		{`allocate: ipam "dhcp" leaves the choice`, func(d *Definition) {
			d.IPAM, d.Subnets, d.Allocate = IPAMDHCP, nil, AllocateStable
		}},
		{`guard: cannot be on: with ipam "dhcp", containers send from 0.0.0.0 before`, func(d *Definition) {
			d.IPAM, d.Allocate, d.MACFrom, d.Subnets, d.Routes, d.SourceRouting, d.Guard = IPAMDHCP, "", "", nil, nil, false, On
			d.HostAccess, d.HostAddresses, d.ShareParent = false, nil, false
		}},
		{`subnets: 192.168.50.0/24 is of no use, because ipam "none" assigns no addresses`,
			func(d *Definition) { d.IPAM = IPAMNone }},
		{`routes: ipam "none" assigns no addresses to route from`, func(d *Definition) { d.IPAM, d.Subnets = IPAMNone, nil }},
		{`source-routing: ipam "none" assigns no addresses`,
			func(d *Definition) { d.IPAM, d.Subnets, d.Routes = IPAMNone, nil, nil }},
		{"routes[0].dst: is missing", func(d *Definition) { d.Routes[0] = Route{} }},
		{"routes[0].dst: 10.0.0.1/8 has host bits set: write 10.0.0.0/8",
			func(d *Definition) { d.Routes[0].Dst = prefix("10.0.0.1/8") }},
		{"routes[0].dst: 127.0.0.0/8 is never routed", func(d *Definition) { d.Routes[0].Dst = prefix("127.0.0.0/8") }},
		{"routes[0].dst: fe80::/64 is never routed",
			func(d *Definition) { d.Routes[0] = Route{prefix("fe80::/64"), addr("fd50::1")} }},
		{"routes[0].dst: 192.168.50.0/24 is a subnet of the network itself",
			func(d *Definition) { d.Routes[0].Dst = prefix("192.168.50.0/24") }},
		{"routes[0].dst: 0.0.0.0/0 is the default route", func(d *Definition) { d.Routes[0].Dst = prefix("0.0.0.0/0") }},
		{"routes[0].via: is missing: name the router that leads to 10.0.0.0/8",
			func(d *Definition) { d.Routes[0].Via = netip.Addr{} }},
		{"routes[0].via: fd50::1 cannot be a router for 10.0.0.0/8",
			func(d *Definition) { d.Routes[0].Via = addr("fd50::1") }},
		{"routes[0].via: 192.168.60.1 is in none of the network's subnets",
			func(d *Definition) { d.Routes[0].Via, d.OnLink = addr("192.168.60.1"), false }},
		{"routes[0].via: 192.168.50.255 is the broadcast address",
			func(d *Definition) { d.Routes[0].Via, d.OnLink = addr("192.168.50.255"), false }},
		{"routes[1].dst: 10.0.0.0/8 has a route already, via 192.168.50.254",
			func(d *Definition) { d.Routes = append(d.Routes, d.Routes[0]) }},
		{"host-address: 192.168.50.5 has no effect without host-access", func(d *Definition) { d.HostAccess = false }},
		{"host-access: is not possible: ipam \"none\" assigns no addresses", func(d *Definition) {
			d.IPAM, d.Subnets, d.Routes, d.SourceRouting = IPAMNone, nil, nil, false
		}},
		{"host-access: is not possible: mode private isolates", func(d *Definition) { d.Mode = ModePrivate }},
		{"host-access: is not possible: mode private isolates",
			func(d *Definition) { d.Driver, d.Mode, d.Flag = DriverIPvlan, ModeL2, ModePrivate }},
		{"host-access: is not possible: mode vepa sends", func(d *Definition) { d.Mode = ModeVEPA }},
		{"host-access: is not possible: mode passthru needs",
			func(d *Definition) { d.Mode, d.ShareParent = ModePassthru, false }},
		{"share-parent: is not possible: mode passthru needs", func(d *Definition) { d.Mode = ModePassthru }},
		{"host-access: is not possible: in mode l3s the host routes", func(d *Definition) {
			d.Driver, d.Mode, d.Subnets, d.Routes = DriverIPvlan, ModeL3S, []Subnet{{Subnet: prefix("192.168.50.0/24")}}, nil
		}},
		{"host-address[0]: 10.0.0.5 is in none of the network's subnets",
			func(d *Definition) { d.HostAddresses[0] = addr("10.0.0.5") }},
		{"host-address[0]: 192.168.50.255 is the broadcast address",
			func(d *Definition) { d.HostAddresses[0] = addr("192.168.50.255") }},
		{"host-address[0]: 192.168.50.1 is the gateway", func(d *Definition) { d.HostAddresses[0] = addr("192.168.50.1") }},
		{`host-address[0]: 192.168.50.200 is aux-address "printer" already`,
			func(d *Definition) { d.HostAddresses[0] = addr("192.168.50.200") }},
		{"host-address[1]: 192.168.50.5 and 192.168.50.6 are both in 192.168.50.0/24",
			func(d *Definition) { d.HostAddresses[1] = addr("192.168.50.6") }},
		{`kubernetes-namespaces[0]: "Shop" is not a namespace's name`,
			func(d *Definition) { d.KubernetesNamespaces[0] = "Shop" }},
		{"pod-default-route: an internal network has no default route", func(d *Definition) { d.Internal = true }},
		{"pod-default-route: no pod may use", func(d *Definition) { d.KubernetesNamespaces = nil }},
		{"subnets[0].gateway: 192.168.50.0 is the address of",
			func(d *Definition) { d.Subnets[0].Gateway = addr("192.168.50.0") }},
		{"subnets[0].gateway: 192.168.50.255 is the broadcast",
			func(d *Definition) { d.Subnets[0].Gateway = addr("192.168.50.255") }},
		{"subnets[1].gateway: fd50::1%eth0 is not a host",
			func(d *Definition) { d.Subnets[1].Gateway = addr("fd50::1%eth0") }},
		{"subnets[0].ip-range[0]: 192.168.51.0/25 is not within",
			func(d *Definition) { d.Subnets[0].Ranges[0] = prefix("192.168.51.0/25") }},
		{"subnets[0].ip-range[0]: 192.168.0.0/16 is not within",
			func(d *Definition) { d.Subnets[0].Ranges[0] = prefix("192.168.0.0/16") }},
		{"subnets[0].ip-range[1]: 192.168.50.192/26 overlaps 192.168.50.128/25",
			func(d *Definition) { d.Subnets[0].Ranges[1] = prefix("192.168.50.192/26") }},
		{`subnets[0].aux-address["nas"]: 10.0.0.1 is not in`,
			func(d *Definition) { d.Subnets[0].Aux["nas"] = addr("10.0.0.1") }},
		{`subnets[0].aux-address["nas"]: 192.168.50.1 is the gateway`,
			func(d *Definition) { d.Subnets[0].Aux["nas"] = addr("192.168.50.1") }},
		{`subnets[0].aux-address["printer"]: 192.168.50.201 is aux-address "nas" already`,
			func(d *Definition) { d.Subnets[0].Aux["printer"] = addr("192.168.50.201") }},
		{`subnets[0].aux-address[""]: 192.168.50.9 has no name`,
			func(d *Definition) { d.Subnets[0].Aux[""] = addr("192.168.50.9") }},
		{`labels: "north" has no key`, func(d *Definition) { d.Labels[""] = "north" }},
		{`subnets[0].aux-address["zero"]: `, func(d *Definition) { d.Subnets[0].Aux["zero"] = netip.Addr{} }},
		{"subnets[1].subnet: 192.168.50.0/25 overlaps 192.168.50.0/24",
			func(d *Definition) { d.Subnets[1] = Subnet{Subnet: prefix("192.168.50.0/25")} }},
		{"mtu: 1279 is not between 1280 and 65535", func(d *Definition) { d.MTU = 1279 }},
		{"mtu: 67 is not between 68", func(d *Definition) { d.MTU, d.Subnets, d.HostAddresses = 67, d.Subnets[:1], nil }},
		{"mtu: -1 is not", func(d *Definition) { d.MTU = -1 }},
		{"deadline: 2m0s is not between 0s and 1m0s", func(d *Definition) { d.Deadline = Duration(2 * time.Minute) }},
		{"conflict-window: -1ns is not", func(d *Definition) { d.ConflictWindow = -1 }},
		{"quarantine: ", func(d *Definition) { d.Quarantine = Duration(25 * time.Hour) }},
	} {
		d := fullDefinition()
		test.edit(d)
		if err := d.Validate(); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("got %v, want %s…", err, test.want)
		}
	}
}

// In subnets of one or two addresses, hosts can use all of them (RFC 3021, RFC 6164).
func TestValidateSmallSubnets(t *testing.T) {
	for _, pair := range [][2]string{{"10.0.0.0/31", "10.0.0.0"}, {"10.0.0.0/31", "10.0.0.1"},
		{"10.0.0.7/32", "10.0.0.7"}, {"fd00::/127", "fd00::"}, {"10.0.0.0/30", "10.0.0.2"}} {
		d := fullDefinition()
		d.HostAddresses = nil
		d.Subnets = []Subnet{{Subnet: netip.MustParsePrefix(pair[0]), Gateway: netip.MustParseAddr(pair[1])}}
		if err := d.Validate(); err != nil {
			t.Errorf("%v: %v", pair, err)
		}
	}
}

func TestConflicts(t *testing.T) {
	d := fullDefinition()
	other := func(edit func(*Definition)) *Definition {
		o := fullDefinition()
		o.Name = "db"
		edit(o)
		return o
	}
	far := []Subnet{{Subnet: netip.MustParsePrefix("10.0.0.0/8")}}
	for _, test := range []struct {
		other *Definition
		want  string
	}{
		{fullDefinition(), ""}, // itself
		{other(func(*Definition) {}),
			`subnet 192.168.50.0/24 overlaps 192.168.50.0/24 of network "db" on the same parent "eth0.50"`},
		{other(func(o *Definition) { o.Subnets = far }), ""},
		{other(func(o *Definition) { o.Subnets, o.Mode = far, ModePassthru }),
			`parent "eth0.50" carries network "db" already: mode passthru needs the parent exclusively`},
		{other(func(o *Definition) { o.Subnets, o.ShareParent, o.Guard = far, false, On }),
			`parent "eth0.50" carries network "db" already, whose guard would drop the frames of this network's containers: ` +
				`use another parent`},
		{other(func(o *Definition) { o.Subnets, o.ShareParent, o.Brokered = far, false, BrokeredDirect }),
			`parent "eth0.50" carries network "db" already, whose guard would drop the frames of this network's containers: ` +
				`use another parent`},
	} {
		if got := errText(d.Conflicts([]*Definition{test.other})); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	d.ShareParent = false
	if got, want := errText(d.Conflicts([]*Definition{other(func(o *Definition) { o.Subnets = far })})),
		`parent "eth0.50" carries network "db" already: use another parent, or --share-parent`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The host has one route to an address: two networks with host access must not overlap, even
// on different parents.
func TestHostConflicts(t *testing.T) {
	d, o := fullDefinition(), fullDefinition()
	o.Name, o.Parent = "db", "eth1"
	if got, want := errText(d.HostConflicts([]*Definition{o})),
		`subnet 192.168.50.0/24 overlaps 192.168.50.0/24 of network "db", `+
			`and both have host access: omit --host-access from one`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, edit := range []func(d, o *Definition){
		func(d, _ *Definition) { d.HostAccess = false }, func(_, o *Definition) { o.HostAccess = false },
		func(_, o *Definition) { o.Name = d.Name },
		func(_, o *Definition) { o.Subnets = []Subnet{{Subnet: netip.MustParsePrefix("10.0.0.0/8")}} },
	} {
		d, o := fullDefinition(), fullDefinition()
		o.Name = "db"
		edit(d, o)
		if d.HostConflicts([]*Definition{o}) != nil {
			t.Errorf("%v with %v: %v", d, o, d.HostConflicts([]*Definition{o}))
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestNearest(t *testing.T) {
	keys := []string{"ip", "ip6", "mac", "mtu", "network", "networks", "interface", "verify", "gateway"}
	for word, want := range map[string]string{
		"netwrok": "network", "network": "network", "netwroks": "networks", "interfce": "interface", "verfiy": "verify",
		"gatewya": "gateway", "mac6": "mac", "colour": "", "": "", "i": "", strings.Repeat("network", 1000): "",
	} {
		if got := Nearest(word, keys); got != want {
			t.Errorf("Nearest(%.20q) = %q, want %q", word, got, want)
		}
	}
}

func TestNewID(t *testing.T) {
	a, b := NewID(), NewID()
	if d := fullDefinition(); a == b {
		t.Errorf("two equal IDs: %s", a)
	} else if d.ID = a; d.Validate() != nil {
		t.Errorf("%q is not a valid ID", a)
	}
}

func TestMayPod(t *testing.T) {
	for _, test := range []struct {
		listed    []string
		namespace string
		may       bool
	}{
		{nil, "shop", false}, {nil, "", false}, {[]string{"shop"}, "shop", true}, {[]string{"shop"}, "bank", false},
		{[]string{"shop"}, "", false}, {[]string{"*"}, "bank", true}, {[]string{"*"}, "", true},
	} {
		d := fullDefinition()
		d.KubernetesNamespaces = test.listed
		if d.MayPod(test.namespace) != test.may {
			t.Errorf("%q listed, pod in %q: want %v", test.listed, test.namespace, test.may)
		}
	}
}
