package netavark

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// The types of netavark's plugin API 1.0.0 (plugin-API.md, src/network/types.rs), as far as the
// plugin uses them.

// input is what setup and teardown read.
type input struct {
	Container string        `json:"container_id"`
	Name      string        `json:"container_name"`
	Network   podmanNetwork `json:"network"`
	Options   struct {
		Interface string       `json:"interface_name"`
		StaticIPs []netip.Addr `json:"static_ips"`
		StaticMAC string       `json:"static_mac"`
	} `json:"network_options"`
}

// podmanNetwork is a network of podman.
type podmanNetwork struct {
	Name      string            `json:"name"`
	Interface string            `json:"network_interface"`
	Internal  bool              `json:"internal"`
	Subnets   []any             `json:"subnets"`
	Routes    []any             `json:"routes"`
	Options   map[string]string `json:"options"`
}

// status is the output of setup.
type status struct {
	Search     []string                `json:"dns_search_domains"`
	Servers    []netip.Addr            `json:"dns_server_ips"`
	Interfaces map[string]netInterface `json:"interfaces"`
}

type netInterface struct {
	MAC     string       `json:"mac_address"`
	Subnets []netAddress `json:"subnets"`
}

type netAddress struct {
	IPNet   netip.Prefix `json:"ipnet"`
	Gateway *netip.Addr  `json:"gateway,omitempty"`
}

// holder returns the id of a container's reference to its attachment. A container can be on several
// networks of podman, and names of interfaces and networks have no colon. CNI names networks without a
// slash: its garbage collection must not take podman's containers for its own.
func (e *input) holder() string {
	return e.Container + ":" + e.Options.Interface + ":podman/" + e.Network.Name
}

// options are the keys of "podman network create -o".
var options = []string{"network", "mtu", "verify", "default-route"}

// want returns what a container on the network requests.
func (p *podmanNetwork) want() (w hook.Want, err error) {
	for k := range p.Options {
		if !slices.Contains(options, k) {
			return w, fmt.Errorf("option %s is unknown: use %s", network.Clip(k), strings.Join(options, ", "))
		}
	}
	if w.Network = p.Options["network"]; w.Network == "" {
		return w, fmt.Errorf(`option network is missing: name a network of "lanyard network ls": -o network=web50`)
	}
	if v, set := p.Options["mtu"]; set {
		if w.MTU, err = strconv.Atoi(v); err != nil {
			return w, fmt.Errorf("option mtu: %s is not a number of bytes", network.Clip(v))
		}
	}
	if v, set := p.Options["verify"]; set {
		if w.Verify, err = verify.ParseMode(v); err != nil {
			return w, fmt.Errorf("option verify: %w", err)
		}
	}
	if v, set := p.Options["default-route"]; set {
		takes, err := strconv.ParseBool(v)
		if err != nil {
			return w, fmt.Errorf("option default-route: %s is neither true nor false", network.Clip(v))
		}
		w.Default = &takes
	}
	return w, w.Validate()
}
