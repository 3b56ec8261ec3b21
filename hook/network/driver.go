package network

import "fmt"

// DriverMacvlan is the kind of link that a network's containers get.
const DriverMacvlan = "macvlan"

// Mode is a macvlan mode, spelt as ip-link(8) and Docker spell it.
type Mode string

const (
	ModeBridge   Mode = "bridge"
	ModePrivate  Mode = "private"
	ModeVEPA     Mode = "vepa"
	ModePassthru Mode = "passthru"
)

var modes = []string{string(ModeBridge), string(ModePrivate), string(ModeVEPA), string(ModePassthru)}

// VLANProto is the protocol of a VLAN tag, spelt as ip-link(8) spells it but for
// the case.
type VLANProto string

const (
	VLANProto8021Q  VLANProto = "802.1q"
	VLANProto8021AD VLANProto = "802.1ad" // provider bridges: the outer tag of QinQ
)

var vlanProtos = []string{string(VLANProto8021Q), string(VLANProto8021AD)}

// TPID is the protocol as it stands in a frame (IEEE 802.1Q-2018, table 9-1).
func (p VLANProto) TPID() uint16 {
	if p == VLANProto8021AD {
		return 0x88a8
	}
	return 0x8100
}

// DummyParent is the name of the parent of a network that names none: a dummy
// that is the network's own. It has the 15 bytes that Linux allows.
func DummyParent(id string) string { return "dm-" + id[:12] }

// Dummy says whether the parent is the network's own dummy.
func (d *Definition) Dummy() bool { return len(d.ID) == 16 && d.Parent == DummyParent(d.ID) }

func (d *Definition) validDriver() error {
	if d.Driver != DriverMacvlan {
		return fmt.Errorf("driver: %s is not known; write %q", clip(d.Driver), DriverMacvlan)
	}
	if err := validLinkName(d.Parent); err != nil {
		return fmt.Errorf("parent: %w", err)
	}
	if err := oneOf(string(d.Mode), modes); err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	if d.VLANProto != "" {
		if err := oneOf(string(d.VLANProto), vlanProtos); err != nil {
			return fmt.Errorf("vlan-proto: %w", err)
		}
	}
	return nil
}
