package attach

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/lanyard-net/lanyard/hook"
	"github.com/lanyard-net/lanyard/hook/driver"
	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/verify"
)

// findMatch returns the attachment of the namespace that the request matches, if the container may
// join it. other is a record that has to be released or completed first.
func (t *attempt) findMatch(
	here []hook.Attachment, id hook.Netns,
) (match, other *hook.Attachment, err error) {
	for _, a := range here {
		// Before Linux 5.14 (no cookie), the record may be that of an earlier namespace with
		// the same inode: then it is not in use. A container of a pod may have deleted the
		// interface and exited, before its poststop, or the interface went with its parent.
		if (id.Cookie == 0 || a.WithNetns()) && a.State == hook.Attached && !t.needed(&a, id) {
			return nil, &a, nil
		}
		matches, err := t.matches(a)
		switch {
		case err != nil:
			return nil, nil, err
		case !matches:
			continue
		case a.State != hook.Attached:
			return nil, &a, nil
		case t.caller != nil && a.Owner != t.caller.UID:
			return nil, nil, refuseCaller("interface %q of its namespace is held by uid %d", a.Interface, a.Owner)
		}
		return &a, nil, nil
	}
	return nil, nil, nil
}

// matches reports whether an attachment of the namespace is the one that the container wants. It
// returns an error if only a part matches, such as the interface but not the address.
func (t *attempt) matches(a hook.Attachment) (bool, error) {
	w := t.want
	sameInterface := w.Interface == a.Interface
	if a.Network != w.Network && !sameInterface {
		return false, nil
	}
	if w.Interface != "" && !sameInterface {
		return false, nil // a second interface on the same network
	}
	if a.Network != w.Network {
		return false, fmt.Errorf("interface %q of this namespace is already on network %q: "+
			"choose another with io.lanyard.interface", a.Interface, a.Network)
	}
	if a.State != hook.Attached {
		return true, nil
	}
	for _, addr := range w.Addrs {
		if !slices.ContainsFunc(a.Addrs, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			return false, fmt.Errorf("cannot use address %s: interface %q of this namespace already has %s: "+
				"containers that share a namespace share its addresses", addr, a.Interface, joinPrefixes(a.Addrs))
		}
	}
	if !w.MAC.IsZero() && w.MAC != a.MAC {
		return false, fmt.Errorf("cannot use MAC %s: interface %q of this namespace already has %s: omit io.lanyard.mac",
			w.MAC, a.Interface, a.MAC)
	}
	if err := t.checkSettings(a); err != nil {
		return false, err
	}
	return true, nil
}

// checkSettings returns an error if the container requests sysctls, an MTU or a default route that the
// interface of an attachment was not created with. The containers of a rebuilt record, and what they
// requested, are unknown.
func (t *attempt) checkSettings(a hook.Attachment) error {
	const first = "request it with the container that starts first"
	w := t.want
	if len(a.Containers) == 0 {
		return nil
	}
	for _, s := range w.Sysctls {
		if !slices.Contains(a.Sysctls, s) {
			return fmt.Errorf("cannot set sysctl %s=%d: interface %q of this namespace was created without it: %s",
				s.Key, s.Value, a.Interface, first)
		}
	}
	if w.MTU != 0 && w.MTU != a.MTU && w.MTU != a.MTURequested {
		return fmt.Errorf("cannot use MTU %d: interface %q of this namespace was created with %d: %s",
			w.MTU, a.Interface, a.MTU, first)
	}
	if w.Default == nil || t.clusterHasDefault() || a.DefaultRoute != nil && *a.DefaultRoute == *w.Default {
		return nil
	}
	given := len(a.Gateways) > 0 || a.SLAAC != nil || t.def.Routed()
	if has := len(a.Defaults) > 0 || a.SLAAC != nil && a.SLAAC.Default; given && has != *w.Default {
		return fmt.Errorf("cannot use default-route=%t: interface %q of this namespace was created otherwise: %s",
			*w.Default, a.Interface, first)
	}
	return nil
}

// maxSharers is the number of containers that can hold one attachment of a caller. A caller can
// invent any number of container ids, and each is a row in the database.
const maxSharers = 64

// join adds a reference of the container to the attachment. It returns an *uncheckedJoin if checkJoined
// has not allowed this interface.
func (t *attempt) join(tx record.Tx, a hook.Attachment) error {
	if t.checked.ID != a.ID || t.checked.Index != a.Index {
		return &uncheckedJoin{a}
	}
	if a.Pod == (hook.Pod{}) {
		a.Pod = t.r.Pod // a rebuilt record, or the first container's state named no pod
	}
	if len(a.Containers) == 0 {
		a.Sysctls = t.want.Sysctls // of a rebuilt record: it was created with them
	}
	// An earlier reference of the container itself, and those of exited containers: their poststop may
	// never come, and they must not fill the caller's limit.
	a.Containers = slices.DeleteFunc(a.Containers, func(c hook.Container) bool {
		return c.ID == t.r.Container || c.Exited()
	})
	if t.caller != nil && len(a.Containers) >= maxSharers {
		return fmt.Errorf("interface %q is shared by %d containers already: remove one", a.Interface, len(a.Containers))
	}
	a.Containers = append(a.Containers, t.container())
	t.rec, t.joined = a, true
	return record.Put(tx, &t.rec)
}

// provenFor is how long a container that joins an attachment relies on the attachment's verdict. It covers
// a runtime that calls the hook twice, and the containers of a pod that start together.
const provenFor = 10 * time.Second

// checkJoined returns an error if the interface of an attachment does not exist any more, or if its
// verdict is fatal in the container's verify mode: that of its start, or that a process in the
// namespace has changed the interface. In mode strict the gateways are asked again, unless the start
// was within provenFor.
func (t *attempt) checkJoined(ctx context.Context, a *hook.Attachment) error {
	gone := fmt.Errorf("interface %q of this namespace is gone: stop the containers that share the namespace, "+
		"and start them again", a.Interface)
	switch exists, err := driver.Of(t.Parts, a).Exists(t.ns, a); {
	case err != nil:
		return fmt.Errorf("look for interface %q of this namespace: %w", a.Interface, err)
	case !exists:
		return gone
	}
	if lost := lostDHCP(a); len(lost) > 0 { // fatal in all modes, as at a start
		return fmt.Errorf("%s: %s: start the container again when it has one", lost[0].Code, lost[0].Text)
	}
	mode := a.Mode.Tighten(t.want.Verify)
	verdicts := append(verdictsOf(t.changesIn(t.ns, a, t.parentNow(a))), a.Verdict)
	// The host's clock may have been set back.
	if age := time.Since(a.Created); mode == verify.Strict && (age < 0 || age > provenFor) {
		var err error
		if verdicts, err = t.verifyIn(ctx, *a, t.ns); err != nil {
			return fmt.Errorf("verify interface %q of this namespace: %w", a.Interface, err)
		}
	}
	for _, v := range verdicts {
		if v.Code == verify.InterfaceGone {
			return gone
		}
		if v.Code.Fatal(mode) {
			return fmt.Errorf("interface %q of this namespace fails verify mode %s: %s: %s", a.Interface, mode, v.Code, v.Text)
		}
	}
	return nil
}

// An uncheckedJoin is returned by visit for an attachment to join that checkJoined has not seen yet.
type uncheckedJoin struct{ hook.Attachment }

func (u *uncheckedJoin) Error() string {
	return fmt.Sprintf("interface %q of the namespace was not checked", u.Interface)
}
