package network

import (
	"fmt"
	"slices"
)

// Drivers are the types of link for a network's containers.
const (
	DriverMacvlan = "macvlan" // each container has a MAC of its own
	DriverIPvlan  = "ipvlan"  // all use the parent's MAC, for switch ports that accept only one
)

// driver is what a definition may say for a type of link.
type driver struct {
	name  string
	modes []string
	flags []string // nil: it has none
}

var drivers = []driver{
	{DriverMacvlan, []string{string(ModeBridge), string(ModePrivate), string(ModeVEPA), string(ModePassthru)}, nil},
	{DriverIPvlan, []string{string(ModeL2), string(ModeL3), string(ModeL3S)},
		[]string{string(ModeBridge), string(ModePrivate), string(ModeVEPA)}},
}

// Drivers returns the names of all drivers.
func Drivers() (names []string) {
	for _, d := range drivers {
		names = append(names, d.name)
	}
	return names
}

// Modes returns the names of all modes.
func Modes() (names []string) {
	for _, d := range drivers {
		names = append(names, d.modes...)
	}
	return names
}

// Mode is a mode of the driver, with the name that ip-link(8) and Docker use.
type Mode string

const (
	ModeBridge   Mode = "bridge"
	ModePrivate  Mode = "private"
	ModeVEPA     Mode = "vepa"
	ModePassthru Mode = "passthru"
	ModeL2       Mode = "l2"
	ModeL3       Mode = "l3"
	ModeL3S      Mode = "l3s"
)

// Routed reports whether the host routes between the containers and the parent. Then no
// broadcasts leave, there is no ARP, and the network has no gateway.
func (d *Definition) Routed() bool { return d.Mode == ModeL3 || d.Mode == ModeL3S }

// SharesMAC reports whether the containers' interfaces have the parent's MAC.
func (d *Definition) SharesMAC() bool { return d.Driver == DriverIPvlan || d.Mode == ModePassthru }

// IPvlanFlag returns Flag, or the default if that is empty.
func (d *Definition) IPvlanFlag() Mode {
	if d.Flag == "" {
		return ModeBridge
	}
	return d.Flag
}

// VLANProto is the protocol of a VLAN tag, with the name that ip-link(8) uses, in lower case.
type VLANProto string

const (
	VLANProto8021Q  VLANProto = "802.1q"
	VLANProto8021AD VLANProto = "802.1ad" // provider bridges: the outer tag of QinQ
)

var vlanProtos = []string{string(VLANProto8021Q), string(VLANProto8021AD)}

// TPID returns the protocol's EtherType (IEEE 802.1Q-2018, table 9-1).
func (p VLANProto) TPID() uint16 {
	if p == VLANProto8021AD {
		return 0x88a8
	}
	return 0x8100
}

// DummyParent returns the name of the dummy link that is the parent of a network without one.
// It has 15 bytes, the maximum of Linux. id is the network's, of 16 digits.
func DummyParent(id string) string { return "dm-" + id[:12] }

// Dummy reports whether the parent is the network's own dummy.
func (d *Definition) Dummy() bool { return len(d.ID) == 16 && d.Parent == DummyParent(d.ID) }

func (d *Definition) validDriver() error {
	if err := oneOf(d.Driver, Drivers()); err != nil {
		return fmt.Errorf("driver: %w", err)
	}
	if err := validLinkName(d.Parent); err != nil {
		return fmt.Errorf("parent: %w", err)
	}
	if err := d.validMode(); err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	if d.Mode == ModePassthru && d.ShareParent {
		return fmt.Errorf("share-parent: is not possible: mode passthru needs the parent exclusively")
	}
	if err := d.validFlag(); err != nil {
		return fmt.Errorf("flag: %w", err)
	}
	if d.VLANProto != "" {
		if err := oneOf(string(d.VLANProto), vlanProtos); err != nil {
			return fmt.Errorf("vlan-proto: %w", err)
		}
	}
	return nil
}

// driver returns what the definition may say. Its driver must be valid.
func (d *Definition) driver() driver { return drivers[slices.Index(Drivers(), d.Driver)] }

func (d *Definition) validMode() error {
	for _, of := range drivers {
		if of.name == d.Driver {
			continue
		}
		if slices.Contains(of.modes, string(d.Mode)) {
			return fmt.Errorf("%q is for driver %s, and the driver is %s", d.Mode, of.name, d.Driver)
		}
	}
	return oneOf(string(d.Mode), d.driver().modes)
}

func (d *Definition) validFlag() error {
	flags := d.driver().flags
	switch {
	case d.Flag == "":
		return nil
	case flags == nil:
		return fmt.Errorf("%s is for driver %s: omit it, or set it as mode", Clip(string(d.Flag)), DriverIPvlan)
	}
	return oneOf(string(d.Flag), flags)
}

// validRouted rejects gateways and routes if the host routes.
func (d *Definition) validRouted() error {
	if !d.Routed() {
		return nil
	}
	for i, s := range d.Subnets {
		if s.Gateway.IsValid() {
			return fmt.Errorf("subnets[%d].gateway: mode %s has no gateway, because the host routes: omit it", i, d.Mode)
		}
	}
	if len(d.Routes) > 0 {
		return fmt.Errorf("routes: mode %s has no routers, because the host routes: omit them", d.Mode)
	}
	return nil
}
