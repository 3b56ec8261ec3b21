package testenv

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/mdlayher/ndp"
)

// Advertise sends one router advertisement (RFC 4861 §4.2) from the station, with a prefix from
// which hosts configure addresses (SLAAC).
func (s *Station) Advertise(prefix netip.Prefix) error {
	return s.Do(func() error {
		ifi, err := net.InterfaceByName(s.Card)
		if err != nil {
			return err
		}
		ifi.Name = strconv.Itoa(ifi.Index) // package net caches the ifindexes of names, for all namespaces
		c, _, err := ndp.Listen(ifi, ndp.LinkLocal)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.WriteTo(&ndp.RouterAdvertisement{
			CurrentHopLimit: 64, RouterLifetime: routerLifetime,
			Options: []ndp.Option{
				&ndp.PrefixInformation{
					PrefixLength: uint8(prefix.Bits()), Prefix: prefix.Addr(), OnLink: true, AutonomousAddressConfiguration: true,
					ValidLifetime: time.Hour, PreferredLifetime: time.Hour,
				},
				&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: s.MAC.Hardware()},
			},
		}, nil, netip.MustParseAddr("ff02::1"))
	})
}
