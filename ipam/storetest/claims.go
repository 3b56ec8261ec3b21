package storetest

import (
	"net/netip"
	"strings"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
)

var claims = []test{
	{"a claim is kept with all fields", func(s *store) {
		s.want()
		s.mustClaim("a", "192.168.50.9")
		s.want(held("a", "192.168.50.9"))
	}},
	{"state and time of a claim are ignored", func(s *store) {
		l := in(ipam.Declined, leaseOf("a", "192.168.50.9"), s.Now().Add(-time.Hour))
		if err := s.Claim(s.Context(), s.pool, l); err != nil {
			s.Fatal(err)
		}
		s.want(held("a", "192.168.50.9"))
	}},
	{"the same owner again changes nothing", func(s *store) {
		s.mustClaim("a", "192.168.50.9")
		again := leaseOf("a", "192.168.50.9")
		again.Name, again.MAC = "other", ""
		if err := s.Claim(s.Context(), s.pool, again); err != nil {
			s.Fatal(err)
		}
		s.want(held("a", "192.168.50.9"))
	}},
	{"another owner is refused, and the error names the holder", func(s *store) {
		s.mustClaim("a", "192.168.50.9")
		s.wantTaken(leaseOf("b", "192.168.50.9"), `"ca"`, "attachment a", "held")
		s.want(held("a", "192.168.50.9"))
	}},
	{"a holder without a name is named by its attachment", func(s *store) {
		l := leaseOf("a", "192.168.50.9")
		l.Name = ""
		if err := s.Claim(s.Context(), s.pool, l); err != nil {
			s.Fatal(err)
		}
		s.wantTaken(leaseOf("b", "192.168.50.9"), "attachment a")
	}},
	{"every field makes another owner", func(s *store) {
		s.mustClaim("a", "192.168.50.9")
		for _, o := range []ipam.Owner{
			{Attachment: "a", Network: "web50", Interface: "eth1"},
			{Attachment: "a", Network: "web60", Interface: "eth0"},
			{Attachment: "", Network: "aweb50", Interface: "eth0"},
		} {
			l := leaseOf("a", "192.168.50.9")
			l.Owner = o
			s.wantTaken(l)
		}
	}},
	{"hostile names are different owners", func(s *store) {
		owners := []ipam.Owner{
			{Attachment: "a", Network: "b", Interface: "c"},
			{Attachment: "a\x00b", Network: "", Interface: "c"},
			{Attachment: "a", Network: "b\x00c", Interface: ""},
			{Attachment: `a""b`, Network: "", Interface: `c`},
			{Attachment: "a/b", Network: "c", Interface: "\n%q\\"},
			{},
		}
		for i, o := range owners {
			l := ipam.Lease{Owner: o, Addr: netip.AddrFrom4([4]byte{192, 168, 50, byte(10 + i)})}
			if err := s.Claim(s.Context(), s.pool, l); err != nil {
				s.Fatal(err)
			}
		}
		for i, o := range owners {
			if err := s.Release(s.Context(), s.pool, o, 0); err != nil {
				s.Fatal(err)
			}
			if c, err := s.Count(s.Context(), s.pool); err != nil || c.Held != len(owners)-1-i {
				s.Fatalf("after the release of %q: %+v, %v", o, c, err)
			}
		}
	}},
	{"text that is not UTF-8 is refused", func(s *store) {
		bad := "a\xffb"
		for _, l := range []ipam.Lease{
			{Owner: ipam.Owner{Attachment: bad}},
			{Owner: ipam.Owner{Network: bad}},
			{Owner: ipam.Owner{Interface: bad}},
			{Name: bad},
			{MAC: bad},
		} {
			if a, err := s.Next(s.Context(), s.pool, pool("192.168.50.0/24"), l); err == nil {
				s.Errorf("next of %+v: got %s", l, a)
			}
			l.Addr = netip.MustParseAddr("192.168.50.9")
			if err := s.Claim(s.Context(), s.pool, l); err == nil {
				s.Errorf("claim of %+v: no error", l)
			} else {
				wantWords(s, err, `a\xffb`)
			}
		}
		s.want()
	}},
	{"one owner may claim several addresses", func(s *store) {
		s.mustClaim("a", "192.168.50.20")
		s.mustClaim("a", "192.168.50.9")
		s.want(held("a", "192.168.50.9"), held("a", "192.168.50.20"))
	}},
	{"leases come in the order of addresses", func(s *store) {
		s.mustClaim("a", "192.168.50.100")
		s.mustClaim("b", "192.168.50.9")
		s.mustClaim("c", "192.168.50.20")
		s.want(held("b", "192.168.50.9"), held("c", "192.168.50.20"), held("a", "192.168.50.100"))
	}},
	{"an address has one spelling", func(s *store) {
		for _, a := range []string{"::ffff:192.168.50.9", "fe80::1%eth0"} {
			if err := s.Claim(s.Context(), s.pool, leaseOf("a", a)); err == nil {
				s.Errorf("claim of %s: no error", a)
			}
			if _, err := s.Next(s.Context(), s.pool, pool("192.168.50.0/24"), leaseOf("a", a)); err == nil {
				s.Errorf("next from %s on: no error", a)
			}
		}
		if err := s.Claim(s.Context(), s.pool, lease("a")); err == nil {
			s.Error("claim of no address: no error")
		}
		s.want()
	}},
	{"pools do not affect each other", func(s *store) {
		s.mustClaim("a", "192.168.50.9")
		first := s.pool
		for _, other := range []string{"web50/192.168.50.0/2", "web50", "w", "web50/192.168.50.0/24\x00", "öäü \n\"%", "",
			"\xff", "\\xff", strings.Repeat("long", 10_000)} {
			s.pool = other
			s.want()
			s.mustClaim("b", "192.168.50.9")
			s.wantNext(pool("192.168.50.8/29"), lease("c"), "192.168.50.10")
			s.mustRelease("a", 0)
			s.want(held("b", "192.168.50.9"), held("c", "192.168.50.10"))
			if err := s.RemovePool(s.Context(), other); err != nil {
				s.Fatal(err)
			}
			s.want()
		}
		s.pool = first
		s.want(held("a", "192.168.50.9"))
	}},
}
