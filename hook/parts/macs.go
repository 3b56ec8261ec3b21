package parts

import (
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/ipam"
)

// HostMAC returns the MAC of the host's own link on a network. No container gets it, and it is the
// same after a boot.
func (p *Parts) HostMAC(def *network.Definition) (ether.MAC, error) {
	return p.DerivedMAC(def.ID, "host")
}

// HostLinkName returns the name of the host's own link on a network, or "" without host access.
func HostLinkName(def *network.Definition) string {
	if !def.HostAccess {
		return ""
	}
	return def.HostLink()
}

// HostMACs returns the MACs of the host's own links on networks.
func (p *Parts) HostMACs(defs []*network.Definition) (macs []ether.MAC, err error) {
	for _, d := range defs {
		if !d.HostAccess {
			continue
		}
		mac, err := p.HostMAC(d)
		if err != nil {
			return nil, err
		}
		macs = append(macs, mac)
	}
	return macs, nil
}

// DerivedMAC derives a MAC from the host's identity, the network and a name. No other host derives
// it.
func (p *Parts) DerivedMAC(network, name string) (ether.MAC, error) {
	id, err := p.HostID()
	if err != nil {
		return ether.MAC{}, err
	}
	return ipam.DerivedMAC(id[:], network, name), nil
}

// DerivedSecret derives the secret of addresses (RFC 7217) in the same way.
func (p *Parts) DerivedSecret(network, name string) (secret [16]byte, err error) {
	id, err := p.HostID()
	if err != nil {
		return secret, err
	}
	return ipam.DerivedSecret(id[:], network, name), nil
}
