package network

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
)

// Brokered selects how the service attaches containers of unprivileged users.
type Brokered string

const (
	// BrokeredGuarded keeps the macvlan in a namespace of the service, and forwards only
	// frames with the lease's MAC and addresses.
	BrokeredGuarded Brokered = "guarded"
	// BrokeredDirect gives the macvlan to the user, who can then send any frames. It is
	// for users that are trusted with the LAN.
	BrokeredDirect Brokered = "direct"
)

// Switch is "on", "off", or "" for the default.
type Switch string

// Values of a Switch.
const (
	On  Switch = "on"
	Off Switch = "off"
)

var switchValues = []string{string(On), string(Off)}

// GuardsParent reports whether frames that leave through the parent must match a lease. It
// is true if Guard is on, and by default for BrokeredDirect, if that is possible.
func (d *Definition) GuardsParent() bool {
	if d.Guard == "" {
		return d.Brokered == BrokeredDirect && d.cannotGuardParent() == ""
	}
	return d.Guard == On
}

// cannotGuardParent returns why the parent cannot enforce leases, or "".
func (d *Definition) cannotGuardParent() string {
	switch {
	case d.SharesMAC():
		return "the interfaces have the parent's MAC, which is the host's, too"
	case d.ShareParent:
		return "the parent is shared, and the containers of its other networks would lose their connection"
	case !d.HasLeases():
		return "the network has no leases to enforce, because ipam is \"none\""
	case d.IPAM == IPAMDHCP:
		return "with ipam \"dhcp\", containers send from 0.0.0.0 before they have a lease"
	case d.StablePrivacy():
		return "the guard recognizes addresses from routers by the MAC, which those of ipv6-addresses " +
			"\"stable-privacy\" do not contain"
	}
	return ""
}

// defaultPerUser is the default of MaxPerUser: enough for one person's work, and far fewer
// than a subnet's addresses.
const defaultPerUser = 8

// maxPerUser is the limit for MaxPerUser. A larger number is a typing error.
const maxPerUser = 65536

var brokeredValues = []string{string(BrokeredGuarded), string(BrokeredDirect)}

// BrokeredMode returns Brokered, or the default if that is empty.
func (d *Definition) BrokeredMode() Brokered {
	if d.Brokered == "" {
		return BrokeredGuarded
	}
	return d.Brokered
}

// PerUser returns the maximum number of attachments of one user: MaxPerUser or the default.
func (d *Definition) PerUser() int {
	if d.MaxPerUser == 0 {
		return defaultPerUser
	}
	return d.MaxPerUser
}

// Allows reports whether a user with these ids may attach through the service: root, and the
// users and groups that the definition names. A name that the host does not know allows no
// user. The error lists such names, for the service's log; ok is valid with an error, too.
//
// A user's subordinate uids, typically 65,536, are in all groups of the user, and a
// set-user-ID program lets the user connect with each of them. So groups do not allow
// subordinate uids; otherwise --max-per-user would have no effect.
func (d *Definition) Allows(uid uint32, gids []uint32) (ok bool, err error) {
	return d.allows(uid, gids, Subuids)
}

func (d *Definition) allows(uid uint32, gids []uint32, subuids string) (ok bool, err error) {
	if uid == 0 {
		return true, nil
	}
	for _, name := range d.AllowUsers {
		id, uerr := uidOf(name)
		ok, err = ok || uerr == nil && id == uid, errors.Join(err, uerr)
	}
	member := false
	for _, name := range d.AllowGroups {
		id, gerr := gidOf(name)
		member, err = member || gerr == nil && slices.Contains(gids, id), errors.Join(err, gerr)
	}
	if member && !ok && readSubordinates(subuids).has(uid) {
		return false, errors.Join(err, fmt.Errorf("allow-group: uid %d is a subordinate uid (%s), "+
			"which groups do not allow: use allow-user", uid, subuids))
	}
	return ok || member, err
}

// Unknown returns an error for each allowed user or group that the host does not know.
func (d *Definition) Unknown() (errs []error) {
	for _, name := range d.AllowUsers {
		if _, err := uidOf(name); err != nil {
			errs = append(errs, err)
		}
	}
	for _, name := range d.AllowGroups {
		if _, err := gidOf(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// uidOf returns the uid of a user's name or number. Numbers are for users of a directory
// service, who are not in /etc/passwd.
func uidOf(name string) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(id), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("allow-user: %w", err)
	}
	return id(u.Uid)
}

func gidOf(name string) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(id), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("allow-group: %w", err)
	}
	return id(g.Gid)
}

func id(digits string) (uint32, error) {
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err
}

// validAllow returns errors of the form "field: reason".
func (d *Definition) validAllow() error {
	if i := slices.IndexFunc(d.AllowUsers, badAccount); i >= 0 {
		return fmt.Errorf("allow-user[%d]: %s is not a user's name or number", i, Clip(d.AllowUsers[i]))
	}
	if i := slices.IndexFunc(d.AllowGroups, badAccount); i >= 0 {
		return fmt.Errorf("allow-group[%d]: %s is not a group's name or number", i, Clip(d.AllowGroups[i]))
	}
	if d.MaxPerUser < 0 || d.MaxPerUser > maxPerUser {
		return fmt.Errorf("max-per-user: %d is not between 1 and %d", d.MaxPerUser, maxPerUser)
	}
	if d.Guard != "" {
		if err := oneOf(string(d.Guard), switchValues); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
	}
	if why := d.cannotGuardParent(); d.Guard == On && why != "" {
		return fmt.Errorf("guard: cannot be on: %s", why)
	}
	if err := oneOf(string(d.BrokeredMode()), brokeredValues); err != nil {
		return fmt.Errorf("brokered: %w", err)
	}
	return nil
}

// badAccount reports whether name cannot be a user's or group's name or number. It accepts
// what useradd(8) does, and the '@' and '\' of directory services. It rejects the number of
// (uid_t)-1, which is not a valid uid.
func badAccount(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-$@\\"
	return name == "" || len(name) > maxName || name[0] == '-' || !consistsOf(name, letters) || name == "4294967295"
}
