package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/link"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/verify"
)

// createInterface creates the interface in the namespace, and before it what it needs on the host. The
// interface has its sysctls then, and no address.
func (t *attempt) createInterface(ctx context.Context) error {
	if err := t.prepareLinks(ctx); err != nil {
		return err
	}
	if err := t.checkNamedMAC(); err != nil {
		return err
	}
	if err := t.createWithFreeMAC(ctx); err != nil {
		return err
	}
	return t.setSysctls()
}

// prepareLinks creates the parent and the host's own link if they are missing, and loads the
// trunk program. A managed parent is missing after a boot, and may be incomplete after its
// creator was killed.
func (t *attempt) prepareLinks(ctx context.Context) (err error) {
	if missing := t.parent.Index == 0; missing || t.def.Managed && !t.parent.Up {
		if t.parent, _, err = t.EnsureParent(ctx, t.def); err != nil {
			return err
		}
		if missing {
			if err := t.recordEndpoint(ctx); err != nil {
				return err
			}
		}
	}
	t.reached("parent")
	if t.hostIfindex, err = t.EnsureHostAccess(ctx, t.def, t.parent); err != nil {
		return err
	}
	t.unwatched = t.WatchNetwork(t.def, t.parent)
	t.r.Trace.Mark("watch")
	return nil
}

// WatchNetwork loads the trunk program for a network. It returns "", or the reason why the
// frames of the network's containers cannot be watched.
func (l *Local) WatchNetwork(def *network.Definition, p link.Parent) (unwatched string) {
	if why := driver.ForNetwork(l.Parts, def).WhyUnwatchable(p.Name); why != "" {
		return why
	}
	return l.WatchTrunk(p.TrunkIndex)
}

// checkNamedMAC looks in the host's neighbour table for a MAC that was asked for by name. A
// station on the LAN that has it keeps silent until it is asked for its own address, so
// that neither the trunk nor a question for ours may find it. The entry may be old: only
// mode strict refuses the MAC for it.
func (t *attempt) checkNamedMAC() error {
	if t.want.MAC.IsZero() || t.def.SharesMAC() || t.rec.Mode == verify.Off {
		return nil
	}
	addrs, err := t.Host.NeighboursOf(t.parent.Index, t.want.MAC)
	if err != nil {
		return err
	}
	own := t.addrs()
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return slices.Contains(own, a) })
	if len(addrs) == 0 {
		return nil
	}
	if t.rec.Mode == verify.Strict {
		return fmt.Errorf("cannot use MAC %s: station %s on %q has it, by this host's neighbour table: "+
			"choose another with io.lanyard.mac", t.want.MAC, addrs[0], t.parent.Name)
	}
	t.Log.Warn("a station on the LAN may have the MAC that the container asks for, by this host's neighbour table",
		"container", t.r.Container, "network", t.def.Name, "mac", t.want.MAC, "station", addrs[0], "parent", t.parent.Name)
	return nil
}

// create creates the interface in the namespace, after guard and datapath know it.
func (t *attempt) create(ctx context.Context) error {
	created, err := t.driver().Create(ctx, t.ns, t.spec())
	t.keep(created)
	t.reached("link")
	return err
}

// setSysctls sets what the container requests for its interface, and before it what several interfaces
// need.
func (t *attempt) setSysctls() error {
	separate, err := t.toSeparate()
	if err != nil {
		return err
	}
	return t.ns.Do(func() error {
		for _, name := range separate {
			if err := link.SeparateARP(name); err != nil {
				return err
			}
		}
		for _, s := range t.rec.Sysctls {
			if err := link.SetSysctl(t.rec.Interface, s.Key, s.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

// toSeparate returns the interfaces that are to answer ARP requests for their own addresses only: those
// of a container with several networks. By default, Linux answers on every interface for all addresses of
// the namespace. If two interfaces are on the same LAN, other stations then get two MACs for one address.
// For IPv6, the kernel answers on the interface with the address only (ndisc_recv_ns). A guard drops
// such answers, so guarded interfaces, which are not on a parent of the host, are not in the list.
//
// An interface is left out if its annotations request the sysctl. The attach of the second network
// separates both interfaces. Later ones, and those that create an interface again, leave the others as
// they are: the container may have changed them.
func (t *attempt) toSeparate() (names []string, err error) {
	list, err := t.ns.OnHostParents()
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(i link.Interface) bool { return !i.Marked })
	others, again := 0, false
	for _, a := range t.here {
		switch {
		case a.ID == t.rec.ID:
			again = true
		case a.State == hook.Attached && a.Guard == nil:
			others++
		}
	}
	if len(list) < 2 && others == 0 {
		return nil, nil
	}
	separated := again || others > 1
	for _, i := range list {
		if own := i.Index == t.rec.Index; (own || !separated) && !t.requestsARP(i) {
			names = append(names, i.Name)
		}
	}
	return names, nil
}

// requestsARP reports whether the annotations for an interface of the namespace request the sysctl that
// SeparateARP sets.
func (t *attempt) requestsARP(i link.Interface) bool {
	return slices.ContainsFunc(append(slices.Clip(t.here), t.rec), func(a hook.Attachment) bool {
		of := a.Index == i.Index || a.Index == 0 && a.Interface == i.Name // 0: the other hook still attaches it
		return of && slices.ContainsFunc(a.Sysctls, func(s hook.Sysctl) bool { return s.Key == link.KeyARPIgnore })
	})
}

// spec returns the description of the interface for its driver.
func (t *attempt) spec() driver.Spec {
	return driver.Spec{Attachment: t.rec, Network: t.def, Parent: t.parent}
}

// readdress gives the created interface the MAC, the MTU and the addresses of the record, and the
// sysctls that the container requests. For another MAC, a guarded interface is created again.
func (t *attempt) readdress(ctx context.Context) error {
	created, err := t.driver().Readdress(ctx, t.ns, t.link, t.spec())
	t.keep(created)
	if err != nil {
		return err
	}
	return t.setSysctls()
}

// keep stores the interface and its guard in the record: undo needs them, also after an error.
func (t *attempt) keep(c driver.Created) {
	if c.Index != 0 {
		t.link, t.rec.Index, t.rec.MTU = c.Interface, c.Index, c.MTU
	}
	if c.Guard != nil {
		t.rec.Guard = c.Guard
	}
}

// busyMACTimeout is how long an attach waits for a derived MAC that another macvlan of the parent
// has. The kernel frees the MAC of an ended container within milliseconds. The MAC of a link that
// Lanyard did not create stays in use.
const busyMACTimeout = time.Second

// namedMACTimeout is how long an attach waits for a MAC that is not replaced by another one. A hook has
// its own time limit, and "lanyard reattach" has none.
const namedMACTimeout = 5 * time.Second

// createWithFreeMAC creates the interface. If the derived MAC stays in use on the parent, it
// creates the interface with another one: Docker derives the MACs of containers on the same
// parent in the same way.
func (t *attempt) createWithFreeMAC(ctx context.Context) error {
	if err := t.expectFrames(ctx); err != nil {
		return err
	}
	if !t.want.MAC.IsZero() && !t.def.SharesMAC() {
		return t.createWithNamedMAC(ctx)
	}
	if t.def.SharesMAC() || t.rec.Guard != nil {
		return t.create(ctx)
	}
	soon, cancel := context.WithTimeout(ctx, busyMACTimeout)
	defer cancel()
	err := t.create(soon)
	if !errors.Is(err, link.ErrMACBusy) || ctx.Err() != nil {
		return err
	}
	old := t.rec.Endpoint
	t.macBusy, t.ending.busyMAC, t.rec.Former = true, old.MAC, &old
	if err := t.recordEndpoint(ctx); err != nil {
		return err
	}
	if err := t.expectFrames(ctx); err != nil {
		return err
	}
	if err := t.create(ctx); err != nil {
		return err
	}
	return t.forgetFormer()
}

// createWithNamedMAC creates the interface with the MAC that the container requests, which is not
// replaced. A link of the host keeps its MAC, and the attach fails at once. The MAC of an ended
// container is free as soon as the kernel has deleted its namespace.
func (t *attempt) createWithNamedMAC(ctx context.Context) error {
	holder, err := t.Host.MacvlanWithMAC(t.parent.Index, t.want.MAC)
	if err != nil {
		return err
	}
	if holder != "" {
		return fmt.Errorf("cannot use MAC %s: link %q of this host has it on %q: delete that link, or choose another "+
			"with io.lanyard.mac", t.want.MAC, holder, t.parent.Name)
	}
	soon, cancel := context.WithTimeout(ctx, namedMACTimeout)
	defer cancel()
	err = t.create(soon)
	if errors.Is(err, link.ErrMACBusy) {
		return fmt.Errorf("cannot use MAC %s: a macvlan on %q in another network namespace has it: end the processes "+
			"of that namespace, or choose another with io.lanyard.mac (%w)", t.want.MAC, t.parent.Name, err)
	}
	return err
}
