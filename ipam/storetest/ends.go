package storetest

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/lanyard-net/lanyard/ipam"
)

var ends = []test{
	{"a release frees all addresses of the owner, and no other", func(s *store) {
		s.mustClaim("a", "192.168.50.9")
		s.mustClaim("a", "192.168.50.11")
		s.mustClaim("b", "192.168.50.10")
		s.mustRelease("c", time.Minute)
		s.mustRelease("a", 0)
		s.mustRelease("a", 0)
		s.want(held("b", "192.168.50.10"))
		s.mustClaim("b", "192.168.50.9")
	}},
	{"a release in an unknown pool", func(s *store) {
		s.mustRelease("a", time.Minute)
		s.want()
	}},
	{"a quarantine keeps automatic claims out until it ends", func(s *store) {
		p := pool("192.168.50.0/29") // .1 to .6
		s.mustClaim("a", "192.168.50.1")
		s.mustRelease("a", 30*time.Second)
		until := s.Now().Add(30 * time.Second)
		s.want(in(ipam.Quarantined, leaseOf("a", "192.168.50.1"), until))
		s.wantNext(p, lease("b"), "192.168.50.2")
		s.mustRelease("b", 0)
		s.move(30*time.Second - 1)
		s.wantNext(p, leaseOf("c", "192.168.50.1"), "192.168.50.2")
		s.move(1)
		s.wantNext(p, leaseOf("d", "192.168.50.1"), "192.168.50.1")
		s.want(held("d", "192.168.50.1"), held("c", "192.168.50.2"))
	}},
	{"a pool without a free address ends the oldest quarantine", func(s *store) {
		p := pool("192.168.50.0/29", "192.168.50.0/30") // .1 to .3
		for i, addr := range []string{"192.168.50.1", "192.168.50.2", "192.168.50.3"} {
			s.wantNext(p, lease(fmt.Sprint(i)), addr)
		}
		s.mustClaim("outside", "192.168.50.5")
		for _, id := range []string{"outside", "1", "2", "0"} {
			s.mustRelease(id, 30*time.Second)
			s.move(time.Second)
		}
		last := s.Now().Add(29 * time.Second)
		s.wantNext(p, lease("x"), "192.168.50.2")
		s.wantNext(p, lease("y"), "192.168.50.3")
		s.want(in(ipam.Quarantined, leaseOf("0", "192.168.50.1"), last), held("x", "192.168.50.2"),
			held("y", "192.168.50.3"), in(ipam.Quarantined, leaseOf("outside", "192.168.50.5"), last.Add(-3*time.Second)))
		s.wantNext(p, lease("z"), "192.168.50.1")
		s.wantFull(p, 3, 1, 0)
		s.move(time.Hour) // the former ends of the quarantines have no effect
		s.want(held("z", "192.168.50.1"), held("x", "192.168.50.2"), held("y", "192.168.50.3"))
	}},
	{"a pool without a free address gives a quarantined one to its last holder first", func(s *store) {
		p := pool("192.168.50.0/29", "192.168.50.0/30") // .1 to .3
		for _, id := range []string{"a", "b", "c"} {
			s.mustNext(p, lease(id))
		}
		for _, id := range []string{"a", "b", "c"} {
			s.mustRelease(id, 30*time.Second)
			s.move(time.Second)
		}
		again := lease("c2")
		again.Name = "cc"
		s.wantNext(p, again, "192.168.50.3")
		renamed := lease("b2") // the name of another holder, and another MAC
		renamed.Name, renamed.MAC = "cb", "02:00:00:00:00:01"
		s.wantNext(p, renamed, "192.168.50.1")
		nameless := lease("n")
		nameless.Name = ""
		s.wantNext(p, nameless, "192.168.50.2")
		s.wantFull(p, 3, 0, 0)
	}},
	{"a pool of one address", func(s *store) {
		p := pool("192.168.50.0/24", "192.168.50.9/32")
		for _, id := range []string{"a", "b", "c"} {
			s.wantNext(p, lease(id), "192.168.50.9")
			s.wantFull(p, 1, 0, 0)
			s.mustRelease(id, 30*time.Second)
		}
	}},
	{"a declined or reserved address does not leave its quarantine", func(s *store) {
		p := pool("192.168.50.0/30")
		s.wantNext(p, lease("a"), "192.168.50.1")
		s.mustDecline("a", "192.168.50.1", 10*time.Second) // ends first
		s.wantNext(p, lease("a"), "192.168.50.2")
		s.mustRelease("a", 30*time.Second)
		s.wantFull(pool("192.168.50.0/30", "192.168.50.2=gateway"), 0, 1, 1)
		s.wantNext(p, lease("b"), "192.168.50.2")
		s.wantFull(p, 1, 0, 1)
	}},
	{"releasing again does not make a quarantine longer", func(s *store) {
		s.mustClaim("a", "192.168.50.9")
		s.mustRelease("a", 30*time.Second)
		until := s.Now().Add(30 * time.Second)
		s.move(20 * time.Second)
		s.mustRelease("a", 30*time.Second)
		s.want(in(ipam.Quarantined, leaseOf("a", "192.168.50.9"), until))
	}},
	{"a claim of a quarantined address succeeds at once", func(s *store) {
		s.mustClaim("a", "192.168.50.9")
		s.mustRelease("a", 30*time.Second)
		other := leaseOf("b", "192.168.50.9") // another name, another MAC
		other.MAC = "02:00:00:00:00:01"
		if err := s.Claim(s.Context(), s.pool, other); err != nil {
			s.Fatal(err)
		}
		s.move(time.Hour) // the former end of the quarantine has no effect
		s.want(in(ipam.Held, other, time.Time{}))
		s.wantTaken(leaseOf("a", "192.168.50.9"), `"cb"`)
	}},
	{"next skips an address in quarantine while another is free", func(s *store) {
		p := pool("192.168.50.0/30")
		s.wantNext(p, lease("a"), "192.168.50.1")
		s.mustRelease("a", 30*time.Second)
		s.wantNext(p, lease("b"), "192.168.50.2")
		s.mustRelease("b", 0)
		s.wantNext(p, lease("c"), "192.168.50.2")
		s.move(30 * time.Second)
		s.wantNext(p, lease("d"), "192.168.50.1")
		s.want(held("d", "192.168.50.1"), held("c", "192.168.50.2"))
	}},
	{"a declined address is refused for a time, also to its last owner", func(s *store) {
		p := pool("192.168.50.0/30")
		s.wantNext(p, lease("a"), "192.168.50.1")
		s.mustDecline("a", "192.168.50.1", 10*time.Minute)
		until := s.Now().Add(10 * time.Minute)
		s.want(in(ipam.Declined, leaseOf("a", "192.168.50.1"), until))
		s.wantTaken(leaseOf("a", "192.168.50.1"), "another station on the LAN", until.Format(time.TimeOnly))
		s.wantNext(p, lease("a"), "192.168.50.2")
		s.wantFull(p, 1, 0, 1)
		s.mustRelease("a", 0)
		s.want(in(ipam.Declined, leaseOf("a", "192.168.50.1"), until))
		s.move(10 * time.Minute)
		s.want()
		s.mustClaim("b", "192.168.50.1")
	}},
	{"only its holder can decline an address, also twice", func(s *store) {
		s.mustClaim("a", "192.168.50.9")
		s.mustClaim("b", "192.168.50.10")
		s.mustRelease("b", time.Minute)
		before := s.Now().Add(time.Minute)
		for _, c := range []struct{ id, addr string }{{"b", "192.168.50.9"}, {"a", "192.168.50.77"}, {"b", "192.168.50.10"}} {
			err := s.Decline(s.Context(), s.pool, netip.MustParseAddr(c.addr), lease(c.id).Owner, time.Minute)
			if err == nil {
				s.Fatalf("decline %s of %s: no error", c.addr, c.id)
			}
			wantWords(s, err, c.addr)
		}
		s.want(held("a", "192.168.50.9"), in(ipam.Quarantined, leaseOf("b", "192.168.50.10"), before))
		s.mustDecline("a", "192.168.50.9", time.Hour)
		until := s.Now().Add(time.Hour)
		s.move(time.Minute)
		s.mustDecline("a", "192.168.50.9", time.Hour)
		s.want(in(ipam.Declined, leaseOf("a", "192.168.50.9"), until))
	}},
	{"many quarantines that end at the same time", func(s *store) {
		p := pool("192.168.48.0/22")
		for i := range 300 {
			s.mustNext(p, lease(fmt.Sprint(i)))
			s.mustRelease(fmt.Sprint(i), time.Second)
		}
		if c, err := s.Count(s.Context(), s.pool); err != nil || c.Quarantined != 300 {
			s.Fatalf("count: %+v, %v", c, err)
		}
		s.move(time.Second)
		s.want()
		s.mustClaim("x", "192.168.48.200")
		s.want(held("x", "192.168.48.200"))
	}},
	{"a pool full of quarantines that have ended", func(s *store) {
		p := pool("192.168.50.0/24")
		for i := range 254 {
			s.mustNext(p, lease(fmt.Sprint(i)))
		}
		s.wantFull(p, 254, 0, 0)
		for i := range 254 {
			s.mustRelease(fmt.Sprint(i), time.Second)
		}
		s.move(time.Second)
		last := leaseOf("x", "192.168.50.254")
		s.wantNext(p, last, "192.168.50.254")
		s.want(in(ipam.Held, last, time.Time{}))
	}},
	{"removing a pool", func(s *store) {
		p := pool("192.168.50.0/24")
		s.wantNext(p, lease("a"), "192.168.50.1")
		s.mustClaim("b", "192.168.50.9")
		s.mustRelease("b", time.Hour)
		for range 2 {
			if err := s.RemovePool(s.Context(), s.pool); err != nil {
				s.Fatal(err)
			}
			s.want()
		}
		s.wantNext(p, lease("c"), "192.168.50.1") // the cursor is removed, too
	}},
}
