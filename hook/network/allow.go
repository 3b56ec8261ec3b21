package network

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
)

// Brokered says how the broker attaches those who have no privilege.
type Brokered string

const (
	// BrokeredGuarded keeps the interface that stands on the parent in a
	// namespace of the broker's, and passes on what carries the lease's
	// addresses.
	BrokeredGuarded Brokered = "guarded"
	// BrokeredDirect hands it to the user, who can then send whatever frames
	// they like. For users who are trusted with the LAN.
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

// GuardsParent reports whether what leaves by the parent is held to the leases:
// where it was asked for, and where users are given macvlans of their own.
func (d *Definition) GuardsParent() bool {
	if d.Guard == "" {
		return d.Brokered == BrokeredDirect && d.cannotGuardParent() == ""
	}
	return d.Guard == On
}

// cannotGuardParent says why nothing can be held to leases on the parent, or "".
func (d *Definition) cannotGuardParent() string {
	switch {
	case d.SharesMAC():
		return "the interfaces have the parent's MAC, which is the host's, too"
	case d.ShareParent:
		return "the parent is shared, and other networks' containers would be cut off"
	case d.IPAM == IPAMNone:
		return "the network gives no addresses to hold anybody to"
	}
	return ""
}

// defaultPerUser is how many attachments a user may have where the network does
// not say: enough for a desk, far from a subnet's end.
const defaultPerUser = 8

// maxPerUser is where a number is a slip of the pen.
const maxPerUser = 65536

var brokeredValues = []string{string(BrokeredGuarded), string(BrokeredDirect)}

// BrokeredMode is how the broker attaches, with the default filled in.
func (d *Definition) BrokeredMode() Brokered {
	if d.Brokered == "" {
		return BrokeredGuarded
	}
	return d.Brokered
}

// PerUser is how many attachments one user may have, with the default filled in.
func (d *Definition) PerUser() int {
	if d.MaxPerUser == 0 {
		return defaultPerUser
	}
	return d.MaxPerUser
}

// Allows reports whether a user of these ids may attach through the broker:
// root, and whoever the definition names. A name that the host does not know
// allows nobody; it is in the error, for the broker's log.
//
// A user's subordinate uids, 65,536 as a rule, are in all groups that the user is in,
// and a set-user-ID program lets the user come as each: for groups they do not count,
// or --max-per-user would be of no use.
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
		return false, errors.Join(err, fmt.Errorf("allow-group: uid %d is another's subordinate one (%s), and these do not count for groups", uid, subuids))
	}
	return ok || member, err
}

// Unknown says which of the users and groups that may attach the host does not know.
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

// uidOf takes numbers as well: for users of a directory service, which are not
// in /etc/passwd.
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

// validAllow answers "field: reason".
func (d *Definition) validAllow() error {
	if i := slices.IndexFunc(d.AllowUsers, badAccount); i >= 0 {
		return fmt.Errorf("allow-user[%d]: %s is no user's name or number", i, clip(d.AllowUsers[i]))
	}
	if i := slices.IndexFunc(d.AllowGroups, badAccount); i >= 0 {
		return fmt.Errorf("allow-group[%d]: %s is no group's name or number", i, clip(d.AllowGroups[i]))
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

// badAccount allows what useradd(8) does, and the '@' and '\' of directory
// services. The number must not be (uid_t)-1, which is nobody's.
func badAccount(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-$@\\"
	return name == "" || len(name) > maxName || name[0] == '-' || !consistsOf(name, letters) || name == "4294967295"
}
