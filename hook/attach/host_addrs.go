package attach

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/verify"
)

// HostClaimants returns a claimant for each address of the attachment that this host itself has, on
// any link.
func (l *Local) HostClaimants(a hook.Attachment) (list []verify.Claimant, err error) {
	addrs, err := l.Host.HostAddrs()
	if err != nil {
		return nil, err
	}
	for _, p := range a.Addrs {
		for _, h := range addrs {
			if h.Addr != p.Addr() {
				continue
			}
			name, mac, err := l.Host.HostLinkAt(h.Index)
			if err != nil {
				return nil, err
			}
			list = append(list, verify.Claimant{Addr: h.Addr, MAC: mac, At: verify.Now(), Count: 1, Link: name})
		}
	}
	return list, nil
}

// HostLinkOf returns the name of this host's link that has an address, "" if none has it.
func (l *Local) HostLinkOf(a netip.Addr) (name string, err error) {
	addrs, err := l.Host.HostAddrs()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(addrs, func(h link.HostAddr) bool { return h.Addr == a })
	if i < 0 {
		return "", nil
	}
	name, _, err = l.Host.HostLinkAt(addrs[i].Index)
	return name, err
}

// reserveHosts adds the host's own addresses to those that the pool must not assign: the host is a
// station on the LAN, too, but does not answer probes from itself.
func (l *Local) reserveHosts(reserved map[netip.Addr]string, subnet netip.Prefix, host []link.HostAddr) error {
	for _, h := range host {
		if !subnet.Contains(h.Addr) || reserved[h.Addr] != "" {
			continue
		}
		name, _, err := l.Host.HostLinkAt(h.Index)
		if err != nil {
			return err
		}
		reserved[h.Addr] = fmt.Sprintf("host's own, on %q", name)
	}
	return nil
}
