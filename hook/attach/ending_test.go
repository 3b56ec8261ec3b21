package attach_test

import (
	"net/netip"
	"testing"

	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/testenv"
)

// TestLastAnswerOfEndedContainer starts a container with the address of one that was killed without
// poststop. The interface of the killed container answers once more, and the kernel has deleted it when
// the attach looks for it. That is no conflict, whatever the two containers requested. A station that
// answers again is one.
func TestLastAnswerOfEndedContainer(t *testing.T) {
	const first, second, addr = "mac=02:00:00:00:00:31", "mac=02:00:00:00:00:32", "192.168.50.9"
	guarded := func(d *network.Definition) { d.Guard = network.On }
	for name, test := range map[string]struct {
		edit          func(*network.Definition)
		before, after []string
		recreated     bool
	}{
		"another MAC":         {nil, []string{first}, []string{second}, false},
		"a MAC, then none":    {nil, []string{first}, nil, false},
		"no MAC, then one":    {nil, nil, []string{second}, false},
		"another interface":   {nil, []string{"interface=lan0"}, []string{"interface=lan1", second}, false},
		"guarded":             {guarded, []string{first}, []string{second}, false},
		"a recreated network": {nil, []string{first}, []string{second}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := lan(t, test.edit)
			if test.recreated { // another network keeps the trunk watched
				w.Define("other", w.Trunk, func(d *network.Definition) { d.ShareParent = true }, "192.168.60.0/24")
			}
			dead := testenv.NewContainer(t)
			w.MustAttach("c1", dead, append(test.before, "network=web", "ip="+addr)...)
			mac := w.Record().MAC
			dead.End(t)
			if test.recreated {
				w.RemoveNetwork("web")
				w.Define("web", w.Trunk, func(d *network.Definition) { d.ShareParent = true }, "192.168.50.0/24")
			}
			answersLeft := 1
			station := w.AddClaimant(0, "192.168.50.77/24").Respond(func(q testenv.Asked) []testenv.Reply {
				if q.Addr != netip.MustParseAddr(addr) || answersLeft == 0 {
					return nil
				}
				answersLeft--
				return []testenv.Reply{{MAC: mac}}
			})
			defer station.Stop()
			w.MustAttach("c2", testenv.NewContainer(t), append(test.after, "network=web", "ip="+addr)...)
			if a := w.Record(); a.Addrs[0].Addr().String() != addr || a.Containers[0].ID != "c2" {
				t.Errorf("attached is %+v", a)
			}
		})
	}
}

// TestStationWithMACOfEndedContainer checks that another station is a conflict also if it has the MAC
// of a container that has just ended.
func TestStationWithMACOfEndedContainer(t *testing.T) {
	w, _ := lan(t, nil)
	before := w.Links(w.Host)
	dead := testenv.NewContainer(t)
	w.MustAttach("c1", dead, "network=web", "ip=192.168.50.9", "mac=02:00:00:00:00:31")
	dead.End(t)
	station := w.AddClaimant(0, "192.168.50.9/24")
	station.SetMAC(ether.MAC{2, 0, 0, 0, 0, 0x31})
	w.Refused("a station", w.Attach("c2", testenv.NewContainer(t), "network=web", "ip=192.168.50.9",
		"mac=02:00:00:00:00:32"), 1, "address-conflict", "02:00:00:00:00:31")
	w.WantNothing("web", before)
}
