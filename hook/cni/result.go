package cni

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/network"
)

// encode returns the result of an ADD in the configuration's version of CNI.
func encode(c *config, def *network.Definition, a hook.Attachment, netns string) ([]byte, error) {
	r, err := resultOf(c, def, a, netns)
	if err != nil {
		return nil, err
	}
	versioned, err := r.GetAsVersion(c.CNIVersion)
	if err != nil {
		return nil, err
	}
	return json.Marshal(versioned)
}

// resultOf returns the result of an ADD: that of the plugins before this one, and the attachment.
func resultOf(c *config, def *network.Definition, a hook.Attachment, netns string) (*types100.Result, error) {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if c.PrevResult != nil {
		var err error
		if r, err = types100.NewResultFromResult(c.PrevResult); err != nil {
			return nil, types.NewError(types.ErrDecodingFailure, "prevResult: "+oneLine(err), "")
		}
	}
	index := len(r.Interfaces)
	r.Interfaces = append(r.Interfaces, &types100.Interface{
		Name: a.Interface, Mac: a.MAC.String(), Mtu: a.MTU, Sandbox: netns,
	})
	for _, p := range a.Addrs {
		ip := &types100.IPConfig{Interface: &index, Address: ipNet(p)}
		if i := slices.IndexFunc(a.Gateways, p.Contains); i >= 0 {
			ip.Gateway = a.Gateways[i].AsSlice()
		}
		r.IPs = append(r.IPs, ip)
	}
	for _, via := range a.Defaults {
		whole, _ := via.Prefix(0) // 0.0.0.0/0 or ::/0
		r.Routes = append(r.Routes, route(whole, via))
	}
	for _, s := range def.RoutesFor(a.Addrs) {
		r.Routes = append(r.Routes, route(s.Dst, s.Via))
	}
	names := a.ResolverFor(def)
	for _, server := range names.DNS {
		r.DNS.Nameservers = append(r.DNS.Nameservers, server.String())
	}
	r.DNS.Search = append(r.DNS.Search, names.Search...)
	return r, nil
}

// compare returns an error if prev, the result of the ADD, does not have what the container has now.
func compare(prev types.Result, a hook.Attachment) error {
	r, err := types100.NewResultFromResult(prev)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, "prevResult: "+oneLine(err), "")
	}
	i := slices.IndexFunc(r.Interfaces, func(i *types100.Interface) bool {
		return i.Name == a.Interface && i.Mac == a.MAC.String() && i.Sandbox != ""
	})
	for _, p := range a.Addrs {
		n := ipNet(p)
		if i < 0 || !slices.ContainsFunc(r.IPs, func(ip *types100.IPConfig) bool {
			return ip.Interface != nil && *ip.Interface == i && ip.Address.String() == n.String()
		}) {
			return fmt.Errorf("prevResult does not have interface %q with MAC %s and address %s, which the container has: "+
				"delete it and add it again", a.Interface, a.MAC, p)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// route returns a route by a router. The unspecified router means: directly by the interface.
func route(dst netip.Prefix, via netip.Addr) *types.Route {
	r := &types.Route{Dst: ipNet(dst)}
	if !via.IsUnspecified() {
		r.GW = via.AsSlice()
	}
	return r
}
