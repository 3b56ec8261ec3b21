// Package parts has what the packages that attach, rebuild and administer work with: the
// implementations of the interfaces between packages, for one host, and what follows from a
// definition and the host's links alone.
package parts

import (
	"context"
	"log/slog"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/hostid"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/netns"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/verify"
)

// Parts are the implementations for the host that Host has the namespace of.
type Parts struct {
	Host     *link.Host
	Networks string // directory of definitions
	// HostID returns the key from which MACs are derived.
	HostID func() (hostid.ID, error)
	DB     record.DB
	Leases Stores
	// Datapath watches trunks.
	Datapath verify.Datapath
	Probers  hook.Probers
	// SwitchPort returns what is known of the switch's port at the other end of a parent's trunk and
	// the parent's VLAN, "" if nothing is.
	SwitchPort func(ctx context.Context, p link.Parent) string
	// Guards pass only the frames that carry a lease of a guarded attachment. GuardNetns is the
	// path that the namespace of guarded attachments is pinned at.
	Guards     hook.Guards
	GuardNetns string

	// Names is the directory of hook.Attachment.WriteNames.
	Names string
	// ServiceRenews reports whether the service runs, which renews the leases of DHCP servers.
	ServiceRenews func() bool

	// Detached is called with each attachment that a call of Detach has removed; nil: not.
	Detached func(*hook.Attachment)

	Log *slog.Logger // for problems that fail no call
}

// NetnsOf returns the identity of an open namespace.
func NetnsOf(ns *link.Netns) (hook.Netns, error) {
	boot, err := netns.BootID()
	return hook.Netns{Boot: boot, Cookie: ns.Cookie, Inode: ns.Inode}, err
}
