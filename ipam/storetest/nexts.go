package storetest

import (
	"fmt"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
)

var nexts = []test{
	{"upwards from the first address, one by one", func(s *store) {
		p := pool("192.168.50.0/24", "192.168.50.1=gateway")
		for i, want := range []string{"192.168.50.2", "192.168.50.3", "192.168.50.4"} {
			s.wantNext(p, lease(fmt.Sprint(i)), want)
		}
	}},
	{"an owner has one address, and gets it again", func(s *store) {
		p := pool("192.168.50.0/24")
		s.wantNext(p, lease("a"), "192.168.50.1")
		s.wantNext(p, lease("a"), "192.168.50.1")
		s.wantNext(p, lease("b"), "192.168.50.2")
		s.want(held("a", "192.168.50.1"), held("b", "192.168.50.2"))
	}},
	{"a claimed address counts as the owner's", func(s *store) {
		s.mustClaim("a", "192.168.50.200")
		s.wantNext(pool("192.168.50.0/24", "192.168.50.0/25"), lease("a"), "192.168.50.200")
	}},
	{"a released address comes last", func(s *store) {
		p := pool("192.168.50.0/29") // .1 to .6
		for i := range 6 {
			s.wantNext(p, lease(fmt.Sprint(i)), fmt.Sprintf("192.168.50.%d", i+1))
			if i == 1 || i == 3 {
				s.mustRelease(fmt.Sprint(i), 0)
			}
		}
		s.wantNext(p, lease("x"), "192.168.50.2")
		s.wantNext(p, lease("y"), "192.168.50.4")
		s.wantFull(p, 6, 0, 0)
	}},
	{"claimed addresses are skipped", func(s *store) {
		p := pool("192.168.50.0/24")
		s.mustClaim("a", "192.168.50.1")
		s.mustClaim("b", "192.168.50.3")
		s.wantNext(p, lease("x"), "192.168.50.2")
		s.wantNext(p, lease("y"), "192.168.50.4")
	}},
	{"no gateway, aux, network or broadcast address", func(s *store) {
		p := pool("192.168.50.0/29", "192.168.50.1=gateway", `192.168.50.3=aux-address "r"`, `192.168.50.6=aux-address "s"`)
		for i, want := range []string{"192.168.50.2", "192.168.50.4", "192.168.50.5"} {
			s.wantNext(p, lease(fmt.Sprint(i)), want)
		}
		s.wantFull(p, 3, 0, 0)
	}},
	{"a range begins at its first address", func(s *store) {
		p := pool("192.168.32.0/24", "192.168.32.128/25", "192.168.32.254=gateway")
		s.wantNext(p, lease("a"), "192.168.32.128")
		s.wantNext(p, lease("b"), "192.168.32.129")
	}},
	{"nothing outside of a range, several times around", func(s *store) {
		p := pool("192.168.50.0/24", "192.168.50.64/30")
		for i, want := range []string{"192.168.50.64", "192.168.50.65", "192.168.50.66", "192.168.50.67", "192.168.50.64",
			"192.168.50.65"} {
			s.wantNext(p, lease(fmt.Sprint(i)), want)
			s.mustRelease(fmt.Sprint(i), 0)
		}
	}},
	{"several ranges, in the order of addresses", func(s *store) {
		p := pool("192.168.50.0/24", "192.168.50.252/30", "192.168.50.0/31", "192.168.50.16/32")
		for i, want := range []string{"192.168.50.1", "192.168.50.16", "192.168.50.252", "192.168.50.253", "192.168.50.254"} {
			s.wantNext(p, lease(fmt.Sprint(i)), want)
		}
		s.wantFull(p, 5, 0, 0)
	}},
	{"a range that has changed", func(s *store) {
		s.wantNext(pool("192.168.50.0/24", "192.168.50.128/25"), lease("a"), "192.168.50.128")
		s.wantNext(pool("192.168.50.0/24", "192.168.50.16/28"), lease("b"), "192.168.50.16")
		s.wantNext(pool("192.168.50.0/24"), lease("c"), "192.168.50.17")
	}},
	{"small prefixes, by their RFCs", func(s *store) {
		for subnet, want := range map[string][]string{
			"10.0.0.4/30":  {"10.0.0.5", "10.0.0.6"},
			"10.0.0.4/31":  {"10.0.0.4", "10.0.0.5"}, // RFC 3021
			"10.0.0.4/32":  {"10.0.0.4"},
			"fd11::4/126":  {"fd11::5", "fd11::6", "fd11::7"}, // no broadcast in IPv6
			"fd11::4/127":  {"fd11::4", "fd11::5"},            // RFC 6164
			"fd11::4/128":  {"fd11::4"},
			"10.0.0.0/30":  {"10.0.0.1", "10.0.0.2"},
			"0.0.0.0/31":   {"0.0.0.0", "0.0.0.1"},
			"ff00::/127":   {"ff00::", "ff00::1"},
			"10.0.15.0/30": {"10.0.15.1", "10.0.15.2"},
		} {
			s.pool = subnet
			p := pool(subnet)
			for i, a := range want {
				s.wantNext(p, lease(fmt.Sprint(i)), a)
			}
			s.wantFull(p, len(want), 0, 0)
		}
	}},
	{"the highest addresses", func(s *store) {
		for subnet, want := range map[string][]string{
			"255.255.255.252/30": {"255.255.255.253", "255.255.255.254", "255.255.255.253"},
			"255.255.255.254/31": {"255.255.255.254", "255.255.255.255", "255.255.255.254"},
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127": {
				"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
				"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"},
		} {
			s.pool = subnet
			for i, a := range want {
				s.wantNext(pool(subnet), lease(fmt.Sprint(i)), a)
				s.mustRelease(fmt.Sprint(i), 0)
			}
		}
	}},
	{"IPv6, also ranges that differ in the upper half", func(s *store) {
		p := pool("fd11::/48", "fd11:0:0:5::/64", "fd11:0:0:9::fffe/127", "fd11:0:0:5::1=gateway")
		s.wantNext(p, lease("a"), "fd11:0:0:5::")
		s.wantNext(p, lease("b"), "fd11:0:0:5::2")
		up := lease("c")
		up.Addr = pool("fd11:0:0:5:ffff:ffff:ffff:ffff/128").Subnet.Addr()
		s.wantNext(p, up, "fd11::5:ffff:ffff:ffff:ffff")
		up.Owner.Attachment = "d"
		s.wantNext(p, up, "fd11:0:0:9::fffe")
		s.wantNext(pool("fd11::/48"), lease("e"), "fd11:0:0:5::3")
	}},
	{"the subnet-router anycast address is not leased", func(s *store) {
		s.wantNext(pool("fd11::/64"), lease("a"), "fd11::1")
	}},
	{"over the borders of blocks of addresses", func(s *store) {
		p := pool("10.0.0.0/16", "10.0.15.252/30", "10.0.16.0/30", "10.0.32.0/31")
		for i, want := range []string{"10.0.15.252", "10.0.15.253", "10.0.15.254", "10.0.15.255", "10.0.16.0", "10.0.16.1",
			"10.0.16.2", "10.0.16.3", "10.0.32.0", "10.0.32.1"} {
			s.wantNext(p, lease(fmt.Sprint(i)), want)
		}
		s.wantFull(p, 10, 0, 0)
	}},
	{"a start address does not affect other owners", func(s *store) {
		p := pool("192.168.50.0/24", "192.168.50.1=gateway")
		s.wantNext(p, lease("a"), "192.168.50.2")
		s.wantNext(p, leaseOf("b", "192.168.50.77"), "192.168.50.77")
		s.wantNext(p, leaseOf("c", "192.168.50.77"), "192.168.50.78")
		s.wantNext(p, leaseOf("d", "192.168.50.254"), "192.168.50.254")
		s.wantNext(p, leaseOf("e", "192.168.50.254"), "192.168.50.3")
		s.wantNext(p, lease("f"), "192.168.50.4")
	}},
	{"a start that is not free begins above it", func(s *store) {
		p := pool("192.168.50.0/24", "192.168.50.64/26", "192.168.50.64=gateway")
		s.wantNext(p, leaseOf("a", "192.168.50.9"), "192.168.50.65")
		s.wantNext(p, leaseOf("b", "192.168.50.200"), "192.168.50.66")
		s.wantNext(p, leaseOf("c", "192.168.50.64"), "192.168.50.67")
		s.wantNext(p, leaseOf("d", "fd11::1"), "192.168.50.68")
	}},
	{"a start in quarantine goes back to its last holder at once", func(s *store) {
		p := pool("192.168.50.0/24")
		s.wantNext(p, leaseOf("a", "192.168.50.77"), "192.168.50.77")
		s.mustRelease("a", time.Minute)
		s.wantNext(p, leaseOf("b", "192.168.50.77"), "192.168.50.78")
		restarted := leaseOf("a2", "192.168.50.77")
		restarted.Name = "ca"
		s.wantNext(p, restarted, "192.168.50.77")
		s.want(in(ipam.Held, restarted, time.Time{}), held("b", "192.168.50.78"))
	}},
	{"an invalid pool is refused", func(s *store) {
		for _, p := range []ipam.Pool{
			{},
			pool("192.168.50.9/24"),
			pool("::ffff:192.168.50.0/120"),
			pool("192.168.50.0/24", "192.168.60.0/28"),
			pool("192.168.50.0/24", "192.168.0.0/16"),
			pool("192.168.50.0/24", "fd11::/64"),
			pool("192.168.50.0/24", "192.168.50.64/26", "192.168.50.0/25"),
		} {
			if a, err := s.Next(s.Context(), s.pool, p, lease("a")); err == nil {
				s.Errorf("next of %s: got %s", p, a)
			}
		}
		s.want()
	}},
}
