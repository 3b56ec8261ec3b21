package lldp

import (
	"encoding/binary"
	"errors"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"
	"unicode"

	"github.com/lanyard-net/lanyard/hook/ether"
)

// tlv returns one TLV.
func tlv(kind int, value string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(kind<<9|len(value))), value...)
}

// frame returns a frame with these TLVs.
func frame(tlvs ...[]byte) []byte {
	header := []byte{1, 0x80, 0xc2, 0, 0, 0xe, 2, 0, 0, 0, 0, 1, 0x88, 0xcc}
	return append(header, slices.Concat(tlvs...)...)
}

var (
	chassis = tlv(tlvChassis, "\x04\x02\x00\x00\x00\x00\x07")
	port    = tlv(tlvPort, "\x07Gi1/0/7")
	ttl     = tlv(tlvTTL, "\x00\x78")
	end     = tlv(tlvEnd, "")
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		want  Neighbour
		err   error
	}{
		"all": {
			frame: frame(chassis, port, ttl, tlv(tlvSystemName, "sw-a"), tlv(tlvPortDescription, "uplink"),
				tlv(tlvOrganization, oui8021+"\x01\x00\x01"), tlv(tlvOrganization, oui8021+"\x03\x00\x32\x03web"),
				tlv(tlvOrganization, oui8021+"\x03\x00\x0a\x00"), tlv(tlvOrganization, oui8021+"\x03\x00\x32\x00"),
				tlv(tlvOrganization, "\x00\x12\x0f\x04\x05\xf2"), end),
			want: Neighbour{Switch: "sw-a", Port: "Gi1/0/7", PVID: 1, VLANs: []uint16{10, 50}},
		},
		"no name": {frame: frame(chassis, port, ttl, end), want: Neighbour{Switch: "02:00:00:00:00:07", Port: "Gi1/0/7"}},
		"tagged": {
			frame: append([]byte{1, 0x80, 0xc2, 0, 0, 0xe, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 50},
				frame(chassis, port, ttl, end)[12:]...),
			want: Neighbour{Switch: "02:00:00:00:00:07", Port: "Gi1/0/7"},
		},
		"addresses": {
			frame: frame(tlv(tlvChassis, "\x05\x01\xc0\xa8\x32\x01"), tlv(tlvPort, "\x03\x02\x00\x00\x00\x00\x09"), ttl, end),
			want:  Neighbour{Switch: "192.168.50.1", Port: "02:00:00:00:00:09"},
		},
		"control characters": {
			frame: frame(chassis, tlv(tlvPort, "\x07\x1b[2J\xff"), ttl, end),
			want:  Neighbour{Switch: "02:00:00:00:00:07", Port: "?[2J?"},
		},
		"VLANs 0 and 4095": {
			frame: frame(chassis, port, ttl, tlv(tlvOrganization, oui8021+"\x01\x0f\xff"),
				tlv(tlvOrganization, oui8021+"\x03\x00\x00\x00"), end),
			want: Neighbour{Switch: "02:00:00:00:00:07", Port: "Gi1/0/7"},
		},
		"leaving":      {frame: frame(chassis, port, tlv(tlvTTL, "\x00\x00"), end), err: ErrLeaves},
		"order":        {frame: frame(port, chassis, ttl, end), err: errOrder},
		"no end":       {frame: frame(chassis, port, ttl), err: errShort},
		"short TLV":    {frame: frame(chassis, port, ttl, []byte{0x0c, 0xff, 's'}), err: errShort},
		"short 802.1":  {frame: frame(chassis, port, ttl, tlv(tlvOrganization, oui8021+"\x03\x00"), end), err: errShort},
		"empty":        {err: errShort},
		"end at first": {frame: frame(end, end), err: errOrder},
	} {
		got, err := Parse(c.frame)
		if len(got.VLANs) == 0 {
			got.VLANs = nil
		}
		if c.err == nil {
			c.want.TTL = 120
		}
		if !errors.Is(err, c.err) || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestDiffers(t *testing.T) {
	n := Neighbour{Switch: "sw-a", Port: "7", PVID: 1, VLANs: []uint16{10, 50}}
	for _, c := range []struct {
		n    Neighbour
		tags ether.Tags
		want string
	}{
		{n, nil, ""},
		{n, ether.Tags{{TPID: ether.Dot1Q, VID: 50}}, ""},
		{n, ether.Tags{{TPID: ether.Dot1Q, VID: 50}, {TPID: ether.Dot1Q, VID: 60}}, ""},
		{n, ether.Tags{{TPID: ether.Dot1AD, VID: 60}}, ""},
		{Neighbour{}, ether.Tags{{TPID: ether.Dot1Q, VID: 60}}, ""},
		{n, ether.Tags{{TPID: ether.Dot1Q, VID: 60}},
			`port "7" of switch "sw-a" carries VLANs 10, 50, and not 60: add it there`},
		{n, ether.Tags{{TPID: ether.Dot1Q, VID: 1}},
			`VLAN 1 is the PVID of port "7" of switch "sw-a", for untagged frames: ` +
				`make it tagged there, or use the trunk itself as parent`},
	} {
		if got := c.n.Differs(c.tags); got != c.want {
			t.Errorf("%v: got %q", c.tags, got)
		}
	}
}

// FuzzParse checks that no frame makes Parse panic or return VLANs and texts that cannot be.
func FuzzParse(f *testing.F) {
	f.Add(frame(chassis, port, ttl, tlv(tlvSystemName, "sw-a"), tlv(tlvOrganization, oui8021+"\x03\x00\x32\x03web"), end))
	f.Add(frame(tlv(tlvChassis, "\x05\x01\xc0\xa8\x32\x01"), port, ttl, end))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Parse(b)
		if err != nil && !reflect.DeepEqual(n, Neighbour{}) {
			t.Errorf("an error and %+v", n)
		}
		if n.PVID > 4094 || !slices.IsSorted(n.VLANs) ||
			slices.ContainsFunc(n.VLANs, func(v uint16) bool { return v == 0 || v > 4094 }) {
			t.Errorf("PVID %d, VLANs %v", n.PVID, n.VLANs)
		}
		for _, r := range n.Switch + n.Port {
			if unicode.IsControl(r) {
				t.Errorf("texts %q and %q", n.Switch, n.Port)
			}
		}
	})
}

// TestLLDPD checks that the VLANs of lldpd are read as the frame's would be: it lists the PVID
// also if no VLAN is named so.
func TestLLDPD(t *testing.T) {
	n := heard{VLAN: []struct {
		ID   string `json:"vlan-id"`
		PVID bool   `json:"pvid"`
		Name string `json:"value"`
	}{{ID: "1", PVID: true}, {ID: "50", Name: "web"}, {ID: "x"}}}.neighbour()
	if n.PVID != 1 || !slices.Equal(n.VLANs, []uint16{50}) {
		t.Errorf("got %+v", n)
	}
}

func TestSays(t *testing.T) {
	vlan := func(vid uint16) ether.Tags { return ether.Tags{{TPID: ether.Dot1Q, VID: vid}} }
	n := Neighbour{Switch: "sw-a", Port: "7", PVID: 1, VLANs: []uint16{10, 50}}
	for _, c := range []struct {
		neighbour Neighbour
		tags      ether.Tags
		want      string
	}{
		{n, vlan(60), `port "7" of switch "sw-a" carries VLANs 10, 50, and not 60: add it there`},
		{Neighbour{Switch: "sw-a", Port: "7", VLANs: []uint16{10}}, vlan(60),
			`port "7" of switch "sw-a" carries VLAN 10, and not 60: add it there`},
		{n, vlan(50), `port "7" of switch "sw-a" carries VLAN 50: look at the ports behind it`},
		{n, vlan(1), `VLAN 1 is the PVID of port "7" of switch "sw-a", for untagged frames: make it tagged there, or use ` +
			`the trunk itself as parent`},
		{n, nil, `port "7" of switch "sw-a" has untagged frames in VLAN 1`},
		{Neighbour{Switch: "sw-a", Port: "7", VLANs: []uint16{10, 50}}, nil,
			`port "7" of switch "sw-a" names VLANs 10, 50, and none for untagged frames`},
		{n, ether.Tags{{TPID: ether.Dot1AD, VID: 60}},
			`it is port "7" of switch "sw-a", which names VLANs 10, 50 of 802.1Q only`},
		{Neighbour{Switch: "sw-a", Port: "7"}, vlan(50), `it is port "7" of switch "sw-a", which does not name its VLANs`},
		{Neighbour{Switch: "sw-a", Port: "7"}, nil, `it is port "7" of switch "sw-a", which does not name its VLANs`},
	} {
		if got := c.neighbour.Says(c.tags); got != c.want {
			t.Errorf("%v, %s: got %q, want %q", c.neighbour, c.tags, got, c.want)
		}
	}
}

func TestMemory(t *testing.T) {
	m := Memory(t.TempDir() + "/lldp")
	if n, _, err := m.Load("eth0"); n != nil || err != nil {
		t.Fatalf("nothing was heard, and Load returns %v, %v", n, err)
	}
	want := Neighbour{Switch: "sw-a", Port: "7", VLANs: []uint16{10}}
	for _, n := range []Neighbour{{Switch: "old", VLANs: []uint16{}}, want} {
		if err := m.Save("eth0", n); err != nil {
			t.Fatal(err)
		}
	}
	n, at, err := m.Load("eth0")
	if err != nil || !reflect.DeepEqual(*n, want) || time.Since(at) > time.Minute {
		t.Errorf("got %v at %v, %v, want %v", n, at, err, want)
	}
	left, err := os.ReadDir(string(m))
	if err != nil || len(left) != 1 {
		t.Errorf("files %v, %v, want one", left, err)
	}
}

// TestSaidAgo checks that what a frame says is not repeated as true when the frame is not valid any more.
func TestSaidAgo(t *testing.T) {
	n, err := Parse(frame(chassis, port, ttl, end))
	if err != nil || n.TTL != 120 {
		t.Fatalf("%+v, %v: want a TTL of 120 s", n, err)
	}
	n = Neighbour{Switch: "sw-a", Port: "7", VLANs: []uint16{50}, TTL: n.TTL}
	tags := ether.Tags{{TPID: ether.Dot1Q, VID: 50}}
	for age, want := range map[time.Duration]string{
		2 * time.Minute: `port "7" of switch "sw-a" carries VLAN 50: look at the ports behind it (heard 2m0s ago)`,
		3 * time.Minute: `it was port "7" of switch "sw-a" 3m0s ago: "lanyard lldp eth0" hears what it carries now`,
	} {
		if got := n.SaidAgo(age, "eth0", tags); got != want {
			t.Errorf("after %v: %s, want %s", age, got, want)
		}
	}
}
