package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/ether"
	"github.com/lanyard-net/lanyard/hook/failpoint"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/hook/parts"
	"github.com/lanyard-net/lanyard/hook/record"
)

// UpdateParent gives a network another parent: the same link after it or its trunk was renamed, with
// the containers on it; or another link, if no container is on the earlier one any more. A
// sub-interface that Lanyard created is renamed. If the update is interrupted, the same call
// completes it. blind is that of CreateNetwork.
func (l *Admin) UpdateParent(ctx context.Context, name, parent string) (blind string, err error) {
	unlock, err := l.lockDefinitions(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	def, err := network.Load(l.Networks, name)
	if err != nil {
		return "", err
	}
	if def.Dummy() {
		return "", fmt.Errorf("network %q is isolated: its containers reach no parent: create another network", name)
	}
	existing, _ := network.LoadAll(l.Networks)
	n := siblingsOf(existing)
	n.remove(def)
	next := *def
	next.Parent, next.HostAddresses = parent, slices.Clone(def.HostAddresses)
	if blind, err = l.updateParent(ctx, def, &next, n); err != nil {
		return "", fmt.Errorf("network %q: %w", name, err)
	}
	return blind, nil
}

func (l *Admin) updateParent(
	ctx context.Context, def, next *network.Definition, n *siblings,
) (blind string, err error) {
	earlier, err := l.earlierParent(ctx, def)
	if err != nil {
		return "", err
	}
	p, created, err := l.prepareParent(ctx, next, n)
	if err == nil {
		err = l.checkHostAddrs(ctx, next, p)
	}
	if err == nil {
		err = l.saveParent(ctx, next, p)
	}
	if err != nil {
		if created {
			err = errors.Join(err, l.Host.RemoveParent(ctx, next.Parent, n.hasParent))
		}
		return "", err
	}
	failpoint.At("move")
	n.add(next)
	if err := l.findLinksInUse(ctx, n); err != nil {
		return "", err
	}
	again := def.Parent == next.Parent
	switch {
	case again:
		err = l.releaseUnneeded(next, p, n)
	case earlier != p.Index:
		err = l.releaseEarlier(ctx, def, n)
	}
	if err == nil {
		err = l.moveHostAccess(ctx, next, p)
	}
	if err != nil {
		return "", err
	}
	blind = l.WatchNetwork(next, p)
	if again {
		err = l.reportUnneeded(n)
	}
	return blind, err
}

// earlierParent returns the ifindex of the link that a network is on, whatever its name is now. It
// returns 0 if that is gone, or if the network has nothing on it.
func (l *Admin) earlierParent(ctx context.Context, def *network.Definition) (index int, err error) {
	if def.HostAccess {
		own, _, err := l.Host.FindHostLink(def.HostLink())
		if err != nil {
			return 0, err
		}
		if own != nil {
			return own.ParentIndex, nil
		}
	}
	recs, err := l.Attachments(ctx)
	if err != nil {
		return 0, err
	}
	for _, a := range recs {
		if a.Network != def.Name {
			continue
		}
		if p, err := l.Host.ParentAt(a.ParentIdx); err == nil {
			return p.Index, nil
		}
	}
	if p, err := l.Parent(def); err == nil {
		return p.Index, nil
	}
	if !def.Managed {
		return 0, nil
	}
	renamed, err := l.Host.FindRenamed(parts.SpecOf(def))
	if err != nil || renamed == nil {
		return 0, err
	}
	return renamed.Index, nil
}

// prepareParent renames the sub-interface that has the name from before its trunk was renamed, or
// creates it. It sets Managed in def.
func (l *Admin) prepareParent(
	ctx context.Context, def *network.Definition, n *siblings,
) (p link.Parent, created bool, err error) {
	inUse := func(name string) bool {
		return slices.ContainsFunc(n.byParent[name], func(o *network.Definition) bool {
			_, err := l.Parent(o)
			return err == nil
		})
	}
	if err := l.Host.RenameParent(ctx, parts.SpecOf(def), inUse); err != nil {
		return p, false, err
	}
	if p, err = l.resolveParent(def, n); err != nil {
		return p, false, err
	}
	if def.Managed && baseOf(def.Parent) == "" {
		if p.Index == 0 {
			return p, false, fmt.Errorf("parent %q: %w", def.Parent, link.ErrNoLink)
		}
		name := p.Trunk
		for _, tag := range p.Tags {
			name += fmt.Sprintf(".%d", tag.VID)
		}
		return p, false, fmt.Errorf("parent %q was created by Lanyard, which names it itself: use --parent %s",
			def.Parent, name)
	}
	return l.ensureParent(ctx, def)
}

// checkHostAddrs returns an error if the host's link has to be created on p, and another station on
// p's LAN or another link of the host has one of its addresses.
func (l *Admin) checkHostAddrs(ctx context.Context, def *network.Definition, p link.Parent) error {
	if !def.HostAccess {
		return nil
	}
	own, _, err := l.Host.FindHostLink(def.HostLink())
	if err != nil || own != nil && own.ParentIndex == p.Index {
		return err
	}
	addrs, err := l.Host.HostAddrs()
	if err != nil {
		return err
	}
	if own != nil {
		addrs = slices.DeleteFunc(addrs, func(h link.HostAddr) bool { return h.Index == own.Index })
	}
	links, err := l.Host.Interfaces()
	if err != nil {
		return err
	}
	const remedy = "recreate the network with another --host-address"
	for _, a := range def.HostAddresses {
		if hasAddr(addrs, a) {
			return fmt.Errorf("the host's address %s: another link of the host has it: %s", a, remedy)
		}
		c, err := l.ClaimantOnLAN(ctx, def, p, a)
		if err != nil {
			return err
		}
		// If both parents are on one LAN, the host itself answers, from any of its links.
		ours := func(i net.Interface) bool { return ether.MACOf(i.HardwareAddr) == c.MAC }
		if c != nil && !slices.ContainsFunc(links, ours) {
			return fmt.Errorf("the host's address %s: station %s on the LAN of %q has it: %s", a, c.MAC, p.Name, remedy)
		}
	}
	return nil
}

// moveHostAccess creates the host's link on p if it is missing, with the routes to running
// containers. It chooses the addresses if creating the network was interrupted before that.
func (l *Admin) moveHostAccess(ctx context.Context, def *network.Definition, p link.Parent) error {
	unknown := func(s network.Subnet) bool { return !def.HostAddress(s).IsValid() }
	if def.HostAccess && slices.ContainsFunc(def.Subnets, unknown) {
		return l.createHostAccess(ctx, def, p)
	}
	_, err := l.EnsureHostAccess(ctx, def, p)
	return err
}

// saveParent writes the definition with its new parent p, and p's name to the records of the
// containers on it. It returns an error if a container is on another link. An attach that has not
// recorded its intent yet finds that the definition has changed.
func (l *Admin) saveParent(ctx context.Context, def *network.Definition, p link.Parent) error {
	return l.WithDB(ctx, func() error {
		return l.DB.Update(ctx, func(tx record.Tx) error {
			if err := record.Ready(tx); err != nil {
				return err
			}
			held, err := record.ByNetwork(tx, def.Name)
			if err != nil {
				return err
			}
			for i := range held {
				if err := l.renameIn(tx, &held[i], p); err != nil {
					return err
				}
			}
			return def.Save(l.Networks)
		})
	})
}

// renameIn writes the parent's name to a record. It leaves the record of a container that has lost
// its parent as it is.
func (l *Admin) renameIn(tx record.Tx, a *hook.Attachment, p link.Parent) error {
	if a.State != hook.Attached {
		return fmt.Errorf("%s is starting or ending: try again", record.Users([]hook.Attachment{*a}))
	}
	if a.ParentIdx == p.Index {
		a.Parent, a.Trunk = p.Name, p.Trunk
		return record.Put(tx, a)
	}
	switch other, err := l.Host.ParentAt(a.ParentIdx); {
	case errors.Is(err, link.ErrNoLink):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%s on %q, which is another link than %q: end these containers first",
			record.Users([]hook.Attachment{*a}), other.Name, p.Name)
	}
}

// releaseEarlier removes what the network had on its earlier parent. n has the network with its new
// one.
func (l *Admin) releaseEarlier(ctx context.Context, def *network.Definition, n *siblings) error {
	name, err := l.releaseParent(def, n)
	if err != nil || name == "" {
		return err
	}
	err = l.Host.RemoveParent(ctx, name, n.hasParent)
	if errors.Is(err, link.ErrForeign) {
		return nil
	}
	return err
}

// releaseUnneeded completes an update that was interrupted after the definition was written, so that
// the earlier parent is unknown: it removes the host's link if that is not on p, and the trunk
// programs and guards that no network needs.
func (l *Admin) releaseUnneeded(def *network.Definition, p link.Parent, n *siblings) error {
	if def.HostAccess {
		own, _, err := l.Host.FindHostLink(def.HostLink())
		if err == nil && own != nil && own.ParentIndex != p.Index {
			err = l.Host.RemoveHostLink(def.HostLink())
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(l.releaseTrunks(p, true, n), l.freeGuards(def, l.neededLinks(n)))
}

// reportUnneeded returns an error if a link that Lanyard created belongs to no network: it may be the
// parent from before an interrupted update.
func (l *Admin) reportUnneeded(n *siblings) error {
	name, err := l.unneededLink(l.neededLinks(n))
	if err != nil || name == "" {
		return err
	}
	return fmt.Errorf("its parent is changed, but link %q, which Lanyard created, belongs to no network: "+
		"if that is the earlier parent, delete it (\"ip link del %s\")", name, name)
}
