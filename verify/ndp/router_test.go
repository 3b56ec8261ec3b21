package ndp_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/lanyard-net/lanyard/verify/ndp"
)

const (
	fe80    = "fe800000000000000800 00fffe320001"
	routers = "ff020000000000000000000000000002"
	toAllR  = "333300000002 0a0000320001 86dd "
	// Hop limit 64, no flags, lifetime half an hour; option with the router's MAC.
	advertR = toAll + "60000000 0018 3aff" + fe80 + nodes + "86 00 0000 40 00 0708 00000000 00000000" +
		"01 01 0a0000320001"
)

var linkLocal = netip.MustParseAddr("fe80::800:ff:fe32:1")

func TestRouterFrames(t *testing.T) {
	solicitation := toAllR + "60000000 0010 3aff" + fe80 + routers + "85 00 0000 00000000" + "01 01 0a0000320001"
	for want, r := range map[string]ndp.Router{
		solicitation: {Source: peer, From: linkLocal},
		toAllR + "60000000 0008 3aff" + none + routers + "85 00 0000 00000000": {
			Source: peer, From: netip.IPv6Unspecified(),
		},
		toAll + "60000000 0018 3aff" + fe80 + nodes + "86 00 0000 00 00 0708 00000000 00000000" + "01 01 0a0000320001": {
			Source: peer, From: linkLocal, Advert: true, Lifetime: 30 * time.Minute,
		},
	} {
		frame, err := r.Frame()
		if want := sum(unhex(t, want)); err != nil || string(frame) != string(want) {
			t.Errorf("%+v is\n%x, %v; want\n%x", r, frame, err, want)
		}
		got, err := ndp.ParseRouter(frame)
		if err != nil || got != r {
			t.Errorf("%+v was read as %+v, %v", r, got, err)
		}
	}
	got, err := ndp.ParseRouter(sum(unhex(t, advertR)))
	if want := (ndp.Router{Source: peer, From: linkLocal, Advert: true, Lifetime: 30 * time.Minute}); err != nil ||
		got != want {
		t.Errorf("read as %+v, %v; want %+v", got, err, want)
	}
}

var malformedR = map[string]string{
	"from a global address": toAll + "60000000 0010 3aff" + gateway + nodes + "86 00 0000 40 00 0708 00000000 00000000",
	"hop limit 254":         toAll + "60000000 0010 3afe" + fe80 + nodes + "86 00 0000 40 00 0708 00000000 00000000",
	"cut":                   toAll + "60000000 000c 3aff" + fe80 + nodes + "86 00 0000 40 00 0708 00000000",
	"code 1":                toAll + "60000000 0010 3aff" + fe80 + nodes + "86 01 0000 40 00 0708 00000000 00000000",
	"option of length 0": toAll + "60000000 0018 3aff" + fe80 + nodes + "86 00 0000 40 00 0708 00000000 00000000 " +
		"0100 0a0000320001",
	"neighbour message": advert,
	"from a group":      toAllR + "60000000 0008 3aff" + nodes + routers + "85 00 0000 00000000",
	"no source MAC":     "333300000002 000000000000 86dd 60000000 0008 3aff" + fe80 + routers + "85 00 0000 00000000",
}

func TestMalformedRouter(t *testing.T) {
	for name, frame := range malformedR {
		if r, err := ndp.ParseRouter(sum(unhex(t, frame))); err == nil {
			t.Errorf("%s: read as %+v", name, r)
		}
	}
}

// FuzzParseRouter checks for ParseRouter what FuzzParse checks for Parse.
func FuzzParseRouter(f *testing.F) {
	for _, frame := range malformedR {
		f.Add(unhex(f, frame))
	}
	f.Add(unhex(f, advertR))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) >= 58 && len(frame) < 256 {
			frame = sum(frame)
		}
		r, err := ndp.ParseRouter(frame)
		if err != nil {
			return
		}
		again, err := r.Frame()
		if err != nil {
			t.Fatalf("%+v was read but cannot be written: %v", r, err)
		}
		if got, err := ndp.ParseRouter(again); err != nil || got != r {
			t.Fatalf("written back as %+v, %v for %+v", got, err, r)
		}
	})
}
